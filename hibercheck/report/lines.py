"""Lines of text with an indentation that wrapped lines keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console


def liner(console: Console) -> Callable[..., None]:
    """Return what prints one line to a console: its text, whose own indentation wrapped lines keep, and its style."""

    def line(text: str, style: str = "") -> None:
        put(console, text.strip(), style, indent=len(text) - len(text.lstrip()))

    return line


def put(console: Console, text: str | Text, style: str = "", *, indent: int = 0) -> None:
    """Print one line; where the console has a width of its own, wrap it at words and keep the indentation.

    A console with ``soft_wrap`` stands for a file or a pipe: there a line stays whole, to be searched for.
    """
    line = text if isinstance(text, Text) else Text(text, style=style)
    if console.soft_wrap:
        console.print(Text.assemble(" " * indent, line))
    else:
        console.print(Padding(line, (0, 0, 0, indent)))
