"""The copy as a sequence: what an event to a parked CPU comes to between any two copies.

Only a copy over a frame on the CPU's way (its loop, what it reads, its tables; for a delivery gate, descriptor, stack
and handler too) can change what becomes of it, so that a handful of moments stands for all the copies.
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass, replace
from hibercheck.handoff.memory.composite import NO_PFN, Composite
from hibercheck.handoff.memory.context import ParkedCpu, as_used
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.touch import Change
from hibercheck.handoff.replay.trace import Trace, trace
from hibercheck.x86.events import Event
from hibercheck.x86.paging import Walk

MAX_MOMENTS = 256
"""A way through overwritten tables may lead to ever new frames; no real one needs more than a dozen moments."""

LEVEL_NAMES = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}


@dataclass(frozen=True, slots=True)
class Moment:
    """The time from one copy that matters to an event to the next.

    Attributes:
        pfn: The frame whose copy begins it; None before the first.
        physical: Physical address of what the CPU uses in that frame.
        copy: The number of that copy, 0 before the first.
        roles: What that frame is to the CPU: ``park loop``, ``PD of the park loop`` and so on.
        trace: What the event comes to in that time.
    """

    pfn: int | None
    physical: int
    copy: int
    roles: tuple[str, ...]
    trace: Trace

    @property
    def hurts(self) -> bool:
        """Whether anything that the CPU touches is no longer what it was."""
        return any(item.change in {Change.CONTENT, Change.FAULT} for item in self.trace.touched)


@dataclass(frozen=True, slots=True)
class Moments:
    """One event to one CPU, through the whole copy.

    Attributes:
        cpu: The CPU's number.
        event: The event; None for iterations of its loop.
        moments: In the order of time; at least one, the time before the first copy that matters.
        complete: False if there were more than `MAX_MOMENTS`.
    """

    cpu: int
    event: Event | None
    moments: tuple[Moment, ...]
    complete: bool = True

    @property
    def first_hurt(self) -> Moment | None:
        """The moment begun by the copy that first hurts the CPU, or None."""
        return next((moment for moment in self.moments if moment.hurts), None)

    @property
    def worst(self) -> Moment:
        """The first of the moments at which the event would end worst."""
        return max(self.moments, key=lambda moment: moment.trace.difference)

    @property
    def worst_difference(self) -> Difference:
        """How the event would end at the worst of the moments; of some that were not followed nothing is known."""
        found = self.worst.trace.difference
        return found if self.complete else max(found, Difference.UNKNOWN)

    @property
    def final(self) -> Moment:
        """The moment that lasts into the resumee's life."""
        return self.moments[-1]

    def end_of(self, moment: Moment) -> int | None:
        """Return the number of the copy that ends a moment, or None for the final one."""
        following = self.moments[self.moments.index(moment) + 1 :]
        return following[0].copy if following else None

    def at(self, copy: int) -> Moment:
        """Return the moment that holds after copy number ``copy``."""
        return [moment for moment in self.moments if moment.copy <= copy][-1]

    def between(self, first: int, last: int | None) -> tuple[Moment, ...]:
        """Return the moments that hold after copy ``first`` and until copy ``last``; None for the end."""
        start = self.moments.index(self.at(first))
        return tuple(one for one in self.moments[start:] if last is None or one.copy <= max(first, last))

    def first_from(self, copy: int, difference: Difference) -> Moment | None:
        """Return the first moment, from copy ``copy`` on, that is at least as bad as ``difference``, or None."""
        start = self.moments.index(self.at(copy))
        return next((moment for moment in self.moments[start:] if moment.trace.difference >= difference), None)


def moments_of(memory: Composite, cpu: ParkedCpu, event: Event | None, *, cached: bool = False) -> Moments:
    """Follow one event to one CPU through the copy.

    Args:
        memory: The finished copy.
        cpu: The CPU.
        event: As for `trace`.
        cached: As for `trace`.
    """
    loop = cpu.parked.loop
    if event is not None or loop is None:
        return _followed(memory, cpu, event, cached=cached)
    key = "moments", id(loop), as_used(cpu.context, loop), cached
    if key not in memory.answers:  # with what the number is of, so that nothing else gets it
        memory.answers[key] = _followed(memory, cpu, None, cached=cached), loop
    found: Moments = memory.answers[key][0]
    return replace(found, cpu=cpu.number)


def _followed(memory: Composite, cpu: ParkedCpu, event: Event | None, *, cached: bool) -> Moments:
    first = trace(memory.at(NO_PFN), cpu, event, cached=cached)
    if not first.effect.ends_machine:  # its own kernel has it still, whether or not all its tables are known
        first = replace(first, difference=Difference.INTACT, reason="nothing has been copied yet")
    found = [Moment(None, 0, 0, (), first)]
    floor = NO_PFN
    while len(found) < MAX_MOMENTS:
        used = frames_of(found[-1].trace)
        pfn = memory.next_copy(used, floor)
        if pfn is None:
            return Moments(cpu.number, event, tuple(found))
        floor = pfn
        now = trace(memory.at(floor), cpu, event, cached=cached)
        roles = tuple(dict.fromkeys(used[pfn].values()))
        found.append(Moment(pfn, min(used[pfn]), memory.copy_number(pfn), roles, now))
    return Moments(cpu.number, event, tuple(found), complete=False)


def frames_of(found: Trace) -> dict[int, dict[int, str]]:
    """Return what lies on the CPU's way now, as role by frame and physical address.

    The frames that it used before the copy count too, if its way leads elsewhere now.
    """
    frames: dict[int, dict[int, str]] = {}

    def use(physical: int, role: str) -> None:
        frames.setdefault(physical >> PAGE_SHIFT, {}).setdefault(physical, role)

    def use_walk(walked: Walk, role: str) -> None:
        for step in walked.steps:
            use(step.physical, f"{LEVEL_NAMES[step.level]} of the {role}")
        if walked.physical is not None:
            use(walked.physical, role)
        if walked.unknown_pfn is not None:
            use(walked.unknown_pfn << PAGE_SHIFT, f"a page table of the {role}")

    for access in found.delivery.accesses if found.delivery else ():
        use_walk(access.walk, access.role.value)
    for item in found.touched:
        use_walk(item.walk, item.role)
        if item.leaf is not None:
            use(item.leaf << PAGE_SHIFT | item.address % PAGE_SIZE, item.role)
    return frames
