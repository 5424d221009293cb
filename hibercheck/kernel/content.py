"""The bytes of a kernel's file, read where they are asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from hibercheck.errors import InputProblem

_FIRST_PIECE, _PIECE = 1 << 14, 96 << 10
"""Bytes searched at a time: what is looked for is often near."""


class FileBytes:
    """The contents of an open file; see `hibercheck.kernel.binary.Bytes`.

    ``pread`` and not a memory map: who reads a mapped file that somebody truncates meanwhile is killed by SIGBUS.

    Args:
        path: The file.
        shown: What to call it in messages.

    Raises:
        InputProblem: It cannot be read, is empty, or is neither a regular file nor a block device.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._descriptor = -1
        try:
            # O_NONBLOCK: opening a FIFO nobody writes to must not hang
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InputProblem(f"cannot be read: {reason}", path=shown) from error
        try:
            self._size = self._measure()
        except InputProblem:
            self.close()
            raise

    def _measure(self) -> int:
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise InputProblem("cannot be read: Is a directory", path=self._shown)
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InputProblem("is neither a file nor a block device", path=self._shown)
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        if not size:
            raise InputProblem("is empty", path=self._shown)
        return size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: slice, /) -> bytes:
        start, stop, _ = index.indices(self._size)
        pieces, at = [], start
        while at < stop:  # one call ends at 2 GiB
            piece = self._read(at, stop - at)
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            piece = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise InputProblem(f"cannot be read: {error.strerror}", path=self._shown, offset=offset) from error
        if not piece:
            raise InputProblem("was cut while it was being read", path=self._shown, offset=offset)
        return piece

    def find(self, sub: bytes, start: int = 0, end: int | None = None, /) -> int:
        """Return the first offset of ``sub``, or -1; reads in pieces."""
        stop = self._size if end is None else min(end, self._size)
        size = _FIRST_PIECE
        while start < stop:
            found = self[start : min(start + size + len(sub) - 1, stop)].find(sub)
            if found >= 0:
                return start + found
            start, size = start + size, _PIECE
        return -1

    def close(self) -> None:
        """Close the file; it may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
