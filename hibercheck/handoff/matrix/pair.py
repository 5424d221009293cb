"""One resumer with one resumee, without an image: the rules of the replay on what is certain of both.

The resumee certainly has its own image in memory: text, data, page tables.  Of all other RAM an image covers a share.
Where a kernel's address is random, so is what lies over it, and that share is the chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from hibercheck.addresses import PAGE_SIZE
from hibercheck.cpulist import format_cpu_list
from hibercheck.handoff.ap import NO_MEMORY, SUPPOSED
from hibercheck.handoff.findings import Outcome, Verdict
from hibercheck.handoff.loop_replay import same_code
from hibercheck.handoff.matrix.brief import Brief, Loop, Waiting
from hibercheck.handoff.matrix.scenario import IMAGE_SHARE, Settings
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts, rule

_EVENTS = (Event.NMI, Event.MACHINE_CHECK, Event.SMI)
_STATES = {
    ParkState.MWAIT: "MWAIT",
    ParkState.HLT: "HLT",
    ParkState.PORT_IO: "a port read",
    ParkState.WAIT_FOR_SIPI: "wait-for-SIPI",
    ParkState.NEVER_BOOTED: "the firmware's care",
}


class Turn(IntEnum):
    """What one turn of a loop comes to after the copy, as `loop_replay.LoopState` has it."""

    SAME = 1
    """It is overwritten with the same bytes, and the tables with equivalent ones."""
    CHANCE = 2
    """Whether it is overwritten is a matter of chance: the share of RAM in the image."""
    STALE = 3
    """Its bytes are the same; the page tables no longer lead there."""
    FOREIGN = 4
    """It is overwritten with other bytes."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair's verdict.

    Attributes:
        outcome: What becomes of the machine.
        verdict: The judgement.
        reason: One clause.
        share: Of a risk: how likely it fails, from 0 to 1, rounded to hundredths.
        exact: Whether an image was replayed.
    """

    outcome: Outcome
    verdict: Verdict
    reason: str
    share: float | None = None
    exact: bool = False


_ORDER = (Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.RISK, Verdict.UNDETERMINED, Verdict.FATAL)
_RANK = {verdict: rank for rank, verdict in enumerate(_ORDER)}
_SAFE = Cell(Outcome.RESUMES, Verdict.SAFE, "nothing wakes a parked CPU in memory that the image overwrites")


def judge_pair(resumer: Brief, resumee: Brief, settings: Settings, turns: tuple[Turn, ...] | None = None) -> list[Cell]:
    """Judge a pair in every scenario; ``turns`` is what `compare_loops` says, if that is known already."""
    refusal = _refusal(resumer, resumee)
    if refusal is not None and refusal.verdict is Verdict.REFUSED:
        return [refusal] * len(settings.scenarios)
    share = image_share(resumee, settings)
    turns = compare_loops(resumer, resumee) if turns is None else turns
    return [
        _judge(resumer, resumee, settings, number, turns, share, refusal) for number in range(len(settings.scenarios))
    ]


def compare_loops(resumer: Brief, resumee: Brief) -> tuple[Turn, ...]:
    """Compare each of a resumer's loops with what the resumee has in its place, where neither is at a random one."""
    if all(run.resumer_kaslr for run in resumer.runs):
        return ()
    return tuple(turn_of(resumer, loop, resumee) for loop in resumer.loops)


def outlook(resumee: Brief, settings: Settings) -> tuple[object, ...]:
    """Return all that counts of a resumee but where its code lies.

    Resumees that agree in it and in the turns of a resumer's loops get the same verdicts.
    """
    runs = tuple((run.resumee_kaslr, run.resumee_levels, run.reinitialised) for run in resumee.runs)
    return resumee.magic, resumee.compressors, resumee.zero_pages, image_share(resumee, settings), runs


def image_share(resumee: Brief, settings: Settings) -> float:
    """Return what part of RAM an image of a resumee covers."""
    if settings.image_share is not None:
        return settings.image_share
    return round(min(max(resumee.size / settings.machine.memory, IMAGE_SHARE), 1.0), 2)


def _refusal(resumer: Brief, resumee: Brief) -> Cell | None:
    """Apply the tests of `refusal` to the image that the resumee would write; undetermined where one is not known."""
    facts = {
        "which arch record they use": (resumer.magic, resumee.magic),
        "how they compress images": (resumer.compressors, resumee.compressors),
        "whether they know zero pages": (resumer.zero_pages, resumee.zero_pages),
    }
    if resumer.magic is not None and resumee.magic is not None and resumer.magic != resumee.magic:
        return _refused(f"it accepts arch records with magic {resumer.magic:#x}, not {resumee.magic:#x}")
    if resumer.zero_pages is False and resumee.zero_pages:
        return _refused("it does not know the zero-page flag")
    if resumer.compressors is not None and resumee.compressors is not None:
        used = "lzo" if "lzo" in resumee.compressors else next(iter(resumee.compressors), None)
        if used is not None and used not in resumer.compressors:
            return _refused(f"it cannot decompress {used.upper()}")
    unknown = next((what for what, known in facts.items() if None in known), None)
    if unknown is not None:
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, f"{unknown} is not known")
    return None


def _refused(reason: str) -> Cell:
    return Cell(Outcome.REFUSED, Verdict.REFUSED, reason)


def _judge(
    resumer: Brief,
    resumee: Brief,
    settings: Settings,
    number: int,
    turns: tuple[Turn, ...],
    share: float,
    unknown: Cell | None,
) -> Cell:
    ours, theirs = resumer.runs[number], resumee.runs[number]
    if ours.refuses is not None:
        return _refused(f"it is booted with {ours.refuses}")
    cells = [] if unknown is None else [unknown]
    if ours.missing is not None:
        cells.append(Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, ours.missing))
    if ours.resumer_levels != theirs.resumee_levels:
        cells.append(_levels(ours.resumer_levels, theirs.resumee_levels))
    placed = not (ours.resumer_kaslr or theirs.resumee_kaslr)
    for waiting in ours.waiting:
        turn = Turn.SAME
        if waiting.loop is not None:
            turn = turns[waiting.loop] if placed else Turn.CHANCE
        cells.extend(_group(resumer, waiting, theirs.reinitialised, turn, settings, share))
    return max(cells, key=lambda cell: (_RANK[cell.verdict], cell.share or 0), default=_SAFE)


def _levels(ours: int | None, theirs: int | None) -> Cell:
    if ours is None or theirs is None:
        reason = "whether both page with as many levels is not known"
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, reason)
    reason = f"the boot CPU pages with {ours} levels and loads page tables of {theirs}"
    return Cell(Outcome.RESETS, Verdict.FATAL, reason)


def turn_of(resumer: Brief, loop: Loop, resumee: Brief) -> Turn:
    """Compare a loop and its page tables with what the resumee has there, both kernels at their link addresses."""
    turn = Turn.SAME
    for start, code in loop.pieces:
        if not resumee.holds(start, start + len(code)):
            turn = Turn.CHANCE
        elif not _same(resumee, start, code, loop):
            return Turn.FOREIGN
    if resumer.tables == resumee.tables:
        return turn
    for own, theirs in zip(resumer.tables, resumee.tables, strict=True):
        if own is None or own == theirs:
            continue
        if resumee.holds(own, own + PAGE_SIZE):
            return Turn.STALE
        turn = Turn.CHANCE
    return turn


def _same(resumee: Brief, start: int, code: bytes, loop: Loop) -> bool:
    """Tell whether the resumee has the same code there; a page that holds no park loop of its own has not."""
    while code:
        page = start & -PAGE_SIZE
        content = resumee.pages.get(page)
        size = min(len(code), page + PAGE_SIZE - start)
        if content is None or not same_code(
            code[:size], content[start - page : start - page + size], start, loop.patchable
        ):
            return False
        start, code = start + size, code[size:]
    return True


def _group(
    resumer: Brief, waiting: Waiting, reinitialised: frozenset[int], turn: Turn, settings: Settings, share: float
) -> Iterator[Cell]:
    """Judge the CPUs that wait in one way; yield nothing for those that are safe."""
    who = _who(waiting.cpus, waiting.state)
    if waiting.unsettled is not None:
        yield Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, f"{waiting.unsettled} is not known")
        return
    if waiting.loop is None and waiting.state not in NO_MEMORY:
        yield Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, f"the code in which it waits is not known: {who}")
        return
    if waiting.state is ParkState.MWAIT:
        yield from _woken(who, turn, settings, share)
    left = waiting.cpus - reinitialised
    if left:
        yield from _left_behind(resumer, waiting, _who(left, waiting.state), turn, settings, share)


def _woken(who: str, turn: Turn, settings: Settings, share: float) -> Iterator[Cell]:
    """Judge CPUs in MWAIT during the copy."""
    if settings.spurious_mwait:
        if turn is Turn.FOREIGN:
            reason = f"a spurious exit makes it run in a loop that is overwritten with other bytes: {who}"
            yield Cell(Outcome.RESETS, Verdict.FATAL, reason)
        elif turn is Turn.CHANCE:
            yield _risk(f"a spurious exit makes it run, and its loop may be overwritten: {who}", share)
        elif turn is Turn.STALE:
            yield _latent(f"it lives by the translations that it has cached: {who}")
        else:
            yield Cell(Outcome.RESUMES, Verdict.BENIGN, f"its loop is overwritten with the same bytes: {who}")
    elif turn is not Turn.SAME:
        # its line must be overwritten, and where that is a matter of chance, its loop or tables as well; they lie
        # too close to one another to count as independent
        yield _risk(f"a store to its line may make it run in overwritten memory: {who}", share)


def _left_behind(
    resumer: Brief, waiting: Waiting, who: str, turn: Turn, settings: Settings, share: float
) -> Iterator[Cell]:
    """Judge CPUs that the resumee leaves where they are."""
    facts = Facts(interrupts_enabled=waiting.interrupts, machine_checks_enabled=resumer.checks)
    supposed = {SUPPOSED[name] for name in settings.suppose}
    for event in _EVENTS:
        effect = rule(event, waiting.state, facts).effect
        if not effect.ends_machine and (not effect.touches_memory or turn is Turn.SAME):
            continue
        if event not in supposed:
            yield _latent(f"it stays parked in the resumee's memory, until the next {event.value}: {who}")
        elif turn is Turn.CHANCE and not effect.ends_machine:
            yield _risk(f"{event.value} after the handoff makes it run in what may be overwritten: {who}", share)
        else:
            reason = f"{event.value} after the handoff makes it run in overwritten memory: {who}"
            yield Cell(Outcome.RESETS, Verdict.FATAL, reason)


def _latent(reason: str) -> Cell:
    return Cell(Outcome.RESUMES, Verdict.LATENT, reason)


def _risk(reason: str, share: float) -> Cell:
    likely = share >= 0.5
    return Cell(Outcome.RESETS if likely else Outcome.RESUMES, Verdict.RISK, reason, share)


def _who(cpus: frozenset[int], state: ParkState) -> str:
    numbers = format_cpu_list(cpus)
    return f"CPU{'' if len(cpus) == 1 else 's'} {numbers} in {_STATES.get(state, state.value)}"
