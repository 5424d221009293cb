"""The copy as a sequence: what each parked CPU would do if it ran between any two copies.

Only a copy that goes over a frame on the CPU's way can change what the CPU does, so that a handful of moments (epochs)
stands for all the copies.  Frames are numbered in the order in which they are copied, from 1; those that the resumer
had free were filled before it parked anyone, and are counted as if they were copied too: no parked CPU uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.findings import Evidence, Finding, Level, TimelineEvent
from hibercheck.handoff.loop_replay import LINE, LoopReplay, LoopState, replay_loop
from hibercheck.handoff.naming import LEVEL_NAMES, Namer
from hibercheck.handoff.rules import RULES
from hibercheck.handoff.touch import Change, Touched
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.paging import Access

MAX_EPOCHS = 256
"""A way through overwritten tables may lead to ever new frames; no real one needs more than a dozen moments."""

NO_PFN = 1 << 52
"""Above every frame: nothing has been copied yet."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The time from one copy that matters to a CPU to the next.

    Attributes:
        pfn: The frame whose copy begins it; None before the first.
        physical: Physical address of what the CPU uses in that frame.
        copy: The number of that copy, 0 before the first.
        roles: What that frame is to the CPU: ``park loop``, ``page directory of the park loop`` and so on.
        turn: One turn of its loop in that time.
    """

    pfn: int | None
    physical: int
    copy: int
    roles: tuple[str, ...]
    turn: LoopReplay

    @property
    def hurts(self) -> bool:
        """Whether anything that the CPU touches is no longer what it was."""
        return any(item.change in {Change.CONTENT, Change.FAULT} for item in self.turn.touched)


@dataclass(frozen=True, slots=True)
class CpuTimeline:
    """One CPU's epochs, in the order of time.

    Attributes:
        cpu: Its number.
        epochs: At least one: the time before the first copy that matters.
        complete: False if there were more than `MAX_EPOCHS`.
    """

    cpu: int
    epochs: tuple[Epoch, ...]
    complete: bool = True

    @property
    def first_hurt(self) -> Epoch | None:
        """The epoch begun by the copy that first hurts it, or None."""
        return next((epoch for epoch in self.epochs if epoch.hurts), None)

    @property
    def worst(self) -> Epoch:
        """The first of the epochs in which running would end worst."""
        return max(self.epochs, key=lambda epoch: epoch.turn.state)

    @property
    def final(self) -> Epoch:
        """The epoch that lasts into the resumee's life."""
        return self.epochs[-1]

    def end_of(self, epoch: Epoch) -> int | None:
        """Return the number of the copy that ends an epoch, or None for the final one."""
        following = self.epochs[self.epochs.index(epoch) + 1 :]
        return following[0].copy if following else None


def cpu_timeline(memory: Composite, loop: ParkLoop, context: ApContext) -> CpuTimeline:
    """Follow one CPU through the copy.

    Args:
        memory: The finished copy.
        loop: Where it waits.
        context: What is known of its registers.
    """
    turn = replay_loop(replace(memory, floor=NO_PFN), loop, context)
    epochs = [Epoch(None, 0, 0, (), turn)]
    floor = NO_PFN
    while len(epochs) < MAX_EPOCHS:
        used = _frames(epochs[-1].turn)
        pfn = next_copy(memory, used, floor)
        if pfn is None:
            return CpuTimeline(context.cpu, tuple(epochs))
        floor = pfn
        turn = replay_loop(replace(memory, floor=floor), loop, context)
        roles = tuple(dict.fromkeys(used[pfn].values()))
        epochs.append(Epoch(pfn, min(used[pfn]), copy_number(memory, pfn), roles, turn))
    return CpuTimeline(context.cpu, tuple(epochs), complete=False)


def next_copy(memory: Composite, frames: Iterable[int], after: int) -> int | None:
    """Return the one of some frames that is copied next after frame ``after``, or None if none is."""
    return max((pfn for pfn in frames if pfn < after and pfn in memory.image.pfns), default=None)


def copy_number(memory: Composite, pfn: int) -> int:
    """Return the number of a frame's copy: how many image frames lie at or above it."""
    return memory.image.pfns.count_between(pfn, NO_PFN)


def _frames(turn: LoopReplay) -> dict[int, dict[int, str]]:
    """Return what lies on the CPU's way now, by frame and address; in its own frames too if the way leads elsewhere."""
    frames: dict[int, dict[int, str]] = {}

    def use(physical: int, role: str) -> None:
        frames.setdefault(physical >> PAGE_SHIFT, {}).setdefault(physical, role)

    for item in turn.touched:
        for step in item.walk.steps:
            use(step.physical, f"{LEVEL_NAMES[step.level]} of the {item.role}")
        if item.walk.physical is not None:
            use(item.walk.physical, item.role)
        if item.leaf is not None:
            use(item.leaf << PAGE_SHIFT | item.address % PAGE_SIZE, item.role)
        if item.walk.unknown_pfn is not None:
            use(item.walk.unknown_pfn << PAGE_SHIFT, f"a page table of the {item.role}")
    return frames


def follow(memory: Composite, result: ApResult, contexts: dict[int, ApContext]) -> CpuTimeline | None:
    """Follow a CPU through the copy; None if it waits in no loop."""
    context = contexts.get(result.parked.cpu)
    if result.turn is None or result.parked.loop is None or context is None:
        return None
    return cpu_timeline(memory, result.parked.loop, context)


def timeline_events(
    namer: Namer,
    aps: tuple[ApResult, ...],
    lines: tuple[CpuTimeline, ...],
    boot_cpu: int,
    supposed: Iterable[TimelineEvent] = (),
) -> tuple[TimelineEvent, ...]:
    """Put all CPUs' epochs into one sequence, between the first copy and the jump into the resumee.

    Args:
        namer: Names places.
        aps: The CPUs.
        lines: Their epochs.
        boot_cpu: The CPU that copies.
        supposed: What supposed events come to, and from which copy on.
    """
    pfns = namer.memory.image.pfns
    count = len(pfns)
    if not count:
        return ()
    begin = TimelineEvent(1, pfns.last, None, f"CPU {boot_cpu} begins to copy {count} frames, from the highest down")
    lowest = next(pfns.runs())[0]
    end = TimelineEvent(count, lowest, None, f"the last copy: CPU {boot_cpu} jumps into the resumee")
    by_cpu = {result.parked.cpu: result for result in aps}
    middle, after = [], []
    for line in lines:
        middle += list(_middle(namer, by_cpu[line.cpu], line))
        after += [TimelineEvent(count, lowest, line.cpu, text) for text in _after(namer, by_cpu[line.cpu], line)]
    middle += [replace(event, pfn=event.pfn or pfns.last) for event in supposed]
    middle.sort(key=lambda event: (event.copy, event.cpu or 0))
    return (begin, *middle, end, *after)


def _middle(namer: Namer, result: ApResult, line: CpuTimeline) -> Iterator[TimelineEvent]:
    first_hurt, worst = line.first_hurt, line.worst
    for epoch in line.epochs[1:]:
        if epoch.pfn is None:
            continue
        what = namer.resumee_physical(epoch.physical)
        marks = ["the first copy that hurts it"] if epoch is first_hurt else []
        if epoch is worst and epoch.turn.state > LoopState.SAME:
            marks.append("the worst time to wake")
        note = f" ({'; '.join(marks)})" if marks else ""
        wakes = LINE in epoch.roles and result.parked.state is ParkState.MWAIT
        tail = f"this wakes it, and {_would(epoch)}" if wakes else f"if it ran now, {_would(epoch)}"
        text = f"{', '.join(epoch.roles)}: overwritten by {what}{note}; {tail}"
        yield TimelineEvent(epoch.copy, epoch.pfn, line.cpu, text)


def _after(namer: Namer, result: ApResult, line: CpuTimeline) -> Iterator[str]:
    """Say where a CPU is left: what it would do from now on, what it monitors, where it stores."""
    hurt = "no copy hurts it" if line.first_hurt is None else f"the first to hurt it was copy {line.first_hurt.copy}"
    yield f"{hurt}; if it runs from now on, {_would(line.final)}"
    armed = next((item for item in line.final.turn.touched if item.role == LINE), None)
    if armed is not None and armed.leaf is not None and result.parked.state is ParkState.MWAIT:
        yield _armed(namer, armed)
    for item in line.final.turn.touched:
        reached = item.walk.physical
        if item.access is Access.WRITE and reached is not None and namer.memory.overwritten(reached >> PAGE_SHIFT):
            yield f"each time it runs it stores {item.size} bytes to {reached:#x}: {namer.resumee_physical(reached)}"
    if not line.complete:
        yield f"its way leads through more than {MAX_EPOCHS} overwritten frames; what follows is left out"


def _armed(namer: Namer, armed: Touched) -> str:
    """Say which line it monitors from now on, and whose that is."""
    reached = armed.walk.physical
    if reached is None:
        return f"it cannot arm its monitor at {armed.address:#x} again: its page tables no longer map that"
    start = reached & ~63
    if not namer.memory.overwritten(start >> PAGE_SHIFT):
        return f"the line that it monitors, at {start:#x}, is not overwritten"
    return f"the line that it monitors, at {start:#x}, is the resumee's now: {namer.resumee_physical(reached)}"


def _would(epoch: Epoch) -> str:
    """Say what a turn comes to, in one clause."""
    decisive = epoch.turn.decisive
    if decisive is None:
        return "it parks again"
    diversion = epoch.turn.diversion
    if diversion is not None:
        then = "and is lost" if diversion.lost else f"and then waits at {diversion.rip:#x}"
        return (
            f"it leaves its loop for {diversion.to:#x} because of its {decisive.role} at {decisive.address:#x}, {then}"
        )
    if epoch.turn.state is LoopState.SAME:
        return "it parks again, as what matters is the same there"
    where = f"its {decisive.role} at {decisive.address:#x}"
    if epoch.turn.state is LoopState.UNKNOWN:
        return f"what it does is not known: the way to {where} is not"
    fault = decisive.walk.fault
    problem = f"it faults on {where} ({fault.reason})" if fault else f"it finds other bytes at {where}"
    if epoch.turn.state is LoopState.STALE:
        return f"{problem}, unless it still has the translation cached"
    return problem


def worst_epoch_finding(result: ApResult, line: CpuTimeline, frames: int) -> Finding | None:
    """Note that a CPU which something may wake during the copy has a worse time there than at its end.

    It does not change the outcome: a CPU that spins keeps its translations cached and survives such a time.

    Args:
        result: The CPU.
        line: Its epochs.
        frames: How many frames are copied in all.
    """
    worst = line.worst
    if result.parked.state is not ParkState.MWAIT or worst.turn.state < LoopState.STALE:
        return None
    if worst.turn.state <= line.final.turn.state or worst.turn.decisive is None:
        return None
    decisive = worst.turn.decisive
    rule = "HC202" if decisive.change is Change.FAULT or decisive.tables_only else "HC201"
    until = line.end_of(worst)
    message = (
        f"from copy {worst.copy} to copy {until} of {frames} it is worse for CPU {line.cpu} to wake than later: "
        f"{_would(worst)}"
    )
    evidence = Evidence(f"the {decisive.role} at {decisive.address:#x} in that time", walk=decisive.walk)
    advice = RULES[rule].advice
    return Finding(rule, Level.NOTE, line.cpu, decisive.role, message, evidence=(evidence,), advice=advice)
