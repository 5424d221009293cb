"""From what becomes of each CPU to what becomes of the machine."""

from __future__ import annotations

from hibercheck.handoff.ap import NO_MEMORY
from hibercheck.handoff.findings import Fate, Outcome, Verdict
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.refusal import Acceptance
from hibercheck.x86.cpu import ParkState


def decide(acceptance: Acceptance, judgement: Judgement | None) -> tuple[Outcome, Verdict]:
    """Return outcome and verdict; the worst CPU decides, and what is certain comes before what is not known."""
    if acceptance.refusal is not None:
        return Outcome.REFUSED, Verdict.REFUSED
    if judgement is None:
        return Outcome.UNDETERMINED, Verdict.UNDETERMINED
    boot_cpu_dies = judgement.boot_cpu is not None and not judgement.boot_cpu.survives
    certain = [ap for ap in judgement.aps if ap.fate is Fate.DIES and ap.depends is None]
    if boot_cpu_dies or certain:
        return Outcome.RESETS, Verdict.FATAL
    if acceptance.unknown or judgement.missing or any(ap.fate is Fate.UNKNOWN for ap in judgement.aps):
        return Outcome.UNDETERMINED, Verdict.UNDETERMINED
    if any(ap.depends is not None for ap in judgement.aps):
        sweep = judgement.sweep
        likely = sweep is None or 2 * sweep.failing >= sweep.placements
        return (Outcome.RESETS if likely else Outcome.RESUMES), Verdict.RISK
    return Outcome.RESUMES, _survivors(judgement)


def _survivors(judgement: Judgement) -> Verdict:
    """Judge a machine that comes back."""
    if any(_exposed(judgement, index) for index in range(len(judgement.aps))):
        return Verdict.LATENT
    if any(ap.fate is Fate.PARKS_AGAIN for ap in judgement.aps):
        return Verdict.BENIGN
    return Verdict.SAFE


def _exposed(judgement: Judgement, index: int) -> bool:
    """Tell whether a CPU lives on borrowed time: by a cached translation, or until the next event."""
    ap = judgement.aps[index]
    shaky = ap.turn is not None and ap.turn.state in {LoopState.STALE, LoopState.UNKNOWN}
    woken = ap.parked.state is ParkState.PORT_IO or (
        ap.parked.state is ParkState.MWAIT and ap.line_overwritten is not False
    )
    cached = shaky and woken
    if ap.parked.state in NO_MEMORY:
        return False  # it waits in no memory that the image could overwrite; what kills it would have before
    # with the resumer's place not known, an event that kills it in some places is what there is to say
    deadly = {LoopState.FOREIGN} if judgement.memory else {LoopState.FOREIGN, LoopState.UNKNOWN}
    return cached or any(replay.state in deadly for replay in ap.exposure)
