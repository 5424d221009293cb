"""Positioned reads of a dump file.

Dumps are as large as a machine's memory, so nothing is read but what is asked for.  ``pread`` and not a memory map:
a mapped file that somebody truncates meanwhile kills the process by SIGBUS, and the pages of a map count as ours.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType
from typing import Protocol, Self

from hibercheck.errors import InputProblem, MalformedDump


class Readable(Protocol):
    """What the formats read from: a file, or a stream that is read as one."""

    path: str
    size: int

    def read(self, offset: int, size: int, what: str = "data") -> bytes:
        """Return exactly ``size`` bytes at ``offset``."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Source:
    """An open file of known size.

    Attributes:
        path: The file as the user named it.
        size: Its size in bytes when it was opened.

    Raises:
        InputProblem: It cannot be opened, or is neither a regular file nor a block device.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # O_NONBLOCK: opening a FIFO nobody writes to must not hang
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InputProblem(f"cannot be opened: {reason}", path=path) from error
        try:
            self.size = self._measure()
        except InputProblem:
            self.close()
            raise

    def _measure(self) -> int:
        mode = os.fstat(self._fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InputProblem("is not a regular file", path=self.path, advice="give the dump itself")
        return os.lseek(self._fd, 0, os.SEEK_END)

    def read(self, offset: int, size: int, what: str = "data") -> bytes:
        """Return exactly ``size`` bytes at ``offset``.

        Raises:
            MalformedDump: The range is not all in the file; ``what`` names it.
            InputProblem: The file cannot be read there.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise MalformedDump(
                f"{what} of {size} bytes lies outside the file of {self.size} bytes",
                path=self.path,
                offset=offset,
                advice="the dump is cut or damaged, take it again",
            )
        try:
            content = os.pread(self._fd, size, offset)
        except OSError as error:
            raise InputProblem(f"cannot be read: {error.strerror}", path=self.path, offset=offset) from error
        if len(content) != size:
            raise InputProblem("was cut while it was being read", path=self.path, offset=offset)
        return content

    def close(self) -> None:
        """Close the file; it may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
