"""From the scenario to what becomes of each CPU: in a dump, at a known address, or over every place where R may lie.

They differ in the memory and the registers that they supply; `judge_cpu` judges each CPU in all of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Protocol

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import replace
from hibercheck.errors import MissingFact
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.memory.owner import Owner, Writes
from hibercheck.handoff.memory.placed import placed
from hibercheck.handoff.replay.boot_cpu import lacking, replay_boot_cpu
from hibercheck.handoff.replay.classes import Classes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import (
    SUPPOSED,
    After,
    Doubt,
    Fate,
    Prospects,
    Ruling,
    Suppositions,
    When,
    fate_of,
    over_places,
)
from hibercheck.handoff.replay.judgement import ApResult, Judgement, Timing
from hibercheck.handoff.replay.moments import Moments, frames_of, moments_of
from hibercheck.handoff.replay.places import Sweep, alignment_of, classes_of
from hibercheck.handoff.replay.touch import own_frame
from hibercheck.handoff.replay.trace import Trace, trace
from hibercheck.handoff.scenario.known_cpus import TLB
from hibercheck.handoff.scenario.known_timing import WAKE_LATENCY
from hibercheck.handoff.scenario.park import NO_MEMORY
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event

if TYPE_CHECKING:
    from hibercheck.dump.dump import Dump

EVENTS = (Event.STORE, Event.NMI, Event.MACHINE_CHECK, Event.SMI)
"""What may come to a CPU that the resumee leaves where it is; a store only to one that monitors a line."""

REUSED = "the resumee knows nothing of the frames that it waits in, and may have reused them"
LENT = "it parks again, unless the resumee has handed out the free memory that it goes through"


class Rearrangement(Protocol):
    """A way of parking that is not the resumer's own: it changes memory and registers, and no rule."""

    def apply(
        self, plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], dump: Dump | None
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Return memory and CPUs as they are with it."""
        ...


def suppositions(plan: Plan) -> Suppositions:
    """Take what is supposed from the options."""
    return Suppositions(
        plan.options.spurious_mwait,
        frozenset(SUPPOSED[name] for name in plan.options.suppose),
        plan.options.wake_latency,
        plan.asking.value(TLB) == "cold",
        plan.mwait_ends,
        plan.asking.value(WAKE_LATENCY) if plan.sleeps else None,
    )


def judge(plan: Plan, dump: Dump | None, rearrangement: Rearrangement | None = None) -> Judgement:
    """Replay the handoff.

    Args:
        plan: The scenario.
        dump: A dump of the resumer's memory, or None.
        rearrangement: How CPUs are parked, if not as the resumer itself does it.
    """
    return replace(_judge(plan, dump, rearrangement), lacks=lacking(plan))


def _judge(plan: Plan, dump: Dump | None, rearrangement: Rearrangement | None) -> Judgement:
    if dump is not None:
        return _in_dump(plan, dump, rearrangement)
    if plan.levels is None:
        missing = (
            "whether the CPU supports five levels of page tables",
            "no5lvl in --resumer-cmdline, or --resumer-memory",
        )
        aps = tuple(
            ApResult(ParkedCpu(parked, ApContext(parked.cpu, 0)), Ruling(Fate.UNKNOWN), missing=missing)
            for parked in plan.parked
        )
        return Judgement(None, None, aps, missing=(missing,))
    if plan.placement.phys_base is None or plan.placement.kaslr_offset is None:
        return _over_places(plan, plan.levels, rearrangement)
    memory, cpus = placed(plan, plan.levels, plan.placement.phys_base, plan.placement.kaslr_offset)
    if rearrangement is not None:
        memory, cpus = rearrangement.apply(plan, memory, cpus, None)
    return Judgement(memory, replay_boot_cpu(memory, plan.resumee), _judged(plan, memory, cpus))


def _in_dump(plan: Plan, dump: Dump, rearrangement: Rearrangement | None) -> Judgement:
    from hibercheck.handoff.memory.dumped import dumped  # noqa: PLC0415 - dumps are rare and their readers slow to load

    found = dumped(plan, dump)
    memory, cpus = found.memory, found.cpus
    if rearrangement is not None:
        memory, cpus = rearrangement.apply(plan, memory, cpus, dump)
    aps = _judged(plan, memory, cpus)
    return Judgement(memory, replay_boot_cpu(memory, plan.resumee), aps, dump_shows_parked=found.shows_parked)


def _judged(plan: Plan, memory: Composite, cpus: Iterable[ParkedCpu]) -> tuple[ApResult, ...]:
    return judge_cpus(memory, cpus, suppositions(plan), plan.reinitialised)


def judge_cpus(
    memory: Composite, cpus: Iterable[ParkedCpu], supposed: Suppositions, reinitialised: Container[int]
) -> tuple[ApResult, ...]:
    """Judge every CPU of one memory; of those that are equal in all that counts, one.

    Args:
        memory: The finished copy.
        cpus: The CPUs.
        supposed: What may happen.
        reinitialised: The CPUs to which the resumee sends an INIT when it thaws.
    """
    classes = Classes()
    results = []
    for cpu in cpus:
        taken = cpu.number in reinitialised
        result = classes.result_for(cpu, reinitialised=taken)
        if result is None:
            result = judge_cpu(memory, cpu, supposed, reinitialised=taken)
            classes.add(result)
        results.append(result)
    return tuple(results)


def judge_cpu(memory: Composite, cpu: ParkedCpu, supposed: Suppositions, *, reinitialised: bool) -> ApResult:
    """Take one CPU through the copy and beyond.

    Args:
        memory: The finished copy.
        cpu: The CPU.
        supposed: What may happen.
        reinitialised: Whether the resumee sends it an INIT when it thaws.
    """
    parked = cpu.parked
    if parked.unsettled is not None:
        return ApResult(cpu, Ruling(Fate.UNKNOWN), missing=(parked.unsettled.fact, parked.unsettled.supply))
    if parked.loop is None and parked.state not in NO_MEMORY:
        missing = (f"the code in which CPU {parked.cpu} waits", "a resumer vmlinux with symbols")
        return ApResult(cpu, Ruling(Fate.UNKNOWN), missing=missing)
    iteration = trace(memory, cpu, None, cached=True) if parked.loop is not None else None
    line, frame = _line(memory, cpu)
    owner = _owner(memory, cpu, frame)
    moments = _while_copying(memory, cpu, iteration, line)
    woken = None if moments is None or frame is None else (moments, memory.copy_number(frame))
    later = {} if reinitialised else {event: _later(memory, cpu, event) for event in _events_of(parked.state)}
    awake = None if woken is None else _awake(*woken, supposed)
    prospects = Prospects(
        settled=None if iteration is None else iteration.difference,
        fetch_unknown=iteration is not None and iteration.fetch_unknown,
        spurious=_spurious(memory, cpu, iteration, supposed),
        at_store=None if awake is None else min(awake),
        worst_at_store=max(awake) if awake else None if moments is None else moments.worst_difference,
        usual=None if woken is None else _usual(*woken, supposed),
        after={
            event: After(found.difference, _reuse(cpu, found), found.lent, found.granted)
            for event, found in later.items()
        },
        line=line,
        writes=Writes.UNKNOWN if owner is None else owner.writes,
    )
    ruling = fate_of(parked.state, prospects, supposed, reinitialised=reinitialised)
    return ApResult(
        cpu,
        ruling,
        iteration,
        tuple(found for event, found in later.items() if event in supposed.events),
        tuple(
            found
            for event, found in later.items()
            if event not in supposed.events and (found.difference >= Difference.UNKNOWN or found.lent)
        ),
        reinitialised=reinitialised,
        line=line,
        owner=owner,
        timing=None if woken is None else _timing(memory, *woken, supposed),
        reads_tables=any(found.reads_tables for found in later.values()),
        missing=_missing(ruling, iteration, later, parked.cpu) if ruling.fate is Fate.UNKNOWN else None,
    )


def _events_of(state: ParkState) -> tuple[Event, ...]:
    return EVENTS if state is ParkState.MWAIT else EVENTS[1:]


def _later(memory: Composite, cpu: ParkedCpu, event: Event) -> Trace:
    """Let an event come after the handoff, when nothing is cached any more."""
    found = trace(memory, cpu, event)
    if not found.effect.touches_memory:
        return found
    if cpu.announced is False:
        return replace(found, difference=Difference.FOREIGN, reason=REUSED)
    owners = memory.owners if cpu.announced is None and found.difference.parks_again else None
    if owners is not None and any(map(owners.handed_out, frames_of(found))):
        return replace(found, lent=True, reason=LENT)
    return found


def _reuse(cpu: ParkedCpu, found: Trace) -> Doubt | None:
    """Return the doubt that the resumee knows nothing of the frames that a CPU waits in, if an event touches them."""
    return Doubt.REUSED if cpu.announced is False and found.effect.touches_memory else None


def _line(memory: Composite, cpu: ParkedCpu) -> tuple[bool | None, int | None]:
    """Tell whether the image is copied over the line that the CPU monitors, and its frame; None where not known."""
    context = cpu.context
    if cpu.parked.state is not ParkState.MWAIT or context.line_kept:
        return False, None
    if context.line_frame is not None:
        return memory.overwritten(context.line_frame) and not context.line_withheld, context.line_frame
    if context.line is None or not context.placed:
        return None, None
    frame = own_frame(memory.resumer, context, context.line)
    return (None if frame is None else memory.overwritten(frame) and not context.line_withheld), frame


def _owner(memory: Composite, cpu: ParkedCpu, frame: int | None) -> Owner | None:
    """Say whose the line is in the resumee that the CPU monitors."""
    line = cpu.context.line
    if memory.owners is None or frame is None or line is None:
        return None
    return memory.owners.of_line(frame << PAGE_SHIFT | line % PAGE_SIZE, cpu.number)


def _while_copying(memory: Composite, cpu: ParkedCpu, iteration: Trace | None, line: bool | None) -> Moments | None:
    """Follow a CPU that a store to its line wakes, or a break event at any time, if what it touches is overwritten."""
    if iteration is None or iteration.difference is Difference.INTACT:
        return None
    if not line and cpu.parked.state is not ParkState.PORT_IO:
        return None
    return moments_of(memory, cpu, None, cached=True)


def _spurious(memory: Composite, cpu: ParkedCpu, iteration: Trace | None, supposed: Suppositions) -> Difference | None:
    """Say what a wait that ends by itself comes to.

    Once, at the worst moment of the copy; a CPU whose waits end at once meets every moment.  That one never stops using
    its translations, so that its TLB is warm; what the other finds in its own is supposed.
    """
    if iteration is None or not supposed.waits_end or iteration.difference is Difference.FOREIGN:
        return None if iteration is None else iteration.difference
    warm = supposed.mwait_spins or not supposed.cold_tlb
    return moments_of(memory, cpu, None, cached=warm).worst_difference


def _usual(moments: Moments, store: int, supposed: Suppositions) -> Difference:
    """Say what the CPU comes to when it runs, with the latency and the TLB that are supposed."""
    found = moments.at(store + (supposed.wake_latency or 0)).trace.difference
    return found.on_cold_tlb if supposed.cold_tlb else found


def _awake(moments: Moments, store: int, supposed: Suppositions) -> set[Difference]:
    """Say what the CPU comes to at the moments at which it may run, from the store to its line to the last wake-up."""
    last = None if supposed.longest_wake is None else store + supposed.longest_wake
    found = {moment.trace.difference for moment in moments.between(store, last)}
    cut_off = not moments.complete and (last is None or last > moments.final.copy)
    return found | {Difference.UNKNOWN} if cut_off else found


def _timing(memory: Composite, moments: Moments, store: int, supposed: Suppositions) -> Timing:
    tables, code = (moments.first_from(store, bound) for bound in (Difference.STALE, Difference.FOREIGN))
    return Timing(
        store,
        memory.copy_number(0),
        None if tables is None else max(tables.copy, store),
        None if code is None else max(code.copy, store),
        memory.counts_copies,
        supposed.longest_wake,
    )


def _missing(ruling: Ruling, iteration: Trace | None, later: dict[Event, Trace], cpu: int) -> tuple[str, str]:
    """Name the fact for want of which a fate is not known."""
    event = later.get(ruling.cause) if ruling.cause is not None else None
    if ruling.when is When.AFTER and ruling.cause is not None and event is not None:
        return f"what CPU {cpu} does on {ruling.cause.value}: {event.reason}", "--resumer-memory DUMP"
    if iteration is not None and iteration.divergence is not None and iteration.divergence.unknown:
        return f"what CPU {cpu} executes at {iteration.divergence.rip:#x}, out of its loop", "--resumer-memory DUMP"
    touched = iteration.decisive if iteration is not None else None
    pfn = touched.walk.unknown_pfn if touched else None
    where = f"PFN {pfn:#x} of the resumer" if pfn is not None else "memory of the resumer"
    role = touched.role if touched else "loop"
    return f"the contents of {where}, on the way to the {role}", "--resumer-memory DUMP"


def _over_places(plan: Plan, levels: int, rearrangement: Rearrangement | None) -> Judgement:
    """Judge every place where the resumer may lie, one of each class, and put them together."""
    try:
        classes = classes_of(plan, levels)
    except MissingFact as problem:
        return _nowhere(plan, levels, str(problem))
    judged = []
    boot_cpu = None
    for one in classes:
        memory, cpus = placed(plan, levels, one.phys_base, one.kaslr_offset)
        if rearrangement is not None:
            memory, cpus = rearrangement.apply(plan, memory, cpus, None)
        # the boot CPU's step does not depend on where the resumer lies: the resumee's tables are all in the image
        boot_cpu = boot_cpu or replay_boot_cpu(memory, plan.resumee)
        judged.append((one.count, _judged(plan, memory, cpus)))
    aps = tuple(together([(count, results[index]) for count, results in judged]) for index in range(len(judged[0][1])))
    total = sum(count for count, _ in judged)
    fails = [any(_lost(result.ruling) for result in results) for _, results in judged]
    failing = sum(count for (count, _), lost in zip(judged, fails, strict=True) if lost)
    places = sorted((*run, lost) for one, lost in zip(classes, fails, strict=True) for run in one.runs)
    return Judgement(None, boot_cpu, aps, Sweep(total, failing, alignment_of(plan), tuple(places)) if failing else None)


def _lost(ruling: Ruling) -> bool:
    """Tell whether a place is to blame for what becomes of a CPU, and not what the resumee does with free memory."""
    return ruling.fate is Fate.DIES and ruling.doubt is not Doubt.HANDED_OUT


def together(results: list[tuple[int, ApResult]]) -> ApResult:
    """Say what becomes of one CPU over all places.

    Args:
        results: What becomes of it in each class of places, after how many these are.
    """
    ruling = over_places([(count, _chanced(result)) for count, result in results], Doubt.PLACE)
    shown = next((result for _, result in results if result.ruling == ruling), results[0][1])
    exposed = {found.event: found for _, result in results for found in result.exposure if found.lent}
    exposed |= {found.event: found for _, result in results for found in result.exposure if not found.lent}
    total = sum(count for count, _ in results)
    exposure = []
    for event, found in exposed.items():
        failing = sum(
            count for count, result in results if any(one.event is event and not one.lent for one in result.exposure)
        )
        if not failing:
            exposure.append(found)
            continue
        reason = f"in {failing} of {total} places of the resumer it would not find its loop again"
        certain = found.effect.ends_machine
        known = found.difference if certain else Difference.UNKNOWN
        exposure.append(replace(found, difference=known, reason=reason, lent=False))
    missing = (
        next((result.missing for _, result in results if result.missing), None) if ruling.fate is Fate.UNKNOWN else None
    )
    # iteration and timing are of one place: a report must not tell them as facts
    return ApResult(
        ParkedCpu(shown.parked, ApContext(shown.parked.cpu, 0), facts=shown.cpu.facts),
        ruling,
        None,
        (),
        () if ruling.fate is Fate.DIES else tuple(exposure),
        reinitialised=shown.reinitialised,
        line=None if shown.parked.state is ParkState.MWAIT else False,
        missing=missing,
    )


def _chanced(result: ApResult) -> Ruling:
    """Count a death that rests on what is taken for granted of one place as a chance."""
    fatal = result.fatal_event
    return replace(result.ruling, doubt=Doubt.PLACE) if fatal is not None and fatal.granted else result.ruling


def _nowhere(plan: Plan, levels: int, problem: str) -> Judgement:
    """Leave open what only the place could tell: all of a CPU that waits in a loop, unless nothing makes it run."""
    missing = (f"where the resumer may lie ({problem})", "--resumer-memory DUMP")
    supposed = suppositions(plan)
    memory, cpus = placed(plan, levels, 0, 0)
    found = []
    for cpu in cpus:
        reinitialised = cpu.number in plan.reinitialised
        if cpu.parked.loop is None or cpu.parked.unsettled is not None:
            found.append(judge_cpu(memory, cpu, supposed, reinitialised=reinitialised))
        elif cpu.parked.state is ParkState.HLT and reinitialised:
            found.append(ApResult(cpu, Ruling(Fate.REINITIALISED), reinitialised=True))
        else:
            found.append(ApResult(cpu, Ruling(Fate.UNKNOWN), missing=missing))
    return Judgement(None, replay_boot_cpu(memory, plan.resumee), tuple(found))
