"""The one sentence at the top of a report: what happens to the machine, and why."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.findings import Fate, MissingFactNote, Verdict
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.refusal import Acceptance
from hibercheck.handoff.summary import PARKED_IN, sentence


def headline(
    plan: Plan,
    acceptance: Acceptance,
    judgement: Judgement | None,
    verdict: Verdict,
    missing: Sequence[MissingFactNote],
) -> str:
    """Say in one sentence what happens and why."""
    if acceptance.refusal is not None:
        return f"{plan.resumer.release} will not load this image: it {acceptance.refusal.reason}"
    assert judgement is not None  # noqa: S101 - only a refusal leaves no judgement
    if verdict is Verdict.FATAL:
        return _fatal_headline(plan, judgement)
    if verdict is Verdict.UNDETERMINED:
        return f"cannot tell: {missing[0].fact} is not known" if missing else "cannot tell"
    if verdict is Verdict.RISK:
        risky = [result for result in judgement.aps if result.depends is not None]
        sweep = judgement.sweep
        share = f"; it fails in {sweep.failing} of {sweep.placements} places" if sweep else ""
        return f"the machine may reset: {_cpus(risky)} may be lost, as {risky[0].depends}{share}"
    return _survival_headline(judgement, verdict)


def _fatal_headline(plan: Plan, judgement: Judgement) -> str:
    if judgement.boot_cpu is not None and not judgement.boot_cpu.survives:
        levels, theirs = judgement.boot_cpu.levels, plan.resumee.levels
        return (
            f"the machine resets: CPU {plan.bringup.boot_cpu} runs with {levels}-level paging when it loads the "
            f"{theirs}-level page tables of the resumee"
        )
    dead = [result for result in judgement.aps if result.fate is Fate.DIES and result.depends is None]
    first = dead[0]
    where = PARKED_IN.get(first.parked.state, "")
    return f"the machine resets {first.when}: {_cpus(dead)} is parked {where}; {sentence(first)}"


def _survival_headline(judgement: Judgement, verdict: Verdict) -> str:
    if verdict is Verdict.LATENT:
        exposed = [result for result in judgement.aps if result.exposure]
        if exposed:
            return f"the machine resumes, but {_cpus(exposed)} stays behind in memory that is the resumee's now"
        return "the machine resumes, but a CPU runs on page tables that are overwritten, by what it has cached of them"
    if verdict is Verdict.BENIGN:
        lucky = [result for result in judgement.aps if result.fate is Fate.PARKS_AGAIN]
        return f"the machine resumes, by luck: what {_cpus(lucky)} runs through is overwritten with the same bytes"
    return "the machine resumes: nothing wakes a parked CPU in memory that the image overwrites"


def _cpus(results: Sequence[ApResult]) -> str:
    numbers = [str(result.parked.cpu) for result in results]
    return f"CPU {numbers[0]}" if len(numbers) == 1 else f"CPUs {', '.join(numbers)}"
