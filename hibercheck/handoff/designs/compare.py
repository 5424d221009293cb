"""All designs over one handoff, side by side: what becomes of the copy, and what could still happen after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hibercheck.cpulist import format_cpu_list
from hibercheck.dump.dump import Dump
from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.check import open_inputs
from hibercheck.handoff.designs.catalogue import DESIGNS, Announcement, Design
from hibercheck.handoff.designs.island_replay import EVENTS
from hibercheck.handoff.designs.parking import kicked
from hibercheck.handoff.designs.replay import Replayed, replay_under
from hibercheck.handoff.findings import Fate, Outcome, Verdict
from hibercheck.handoff.judge import judge
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.park import Parked
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.refusal import Acceptance
from hibercheck.handoff.summary import sentence
from hibercheck.handoff.verdict import decide
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, rule

SURVIVES, DIES, DEPENDS, NOTHING_LEFT = "survives", "dies", "depends", "-"
COLUMNS = (Event.SPURIOUS, Event.NMI, Event.SMI, Event.MACHINE_CHECK)
"""The events of the comparison."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What one event would do.

    Attributes:
        event: The event.
        window: If it comes between the copy and the resumee's INIT: survives, dies or depends.
        after: If it comes later; ``-`` where the resumee has taken over every CPU by then.
    """

    event: Event
    window: str
    after: str


@dataclass(frozen=True, slots=True)
class CpuLine:
    """One CPU under one design."""

    cpu: int
    state: str
    why: str
    fate: Fate
    sentence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One design with one kind of E.

    Attributes:
        design: The design.
        known: Whether E has the same design; False for an E that does not know it.
        outcome: What becomes of the machine, in the scenario as given.
        verdict: The judgement.
        exposures: What each event would do.
        cpus: Every CPU.
        frames: PFNs of the design's own pages, with their roles.
        placed: How those frames were found, or why there are none.
        notes: What else there is to say.
    """

    design: Design
    known: bool
    outcome: Outcome
    verdict: Verdict
    exposures: tuple[Exposure, ...]
    cpus: tuple[CpuLine, ...]
    frames: tuple[tuple[int, str], ...] = ()
    placed: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All designs over one handoff.

    Attributes:
        image: Path of the image.
        resumer: The resumer's release.
        resumee: The resumee's release.
        command_line: The resumer's.
        refusal: Why the resumer does not load the image at all, or None.
        own: What the resumer does by itself: outcome and verdict.
        rows: The designs.
    """

    image: str
    resumer: str
    resumee: str
    command_line: str
    refusal: str | None
    own: tuple[Outcome, Verdict]
    rows: tuple[Row, ...]


def compare_designs(
    image: str,
    resumer: str,
    resumee: str,
    options: CheckOptions,
    *,
    names: Iterable[str] = (),
    bsp: int | None = None,
) -> Comparison:
    """Replay one handoff under every design.

    Args:
        image: Path of the image.
        resumer: The kernel that loads it.
        resumee: The kernel that wrote it.
        options: The scenario and further inputs.
        names: The designs wanted; all by default.
        bsp: The CPU with the BSP flag, where it is not the one that copies.

    Raises:
        HibercheckError: An input cannot be read, or does not belong to the others.
    """
    wanted = frozenset(names)
    with open_inputs(image, resumer, resumee, options) as (plan, acceptance, dump):
        own = decide(acceptance, None if acceptance.refusal else judge(plan, dump))
        rows: list[Row] = []
        if acceptance.refusal is None:
            chosen = [design for design in DESIGNS if not wanted or design.name in wanted]
            rows = [row for design in chosen for row in _rows(plan, acceptance, dump, design, bsp)]
        return Comparison(
            image=image,
            resumer=plan.resumer.release,
            resumee=plan.resumee.kernel.release,
            command_line=plan.cmdline.text,
            refusal=None if acceptance.refusal is None else acceptance.refusal.reason,
            own=own,
            rows=tuple(rows),
        )


def _rows(plan: Plan, acceptance: Acceptance, dump: Dump | None, design: Design, bsp: int | None) -> list[Row]:
    """Judge a design with an E that does not know it, and with one that does where that changes anything."""
    kinds = (False,) if design.announcement is Announcement.NONE else (False, True)
    return [_row(plan, acceptance, dump, design, bsp, known=known) for known in kinds]


def _row(plan: Plan, acceptance: Acceptance, dump: Dump | None, design: Design, bsp: int | None, *, known: bool) -> Row:
    plan = replace(plan, options=replace(plan.options, park=design.name))
    replayed = replay_under(plan, dump, known=known, bsp=bsp)
    outcome, verdict = decide(acceptance, replayed.judgement)
    island = replayed.island
    return Row(
        design=design,
        known=known,
        outcome=outcome,
        verdict=verdict,
        exposures=_exposures(plan, replayed, dump, design, bsp, known=known),
        cpus=tuple(_cpu(result) for result in replayed.judgement.aps),
        frames=tuple(sorted(island.roles.items())) if island else (),
        placed=replayed.place.source if replayed.place else None,
        notes=(*_kicked(replayed, acceptance, dump), *_notes(replayed, known=known, bsp=bsp)),
    )


def _cpu(result: ApResult) -> CpuLine:
    parked = result.parked
    return CpuLine(parked.cpu, parked.state.value, parked.why, result.fate, sentence(result))


def _exposures(
    plan: Plan, replayed: Replayed, dump: Dump | None, design: Design, bsp: int | None, *, known: bool
) -> tuple[Exposure, ...]:
    """Ask what each event would do: to every CPU in the window, and later to those that E leaves where they are."""
    quiet = replace(plan, options=replace(plan.options, spurious_mwait=False, suppose=frozenset()))
    left = replace(quiet, reinitialised=frozenset())
    keeps_line = known and design.announcement is Announcement.LINE
    alone = replay_under(left, dump, known=keeps_line, bsp=bsp).judgement
    restless = replace(quiet, options=replace(quiet.options, spurious_mwait=True))
    spurious = replay_under(restless, dump, known=known, bsp=bsp).judgement
    found = []
    for event in COLUMNS:
        source = spurious if event is Event.SPURIOUS else alone
        each = {result.parked.cpu: _effect(result, event, replayed, source) for result in source.aps}
        later = [effect for cpu, effect in each.items() if cpu not in replayed.plan.reinitialised]
        window = each
        if replayed.replayer is not None and event in EVENTS:
            inside = replayed.replayer.island.blocks
            window = each | {cpu: _of(replayed.replayer.event(cpu, event).state) for cpu in inside}
        found.append(Exposure(event, _worst(window.values()), _worst(later)))
    return tuple(found)


def _effect(result: ApResult, event: Event, replayed: Replayed, source: Judgement) -> str:
    """Say what an event does to one CPU once the copy is done."""
    if event is Event.SPURIOUS:
        if result.parked.state is not ParkState.MWAIT:
            return SURVIVES
        return _of_fate(result)
    effect = rule(event, result.parked.state).effect
    if effect.ends_machine:
        return DIES
    if not effect.touches_memory:
        return SURVIVES
    if source.memory is None and not (replayed.island and result.parked.cpu in replayed.island.blocks):
        return DEPENDS
    replay = next((one for one in result.exposure if one.event is event), None)
    if replay is None and result.fate is Fate.DIES:
        return DIES if result.depends is None else DEPENDS
    if replay is None:
        return DEPENDS if result.fate is Fate.UNKNOWN else SURVIVES
    return _of(replay.state)


def _of(state: LoopState) -> str:
    return DIES if state is LoopState.FOREIGN else DEPENDS if state >= LoopState.UNKNOWN else SURVIVES


def _of_fate(result: ApResult) -> str:
    if result.fate is Fate.UNKNOWN or result.depends is not None:
        return DEPENDS
    return DIES if result.fate is Fate.DIES else SURVIVES


def _worst(effects: Iterable[str]) -> str:
    order = (DIES, DEPENDS, SURVIVES)
    found = set(effects)
    return next((effect for effect in order if effect in found), NOTHING_LEFT)


def _kicked(replayed: Replayed, acceptance: Acceptance, dump: Dump | None) -> tuple[str, ...]:
    """Say what the kick would change, where CPUs wait for it."""
    plan = kicked(replayed.plan) if replayed.plan.options.park == "mwait-percpu" else None
    if plan is None:
        return ()
    outcome, verdict = decide(acceptance, judge(plan, dump))
    return (f"kicked before the copy, its CPUs would wait in HLT: the machine {outcome} ({verdict})",)


def _notes(replayed: Replayed, *, known: bool, bsp: int | None) -> tuple[str, ...]:
    """Say what a table of outcomes does not: power, SMIs, machine checks, and who must not be sent an INIT."""
    notes: list[str] = []
    plan = replayed.plan
    left = [parked for parked in plan.parked if parked.cpu not in plan.reinitialised]
    waiting = [parked for parked in plan.parked if parked.state is ParkState.WAIT_FOR_SIPI]
    if waiting:
        notes.append(f"CPU {_list(waiting)}: INIT cleared CR4.MCE, so a broadcast machine check resets the machine")
        notes.append("firmware that waits in SMM for every CPU waits for those that block SMIs: machines have hung")
    burning = [parked for parked in left if parked.state is ParkState.WAIT_FOR_SIPI]
    if burning:
        notes.append(f"CPU {_list(burning)} is left waiting for a SIPI by this E and never sleeps deeply")
    shallow = [parked for parked in left if parked.state is ParkState.HLT]
    if shallow and not known:
        notes.append(f"CPU {_list(shallow)} is left in HLT by this E: no deeper than C1 until it is brought up")
    if bsp is not None and any(parked.cpu == bsp for parked in plan.parked) and waiting:
        notes.append(f"CPU {bsp} has the BSP flag: an INIT would start it at the reset vector and reset the machine")
    if any(parked.state is ParkState.MWAIT for parked in plan.parked):
        notes.append("MWAIT has no restart after an SMI: the CPU goes on behind it, through its own text and tables")
    if replayed.place is not None and not known and left:
        notes.append("this E does not know the announced frames: it may reuse them while CPUs still wait there")
    return tuple(notes)


def _list(parked: Iterable[Parked]) -> str:
    return format_cpu_list(one.cpu for one in parked)
