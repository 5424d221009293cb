"""A word on standard error for whoever waits: at a terminal soon, and gone afterwards; elsewhere one line, and late."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hibercheck.cli.terminal import columns

PATIENCE = 0.5
"""Seconds before it is shown."""
LONG = 10.0
"""Seconds before a line is written where there is no terminal: few inputs take that long, and none without reason."""
CLEAR = "\r\x1b[K"


@contextmanager
def waiting(text: str, *, wanted: bool = True) -> Iterator[None]:
    """Show ``text`` on standard error while the body runs, once `PATIENCE` is over, and remove it afterwards.

    Where standard error is not a terminal it is one line, written once `LONG` is over.
    """
    if not wanted:
        yield
        return
    terminal = sys.stderr.isatty()
    shown = threading.Event()

    def show() -> None:
        if terminal:
            shown.set()
        _write(_cut(f"hibercheck: {text} ...") if terminal else f"hibercheck: still {text} (after {LONG:.0f} s)\n")

    timer = threading.Timer(PATIENCE if terminal else LONG, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown.is_set():
            _write(CLEAR)


def _cut(line: str) -> str:
    """Cut a line so that it stays one on the terminal: a second could not be removed again."""
    room = columns(sys.stderr) - 1
    return line if len(line) <= room else f"{line[: room - 4]} ..."


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that is gone needs no word
        sys.stderr.write(text)
        sys.stderr.flush()
