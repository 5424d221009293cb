"""The bytes of an input file or block device, read in place.

Reading goes through a mapping, because a system call for each of the half million block lengths of a large image
costs more than decoding its PFN list.  The mapping is read only, and its resident pages are given back as the
reader moves on, so that memory does not grow with the image.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
from collections.abc import Callable
from typing import Self

from hibercheck.errors import InputProblem, MalformedImage

COMPRESSED = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
"""What a compressed file starts with."""

RESIDENT_BYTES = 32 << 20
"""Bytes of the mapping that may be resident before they are given back to the system."""

FAULT_AROUND = 64 << 10
"""What the kernel maps around one fault in the page cache (``fault_around_bytes``, mm/memory.c)."""

_WORD: Callable[[mmap.mmap, int], tuple[int]] = struct.Struct("<Q").unpack_from


class Source:
    """A file or block device mapped for reading.

    Args:
        path: Its name, for messages.
        descriptor: An open descriptor of it, which the source takes over.

    Raises:
        InputProblem: It cannot be mapped.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._touched = 0
        self._maps: list[mmap.mmap] = []
        self._size = os.lseek(descriptor, 0, os.SEEK_END)
        self._can_shrink = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._map(self._size)

    def _map(self, size: int) -> None:
        """Map the first ``size`` bytes; views of earlier mappings stay valid."""
        try:
            mapped = mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ)
        except OSError as problem:
            raise InputProblem(f"cannot be mapped: {problem.strerror}", path=self.path) from problem
        self._maps.append(mapped)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._size

    def reaches(self, end: int) -> bool:
        """Whether the file has at least ``end`` bytes."""
        return end <= self._size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer, or none, past the end of the file."""
        self._account(size)
        return self._maps[-1][offset : offset + size]

    def word(self, offset: int) -> int:
        """Return the little-endian 64-bit word at ``offset``, which lies within the file, as the caller has checked."""
        self._touched += FAULT_AROUND
        if self._touched > RESIDENT_BYTES:
            self._account(0)
        return _WORD(self._maps[-1], offset)[0]

    def pieces(self, ranges: list[tuple[int, int]]) -> bytes | memoryview:
        """Return the bytes of consecutive (offset, size) ranges as one object, without copying if there is one.

        The view of a single range dies with the source; all ranges lie within the file, as the caller has checked.
        """
        if len(ranges) == 1:
            offset, size = ranges[0]
            self._account(size)
            return memoryview(self._maps[-1])[offset : offset + size]
        return b"".join(self.read(offset, size) for offset, size in ranges)

    def _account(self, size: int) -> None:
        """Account for ``size`` bytes about to be read, and give resident pages back when there are too many."""
        self.require_whole()
        self._touched += size if size > FAULT_AROUND else FAULT_AROUND
        if self._touched > RESIDENT_BYTES:
            self._maps[-1].madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def require_whole(self) -> None:
        """See that the file is still as long as it was: beyond its end a mapping kills its reader by SIGBUS.

        Raises:
            InputProblem: It is not.
        """
        if self._can_shrink and os.fstat(self._descriptor).st_size < self._size:
            raise InputProblem("was cut while it was being read", path=self.path)

    def expect_sequential(self) -> None:
        """Tell the system that the file will now be read from its start to its end."""
        self._maps[-1].madvise(mmap.MADV_SEQUENTIAL)

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
        """Release the file; views of it that are still held keep its mapping, and no more, alive."""
        for mapped in self._maps:
            try:
                mapped.close()
            except BufferError:  # a view that an exception's traceback holds; the mapping goes with it
                continue
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
