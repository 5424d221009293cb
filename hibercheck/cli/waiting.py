"""A word on standard error for whoever waits at a terminal: only there, and only for what takes a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE = 0.5
"""Seconds before it is shown."""
CLEAR = "\r\x1b[K"


@contextmanager
def waiting(text: str, *, wanted: bool = True) -> Iterator[None]:
    """Show ``text`` on standard error while the body runs, once `PATIENCE` is over, and remove it afterwards."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    shown = threading.Event()

    def show() -> None:
        shown.set()
        _write(f"hibercheck: {text} ...")

    timer = threading.Timer(PATIENCE, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown.is_set():
            _write(CLEAR)


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that is gone needs no word
        sys.stderr.write(text)
        sys.stderr.flush()
