"""One resumer with one resumee, without an image: the engine on what is certain of both.

The resumee certainly has its own image in memory: text, data, page tables.  Of all other RAM an image covers a share.
Where a kernel's address is random, so is what lies over it, and that share is the chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hibercheck.addresses import PAGE_SIZE
from hibercheck.cpulist import cpu_phrase
from hibercheck.data import replace
from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.matrix.memory import certain_memory, waiting_cpu
from hibercheck.handoff.matrix.pairing import Run, options_of, pairing_of
from hibercheck.handoff.matrix.scenario import IMAGE_SHARE, Scenario, Settings
from hibercheck.handoff.matrix.summary import Loop, Summary, Waiting
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
from hibercheck.handoff.replay.trace import Trace, trace
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.park import NO_MEMORY
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.conditions import Decided, vary
from hibercheck.handoff.verdict.decide import borrowed_time
from hibercheck.handoff.verdict.findings import HARM, Condition, Outcome, Verdict
from hibercheck.handoff.verdict.words import with_article
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts, rule
from hibercheck.x86.paging import Access

_EVENTS = (Event.STORE, Event.NMI, Event.MACHINE_CHECK, Event.SMI)
_STATES = {
    ParkState.MWAIT: "MWAIT",
    ParkState.HLT: "HLT",
    ParkState.PORT_IO: "a port read",
    ParkState.WAIT_FOR_SIPI: "wait-for-SIPI",
    ParkState.NEVER_BOOTED: "the firmware's care",
}


@dataclass(frozen=True, slots=True)
class Overlap:
    """What one iteration of a loop comes to after the copy.

    Attributes:
        kept: If the image covers nothing but the resumee's own memory.
        covered: If it covers everything.
        rule: Which rule is broken then, if it is no more what it was.
    """

    kept: Difference
    covered: Difference
    rule: str = "HC201"


CHANCE = Overlap(Difference.INTACT, Difference.FOREIGN)
"""At a random address anything may be overwritten, or nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair's verdict.

    Attributes:
        outcome: What becomes of the machine.
        verdict: The judgement.
        reason: One clause.
        share: Of a risk: how likely it fails, from 0 to 1, rounded to hundredths.
        exact: Whether an image was replayed.
        conditions: What would change the verdict, the worst first.
        spared: Names of the conditions that a suppression is about.
        rules: The rules that are broken, by which a check with an image would name what it finds.
        warnings: What the user should know of how it was judged, a line each.
    """

    outcome: Outcome
    verdict: Verdict
    reason: str
    share: float | None = None
    exact: bool = False
    conditions: tuple[Condition, ...] = ()
    spared: frozenset[str] = frozenset()
    rules: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def strict(self) -> Verdict:
        """The verdict as if the worst of its conditions held, but for those that are spared."""
        counted = (one.verdict for one in self.conditions if one.id not in self.spared)
        return max((self.verdict, *counted), key=HARM.index)


_ORDER = (Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.RISK, Verdict.UNDETERMINED, Verdict.FATAL)
_RANK = {verdict: rank for rank, verdict in enumerate(_ORDER)}
_SAFE = Cell(Outcome.RESUMES, Verdict.SAFE, "nothing wakes a parked CPU in memory that the image overwrites")


def judge_pair(resumer: Summary, resumee: Summary, settings: Settings) -> list[Cell]:
    """Judge a pair in every scenario, each with what would change its verdict."""
    return Judge(resumer, resumee, settings).cells()


class Judge:
    """Judges one pair.

    Args:
        resumer: The kernel that loads the image.
        resumee: The kernel that would write it.
        settings: The machine and the scenarios.

    Attributes:
        asked: The loops that were compared with the resumee's memory, each with levels of page tables: of two resumees
            that agree in `outlook` and in what becomes of these, all cells are the same.
    """

    def __init__(self, resumer: Summary, resumee: Summary, settings: Settings) -> None:
        self.resumer, self.resumee, self.settings = resumer, resumee, settings
        self.asked: dict[tuple[int, int], Overlap] = {}

    def cells(self) -> list[Cell]:
        """Return a cell for each scenario."""
        return [self._cell(scenario) for scenario in self.settings.scenarios]

    def _cell(self, scenario: Scenario) -> Cell:
        options = options_of(scenario, self.settings)
        plan, cell = self._judged(scenario, options)

        def judge_with(changed: CheckOptions) -> Decided:
            other, found = self._judged(scenario, changed)
            return Decided(other, found.outcome, found.verdict)

        varied = vary(Decided(plan, cell.outcome, cell.verdict), judge_with, acceptance_alternatives)
        return replace(cell, conditions=varied.conditions, warnings=varied.warnings)

    def _judged(self, scenario: Scenario, options: CheckOptions) -> tuple[Plan, Cell]:
        found = pairing_of(self.resumer, self.resumee, scenario, self.settings, options)
        levels = found.run.resumer_levels or 4

        def overlap(loop: int) -> Overlap:
            if (loop, levels) not in self.asked:
                self.asked[loop, levels] = overlap_of(self.resumer, self.resumer.loops[loop], self.resumee, levels)
            return self.asked[loop, levels]

        supposed = replace(options, mwait_spins=found.plan.mwait_ends)
        return found.plan, judge_run(self.resumer, self.resumee, found.run, self.settings, supposed, overlap)


def judge_run(
    resumer: Summary,
    resumee: Summary,
    run: Run,
    settings: Settings,
    options: CheckOptions,
    overlap: Callable[[int], Overlap],
) -> Cell:
    """Judge a pair in one run of both.

    Args:
        resumer: The kernel that loads the image.
        resumee: The kernel that would write it.
        run: Who is parked and how, and whether the image is loaded.
        settings: The machine.
        options: What is supposed.
        overlap: Says what the copy does to a loop of the resumer's, by its index.
    """
    if run.refusal is not None:
        return Cell(Outcome.REFUSED, Verdict.REFUSED, f"it {run.refusal}", rules=("HC402",))
    share = image_share(resumee, settings)
    cells = [Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, _not_known(what)) for what in run.unknown]
    if run.resumer_levels != run.resumee_levels:
        cells.append(_levels(run.resumer_levels, run.resumee_levels))
    for lack in run.lacks:
        why = f"the resumee {lack.use}, and the CPU under the resumer lacks {lack.feature}: it hangs or resets"
        cells.append(Cell(Outcome.RESETS, Verdict.FATAL, why, rules=("HC406",)))
    for waiting in run.waiting:
        covers = None if waiting.loop is None else overlap(waiting.loop) if run.placed else CHANCE
        cells += _group(resumer, waiting, run, covers, options, share)
    return max(cells, key=lambda cell: (_RANK[cell.verdict], cell.share or 0), default=_SAFE)


def _not_known(what: str) -> str:
    """Return what is missing as a clause: a fact's name, or a message that says why it is not known."""
    return what if " not known" in what or " cannot be read" in what else f"{what} is not known"


_KNOWN: dict[tuple[object, ...], Overlap] = {}
"""Pairs that agree in all that a loop depends on come to the same: the engine is asked once for each kind of them."""

_MOST_KNOWN = 1 << 16


def overlap_of(resumer: Summary, loop: Loop, resumee: Summary, levels: int = 4) -> Overlap:
    """Run once round a loop in memory with the resumee's, both kernels at their link addresses.

    Args:
        resumer: The kernel that has the loop.
        loop: The loop.
        resumee: The kernel whose memory is copied over it.
        levels: Levels of the resumer's page tables.
    """
    pages = tuple(
        (resumee.mapped(page), resumee.holds(page, page + PAGE_SIZE), resumee.pages.get(page))
        for start, code in loop.pieces
        for page in range(start & -PAGE_SIZE, start + len(code), PAGE_SIZE)
    )
    tables = tuple(
        None
        if own is None
        else resumee.tables.index(own)
        if own in resumee.tables
        else resumee.holds(own, own + PAGE_SIZE)
        for own in resumer.tables
    )
    key = (loop, pages, tables, levels)
    found = _KNOWN.get(key)
    if found is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        found = _KNOWN[key] = _overlap(resumer, loop, resumee, levels)
    return found


def _overlap(resumer: Summary, loop: Loop, resumee: Summary, levels: int) -> Overlap:
    found = []
    for everywhere in (False, True):
        memory = certain_memory(resumer, resumee, levels, everywhere=everywhere)
        cpu = waiting_cpu(Waiting(frozenset({1}), ParkState.HLT, 0, False, None), loop, memory)
        found.append(trace(memory, cpu, None, cached=True))
    return Overlap(found[0].difference, found[1].difference, _broken(found[1]))


def _broken(found: Trace) -> str:
    """Say which rule an iteration breaks, as a check says it (`hibercheck.handoff.verdict.explain`)."""
    if found.divergence is not None:
        return "HC204"
    decisive = found.decisive
    code = decisive is None or (decisive.access is Access.FETCH and decisive.leaf_overwritten)
    return "HC201" if code and not (decisive is not None and decisive.tables_only) else "HC202"


def outlook(resumee: Summary, settings: Settings) -> tuple[object, ...]:
    """Return all that counts of a resumee but where its code lies: see `Judge.asked`."""
    return resumee.kind_as_resumee, image_share(resumee, settings)


def image_share(resumee: Summary, settings: Settings) -> float:
    """Return what part of RAM an image of a resumee covers."""
    if settings.image_share is not None:
        return settings.image_share
    return round(min(max(resumee.size / settings.machine.memory, IMAGE_SHARE), 1.0), 2)


def _levels(ours: int | None, theirs: int | None) -> Cell:
    if ours is None or theirs is None:
        reason = "whether both page with as many levels is not known"
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, reason)
    reason = f"the boot CPU pages with {ours} levels and loads page tables of {theirs}"
    return Cell(Outcome.RESETS, Verdict.FATAL, reason, rules=("HC401",))


def _group(
    resumer: Summary,
    waiting: Waiting,
    run: Run,
    overlap: Overlap | None,
    options: CheckOptions,
    share: float,
) -> list[Cell]:
    """Judge the CPUs that wait in one way: those that the resumee takes out of it, and those that it leaves there."""
    who = _who(waiting.cpus, waiting.state)
    if waiting.unsettled is not None:
        return [Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, _not_known(waiting.unsettled))]
    if overlap is None and waiting.state not in NO_MEMORY:
        reason = f"the code in which a CPU waits is not known: {who}"
        return [Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, reason)]
    cells = []
    for taken in (True, False):
        cpus = waiting.cpus & run.reinitialised if taken else waiting.cpus - run.reinitialised
        if cpus:
            cell = _cell(resumer, waiting, cpus, overlap, options, share, taken=taken)
            offline = cell.verdict in {Verdict.FATAL, Verdict.RISK} and bool(cpus & run.left_behind)
            offline = offline and waiting.state not in NO_MEMORY
            cells.append(replace(cell, rules=(*cell.rules, "HC301")) if offline else cell)
    return cells


def _cell(
    resumer: Summary,
    waiting: Waiting,
    cpus: frozenset[int],
    overlap: Overlap | None,
    options: CheckOptions,
    share: float,
    *,
    taken: bool,
) -> Cell:
    """Ask what becomes of one of some CPUs, with an image that covers what it may and one that covers nothing else."""
    events = frozenset(SUPPOSED[name] for name in options.suppose)
    supposed = Suppositions(options.spurious_mwait, events, mwait_spins=options.mwait_spins)
    facts = Facts(interrupts_enabled=waiting.interrupts, machine_checks_enabled=resumer.checks)
    covers = (None,) if overlap is None else (overlap.kept, overlap.covered)
    weights = (1.0,) if overlap is None else (1 - share, share)
    rulings: list[tuple[float, Ruling]] = []
    exposed: set[Event] = set()
    borrowed = False
    for weight, settled in zip(weights, covers, strict=True):
        later = {} if taken else {event: _after(event, waiting.state, facts, settled) for event in _EVENTS}
        line = None if waiting.state is ParkState.MWAIT else False
        # one exit on a cold TLB, unless the CPU never sleeps and keeps what it has cached
        spurious = settled if settled is None or options.mwait_spins else settled.on_cold_tlb
        prospects = Prospects(settled, settled is Difference.UNKNOWN, spurious, after=later, line=line)
        rulings.append((weight, fate_of(waiting.state, prospects, supposed, reinitialised=taken)))
        killers = {event for event, found in later.items() if event not in supposed.events and _deadly(found)}
        exposed |= killers
        borrowed |= borrowed_time(waiting.state, settled, line, killers=bool(killers))
    ruling = over_places(rulings, Doubt.COVERAGE)
    shuts = ruling.cause is not None and rule(ruling.cause, waiting.state, facts).effect.ends_machine
    cell = _told(ruling, _who(cpus, waiting.state), exposed, share, borrowed=borrowed, shuts=shuts)
    return replace(cell, rules=_rules(cell, ruling, waiting.state, overlap))


def _rules(cell: Cell, ruling: Ruling, state: ParkState, overlap: Overlap | None) -> tuple[str, ...]:
    """Name the rules that some CPUs break: what wakes them, what they then run into, and that nobody takes them out."""
    if cell.verdict not in {Verdict.FATAL, Verdict.RISK, Verdict.LATENT}:
        return ()
    if state in NO_MEMORY:  # it is in nobody's loop, and what the firmware has of it is nobody's fault
        return ("HC501",) if state is ParkState.WAIT_FOR_SIPI else ()
    line = ["HC101"] if ruling.fate is Fate.DIES and ruling.cause is Event.STORE and state is ParkState.MWAIT else []
    code = [] if overlap is None else [overlap.rule]
    stays = ["HC302"] if cell.verdict is Verdict.LATENT or ruling.when is When.AFTER else []
    return (*line, *code, *stays)


def _after(event: Event, state: ParkState, facts: Facts, settled: Difference | None) -> After:
    """Say what an event comes to: a delivery goes through tables that are taken to go the way of the loop's."""
    effect = rule(event, state, facts).effect
    if effect.ends_machine:
        return After(Difference.FOREIGN)
    if not effect.touches_memory or settled is None:
        return After(Difference.INTACT)
    return After(settled.on_cold_tlb)


def _deadly(found: After) -> bool:
    return not found.difference.parks_again


def _told(ruling: Ruling, who: str, exposed: set[Event], share: float, *, borrowed: bool, shuts: bool) -> Cell:
    """Say what becomes of some CPUs, in one clause."""
    if ruling.fate is Fate.UNKNOWN:
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, f"what a CPU would execute is not known: {who}")
    if ruling.fate is Fate.DIES:
        cause = {
            Event.STORE: "a store to the monitored line",
            Event.SPURIOUS: "a spurious exit from its wait",
        }.get(ruling.cause or Event.STORE, f"{with_article(str(ruling.cause))} after the handoff")
        does = "may run" if ruling.doubt is not None else "runs"
        where = "memory that may be overwritten" if ruling.doubt is not None else "overwritten memory"
        reason = f"after {cause} a CPU {'shuts down' if shuts else f'{does} in {where}'}: {who}"
        if ruling.doubt is None:
            return Cell(Outcome.RESETS, Verdict.FATAL, reason)
        return Cell(Outcome.MAY_RESET, Verdict.RISK, reason, share)
    events = [event for event in _EVENTS if event in exposed]
    if borrowed and events:
        reason = f"a CPU stays parked in the resumee's memory, for as long as no {events[0].value} comes: {who}"
        return Cell(Outcome.RESUMES, Verdict.LATENT, reason)
    if borrowed:
        return Cell(Outcome.RESUMES, Verdict.LATENT, f"a CPU runs only on translations that it has cached: {who}")
    if ruling.fate is Fate.PARKS_AGAIN:
        return Cell(Outcome.RESUMES, Verdict.BENIGN, f"the loop of a CPU is overwritten with the same bytes: {who}")
    return _SAFE


def _who(cpus: frozenset[int], state: ParkState) -> str:
    return f"{cpu_phrase(cpus)} in {_STATES.get(state, state.value)}"
