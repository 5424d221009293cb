"""Where the text report is laid out: prose and columns set line by line, then written at once.

What wraps, and where, is rich's; but its `Table`, `Padding` and `Text` measure, cut and copy every cell several times
over, which took a fifth of the main command's time, and for a thousand CPUs with every frame fifteen seconds.  Here a
line is a string from the beginning: a cell that fits is filled up with blanks, and only what does not, or has colours,
is given to rich, which is not even loaded for a pipe or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from hibercheck.report.styled import PlainConsole, Raw, Text

if TYPE_CHECKING:
    from rich.segment import Segment
    from rich.text import Text as RichText

    from hibercheck.report.styled import Surface

Cell = str | tuple[str, str] | Text
"""A text, a text and its style, or one of several styles."""

GAP = 2
"""Blanks between two columns."""
READABLE = 100
"""Columns beyond which prose is hard to read; tables use what there is."""
ENDLESS = 1 << 20
"""Columns of a line that is not to be broken."""


class Ink:
    """Turns styled text into what is written to a console: itself, or with the codes of its colours around it."""

    def __init__(self, console: Surface) -> None:
        self._rich = None if isinstance(console, PlainConsole) else console
        self.colourless = console.color_system is None
        self._codes: dict[str, tuple[str, str]] = {}

    def plain(self, text: str, style: str) -> str:
        """Return a text of one style."""
        if not style or self.colourless or self._rich is None or not text:
            return text
        if style not in self._codes:
            from rich.segment import Segment  # noqa: PLC0415 - where there are colours

            before, _, after = self._rendered(Segment("\0", self._rich.get_style(style))).partition("\0")
            self._codes[style] = before, after
        before, after = self._codes[style]
        return f"{before}{text}{after}"

    def text(self, text: Text) -> str:
        """Return a text of several."""
        if not text.spans or self.colourless:
            return self.plain(text.plain, text.style)
        return self._line(text.rich())

    def lines(self, text: Text, room: int, *, fill: bool = False) -> list[str]:
        """Return the lines of a text in so many columns, broken between words, and filled up if that is wanted."""
        whole = text.plain.split("\n")
        fits = self.colourless and "\t" not in text.plain and all(_fits(line, room) for line in whole)
        if self._rich is None or fits:
            return [f"{line}{' ' * (room - _width(line))}" for line in whole] if fill else whole
        broken = text.rich().wrap(self._rich, max(room, 1), justify="left" if fill else None, overflow="fold")
        return [self._line(line) for line in broken]

    def _line(self, text: RichText) -> str:
        if not text.spans or self.colourless or self._rich is None:
            return self.plain(text.plain, str(text.style))
        return "".join(map(self._rendered, text.render(self._rich)))

    def _rendered(self, segment: Segment) -> str:
        system = None if self._rich is None else self._rich._color_system  # color_system is only its name
        return segment.style.render(segment.text, color_system=system) if segment.style else segment.text


class Columns:
    """Rows of cells below one another, without lines between them.

    Args:
        headers: What stands above each column.
        columns: How many columns there are, where nothing stands above them.
    """

    def __init__(self, *headers: str, columns: int = 0) -> None:
        self._headers = headers
        self._count = len(headers) or columns
        self._least = [0] * self._count
        self._rows: list[tuple[Cell, ...]] = []

    @property
    def row_count(self) -> int:
        """How many rows there are, headers aside."""
        return len(self._rows)

    def add_row(self, *cells: Cell) -> None:
        """Add a row; columns that are left out stay empty."""
        self._rows.append(cells)

    def keep(self, column: int, width: int) -> None:
        """Do not break what a column holds up to so many characters, where there is no room for all."""
        self._least[column] = width + (GAP if column < self._count - 1 else 0)

    def lines(self, ink: Ink, room: int) -> Iterator[str]:
        """Set the rows in so many columns of the terminal."""
        widths = self._widths(room)
        rooms = [max(width - GAP, 0) for width in widths[:-1]] + widths[-1:]
        blanks = [" " * width for width in rooms]
        if self._headers:
            heads = [_cell(ink, (header, "bold"), width) for header, width in zip(self._headers, rooms, strict=True)]
            gap = ink.plain(" " * GAP, "bold")
            above = [ink.plain(blank, "bold") for blank in blanks]
            # headers stand on what they head, other cells hang from the top of their row
            upside_down = zip_longest(*(reversed(head) for head in heads))
            yield from reversed([gap.join(_filled(line, above)) for line in upside_down])
        for row in self._rows:
            whole = (*row, *[""] * (self._count - len(row)))
            cells = [_cell(ink, cell, width) for cell, width in zip(whole, rooms, strict=True)]
            if all(len(cell) == 1 for cell in cells):
                yield (" " * GAP).join([cell[0] for cell in cells])
            else:
                yield from ((" " * GAP).join(_filled(line, blanks)) for line in zip_longest(*cells))

    def _widths(self, room: int) -> list[int]:
        """Return each column's width with the gap that follows it; the widest are narrowed where there is no room."""
        columns = zip_longest(self._headers or (), *self._rows, fillvalue="")
        widest = [max(map(_width, column), default=0) for column in columns]
        widest += [0] * (self._count - len(widest))
        gaps = [GAP] * (self._count - 1) + [0]
        wanted = [min(width + gap, room) or 1 for width, gap in zip(widest, gaps, strict=True)]
        return _narrowed(wanted, self._least, room)


def _filled(line: Sequence[str | None], blanks: Sequence[str]) -> list[str]:
    return [blank if part is None else part for part, blank in zip(line, blanks, strict=True)]


def _width(cell: Cell) -> int:
    """Columns of the terminal that the longest line of a cell takes."""
    text = cell if isinstance(cell, str) else cell[0] if isinstance(cell, tuple) else cell.plain
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - for characters that may take two columns

    return max(map(cell_len, text.splitlines()), default=0)


def _fits(line: str, room: int) -> bool:
    return 2 * len(line) <= room or _width(line) <= room


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


def _cell(ink: Ink, cell: Cell, room: int) -> list[str]:
    """Return the lines of a cell, each filled up to its width."""
    if isinstance(cell, Text):
        text, style, spans = cell.plain, cell.style, cell.spans
    else:
        (text, style), spans = cell if isinstance(cell, tuple) else (cell, ""), []
    if (not spans or ink.colourless) and len(text) <= room and text.isascii() and text.isprintable():
        return [ink.plain(text.ljust(room), style)]
    return ink.lines(cell if isinstance(cell, Text) else Text(text, style=style), room, fill=True)


class Sheet:
    """Lines on their way to a console, which gets them at the end.

    Args:
        console: Its width counts, its colours, and it wraps; with ``soft_wrap`` no line is broken.

    Attributes:
        width: Columns for what is drawn.
        whole: Whether lines stay whole, as in a pipe or a file.
    """

    def __init__(self, console: Surface) -> None:
        self.console = console
        self.width = console.width
        self.whole = bool(console.soft_wrap)
        self._ink = Ink(console)
        self._lines: list[str] = []

    def print(self, content: Text | Columns | None = None, *, indent: int = 0, prose: bool = False) -> None:
        """Add a text or columns, or an empty line.

        Args:
            content: What is added.
            indent: Blanks before each of its lines.
            prose: Whether it is read line by line, and so fills no more columns than are readable.
        """
        width = ENDLESS if self.whole else min(self.width, READABLE) if prose else self.width
        room, before = width - indent, " " * indent
        if content is None:
            self._lines.append("")
        elif isinstance(content, Columns):
            self._lines += [before + line for line in content.lines(self._ink, room)]
        else:
            self._lines += [before + line for line in self._ink.lines(content, room)]

    def verbatim(self, text: Text) -> None:
        """Add one line as it is, however long."""
        self._lines.append(self._ink.text(text))

    def crop(self, text: Text) -> None:
        """Add one line of which only what fits is shown."""
        if not _fits(text.plain, self.width):
            from rich.cells import set_cell_size  # noqa: PLC0415 - hardly ever

            text.plain = set_cell_size(text.plain, self.width)
        self._lines.append(self._ink.text(text))

    def flush(self) -> None:
        """Write all that was added."""
        lines = self._lines if self.console.color_system else [line.rstrip() for line in self._lines]
        written = "".join([f"{line}\n" for line in lines])
        self._lines.clear()
        self.console.print(Raw(written), soft_wrap=True)
