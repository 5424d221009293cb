"""A kernel's memory seen as that kernel sees it: by symbol, through its own page tables.

It serves both sides: the resumee, whose memory is the image, and the resumer, where a dump of it was given.
"""

from __future__ import annotations

from dataclasses import field

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.code.names import built_for_one_cpu
from hibercheck.kernel.view import KernelView
from hibercheck.x86.memory import PhysicalMemory, UnknownMemory, read
from hibercheck.x86.paging import PagingMode, Step, Walk, walk

LARGE_PAGE = 1 << 21
"""The smaller of the two large pages, 2 MiB: all of it is mapped by one entry."""


@dataclass(frozen=True, slots=True)
class KernelSpace:
    """One kernel's address space.

    Attributes:
        kernel: The kernel file, at link-time addresses.
        memory: Its physical memory.
        mode: How it pages.
        cr3: Its page-table root.
        kaslr_offset: Run-time less link-time virtual address of its image.
        phys_base: Physical address of its image less its link-time offset from ``__START_KERNEL_map``.
    """

    kernel: KernelView
    memory: PhysicalMemory
    mode: PagingMode
    cr3: int
    kaslr_offset: int
    phys_base: int
    _pages: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    _large: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    _upper: dict[int, tuple[Step, ...]] = field(default_factory=dict, repr=False, compare=False)

    def walk(self, address: int) -> Walk:
        """Walk to a virtual address; what it shares with a walk before, down to the last table, is not read again."""
        found = walk(self.memory, self.mode, self.cr3, address, upper=self._upper.get(address // LARGE_PAGE, ()))
        if found.page_size == PAGE_SIZE:
            self._upper[address // LARGE_PAGE] = found.steps[:-1]
        return found

    def physical(self, address: int) -> int:
        """Translate a virtual address.

        Raises:
            MissingFact: It is not mapped, or a table on the way is in no known frame.
        """
        # The direct map has large pages, and the list of copies an element for each of 20,000 frames: with one walk for
        # each large page a check with a dump takes two thirds of the time.
        large = self._large.get(address // LARGE_PAGE)
        if large is not None:
            return large + address % LARGE_PAGE
        page = address & ~(PAGE_SIZE - 1)
        known = self._pages.get(page)
        if known is None:
            found = self.walk(page)
            if found.physical is None:
                unknown = f"the table in PFN {found.unknown_pfn or 0:#x} is not known"
                why = found.fault.reason if found.fault else unknown
                raise MissingFact(f"{self.kernel.release}'s memory at {address:#x} cannot be read: {why}")
            known = found.physical
            if (found.page_size or 0) >= LARGE_PAGE:
                self._large[address // LARGE_PAGE] = known - page % LARGE_PAGE
            else:
                self._pages[page] = known
        return known + (address - page)

    def read(self, address: int, size: int) -> bytes:
        """Read virtual memory.

        Raises:
            MissingFact: Part of it is not mapped or not known.
        """
        parts = []
        while size > 0:
            part = min(size, PAGE_SIZE - address % PAGE_SIZE)
            try:
                parts.append(read(self.memory, self.physical(address), part))
            except UnknownMemory as unknown:
                raise MissingFact(
                    f"{self.kernel.release}'s memory at {address:#x} is not known", pfn=unknown.pfn
                ) from unknown
            address += part
            size -= part
        return b"".join(parts)

    def number(self, address: int, size: int = 8) -> int:
        """Read a little-endian number of ``size`` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def string(self, address: int, limit: int = 8192) -> str:
        """Read a NUL-terminated string of at most ``limit`` bytes."""
        text = b""
        while len(text) < limit:
            part = self.read(address + len(text), min(PAGE_SIZE - (address + len(text)) % PAGE_SIZE, limit - len(text)))
            end = part.find(b"\0")
            if end >= 0:
                text += part[:end]
                break
            text += part
        return text.decode("utf-8", "replace")

    def address(self, symbol: str) -> int:
        """Return the run-time virtual address of a symbol of the kernel's image.

        Raises:
            MissingFact: The kernel has no such symbol.
        """
        return (self.kernel.require(symbol).address + self.kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF

    def variable(self, symbol: str, size: int = 8) -> int:
        """Read a global number by name."""
        return self.number(self.address(symbol), size)

    @property
    def one_cpu(self) -> bool:
        """Whether the kernel is built for one CPU, whose per-CPU variables are variables like others."""
        return built_for_one_cpu(self.kernel.symbol) is True

    def percpu_base(self, cpu: int) -> int:
        """Return ``__per_cpu_offset[cpu]``, which is what %gs holds where per-CPU symbols are zero-based."""
        return self.number(self.address("__per_cpu_offset") + 8 * cpu)

    def percpu_address(self, symbol: str, cpu: int) -> int:
        """Return the virtual address of a per-CPU variable of one CPU."""
        if self.one_cpu:
            return self.address(symbol)
        shift = 0 if self.kernel.percpu_zero_based else self.kaslr_offset
        return (self.percpu_base(cpu) + self.kernel.require(symbol).address + shift) & 0xFFFF_FFFF_FFFF_FFFF

    def image_physical(self, address: int) -> int:
        """Return the physical address of a link-time address of the kernel's image."""
        return address - START_KERNEL_MAP + self.phys_base

    def in_image(self, physical: int) -> bool:
        """Tell whether a physical address lies in the kernel's image."""
        link = physical - self.phys_base + START_KERNEL_MAP
        return self.kernel.require("_text").address <= link < self.kernel.require("_end").address

    def image_symbol(self, physical: int) -> str | None:
        """Name what of the kernel's image lies at a physical address, or None outside it."""
        if not self.in_image(physical):
            return None
        link = physical - self.phys_base + START_KERNEL_MAP
        found = self.kernel.nearest(link)
        return f"{found[0].name}+{found[1]:#x}" if found else None
