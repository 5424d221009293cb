"""Memory and parked CPUs with the resumer at a known address and nothing else known of its run-time memory."""

from __future__ import annotations

from hibercheck.addresses import ADDRESS_MASK, CPU_ENTRY_AREA, PAGE_SIZE
from hibercheck.data import replace
from hibercheck.errors import MissingFact
from hibercheck.handoff.memory.collected import CollectedKernel, collected_kernel
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.memory.fred import placed_fred
from hibercheck.handoff.memory.owner import Owners
from hibercheck.handoff.memory.resumer import PlacedKernel, ResumerMemory, default_page_offset
from hibercheck.handoff.scenario.known_place import FRED, takes_fred
from hibercheck.handoff.scenario.known_timing import LINE_SIZE, USUAL_LINE
from hibercheck.handoff.scenario.park import Parked
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code.gsbase import may_set_gs_base
from hibercheck.kernel.code.model import fixmap_address
from hibercheck.x86.cpu import CpuState, ParkState
from hibercheck.x86.events import Facts
from hibercheck.x86.paging import (
    CR4_FRED,
    CR4_FSGSBASE,
    CR4_LA57,
    CR4_MCE,
    CR4_PAE,
    CR4_SMAP,
    CR4_SMEP,
    PagingMode,
)

_GDT_LIMIT, _IDT_LIMIT, _TSS_LIMIT = 0x7F, 0xFFF, 0x206F
KERNEL_CR0, KERNEL_EFER = 0x8005_0033, 0xD01
"""CR0 and EFER of a CPU on which Linux runs: paging, write protection, long mode and no-execute, among others."""


def placed(plan: Plan, levels: int, phys_base: int, kaslr_offset: int) -> tuple[Composite, tuple[ParkedCpu, ...]]:
    """Place the resumer.

    Args:
        plan: The scenario.
        levels: Levels of its page tables.
        phys_base: Its physical displacement.
        kaslr_offset: Its virtual one.
    """
    mode = PagingMode(levels=levels, max_phys_bits=plan.physical_bits)
    resumer = _resumer(plan, PlacedKernel(plan.resumer, mode, kaslr_offset, phys_base))
    memory = Composite(plan.image, resumer, resumee=plan.resumee.space, owners=owners(plan))
    common = _common(plan, resumer)
    return memory, tuple(_cpu(plan, parked, resumer, common) for parked in plan.parked)


def owners(plan: Plan) -> Owners:
    """Return who tells whose memory is whose in the resumee."""
    resumee = plan.resumee
    size = plan.asking.need(LINE_SIZE).value if plan.sleeps else USUAL_LINE
    return Owners(resumee.space, plan.image.pfns, resumee.frozen, plan.resumee_runs, size)


def _cpu(plan: Plan, parked: Parked, resumer: PlacedKernel | CollectedKernel, common: CpuState) -> ParkedCpu:
    """Put together what is known of a CPU, from what all have in common on."""
    known = _collected_context(plan, parked, resumer) if isinstance(resumer, CollectedKernel) else None
    entry, tables_placed = _entry(plan, parked, resumer, common)
    if known is not None and known.registers is not None and tables_placed:
        known = replace(known, gdt=(entry.gdt_base, entry.gdt_limit))
    context = known or _stand_in(plan, parked, resumer)
    if parked.state is ParkState.MWAIT and (fixed := fixmap_address(plan.traits.monitored.value)) is not None:
        frame = next(iter(plan.traits.monitored_frame.value or ()), None)
        context = replace(context, line=fixed, line_frame=frame, line_withheld=withheld(plan))
    return ParkedCpu(parked, context, entry, tables_placed, event_facts(plan, parked))


def withheld(plan: Plan) -> bool:
    """Whether the resumer keeps the frame of the lines that CPUs monitor from images."""
    return plan.traits.line_withheld.value is True


def _resumer(plan: Plan, kernel: PlacedKernel) -> PlacedKernel | CollectedKernel:
    """Add what was collected of its memory."""
    if plan.facts is None or not plan.facts.frames:
        return kernel
    return collected_kernel(kernel, plan.facts.frames, plan.facts.path)


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
        resumer.has_text(start + shift & ADDRESS_MASK, end + shift & ADDRESS_MASK) for start, end in loop.ranges
    ):
        return ApContext(parked.cpu, resumer.cr3, base, placed=True, line=line)
    return ApContext(
        parked.cpu,
        resumer.cr3,
        base,
        placed=True,
        line=line,
        rip=(loop.resume_at + shift) & ADDRESS_MASK,
        registers={} if line is None or loop.line is None else {loop.line: line},
    )


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


def _entry(
    plan: Plan, parked: Parked, resumer: PlacedKernel | CollectedKernel, common: CpuState
) -> tuple[CpuState, bool]:
    """Build the registers that take part in delivery as the kernel sets them up (arch/x86/mm/cpu_entry_area.c).

    Returns:
        Them, and whether the places of GDT and TSS are facts.
    """
    size = plan.traits.cea_size.value
    index = _entry_area_index(plan, parked, resumer)
    area = CPU_ENTRY_AREA + PAGE_SIZE + (index or 0) * (size or 0)
    fred = bool(common.cr4 & CR4_FRED) and FRED.name in plan.known
    wait = parked.loop.resume_at if parked.loop else 0
    state = replace(
        common,
        rip=(wait + resumer.kaslr_offset) & ADDRESS_MASK,
        gdt_base=area,
        tr_base=area + 2 * PAGE_SIZE,  # struct cpu_entry_area: gdt, entry_stack_page, tss
        fred=placed_fred(plan, area, resumer.kaslr_offset) if fred else None,
    )
    return state, size is not None and index is not None


def _common(plan: Plan, resumer: PlacedKernel | CollectedKernel) -> CpuState:
    """Return what all parked CPUs have in common of those registers; the rest is zero."""
    features = plan.resumee.features
    flags = features.flags if features else frozenset()
    cr4 = CR4_PAE | (CR4_LA57 if resumer.mode.levels == 5 else 0) | CR4_MCE
    cr4 |= (CR4_SMEP if "smep" in flags else 0) | (CR4_SMAP if "smap" in flags else 0)
    told = plan.features.flags if plan.features is not None else frozenset[str]()
    uses_fred = takes_fred(plan.known.get(FRED.name), told)
    cr4 |= CR4_FRED if uses_fred else 0
    cr4 |= CR4_FSGSBASE if "fsgsbase" in told and _uses_fsgsbase(plan) else 0
    return CpuState(
        rip=0,
        rsp=0,
        rflags=0x46,
        cr0=KERNEL_CR0,
        cr3=resumer.cr3,
        cr4=cr4,
        efer=KERNEL_EFER,
        idt_base=CPU_ENTRY_AREA,
        idt_limit=_IDT_LIMIT,
        gdt_base=0,
        gdt_limit=_GDT_LIMIT,
        tr_base=0,
        tr_limit=_TSS_LIMIT,
        max_phys_bits=resumer.mode.max_phys_bits,
    )


def _uses_fsgsbase(plan: Plan) -> bool:
    """Tell whether the resumer sets CR4.FSGSBASE where the CPU has it (identify_cpu(), arch/x86/kernel/cpu/common.c).

    It does from the version on in which its entry code uses it; see `hibercheck.kernel.code.gsbase`.
    """
    entry = plan.resumer.symbol("paranoid_entry")
    try:
        return entry is not None and may_set_gs_base(plan.resumer.read(entry.address, plan.resumer.extent(entry)))
    except MissingFact:
        return False


def event_facts(plan: Plan, parked: Parked) -> Facts:
    """Say what of a CPU decides how it takes events, as its kernel sets it up."""
    enabled = plan.resumer.symbol("mcheck_cpu_init") is not None
    return Facts(interrupts_enabled=bool(parked.loop and parked.loop.interrupts), machine_checks_enabled=enabled)
