"""The whole handoff under one design, for an E that knows nothing of it or for one that has it too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.dump.dump import Dump
from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.designs.catalogue import Announcement, Design, design_named
from hibercheck.handoff.designs.island import Island, build, frames_needed
from hibercheck.handoff.designs.island_replay import IslandReplayer
from hibercheck.handoff.designs.parking import under_design
from hibercheck.handoff.designs.place import FOUR_GIB, Place, find_place, free_by_dump, ram_of
from hibercheck.handoff.exact import DumpedResumer
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.judge import judge
from hibercheck.handoff.judgement import Judgement, physical_bits
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.resumer import ResumerMemory
from hibercheck.x86.cpu import ParkState

Adjust = Callable[[ApContext, ResumerMemory], ApContext]
ASSUMED = "R is assumed to be able to reserve them; a dump of R would tell"
_NO_PLACE_SUPPLY = "nothing: the design cannot be used with this image"


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay.

    Attributes:
        plan: The scenario, with the CPUs parked as the design has it.
        judgement: What becomes of each CPU.
        place: Where the design's own pages lie; None for a design without.
        island: Those pages.
        replayer: Their replay.
    """

    plan: Plan
    judgement: Judgement
    place: Place | None = None
    island: Island | None = None
    replayer: IslandReplayer | None = None


def replay_under(plan: Plan, dump: Dump | None, *, known: bool = False, bsp: int | None = None) -> Replayed:
    """Replay the handoff under the design of ``plan.options.park``.

    Args:
        plan: The scenario, as R itself would have it.
        dump: A dump of R.
        known: Whether E has the same design, and so knows what its announcement says.
        bsp: The CPU with the BSP flag; by default the one that copies.

    Raises:
        UsageProblem: There is no design of that name.
    """
    design = design_named(plan.options.park or "")
    plan = under_design(plan, design, bsp=bsp)
    if known and design.announcement is Announcement.CPUS:
        plan = replace(plan, reinitialised=plan.bringup.present)
    if design.built:
        return _built(plan, dump, design)
    plan = replace(plan, adjust=_adjustment(plan, design, known=known))
    return Replayed(plan, judge(plan, dump))


def _adjustment(plan: Plan, design: Design, *, known: bool) -> Adjust | None:
    """Return what changes in a CPU's registers: the line that it monitors."""
    if design.name == "mwait-flags" and plan.traits.monitored.value == "percpu:mwait_cpu_dead":
        return lambda context, _resumer: replace(context, line=None)
    if design.name == "fixmap":
        return lambda context, resumer: _on_fixmap(context, resumer, known=known)
    return None


def _on_fixmap(context: ApContext, resumer: ResumerMemory, *, known: bool) -> ApContext:
    """Monitor the reserved page: a page of R's image beside its fixmap tables, which an E without the design fills."""
    stand_in = resumer.kernel.symbol("level1_fixmap_pgt") or resumer.kernel.symbol("level2_kernel_pgt")
    if known or stand_in is None:
        return replace(context, line=None, line_kept=known)
    line = (stand_in.address + resumer.kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF
    return replace(context, line=line, placed=True, gs_base=context.gs_base if context.placed else None)


def _built(plan: Plan, dump: Dump | None, design: Design) -> Replayed:
    """Build the design's pages and replay the CPUs in them; those that never ran are judged as ever."""
    inside = [parked for parked in plan.parked if parked.state is ParkState.HLT]
    base = judge(replace(plan, parked=tuple(one for one in plan.parked if one not in inside)), dump)
    if not inside:
        return Replayed(plan, base)
    levels = (plan.levels or 4) if design.paging else 0
    if design.paging and base.memory is not None:
        levels = base.memory.resumer.mode.levels
    numbers = [parked.cpu for parked in inside]
    place = _place(plan, base, dump, frames_needed(len(numbers), levels), below=None if design.paging else FOUR_GIB)
    if not place.frames:
        missing = (place.source, _NO_PLACE_SUPPLY)
        lost = tuple(ApResult(parked, Fate.UNKNOWN, missing=missing) for parked in inside)
        return Replayed(plan, replace(base, aps=_ordered((*base.aps, *lost))), place)
    island = build(numbers, place.frames, levels)
    replayer = IslandReplayer(plan.image, plan.resumer, island, physical_bits(plan))
    loop = island.park_loop()
    placed = {parked.cpu: replace(parked, loop=loop) for parked in inside}
    results = tuple(
        replayer.result(parked, plan.options.suppose, taken_over=cpu in plan.reinitialised)
        for cpu, parked in placed.items()
    )
    contexts = base.contexts | {cpu: ApContext(cpu, island.cr3, placed=True) for cpu in placed}
    plan = replace(plan, parked=tuple(placed.get(parked.cpu, parked) for parked in plan.parked))
    judgement = replace(base, aps=_ordered((*base.aps, *results)), contexts=contexts)
    return Replayed(plan, judgement, place, island, replayer)


def _ordered(aps: tuple[ApResult, ...]) -> tuple[ApResult, ...]:
    return tuple(sorted(aps, key=lambda result: result.parked.cpu))


def _place(plan: Plan, base: Judgement, dump: Dump | None, count: int, *, below: int | None) -> Place:
    resumer = base.memory.resumer if base.memory is not None else None
    ram = ram_of(plan.resumee.e820)
    if dump is not None and isinstance(resumer, DumpedResumer):
        free, source = free_by_dump(resumer, dump)
        return find_place(plan.image, ram, count, free, source, below=below)
    own = range(0)
    if resumer is not None:
        first, last = (plan.resumer.require(name).address for name in ("_text", "_end"))
        own = range(*(address - START_KERNEL_MAP + resumer.phys_base >> PAGE_SHIFT for address in (first, last + 4095)))
    return find_place(plan.image, ram, count, lambda pfn: pfn not in own, ASSUMED, below=below)
