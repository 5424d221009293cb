"""Where a self-contained parking place can lie: in frames that are free in R and that the image does not hold.

R finds such frames at resume time as it finds those for the copy itself: get_safe_page() (kernel/power/snapshot.c)
allocates frames and keeps one that is not an image frame.  With a dump of R the frames are looked for among those that
are free in it; without one they are assumed to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.dump.dump import Dump
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.e820 import E820_RAM, E820Entry
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.exact import DumpedResumer
from hibercheck.swsusp.image import Image

REGION = 512
"""Frames that one page table maps."""
FOUR_GIB = 1 << 20
"""First PFN that a CPU without paging cannot address."""
FIRST = 0x100
"""The first MiB belongs to the firmware's habits and to the SIPI trampoline."""

_PAGE_STRUCT = 64
_PRIVATE, _PAGE_TYPE = 0x28, 0x30  # struct page, include/linux/mm_types.h; so since v4.18
_BUDDY_OLD = 0xFFFF_FF7F  # ~PG_buddy, include/linux/page-flags.h up to v6.10
_BUDDY_NEW = 0xF0  # PGTY_buddy << 24, since v6.11
_MAX_ORDER = 10
_VMEMMAP_L4, _VMEMMAP_L5 = 0xFFFF_EA00_0000_0000, 0xFFD4_0000_0000_0000


@dataclass(frozen=True, slots=True)
class Place:
    """Frames for a parking place.

    Attributes:
        frames: Their PFNs; empty where there are none.
        source: How it is known that R can have them, or why there are none.
    """

    frames: tuple[int, ...]
    source: str


def find_place(
    image: Image,
    ram: tuple[tuple[int, int], ...],
    count: int,
    free: Callable[[int], bool],
    source: str,
    *,
    below: int | None = None,
) -> Place:
    """Find ``count`` frames in one 2 MiB region, the lowest that has them.

    Args:
        image: The image.
        ram: The machine's RAM as (first PFN, length).
        count: How many.
        free: Whether R can have a frame.
        source: How that is known.
        below: The PFN below which all must lie.
    """
    for region in _regions(ram, below):
        found: list[int] = []
        for pfn in region:
            if pfn not in image.pfns and free(pfn):
                found.append(pfn)
                if len(found) == count:
                    return Place(tuple(found), source)
    where = " below 4 GiB" if below is not None else ""
    return Place((), f"no 2 MiB of RAM{where} have {count} frames that are free in R and not in the image")


def _regions(ram: tuple[tuple[int, int], ...], below: int | None) -> Iterator[range]:
    """Cut RAM at multiples of 2 MiB."""
    for first, length in ram:
        start, end = max(first, FIRST), first + length
        end = end if below is None else min(end, below)
        while start < end:
            stop = min(end, (start & ~(REGION - 1)) + REGION)
            yield range(start, stop)
            start = stop


def ram_of(e820: tuple[E820Entry, ...] | None) -> tuple[tuple[int, int], ...]:
    """Return the whole frames of RAM in a memory map, as (first PFN, length)."""
    found = []
    for entry in e820 or ():
        if entry.kind != E820_RAM:
            continue
        first, end = -(-entry.address >> PAGE_SHIFT), entry.address + entry.size >> PAGE_SHIFT
        found.append((first, max(end - first, 0)))
    return tuple(found)


def free_by_dump(resumer: DumpedResumer, dump: Dump) -> tuple[Callable[[int], bool], str]:
    """Return a test for frames that are free in the dumped R, and how it knows.

    The buddy allocator marks the first frame of a free block with a page type and keeps the block's order in
    ``private``.  Where the array of struct page cannot be read, a frame that holds only zeros is taken for free.
    """
    space = resumer.space
    base = _vmemmap(resumer)

    def buddy(pfn: int) -> bool:
        for order in range(_MAX_ORDER + 1):
            head = pfn & ~((1 << order) - 1)
            found = _block_order(space, base, head)
            if found is not None and found >= order:
                return True
        return False

    try:
        space.read(base + FIRST * _PAGE_STRUCT, _PAGE_STRUCT)
    except MissingFact:
        return lambda pfn: dump.frame(pfn) == bytes(PAGE_SIZE), "they hold only zeros in the dump of R"
    return buddy, "they are free in the dump of R, by its page allocator"


def _vmemmap(resumer: DumpedResumer) -> int:
    """Return the address of the array of struct page: vmemmap_base where it is a variable (RANDOMIZE_MEMORY)."""
    try:
        return resumer.space.variable("vmemmap_base")
    except MissingFact:
        return _VMEMMAP_L5 if resumer.mode.levels == 5 else _VMEMMAP_L4


def _block_order(space: KernelSpace, base: int, pfn: int) -> int | None:
    """Return the order of the free block that begins at a frame, or None if none does."""
    try:
        page = space.read(base + pfn * _PAGE_STRUCT, _PAGE_STRUCT)
    except MissingFact:
        return None
    kind = int.from_bytes(page[_PAGE_TYPE : _PAGE_TYPE + 4], "little")
    if kind != _BUDDY_OLD and kind >> 24 != _BUDDY_NEW:
        return None
    order = int.from_bytes(page[_PRIVATE : _PRIVATE + 8], "little")
    return order if order <= _MAX_ORDER else None
