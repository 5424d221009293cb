"""Decompression of kernels and of what wraps them, as streams of bounded chunks.

A kernel's payload, a package's archive and a file compressed by hand all come through here.  No decoder is ever asked
for more than `CHUNK` bytes at a time (or one block, where the format has blocks), and `spool` stops at a limit, so that
a few kilobytes of hostile input cannot fill the memory or the disk.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hibercheck.errors import InputProblem, MalformedKernel, Unsupported
from hibercheck.kernel.binary import Bytes

CHUNK = 1 << 20
MAX_OUTPUT = 1 << 30
"""Largest decompressed file that is accepted: a distribution's vmlinux with all its debug information is 0.65 GiB."""

_XZ_MEMORY = 256 << 20
_LZ4_BLOCK = 8 << 20
_LZO_BLOCK = 64 << 20


class _Decoder(Protocol):
    """What the standard library's incremental decoders have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Zlib:
    """zlib's decoder with the interface of the others."""

    def __init__(self) -> None:
        import zlib  # noqa: PLC0415 - start-up time

        self._decoder = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _xz() -> _Decoder:
    import lzma  # noqa: PLC0415

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _lzma() -> _Decoder:
    import lzma  # noqa: PLC0415

    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY)


def _bzip2() -> _Decoder:
    import bz2  # noqa: PLC0415

    return bz2.BZ2Decompressor()


def _zstd() -> _Decoder:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError:
        from backports import zstd  # noqa: PLC0415

    decoder: _Decoder = zstd.ZstdDecompressor()
    return decoder


def _failures() -> tuple[type[Exception], ...]:
    """What the decoders raise on bad input."""
    import lzma  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    try:
        from compression.zstd import ZstdError  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError:
        from backports.zstd import ZstdError  # noqa: PLC0415

    return (zlib.error, lzma.LZMAError, ZstdError, OSError, EOFError, ValueError)


def _incremental(open_decoder: Callable[[], _Decoder]) -> Callable[[Iterator[bytes], bytes], Iterator[bytes]]:
    """A stream decoder that also takes several members one after the other, as gzip and xz files may have them."""

    def decode(chunks: Iterator[bytes], magic: bytes) -> Iterator[bytes]:
        decoder = open_decoder()
        for chunk in chunks:
            data = chunk
            while True:
                yield decoder.decompress(data, CHUNK)
                if decoder.eof:
                    data = decoder.unused_data
                    # What follows is another member, or the size that a kernel's payload ends with, or padding.
                    if not data.startswith(magic):
                        return
                    decoder = open_decoder()
                    continue
                if decoder.needs_input:
                    break
                data = b""
        raise EOFError("ends too early")

    return decode


class _Input:
    """Exact reads from a stream of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()

    def take(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        while len(self._held) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._held += chunk
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def exactly(self, size: int) -> bytes:
        """``size`` bytes, or EOFError."""
        taken = self.take(size)
        if len(taken) < size:
            raise EOFError("ends too early")
        return taken


def _lz4_legacy(chunks: Iterator[bytes], magic: bytes) -> Iterator[bytes]:
    """The legacy frame of ``lz4 -l``: magic, then blocks of 8 MiB, each after its length (lib/decompress_unlz4.c)."""
    import lz4.block  # noqa: PLC0415

    source = _Input(chunks)
    source.take(len(magic))
    while True:
        field = source.take(4)
        if len(field) < 4:
            return
        (size,) = struct.unpack("<I", field)
        if field == magic:
            continue
        block = source.take(size) if size <= _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16 else b""
        if len(block) < size:
            # The last word of a kernel's payload is not a length but the size of the whole.
            if not block and not source.take(1):
                return
            raise EOFError("ends too early")
        try:
            yield lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK)
        except (lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
            raise ValueError(f"corrupt block: {error}") from error


def _lzop(chunks: Iterator[bytes], magic: bytes) -> Iterator[bytes]:
    """The container of lzop(1): a header, then blocks after both their lengths (lib/decompress_unlzo.c)."""
    import lzallright  # noqa: PLC0415

    source = _Input(chunks)
    source.take(len(magic))
    version = struct.unpack(">H", source.exactly(2))[0]
    # u16 version, lib_version, [version_needed]; u8 method, [level]; u32 flags, [filter], mode, mtime, [mtime_high]
    source.exactly(2 + (2 if version >= 0x940 else 0) + 1 + (1 if version >= 0x940 else 0))
    flags = struct.unpack(">I", source.exactly(4))[0]
    source.exactly((4 if flags & 0x800 else 0) + 8 + (4 if version >= 0x940 else 0))
    source.exactly(source.exactly(1)[0] + 4)
    decoder = lzallright.LZOCompressor()
    while size := struct.unpack(">I", source.exactly(4))[0]:
        packed = struct.unpack(">I", source.exactly(4))[0]
        # F_ADLER32_D, F_CRC32_D: of the plain data; F_ADLER32_C, F_CRC32_C: of the packed data, not of stored blocks.
        checks = bool(flags & 0x1) + bool(flags & 0x100)
        checks += (bool(flags & 0x2) + bool(flags & 0x200)) if packed < size else 0
        source.exactly(4 * checks)
        if size > _LZO_BLOCK or packed > size:
            raise ValueError("claims a block larger than lzop makes")
        block = source.exactly(packed)
        try:
            plain = block if packed == size else decoder.decompress(block, size)
        except lzallright.LZOError as error:
            raise ValueError(f"corrupt block: {error}") from error
        if len(plain) != size:
            raise ValueError("a block of another length than it claims")
        yield plain


@dataclass(frozen=True, slots=True)
class Format:
    """A compression format: its name, how a file of it begins, and its stream decoder."""

    name: str
    magic: bytes
    decode: Callable[[Iterator[bytes], bytes], Iterator[bytes]]


FORMATS = (
    Format("gzip", b"\x1f\x8b\x08", _incremental(_Zlib)),
    Format("xz", b"\xfd7zXZ\x00", _incremental(_xz)),
    Format("zstd", b"\x28\xb5\x2f\xfd", _incremental(_zstd)),
    Format("bzip2", b"BZh", _incremental(_bzip2)),
    Format("lz4", b"\x02\x21\x4c\x18", _lz4_legacy),
    Format("lzo", b"\x89LZO\x00\r\n\x1a\n", _lzop),
    Format("lzma", b"\x5d\x00\x00", _incremental(_lzma)),
)


def recognise(head: bytes) -> Format | None:
    """The format that a file beginning with ``head`` is in, or None."""
    if head.startswith(b"\x04\x22\x4d\x18"):
        raise Unsupported("is in the lz4 frame format", advice="decompress it with 'lz4 -d'")
    return next((one for one in FORMATS if head.startswith(one.magic)), None)


def slices(data: Bytes, start: int, end: int) -> Iterator[bytes]:
    """A range of a file in chunks."""
    for at in range(start, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]


def decompressed(form: Format, chunks: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Decompress a stream.

    Raises:
        MalformedKernel: It is damaged or truncated; the message says which format it is in.
    """
    failures = _failures()
    stream = form.decode(chunks, form.magic)
    while True:
        try:
            chunk = next(stream, None)
        except failures as error:
            reason = str(error) or type(error).__name__
            advice = "fetch it again"
            raise MalformedKernel(f"its {form.name} data is damaged: {reason}", path=path, advice=advice) from error
        if chunk is None:
            return
        yield chunk


def spool(chunks: Iterator[bytes], path: str, limit: int = MAX_OUTPUT) -> mmap.mmap:
    """Write a stream to an unnamed temporary file and map it, so that only what is read of it takes memory.

    Raises:
        MalformedKernel: It is empty, or longer than ``limit`` bytes.
        InputProblem: There is no room for it.
    """
    total = 0
    try:
        with tempfile.TemporaryFile(prefix="hibercheck-") as file:
            for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise MalformedKernel(f"decompresses to more than {limit >> 20} MiB", path=path)
                file.write(chunk)
            file.flush()
            if not total:
                raise MalformedKernel("decompresses to nothing", path=path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        advice = "set TMPDIR to a directory with room"
        raise InputProblem(f"cannot be unpacked: {error.strerror or error}", path=path, advice=advice) from error
