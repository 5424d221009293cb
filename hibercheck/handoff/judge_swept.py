"""The replay with the resumer at a random address: over every place where it may lie."""

from __future__ import annotations

from dataclasses import replace

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.ap import AFTER_HANDOFF, IN_HANDOFF, NO_MEMORY, SPURIOUS_EXITS, SUPPOSED, ApResult
from hibercheck.handoff.boot_cpu import BootCpuReplay, replay_boot_cpu
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.event_replay import EventReplay
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.judge_placed import placed_facts
from hibercheck.handoff.judgement import Judgement, physical_bits
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.park import Parked
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.sweep import Sweep, sweep
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.view import KernelView
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, rule
from hibercheck.x86.paging import PagingMode

_LOAD_PHYSICAL_ADDRESS = 16 << 20  # CONFIG_PHYSICAL_START's default


def judge_swept(plan: Plan, levels: int) -> Judgement:
    """Judge every placement: which CPUs something makes run, and in how many places that kills one of them."""
    results: list[ApResult] = []
    warm: list[ParkLoop] = []
    cold: list[ParkLoop] = []
    for parked in plan.parked:
        results.append(_unplaced(plan, parked))
        if results[-1].depends is None or parked.loop is None:
            continue
        (warm if plan.options.spurious_mwait and results[-1].cause is Event.SPURIOUS else cold).append(parked.loop)
    found = None
    if warm or cold:
        try:
            found = _sweep(plan, (*warm, *cold), levels, tables_matter=bool(cold))
        except MissingFact as problem:
            results = [_unknown(result, str(problem)) for result in results]
        else:
            results = [_settle(result, found) for result in results]
    results = _expose(plan, results, levels)
    return Judgement(None, _boot_cpu_unplaced(plan, levels), tuple(results), {}, found)


def _sweep(plan: Plan, loops: tuple[ParkLoop, ...], levels: int, *, tables_matter: bool) -> Sweep:
    """Go over all places.

    Raises:
        MissingFact: The image does not say which there are.
    """
    return sweep(
        plan.image,
        plan.resumer,
        plan.resumee,
        loops,
        plan.traits.physical_start.value or _LOAD_PHYSICAL_ADDRESS,
        tables_matter=tables_matter,
        levels=levels,
    )


def _expose(plan: Plan, results: list[ApResult], levels: int) -> list[ApResult]:
    """Say of CPUs that stay in their loops for good whether the next event may find them overwritten."""
    staying = [one for one in results if one.fate is Fate.STAYS_PARKED and not one.reinitialised]
    loops = tuple(dict.fromkeys(one.parked.loop for one in staying if one.parked.loop is not None))
    if not loops:
        return results
    try:
        found = _sweep(plan, loops, levels, tables_matter=True)
    except MissingFact as problem:
        reason = f"where the resumer may lie is not known ({problem})"
    else:
        if not found.failing:
            return results
        reason = f"in {found.failing} of {found.placements} places of the resumer it would not find its loop again"
    return [replace(one, exposure=_exposure(plan, one.parked, reason)) if one in staying else one for one in results]


def _exposure(plan: Plan, parked: Parked, reason: str) -> tuple[EventReplay, ...]:
    """Return the events that were not supposed and would make a CPU run, with what is known of what follows."""
    found = []
    for name, event in SUPPOSED.items():
        effect = rule(event, parked.state, placed_facts(plan, parked)).effect
        if name not in plan.options.suppose and (effect.touches_memory or effect.ends_machine):
            state = LoopState.FOREIGN if effect.ends_machine else LoopState.UNKNOWN
            found.append(EventReplay(event, effect, state, None, None, reason))
    return tuple(found)


def _unplaced(plan: Plan, parked: Parked) -> ApResult:
    """Say what makes a CPU run whose place is not known; ``depends`` marks what the sweep must decide."""
    if parked.unsettled is not None:
        return ApResult(parked, Fate.UNKNOWN, missing=(parked.unsettled.fact, parked.unsettled.supply))
    if parked.loop is None and parked.state not in NO_MEMORY:
        missing = (f"the code in which CPU {parked.cpu} waits", "a resumer vmlinux with symbols")
        return ApResult(parked, Fate.UNKNOWN, missing=missing)
    chance = "the resumer's load address is random"
    if parked.state in SPURIOUS_EXITS:
        spurious = plan.options.spurious_mwait or parked.state is ParkState.PORT_IO
        cause = Event.SPURIOUS if spurious else Event.STORE
        return ApResult(parked, Fate.DIES, IN_HANDOFF, cause, depends=chance)
    if parked.cpu in plan.reinitialised:
        return ApResult(parked, Fate.REINITIALISED, reinitialised=True)
    for name in sorted(plan.options.suppose):
        effect = rule(SUPPOSED[name], parked.state, placed_facts(plan, parked)).effect
        if effect.ends_machine:
            return ApResult(parked, Fate.DIES, AFTER_HANDOFF, SUPPOSED[name])
        if effect.touches_memory:
            return ApResult(parked, Fate.DIES, AFTER_HANDOFF, SUPPOSED[name], depends=chance)
    fate = Fate.UNTOUCHED if parked.state in NO_MEMORY else Fate.STAYS_PARKED
    return ApResult(parked, fate)


def _unknown(result: ApResult, why: str) -> ApResult:
    """Leave open what only the places could tell."""
    if result.depends is None:
        return result
    return ApResult(
        result.parked, Fate.UNKNOWN, missing=(f"where the resumer may lie ({why})", "--resumer-memory DUMP")
    )


def _settle(result: ApResult, found: Sweep) -> ApResult:
    """Turn a risk into a fact where all placements agree."""
    if result.depends is None or 0 < found.failing < found.placements:
        return result
    if found.failing:
        return ApResult(result.parked, Fate.DIES, result.when, result.cause)
    return ApResult(result.parked, Fate.STAYS_PARKED if not result.reinitialised else Fate.REINITIALISED)


def _boot_cpu_unplaced(plan: Plan, levels: int) -> BootCpuReplay:
    """The boot CPU's step does not depend on where the resumer lies: the resumee's tables are all in the image."""
    resumer = _Nowhere(PagingMode(levels=levels, max_phys_bits=physical_bits(plan)), plan)
    return replay_boot_cpu(Composite(plan.image, resumer), plan.resumee)


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A resumer of which nothing is known but its paging mode."""

    mode: PagingMode
    plan: Plan
    cr3: int = 0
    kaslr_offset: int = 0
    phys_base: int = 0
    exact: bool = False

    @property
    def kernel(self) -> KernelView:
        return self.plan.resumer

    def frame(self, _pfn: int) -> bytes | None:
        return None

    def knows_entry(self, _table: int, _index: int) -> bool:
        return False

    def bytes_at(self, _address: int, _size: int) -> bytes | None:
        return None
