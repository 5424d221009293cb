"""The engine: open, read facts, plan, replay, judge, and put it all into a report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.assumptions import place_assumptions
from hibercheck.handoff.explain import Explainer
from hibercheck.handoff.facts import ResumerFacts, read_facts
from hibercheck.handoff.findings import (
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
    Verdict,
)
from hibercheck.handoff.judge import judge
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.kernels import open_resumee, open_resumer
from hibercheck.handoff.measured import check_identity, with_facts
from hibercheck.handoff.naming import Namer
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.plan import Plan, make_plan
from hibercheck.handoff.refusal import Acceptance, judge_acceptance
from hibercheck.handoff.refusal_measured import firmware_map, judge_measured, judge_ram_end, physical_pages
from hibercheck.handoff.resumee import read_resumee
from hibercheck.handoff.rules import RULES
from hibercheck.handoff.space import KernelSpace
from hibercheck.handoff.summary import (
    PARKED_IN,
    cpu_reports,
    image_summary,
    resumee_summary,
    resumer_summary,
    scenario_summary,
    sentence,
)
from hibercheck.handoff.verdict import decide
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import open_image
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.dump.dump import Dump
    from hibercheck.handoff.execution import SecondOpinion


def check(image: str, resumer: str, resumee: str, options: CheckOptions) -> Report:
    """Predict what becomes of the machine.

    Args:
        image: Path of the image.
        resumer: Path or release of the kernel that loads it.
        resumee: Path or release of the kernel that wrote it.
        options: The scenario and further inputs.

    Raises:
        HibercheckError: An input cannot be read, or does not belong to the others.
    """
    if options.execute:
        from hibercheck.handoff.execution import require_emulator  # noqa: PLC0415 - see _opinions()

        require_emulator()
    with open_inputs(image, resumer, resumee, options) as (plan, acceptance, dump):
        if acceptance.refusal is not None:
            return _report(plan, acceptance, None)
        replayed, judgement = _replay(plan, dump)
        measured = _by_memory(replayed, acceptance, judgement)
        return _report(replayed, measured, None if measured.refusal is not None else judgement)


def _by_memory(plan: Plan, acceptance: Acceptance, judgement: Judgement) -> Acceptance:
    """Let the resumer's own memory decide whether it takes the image for one of its machine."""
    if judgement.memory is None or not judgement.memory.resumer.exact:
        return acceptance
    resumer = judgement.memory.resumer
    space = KernelSpace(plan.resumer, resumer, resumer.mode, resumer.cr3, resumer.kaslr_offset, resumer.phys_base)
    return judge_measured(acceptance, plan.image, plan.traits, firmware_map(space), physical_pages(space))


@contextmanager
def open_inputs(
    image: str, resumer: str, resumee: str, options: CheckOptions
) -> Iterator[tuple[Plan, Acceptance, Dump | None]]:
    """Open the inputs of a check and work out its scenario; they are closed with the context."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_image(image, resume_offset=options.resume_offset))
        ours = stack.enter_context(open_resumer(resumer, options.resumer_symbols))
        theirs = (
            ours
            if _same(resumer, resumee, options)
            else stack.enter_context(open_resumee(resumee, options.resumee_symbols))
        )
        found = read_resumee(opened, theirs)
        options, facts = _collected(ours, options)
        plan = make_plan(opened, ours, traits_on_demand(ours), found, options, facts)
        acceptance = judge_acceptance(opened, plan.traits, found, plan.cmdline)
        if facts is not None:
            acceptance = judge_measured(acceptance, opened, plan.traits, facts.e820, None)
            acceptance = judge_ram_end(acceptance, found, plan.cmdline, facts.ram_end)
        yield plan, acceptance, _dump(stack, options)


def _collected(resumer: KernelView, options: CheckOptions) -> tuple[CheckOptions, ResumerFacts | None]:
    """Read the resumer's facts file, if there is one, and let it fill in the options."""
    if options.resumer_facts is None:
        return options, None
    facts = read_facts(options.resumer_facts)
    check_identity(facts, resumer)
    return with_facts(options, facts), facts


def _replay(plan: Plan, dump: Dump | None) -> tuple[Plan, Judgement]:
    """Replay the handoff as the resumer parks its CPUs, or as a design does (``--park``)."""
    if plan.options.park is None:
        return plan, judge(plan, dump)
    from hibercheck.handoff.designs.replay import replay_under  # noqa: PLC0415 - the designs are rarely wanted

    replayed = replay_under(plan, dump)
    return replayed.plan, replayed.judgement


def _same(resumer: str, resumee: str, options: CheckOptions) -> bool:
    return resumer == resumee and options.resumer_symbols == options.resumee_symbols


def _dump(stack: ExitStack, options: CheckOptions) -> Dump | None:
    if options.resumer_memory is None:
        return None
    from hibercheck.dump.dump import open_dump  # noqa: PLC0415 - dumps are rare and their readers slow to load

    return stack.enter_context(open_dump(options.resumer_memory, registers=options.resumer_registers))


def _report(plan: Plan, acceptance: Acceptance, judgement: Judgement | None) -> Report:
    outcome, verdict = decide(acceptance, judgement)
    opinions = _opinions(plan, judgement)
    return Report(
        outcome=outcome,
        verdict=verdict,
        headline=_headline(plan, acceptance, judgement, verdict),
        findings=_findings(plan, acceptance, judgement),
        cpus=_with_opinions(cpu_reports(plan, judgement), opinions) if judgement else (),
        image=image_summary(plan.image, plan.resumee),
        resumer=resumer_summary(plan, judgement),
        resumee=resumee_summary(plan.resumee),
        scenario=scenario_summary(plan),
        assumptions=(*plan.assumptions, *place_assumptions(plan, judgement, plan.facts)),
        missing=_missing(acceptance, judgement),
        share=_share(judgement),
        timeline=_timeline(plan, judgement),
        warnings=(*_warnings(plan, judgement), *_disagreements(opinions)),
    )


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
    from hibercheck.handoff.timeline import follow, timeline_events  # noqa: PLC0415 - only --timeline needs it

    lines = tuple(filter(None, (follow(judgement.memory, result, judgement.contexts) for result in judgement.aps)))
    return timeline_events(Namer(judgement.memory, plan.resumee), judgement.aps, lines, plan.bringup.boot_cpu)


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
    advice = RULES["HC401"].remedy.partition(". ")[0].rstrip(".")
    return (Finding("HC401", Level.ERROR, cpu, "paging mode", message, Place(), place, (evidence,), advice),)


def _headline(plan: Plan, acceptance: Acceptance, judgement: Judgement | None, verdict: Verdict) -> str:
    """Say in one sentence what happens and why."""
    if acceptance.refusal is not None:
        return f"{plan.resumer.release} will not load this image: it {acceptance.refusal.reason}"
    assert judgement is not None  # noqa: S101 - only a refusal leaves no judgement
    if verdict is Verdict.FATAL:
        return _fatal_headline(plan, judgement)
    if verdict is Verdict.UNDETERMINED:
        missing = _missing(acceptance, judgement)
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


def _cpus(results: list) -> str:  # type: ignore[type-arg]
    numbers = [str(result.parked.cpu) for result in results]
    return f"CPU {numbers[0]}" if len(numbers) == 1 else f"CPUs {', '.join(numbers)}"


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
