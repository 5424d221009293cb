"""All designs over one handoff, side by side: what becomes of the copy, and what could still happen after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hibercheck.cpulist import format_cpu_list
from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.designs.catalogue import DESIGNS, Announcement, Design, MonitoredLine
from hibercheck.handoff.designs.occupy import island_of
from hibercheck.handoff.designs.own import judge_own
from hibercheck.handoff.designs.parking import kicked
from hibercheck.handoff.designs.replay import InUse, Replayed, replay_under
from hibercheck.handoff.designs.rest import Rest, resting
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.park import Parked
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.check import conditions, open_inputs
from hibercheck.handoff.verdict.decide import decide
from hibercheck.handoff.verdict.findings import HARM, Condition, Outcome, Verdict
from hibercheck.handoff.verdict.reporting import told_of
from hibercheck.handoff.verdict.words import sentence
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, rule

if TYPE_CHECKING:
    from hibercheck.kernel.cache import KernelCache

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
class Named:
    """A kernel, by what it is told from others."""

    release: str
    build_id: str | None


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
        rest: Where those that the resumee has offline spend their time in the end; empty where the machine resets.
        frames: PFNs of the design's own pages, with their roles.
        placed: How those frames were found, or why there are none.
        notes: What else there is to say.
        conditions: What would change the verdict, the worst first.
        spared: Names of the conditions that a suppression is about.
    """

    design: Design
    known: bool
    outcome: Outcome
    verdict: Verdict
    exposures: tuple[Exposure, ...]
    cpus: tuple[CpuLine, ...]
    rest: tuple[Rest, ...]
    frames: tuple[tuple[int, str], ...] = ()
    placed: str | None = None
    notes: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    spared: frozenset[str] = frozenset()

    @property
    def strict(self) -> tuple[Outcome, Verdict]:
        """Outcome and verdict as if the worst of its conditions held, but for those that are spared."""
        return worst_of((self.outcome, self.verdict), self.conditions, self.spared)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All designs over one handoff.

    Attributes:
        image: Path of the image.
        resumer: The kernel that loads the image.
        resumee: The kernel that is in it.
        command_line: The resumer's.
        refusal: Why the resumer does not load the image at all, or None.
        own: What the resumer does by itself: outcome and verdict.
        rows: The designs.
        conditions: What would change what the resumer does by itself, the worst first.
        spared: Names of those that a suppression is about.
        warnings: What the user should know of what was given, a line each.
    """

    image: str
    resumer: Named
    resumee: Named
    command_line: str
    refusal: str | None
    own: tuple[Outcome, Verdict]
    rows: tuple[Row, ...]
    conditions: tuple[Condition, ...] = ()
    spared: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def strict(self) -> tuple[Outcome, Verdict]:
        """What the resumer does by itself, as if the worst of the conditions held, but for those that are spared."""
        return worst_of(self.own, self.conditions, self.spared)


def worst_of(
    found: tuple[Outcome, Verdict], conditions: Iterable[Condition], spared: frozenset[str]
) -> tuple[Outcome, Verdict]:
    """Return outcome and verdict as if the worst of some conditions held that are not spared."""
    counted = ((one.outcome, one.verdict) for one in conditions if one.id not in spared)
    return max((found, *counted), key=lambda one: HARM.index(one[1]))


def compare_designs(
    image: str,
    resumer: str,
    resumee: str | None,
    options: CheckOptions,
    *,
    names: Iterable[str] = (),
    bsp: int | None = None,
    cache: KernelCache | None = None,
) -> Comparison:
    """Replay one handoff under every design.

    Args:
        image: Path of the image.
        resumer: The kernel that loads it.
        resumee: The kernel that wrote it; None to read it out of the image.
        options: The scenario and further inputs.
        names: The designs wanted; all by default.
        bsp: The CPU with the BSP flag, where it is not the one that copies.
        cache: Where answers of kernels are kept; None to keep none.

    Raises:
        HibercheckError: An input cannot be read, or does not belong to the others.
    """
    wanted = frozenset(names)
    with open_inputs(image, resumer, resumee, options, cache) as (plan, acceptance, dump):
        own = decide(acceptance, None if acceptance.refusal else judge_own(plan, dump))
        rows: list[Row] = []
        if acceptance.refusal is None:
            chosen = [design for design in DESIGNS if not wanted or design.name in wanted]
            rows = [row for design in chosen for row in _rows(plan, acceptance, dump, design, bsp)]
        varied = conditions(plan, dump, own)
        return Comparison(
            image=image,
            resumer=Named(plan.resumer.release, plan.resumer.build_id),
            resumee=Named(plan.resumee.kernel.release, plan.resumee.kernel.build_id),
            command_line=plan.cmdline.text,
            refusal=None if acceptance.refusal is None else acceptance.refusal.reason,
            own=own,
            rows=tuple(rows),
            conditions=varied.conditions,
            warnings=(*told_of(plan, acceptance), *varied.warnings),
        )


def _rows(plan: Plan, acceptance: Acceptance, dump: Dump | None, design: Design, bsp: int | None) -> list[Row]:
    """Judge a design with an E that does not know it, and with one that does where that changes anything."""
    kinds = (False,) if design.announcement is Announcement.NONE else (False, True)
    return [_row(plan, acceptance, dump, design, bsp, known=known) for known in kinds]


def _row(plan: Plan, acceptance: Acceptance, dump: Dump | None, design: Design, bsp: int | None, *, known: bool) -> Row:
    replayed = replay_under(plan, dump, name=design.name, known=known, bsp=bsp)
    outcome, verdict = decide(acceptance, replayed.judgement)

    def judge_other(other: Plan) -> Judgement:
        return replay_under(other, dump, name=design.name, known=known, bsp=bsp).judgement

    island = island_of(replayed.judgement.memory)
    unplaced = next((one.missing for one in replayed.judgement.aps if one.missing and island is None), None)
    return Row(
        design=design,
        known=known,
        outcome=outcome,
        verdict=verdict,
        exposures=_exposures(plan, replayed, dump, design, bsp, known=known),
        cpus=tuple(_cpu(result) for result in replayed.judgement.aps),
        rest=() if outcome is Outcome.RESETS else resting(replayed.plan, replayed.judgement.aps),
        frames=tuple(sorted(island.roles.items())) if island else (),
        placed=island.source if island else unplaced[0] if unplaced and design.parks_offline else None,
        notes=(*_kicked(replayed, acceptance, dump, design), *_notes(replayed, known=known, bsp=bsp)),
        conditions=conditions(plan, dump, (outcome, verdict), judge_other).conditions,
    )


def _cpu(result: ApResult) -> CpuLine:
    parked = result.parked
    return CpuLine(parked.cpu, parked.state.value, parked.why, result.fate, sentence(result))


def _exposures(
    plan: Plan, replayed: Replayed, dump: Dump | None, design: Design, bsp: int | None, *, known: bool
) -> tuple[Exposure, ...]:
    """Ask what each event would do: to every CPU in the window, and later to those that E leaves where they are.

    In the window nobody has reused a frame yet, whether or not E knows of it.
    """
    quiet = replace(plan, options=replace(plan.options, spurious_mwait=False, suppose=frozenset()))
    restless = replace(plan, options=replace(plan.options, spurious_mwait=True, suppose=frozenset()))
    left = replace(replayed.plan, options=quiet.options, reinitialised=frozenset())
    kept = known or design.announcement is Announcement.CPUS
    same = left.options == plan.options and not replayed.plan.reinitialised
    after = replayed.judgement if same else judge(left, dump, InUse(design, known))
    window = judge(left, dump, InUse(design, kept)) if kept is not known else after
    same = restless.options == plan.options
    spurious = replayed if same else replay_under(restless, dump, name=design.name, known=known, bsp=bsp)
    stay = {parked.cpu for parked in replayed.plan.parked} - replayed.plan.reinitialised
    found = []
    for event in COLUMNS:
        early, late = (spurious.judgement,) * 2 if event is Event.SPURIOUS else (window, after)
        now = [_effect(result, event, early, at_once=True) for result in early.aps]
        later = [_effect(result, event, late) for result in late.aps if result.parked.cpu in stay]
        found.append(Exposure(event, _worst(now), _worst(later)))
    return tuple(found)


def _effect(result: ApResult, event: Event, judgement: Judgement, *, at_once: bool = False) -> str:
    """Say what an event does to one CPU once the copy is done, or at once, before the resumee hands out memory."""
    if event is Event.SPURIOUS:
        return SURVIVES if result.parked.state is not ParkState.MWAIT else _of_fate(result)
    effect = rule(event, result.parked.state, result.cpu.facts).effect
    if effect.ends_machine:
        return DIES
    if not effect.touches_memory:
        return SURVIVES
    exposed = next((one for one in result.exposure if one.event is event), None)
    if exposed is not None and exposed.lent:
        return SURVIVES if at_once else DEPENDS
    if exposed is not None:  # whether a resumee that was not told has reused its frames by then nothing tells
        told = result.cpu.announced is not False
        return DIES if told and exposed.difference is Difference.FOREIGN else DEPENDS
    if result.fate is Fate.UNKNOWN or (judgement.memory is None and result.fate is not Fate.UNTOUCHED):
        return DEPENDS
    return SURVIVES


def _of_fate(result: ApResult) -> str:
    if result.fate is Fate.UNKNOWN or result.doubt is not None:
        return DEPENDS
    return DIES if result.fate is Fate.DIES else SURVIVES


def _worst(effects: Iterable[str]) -> str:
    order = (DIES, DEPENDS, SURVIVES)
    found = set(effects)
    return next((effect for effect in order if effect in found), NOTHING_LEFT)


def _kicked(replayed: Replayed, acceptance: Acceptance, dump: Dump | None, design: Design) -> tuple[str, ...]:
    """Say what the kick would change, where CPUs wait for it."""
    plan = kicked(replayed.plan) if isinstance(design, MonitoredLine) and not design.idle_task else None
    if plan is None:
        return ()
    outcome, verdict = decide(acceptance, judge(plan, dump))
    moved = "with its CPUs moved from MWAIT to HLT before the copy, as kexec does (the kick)"
    return (f"{moved}: the machine {outcome} ({verdict})",)


def _notes(replayed: Replayed, *, known: bool, bsp: int | None) -> tuple[str, ...]:
    """Say what a table of outcomes does not: SMIs, machine checks, and who must not be sent an INIT."""
    notes: list[str] = []
    plan = replayed.plan
    left = [parked for parked in plan.parked if parked.cpu not in plan.reinitialised]
    waiting = [parked for parked in plan.parked if parked.state is ParkState.WAIT_FOR_SIPI]
    if waiting:
        notes.append(f"CPU {_list(waiting)}: INIT cleared CR4.MCE, so a broadcast machine check resets the machine")
        notes.append("firmware that waits in SMM for every CPU waits for those that block SMIs: machines have hung")
    if bsp is not None and any(parked.cpu == bsp for parked in plan.parked) and waiting:
        notes.append(f"CPU {bsp} has the BSP flag: an INIT would start it at the reset vector and reset the machine")
    if any(parked.state is ParkState.MWAIT for parked in plan.parked):
        notes.append("an SMI ends MWAIT: the CPU continues with the instruction after it, by its own text and tables")
    if any(result.cpu.announced is False for result in replayed.judgement.aps) and not known and left:
        notes.append("this E does not know the announced frames: it may reuse them while CPUs still wait there")
    return tuple(notes)


def _list(parked: Iterable[Parked]) -> str:
    return format_cpu_list(one.cpu for one in parked)
