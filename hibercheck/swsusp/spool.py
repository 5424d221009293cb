"""A compressed copy of a swap device, decompressed as far as the reader has come.

The plain bytes go to an unlinked, sparse file in the directory of temporary files (TMPDIR), never to memory: what
lies behind the image on the device is not even decompressed.  A file that expands as no swap device does is given up.
"""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
from collections.abc import Callable
from typing import IO, Protocol

from hibercheck.errors import InputProblem, MalformedImage
from hibercheck.swsusp.source import Source

STEP = 1 << 20
XZ_MEMORY = 256 << 20
"""What an .xz file may demand for its dictionary; ``xz -9`` needs 65 MiB."""
MAX_RATIO = 500
"""Plain bytes other than zeros to a compressed one; memory that a test filled with one byte comes to some tens."""
UNQUESTIONED = 4 << 30
"""Plain bytes other than zeros up to which the ratio does not matter."""


class Reader(Protocol):
    """What decompresses: a file object of which only read is used."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` plain bytes; none at the end."""
        ...


class _XzReader:
    """Like lzma.LZMAFile, which has no memory limit."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decoder.eof:
                rest = (self._decoder.unused_data or self._packed.read(STEP)).lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
                data = self._decoder.decompress(rest, size)
            elif self._decoder.needs_input:
                packed = self._packed.read(STEP)
                if not packed:
                    raise EOFError
                data = self._decoder.decompress(packed, size)
            else:
                data = self._decoder.decompress(b"", size)
            if data:
                return data


def _zstd_reader(packed: IO[bytes]) -> Reader:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - Python 3.14
    except ImportError:
        from backports import zstd  # noqa: PLC0415
    reader: Reader = zstd.ZstdFile(packed)
    return reader


def _lz4_reader(packed: IO[bytes]) -> Reader:
    from lz4.frame import LZ4FrameFile  # noqa: PLC0415 - only .lz4 files need it

    reader: Reader = LZ4FrameFile(packed)
    return reader


def _gzip_reader(packed: IO[bytes]) -> Reader:
    return gzip.GzipFile(fileobj=packed)


READERS: dict[str, Callable[[IO[bytes]], Reader]] = {
    "gzip": _gzip_reader,
    "xz": _XzReader,
    "zstd": _zstd_reader,
    "lz4": _lz4_reader,
}


class SpooledSource(Source):
    """The plain bytes of a compressed file.

    Args:
        path: Its name, for messages.
        descriptor: An open descriptor of it, which the source takes over.
        name: The format, a key of `READERS`.

    Raises:
        InputProblem: There is no room for temporary files.
    """

    def __init__(self, path: str, descriptor: int, name: str) -> None:
        self._format = name
        try:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        except OSError as problem:
            raise InputProblem(f"no temporary file for its plain bytes: {problem.strerror}", path=path) from problem
        self._packed = os.fdopen(os.dup(descriptor), "rb")
        self._reader = READERS[name](self._packed)
        self._ended = False
        self._written = 0
        super().__init__(path, os.dup(self._spool.fileno()))
        try:
            self.reaches(1)
            os.close(descriptor)
        except BaseException:
            super().close()
            self._spool.close()
            self._packed.close()
            raise

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

    def _grow(self) -> None:
        data = self._read()
        if not data:
            self._ended = True
            return
        self._write(data)
        self._size += len(data)
        if self._written > max(UNQUESTIONED, MAX_RATIO * self._packed.tell()):
            message = f"the {self._format} file expands more than {MAX_RATIO}-fold, to {self._size} bytes so far"
            raise MalformedImage(message, path=self.path, advice="if it is a swap device, decompress it first")

    def _read(self) -> bytes:
        try:
            return self._reader.read(STEP)
        except EOFError as problem:
            message = f"the {self._format} file is cut short after {self._size} plain bytes"
            raise MalformedImage(message, path=self.path) from problem
        except MemoryError:
            raise
        except Exception as problem:  # each decoder has its own family of errors
            message = f"the {self._format} data are damaged after {self._size} plain bytes: {problem}"
            raise MalformedImage(message, path=self.path) from problem

    def _write(self, data: bytes) -> None:
        descriptor = self._spool.fileno()
        try:
            if data.count(0) == len(data):
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
        self._spool.close()
