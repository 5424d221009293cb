"""From what becomes of each CPU to what becomes of the machine."""

from __future__ import annotations

from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.scenario.park import NO_MEMORY
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.x86.cpu import ParkState


def decide(acceptance: Acceptance, judgement: Judgement | None) -> tuple[Outcome, Verdict]:
    """Return outcome and verdict; the worst CPU decides, and what is certain comes before what is not known."""
    if acceptance.refusal is not None:
        return Outcome.REFUSED, Verdict.REFUSED
    if judgement is None:
        return Outcome.UNDETERMINED, Verdict.UNDETERMINED
    boot_cpu_dies = judgement.boot_cpu is not None and not judgement.boot_cpu.survives
    if boot_cpu_dies or judgement.lacks or any(ap.ruling.certain_death for ap in judgement.aps):
        return Outcome.RESETS, Verdict.FATAL
    if acceptance.unknown or judgement.missing or any(ap.fate is Fate.UNKNOWN for ap in judgement.aps):
        return Outcome.UNDETERMINED, Verdict.UNDETERMINED
    if any(ap.doubt is not None for ap in judgement.aps):
        return Outcome.MAY_RESET, Verdict.RISK
    if any(exposed(ap) for ap in judgement.aps):
        return Outcome.RESUMES, Verdict.LATENT
    if any(ap.fate is Fate.PARKS_AGAIN for ap in judgement.aps):
        return Outcome.RESUMES, Verdict.BENIGN
    return Outcome.RESUMES, Verdict.SAFE


def usual_outcome(outcome: Outcome, judgement: Judgement | None) -> Outcome | None:
    """Say what usually becomes of a machine that may reset: one without latencies; None where nothing is usual."""
    if outcome is not Outcome.MAY_RESET or judgement is None:
        return None
    doubtful = [ap.ruling.usual for ap in judgement.aps if ap.doubt is not None]
    if any(usual is Fate.DIES for usual in doubtful):
        return Outcome.RESETS
    return None if {None, Fate.UNKNOWN}.intersection(doubtful) else Outcome.RESUMES


def exposed(ap: ApResult) -> bool:
    """Tell whether a CPU that survives lives on borrowed time, or for all that is known may."""
    settled = ap.iteration.difference if ap.iteration else None
    killers = any(not found.difference.parks_again or found.lent for found in ap.exposure)
    return borrowed_time(ap.parked.state, settled, ap.line, killers=killers)


def borrowed_time(state: ParkState, settled: Difference | None, line: bool | None, *, killers: bool) -> bool:
    """Tell whether a CPU lives until the next event, or by a translation that it has cached.

    Args:
        state: How it is parked.
        settled: What one iteration of its loop comes to when all is copied.
        line: Whether its monitored line is overwritten.
        killers: Whether an event that was not supposed would kill it, now or once memory that is free is handed out.
    """
    if state in NO_MEMORY:
        return False  # it waits in no memory that the image could overwrite; what kills it would have before
    runs = state is ParkState.PORT_IO or (state is ParkState.MWAIT and line is not False)
    return killers or (runs and settled in {Difference.STALE, Difference.UNKNOWN})
