"""The copy as a sequence for supposed events: what an NMI, a machine check or an SMI between any two copies comes to.

As in `hibercheck.handoff.timeline`, only a copy over a frame on the way of the event (gate, descriptor, stack pointer,
stack, handler, and the loop that it returns to, with the page tables of each) can change what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.event_replay import EntryFacts, EventReplay, replay_event
from hibercheck.handoff.findings import TimelineEvent
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.resumee import Resumee
from hibercheck.handoff.summary import with_article
from hibercheck.handoff.timeline import MAX_EPOCHS, NO_PFN, copy_number, next_copy
from hibercheck.x86.events import Event, Facts


@dataclass(frozen=True, slots=True)
class Moment:
    """The time from one copy that matters to an event to the next.

    Attributes:
        pfn: The frame whose copy begins it; None before the first.
        copy: The number of that copy, 0 before the first.
        replay: What the event comes to in that time.
    """

    pfn: int | None
    copy: int
    replay: EventReplay


@dataclass(frozen=True, slots=True)
class EventLine:
    """One event to one CPU, through the whole copy.

    Attributes:
        cpu: The CPU's number.
        event: The event.
        moments: In the order of time; at least one.
    """

    cpu: int
    event: Event
    moments: tuple[Moment, ...]

    @property
    def worst(self) -> Moment:
        """The first of the times at which the event would end worst."""
        return max(self.moments, key=lambda moment: moment.replay.state)

    @property
    def changes(self) -> tuple[Moment, ...]:
        """The moments from which on it ends otherwise than before."""
        before, found = LoopState.INTACT, []
        for moment in self.moments:
            if _kind(moment.replay.state) != _kind(before):
                found.append(moment)
            before = moment.replay.state
        return tuple(found)


def event_lines(
    memory: Composite,
    aps: Iterable[ApResult],
    contexts: Mapping[int, ApContext],
    entries: Mapping[int, tuple[EntryFacts, Facts]],
    events: Iterable[Event],
    resumee: Resumee,
) -> tuple[EventLine, ...]:
    """Follow every supposed event to every parked CPU.

    Args:
        memory: The finished copy.
        aps: The CPUs.
        contexts: What is known of their registers.
        entries: How they enter handlers, and what decides how they take events.
        events: What is supposed.
        resumee: The resumee.
    """
    wanted = sorted(events)
    found = []
    for result in aps:
        context, entry = contexts.get(result.parked.cpu), entries.get(result.parked.cpu)
        if context is not None and entry is not None:
            found += [_line(memory, result, context, entry, event, resumee) for event in wanted]
    return tuple(found)


def _line(
    memory: Composite,
    result: ApResult,
    context: ApContext,
    entry: tuple[EntryFacts, Facts],
    event: Event,
    resumee: Resumee,
) -> EventLine:
    parked = result.parked

    def at(floor: int) -> EventReplay:
        now = replace(memory, floor=floor)
        return replay_event(now, event, parked.state, parked.loop, context, entry[0], resumee, entry[1])

    first = at(NO_PFN)
    if not first.effect.ends_machine:  # its own kernel has it still, whether or not all its tables are known
        first = replace(first, state=LoopState.INTACT, reason="nothing has been copied yet")
    moments = [Moment(None, 0, first)]
    floor = NO_PFN
    while len(moments) < MAX_EPOCHS:
        pfn = next_copy(memory, _frames(moments[-1].replay), floor)
        if pfn is None:
            break
        floor = pfn
        moments.append(Moment(pfn, copy_number(memory, pfn), at(floor)))
    return EventLine(parked.cpu, event, tuple(moments))


def _frames(replay: EventReplay) -> set[int]:
    """Return every frame on the way that the event takes now."""
    frames: set[int] = set()
    for access in replay.delivery.accesses if replay.delivery else ():
        frames.update(access.walk.pfns)
    for item in replay.loop.touched if replay.loop else ():
        frames.update(item.walk.pfns)
        if item.leaf is not None:
            frames.add(item.leaf)
    return frames


def _kind(state: LoopState) -> str:
    if state <= LoopState.SAME:
        return "survives"
    return "unknown" if state is LoopState.UNKNOWN else "dies"


def event_timeline(lines: Iterable[EventLine]) -> Iterator[TimelineEvent]:
    """Say from which copy on each event ends otherwise than before."""
    for line in lines:
        subject = with_article(line.event.value)
        for moment in line.changes:
            kind, reason = _kind(moment.replay.state), moment.replay.reason
            when = "at any time" if moment.copy == 0 and len(line.changes) == 1 else "from here on"
            mark = " (the worst time for it)" if moment is line.worst and kind == "dies" and moment.copy else ""
            text = {
                "dies": f"{when} {subject} would kill it{mark}: {reason}",
                "unknown": f"{when} what {subject} comes to is not known: {reason}",
                "survives": f"{when} it survives {subject} again: {reason}",
            }[kind]
            yield TimelineEvent(max(moment.copy, 1), moment.pfn or 0, line.cpu, text)
