"""Text with styles, and where it goes if neither colours nor a width are wanted: then rich is not loaded.

To load rich takes a fifth of the main command's processor time, and what goes to a pipe or a file has whole lines
without colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    from rich.console import Console
    from rich.segment import Segments
    from rich.text import Text as RichText

    Surface: TypeAlias = "Console | PlainConsole"
    """Where a report is drawn."""

_CONTROLS = dict.fromkeys((7, 8, 11, 12, 13))
"""Control codes that rich leaves out (rich.control.STRIP_CONTROL_CODES)."""


class Text:
    """As much of `rich.text.Text` as reports use; a console of rich prints it.

    Args:
        plain: The characters.
        style: The style of all of it.

    Attributes:
        spans: Parts with a style of their own: first character, the one behind the last, style.
    """

    __slots__ = ("plain", "spans", "style")

    def __init__(self, plain: str = "", style: str = "") -> None:
        self.plain = plain.translate(_CONTROLS)
        self.style = style
        self.spans: list[tuple[int, int, str]] = []

    @classmethod
    def assemble(cls, *parts: str | tuple[str, str] | Text, style: str = "") -> Text:
        """Put a text together of texts, some with a style."""
        whole = cls(style=style)
        for part in parts:
            if isinstance(part, tuple):
                whole.append(*part)
            else:
                whole.append(part)
        return whole

    def append(self, part: str | Text, style: str = "") -> None:
        """Add a text at the end; ``style`` is that of a plain one."""
        text = part if isinstance(part, Text) else Text(part, style)
        at = len(self.plain)
        if text.style and text.plain:
            self.spans.append((at, at + len(text.plain), text.style))
        self.spans += [(at + first, at + end, style) for first, end, style in text.spans]
        self.plain += text.plain

    def stylize(self, style: str, first: int, end: int) -> None:
        """Give some characters a style."""
        end = min(end, len(self.plain))
        if first < end:
            self.spans.append((first, end, style))

    def rich(self) -> RichText:
        """Return the same as a text of rich."""
        from rich.text import Span  # noqa: PLC0415 - see above
        from rich.text import Text as RichText  # noqa: PLC0415

        return RichText(self.plain, style=self.style, spans=[Span(*span) for span in self.spans])

    __rich__ = rich


class Raw:
    """Lines that are printed as they are: there may be hundreds of thousands."""

    def __init__(self, plain: str) -> None:
        self.plain = plain

    def __rich__(self) -> Segments:
        """Return them in a form that rich does not look into."""
        from rich.segment import Segment, Segments  # noqa: PLC0415 - as above

        return Segments([Segment(self.plain)])


class PlainConsole:
    """Stands for a pipe or a file that gets no colours: what is printed is collected, and no line is broken.

    Args:
        width: Columns for what is drawn to fit.
        encoding: Of the characters that may be used.
    """

    soft_wrap = True
    color_system = None

    def __init__(self, width: int, encoding: str) -> None:
        self.width = width
        self.encoding = encoding
        self._parts: list[str] = []

    def print(self, content: Text | Raw | None = None, *, soft_wrap: bool = True) -> None:
        """Add a text and end its line, or lines as they are; no line is wrapped, with ``soft_wrap`` or without."""
        del soft_wrap
        self._parts.append("" if content is None else content.plain)
        if not isinstance(content, Raw):
            self._parts.append("\n")

    @property
    def text(self) -> str:
        """All that was printed."""
        return "".join(self._parts)
