"""The bytes of an input file or block device, read in place.

Reading goes through one mapping, because a system call for each of the half million block lengths of a large image
costs more than decoding its PFN list.  The mapping is read only, and its resident pages are given back as the
reader moves on, so that memory does not grow with the image.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from types import TracebackType
from typing import Self

from hibercheck.errors import InputProblem, MalformedImage

PAGE_SIZE = 4096

RESIDENT_BYTES = 32 << 20
"""Bytes of the mapping that may be resident before they are given back to the system."""

FAULT_AROUND = 64 << 10
"""What the kernel maps around one fault in the page cache (``fault_around_bytes``, mm/memory.c)."""


class Source:
    """A file or block device mapped for reading.

    Args:
        path: What to open; never written to.

    Raises:
        InputProblem: It is missing, a directory, not permitted, or neither a file nor a block device.
        MalformedImage: It is empty.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._touched = 0
        self.fileno = open_readonly(path)
        try:
            self.size = os.lseek(self.fileno, 0, os.SEEK_END)
            if self.size == 0:
                raise MalformedImage("the file is empty", path=path)
            self._map = mmap.mmap(self.fileno, self.size, prot=mmap.PROT_READ)
        except OSError as problem:
            os.close(self.fileno)
            raise InputProblem(f"cannot be mapped: {problem.strerror}", path=path) from problem
        except MalformedImage:
            os.close(self.fileno)
            raise
        # Readahead of a random walk over a cold disk would read the whole image.
        self._map.madvise(mmap.MADV_RANDOM)
        self.view = memoryview(self._map)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer, or none, past the end of the file."""
        data = self._map[offset : offset + size]
        self.touched(size)
        return data

    def pieces(self, ranges: list[tuple[int, int]]) -> bytes | memoryview:
        """Return the bytes of consecutive (offset, size) ranges as one object, without copying if there is one.

        The view of a single range dies with the source; all ranges lie within `size`, as the caller has checked.
        """
        if len(ranges) == 1:
            offset, size = ranges[0]
            self.touched(size)
            return self.view[offset : offset + size]
        return b"".join(self.read(offset, size) for offset, size in ranges)

    def touched(self, size: int) -> None:
        """Account for ``size`` bytes just read, and give resident pages back when there are too many."""
        self._touched += size if size > FAULT_AROUND else FAULT_AROUND
        if self._touched > RESIDENT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def expect_sequential(self) -> None:
        """Tell the system that the file will now be read from its start to its end."""
        self._map.madvise(mmap.MADV_SEQUENTIAL)

    def is_hole(self, offset: int) -> bool:
        """Whether ``offset`` lies in a hole of a sparse file: data that were never written there, or were lost."""
        try:
            return os.lseek(self.fileno, offset, os.SEEK_DATA) > offset
        except OSError as problem:
            return problem.errno == errno.ENXIO and offset < self.size

    def close(self) -> None:
        """Release the mapping and the file."""
        self.view.release()
        self._map.close()
        os.close(self.fileno)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
