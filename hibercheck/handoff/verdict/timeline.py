"""The copy told step by step (``--timeline``): what each parked CPU would do if it ran between any two copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import replace
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.judgement import ApResult
from hibercheck.handoff.replay.moments import MAX_MOMENTS, Moment, Moments, moments_of
from hibercheck.handoff.replay.touch import Change, Touched
from hibercheck.handoff.replay.trace import LINE
from hibercheck.handoff.scenario.known_timing import USUAL_LINE
from hibercheck.handoff.verdict.findings import Evidence, Finding, Level, TimelineEvent
from hibercheck.handoff.verdict.naming import Namer
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.handoff.verdict.words import owned, with_article, would, written
from hibercheck.swsusp.pfns import PfnList
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event
from hibercheck.x86.paging import Access


def iterations(memory: Composite, result: ApResult) -> Moments | None:
    """Follow a CPU's loop through the copy; None if it waits in none."""
    return None if result.iteration is None else moments_of(memory, result.cpu, None, cached=True)


def timeline(
    namer: Namer, pfns: PfnList, aps: tuple[ApResult, ...], boot_cpu: int, events: Iterable[Event] = ()
) -> tuple[TimelineEvent, ...]:
    """Put what may happen to all CPUs into one sequence, between the first copy and the jump into the resumee.

    Args:
        namer: Names places.
        pfns: The frames of the image.
        aps: The CPUs.
        boot_cpu: The CPU that copies.
        events: The events that are supposed at any time, beside an iteration of each loop.
    """
    memory, wanted, count = namer.memory, sorted(events), len(pfns)
    if not count:
        return ()
    first, last = pfns.last, next(pfns.runs())[0]
    begin = TimelineEvent(1, first, None, f"CPU {boot_cpu} begins to copy {count} frames, from the highest down")
    end = TimelineEvent(count, last, None, f"the last copy: CPU {boot_cpu} jumps into the resumee")
    middle, after = [], []
    for result in aps:
        line = iterations(memory, result)
        if line is not None:
            middle += list(_iterations(namer, result, line))
            after += [TimelineEvent(count, last, line.cpu, text) for text in _left_with(namer, result, line)]
    for result in aps:
        for event in wanted:
            middle += list(event_changes(moments_of(memory, result.cpu, event)))
    middle = [replace(one, pfn=one.pfn or first) for one in middle]
    middle.sort(key=lambda one: (one.copy, one.cpu or 0))
    return (begin, *middle, end, *after)


def _iterations(namer: Namer, result: ApResult, line: Moments) -> Iterator[TimelineEvent]:
    first_hurt, worst = line.first_hurt, line.worst
    for moment in line.moments[1:]:
        if moment.pfn is None:
            continue
        what = namer.resumee_physical(moment.physical)
        marks = ["the first copy that hurts it"] if moment is first_hurt else []
        if moment is worst and not moment.trace.difference.parks_again:
            marks.append("the worst time to wake")
        note = f" ({'; '.join(marks)})" if marks else ""
        wakes = LINE in moment.roles and result.parked.state is ParkState.MWAIT
        tail = f"this wakes it, and {would(moment.trace)}" if wakes else f"if it ran now, {would(moment.trace)}"
        text = f"{', '.join(moment.roles)}: overwritten by {what}{note}; {tail}"
        yield TimelineEvent(moment.copy, moment.pfn, line.cpu, text)


def _left_with(namer: Namer, result: ApResult, line: Moments) -> Iterator[str]:
    """Say where a CPU is left: what it would do from now on, what it monitors, where it stores."""
    hurt = "no copy hurts it" if line.first_hurt is None else f"the first to hurt it was copy {line.first_hurt.copy}"
    final = line.final.trace
    yield f"{hurt}; if it runs from now on, {would(final)}"
    armed = next((item for item in final.touched if item.role == LINE), None)
    if armed is not None and armed.leaf is not None and result.parked.state is ParkState.MWAIT:
        yield _armed(namer, armed, result)
    for item in final.touched:
        reached = item.walk.physical
        if item.access is Access.WRITE and reached is not None and namer.memory.overwritten(reached >> PAGE_SHIFT):
            yield f"each time it runs it stores {item.size} bytes to {reached:#x}: {namer.resumee_physical(reached)}"
    if not line.complete:
        yield f"its way leads through more than {MAX_MOMENTS} overwritten frames; what follows is left out"


def _armed(namer: Namer, armed: Touched, result: ApResult) -> str:
    """Say which line it monitors from now on, and whose that is."""
    reached = armed.walk.physical
    if reached is None:
        return f"it cannot arm its monitor at {armed.address:#x} again: its page tables no longer map that"
    start = reached & -(namer.memory.owners.line_size if namer.memory.owners else USUAL_LINE)
    if not namer.memory.overwritten(start >> PAGE_SHIFT):
        whose = "" if result.owner is None else f": {owned(result.owner)}{written(result.owner)}"
        return f"the line that it monitors, at {start:#x}, is not overwritten{whose}"
    return f"the line that it monitors, at {start:#x}, is the resumee's now: {namer.resumee_physical(reached)}"


def event_changes(line: Moments) -> Iterator[TimelineEvent]:
    """Say from which copy on an event ends otherwise than before."""
    changes = changes_of(line)
    subject = with_article(line.event.value) if line.event else "a wake-up"
    for moment in changes:
        kind, reason = _kind(moment.trace.difference), moment.trace.reason
        when = "at any time" if moment.copy == 0 and len(changes) == 1 else "from here on"
        mark = " (the worst time for it)" if moment is line.worst and kind == "dies" and moment.copy else ""
        text = {
            "dies": f"{when} {subject} would kill it{mark}: {reason}",
            "unknown": f"{when} what {subject} comes to is not known: {reason}",
            "survives": f"{when} it survives {subject} again: {reason}",
        }[kind]
        yield TimelineEvent(max(moment.copy, 1), moment.pfn or 0, line.cpu, text)


def changes_of(line: Moments) -> tuple[Moment, ...]:
    """Return the moments from which on an event ends otherwise than before."""
    before, found = Difference.INTACT, []
    for moment in line.moments:
        if _kind(moment.trace.difference) != _kind(before):
            found.append(moment)
        before = moment.trace.difference
    return tuple(found)


def _kind(difference: Difference) -> str:
    if difference.parks_again:
        return "survives"
    return "unknown" if difference is Difference.UNKNOWN else "dies"


def worst_moment_finding(result: ApResult, line: Moments, frames: int) -> Finding | None:
    """Note that a CPU which something may wake during the copy has a worse time there than at its end.

    It does not change the outcome: a CPU that spins keeps its translations cached and survives such a time.

    Args:
        result: The CPU.
        line: Iterations of its loop.
        frames: How many frames are copied in all.
    """
    worst = line.worst
    decisive = worst.trace.decisive
    if result.parked.state is not ParkState.MWAIT or worst.trace.difference < Difference.STALE or decisive is None:
        return None
    if worst.trace.difference <= line.final.trace.difference:
        return None
    rule = "HC202" if decisive.change is Change.FAULT or decisive.tables_only else "HC201"
    until = line.end_of(worst)
    message = (
        f"from copy {worst.copy} to copy {until} of {frames} it is worse for CPU {line.cpu} to wake than later: "
        f"{would(worst.trace)}"
    )
    evidence = Evidence(f"the {decisive.role} at {decisive.address:#x} in that time", walk=decisive.walk)
    advice = RULES[rule].advice
    return Finding(rule, Level.NOTE, line.cpu, decisive.role, message, evidence=(evidence,), advice=advice)
