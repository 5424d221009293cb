"""Names for places: what of the resumer lies there, and what the resumee has put over it."""

from __future__ import annotations

from dataclasses import field

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext
from hibercheck.handoff.replay.moments import LEVEL_NAMES
from hibercheck.handoff.replay.touch import Change, Touched, walk_of
from hibercheck.handoff.verdict.findings import FrameUse, Place

_MASK = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Namer:
    """Names addresses on both sides of one handoff.

    A thousand CPUs that wait in one loop share what it touches (`Classes`), which is named once.

    Attributes:
        memory: The finished copy.
        resumee: The resumee.
    """

    memory: Composite
    resumee: Resumee
    _places: dict[int, tuple[Touched, tuple[Place, Place]]] = field(default_factory=dict, repr=False, compare=False)
    _footprints: dict[tuple[int, bool, bool, int], tuple[tuple[Touched, ...], tuple[FrameUse, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def resumer_symbol(self, address: int) -> str | None:
        """Name a run-time virtual address of the resumer's image."""
        resumer = self.memory.resumer
        found = resumer.kernel.nearest((address - resumer.kaslr_offset) & _MASK)
        return _text(found[0].name, found[1]) if found else None

    def resumer_physical(self, physical: int) -> str | None:
        """Name a physical address of the resumer's image."""
        resumer = self.memory.resumer
        link = physical - resumer.phys_base + START_KERNEL_MAP
        first, last = resumer.kernel.require("_text").address, resumer.kernel.require("_end").address
        if not first <= link < last:
            return None
        found = resumer.kernel.nearest(link)
        return _text(found[0].name, found[1]) if found else None

    def resumee_physical(self, physical: int) -> str:
        """Say what of the resumee lies at a physical address that the image overwrites."""
        name = self.resumee.space.image_symbol(physical)
        if name is not None:
            return name
        if self.memory.image.pfns.is_zero(physical >> PAGE_SHIFT):
            return "a page of zeros"
        return "memory in use by the resumee"

    def places(self, touched: Touched) -> tuple[Place, Place]:
        """Return the place of an access on both sides."""
        known = self._places.get(id(touched))  # which no other has as long as this one is kept
        if known is None:
            known = self._places[id(touched)] = touched, self._places_of(touched)
        return known[1]

    def _places_of(self, touched: Touched) -> tuple[Place, Place]:
        physical = None if touched.leaf is None else (touched.leaf << PAGE_SHIFT) | touched.address & 0xFFF
        resumer = Place(touched.address, physical, self.resumer_symbol(touched.address) or touched.role)
        if physical is None or not self.memory.overwritten(physical >> PAGE_SHIFT):
            return resumer, Place()
        return resumer, Place(None, physical, self.resumee_physical(physical))

    def footprint(self, context: ApContext, touched: tuple[Touched, ...]) -> tuple[FrameUse, ...]:
        """List the frames that a CPU touches: the tables of each access, then what it reaches."""
        key = id(touched), context.paging, context.placed, context.cr3
        known = self._footprints.get(key)
        if known is None:
            known = self._footprints[key] = touched, self._footprint_of(context, touched)
        return known[1]

    def _footprint_of(self, context: ApContext, touched: tuple[Touched, ...]) -> tuple[FrameUse, ...]:
        uses: dict[tuple[str, int | None], FrameUse] = {}
        for item in touched:
            for use in (*self._tables(context, item), self._leaf(context, item)):
                uses.setdefault((use.role.partition(" of ")[0], use.pfn), use)
        return tuple(uses.values())

    def _tables(self, context: ApContext, item: Touched) -> list[FrameUse]:
        """List the page tables on the resumer's own way to an address."""
        resumer = self.memory.resumer
        own = walk_of(resumer, resumer.mode, context, item.address, item.access)
        uses = []
        after = {step.table: step for step in item.walk.steps}
        for step in own.steps:
            overwritten = self.memory.overwritten(step.pfn)
            now = after.get(step.table)
            same = None if not overwritten else now is not None and _equivalent(now.entry, step.entry)
            uses.append(
                FrameUse(
                    role=f"{LEVEL_NAMES[step.level]} of the {item.role}",
                    virtual=item.address,
                    pfn=step.pfn,
                    resumer=self.resumer_physical(step.table),
                    overwritten=overwritten,
                    resumee=self.resumee_physical(step.physical) if overwritten else None,
                    same=same,
                )
            )
            if not resumer.knows_entry(step.table, step.index):
                break
        return uses

    def _leaf(self, context: ApContext, item: Touched) -> FrameUse:
        pfn = item.leaf
        overwritten = None if pfn is None else self.memory.overwritten(pfn)
        physical = None if pfn is None else (pfn << PAGE_SHIFT) | item.address & 0xFFF
        return FrameUse(
            role=item.role,
            virtual=item.address if pfn is not None or context.placed else None,
            pfn=pfn,
            resumer=self.resumer_symbol(item.address),
            overwritten=overwritten,
            resumee=self.resumee_physical(physical) if overwritten and physical is not None else None,
            same=item.change in {Change.SAME, Change.INTACT} if overwritten else None,
        )


def _equivalent(now: int, before: int) -> bool:
    """Tell whether two entries lead to the same place: accessed and dirty flags do not count."""
    return (now ^ before) & ~0x60 == 0


def _text(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name
