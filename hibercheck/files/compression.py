"""Decompression of whatever a user gives compressed, as streams of bounded chunks.

A kernel's payload, a package's archive, a compressed image or dump all come through here.  No decoder is ever asked for
more than `CHUNK` bytes at a time (or one block, where the format has blocks); who takes the chunks sets the limit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from hibercheck.data import dataclass
from hibercheck.errors import InputProblem
from hibercheck.files.binary import Bytes

if TYPE_CHECKING:
    import mmap

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


@cache
def _zstd_library() -> Any:  # noqa: ANN401 - one of two modules, of which a machine has one
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - Python 3.14
    except ImportError:
        from backports import zstd  # noqa: PLC0415
    return zstd


def _zstd() -> _Decoder:
    decoder: _Decoder = _zstd_library().ZstdDecompressor()
    return decoder


def _lz4_frame() -> _Decoder:
    from lz4.frame import LZ4FrameDecompressor  # noqa: PLC0415

    decoder: _Decoder = LZ4FrameDecompressor()
    return decoder


def _failures() -> tuple[type[Exception], ...]:
    """Return what the decoders raise on bad input."""
    import lzma  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    return (zlib.error, lzma.LZMAError, _zstd_library().ZstdError, OSError, EOFError, ValueError)


class Undecodable(Exception):  # noqa: N818 - turned into an error of ours by the caller, who knows what it reads
    """A stream that does not decode; the message says how.

    Attributes:
        cut: Whether it only ends too early.
    """

    def __init__(self, reason: str, *, cut: bool) -> None:
        super().__init__(reason)
        self.cut = cut


# Blocks, whole in memory: what images, dumps and disks compress page by page or cluster by cluster.


def zstd_block(packed: bytes, size: int) -> bytes:
    """Return up to ``size`` bytes of a zstd frame.

    Raises:
        ValueError: It is damaged.
    """
    library = _zstd_library()
    try:
        return bytes(library.ZstdDecompressor().decompress(packed, size))
    except library.ZstdError as error:
        raise ValueError(str(error)) from error


@cache
def _lzo_library() -> tuple[Callable[..., bytes], type[Exception]]:
    from lzallright import LZOCompressor, LZOError  # noqa: PLC0415 - only what is compressed by LZO needs it

    return LZOCompressor.decompress, LZOError


def lzo_block(packed: bytes | memoryview, size: int) -> bytes:
    """Return a block of LZO1X, of which ``size`` is a guess: it may be longer.

    Raises:
        ValueError: It is damaged.
    """
    decompress, failure = _lzo_library()
    try:
        return bytes(decompress(packed, size))
    except failure as error:
        raise ValueError(str(error)) from error


@cache
def _lz4_library() -> tuple[Callable[..., bytes], type[Exception]]:
    from lz4.block import LZ4BlockError, decompress  # noqa: PLC0415 - only what is compressed by LZ4 needs it

    return decompress, LZ4BlockError


def lz4_block(packed: bytes | memoryview, size: int) -> bytes:
    """Return a block of LZ4, of ``size`` bytes at most.

    Raises:
        ValueError: It is damaged, or longer.
    """
    decompress, failure = _lz4_library()
    try:
        return bytes(decompress(packed, uncompressed_size=size))
    except failure as error:
        raise ValueError(str(error)) from error


_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))
"""zstd's frames for users' data, which lz4 has too (RFC 8878, 3.1.2)."""


def _incremental(open_decoder: Callable[[], _Decoder]) -> Callable[[Iterator[bytes], bytes, bool], Iterator[bytes]]:
    """Return a stream decoder that takes several members in a row too, as gzip and xz files may have them."""

    def decode(chunks: Iterator[bytes], magic: bytes, strict: bool) -> Iterator[bytes]:
        decoder = open_decoder()
        for chunk in chunks:
            data = chunk
            while True:
                yield decoder.decompress(data, CHUNK)
                if decoder.eof:
                    data = _following(decoder.unused_data or b"", chunks, len(magic))
                    # Another member, or padding, or what a kernel's payload ends with: its size.
                    if not data.startswith((magic, *_SKIPPABLE)):
                        if strict and data:
                            raise ValueError("something else follows them")
                        return
                    decoder = open_decoder()
                    continue
                if decoder.needs_input:
                    break
                data = b""
        raise EOFError("ends too early")

    return decode


def _following(data: bytes, chunks: Iterator[bytes], size: int) -> bytes:
    """Return what follows a member, without the padding before it: at least ``size`` bytes, if there are so many."""
    data = data.lstrip(b"\0")
    while len(data) < size:
        chunk = next(chunks, None)
        if chunk is None:
            break
        data = (data + chunk).lstrip(b"\0")
    return data


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


def _lz4_legacy(chunks: Iterator[bytes], magic: bytes, _strict: bool) -> Iterator[bytes]:
    """Decode the legacy frame of ``lz4 -l``: magic, then blocks of 8 MiB, each after its length."""
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
            yield lz4_block(block, _LZ4_BLOCK)
        except ValueError as error:
            raise ValueError(f"corrupt block: {error}") from error


def _lzop(chunks: Iterator[bytes], magic: bytes, _strict: bool) -> Iterator[bytes]:
    """Decode the container of lzop(1): a header, then blocks after both their lengths (lib/decompress_unlzo.c)."""
    source = _Input(chunks)
    source.take(len(magic))
    version = struct.unpack(">H", source.exactly(2))[0]
    # u16 version, lib_version, [version_needed]; u8 method, [level]; u32 flags, [filter], mode, mtime, [mtime_high]
    source.exactly(2 + (2 if version >= 0x940 else 0) + 1 + (1 if version >= 0x940 else 0))
    flags = struct.unpack(">I", source.exactly(4))[0]
    source.exactly((4 if flags & 0x800 else 0) + 8 + (4 if version >= 0x940 else 0))
    source.exactly(source.exactly(1)[0] + 4)
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
            plain = block if packed == size else lzo_block(block, size)
        except ValueError as error:
            raise ValueError(f"corrupt block: {error}") from error
        if len(plain) != size:
            raise ValueError("a block of another length than it claims")
        yield plain


@dataclass(frozen=True, slots=True)
class Format:
    """A compression format: its name, how a file of it begins, and its stream decoder.

    The decoder is given chunks, how the stream begins, and whether something else behind it is an error.
    """

    name: str
    magic: bytes
    decode: Callable[[Iterator[bytes], bytes, bool], Iterator[bytes]]


MARKED = (
    Format("gzip", b"\x1f\x8b\x08", _incremental(_Zlib)),
    Format("xz", b"\xfd7zXZ\x00", _incremental(_xz)),
    Format("zstd", b"\x28\xb5\x2f\xfd", _incremental(_zstd)),
    Format("bzip2", b"BZh", _incremental(_bzip2)),
    Format("lz4", b"\x02\x21\x4c\x18", _lz4_legacy),
    Format("lz4 frame", b"\x04\x22\x4d\x18", _incremental(_lz4_frame)),
    Format("lzo", b"\x89LZO\x00\r\n\x1a\n", _lzop),
)
"""The formats whose beginning tells them from anything else."""
FORMATS = (*MARKED, Format("lzma", b"\x5d\x00\x00", _incremental(_lzma)))


def recognise(head: bytes, formats: tuple[Format, ...] = FORMATS) -> Format | None:
    """Return the format that a file beginning with ``head`` is in, or None."""
    return next((one for one in formats if head.startswith(one.magic)), None)


def slices(data: Bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield a range of a file in chunks."""
    for at in range(start, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]


def decoded(form: Format, chunks: Iterator[bytes], *, strict: bool = False) -> Iterator[bytes]:
    """Decompress a stream.

    Args:
        form: Its format.
        chunks: The stream.
        strict: Whether something else behind it is an error.

    Raises:
        Undecodable: It is damaged or cut.
    """
    failures = _failures()
    stream = form.decode(chunks, form.magic, strict)
    while True:
        try:
            chunk = next(stream, None)
        except InputProblem:
            raise
        except failures as error:
            reason = str(error) or type(error).__name__
            raise Undecodable(reason, cut=isinstance(error, EOFError)) from error
        except RuntimeError as error:  # python-lz4's, of a damaged frame
            raise Undecodable(str(error), cut=False) from error
        if chunk is None:
            return
        yield chunk


def decompressed(form: Format, chunks: Iterator[bytes], path: str, error: type[InputProblem]) -> Iterator[bytes]:
    """Decompress a stream; one that is damaged or cut is an ``error``, whose message says which format it is in."""
    try:
        yield from decoded(form, chunks)
    except Undecodable as problem:
        advice = "fetch it again"
        raise error(f"its {form.name} data is damaged: {problem}", path=path, advice=advice) from problem


def spool(chunks: Iterator[bytes], path: str, error: type[InputProblem], limit: int = MAX_OUTPUT) -> mmap.mmap:
    """Write a stream to an unnamed temporary file and map it, so that only what is read of it takes memory.

    Raises:
        InputProblem: There is no room for it; of the type ``error``: it is empty, or longer than ``limit`` bytes.
    """
    import mmap  # noqa: PLC0415 - start-up time
    import tempfile  # noqa: PLC0415

    total = 0
    try:
        with tempfile.TemporaryFile(prefix="hibercheck-") as file:
            for chunk in chunks:
                total += len(chunk)
                if total > limit:
                    raise error(f"decompresses to more than {limit >> 20} MiB", path=path)
                file.write(chunk)
            file.flush()
            if not total:
                raise error("decompresses to nothing", path=path)
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as problem:
        advice = "set TMPDIR to a directory with room"
        raise InputProblem(f"cannot be unpacked: {problem.strerror or problem}", path=path, advice=advice) from problem
