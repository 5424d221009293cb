"""A compressed copy of a swap device or of memory, decompressed as far as the reader has come.

The plain bytes go to an unlinked, sparse file in the directory of temporary files (TMPDIR), never to memory: what
lies behind an image on the device is not even decompressed.  A file that expands as none such does is given up.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO

from hibercheck.errors import InputProblem
from hibercheck.files.compression import CHUNK, Format, Undecodable, decoded, slices
from hibercheck.files.source import Source

MAX_RATIO = 500
"""Plain bytes other than zeros to a compressed one; memory that a test filled with one byte comes to some tens."""
UNQUESTIONED = 4 << 30
"""Plain bytes other than zeros up to which the ratio does not matter."""
MAX_ZERO_RATIO = 2000
"""Plain bytes, zeros among them, to a compressed one: a disk of 1 TiB with one system on it comes to some hundreds."""
UNQUESTIONED_ZEROS = 16 << 30
"""Plain bytes up to which that does not matter.  Beyond, bzip2 makes ten terabytes of zeros of eight megabytes."""

_ZEROS = bytes(CHUNK)


class SpooledSource(Source):
    """The plain bytes of a compressed file.

    Args:
        packed: The file, which this takes over.
        form: Its format.
        error: What to raise of what is damaged.

    Raises:
        InputProblem: There is no room for temporary files; or of the type ``error``.
    """

    _spool: IO[bytes] | None = None

    def __init__(self, packed: Source, form: Format, error: type[InputProblem]) -> None:
        self._packed = packed
        self._form = form
        self._error = error
        try:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        except OSError as problem:
            message = f"no temporary file for its plain bytes: {problem.strerror}"
            raise InputProblem(message, path=packed.path) from problem
        self._taken = 0
        self._chunks = decoded(form, self._counted(), strict=True)
        self._ended = False
        self._written = 0
        super().__init__(packed.path, os.dup(self._spool.fileno()))
        self.reaches(1)

    def _counted(self) -> Iterator[bytes]:
        for chunk in slices(self._packed, 0, len(self._packed)):
            self._taken += len(chunk)
            yield chunk

    @property
    def size(self) -> int:
        """Bytes in the decompressed file, all of which this decompresses."""
        while not self._ended:
            self._grow()
        return self._size

    def reaches(self, end: int) -> bool:
        """Whether the file has at least ``end`` bytes, decompressed so far if need be."""
        while self._size < end and not self._ended:
            self._grow()
        return end <= self._size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer, or none, past the end of the file."""
        self.reaches(offset + size)
        return super().read(offset, size)

    def is_hole(self, offset: int) -> bool:  # noqa: ARG002
        """Return False: a compressed file has no holes, only zeros."""
        return False

    def next_data(self, offset: int) -> int:
        """Return the first offset from ``offset`` on where something else than zeros may be; the size if none is."""
        while True:
            try:
                return os.lseek(self._descriptor, offset, os.SEEK_DATA)
            except OSError as problem:
                if problem.errno != errno.ENXIO:  # the file system knows no holes
                    return offset
            if self._ended:
                return self._size
            self._grow()

    def _grow(self) -> None:
        data = self._next()
        if data is None:
            self._ended = True
            return
        self._write(data)
        self._size += len(data)
        if self._written > max(UNQUESTIONED, MAX_RATIO * self._taken):
            raise self._endless(f"expands more than {MAX_RATIO}-fold, to {self._size} bytes so far")
        if self._size > max(UNQUESTIONED_ZEROS, MAX_ZERO_RATIO * self._taken):
            raise self._endless(f"is hardly more than zeros, {self._size} bytes so far")

    def _endless(self, what: str) -> InputProblem:
        advice = "if it is a disk or a swap device, decompress it first"
        return self._error(f"the {self._form.name} file {what}", path=self.path, advice=advice)

    def _next(self) -> bytes | None:
        try:
            return next(self._chunks, None)
        except Undecodable as problem:
            name, so_far = self._form.name, f"after {self._size} plain bytes"
            what = f"file is cut short {so_far}" if problem.cut else f"data are damaged {so_far}: {problem}"
            raise self._error(f"the {name} {what}", path=self.path) from problem

    def _write(self, data: bytes) -> None:
        descriptor = self._descriptor
        try:
            if data == (_ZEROS if len(data) == CHUNK else bytes(len(data))):  # twenty times as fast as to count them
                os.ftruncate(descriptor, self._size + len(data))
                return
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], self._size + done)
            self._written += len(data)
        except OSError as problem:
            message = f"no room for its plain bytes in {tempfile.gettempdir()}: {problem.strerror}"
            raise InputProblem(message, path=self.path, advice="set TMPDIR, or decompress it first") from problem

    def close(self) -> None:
        """Release the file and the temporary file."""
        super().close()
        self._packed.close()
        if self._spool is not None:
            self._spool.close()
