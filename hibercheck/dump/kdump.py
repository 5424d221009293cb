"""The kdump-compressed format of makedumpfile, which QEMU's ``dump-guest-memory -z`` writes as well.

Source: makedumpfile's IMPLEMENTATION and diskdump_mod.h; QEMU's include/sysemu/dump.h.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from construct import Bytes, Const, ConstructError, Int32sl, Int32ul, Int64ul, Padding, Struct

from hibercheck.addresses import PAGE_SIZE
from hibercheck.dump.notes import Note, iter_notes
from hibercheck.dump.source import Readable
from hibercheck.errors import MalformedDump, Unsupported
from hibercheck.files.compression import lzo_block, zstd_block

MAGIC = b"KDUMP   "
MAX_NOTES = 64 << 20
MAX_FRAMES = 1 << 40
"""No x86-64 machine has more frames (52 address bits)."""

ZLIB, LZO, SNAPPY, ZSTD = 0x1, 0x2, 0x4, 0x20

# struct disk_dump_header { char signature[8]; int header_version; struct new_utsname utsname; struct timeval timestamp;
#     unsigned int status; int block_size, sub_hdr_size; unsigned int bitmap_blocks, max_mapnr, total_ram_blocks,
#     device_blocks, written_blocks, current_cpu; int nr_cpus; };                            makedumpfile diskdump_mod.h
_HEADER = Struct(
    "signature" / Const(MAGIC),
    "header_version" / Int32sl,
    "utsname" / Bytes(390),
    Padding(6),
    "timestamp" / Bytes(16),
    "status" / Int32ul,
    "block_size" / Int32sl,
    "sub_hdr_size" / Int32sl,
    "bitmap_blocks" / Int32ul,
    "max_mapnr" / Int32ul,
)
# struct kdump_sub_header { unsigned long phys_base; int dump_level, split; unsigned long start_pfn, end_pfn;
#     off_t offset_vmcoreinfo; unsigned long size_vmcoreinfo; off_t offset_note; unsigned long size_note;
#     off_t offset_eraseinfo; unsigned long size_eraseinfo;
#     unsigned long long start_pfn_64, end_pfn_64, max_mapnr_64; };
_SUB_HEADER = Struct(
    "phys_base" / Int64ul,
    "dump_level" / Int32sl,
    "split" / Int32sl,
    "start_pfn" / Int64ul,
    "end_pfn" / Int64ul,
    "offset_vmcoreinfo" / Int64ul,
    "size_vmcoreinfo" / Int64ul,
    "offset_note" / Int64ul,
    "size_note" / Int64ul,
    "offset_eraseinfo" / Int64ul,
    "size_eraseinfo" / Int64ul,
    "start_pfn_64" / Int64ul,
    "end_pfn_64" / Int64ul,
    "max_mapnr_64" / Int64ul,
)
# typedef struct page_desc { off_t offset; unsigned int size, flags; unsigned long long page_flags; } page_desc_t;
_DESCRIPTOR = struct.Struct("<QIIQ")
_BITS_PER_BLOCK = 8 * PAGE_SIZE


class KdumpFile:
    """The memory and notes of a kdump-compressed file.

    A frame that makedumpfile left out (zero, cache, free or user page, by its dump level) is unknown: the file does
    not say which of these it was.

    Attributes:
        notes: The ELF notes of the crashed kernel (or QEMU's).
        vmcoreinfo: The text of VMCOREINFO, or None.

    Raises:
        MalformedDump: The headers contradict the file.
        Unsupported: It is one part of a split dump, or its blocks are not 4 KiB.
    """

    kind = "kdump-compressed"

    def __init__(self, source: Readable) -> None:
        self._source = source
        header = self._parse(_HEADER, 0, "header")
        machine = header.utsname[4 * 65 :].partition(b"\0")[0].decode("latin-1")
        if machine not in ("x86_64", ""):  # of 32-bit machines the headers differ too
            raise Unsupported(f"is a dump of a machine of type {machine!r}, not x86_64", path=source.path)
        if header.block_size != PAGE_SIZE:
            raise Unsupported(f"has blocks of {header.block_size} bytes, not 4096", path=source.path)
        if header.sub_hdr_size < 1:
            raise MalformedDump("has no sub-header", path=source.path)
        sub = self._parse(_SUB_HEADER, PAGE_SIZE, "sub-header")
        if header.header_version >= 2 and sub.split:
            raise Unsupported(
                "is one part of a split dump",
                path=source.path,
                advice="join the parts with `makedumpfile --reassemble`",
            )
        version = header.header_version
        self.notes: list[Note] = []
        if version >= 4 and sub.size_note:
            self.notes = list(iter_notes(self._section(sub.offset_note, sub.size_note, "notes"), source.path))
        self.vmcoreinfo: bytes | None = None
        if version >= 3 and sub.size_vmcoreinfo:
            self.vmcoreinfo = self._section(sub.offset_vmcoreinfo, sub.size_vmcoreinfo, "VMCOREINFO")
        self._frames = sub.max_mapnr_64 if version >= 6 else header.max_mapnr
        # the first half of the bitmap says which frames exist, the second which of them are in the file
        half = header.bitmap_blocks // 2
        if self._frames > MAX_FRAMES or half * _BITS_PER_BLOCK < self._frames:
            raise MalformedDump(
                f"has a bitmap of {header.bitmap_blocks} blocks for {self._frames} frames", path=source.path
            )
        start = (1 + header.sub_hdr_size + half) * PAGE_SIZE
        self._bitmap = source.read(start, half * PAGE_SIZE, "bitmap")
        self._descriptors = start + half * PAGE_SIZE
        counts = (int.from_bytes(self._block(i), "little").bit_count() for i in range(half))
        self._before = [0, *accumulate(counts)]
        """How many frames of the file precede each block of the bitmap."""

    def _parse(self, structure: Struct, offset: int, what: str) -> Any:  # noqa: ANN401 - construct's containers
        try:
            return structure.parse(self._source.read(offset, structure.sizeof(), what))
        except ConstructError as error:
            detail = " ".join(str(error).split())
            raise MalformedDump(f"its {what} is malformed: {detail}", path=self._source.path) from error

    def _section(self, offset: int, size: int, what: str) -> bytes:
        if size > MAX_NOTES:
            raise MalformedDump(f"claims {size} bytes of {what}", path=self._source.path, offset=offset)
        return self._source.read(offset, size, what)

    def _block(self, number: int) -> bytes:
        return self._bitmap[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's 4096 bytes, or None if it is not in the file.

        Raises:
            MalformedDump: The frame's data cannot be decompressed.
            Unsupported: It is compressed with snappy.
        """
        if not 0 <= pfn < self._frames:
            return None
        number, bit = divmod(pfn, _BITS_PER_BLOCK)
        block = int.from_bytes(self._block(number), "little")
        if not block >> bit & 1:
            return None
        rank = self._before[number] + (block & ((1 << bit) - 1)).bit_count()
        raw = self._source.read(self._descriptors + rank * _DESCRIPTOR.size, _DESCRIPTOR.size, "page descriptor")
        offset, size, flags, _page_flags = _DESCRIPTOR.unpack(raw)
        if size > PAGE_SIZE:
            raise MalformedDump(f"a frame takes {size} bytes", path=self._source.path, offset=offset, pfn=pfn)
        content = self._source.read(offset, size, "page data")
        if flags & (ZLIB | LZO | SNAPPY | ZSTD):
            content = self._decompress(content, flags, pfn)
        if len(content) != PAGE_SIZE:
            raise MalformedDump(f"a frame has {len(content)} bytes", path=self._source.path, offset=offset, pfn=pfn)
        return content

    def _decompress(self, content: bytes, flags: int, pfn: int) -> bytes:
        try:
            if flags & ZLIB:
                # one byte more than a frame, so that a longer one is noticed and not cut
                return zlib.decompressobj().decompress(content, PAGE_SIZE + 1)
            if flags & LZO:
                return lzo_block(content, PAGE_SIZE)
            if flags & ZSTD:
                return zstd_block(content, PAGE_SIZE + 1)
        except (zlib.error, ValueError) as error:
            raise MalformedDump("a frame cannot be decompressed", path=self._source.path, pfn=pfn) from error
        raise Unsupported(
            "is compressed with snappy", path=self._source.path, advice="write it again with `makedumpfile -c`"
        )

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first PFN, number) of the frames that the file holds, ascending."""
        start = None
        for pfn in range(self._frames):
            if self._bitmap[pfn >> 3] >> (pfn & 7) & 1:
                start = pfn if start is None else start
            elif start is not None:
                yield start, pfn - start
                start = None
        if start is not None:
            yield start, self._frames - start
