"""Reads of a dump file that give exactly what is asked for, or say what is missing.

Dumps are as large as a machine's memory, so nothing is read but what is asked for.
"""

from __future__ import annotations

from typing import Protocol

from hibercheck.errors import MalformedDump
from hibercheck.files.source import open_unpacked


class Readable(Protocol):
    """What the formats read from: a file, or a stream that is read as one."""

    @property
    def path(self) -> str:
        """The file as the user named it."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes."""
        ...

    def read(self, offset: int, size: int, what: str = "data") -> bytes:
        """Return exactly ``size`` bytes at ``offset``."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class DumpFile:
    """A dump file, decompressed on the way if it is compressed; see `Readable`.

    Raises:
        InputProblem: It cannot be opened, or is neither a regular file nor a block device.
        MalformedDump: It is empty, or its compressed data are damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open_unpacked(path, MalformedDump, advice="give the dump itself")

    @property
    def size(self) -> int:
        """Bytes in the file, decompressed."""
        return self._file.size

    def read(self, offset: int, size: int, what: str = "data") -> bytes:
        """Return exactly ``size`` bytes at ``offset``.

        Raises:
            MalformedDump: The range is not all in the file; ``what`` names it.
            InputProblem: The file cannot be read there.
        """
        if offset < 0 or size < 0 or not self._file.reaches(offset + size):
            raise MalformedDump(
                f"{what} of {size} bytes lies outside the file of {self.size} bytes",
                path=self.path,
                offset=offset,
                advice="the dump is cut or damaged, take it again",
            )
        return self._file.read(offset, size)

    def close(self) -> None:
        """Close the file; it may be called again."""
        self._file.close()
