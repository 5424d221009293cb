"""A request to end (SIGINT, SIGTERM, SIGHUP) unwinds the stack once, so that half-written files and children go."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end; by default it would do so at once, and leave what it was writing."""

SECOND = 2.0
"""Seconds in which another request changes nothing: the first is being obeyed, and must not be disturbed in it."""

AGAIN = 0.01
"""Seconds until a request is made again that came where nothing can be raised."""

INTERRUPTED = 130
"""128 + SIGINT, as a shell has it."""


class Endings:
    """Whether somebody asked the process to end, and when."""

    def __init__(self) -> None:
        self.asked: float | None = None
        self.status = 0

    def end(self, number: int, _frame: object) -> None:
        """Raise what ends the process; the handler of `ENDINGS`.

        Raises:
            KeyboardInterrupt: For SIGINT.
            SystemExit: For the others, with a shell's status for a process that such a signal ended.
        """
        now = time.monotonic()
        if self.asked is not None and now - self.asked < SECOND:
            return
        self.asked, self.status = now, 128 + number
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.status)

    def lost(self, told: sys.UnraisableHookArgs) -> None:
        """Have a request made again that came in a finalizer, or in the callback of a weak reference, as imports have.

        What is raised there goes no further: the interpreter would print it and go on, and nobody would end.
        """
        if self.asked is not None and isinstance(told.exc_value, KeyboardInterrupt | SystemExit):
            self.asked = None
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            sys.__unraisablehook__(told)

    def again(self, _number: int, frame: object) -> None:
        """Raise what ends the process once more; the handler of the timer.

        Raises:
            KeyboardInterrupt: For SIGINT.
            SystemExit: For the others.
        """
        self.end(self.status - 128, frame)


@contextmanager
def ending_in_order(*, for_good: bool = False) -> Iterator[Endings]:
    """Handle requests to end while the body runs; those that are ignored or handled already are left as they are.

    Args:
        for_good: Whether the process ends after the body: then handlers stay once somebody has asked, so that a second
            request does not meet the interpreter on its way out.
    """
    endings = Endings()
    before = {}
    hook = sys.unraisablehook
    with suppress(ValueError):  # only the main thread may
        for one in ENDINGS:
            if signal.getsignal(one) in {signal.SIG_DFL, signal.default_int_handler}:
                before[one] = signal.signal(one, endings.end)
        if before:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, endings.again)
            sys.unraisablehook = endings.lost
    try:
        yield endings
    finally:
        if not (for_good and endings.asked is not None):
            for one, handler in before.items():
                signal.signal(one, handler)
            if before:
                sys.unraisablehook = hook


def leave(status: int) -> None:
    """End the process at once: the interpreter's own way out waits for threads, and can fail."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
