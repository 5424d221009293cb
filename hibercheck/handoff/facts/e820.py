"""The firmware's memory map (E820): how a kernel holds it, edits it by its command line, and compares it."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import field
from heapq import heappop, heappush
from itertools import pairwise
from typing import Literal

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace

# enum e820_type, arch/x86/include/asm/e820/types.h
RAM = 1
RESERVED = 2
ACPI_TABLES = 3
PERSISTENT = 12
RESERVED_BY_KERNEL = 128
"""E820_TYPE_RESERVED_KERN: setup_data, RAM all the same; kernels have done without it since v6.15."""

E820_RAM = RAM

NAMES = {
    1: "RAM",
    2: "reserved",
    3: "ACPI tables",
    4: "ACPI NVS",
    5: "unusable",
    7: "persistent memory",
    12: "persistent memory",
    128: "RAM",
    0xEFFF_FFFF: "soft reserved",
}

_ENTRY = struct.Struct("<QQI")
_MOST = 4096
_U64 = (1 << 64) - 1
_LEGACY = (0xA0000, 0x100000)
"""BIOS_BEGIN and BIOS_END, arch/x86/include/asm/e820/api.h."""


@dataclass(frozen=True, slots=True)
class E820Entry:
    """One range of the firmware's memory map: bytes [address, address + size) of a type (1 is RAM)."""

    address: int
    size: int
    kind: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.address + self.size


Map = tuple[E820Entry, ...]


@dataclass(frozen=True, slots=True)
class MapEdit:
    """One change that ``mem=`` or ``memmap=`` makes to the map.

    Attributes:
        given: The parameter that makes it.
        action: ``add`` a range of type ``new``, ``remove`` what is of type ``old``, ``update`` from ``old`` to ``new``,
            or ``clear`` the whole map.
        start: First byte.
        size: Bytes.
        old: Type that it is about; 0 for any.
        new: Type that it makes.
    """

    given: str = field(compare=False)
    action: Literal["add", "remove", "update", "clear"]
    start: int
    size: int
    old: int
    new: int = 0


def read_e820(space: KernelSpace, table: str = "e820_table_firmware") -> Map:
    """Read a memory map (struct e820_table, arch/x86/include/asm/e820/types.h: u32 count, packed entries).

    Args:
        space: The kernel's memory.
        table: The variable that points to it: e820_table_firmware as it came, e820_table as the kernel uses it.

    Raises:
        MissingFact: It cannot be read, or counts more entries than a kernel keeps.
    """
    place = space.variable(table)
    count = space.number(place, 4)
    if count > _MOST:
        raise MissingFact(f"the memory map {table} counts {count} entries")
    data = space.read(place + 4, count * _ENTRY.size)
    return tuple(E820Entry(*entry) for entry in _ENTRY.iter_unpack(data))


def e820_checksum(entries: Map) -> int:
    """Return the CRC-32 that the arch record keeps of a memory map (compute_e820_crc32, arch/x86/power/hibernate.c)."""
    return zlib.crc32(pack_e820(entries))


def pack_e820(entries: Map) -> bytes:
    """Return a memory map as struct e820_table has it, without the unused entries."""
    packed = b"".join(_ENTRY.pack(entry.address, entry.size, entry.kind) for entry in entries)
    return struct.pack("<I", len(entries)) + packed


def edited(entries: Map, edits: Iterable[MapEdit]) -> Map:
    """Return the map as the command line leaves it: e820__range_*(), e820__update_table(), arch/x86/kernel/e820.c."""
    ranges = [(entry.address, entry.end, entry.kind) for entry in entries]
    for edit in edits:
        end = min(edit.start + edit.size, _U64)
        if edit.action == "clear":
            ranges = []
        elif edit.action == "add":
            ranges.append((edit.start, end, edit.new))
        else:
            ranges = [part for one in ranges for part in _cut(one, edit, end)]
    return flat(E820Entry(start, stop - start, kind) for start, stop, kind in ranges if start < stop)


def _cut(one: tuple[int, int, int], edit: MapEdit, end: int) -> list[tuple[int, int, int]]:
    """Take [edit.start, end) out of a range, if it is of the type that the edit is about; give that part another."""
    start, stop, kind = one
    first, last = max(start, edit.start), min(stop, end)
    if first >= last or edit.old not in {0, kind}:
        return [one]
    middle = [(first, last, edit.new)] if edit.action == "update" else []
    return [(start, first, kind), *middle, (last, stop, kind)]


def flat(entries: Iterable[E820Entry]) -> Map:
    """Return a map in order and without overlaps: where ranges overlap the higher type wins; neighbours are joined."""
    found = sorted((one.address, one.end, one.kind) for one in entries if one.size)
    points = sorted({point for start, end, _ in found for point in (start, end)})
    merged: list[list[int]] = []
    here: list[tuple[int, int]] = []  # (-type, end) of the ranges that have begun, the highest type first
    following = iter(found)
    upcoming = next(following, None)
    for start, end in pairwise(points):
        while upcoming is not None and upcoming[0] <= start:
            heappush(here, (-upcoming[2], upcoming[1]))
            upcoming = next(following, None)
        while here and here[0][1] <= start:
            heappop(here)
        if not here:
            continue
        kind = -here[0][0]
        if merged and merged[-1][1] == start and merged[-1][2] == kind:
            merged[-1][1] = end
        else:
            merged.append([start, end, kind])
    return tuple(E820Entry(start, end - start, kind) for start, end, kind in merged)


def ram_runs(entries: Map) -> tuple[tuple[int, int], ...]:
    """Return the frames, [first, end), that a kernel takes for RAM: whole pages, of RAM and of what it reserved itself.

    Page 0 and the range between 640 KiB and 1 MiB are none, whatever the map says (trim_bios_range(),
    arch/x86/kernel/setup.c; e820__memblock_setup(), arch/x86/kernel/e820.c).
    """
    ram = flat(E820Entry(one.address, one.size, RAM) for one in entries if one.kind in {RAM, RESERVED_BY_KERNEL})
    low, high = _LEGACY
    holes = (MapEdit("", "remove", 0, PAGE_SIZE, 0), MapEdit("", "remove", low, high - low, 0))
    frames = ((-(-one.address // PAGE_SIZE), one.end >> PAGE_SHIFT) for one in edited(ram, holes))
    return tuple((first, end) for first, end in frames if first < end)


def ram_pages(entries: Map) -> int:
    """Return how many frames a kernel takes for RAM: get_num_physpages() of one whose memory was never plugged."""
    return sum(end - first for first, end in ram_runs(entries))


def differences(ours: Map, theirs: Map) -> tuple[tuple[int, int, int, int], ...]:
    """Return where two maps differ: (first byte, end, our type, their type), a type being 0 where the map has nothing.

    Maps that differ only in how they cut ranges of one type do not differ.
    """
    sides = flat(ours), flat(theirs)
    starts = [[one.address for one in side] for side in sides]
    points = sorted({point for side in sides for one in side for point in (one.address, one.end)})
    found: list[tuple[int, int, int, int]] = []
    for start, end in pairwise(points):
        places = [bisect_right(begin, start) - 1 for begin in starts]
        mine, other = (
            side[place].kind if place >= 0 and start < side[place].end else 0
            for side, place in zip(sides, places, strict=True)
        )
        if mine == other:
            continue
        if found and found[-1][1:] == (start, mine, other):
            found[-1] = (found[-1][0], end, mine, other)
        else:
            found.append((start, end, mine, other))
    return tuple(found)
