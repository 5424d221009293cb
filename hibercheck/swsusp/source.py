"""The bytes of an input file or block device.

They are read by ``pread`` and not through a memory map: who reads a mapped file that somebody truncates meanwhile, or a
mapped device that fails, is killed by SIGBUS, which nothing in Python can turn into a message.  What is read is copied
once, into the cache of the processor that needs it next.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import Self

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import InputProblem, MalformedImage

COMPRESSED = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
"""What a compressed file starts with."""

AHEAD = 64 << 10
"""Bytes read for one word where the words asked for lie close together."""
CLOSE = 2 * PAGE_SIZE

Ranges = list[tuple[int, int]]
"""(byte offset, size) in the file, in the order in which they belong together."""
_WORD: Callable[[bytes, int], tuple[int]] = struct.Struct("<Q").unpack_from


class Source:
    """A file or block device open for reading.

    Args:
        path: Its name, for messages.
        descriptor: An open descriptor of it, which the source takes over.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.lseek(descriptor, 0, os.SEEK_END)
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
        if len(data) < size:
            raise self._cut(offset + len(data))
        return data

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
        """Release the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_source(path: str) -> Source:
    """Open a file or block device, decompressing it on the way if it is .gz, .xz, .zst or .lz4.

    Args:
        path: What to open; never written to.

    Raises:
        InputProblem: It is missing, a directory, not permitted, or neither a file nor a block device.
        MalformedImage: It is empty.
    """
    descriptor = open_readonly(path)
    try:
        return _source_of(path, descriptor, os.pread(descriptor, 8, 0))
    except OSError as problem:
        os.close(descriptor)
        raise InputProblem(f"cannot be read: {problem.strerror}", path=path) from problem
    except BaseException:
        os.close(descriptor)
        raise


def _source_of(path: str, descriptor: int, start: bytes) -> Source:
    if not start:
        raise MalformedImage("the file is empty", path=path)
    for name, magic in COMPRESSED.items():
        if start.startswith(magic):
            from hibercheck.swsusp.spool import SpooledSource  # noqa: PLC0415 - compressed files are the exception

            return SpooledSource(path, descriptor, name)
    return Source(path, descriptor)


def open_readonly(path: str) -> int:
    """Open a regular file or block device and return its descriptor.

    Raises:
        InputProblem: It cannot be opened, or is something else (a directory, a pipe, a terminal).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as problem:
        text = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise InputProblem(f"cannot be opened: {text}", path=path) from problem
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
        raise InputProblem(f"is {kind}", path=path, advice="give the swap device, or a copy of it")
    return descriptor
