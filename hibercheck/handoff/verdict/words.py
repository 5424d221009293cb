"""What is found, in words: every sentence about one CPU is made here, so that no two can say otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Doubt, Fate, When
from hibercheck.handoff.replay.judgement import ApResult, Timing
from hibercheck.handoff.replay.trace import Trace
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.handoff.replay.divergence import Divergence  # it decodes, for which most checks have no use

WHEN = {
    When.COPY: "in the handoff",
    When.BEFORE_INIT: "before the resumee sends it an INIT",
    When.AFTER: "after the handoff",
}

_DOUBTS = {
    Doubt.LINE: "it is not known whether the image covers the monitored line",
    Doubt.BREAK_EVENT: "whether a break event of the chipset ends the port read during the copy is chance",
    Doubt.PLACE: "the resumer's load address is random",
    Doubt.COVERAGE: "it is chance which frames an image covers",
    Doubt.REUSED: "the resumee does not know that these frames are in use, and may have reused them",
    Doubt.CACHE: "its page tables have been replaced, and whether it has cached the way to its loop is not known",
    Doubt.HANDED_OUT: "it waits in memory that is free in the resumee, which may have handed it out",
}


def doubt_of(result: ApResult, whom: str = "it") -> str:
    """Say why it is a matter of chance that a CPU dies."""
    if result.doubt is Doubt.TIMING and result.timing is not None:
        return timing_text(result.timing)
    if result.doubt is Doubt.STORE and result.owner is not None:
        return f"the resumee leaves {whom} asleep on {owned(result.owner)}{written(result.owner)}"
    return _DOUBTS.get(result.doubt, "it depends on when it wakes") if result.doubt else ""


_NAMELESS = {
    Use.OWN_LINE: "the line on which the resumee's CPU {cpu} would wait if it went offline",
    Use.CODE: "the resumee's code or constants",
    Use.DATA: "data of the resumee",
    Use.PERCPU: "data of the resumee's CPU {cpu}",
    Use.STACK: "the stack on which the resumee hibernated",
    Use.SLAB: "objects of the resumee",
    Use.PAGE_TABLE: "a page table of one of the resumee's processes",
    Use.ANONYMOUS: "memory of one of the resumee's processes",
    Use.PAGE_CACHE: "the resumee's page cache",
    Use.FREE: "free memory of the resumee",
    Use.RESERVED: "memory that the resumee set aside at boot",
    Use.KERNEL: "pages that the resumee allocated for itself",
    Use.SNAPSHOT: "memory that the resumee used to hibernate",
    Use.ABSENT: "memory that the image does not hold",
    Use.UNKNOWN: "memory whose use is not known",
}
_NAMED = {
    Use.CODE: "{names} of the resumee, which is not written",
    Use.DATA: "{names} of the resumee",
    Use.PERCPU: "{names} of the resumee's CPU {cpu}",
    Use.SLAB: "an object of the resumee's cache {names}",
}


def owned(owner: Owner) -> str:
    """Say what a line is to the resumee."""
    text = _NAMED.get(owner.use) if owner.names else None
    return (text or _NAMELESS[owner.use]).format(names=" and ".join(owner.names), cpu=owner.cpu)


def written(owner: Owner) -> str:
    """Say whether the resumee writes a line, as a relative clause; nothing where that is not known."""
    return {
        Writes.NEVER: "" if owner.use is Use.CODE else ", which it leaves alone",
        Writes.HANDED_OUT: ", which is written once it is handed out",
        Writes.ORDINARY: ", where it writes as it runs",
        Writes.BEFORE_INIT: f", where it certainly writes as it resumes ({owner.writer})",
    }.get(owner.writes, "")


def timing_text(timing: Timing) -> str:
    """Say when a store wakes a CPU and how long its loop is then still its own."""
    if timing.margin is None:
        then = "while the code and tables that it needs are still its own"
    elif timing.margin == 0:
        then = "and its page tables are gone by then: what it has cached of them decides"
    else:
        then = f"and {'' if timing.counted else 'at most '}{timing.margin} copies later it no longer finds its way back"
    late = ""
    if timing.longest is not None and timing.margin is not None:
        over = "more" if timing.longest > timing.margin else "less"
        late = f"; it may take {timing.longest:,} copies to wake, which is {over}"
    return f"copy {timing.store} of {timing.copies} writes its line and wakes it, {then}{late}"


def then_of(divergence: Divergence) -> str:
    """Say what becomes of a CPU that has left its loop."""
    if divergence.unknown:
        return f"and goes on to {divergence.rip:#x}, where its code is not understood"
    return "and is lost" if divergence.lost else f"and then waits at {divergence.rip:#x}"


def would(found: Trace) -> str:
    """Say what one iteration comes to, in one clause."""
    decisive, divergence = found.decisive, found.divergence
    if decisive is None:
        return "it parks again"
    if divergence is not None:
        return (
            f"it leaves its loop for {divergence.to:#x} because of its {decisive.role} at {decisive.address:#x}, "
            f"{then_of(divergence)}"
        )
    if found.difference is Difference.SAME:
        return "it parks again, as what matters is the same there"
    where = f"its {decisive.role} at {decisive.address:#x}"
    if found.difference is Difference.UNKNOWN:
        return f"what it does is not known: the way to {where} is not"
    fault = decisive.walk.fault
    problem = f"it faults on {where} ({fault.reason})" if fault else f"it finds other bytes at {where}"
    if found.difference is Difference.STALE:
        return f"{problem}, unless it still has the translation cached"
    return problem


def sentence(result: ApResult) -> str:
    """Say what becomes of a CPU, and why, in one sentence."""
    if result.missing is not None:
        return f"not known: {result.missing[0]}"
    if result.doubt is not None:
        return f"it may be lost {WHEN[result.when]}: {doubt_of(result)}" if result.when else doubt_of(result)
    makers = {
        Fate.DIES: _dies,
        Fate.PARKS_AGAIN: lambda _: "what it runs through is overwritten with the same bytes, by luck; it parks again",
        Fate.REINITIALISED: lambda _: "nothing makes it run before the resumee's INIT takes it out of its loop",
        Fate.STAYS_PARKED: _stays,
    }
    maker = makers.get(result.fate)
    if result.fate is Fate.REINITIALISED and result.runs_on_cache:
        return "its page tables are overwritten; it runs on the translations it has cached until the resumee's INIT"
    if result.fate is Fate.REINITIALISED and result.may_run_on_cache and result.line is not False:
        return (
            "its page tables may be overwritten, which is not known; if it runs, it is on the translations it has "
            "cached, until the resumee's INIT"
        )
    return maker(result) if maker else "nothing that it can touch is overwritten"


def _dies(result: ApResult) -> str:
    if result.stored_to and result.owner is not None:
        where = f"{owned(result.owner)}{written(result.owner)}"
        return f"it sleeps on {where}: that store wakes it in memory that has been replaced"
    fatal = result.fatal_event
    if fatal is not None and result.cause is not None:
        return f"when {with_article(result.cause.value)} reaches it, {fatal.reason}"
    if result.cause is None or result.iteration is None or result.iteration.decisive is None:
        return f"it is lost {WHEN[result.when]}" if result.when else "it is lost"
    decisive = result.iteration.decisive
    if result.iteration.divergence is not None and result.iteration.divergence.lost:
        what = f"what it reads as its {decisive.role} is no longer its own, and leads it out of its loop"
    elif decisive.leaf_overwritten:
        what = "its loop is overwritten with other bytes"
    else:
        what = "its loop is out of reach"
    return f"{with_article(result.cause.value)} makes it run during the copy, when {what}"


def _stays(result: ApResult) -> str:
    killers = killers_of(result)
    if killers:
        return f"the resumee leaves it in the resumer's loop; the next {either(killers)} would kill the machine"
    tail = ""
    if lent := lent_to(result):
        tail = f"; that memory is free, and once it is handed out, the next {either(lent)} would kill the machine"
    elif unknown := unknown_of(result):
        tail = f"; what the next {either(unknown)} would do to it is not known"
    return f"the resumee leaves it in the resumer's loop{tail}"


def killers_of(result: ApResult) -> list[str]:
    """Name the events that were not supposed and would certainly kill a CPU."""
    return _events(found for found in result.exposure if _certain(found))


def unknown_of(result: ApResult) -> list[str]:
    """Name the events that were not supposed and of which it is not known what they would do to a CPU."""
    return _events(found for found in result.exposure if not found.lent and not _certain(found))


def _events(traces: Iterable[Trace]) -> list[str]:
    return [found.event.value for found in traces if found.event is not None]


def _certain(found: Trace) -> bool:
    return found.difference is Difference.FOREIGN


def lent_to(result: ApResult) -> list[str]:
    """Name the events, supposed or not, that kill a CPU once the resumee hands out memory that it goes through."""
    return _events(found for found in (*result.events, *result.exposure) if found.lent)


def either(events: Sequence[str]) -> str:
    """Return ``an NMI, SMI or machine check`` without the article."""
    return f"{', '.join(events[:-1])} or {events[-1]}" if len(events) > 1 else "".join(events)


def with_article(event: str) -> str:
    """Put the indefinite article before the name of an event."""
    return f"{'an' if event in {'NMI', 'SMI', 'INIT', 'external interrupt'} else 'a'} {event}"


PARKED_IN = {
    ParkState.MWAIT: "in MWAIT",
    ParkState.HLT: "in HLT",
    ParkState.PORT_IO: "in an I/O port read",
    ParkState.WAIT_FOR_SIPI: "in wait-for-SIPI",
    ParkState.NEVER_BOOTED: "where the firmware left it",
}
"""Where a CPU is parked, in words."""
