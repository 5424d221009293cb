"""What the resumer's memory held before the copy: known from a dump, or as far as its vmlinux and load address tell."""

from __future__ import annotations

import struct
from dataclasses import field
from typing import Protocol

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.kernel.view import KernelView
from hibercheck.x86.paging import ADDRESS_BITS, PagingMode

_TABLE = 0x067  # _KERNPG_TABLE with the accessed flag, arch/x86/include/asm/pgtable_types.h
_LEAF_2M = 0x1E1  # __PAGE_KERNEL_LARGE_EXEC as text is mapped after mark_rodata_ro()
_ENTRIES = 512


class ResumerMemory(Protocol):
    """The resumer's memory just before the first page is copied, as far as it is known."""

    @property
    def kernel(self) -> KernelView:
        """The resumer."""
        ...

    @property
    def mode(self) -> PagingMode:
        """How its CPUs page."""
        ...

    @property
    def cr3(self) -> int:
        """The page-table root of a parked CPU: init_mm's."""
        ...

    @property
    def kaslr_offset(self) -> int:
        """Run-time less link-time virtual address of its image."""
        ...

    @property
    def phys_base(self) -> int:
        """Physical address of its image less its link-time offset from ``__START_KERNEL_map``."""
        ...

    @property
    def exact(self) -> bool:
        """Whether every frame is known, by a dump."""
        ...

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame's contents, or None where they are not known."""
        ...

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether one entry of a page table that `frame` gives is known."""
        ...

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return the image's own bytes at a run-time virtual address as they are in memory, or None."""
        ...


def space_of(resumer: ResumerMemory) -> KernelSpace:
    """Return the resumer's address space."""
    return KernelSpace(resumer.kernel, resumer, resumer.mode, resumer.cr3, resumer.kaslr_offset, resumer.phys_base)


@dataclass(frozen=True, slots=True)
class PlacedKernel:
    """The resumer as its vmlinux and its load address give it: text, and the page tables that map it.

    What it allocated at run time is not known.  The tables of its image are (arch/x86/kernel/head_64.S, head64.c):
    init_top_pgt[511], with 5 levels level4_kernel_pgt[511], level3_kernel_pgt[510], and 2 MiB entries in
    level2_kernel_pgt.

    Attributes:
        kernel: Its vmlinux.
        mode: How it pages.
        kaslr_offset: Virtual KASLR offset.
        phys_base: Physical displacement.
    """

    kernel: KernelView
    mode: PagingMode
    kaslr_offset: int
    phys_base: int
    exact: bool = False
    _tables: dict[int, dict[int, int]] = field(init=False, repr=False, compare=False)
    _frames: dict[int, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = self._image_tables()
        frames = {
            pfn: struct.pack(f"<{_ENTRIES}Q", *[entries.get(index, 0) for index in range(_ENTRIES)])
            for pfn, entries in tables.items()
        }
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_frames", frames)

    @property
    def cr3(self) -> int:
        """Physical address of init_top_pgt."""
        return self._physical("init_top_pgt")

    def _physical(self, symbol: str) -> int:
        # an address that facts claim may be any number
        return self.kernel.require(symbol).address - START_KERNEL_MAP + self.phys_base & ADDRESS_BITS

    def _image_tables(self) -> dict[int, dict[int, int]]:
        """Build the known entries of the tables that map the kernel image, by frame."""
        chain = ["init_top_pgt"] + (["level4_kernel_pgt"] if self.mode.levels == 5 else [])
        chain += ["level3_kernel_pgt", "level2_kernel_pgt"]
        frames = [self._physical(name) for name in chain]
        indices = [511] * (len(chain) - 2) + [510]
        tables = {
            table >> PAGE_SHIFT: {index: following | _TABLE}
            for table, index, following in zip(frames, indices, frames[1:], strict=False)
        }
        first = self.kernel.require("_text").address & ~0x1FFFFF
        last = self.kernel.require("_end").address
        leaves = {}
        for link in range(first, last, 1 << 21):
            index = (link + self.kaslr_offset >> 21) % _ENTRIES
            leaves[index] = (link - START_KERNEL_MAP + self.phys_base) & ADDRESS_BITS | _LEAF_2M
        tables[frames[-1] >> PAGE_SHIFT] = leaves
        return tables

    def frame(self, pfn: int) -> bytes | None:
        """Return a page table of the image (its known entries), or a page of text; None for all else."""
        table = self._frames.get(pfn)
        if table is not None:
            return table
        link = (pfn << PAGE_SHIFT) - self.phys_base + START_KERNEL_MAP
        first, last = self.kernel.require("_text").address, self.kernel.require("_etext").address
        if not first <= link or not link + PAGE_SIZE <= last:
            return None
        try:
            return self.kernel.read(link, PAGE_SIZE)
        except MissingFact:
            return None

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether an entry is one of the image's own."""
        return index in self._tables.get(table >> PAGE_SHIFT, {})

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return bytes of the vmlinux; what the kernel patches at boot is as it was linked."""
        try:
            return self.kernel.read((address - self.kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF, size)
        except MissingFact:
            return None


def default_page_offset(levels: int) -> int:
    """Return __PAGE_OFFSET_BASE_L4 or _L5 (arch/x86/include/asm/page_64_types.h): the direct map without KASLR."""
    return 0xFF11_0000_0000_0000 if levels == 5 else 0xFFFF_8880_0000_0000
