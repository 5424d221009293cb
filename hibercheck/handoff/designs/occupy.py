"""Putting CPUs into a self-contained parking place: its frames over the resumer's memory, their registers in it."""

from __future__ import annotations

from dataclasses import dataclass

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.handoff.designs.island import Island, build, frames_needed
from hibercheck.handoff.designs.place import FOUR_GIB, Place, find_place, free_by_dump, ram_of
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.memory.exact import DumpedResumer
from hibercheck.handoff.memory.placed import KERNEL_CR0, KERNEL_EFER
from hibercheck.handoff.memory.resumer import ResumerMemory
from hibercheck.handoff.scenario.park import Unsettled
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.view import KernelView
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Facts
from hibercheck.x86.memory import UnknownMemory, read
from hibercheck.x86.paging import CR4_LA57, CR4_MCE, CR4_PAE, PagingMode

ASSUMED = "it is assumed that R can reserve them; a dump of R would show it"
_NO_PLACE_SUPPLY = "nothing: the design cannot be used with this image"
_CR0_FLAT = 0x11


@dataclass(frozen=True, slots=True)
class OccupiedMemory:
    """The resumer's memory with a parking place in it.

    Attributes:
        below: The resumer's memory without.
        island: The place.
    """

    below: ResumerMemory
    island: Island

    @property
    def kernel(self) -> KernelView:
        """The resumer."""
        return self.below.kernel

    @property
    def mode(self) -> PagingMode:
        """How its CPUs page."""
        return self.below.mode

    @property
    def cr3(self) -> int:
        """The page-table root of a CPU outside the place."""
        return self.below.cr3

    @property
    def kaslr_offset(self) -> int:
        """The resumer's."""
        return self.below.kaslr_offset

    @property
    def phys_base(self) -> int:
        """The resumer's."""
        return self.below.phys_base

    @property
    def exact(self) -> bool:
        """Whether every frame is known."""
        return self.below.exact

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame of the place, or else of the resumer."""
        return self.island.frame(pfn) or self.below.frame(pfn)

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether an entry of a page table is known: the place's all are."""
        return table >> PAGE_SHIFT in self.island.frames or self.below.knows_entry(table, index)

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return bytes of the place, where virtual addresses are physical ones, or else of the resumer's image."""
        try:
            return read(self.island, address, size)
        except UnknownMemory:
            return self.below.bytes_at(address, size)


def place_island(
    plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], dump: Dump | None, *, paging: bool, known: bool
) -> tuple[Composite, tuple[ParkedCpu, ...]]:
    """Find frames for a place, build it, and put the CPUs in that wait in no loop of the resumer.

    Args:
        plan: The scenario.
        memory: Memory without the place.
        cpus: The CPUs.
        dump: A dump of the resumer, which says which frames are free.
        paging: Whether CPUs page there.
        known: Whether the resumee takes the CPUs over before it reuses the frames.
    """
    inside = [cpu for cpu in cpus if cpu.parked.state is ParkState.HLT and cpu.parked.loop is None]
    if not inside:
        return memory, cpus
    levels = memory.resumer.mode.levels if paging else 0
    count = frames_needed(len(inside), levels)
    place = _find(plan, memory.resumer, dump, count, below=None if paging else FOUR_GIB)
    if not place.frames:
        missing = Unsettled(place.source, _NO_PLACE_SUPPLY)
        return memory, tuple(
            replace(cpu, parked=replace(cpu.parked, unsettled=missing)) if cpu in inside else cpu for cpu in cpus
        )
    island = build([cpu.number for cpu in inside], place.frames, levels, place.source)
    occupied = replace(memory, resumer=OccupiedMemory(memory.resumer, island))
    loop = island.park_loop(memory.resumer.kaslr_offset)
    bits = memory.resumer.mode.max_phys_bits
    cr4 = CR4_PAE | CR4_MCE | (CR4_LA57 if levels == 5 else 0)
    cr0 = KERNEL_CR0 if paging else _CR0_FLAT
    moved = {
        cpu.number: ParkedCpu(
            parked=replace(cpu.parked, loop=loop),
            context=ApContext(cpu.number, island.cr3, placed=True, paging=paging),
            entry=island.cpu(cpu.number, cr0, cr4, KERNEL_EFER if paging else 0, bits),
            facts=Facts(),
            announced=known,
        )
        for cpu in inside
    }
    return occupied, tuple(moved.get(cpu.number, cpu) for cpu in cpus)


def island_of(memory: Composite | None) -> Island | None:
    """Return the parking place in a memory, or None where there is none."""
    return memory.resumer.island if memory is not None and isinstance(memory.resumer, OccupiedMemory) else None


def _find(plan: Plan, resumer: ResumerMemory, dump: Dump | None, count: int, *, below: int | None) -> Place:
    ram = ram_of(plan.resumee.e820)
    if dump is not None and isinstance(resumer, DumpedResumer):
        free, source = free_by_dump(resumer, dump)
        return find_place(plan.image, ram, count, free, source, below=below)
    first, last = (plan.resumer.require(name).address for name in ("_text", "_end"))
    own = range(*(address - START_KERNEL_MAP + resumer.phys_base >> PAGE_SHIFT for address in (first, last + 4095)))
    return find_place(plan.image, ram, count, lambda pfn: pfn not in own, ASSUMED, below=below)
