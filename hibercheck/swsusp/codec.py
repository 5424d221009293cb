"""Decoding one compressed block of an image, with the limits the kernel itself enforces.

LZO1X and LZ4 decoders are third-party code fed with whatever the file says: lengths are bounded before the call,
because lzallright's size argument is a hint and a hand-made block of 2 MB can expand to half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from mmap import mmap
from typing import cast

from hibercheck.addresses import PAGE_SIZE
from hibercheck.files.compression import lz4_block, lzo_block

# kernel/power/swap.c:
#   #define UNC_PAGES       32
#   #define UNC_SIZE        (UNC_PAGES * PAGE_SIZE)
#   #define bytes_worst_compress(x) ((x) + ((x) / 16) + 64 + 3 + 2)
#   #define CMP_HEADER      sizeof(size_t)
BLOCK_PAGES = 32
BLOCK_SIZE = BLOCK_PAGES * PAGE_SIZE
LENGTH_SIZE = 8
MAX_COMPRESSED = BLOCK_SIZE + BLOCK_SIZE // 16 + 64 + 3 + 2
MAX_STORED_PAGES = -(-(LENGTH_SIZE + MAX_COMPRESSED) // PAGE_SIZE)

Decoder = Callable[["bytes | memoryview"], bytes]
Filler = Callable[[int, int, int, int], int]
"""Called with the address of a block, that of the place for its bytes, and the sizes of both; returns how many bytes it
put there, negative on damage.
"""


class CorruptBlock(Exception):  # noqa: N818 - turned into MalformedImage by the caller, who knows where the block is
    """A block does not decode; the message says how."""


@cache
def filler(compressor: str) -> Filler | None:
    """Return what decodes into a place without copies; None for a compressor whose library gives out no such thing.

    python-lz4 decodes into memory that it allocates for each block and then copies, which takes longer than decoding.
    The decoder within it, which it exports or is linked with, is called here directly.
    """
    if compressor != "lz4":
        return None
    import ctypes  # noqa: PLC0415 - only what goes through a whole image needs it

    from lz4.block import _block  # noqa: PLC0415

    try:
        # lz4.h: int LZ4_decompress_safe(const char *src, char *dst, int compressedSize, int dstCapacity)
        safe = ctypes.CDLL(_block.__file__).LZ4_decompress_safe
    except (OSError, AttributeError):
        return None
    safe.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    safe.restype = ctypes.c_int
    return cast("Filler", safe)


def address_of(memory: mmap) -> int:
    """Return the address of memory, which must outlive its use."""
    import ctypes  # noqa: PLC0415 - as above

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _lzo(data: bytes | memoryview) -> bytes:
    try:
        return lzo_block(data, BLOCK_SIZE)
    except ValueError as problem:
        raise CorruptBlock(f"is not valid LZO data ({problem})") from problem


def _lz4(data: bytes | memoryview) -> bytes:
    try:
        return lz4_block(data, BLOCK_SIZE)
    except ValueError as problem:
        raise CorruptBlock(f"is not valid LZ4 data ({problem})") from problem


DECODERS: dict[str, Decoder] = {"lzo": _lzo, "lz4": _lz4}


def check_length(length: int) -> None:
    """See that a block's stored length is one that the kernel would accept (``load_compressed_image``).

    Raises:
        CorruptBlock: It is zero or more than the worst case of compression.
    """
    if not 0 < length <= MAX_COMPRESSED:
        raise CorruptBlock(f"says that it is {length} bytes long; 1 to {MAX_COMPRESSED} is possible")


def decode(decoder: Decoder, data: bytes | memoryview, pages: int) -> bytes:
    """Decode a block that must hold ``pages`` pages.

    Raises:
        CorruptBlock: It does not decode, or to another size.
    """
    plain = decoder(data)
    if len(plain) != pages * PAGE_SIZE:
        raise CorruptBlock(f"decodes to {len(plain)} bytes instead of {pages * PAGE_SIZE}")
    return plain
