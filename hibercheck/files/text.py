"""Small inputs that are read whole: facts, symbols, lists, settings, from a file or through a pipe.

What a user names may have no end (/dev/zero), may never begin (a FIFO that nobody writes to), or may be a device that
acts when it is opened.  So nothing is opened but files and pipes, more than the limit is never held, and a pipe that
stays silent is given up.
"""

from __future__ import annotations

import os
import select
import stat
import time

from hibercheck.errors import InputProblem
from hibercheck.files.devices import keeps_nothing, kind_of
from hibercheck.files.inputs import open_if

PATIENCE = 60.0
"""Seconds without a byte after which a pipe is given up: what fills it may have to fetch or unpack something first."""
_PIECE = 1 << 20


def read_whole(path: str, limit: int, what: str) -> bytes:
    """Return all that a regular file or a pipe holds.

    Args:
        path: The file; ``-`` is standard input.
        limit: The most bytes that such an input may have.
        what: What it is to be, for messages: "a facts file".

    Raises:
        InputProblem: It cannot be read, is something else than a file or pipe, is too large, or does not come.
        UsageProblem: It is one of the outputs.
    """
    path = "/dev/stdin" if path == "-" else path
    descriptor = open_if(path, path, lambda status: _require_readable(status, path, what))
    try:
        return _read(descriptor, os.fstat(descriptor), path, limit, what)
    except OSError as problem:
        raise InputProblem(f"cannot be read: {problem.strerror}", path=path) from problem
    finally:
        os.close(descriptor)


def _require_readable(status: os.stat_result, path: str, what: str) -> None:
    mode = status.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or keeps_nothing(status)):
        raise InputProblem(f"is {kind_of(status)}", path=path, advice=f"give {what}, or a pipe that brings it")


def _read(descriptor: int, status: os.stat_result, path: str, limit: int, what: str) -> bytes:
    # A regular file is read at once.  Those of procfs have no size and may have no end: one that has nothing to give
    # for the moment, such as /proc/kmsg, says so by EAGAIN.
    waits = stat.S_ISFIFO(status.st_mode)
    pieces: list[bytes] = []
    size = 0
    while size <= limit:
        if waits:
            _await(descriptor, path)
        try:
            piece = os.read(descriptor, min(_PIECE, limit + 1 - size))
        except BlockingIOError:
            if not waits:
                raise InputProblem("has no end", path=path, advice=f"give {what}") from None
            continue
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    most = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    raise InputProblem(f"is larger than {most}, which is too much for {what}", path=path)


def _await(descriptor: int, path: str) -> None:
    """Wait until a pipe has something, or has come to its end: which a FIFO without a writer has not, to poll(2)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + PATIENCE
    while not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        if time.monotonic() >= until:
            raise InputProblem(f"nothing came through this pipe for {PATIENCE:.0f} s", path=path)
