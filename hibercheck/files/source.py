"""The bytes of an input file or block device, read where they are asked for: images, kernels and dumps alike.

They are read by ``pread`` and not through a memory map: who reads a mapped file that somebody truncates meanwhile, or a
mapped device that fails, is killed by SIGBUS, which nothing in Python can turn into a message; and the pages of a map
count as ours.  What is read is copied once, into the cache of the processor that needs it next.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import InputProblem
from hibercheck.files.inputs import open_input

AHEAD = 64 << 10
"""Bytes read for one word where the words asked for lie close together."""
CLOSE = 2 * PAGE_SIZE

_FIRST_PIECE, _PIECE = 1 << 14, 96 << 10
"""Bytes searched at a time: what is looked for is often near."""

Ranges = list[tuple[int, int]]
"""(byte offset, size) in the file, in the order in which they belong together."""
_WORD: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from


class Source:
    """A file or block device open for reading.

    Args:
        path: Its name, for messages.
        descriptor: An open descriptor of it, which the source takes over.

    Raises:
        InputProblem: It has no size.
    """

    _descriptor = -1

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        try:
            self._size = os.lseek(descriptor, 0, os.SEEK_END)
        except OSError as problem:  # /proc/kallsyms, for one, has no end
            advice = "copy it to a file first"
            raise InputProblem(f"cannot be read: {problem.strerror}", path=path, advice=advice) from problem
        self._window = b""
        self._window_at = 0

    @property
    def size(self) -> int:
        """Bytes in the file when it was opened."""
        return self._size

    def reaches(self, end: int) -> bool:
        """Whether the file has at least ``end`` bytes."""
        return end <= self._size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer, or none, past the end of the file.

        Raises:
            InputProblem: The file cannot be read there, or is shorter than it was.
        """
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as problem:
            raise self._unreadable(problem, offset) from problem
        return data if len(data) == size else self._whole(data, offset, size)

    def _whole(self, data: bytes, offset: int, size: int) -> bytes:
        """Read on after a call that returned less: one ends at 2 GiB, or where the file was cut."""
        pieces, done = [data], len(data)
        while done < size:
            if not pieces[-1]:
                raise self._cut(offset + done)
            try:
                pieces.append(os.pread(self._descriptor, size - done, offset + done))
            except OSError as problem:
                raise self._unreadable(problem, offset + done) from problem
            done += len(pieces[-1])
        return b"".join(pieces)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: slice, /) -> bytes:
        start, stop, _ = index.indices(self.size)
        return self.read(start, stop - start)

    def find(self, sub: bytes, start: int = 0, end: int | None = None, /) -> int:
        """Return the first offset of ``sub``, or -1; reads in pieces."""
        stop = self.size if end is None else min(end, self.size)
        size = _FIRST_PIECE
        while start < stop:
            found = self[start : min(start + size + len(sub) - 1, stop)].find(sub)
            if found >= 0:
                return start + found
            start, size = start + size, _PIECE
        return -1

    def word(self, offset: int) -> int:
        """Return the little-endian 64-bit word at ``offset``, which lies within the file, as the caller has checked.

        Raises:
            InputProblem: As `read`.
        """
        place = offset - self._window_at
        if not 0 <= place <= len(self._window) - 8:
            # A system call for each word costs little where words are far apart, and too much where they are not.
            near = 0 <= place <= len(self._window) + CLOSE
            self._window, self._window_at, place = self.read(offset, AHEAD if near else 8), offset, 0
        return _WORD(self._window, place)[0]

    def gather(self, ranges: Ranges) -> bytes:
        """Return the bytes of ranges, which all lie within the file, as one object; raises like `read`."""
        return b"".join([self.read(offset, size) for offset, size in ranges])

    def fill(self, buffer: memoryview, ranges: Ranges) -> None:
        """Read ranges, which all lie within the file, one after the other into ``buffer``; safe in any thread.

        Raises:
            InputProblem: As `read`.
        """
        start = 0
        for offset, size in ranges:
            done = 0
            while done < size:
                try:
                    count = os.preadv(self._descriptor, [buffer[start + done : start + size]], offset + done)
                except OSError as problem:
                    raise self._unreadable(problem, offset + done) from problem
                if not count:
                    raise self._cut(offset + done)
                done += count
            start += size

    def _unreadable(self, problem: OSError, offset: int) -> InputProblem:
        return InputProblem(f"cannot be read: {problem.strerror}", path=self.path, offset=offset)

    def _cut(self, offset: int) -> InputProblem:
        return InputProblem("was cut while it was being read", path=self.path, offset=offset)

    def expect_sequential(self) -> None:
        """Tell the system that the file will now be read from its start to its end."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def is_hole(self, offset: int) -> bool:
        """Whether ``offset`` lies in a hole of a sparse file: data that were never written there, or were lost."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA) > offset
        except OSError as problem:
            return problem.errno == errno.ENXIO and offset < self.size

    def next_data(self, offset: int) -> int:
        """Return the first offset from ``offset`` on that is not in a hole; the file's size if there is none."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as problem:
            return self.size if problem.errno == errno.ENXIO else offset

    def close(self) -> None:
        """Release the file; it may be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def open_source(path: str | os.PathLike[str], shown: str | None = None, *, advice: str | None = None) -> Source:
    """Open a file or block device.

    Args:
        path: What to open; never written to.
        shown: What messages call it, if not by its path.
        advice: What to do if it is something else.

    Raises:
        InputProblem: It is missing, a directory, not permitted, or neither a file nor a block device.
    """
    return Source(os.fspath(path) if shown is None else shown, open_input(path, shown, advice=advice))


def open_unpacked(path: str, error: type[InputProblem], *, advice: str | None = None) -> Source:
    """Open a file or block device as `open_source` does, decompressing it on the way if it is compressed.

    Raises:
        InputProblem: As `open_source`; of the type ``error``: it is empty, or damaged.
    """
    from hibercheck.files.compression import MARKED, recognise  # noqa: PLC0415 - start-up time

    source = open_source(path, advice=advice)
    head = source.read(0, 16)
    if not head:
        raise error("the file is empty", path=path)
    form = recognise(head, MARKED)
    if form is None:
        return source
    from hibercheck.files.spool import SpooledSource  # noqa: PLC0415 - compressed files are the exception

    return SpooledSource(source, form, error)


def open_content(path: str | os.PathLike[str], shown: str, *, limit: int, what: str) -> Source | bytes:
    """Open a file or block device as `open_source` does; what a pipe brings, or a file of procfs holds, is read whole.

    Args:
        path: What to open.
        shown: What messages call it.
        limit: The most bytes to take from a pipe.
        what: What it is to be, for messages.

    Raises:
        InputProblem: It cannot be read, or is empty.
    """
    path = "/dev/stdin" if path == "-" else path
    with suppress(OSError, ValueError):  # told when it is opened
        mode = os.stat(path)
        if stat.S_ISFIFO(mode.st_mode) or (stat.S_ISREG(mode.st_mode) and not mode.st_size):
            from hibercheck.files.text import read_whole  # noqa: PLC0415 - start-up time

            content = read_whole(os.fspath(path), limit, what)
            if not content:
                raise InputProblem("is empty", path=shown)
            return content
    return open_source(path, shown)
