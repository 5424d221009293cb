"""What a piece of work takes, without a clock: a machine that is busy must not turn a test red."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from hibercheck.errors import HibercheckError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HANG = 60
"""Seconds of the processor after which work is taken to hang; what is guarded takes ten at the most."""


def steps(ask: Callable[..., object], *given: object) -> int:
    """Count the lines of Python that a call runs; an error of ours is as good an end as another.

    A loop inside one call of C counts as one line: ends() is for those.
    """
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(HibercheckError):
            ask(*given)
    finally:
        sys.settrace(before)
    return count


@contextmanager
def ends(seconds: float = HANG) -> Iterator[None]:
    """Fail when the work has not ended after so many seconds of processor time of this process.

    Raises:
        TimeoutError: it has not.
    """

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not ended after {seconds} s of the processor")

    handler = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def told(stderr: str) -> str:
    """Take away the line that says that a command is still at work, which a busy machine brings."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("hibercheck: still "))
