"""The parts of a report that say what was checked: image, kernels, scenario, CPUs, and one sentence for each."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.handoff.ap import SPURIOUS_EXITS, ApResult, can_be_woken
from hibercheck.handoff.findings import CpuReport, Fate, ImageSummary, KernelSummary, ScenarioSummary
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.naming import Namer
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.resumee import E820_RAM, Resumee
from hibercheck.kernel.code.traits import Traits
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Facts

_RUNS_SHOWN = 256
_TRAITS_SHOWN = (
    "rescues_offline",
    "rescue_needs_primary",
    "resume_park",
    "sends_init",
    "play_dead_order",
    "zero_pages",
    "compressors",
)


def image_summary(image: Image, resumee: Resumee | None) -> ImageSummary:
    """Describe the image."""
    ram = sum(entry.size for entry in (resumee.e820 if resumee else None) or () if entry.kind == E820_RAM)
    return ImageSummary(
        path=image.path,
        compressor=image.compressor,
        pages=len(image.pfns),
        zero_pages=image.pfns.zero_count,
        runs=image.pfns.coarse_runs(_RUNS_SHOWN),
        ram_pages=(ram >> PAGE_SHIFT) or image.info.num_physpages,
        cr3=image.record.cr3,
        jump_address=image.record.jump_address,
        jump_address_phys=image.record.jump_address_phys or 0,
        consumed=image.header.consumed,
    )


def resumer_summary(plan: Plan, judgement: Judgement | None) -> KernelSummary:
    """Describe the resumer; what a dump shows comes before what was assumed."""
    kernel, traits = plan.resumer, plan.traits
    memory = judgement.memory if judgement else None
    phys_base = memory.resumer.phys_base if memory else plan.placement.phys_base
    offset = memory.resumer.kaslr_offset if memory else plan.placement.kaslr_offset
    link = kernel.require("_text").address - START_KERNEL_MAP
    return KernelSummary(
        path=kernel.path,
        release=kernel.release,
        banner=kernel.banner.strip(),
        build_id=kernel.build_id,
        load_address=None if phys_base is None else link + phys_base,
        kaslr_offset=offset,
        paging_levels=memory.resumer.mode.levels if memory else plan.levels,
        command_line=plan.cmdline.text,
        traits=_shown_traits(traits),
    )


def _shown_traits(traits: Traits) -> tuple[tuple[str, str], ...]:
    shown = []
    for name in _TRAITS_SHOWN:
        value = getattr(traits, name).value
        text = "unknown" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
        shown.append((name, text.lower() if isinstance(value, bool) else text))
    return tuple(shown)


def resumee_summary(resumee: Resumee) -> KernelSummary:
    """Describe the resumee as its image shows it."""
    kernel, space = resumee.kernel, resumee.space
    return KernelSummary(
        path=kernel.path,
        release=kernel.release,
        banner=kernel.banner.strip(),
        build_id=kernel.build_id,
        load_address=kernel.require("_text").address - START_KERNEL_MAP + space.phys_base,
        kaslr_offset=space.kaslr_offset,
        paging_levels=resumee.levels,
        command_line=resumee.command_line,
    )


def scenario_summary(plan: Plan) -> ScenarioSummary:
    """Describe what was assumed of the resumer's run."""
    return ScenarioSummary(
        cpus=tuple(sorted(plan.bringup.present)),
        boot_cpu=plan.bringup.boot_cpu,
        offline_by_hand=tuple(sorted(plan.options.resumer_offline)),
        rescued=tuple(sorted(plan.rescued)),
        supposed=tuple(sorted(plan.options.suppose)),
        spurious_mwait=plan.options.spurious_mwait,
        memory=plan.options.resumer_memory,
    )


def cpu_reports(plan: Plan, judgement: Judgement) -> tuple[CpuReport, ...]:
    """Describe every CPU, the one that copies first."""
    namer = Namer(judgement.memory, plan.resumee) if judgement.memory else None
    return (_boot_cpu(plan, judgement), *(_ap(plan, judgement, namer, result) for result in judgement.aps))


def _boot_cpu(plan: Plan, judgement: Judgement) -> CpuReport:
    replay = judgement.boot_cpu
    if replay is None:
        fate, sentence = Fate.UNKNOWN, "whether it can load the resumee's page tables is not known"
    elif replay.survives:
        fate, sentence = Fate.UNTOUCHED, "it copies the image and enters the resumee"
    else:
        why = replay.walk.fault.reason if replay.walk.fault else "it lands elsewhere"
        fate = Fate.DIES
        sentence = (
            f"it loads the resumee's CR3 while it pages with {replay.levels} levels, and the next fetch fails: {why}"
        )
    cpu = plan.bringup.boot_cpu
    return CpuReport(
        cpu=cpu,
        apic_id=plan.topology.apic_ids.get(cpu),
        boot_cpu=True,
        state=ParkState.RUNNING.value,
        why="it copies the image and jumps into the resumee",
        loop=None,
        rip=replay.address if replay else None,
        cr3=plan.resumee.space.cr3,
        wakes=(),
        footprint=(),
        fate=fate,
        sentence=sentence,
    )


def _ap(plan: Plan, judgement: Judgement, namer: Namer | None, result: ApResult) -> CpuReport:
    parked = result.parked
    context = judgement.contexts.get(parked.cpu)
    shift = judgement.memory.resumer.kaslr_offset if judgement.memory else plan.placement.kaslr_offset
    rip = None
    if parked.loop is not None and shift is not None:
        rip = (parked.loop.resume_at + shift) & 0xFFFF_FFFF_FFFF_FFFF
    cr3 = context.cr3 if context else None
    rip, cr3 = judgement.seen.get(parked.cpu, (rip, cr3))
    footprint = namer.footprint(context, result.turn.touched) if namer and context and result.turn else ()
    facts = Facts(interrupts_enabled=bool(parked.loop and parked.loop.interrupts))
    known = parked.unsettled is None
    return CpuReport(
        cpu=parked.cpu,
        apic_id=plan.topology.apic_ids.get(parked.cpu),
        boot_cpu=False,
        state=parked.state.value if known else "unknown",
        why=parked.why,
        loop=_loop_name(result),
        rip=rip,
        cr3=cr3,
        wakes=can_be_woken(parked.state, facts) if known else (),
        footprint=footprint,
        fate=Fate.UNKNOWN if result.depends is not None else result.fate,
        sentence=sentence(result),
    )


def _loop_name(result: ApResult) -> str | None:
    loop = result.parked.loop
    if loop is None:
        return None
    offset = loop.wait - loop.function_address
    return f"{loop.symbol}+{offset:#x}" if 0 <= offset < 1 << 16 else loop.symbol


def sentence(result: ApResult) -> str:
    """Say what becomes of a CPU, and why, in one sentence."""
    if result.missing is not None:
        return f"not known: {result.missing[0]}"
    if result.depends is not None:
        return f"it may be lost {result.when}: {result.depends}"
    makers = {
        Fate.DIES: _dies,
        Fate.PARKS_AGAIN: lambda _: "what it runs through is overwritten with the same bytes, by luck; it parks again",
        Fate.REINITIALISED: lambda _: "nothing makes it run before the resumee's INIT takes it out of its loop",
        Fate.STAYS_PARKED: _stays,
    }
    maker = makers.get(result.fate)
    if result.fate is Fate.REINITIALISED and _runs_on_cache(result):
        return "its page tables are overwritten; it runs on the translations it has cached until the resumee's INIT"
    return maker(result) if maker else "nothing that it can touch is overwritten"


def _runs_on_cache(result: ApResult) -> bool:
    stale = result.turn is not None and result.turn.state is LoopState.STALE
    return stale and result.parked.state in SPURIOUS_EXITS


def _dies(result: ApResult) -> str:
    fatal = result.fatal_event
    if fatal is not None:
        return f"when {with_article(fatal.event.value)} reaches it, {fatal.reason}"
    if result.cause is None or result.turn is None or result.turn.decisive is None:
        return f"it is lost {result.when}"
    decisive = result.turn.decisive
    if result.turn.diversion is not None and result.turn.diversion.lost:
        what = f"what it reads as its {decisive.role} is no longer its own, and leads it out of its loop"
    elif decisive.leaf_overwritten:
        what = "its loop is overwritten with other bytes"
    else:
        what = "its loop is out of reach"
    return f"{with_article(result.cause.value)} makes it run during the copy, when {what}"


def _stays(result: ApResult) -> str:
    killers = [replay.event.value for replay in result.exposure if replay.state is LoopState.FOREIGN]
    tail = f"; the next {either(killers)} would kill the machine" if killers else ""
    return f"the resumee leaves it in the resumer's loop{tail}"


def either(events: Sequence[str]) -> str:
    """Return ``an NMI, SMI or machine check`` without the article."""
    return f"{', '.join(events[:-1])} or {events[-1]}" if len(events) > 1 else "".join(events)


def with_article(event: str) -> str:
    """Put the indefinite article before the name of an event."""
    return f"{'an' if event in {'NMI', 'SMI', 'INIT', 'external interrupt'} else 'a'} {event}"


PARKED_IN = {
    ParkState.MWAIT: "in MWAIT",
    ParkState.HLT: "in HLT",
    ParkState.PORT_IO: "in an I/O port read",
    ParkState.WAIT_FOR_SIPI: "in wait-for-SIPI",
    ParkState.NEVER_BOOTED: "where the firmware left it",
}
"""Where a CPU is parked, in words."""
