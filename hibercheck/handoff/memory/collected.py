"""The resumer's memory as far as it was collected while it ran, with its vmlinux for the rest."""

from __future__ import annotations

from collections.abc import Mapping

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.resumer import PlacedKernel, space_of
from hibercheck.kernel.view import KernelView
from hibercheck.x86.paging import PagingMode


@dataclass(frozen=True, slots=True)
class CollectedKernel:
    """The resumer at a known place, with frames of its memory that it was asked for before the handoff.

    Attributes:
        placed: What its vmlinux and its place tell.
        frames: What was collected; a frame that is here is known whole.
    """

    placed: PlacedKernel
    frames: Mapping[int, bytes]
    exact: bool = False

    @property
    def kernel(self) -> KernelView:
        """The resumer."""
        return self.placed.kernel

    @property
    def mode(self) -> PagingMode:
        """How its CPUs page."""
        return self.placed.mode

    @property
    def cr3(self) -> int:
        """Physical address of init_top_pgt."""
        return self.placed.cr3

    @property
    def kaslr_offset(self) -> int:
        """Virtual KASLR offset."""
        return self.placed.kaslr_offset

    @property
    def phys_base(self) -> int:
        """Physical displacement."""
        return self.placed.phys_base

    @property
    def space(self) -> KernelSpace:
        """Its address space."""
        return space_of(self)

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame as collected, or else as the vmlinux has it."""
        return self.frames.get(pfn) or self.placed.frame(pfn)

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether an entry of a page table is known."""
        return table >> PAGE_SHIFT in self.frames or self.placed.knows_entry(table, index)

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return bytes as collected, or else of the vmlinux."""
        if self.has_text(address, address + size):
            return self.space.read(address, size)
        return self.placed.bytes_at(address, size)

    def has_text(self, start: int, end: int) -> bool:
        """Tell whether the frames of [start, end) of the image were collected: patched and relocated, as they are."""
        first = self.space.image_physical(start - self.kaslr_offset) >> PAGE_SHIFT
        last = self.space.image_physical(end - 1 - self.kaslr_offset) >> PAGE_SHIFT
        return all(pfn in self.frames for pfn in range(first, last + 1))

    def entry_area_index(self, cpu: int) -> int | None:
        """Return the place of a CPU in the CPU entry area, or None where it is random and not known.

        It is random since 97e3d26b5e5f ("x86/mm: Randomize per-cpu entry area", in v6.2).
        """
        if self.kernel.symbol("_cea_offset") is None:
            return cpu
        try:
            return self.space.number(self.space.percpu_address("_cea_offset", cpu), 4)
        except MissingFact:
            return None


def collected_kernel(placed: PlacedKernel, frames: Mapping[int, bytes], path: str) -> CollectedKernel:
    """Put the frames over what is known otherwise.

    Raises:
        Mismatch: The page tables among them lead elsewhere than to where the kernel is said to be.
    """
    found = CollectedKernel(placed, frames)
    text = found.space.address("_text")
    try:
        physical = found.space.physical(text)
    except MissingFact:
        physical = None
    expected = found.space.image_physical(found.kernel.require("_text").address)
    if physical != expected or found.cr3 >> PAGE_SHIFT not in frames:
        raise Mismatch(
            "its page tables do not lead to where its other facts have the kernel",
            path=path,
            advice="collect it again, as root",
        )
    return found
