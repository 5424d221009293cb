"""The one sentence at the top of a report: what happens to the machine, and why."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.cpulist import cpu_phrase
from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.replay.fate import Doubt, Fate, When
from hibercheck.handoff.replay.judgement import ApResult, Judgement, Timing
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.decide import usual_outcome
from hibercheck.handoff.verdict.findings import MissingFactNote, Outcome, Verdict
from hibercheck.handoff.verdict.words import (
    PARKED_IN,
    doubt_of,
    either,
    killers_of,
    lent_to,
    sentence,
    unknown_of,
    with_article,
)
from hibercheck.x86.events import Event

_WHEN = {When.COPY: "during the resume", When.BEFORE_INIT: "during the resume", When.AFTER: "after the resume"}
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
        return _risk_headline(judgement)
    return _survival_headline(judgement, verdict)


def _risk_headline(judgement: Judgement) -> str:
    risky = [result for result in judgement.aps if result.doubt is not None]
    first, sweep = risky[0], judgement.sweep
    share = f" ({sweep.failing} of {sweep.placements} load addresses fail)" if sweep else ""
    timed = [result.timing for result in risky if result.timing is not None]
    if first.doubt is Doubt.TIMING and timed:
        return _timing_headline(risky, timed)
    who = f"{_cpus(risky)} may wake to memory that has been replaced"
    usual = usual_outcome(Outcome.MAY_RESET, judgement)
    then = "" if usual is None else f"; it usually {usual}"
    whom = "it" if len(risky) == 1 else "them"
    return f"the machine may reset: {who}; {doubt_of(first, whom)}{share}{then}"


def _timing_headline(risky: Sequence[ApResult], timed: Sequence[Timing]) -> str:
    """Tell of CPUs that a store wakes while their code is their own: what is against them, and what is usual."""
    them = "it" if len(risky) == 1 else "them"
    margins = [timing.margin for timing in timed if timing.margin is not None]
    bound = "" if all(timing.counted for timing in timed) else "at most "
    soon = f"{bound}{min(margins)} of {timed[0].copies} copies later" if margins else "soon after"
    late = any(result.ruling.usual is Fate.DIES for result in risky)
    usual = "so slow a wake-up comes too late" if late else f"a machine that wakes {them} in time resumes"
    whose = "its" if len(risky) == 1 else "their"
    return f"the machine may reset: the copy itself wakes {_cpus(risky)}, and replaces {whose} code {soon}; {usual}"


def _fatal_headline(plan: Plan, judgement: Judgement) -> str:
    dead = [result for result in judgement.aps if result.ruling.certain_death]
    during = any(result.when is When.COPY for result in dead)  # before the boot CPU makes its last step
    if judgement.boot_cpu is not None and not judgement.boot_cpu.survives and not during:
        levels, theirs = judgement.boot_cpu.levels, plan.resumee.levels
        return (
            f"the machine resets: CPU {plan.bringup.boot_cpu} runs with {levels}-level paging when it loads the "
            f"{theirs}-level page tables of the resumee"
        )
    if judgement.lacks and not during:
        lack = judgement.lacks[0]
        return (
            f"the machine does not come back: the resumee {lack.use}, and CPU {plan.bringup.boot_cpu} lacks "
            f"{lack.feature} in this machine"
        )
    first = next((result for result in dead if result.when is When.COPY), dead[0])
    when = _WHEN[first.when] if first.when else ""
    who = f"{_cpus(dead)} {'sleeps' if len(dead) == 1 else 'sleep'} {PARKED_IN.get(first.parked.state, '')}".strip()
    return f"the machine resets {when}: {who}{_woken(first, 'wakes' if len(dead) == 1 else 'wake')}"


def _woken(result: ApResult, wakes: str) -> str:
    """Say what wakes a CPU that dies, and to what."""
    if result.stored_to:
        return f", on a line that the resumee writes, and {wakes} in memory that has been replaced"
    whom, fatal = ("it" if wakes == "wakes" else "them"), result.fatal_event
    if fatal is not None and result.cause is not None:
        if fatal.effect.ends_machine:
            return f", and {with_article(result.cause.value)} shuts {whom} down"
        return f", and {with_article(result.cause.value)} wakes {whom} in memory that has been replaced"
    decisive = result.iteration.decisive if result.iteration else None
    diverted = result.iteration is not None and result.iteration.divergence is not None
    if result.cause not in _WOKEN or decisive is None or diverted:
        return f"; {sentence(result)}"
    what = "code that has been replaced" if decisive.leaf_overwritten else "page tables that have been replaced"
    return f"{_WOKEN[result.cause]}, and {wakes} to {what}"


def _survival_headline(judgement: Judgement, verdict: Verdict) -> str:
    if verdict is Verdict.LATENT:
        exposed = [result for result in judgement.aps if result.exposure]
        if exposed:
            stay = "stays" if len(exposed) == 1 else "stay"
            if judgement.memory is None and not all(found.lent for result in exposed for found in result.exposure):
                return (
                    f"the machine resumes, but {_cpus(exposed)} {stay} asleep in memory of the resumer, which "
                    "is replaced in some of the places where it may lie"
                )
            if any(killers_of(result) for result in exposed):
                where = "has been replaced"
            elif any(lent_to(result) for result in exposed):
                where = "is free in the resumee, which may hand it out"
            else:
                events = either(list(dict.fromkeys(event for result in exposed for event in unknown_of(result))))
                return f"the machine resumes, but what the next {events} does to {_cpus(exposed)} is not known"
            return f"the machine resumes, but {_cpus(exposed)} {stay} asleep in memory that {where}"
        if any(result.runs_on_cache for result in judgement.aps):
            return "the machine resumes, but a CPU whose page tables are overwritten runs on what it has cached of them"
        return "the machine resumes by what a CPU has cached: whether its page tables are overwritten is not known"
    if verdict is Verdict.BENIGN:
        lucky = [result for result in judgement.aps if result.fate is Fate.PARKS_AGAIN]
        runs = "runs" if len(lucky) == 1 else "run"
        return f"the machine resumes, by luck: what {_cpus(lucky)} {runs} through is replaced by the same bytes"
    return "the machine resumes: no parked CPU wakes in memory that the image replaces"


def _cpus(results: Sequence[ApResult]) -> str:
    return cpu_phrase(result.parked.cpu for result in results)
