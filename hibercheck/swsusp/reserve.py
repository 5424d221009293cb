"""Room for what is about to be written to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


@cache
def fallocate() -> Callable[[int, int, int, int], int] | None:
    """Find what reserves room in the C library; None where it has none."""
    import ctypes  # noqa: PLC0415 - only exports need it

    try:
        # fallocate(2): int fallocate(int fd, int mode, off_t offset, off_t len), of which off_t has 64 bits here
        function = ctypes.CDLL(None).fallocate
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function


def reserve(descriptor: int, offset: int, size: int) -> None:
    """Ask the file system for room, all at once, where it would otherwise find some for each page that is written.

    Not `os.posix_fallocate`: where the file system knows no such thing, glibc writes to every block instead.  Failing
    is of no consequence, and what the room fails for is said by the write that follows.
    """
    function = fallocate()
    if function is not None:
        function(descriptor, 0, offset, size)
