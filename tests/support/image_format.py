"""The pieces of a hibernation image, encoded: shared by the writer for tests and the maker of large images.

Written from kernel/power/swap.c and snapshot.c, and on purpose without anything of hibercheck.swsusp.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence

PAGE = 4096
BLOCK_PAGES = 32
MAP_ENTRIES = 511
PER_META_PAGE = 512
END = (1 << 64) - 1
ZERO_FLAG = 1 << 63

NOCOMPRESS, CRC32, HW_SIG, LZ4 = 2, 4, 8, 16
COMPRESSION_FLAGS = {"none": NOCOMPRESS, "lzo": CRC32, "lz4": CRC32 | LZ4}

ERAS = ("4.7", "4.8", "4.10", "5.14")
"""The first kernel (but for the first era: the last) that writes each kind of arch record."""


_MOST_KEPT = 512
_kept: dict[bytes, bytes] = {}
"""Blocks as LZO makes them, by a digest of what is in them: it takes 8 ms for one, and tests write the same again."""


def compress(kind: str, plain: bytes) -> bytes:
    """Compress one block."""
    if kind == "lzo":
        key = hashlib.blake2b(plain, digest_size=16).digest()
        if key not in _kept:
            if len(_kept) == _MOST_KEPT:
                _kept.clear()
            from lzallright import LZOCompressor  # noqa: PLC0415

            _kept[key] = bytes(LZOCompressor().compress(plain))
        return _kept[key]
    from lz4.block import compress as lz4_compress  # noqa: PLC0415

    return bytes(lz4_compress(plain, store_size=False))


def stored_block(packed: bytes, *, length: int | None = None, garbage: int = 0xAA) -> bytes:
    """Return a block as stored: its length, its bytes, and whatever was in the rest of the last page."""
    data = struct.pack("<Q", len(packed) if length is None else length) + packed
    return data + bytes([garbage]) * (-len(data) % PAGE)


def pack_pfns(words: Sequence[int]) -> list[bytes]:
    """Return the pages of the PFN list: ended by ~0 unless it fills its last page, zeros behind that."""
    pages = []
    for first in range(0, len(words), PER_META_PAGE):
        part = list(words[first : first + PER_META_PAGE])
        if len(part) < PER_META_PAGE:
            part.append(END)
        pages.append(struct.pack(f"<{len(part)}Q", *part).ljust(PAGE, b"\0"))
    return pages


def record(era: str, *, jump: int, jump_phys: int, cr3: int, e820: bytes) -> bytes:
    """Return struct restore_data_record of an era; ``e820`` is its memory map."""
    if era == "4.7":
        return struct.pack("<3Q", jump, cr3, 0x0123456789ABCDEF)
    head = struct.pack("<3Q", jump, jump_phys, cr3)
    if era == "4.8":
        return head + struct.pack("<Q", 0x123456789ABCDEF0)
    if era == "4.10":
        import hashlib  # noqa: PLC0415

        return head + struct.pack("<Q", 0x23456789ABCDEF01) + hashlib.md5(e820, usedforsecurity=False).digest()
    return head + struct.pack("<QQ", 0x23456789ABCDEF02, zlib.crc32(e820))


def info_page(
    arch_record: bytes, *, num_physpages: int, image_pages: int, pages: int, size: int | None = None
) -> bytes:
    """Return struct swsusp_info with the arch record over its start."""
    numbers = struct.pack("<QIxxxxQQQ", num_physpages, 0, image_pages, pages, pages * PAGE if size is None else size)
    return (arch_record.ljust(400, b"\0") + numbers).ljust(PAGE, b"\0")


def header_page(
    *,
    image: int,
    flags: int,
    crc32: int = 0,
    hw_sig: int = 0,
    sig: bytes = b"S1SUSPEND\0",
    orig_sig: bytes = b"SWAPSPACE2",
) -> bytes:
    """Return struct swsusp_header."""
    tail = struct.pack("<IIQI10s10s", hw_sig, crc32, image, flags, orig_sig, sig)
    return tail.rjust(PAGE, b"\0")


def map_pages(
    entries: Sequence[int], place: Callable[[], int], *, trailing: bool = False
) -> tuple[list[int], list[bytes]]:
    """Return the page numbers and contents of the swap map that lists ``entries``.

    Args:
        entries: Page numbers of the stored pages.
        place: Gives the page number of the next map page.
        trailing: Whether a map that ends full is followed by an empty page, as up to 7.2.
    """
    groups = [entries[first : first + MAP_ENTRIES] for first in range(0, len(entries), MAP_ENTRIES)] or [[]]
    if trailing and len(groups[-1]) == MAP_ENTRIES:
        groups.append([])
    numbers = [place() for _ in groups]
    pages = []
    for group, following in zip(groups, [*numbers[1:], 0], strict=True):
        pages.append(struct.pack(f"<{MAP_ENTRIES}QQ", *group, *[0] * (MAP_ENTRIES - len(group)), following))
    return numbers, pages


def running_crc(chunks: Sequence[bytes], crc: int = 0) -> int:
    """Return the kernel's checksum, or continue it: crc32_le from 0 without a final inversion."""
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc
