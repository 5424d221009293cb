"""Writes hibernation images of every era, compressor and kind of damage, for tests.

    ImageWriter(frames={0x100: page, 0x101: None}, compressor="lz4").write(path)

A frame of None is all zeros.  Damage is by name (`DAMAGES`), one or several at a time.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import image_format as fmt
from tests.support.image_format import BLOCK_PAGES, PAGE, ZERO_FLAG

ZERO = bytes(PAGE)

DAMAGES = {
    "map-loop": "the last swap map page leads back to the first",
    "map-overlong": "the swap map lists pages that the image does not take",
    "map-short": "the swap map ends before the image does",
    "map-next-beyond": "the swap map continues beyond the end of the file",
    "map-entry-beyond": "an entry of the swap map lies beyond the end of the file",
    "map-empty": "the first swap map page is all zeros",
    "truncated": "the file ends in the middle",
    "length-zero": "a block says that it is empty",
    "length-huge": "a block says that it is longer than a block can be",
    "length-short": "a block says that it is shorter than it is",
    "block-short": "a block in the middle decodes to fewer pages than 32",
    "block-uneven": "a block decodes to a size that is not a multiple of the page size",
    "block-garbage": "a block is not compressed data",
    "bomb": "a block decodes to far more than 32 pages",
    "pfn-twice": "the PFN list names a frame twice",
    "pfn-unsorted": "the PFN list is out of order",
    "pfn-impossible": "the PFN list names a frame beyond 52 bits of physical address",
    "pfn-list-ends-early": "the PFN list has its end mark too soon",
    "count-of-data": "image_pages is one too many",
    "count-of-pages": "the number of pages is far more than there are",
    "info-contradicts": "size is not the number of pages",
    "crc": "the checksum is another",
    "data-flipped": "a data page was changed after the checksum was made",
    "hole": "the pages of a block were never written: a hole",
    "map-hole": "the first swap map page was never written: a hole",
}
BLOCK_DAMAGES = {"length-zero", "length-huge", "length-short", "block-short", "block-uneven", "block-garbage", "bomb"}


@dataclass(kw_only=True)
class ImageWriter:
    """One image to be written.

    Attributes:
        frames: PFN to 4096 bytes, or to None for a frame of zeros.
        compressor: ``lzo``, ``lz4`` or ``none``.
        era: One of `image_format.ERAS`: the arch record's kind.
        zero_flag: Whether frames of zeros are left out and marked (6.6 and later).
        hw_sig: Hardware signature, or None for a writer that gives none.
        trailing_map_page: Whether a full swap map is followed by an empty page (up to 7.2).
        header_at: Page of the header: a swap file's resume_offset.
        base: Byte offset in the file at which the device starts: a partition.
        shuffle: Seed by which stored pages are spread over the device; None lays them out in order.
        consumed: Whether a resume has put the swap signature back.
        container: ``swap``, or ``stream`` for what /dev/snapshot gives.
        damage: Names out of `DAMAGES`.
        damaged_block: Which block the damage of a block befalls.
    """

    frames: Mapping[int, bytes | None]
    compressor: str = "lzo"
    era: str = "5.14"
    zero_flag: bool = False
    hw_sig: int | None = None
    trailing_map_page: bool = False
    header_at: int = 0
    base: int = 0
    shuffle: int | None = None
    consumed: bool = False
    container: str = "swap"
    num_physpages: int = 32768
    jump: int = 0xFFFFFFFF81997000
    jump_phys: int = 0x1997000
    cr3: int = 0x3C6A000
    e820: bytes = struct.pack("<IQQI", 1, 0, 0x8000000, 1)
    damage: Sequence[str] = ()
    damaged_block: int = 0
    _pages: dict[int, bytes] = field(default_factory=dict, init=False)
    _free: list[int] = field(default_factory=list, init=False)

    def write(self, path: Path) -> Path:
        """Write the image to ``path`` and return it."""
        path.write_bytes(self.encode())
        if {"hole", "map-hole"} & set(self.damage):
            _punch(path)
        return path

    def encode(self) -> bytes:
        """Return the image as bytes."""
        unknown = set(self.damage) - set(DAMAGES)
        assert not unknown, unknown
        meta, data = self._stream()
        info = self._info(len(meta), len(data))
        chunks = _chunks(meta + data)
        if self.container == "stream":
            return b"".join([info, *chunks])
        stored = [info]
        for number, chunk in enumerate(chunks):
            stored += _split(self._store(number, chunk))
        return self._lay_out(stored, fmt.running_crc(chunks))

    def _stream(self) -> tuple[list[bytes], list[bytes]]:
        words, data = [], []
        for pfn in sorted(self.frames):
            content = self.frames[pfn] or ZERO
            zero = self.zero_flag and content == ZERO
            words.append(pfn | ZERO_FLAG if zero else pfn)
            if not zero:
                data.append(content)
        return fmt.pack_pfns(self._damage_pfns(words)), data

    def _damage_pfns(self, words: list[int]) -> list[int]:
        middle = len(words) // 2
        if "pfn-twice" in self.damage:
            words[middle] = words[middle - 1]
        if "pfn-unsorted" in self.damage:
            words[middle - 1], words[middle] = words[middle], words[middle - 1]
        if "pfn-impossible" in self.damage:
            words[-1] = 1 << 41
        if "pfn-list-ends-early" in self.damage:
            words[middle] = fmt.END
        return words

    def _info(self, meta: int, data: int) -> bytes:
        pages = meta + data + 1 + ("count-of-data" in self.damage)
        return fmt.info_page(
            fmt.record(self.era, jump=self.jump, jump_phys=self.jump_phys, cr3=self.cr3, e820=self.e820),
            num_physpages=self.num_physpages,
            image_pages=data + ("count-of-data" in self.damage) + ("count-of-pages" in self.damage) * (1 << 40),
            pages=pages + ("count-of-pages" in self.damage) * (1 << 41),
            size=1 if "info-contradicts" in self.damage else None,
        )

    def _store(self, number: int, chunk: bytes) -> bytes:
        wanted = set(self.damage) if number == self.damaged_block else set()
        if "data-flipped" in wanted:
            chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
        if self.compressor == "none":
            return chunk
        if "block-short" in wanted:
            chunk = chunk[: len(chunk) // 2 // PAGE * PAGE]
        if "block-uneven" in wanted:
            chunk = chunk[:-100]
        if "bomb" in wanted:
            chunk = bytes(16 << 20)
        packed = fmt.compress(self.compressor, chunk)
        length = None
        if "block-garbage" in wanted:
            packed = random.Random(1).randbytes(len(packed))
        if "length-zero" in wanted:
            length = 0
        if "length-huge" in wanted:
            length = 139334
        if "length-short" in wanted:
            length = len(packed) - 1
        return fmt.stored_block(packed, length=length)

    def _lay_out(self, stored: list[bytes], crc: int) -> bytes:
        extra = [b"\x11" * PAGE] * 3 if "map-overlong" in self.damage else []
        listed = stored[:-1] if "map-short" in self.damage else stored + extra
        total = self.header_at + 1 + (len(stored) + 3) * 513 // 511 + 8
        free = [number for number in range(1, total) if number != self.header_at]
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(free)
        self._free = free[::-1]
        # As the kernel does: a map page is allocated before the pages that it lists.
        numbers: list[int] = []
        entries: list[int] = []
        for index in range(len(listed)):
            if index % fmt.MAP_ENTRIES == 0:
                numbers.append(self._free.pop())
            entries.append(self._free.pop())
        spare = iter([*numbers, self._free.pop()])
        numbers, maps = fmt.map_pages(entries, lambda: next(spare), trailing=self.trailing_map_page)
        maps = self._damage_maps(numbers, maps, total)
        pages = dict(zip(entries, listed, strict=True)) | dict(zip(numbers, maps, strict=True))
        if "hole" in self.damage:
            pages |= dict.fromkeys(entries[1 + self.damaged_block :], ZERO)
        pages[self.header_at] = self._header(numbers[0], crc)
        data = b"".join(pages.get(number, b"\x55" * PAGE) for number in range(total))
        if "truncated" in self.damage:
            data = data[: len(data) // 2 // PAGE * PAGE]
        return bytes(self.base) + data

    def _damage_maps(self, numbers: list[int], maps: list[bytes], total: int) -> list[bytes]:
        def put(page: bytes, index: int, word: int) -> bytes:
            return page[: 8 * index] + struct.pack("<Q", word) + page[8 * index + 8 :]

        full = [fmt.MAP_ENTRIES if page[-8:] != bytes(8) else 0 for page in maps]
        if "map-loop" in self.damage:
            assert full[0], "a map that loops needs a full page"
            maps[0] = put(maps[0], 511, numbers[0])
        if "map-next-beyond" in self.damage:
            assert full[0], "a map that continues needs a full page"
            maps[0] = put(maps[0], 511, total + 5)
        if "map-entry-beyond" in self.damage:
            maps[-1] = put(maps[-1], 0, total + 7)
        if {"map-empty", "map-hole"} & set(self.damage):
            maps[0] = ZERO
        return maps

    def _header(self, image: int, crc: int) -> bytes:
        flags = fmt.COMPRESSION_FLAGS[self.compressor] | (0 if self.hw_sig is None else fmt.HW_SIG)
        return fmt.header_page(
            image=image,
            flags=flags,
            crc32=crc ^ ("crc" in self.damage) if flags & fmt.CRC32 else 0,
            hw_sig=self.hw_sig or 0,
            sig=b"SWAPSPACE2" if self.consumed else b"S1SUSPEND\0",
        )


def _chunks(pages: list[bytes]) -> list[bytes]:
    return [b"".join(pages[first : first + BLOCK_PAGES]) for first in range(0, len(pages), BLOCK_PAGES)]


def _split(data: bytes) -> list[bytes]:
    return [data[offset : offset + PAGE] for offset in range(0, len(data), PAGE)]


def _punch(path: Path) -> None:
    """Make pages of zeros holes, by writing the file again around them."""
    data = path.read_bytes()
    path.unlink()
    with path.open("wb") as stream:
        for number, page in enumerate(_split(data)):
            if page != ZERO:
                stream.seek(number * PAGE)
                stream.write(page)
        stream.truncate(len(data))
