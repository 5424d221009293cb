"""From what a replay found to the report: the findings, with the facts that they rest on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.data import replace
from hibercheck.handoff.acceptance.refusal import Acceptance, Refusal
from hibercheck.handoff.facts.standing import Assumption, Standing
from hibercheck.handoff.replay.fate import SUPPOSED, Fate
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.scenario.known import shown
from hibercheck.handoff.scenario.known_place import linked_at
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.scenario.sources import COLLECTED, DUMP
from hibercheck.handoff.verdict.decide import decide, usual_outcome
from hibercheck.handoff.verdict.explain import Explainer
from hibercheck.handoff.verdict.findings import (
    CpuReport,
    Evidence,
    Finding,
    Level,
    MissingFactNote,
    Place,
    Report,
    Share,
    TimelineEvent,
)
from hibercheck.handoff.verdict.headline import headline
from hibercheck.handoff.verdict.naming import Namer
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.handoff.verdict.stale import stale_findings
from hibercheck.handoff.verdict.summary import (
    cpu_reports,
    image_summary,
    resumee_summary,
    resumer_summary,
    scenario_summary,
)
from hibercheck.handoff.verdict.unexamined import not_examined
from hibercheck.kernel.code import commits
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.handoff.replay.execution import SecondOpinion


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
        findings=(*_findings(plan, acceptance, judgement), *stale_findings(plan)),
        cpus=_with_opinions(cpu_reports(plan, judgement), opinions) if judgement else (),
        image=image_summary(plan.image, plan.resumee),
        resumer=resumer_summary(plan, judgement),
        resumee=resumee_summary(plan.resumee),
        scenario=scenario_summary(plan),
        assumptions=tuple(_assumptions(plan, judgement)),
        missing=missing,
        unexamined=not_examined(plan, acceptance, judgement),
        share=_share(plan, judgement),
        timeline=_timeline(plan, judgement),
        warnings=(*told_of(plan, acceptance), *_untold(plan, judgement), *_disagreements(opinions)),
        refusal=acceptance.refusal,
        usual_outcome=usual_outcome(outcome, judgement),
    )


def _assumptions(plan: Plan, judgement: Judgement | None) -> Iterator[Assumption]:
    """Say what the report rests on: the facts of the run, what is known of its memory, the design, the image."""
    for fact, known, text in shown(plan.known):
        yield Assumption(fact.what, text, known.source, known.option, known.standing, fact.name, fact.detail)
    yield from _of_memory(plan, judgement)
    if plan.design is not None:
        name, summary = plan.design
        yield Assumption("how CPUs are parked", f"{name}: {summary}", "given", "--park", Standing.GIVEN)
    yield _of_image(plan)


def _of_memory(plan: Plan, judgement: Judgement | None) -> Iterator[Assumption]:
    """Say what is known of the resumer's memory beyond its kernel's own image."""
    memory = judgement.memory if judgement is not None else None
    if judgement is not None and memory is not None and memory.resumer.exact:
        parked = "parked" if judgement.dump_shows_parked else "not parked yet; they will be as its code has it"
        yield Assumption("the resumer's CPUs in the dump", parked, DUMP, standing=Standing.MEASURED)
    elif plan.facts is not None and plan.facts.frames:
        tables = f"as they were when {len(plan.facts.frames)} frames of its memory were collected"
        what = "the resumer's page tables and per-CPU areas"
        yield Assumption(what, tables, COLLECTED, "--resumer-memory", Standing.MEASURED)
    elif plan.placement.phys_base is not None:
        yield Assumption(
            "the resumer's run-time memory (per-CPU areas, stacks)",
            "not known; only what does not depend on it is used",
            "no dump",
            "--resumer-memory",
        )


def _of_image(plan: Plan) -> Assumption:
    """Say why the image is taken to be undamaged: a check reads the pages that it asks for, and no others.

    The resumer compares the checksum, where there is one, and refuses an image that fails it: `Image.crc32`.
    """
    what = "the image's data"
    if plan.image.crc32 is None:
        return Assumption(what, "as they were written", "it has no checksum to tell", standing=Standing.USUAL)
    if plan.options.verify:
        return Assumption(what, "undamaged", "its checksum is right", standing=Standing.READ)
    return Assumption(what, "undamaged", "its checksum was not compared", "--verify", Standing.USUAL)


def _findings(plan: Plan, acceptance: Acceptance, judgement: Judgement | None) -> tuple[Finding, ...]:
    if acceptance.refusal is not None:
        return (_refused(plan.resumer.release, acceptance.refusal),)
    if judgement is None:
        return ()
    found = [*_boot_cpu_finding(plan, judgement), *_other_cpu(plan, judgement)]
    namer = Namer(judgement.memory, plan.resumee) if judgement.memory else None
    explainer = Explainer(namer, reserved=plan.reserves_line, lacks=_lacks_rescue(plan))
    for result in judgement.aps:
        found.extend(explainer.findings(result))
        found.extend(_worst_moment(plan, judgement, result))
    return tuple(sorted(found, key=lambda finding: (-finding.level, finding.rule, finding.cpu or 0)))


def _lacks_rescue(plan: Plan) -> str:
    """Name the commit for want of which the resumer brings no offline CPU back, or by which it leaves some out."""
    traits = plan.traits
    if traits.rescues_offline.value is False:
        return f"the resumer lacks commit {commits.short(commits.RESUME_RESCUE)}"
    if traits.rescues_offline.value and traits.rescue_needs_primary.value:
        since = commits.short(commits.PRIMARY_ONLINE)
        return f"the resumer leaves out cores whose primary thread is offline, since commit {since}"
    return ""


def _refused(release: str, refusal: Refusal) -> Finding:
    """Say why the image is not loaded, what the kernel's log will have of it, and what becomes of the image."""
    error = f" (error -{refusal.errno})" if refusal.errno else ""
    kept = (
        "the image stays on the swap device" if refusal.keeps_image else "the image is lost: its mark is gone by then"
    )
    evidence = Evidence("what its kernel prints", lines=refusal.log)
    return Finding(
        "HC402",
        Level.ERROR,
        None,
        "image",
        f"{release} {refusal.reason}{error}; {kept}",
        evidence=(evidence,) if refusal.log else (),
        advice=refusal.advice,
    )


def _worst_moment(plan: Plan, judgement: Judgement, result: ApResult) -> tuple[Finding, ...]:
    """Note a CPU that the copy itself may wake at a worse time than its end."""
    if judgement.memory is None or result.parked.state is not ParkState.MWAIT or result.fate is Fate.DIES:
        return ()
    from hibercheck.handoff.verdict.timeline import iterations, worst_moment_finding  # noqa: PLC0415 - MWAIT only

    line = iterations(judgement.memory, result)
    finding = worst_moment_finding(result, line, len(plan.image.pfns)) if line else None
    return (finding,) if finding else ()


def _opinions(plan: Plan, judgement: Judgement | None) -> tuple[SecondOpinion, ...]:
    """Run the parked CPUs in an emulator, if that is wanted."""
    if judgement is None or not plan.options.execute:
        return ()
    from hibercheck.handoff.replay.execution import second_opinions  # noqa: PLC0415 - it needs the emulator

    return second_opinions(plan, judgement)


def _with_opinions(cpus: tuple[CpuReport, ...], opinions: tuple[SecondOpinion, ...]) -> tuple[CpuReport, ...]:
    texts = {opinion.cpu: opinion.text for opinion in opinions}
    return tuple(replace(cpu, executed=texts[cpu.cpu]) if cpu.cpu in texts else cpu for cpu in cpus)


def _disagreements(opinions: tuple[SecondOpinion, ...]) -> tuple[str, ...]:
    return tuple(
        f"the emulator does not agree with the replay of CPU {opinion.cpu}: {opinion.text}"
        for opinion in opinions
        if opinion.agrees is False
    )


def _timeline(plan: Plan, judgement: Judgement | None) -> tuple[TimelineEvent, ...]:
    if judgement is None or judgement.memory is None or not plan.options.timeline:
        return ()
    from hibercheck.handoff.verdict.timeline import timeline  # noqa: PLC0415 - only --timeline needs it

    memory = judgement.memory
    # without its page tables every moment would be like the last
    known = memory.resumer.exact or (plan.facts is not None and plan.facts.frames)
    events = [SUPPOSED[name] for name in plan.options.suppose] if known else []
    return timeline(Namer(memory, plan.resumee), plan.image.pfns, judgement.aps, plan.bringup.boot_cpu, events)


def _other_cpu(plan: Plan, judgement: Judgement) -> Iterator[Finding]:
    """Say what the resumee uses of its CPU and the CPU under the resumer lacks."""
    cpu, cr4 = plan.bringup.boot_cpu, plan.resumee.cr4
    for lack in judgement.lacks:
        said = f" (its saved CR4 is {cr4:#x})" if cr4 is not None and "CR4" in lack.use else ""
        message = (
            f"the resumee {lack.use}{said}, and the CPU under the resumer lacks {lack.feature}: it hangs or resets"
        )
        yield Finding("HC406", Level.ERROR, cpu, lack.feature, message, advice=RULES["HC406"].advice)


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


def _share(plan: Plan, judgement: Judgement | None) -> Share | None:
    if judgement is None or judgement.sweep is None:
        return None
    sweep, link = judgement.sweep, linked_at(plan.asking)
    places = tuple((link + first, count, fails) for first, count, fails in sweep.places)
    of = f"{sweep.alignment >> 20} MiB-aligned load addresses of the resumer"
    return Share(sweep.failing, sweep.placements, of, places, sweep.alignment)


def _untold(plan: Plan, judgement: Judgement | None) -> Iterator[str]:
    if plan.options.timeline and judgement is not None and judgement.memory is None:
        yield "there is no timeline: where the resumer is loaded is not known (give --resumer-memory)"


_READ = {
    "command_line": "the resumee's command line",
    "e820": "the resumee's memory map",
    "features": "what the resumee's CPU can do",
    "idle": "the resumee's cpuidle driver",
    "smt_control": "whether the resumee runs with SMT off",
    "topology": "which of the resumee's CPUs share a core",
}
"""The facts of `Resumee.missing` in words."""


def told_of(plan: Plan, acceptance: Acceptance) -> tuple[str, ...]:
    """Return what the user should know of what was given, a line each, whatever is made of it."""
    found = []
    if plan.supposed:
        found.append(
            "nobody has measured this run: --what-if takes from dump and facts only the machine and the kernel's place"
        )
    if plan.image.header.consumed:
        found.append(
            "the image was resumed before: the swap signature is back in its place, and a kernel would not load it"
        )
    found.extend(acceptance.remarks)
    found.extend(plan.resumee.remarks)
    found.extend((*(one.text for one in plan.disagreements), *plan.remarks))
    lost = sorted(plan.resumee.missing.items())
    found.extend(f"{_READ[name]} cannot be read from the image: {why}" for name, why in lost)
    return tuple(found)
