"""Where the text report is laid out: prose and columns set line by line, then written at once.

Wrapping, columns and colours are those of rich, whose own `Table` and `Padding` measure and cut every cell several
times over: the report took a fifth of the main command's time, and that of a thousand CPUs with every frame fifteen
seconds.  Here a cell that fits is only filled up with blanks; what does not fit is left to rich to wrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment, Segments
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Blanks between two columns."""

Line = list[Text]
"""What stands side by side in one line."""


class Columns:
    """Rows of cells below one another, without lines between them.

    Args:
        headers: What stands above each column.
        columns: How many columns there are, where nothing stands above them.
    """

    def __init__(self, *headers: str, columns: int = 0) -> None:
        self._headers = [Text(header, style="bold") for header in headers]
        self._count = len(headers) or columns
        self._least = [0] * self._count
        self._rows: list[tuple[Text, ...]] = []

    @property
    def row_count(self) -> int:
        """How many rows there are, headers aside."""
        return len(self._rows)

    def add_row(self, *cells: Text | str) -> None:
        """Add a row; columns that are left out stay empty."""
        made = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._rows.append((*made, *(Text() for _ in range(self._count - len(made)))))

    def keep(self, column: int, width: int) -> None:
        """Do not break what a column holds up to so many characters, where there is no room for all."""
        self._least[column] = width + (GAP if column < self._count - 1 else 0)

    def lines(self, console: Console, room: int) -> Iterator[Line]:
        """Set the rows in so many columns of the terminal."""
        widths = self._widths(room)
        if self._headers:
            yield from _row(console, self._headers, widths, Text(" " * GAP, style="bold"))
        for row in self._rows:
            yield from _row(console, row, widths, Text(" " * GAP))

    def _widths(self, room: int) -> list[int]:
        """The width of each column with the gap that follows it; the widest are narrowed where there is no room."""
        widths = [0] * self._count
        for row in chain([self._headers] if self._headers else [], self._rows):
            for column, cell in enumerate(row):
                plain = cell.plain
                if len(plain) > widths[column] or not plain.isascii():
                    widths[column] = max(widths[column], *map(cell_len, plain.splitlines() or [""]))
        gaps = [GAP] * (self._count - 1) + [0]
        return _narrowed(
            [min(width + gap, room) or 1 for width, gap in zip(widths, gaps, strict=True)], self._least, room
        )


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Take from the widest what is too much, evenly, until they are as wide as the next ones; as rich does."""
    while (excess := sum(widths) - room) > 0:
        free = [column for column, width in enumerate(widths) if width > least[column]]
        if not free:
            return _narrowed(widths, [0] * len(widths), room)
        widest = max(widths[column] for column in free)
        second = max((widths[column] for column in free if widths[column] != widest), default=0)
        wide = [column for column in free if widths[column] == widest]
        most = min(excess, widest - second)
        for left, column in zip(range(len(wide), 0, -1), wide, strict=True):
            cut = min(most, widest - least[column], round(excess / left))
            widths[column] -= cut
            excess -= cut
    return widths


def _row(console: Console, cells: list[Text] | tuple[Text, ...], widths: list[int], gap: Text) -> Iterator[Line]:
    """The lines of one row: as many as its highest cell has; the gap's style is the row's."""
    rooms = [max(width - GAP, 0) for width in widths[:-1]] + widths[-1:]
    columns = [_cell(console, cell, room) for cell, room in zip(cells, rooms, strict=True)]
    blanks = [Text(" " * room, style=gap.style) for room in rooms]
    height = max(map(len, columns))
    for number in range(height):
        line: Line = []
        for column, blank in zip(columns, blanks, strict=True):
            at = number - height + len(column) if gap.style else number  # headers stand on what they head
            line += [column[at] if 0 <= at < len(column) else blank, gap]
        yield line[:-1]


def _cell(console: Console, cell: Text, room: int) -> list[Text]:
    """The lines of a cell, each filled up to its width."""
    plain = cell.plain
    if plain.isascii() and len(plain) <= room and plain.isprintable():
        if len(plain) < room:
            cell = cell.copy()
            cell.pad_right(room - len(plain))
        return [cell]
    return list(cell.wrap(console, max(room, 1), justify="left", overflow="fold"))


class Sheet:
    """Lines on their way to a console, which gets them at the end.

    Args:
        console: Its width counts, its colours, and it wraps.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = console.width
        self._lines: list[Line] = []

    def print(self, content: Text | Columns | None = None, *, indent: int = 0, width: int | None = None) -> None:
        """Add a text or columns, or an empty line.

        Args:
            content: What is added.
            indent: Blanks before each of its lines.
            width: Columns of the terminal to fill, those of the indentation among them; by default all.
        """
        room = (width or self.width) - indent
        before = [Text(" " * indent)] if indent else []
        if content is None:
            self._lines.append([])
        elif isinstance(content, Columns):
            self._lines.extend([*before, *line] for line in content.lines(self.console, room))
        else:
            self._lines.extend([*before, line] for line in content.wrap(self.console, room))

    def crop(self, text: Text) -> None:
        """Add one line of which only what fits is shown."""
        text.truncate(self.width, overflow="crop")
        self._lines.append([text])

    def flush(self) -> None:
        """Write all that was added."""
        if self.console.color_system is None:
            segments = [Segment("".join([part.plain for part in line]).rstrip() + "\n") for line in self._lines]
        else:
            made = (Text.assemble(*line, end="\n") for line in self._lines)
            segments = [segment for line in made for segment in line.render(self.console, end=line.end)]
        self._lines.clear()
        self.console.print(Segments(segments), soft_wrap=True, end="")
