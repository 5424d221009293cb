"""A disk in a qcow2 file, cluster by cluster through its tables (QEMU's docs/interop/qcow2.txt), versions 2 and 3.

What is not read: backing files and external data files, which name further files, and encryption.
"""

from __future__ import annotations

import shlex
import struct
import zlib
from collections import OrderedDict

from hibercheck.errors import MalformedImage, Unsupported
from hibercheck.files.compression import zstd_block
from hibercheck.files.source import Ranges, Source

MAGIC = b"QFI\xfb"

# u32 magic, version; u64 backing_file_offset; u32 backing_file_size, cluster_bits; u64 size; u32 crypt_method, l1_size;
# u64 l1_table_offset, refcount_table_offset; u32 refcount_table_clusters, nb_snapshots; u64 snapshots_offset; since
# version 3: u64 incompatible_features, compatible_features, autoclear_features; u32 refcount_order, header_length; u8
# compression_type.  All big-endian.
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION_3 = struct.Struct(">QQQIIB")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1, 2, 4, 8, 16
_KNOWN = _DIRTY | _CORRUPT | _COMPRESSION

_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_MAX_SIZE = 1 << 53
_MAX_L1 = 32 << 20
_TABLES_KEPT, _CLUSTERS_KEPT = 256, 32
_WINDOW = -12
"""zlib's: raw deflate with a window of 4 KiB."""


class Qcow2Source(Source):
    """The disk in a qcow2 file.

    Args:
        file: The qcow2 file, which this takes over.

    Raises:
        Unsupported: It needs what is not read here; the message has the command that makes a plain copy.
        MalformedImage: Its header contradicts itself.
    """

    def __init__(self, file: Source) -> None:
        self.path = file.path
        self._file = file
        self._window, self._window_at = b"", 0
        head = file.read(0, _HEADER.size + _VERSION_3.size)
        if len(head) < _HEADER.size:
            raise self._damaged("is cut short in its header", 0)
        _, version, backing, _, bits, size, crypt, l1_count, l1_at, *_ = _HEADER.unpack_from(head)
        features, compression = 0, 0
        if version >= 3 and len(head) >= _HEADER.size + _VERSION_3.size:
            features, _, _, _, header_size, kind = _VERSION_3.unpack_from(head, _HEADER.size)
            compression = kind if header_size > _HEADER.size + _VERSION_3.size - 1 else 0
        self._refuse(version, features, {"a backing file": backing, "encryption": crypt}, compression)
        if not 9 <= bits <= 21 or size > _MAX_SIZE or l1_count * 8 > _MAX_L1:
            raise self._damaged(f"claims clusters of 2^{bits} bytes and a disk of {size} bytes", 0)
        self._bits, self._size, self._zstd = bits, size, compression == 1
        self._cluster = 1 << bits
        raw = file.read(l1_at, l1_count * 8)
        self._l1: tuple[int, ...] = struct.unpack(f">{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
        if _repeated(self._l1):
            raise self._damaged("has two entries for one table", l1_at)
        self._tables: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._clusters: OrderedDict[int, bytes] = OrderedDict()

    def _refuse(self, version: int, features: int, needs: dict[str, int], compression: int) -> None:
        what = next((name for name, value in needs.items() if value), None)
        if version not in {2, 3}:
            what = f"version {version}"
        elif features & ~_KNOWN or compression > 1:
            known = {_DATA_FILE: "an external data file", _EXTENDED_L2: "subclusters"}
            what = next((name for bit, name in known.items() if features & bit), "features that are not known")
        if what is not None:
            advice = f"make a plain copy: qemu-img convert -O raw {shlex.quote(self.path)} disk.raw"
            raise Unsupported(f"is a qcow2 disk with {what}", path=self.path, advice=advice)
        if features & _CORRUPT:
            raise self._damaged("is marked as corrupt", 72, "repair a copy: qemu-img check -r all")

    def _damaged(self, what: str, offset: int, advice: str | None = None) -> MalformedImage:
        return MalformedImage(f"the qcow2 file {what}", path=self.path, offset=offset, advice=advice)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes of the disk; see `Source.read`.

        Raises:
            MalformedImage: A table leads outside the file, or a cluster does not decompress.
            InputProblem: The file cannot be read there.
        """
        size = min(size, self._size - offset)
        parts = []
        while size > 0:
            part = min(size, self._cluster - offset % self._cluster)
            parts.append(self._part(offset, part))
            offset, size = offset + part, size - part
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, offset: int, size: int) -> bytes:
        """Return bytes within one cluster."""
        entry = self._entry(offset)
        within = offset % self._cluster
        if entry & _COMPRESSED:
            return self._unpacked(entry)[within : within + size]
        place = entry & _OFFSET_MASK
        if not place or entry & _ZERO:
            return bytes(size)
        data = self._file.read(place + within, size)
        if len(data) < size:
            raise self._damaged("ends before one of its clusters", place)
        return data

    def _entry(self, offset: int) -> int:
        """Return the entry of the second-level table for a byte of the disk; 0 for what was never written."""
        number = offset >> self._bits
        high, low = number >> self._bits - 3, number & (1 << self._bits - 3) - 1
        at = self._l1[high] & _OFFSET_MASK if high < len(self._l1) else 0
        return self._table(at)[low] if at else 0

    def _table(self, at: int) -> tuple[int, ...]:
        table = self._tables.get(at)
        if table is None:
            raw = self._file.read(at, self._cluster)
            if len(raw) < self._cluster or at % self._cluster:
                raise self._damaged("has a table outside its clusters", at)
            table = struct.unpack(f">{len(raw) // 8}Q", raw)
            if _repeated(table):
                raise self._damaged("has two entries for one cluster", at)
            self._tables[at] = table
            if len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    def _unpacked(self, entry: int) -> bytes:
        """Decompress a cluster: the low x = 62 - (cluster_bits - 8) bits are its offset, then come further sectors."""
        known = self._clusters.get(entry)
        if known is not None:
            return known
        split = 62 - (self._bits - 8)
        place = entry & (1 << split) - 1
        sectors = (entry >> split & (1 << self._bits - 8) - 1) + 1
        packed = self._file.read(place, sectors * 512 - place % 512)
        plain = self._decompress(packed, place)
        if len(plain) < self._cluster:
            raise self._damaged(f"has a compressed cluster of {len(plain)} bytes", place)
        self._clusters[entry] = plain
        if len(self._clusters) > _CLUSTERS_KEPT:
            self._clusters.popitem(last=False)
        return plain

    def _decompress(self, packed: bytes, place: int) -> bytes:
        try:
            if not self._zstd:
                return zlib.decompressobj(_WINDOW).decompress(packed, self._cluster)
            return zstd_block(packed, self._cluster)
        except (zlib.error, ValueError) as problem:
            raise self._damaged(f"has a cluster that does not decompress: {problem}", place) from problem

    def reaches(self, end: int) -> bool:
        """Whether the disk has at least ``end`` bytes."""
        return end <= self._size

    def fill(self, buffer: memoryview, ranges: Ranges) -> None:
        """Read ranges one after the other into ``buffer``; see `Source.fill`."""
        start = 0
        for offset, size in ranges:
            data = self.read(offset, size)
            buffer[start : start + len(data)] = data
            start += size

    def expect_sequential(self) -> None:
        """Do nothing: clusters lie in any order."""

    def is_hole(self, offset: int) -> bool:
        """Whether a byte of the disk was never written."""
        return offset < self._size and not self._entry(offset)

    def next_data(self, offset: int) -> int:
        """Return the first byte from ``offset`` on in a cluster that was written; the disk's size if there is none."""
        per_table = self._cluster >> 3
        number = offset >> self._bits
        while number << self._bits < self._size:
            high, low = divmod(number, per_table)
            if high >= len(self._l1):
                break
            at = self._l1[high] & _OFFSET_MASK
            rest = self._table(at)[low:] if at else ()
            if any(rest):
                ahead = next(index for index, entry in enumerate(rest) if entry)
                start: int = number + ahead << self._bits
                return min(max(offset, start), self._size)
            number = (high + 1) * per_table
        return self._size

    def close(self) -> None:
        """Release the file."""
        if hasattr(self, "_file"):  # else it was never opened
            self._file.close()


def _repeated(entries: tuple[int, ...]) -> bool:
    """Whether two entries lead to one place: a small file could claim an endless disk that way."""
    used = [entry for entry in entries if entry & _OFFSET_MASK]
    return len(set(used)) < len(used)
