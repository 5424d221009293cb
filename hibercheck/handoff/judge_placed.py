"""The replay with the resumer at a known address and nothing else known of its run-time memory."""

from __future__ import annotations

from hibercheck.addresses import CPU_ENTRY_AREA, PAGE_SIZE
from hibercheck.errors import MissingFact
from hibercheck.handoff.ap import ApReplayer
from hibercheck.handoff.boot_cpu import replay_boot_cpu
from hibercheck.handoff.collected import CollectedKernel, collected_kernel
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.event_replay import EntryFacts
from hibercheck.handoff.judgement import Judgement, physical_bits, suppositions
from hibercheck.handoff.park import Parked
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.resumer import PlacedKernel, ResumerMemory, default_page_offset
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.events import Facts
from hibercheck.x86.paging import PagingMode

_GDT_LIMIT, _IDT_LIMIT, _TSS_LIMIT = 0x7F, 0xFFF, 0x206F
_MASK = (1 << 64) - 1
_CR0, _EFER = 0x8005_0033, 0xD01
_CR4_BASE, _CR4_MCE, _CR4_LA57, _CR4_SMEP, _CR4_SMAP = 0x20, 1 << 6, 1 << 12, 1 << 20, 1 << 21


def judge_placed(plan: Plan, levels: int) -> Judgement:
    """Replay the handoff with the resumer at the address that is known."""
    placement = plan.placement
    assert placement.phys_base is not None  # noqa: S101 - Placement.known
    assert placement.kaslr_offset is not None  # noqa: S101 - Placement.known
    mode = PagingMode(levels=levels, max_phys_bits=physical_bits(plan))
    resumer = _resumer(plan, PlacedKernel(plan.resumer, mode, placement.kaslr_offset, placement.phys_base))
    memory = Composite(plan.image, resumer)
    replayer = ApReplayer(memory, plan.resumee, suppositions(plan), plan.reinitialised)
    contexts = {parked.cpu: _placed_context(plan, parked, resumer) for parked in plan.parked}
    entries = {parked.cpu: (_placed_entry(plan, parked, resumer), placed_facts(plan, parked)) for parked in plan.parked}
    results = tuple(replayer.replay(parked, contexts[parked.cpu], *entries[parked.cpu]) for parked in plan.parked)
    return Judgement(memory, replay_boot_cpu(memory, plan.resumee), results, contexts, entries=entries)


def _resumer(plan: Plan, placed: PlacedKernel) -> PlacedKernel | CollectedKernel:
    """Add what was collected of its memory."""
    if plan.facts is None or not plan.facts.frames:
        return placed
    return collected_kernel(placed, plan.facts.frames, plan.facts.path)


def _collected_context(plan: Plan, parked: Parked, resumer: CollectedKernel) -> ApContext | None:
    """Say where a CPU's per-CPU area is, or None where that was not collected."""
    space = resumer.space
    try:
        base = space.percpu_base(parked.cpu)
        monitored = plan.traits.monitored.value == "percpu:mwait_cpu_dead"
        line = space.percpu_address("mwait_cpu_dead", parked.cpu) if monitored else None
    except MissingFact:
        return None
    loop, shift = parked.loop, resumer.kaslr_offset
    if loop is None or not all(
        resumer.has_text(start + shift & _MASK, end + shift & _MASK) for start, end in loop.ranges
    ):
        return ApContext(parked.cpu, resumer.cr3, base, placed=True, line=line)
    entry = _placed_entry(plan, parked, resumer)
    return ApContext(
        parked.cpu,
        resumer.cr3,
        base,
        placed=True,
        line=line,
        rip=(loop.resume_at + shift) & _MASK,
        registers={} if line is None or loop.line is None else {loop.line: line},
        gdt=(entry.cpu.gdt_base, entry.cpu.gdt_limit) if entry.cpu is not None and entry.tables_placed else None,
    )


def _placed_context(plan: Plan, parked: Parked, resumer: PlacedKernel | CollectedKernel) -> ApContext:
    """Say what is known of a CPU's registers."""
    known = _collected_context(plan, parked, resumer) if isinstance(resumer, CollectedKernel) else None
    context = known or _stand_in(plan, parked, resumer)
    return plan.adjust(context, resumer) if plan.adjust else context


def _stand_in(plan: Plan, parked: Parked, resumer: ResumerMemory) -> ApContext:
    """Stand in for the per-CPU area, which is allocated at run time: the resumee's place of it in the direct map.

    Where the page tables of the direct map are the resumee's after the copy, any address in RAM does as well.
    """
    base = line = None
    space = plan.resumee.space
    try:
        theirs = (
            space.percpu_address("gdt_page", parked.cpu)
            if space.kernel.symbol("gdt_page")
            else space.percpu_base(parked.cpu)
        )
        physical = space.physical(theirs) & ~(PAGE_SIZE - 1)
        area = default_page_offset(resumer.mode.levels) + physical
        start = plan.resumer.require("__per_cpu_start").address
        base = (area - start - resumer.kaslr_offset * (not plan.resumer.percpu_zero_based)) & 0xFFFF_FFFF_FFFF_FFFF
        line = area
    except MissingFact:
        pass
    return ApContext(parked.cpu, resumer.cr3, base, placed=False, line=line)


def _entry_area_index(plan: Plan, parked: Parked, resumer: PlacedKernel | CollectedKernel) -> int | None:
    """Return a CPU's place in the CPU entry area, or None where it is random and was not collected."""
    if isinstance(resumer, CollectedKernel):
        return resumer.entry_area_index(parked.cpu)
    is_random = plan.cmdline.kaslr and plan.traits.randomize_base.value is not False
    return None if is_random and plan.resumer.symbol("_cea_offset") is not None else parked.cpu


def _placed_entry(plan: Plan, parked: Parked, resumer: PlacedKernel | CollectedKernel) -> EntryFacts:
    """Build the registers that take part in delivery as the kernel sets them up (arch/x86/mm/cpu_entry_area.c)."""
    size = plan.traits.cea_size.value
    index = _entry_area_index(plan, parked, resumer)
    area = CPU_ENTRY_AREA + PAGE_SIZE + (index or 0) * (size or 0)
    features = plan.resumee.features
    flags = features.flags if features else frozenset()
    cr4 = _CR4_BASE | (_CR4_LA57 if resumer.mode.levels == 5 else 0) | _CR4_MCE
    cr4 |= (_CR4_SMEP if "smep" in flags else 0) | (_CR4_SMAP if "smap" in flags else 0)
    wait = parked.loop.resume_at if parked.loop else 0
    state = CpuState(
        rip=(wait + resumer.kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF,
        rsp=0,
        rflags=0x46,
        cr0=_CR0,
        cr3=resumer.cr3,
        cr4=cr4,
        efer=_EFER,
        idt_base=CPU_ENTRY_AREA,
        idt_limit=_IDT_LIMIT,
        gdt_base=area,
        gdt_limit=_GDT_LIMIT,
        tr_base=area + 2 * PAGE_SIZE,  # struct cpu_entry_area: gdt, entry_stack_page, tss
        tr_limit=_TSS_LIMIT,
        max_phys_bits=resumer.mode.max_phys_bits,
    )
    return EntryFacts(state, size is not None and index is not None)


def placed_facts(plan: Plan, parked: Parked) -> Facts:
    """Say what of a CPU decides how it takes events, as its kernel sets it up."""
    enabled = plan.resumer.symbol("mcheck_cpu_init") is not None
    return Facts(interrupts_enabled=bool(parked.loop and parked.loop.interrupts), machine_checks_enabled=enabled)
