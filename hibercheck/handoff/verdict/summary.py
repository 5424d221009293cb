"""The parts of a report that say what was checked: image, kernels, scenario, CPUs, and one sentence for each."""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.handoff.facts.e820 import E820_RAM
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.session import Session, read_session
from hibercheck.handoff.memory.owner import Owner
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judgement import ApResult, Judgement, Timing
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.findings import (
    CpuReport,
    ImageSummary,
    KernelSummary,
    LineOwner,
    ScenarioSummary,
    WakeTiming,
)
from hibercheck.handoff.verdict.naming import Namer
from hibercheck.handoff.verdict.words import lent_to, owned, sentence, unknown_of, written
from hibercheck.kernel.code.traits import DECLARED, Traits
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Facts, wakes

_RUNS_SHOWN = 256


def image_summary(image: Image, resumee: Resumee | None) -> ImageSummary:
    """Describe the image."""
    session = read_session(resumee.space) if resumee else Session()
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
        written=session.written,
        node=session.node,
        boot_id=session.boot_id,
        swap_uuid=image.swap_uuid,
        swap_label=image.swap_label,
        partition=None if image.partition is None else image.partition.number,
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
        size=_size(kernel),
    )


def _size(kernel: KernelView) -> int | None:
    """Return how many bytes a kernel takes in memory."""
    first, end = kernel.symbol("_text"), kernel.symbol("_end")
    return None if first is None or end is None else end.address - first.address


def _shown_traits(traits: Traits) -> tuple[tuple[str, str], ...]:
    shown = []
    for one in DECLARED:
        if one.in_check:
            value = getattr(traits, one.name).value
            text = "unknown" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
            shown.append((one.name, text.lower() if isinstance(value, bool) else text))
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
        size=_size(kernel),
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
        mwait_spins=plan.mwait_ends,
        memory=plan.options.resumer_memory,
    )


def cpu_reports(plan: Plan, judgement: Judgement) -> tuple[CpuReport, ...]:
    """Describe every CPU, the one that copies first."""
    namer = Namer(judgement.memory, plan.resumee) if judgement.memory else None
    return (_boot_cpu(plan, judgement), *(_ap(plan, judgement, namer, result) for result in judgement.aps))


def _boot_cpu(plan: Plan, judgement: Judgement) -> CpuReport:
    replay = judgement.boot_cpu
    if replay is None:
        fate, text = Fate.UNKNOWN, "whether it can load the resumee's page tables is not known"
    elif judgement.lacks and replay.survives:
        lack = judgement.lacks[0]
        fate = Fate.DIES
        text = f"it enters the resumee, which {lack.use}; this CPU lacks {lack.feature}"
    elif replay.survives:
        fate, text = Fate.UNTOUCHED, "it copies the image and enters the resumee"
    else:
        why = replay.walk.fault.reason if replay.walk.fault else "it lands elsewhere"
        fate = Fate.DIES
        text = f"it loads the resumee's CR3 while it pages with {replay.levels} levels, and the next fetch fails: {why}"
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
        sentence=text,
    )


def _ap(plan: Plan, judgement: Judgement, namer: Namer | None, result: ApResult) -> CpuReport:
    parked, context = result.parked, result.cpu.context
    shift = judgement.memory.resumer.kaslr_offset if judgement.memory else plan.placement.kaslr_offset
    rip = None
    if parked.loop is not None and shift is not None:
        rip = (parked.loop.resume_at + shift) & 0xFFFF_FFFF_FFFF_FFFF
    rip, cr3 = result.cpu.seen or (rip, context.cr3 if judgement.memory else None)
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
        wakes=_wakes(result) if known else (),
        footprint=namer.footprint(context, result.iteration.touched) if namer and result.iteration else (),
        fate=Fate.UNKNOWN if result.doubt is not None else result.fate,
        sentence=sentence(result),
        when=result.when,
        cause=result.cause,
        doubt=result.doubt,
        timing=_timing(result.timing),
        owner=_owner(result.owner),
        exposure=tuple(found.event.value for found in result.exposure if found.event and not found.lent),
        exposure_unknown=tuple(unknown_of(result)),
        lent=tuple(lent_to(result)),
    )


def _timing(timing: Timing | None) -> WakeTiming | None:
    if timing is None:
        return None
    return WakeTiming(
        timing.store, timing.copies, timing.tables, timing.code, timing.margin, timing.counted, timing.longest
    )


def _owner(owner: Owner | None) -> LineOwner | None:
    if owner is None:
        return None
    return LineOwner(
        owner.physical, owner.size, owner.use, owner.names, owner.cpu, owner.writes, f"{owned(owner)}{written(owner)}"
    )


def _wakes(result: ApResult) -> tuple[str, ...]:
    """Name what makes a CPU so parked touch memory, or ends the machine, in the order of the table."""
    loop = result.parked.loop
    facts = Facts(interrupts_enabled=bool(loop and loop.interrupts))
    return tuple(row.event.value for row in wakes(result.parked.state, facts))


def _loop_name(result: ApResult) -> str | None:
    loop = result.parked.loop
    if loop is None:
        return None
    offset = loop.wait - loop.function_address
    return f"{loop.symbol}+{offset:#x}" if 0 <= offset < 1 << 16 else loop.symbol
