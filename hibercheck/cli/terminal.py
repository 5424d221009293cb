"""How wide what is drawn may be, whatever COLUMNS says."""

from __future__ import annotations

import os
import re
from typing import IO

LEAST, MOST = 40, 1000
"""Columns that ``--width`` takes: no table of ours fits fewer, and no reader has more."""
USUAL = 80
"""Columns of a terminal that does not say how many it has."""
HEIGHT = 25
"""Lines that rich is told: nothing of ours depends on them, and else it takes LINES for a number without a test."""


def columns(stream: IO[str], otherwise: int = USUAL) -> int:
    """Return the columns for ``stream``: what COLUMNS says, the terminal's, or ``otherwise``; from `LEAST` to `MOST`.

    COLUMNS counts if it is a positive decimal number, as shells write it.
    """
    said = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[0-9]{1,9}", said) and int(said):
        found = int(said)
    else:
        try:
            found = os.get_terminal_size(stream.fileno()).columns or USUAL
        except (OSError, ValueError, AttributeError):
            found = otherwise
    return min(max(found, LEAST), MOST)


def wrapped(message: str, stream: IO[str]) -> str:
    """Return a message broken at blanks for a terminal, which itself breaks words; for anything else as it is."""
    try:
        if not stream.isatty():
            return message
    except (ValueError, AttributeError):
        return message
    lines, width = [""], columns(stream)
    for word in message.split(" "):
        whole = f"{lines[-1]} {word}" if lines[-1] else word
        if len(whole) <= width or not lines[-1]:
            lines[-1] = whole
        else:
            lines.append(f"  {word}")
    return "\n".join(lines)


def say(message: str) -> None:
    """Print a message to standard error."""
    import sys

    import click

    click.echo(wrapped(message, sys.stderr), err=True)
