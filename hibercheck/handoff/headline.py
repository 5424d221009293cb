"""The one sentence at the top of a report: what happens to the machine, and why."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.cpulist import format_cpu_list
from hibercheck.handoff.ap import AFTER_HANDOFF, IN_HANDOFF, ApResult
from hibercheck.handoff.findings import Fate, MissingFactNote, Verdict
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.refusal import Acceptance
from hibercheck.handoff.summary import PARKED_IN, sentence, with_article
from hibercheck.x86.events import Event

_WHEN = {IN_HANDOFF: "during the resume", AFTER_HANDOFF: "after the resume"}
_WOKEN = {
    Event.STORE: ", watching a line of memory that the copy writes to",
    Event.SPURIOUS: ", which may end at any time (a spurious exit)",
}
"""How the events that end a sleep during the copy are told to somebody who has never heard of them."""


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
        share = f" ({sweep.failing} of {sweep.placements} places fail)" if sweep else ""
        who = f"{_cpus(risky)} may wake to memory that has been replaced"
        return f"the machine may reset: {who}; {risky[0].depends}{share}"
    return _survival_headline(judgement, verdict)


def _fatal_headline(plan: Plan, judgement: Judgement) -> str:
    dead = [result for result in judgement.aps if result.fate is Fate.DIES and result.depends is None]
    during = any(result.when == IN_HANDOFF for result in dead)  # before the boot CPU makes its last step
    if judgement.boot_cpu is not None and not judgement.boot_cpu.survives and not during:
        levels, theirs = judgement.boot_cpu.levels, plan.resumee.levels
        return (
            f"the machine resets: CPU {plan.bringup.boot_cpu} runs with {levels}-level paging when it loads the "
            f"{theirs}-level page tables of the resumee"
        )
    first = next((result for result in dead if result.when == IN_HANDOFF), dead[0])
    when = _WHEN.get(first.when or "", "")
    who = f"{_cpus(dead)} {'sleeps' if len(dead) == 1 else 'sleep'} {PARKED_IN.get(first.parked.state, '')}".strip()
    return f"the machine resets {when}: {who}{_woken(first, 'wakes' if len(dead) == 1 else 'wake')}"


def _woken(result: ApResult, wakes: str) -> str:
    """Say what wakes a CPU that dies, and to what."""
    if result.fatal_event is not None:
        whom = "it" if wakes == "wakes" else "them"
        return f", and {with_article(result.fatal_event.event.value)} wakes {whom} in memory that has been replaced"
    decisive = result.turn.decisive if result.turn else None
    diverted = result.turn is not None and result.turn.diversion is not None
    if result.cause not in _WOKEN or decisive is None or diverted:
        return f"; {sentence(result)}"
    what = "code that has been replaced" if decisive.leaf_overwritten else "page tables that have been replaced"
    return f"{_WOKEN[result.cause]}, and {wakes} to {what}"


def _survival_headline(judgement: Judgement, verdict: Verdict) -> str:
    if verdict is Verdict.LATENT:
        exposed = [result for result in judgement.aps if result.exposure]
        if exposed:
            stay = "stays" if len(exposed) == 1 else "stay"
            if judgement.memory is None:
                return (
                    f"the machine resumes, but {_cpus(exposed)} {stay} asleep in memory of the resumer, which "
                    "is replaced in some of the places where it may lie"
                )
            return f"the machine resumes, but {_cpus(exposed)} {stay} asleep in memory that has been replaced"
        return "the machine resumes, but a CPU runs on page tables that are overwritten, by what it has cached of them"
    if verdict is Verdict.BENIGN:
        lucky = [result for result in judgement.aps if result.fate is Fate.PARKS_AGAIN]
        runs = "runs" if len(lucky) == 1 else "run"
        return f"the machine resumes, by luck: what {_cpus(lucky)} {runs} through is replaced by the same bytes"
    return "the machine resumes: no parked CPU wakes in memory that the image replaces"


def _cpus(results: Sequence[ApResult]) -> str:
    cpus = format_cpu_list(result.parked.cpu for result in results)
    return f"CPU {cpus}" if len(results) == 1 else f"CPUs {cpus}"
