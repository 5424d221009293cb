"""From what a replay found to the report: the findings, with the facts that they rest on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hibercheck.handoff.ap import SUPPOSED, ApResult
from hibercheck.handoff.assumptions import COLLECTED, source_of
from hibercheck.handoff.explain import Explainer
from hibercheck.handoff.findings import (
    Assumption,
    CpuReport,
    Evidence,
    Fate,
    Finding,
    Level,
    MissingFactNote,
    Place,
    Report,
    Share,
    TimelineEvent,
)
from hibercheck.handoff.headline import headline
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.naming import Namer
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.refusal import Acceptance
from hibercheck.handoff.rules import RULES
from hibercheck.handoff.summary import cpu_reports, image_summary, resumee_summary, resumer_summary, scenario_summary
from hibercheck.handoff.verdict import decide
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.handoff.execution import SecondOpinion


def make_report(plan: Plan, acceptance: Acceptance, judgement: Judgement | None) -> Report:
    """Say what was found.

    Args:
        plan: The scenario that was replayed.
        acceptance: Whether the resumer takes the image.
        judgement: What the replay found; None where the image is refused.
    """
    outcome, verdict = decide(acceptance, judgement)
    missing = _missing(acceptance, judgement)
    opinions = _opinions(plan, judgement)
    return Report(
        outcome=outcome,
        verdict=verdict,
        headline=headline(plan, acceptance, judgement, verdict, missing),
        findings=_findings(plan, acceptance, judgement),
        cpus=_with_opinions(cpu_reports(plan, judgement), opinions) if judgement else (),
        image=image_summary(plan.image, plan.resumee),
        resumer=resumer_summary(plan, judgement),
        resumee=resumee_summary(plan.resumee),
        scenario=scenario_summary(plan),
        assumptions=(*plan.assumptions, *_place_assumptions(plan, judgement)),
        missing=missing,
        share=_share(judgement),
        timeline=_timeline(plan, judgement),
        warnings=(*_warnings(plan, judgement), *_disagreements(opinions)),
    )


def _place_assumptions(plan: Plan, judgement: Judgement | None) -> tuple[Assumption, ...]:
    """Say what is assumed of the resumer's place and of its run-time memory."""
    what, option = "the resumer's load address", "--resumer-phys-base"
    memory = judgement.memory if judgement is not None else None
    if judgement is not None and memory is not None and memory.resumer.exact:
        parked = "parked" if judgement.dump_shows_parked else "not parked yet; they will be as its code has it"
        return (
            Assumption(what, f"{_load(plan, memory.resumer.phys_base):#x}", "its memory dump"),
            Assumption("the resumer's CPUs in the dump", parked, "its memory dump"),
        )
    if plan.placement.phys_base is None:
        return (Assumption(what, "random", "no nokaslr on its command line", option),)
    collected = plan.facts is not None and plan.facts.load_address is not None
    source = source_of(collected, plan.options.resumer_phys_base is not None, "fixed: no KASLR")
    place = Assumption(what, f"{_load(plan, plan.placement.phys_base):#x}", source, option)
    if plan.facts is not None and plan.facts.frames:
        tables = f"as they were when {len(plan.facts.frames)} frames of its memory were collected"
        return (
            place,
            Assumption("the resumer's page tables and per-CPU areas", tables, COLLECTED, "--resumer-memory"),
        )
    return (
        place,
        Assumption(
            "the resumer's run-time memory (per-CPU areas, stacks)",
            "not known; only what does not depend on it is used",
            "no dump",
            "--resumer-memory",
        ),
    )


def _load(plan: Plan, phys_base: int) -> int:
    return (plan.traits.physical_start.value or 0) + phys_base


def _findings(plan: Plan, acceptance: Acceptance, judgement: Judgement | None) -> tuple[Finding, ...]:
    if acceptance.refusal is not None:
        refusal = acceptance.refusal
        error = f" (error -{refusal.errno})" if refusal.errno else ""
        message = f"{plan.resumer.release} {refusal.reason}{error}"
        return (Finding("HC402", Level.ERROR, None, "image", message, advice=refusal.advice),)
    if judgement is None:
        return ()
    found = [*_boot_cpu_finding(plan, judgement)]
    namer = Namer(judgement.memory, plan.resumee) if judgement.memory else None
    explainer = Explainer(namer, reserved=plan.options.park == "fixmap")
    for result in judgement.aps:
        found.extend(explainer.findings(result))
        found.extend(_worst_epoch(plan, judgement, result))
    return tuple(sorted(found, key=lambda finding: (-finding.level, finding.rule, finding.cpu or 0)))


def _worst_epoch(plan: Plan, judgement: Judgement, result: ApResult) -> tuple[Finding, ...]:
    """Note a CPU that the copy itself may wake at a worse time than its end."""
    if judgement.memory is None or result.parked.state is not ParkState.MWAIT or result.fate is Fate.DIES:
        return ()
    from hibercheck.handoff.timeline import follow, worst_epoch_finding  # noqa: PLC0415 - only CPUs in MWAIT need it

    line = follow(judgement.memory, result, judgement.contexts)
    finding = worst_epoch_finding(result, line, len(plan.image.pfns)) if line else None
    return (finding,) if finding else ()


def _opinions(plan: Plan, judgement: Judgement | None) -> tuple[SecondOpinion, ...]:
    """Run the parked CPUs in an emulator, if that is wanted."""
    if judgement is None or not plan.options.execute:
        return ()
    from hibercheck.handoff.execution import second_opinions  # noqa: PLC0415 - it needs the emulator

    return second_opinions(plan, judgement)


def _with_opinions(cpus: tuple[CpuReport, ...], opinions: tuple[SecondOpinion, ...]) -> tuple[CpuReport, ...]:
    texts = {opinion.cpu: opinion.text for opinion in opinions}
    return tuple(replace(cpu, executed=texts.get(cpu.cpu)) for cpu in cpus)


def _disagreements(opinions: tuple[SecondOpinion, ...]) -> tuple[str, ...]:
    return tuple(
        f"the emulator does not agree with the replay of CPU {opinion.cpu}: {opinion.text}"
        for opinion in opinions
        if opinion.agrees is False
    )


def _timeline(plan: Plan, judgement: Judgement | None) -> tuple[TimelineEvent, ...]:
    if judgement is None or judgement.memory is None or not plan.options.timeline:
        return ()
    from hibercheck.handoff.event_timeline import event_lines, event_timeline  # noqa: PLC0415 - as above
    from hibercheck.handoff.timeline import follow, timeline_events  # noqa: PLC0415 - only --timeline needs it

    memory, aps, contexts = judgement.memory, judgement.aps, judgement.contexts
    lines = tuple(filter(None, (follow(memory, result, contexts) for result in aps)))
    # without its page tables every moment would be like the last
    known = memory.resumer.exact or (plan.facts is not None and plan.facts.frames)
    supposed = [SUPPOSED[name] for name in plan.options.suppose] if known else []
    events = event_timeline(event_lines(memory, aps, contexts, judgement.entries, supposed, plan.resumee))
    return timeline_events(Namer(memory, plan.resumee), aps, lines, plan.bringup.boot_cpu, events)


def _boot_cpu_finding(plan: Plan, judgement: Judgement) -> tuple[Finding, ...]:
    replay = judgement.boot_cpu
    if replay is None or replay.survives:
        return ()
    cpu = plan.bringup.boot_cpu
    theirs = plan.resumee.levels
    message = (
        f"CPU {cpu} pages with {replay.levels} levels and loads the page tables of the resumee, which has {theirs}: "
        "its next fetch fails, and so does every exception after it"
    )
    record = plan.image.record
    evidence = Evidence(f"CPU {cpu} fetches {replay.address:#x}, just after loading CR3", walk=replay.walk)
    place = Place(replay.address, record.jump_address_phys, "restore_registers")
    advice = RULES["HC401"].advice
    return (Finding("HC401", Level.ERROR, cpu, "paging mode", message, Place(), place, (evidence,), advice),)


def _missing(acceptance: Acceptance, judgement: Judgement | None) -> tuple[MissingFactNote, ...]:
    facts = list(acceptance.unknown)
    if judgement is not None:
        facts += judgement.missing
        facts += [result.missing for result in judgement.aps if result.missing is not None]
    return tuple(MissingFactNote(*fact) for fact in dict.fromkeys(facts))


def _share(judgement: Judgement | None) -> Share | None:
    if judgement is None or judgement.sweep is None:
        return None
    return Share(judgement.sweep.failing, judgement.sweep.placements, "2 MiB-aligned load addresses of the resumer")


def _warnings(plan: Plan, judgement: Judgement | None) -> tuple[str, ...]:
    found = []
    if plan.options.timeline and judgement is not None and judgement.memory is None:
        found.append("there is no timeline: where the resumer lies is not known (give --resumer-memory)")
    if plan.image.header.consumed:
        found.append("the image has been resumed from before: its signature is put back; the kernel would not load it")
    found.extend(f"not read from the image: {name}: {why}" for name, why in sorted(plan.resumee.missing.items()))
    return tuple(found)
