"""From the scenario to what becomes of each CPU: exactly with a dump, by the load address without, or by a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from hibercheck.dump.dump import Dump
from hibercheck.dump.registers import CpuRegisters
from hibercheck.errors import MissingFact
from hibercheck.handoff.ap import NO_MEMORY, SUPPOSED, ApReplayer, ApResult, Suppositions
from hibercheck.handoff.boot_cpu import BootCpuReplay, replay_boot_cpu
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.event_replay import EntryFacts
from hibercheck.handoff.exact import DumpedResumer, open_resumer, park_state, registers_by_cpu
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.loop_replay import ApContext
from hibercheck.handoff.needs import KernelView
from hibercheck.handoff.park import Parked
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.resumer import PlacedKernel, ResumerMemory, default_page_offset
from hibercheck.handoff.sweep import Sweep, sweep
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import CpuState, ParkState, infer_efer
from hibercheck.x86.events import Event, Facts, rule
from hibercheck.x86.memory import PAGE_SIZE
from hibercheck.x86.paging import PagingMode

CPU_ENTRY_AREA = 0xFFFF_FE00_0000_0000
"""CPU_ENTRY_AREA_BASE, arch/x86/include/asm/pgtable_64_types.h: the read-only IDT is its first page."""

_GDT_LIMIT, _IDT_LIMIT, _TSS_LIMIT = 0x7F, 0xFFF, 0x206F
_CR0, _EFER = 0x8005_0033, 0xD01
_CR4_BASE, _CR4_MCE, _CR4_LA57, _CR4_SMEP, _CR4_SMAP = 0x20, 1 << 6, 1 << 12, 1 << 20, 1 << 21
_DEFAULT_PHYS_BITS = 52
_LOAD_PHYSICAL_ADDRESS = 16 << 20  # CONFIG_PHYSICAL_START's default


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the replay found.

    Attributes:
        memory: The finished copy; None where the resumer's place is not known.
        boot_cpu: The boot CPU's own step; None where it is not known.
        aps: Every other CPU.
        contexts: What is known of their registers.
        sweep: The result over all placements, where the place is not known.
        missing: Facts that the answer lacks: (fact, how to supply it).
    """

    memory: Composite | None
    boot_cpu: BootCpuReplay | None
    aps: tuple[ApResult, ...]
    contexts: dict[int, ApContext]
    sweep: Sweep | None = None
    missing: tuple[tuple[str, str], ...] = ()


def judge(plan: Plan, dump: Dump | None) -> Judgement:
    """Replay the handoff."""
    if dump is not None:
        return _exact(plan, dump)
    if plan.levels is None:
        missing = (
            "whether the CPU supports five levels of page tables",
            "no5lvl in --resumer-cmdline, or --resumer-memory",
        )
        aps = tuple(ApResult(parked, Fate.UNKNOWN, missing=missing) for parked in plan.parked)
        return Judgement(None, None, aps, {}, missing=(missing,))
    if plan.placement.known:
        return _placed(plan, plan.levels)
    return _swept(plan, plan.levels)


def _suppositions(plan: Plan) -> Suppositions:
    return Suppositions(plan.options.spurious_mwait, plan.options.suppose)


def _phys_bits(plan: Plan) -> int:
    features = plan.resumee.features
    return (features.physical_bits if features else None) or _DEFAULT_PHYS_BITS


def _exact(plan: Plan, dump: Dump) -> Judgement:
    resumer = open_resumer(dump, plan.resumer, plan.options.resumer_memory or "the dump", _phys_bits(plan))
    memory = Composite(plan.image, resumer)
    replayer = ApReplayer(memory, plan.resumee, _suppositions(plan), plan.reinitialised)
    registers = registers_by_cpu(resumer, plan.bringup.present)
    contexts, results = {}, []
    for planned in plan.parked:
        own = registers.get(planned.cpu)
        parked = _parked_by_dump(plan, planned, own, resumer)
        context = _exact_context(plan, parked, own, resumer)
        entry, facts = _exact_entry(plan, own, resumer)
        contexts[planned.cpu] = context
        results.append(replayer.replay(parked, context, entry, facts))
    return Judgement(memory, replay_boot_cpu(memory, plan.resumee), tuple(results), contexts)


def _parked_by_dump(plan: Plan, planned: Parked, own: CpuRegisters | None, resumer: DumpedResumer) -> Parked:
    """Take the park state from the registers; a CPU that is not parked yet will be as planned."""
    if own is None:
        return planned
    found = park_state(own, plan.traits.park_loops, resumer.kaslr_offset)
    if found is None:
        return planned
    state, loop = found
    if planned.state in NO_MEMORY:
        return planned  # never started; or an INIT is on its way to it
    agrees = state is planned.state
    why = planned.why if agrees else f"found by its registers at {own.rip:#x} in the dump"
    return Parked(planned.cpu, state, loop, why, planned.rescued, planned.left_behind)


def _exact_context(plan: Plan, parked: Parked, own: CpuRegisters | None, resumer: DumpedResumer) -> ApContext:
    space = resumer.space
    cr3 = own.cr3 & ~0xFFF if own is not None and own.cr3 else resumer.cr3
    base = own.gs_base if own is not None and own.gs_base else _attempt_base(resumer, parked.cpu)
    line = None
    if parked.loop is not None and parked.loop.kind == "mwait":
        register = parked.loop.line
        if own is not None and register and park_state(own, (parked.loop,), resumer.kaslr_offset):
            line = int(getattr(own, register))
        elif plan.traits.monitored.value == "percpu:mwait_cpu_dead":
            line = space.percpu_address("mwait_cpu_dead", parked.cpu)
    stack = own.rsp if own is not None and parked.state not in NO_MEMORY else None
    return ApContext(parked.cpu, cr3, base, placed=True, stack=stack, line=line)


def _attempt_base(resumer: DumpedResumer, cpu: int) -> int | None:
    try:
        return resumer.space.percpu_base(cpu)
    except MissingFact:
        return None


def _exact_entry(plan: Plan, own: CpuRegisters | None, resumer: DumpedResumer) -> tuple[EntryFacts, Facts]:
    if own is None or not own.cr3:
        return EntryFacts(None, True, {}), Facts()
    try:
        efer = own.efer if own.efer is not None else infer_efer(resumer, own)
        state = CpuState.of(own, efer=efer, max_phys_bits=_phys_bits(plan))
    except MissingFact:
        return EntryFacts(None, True, {}), Facts()
    facts = Facts(interrupts_enabled=state.interrupts_enabled, machine_checks_enabled=state.machine_checks_enabled)
    return EntryFacts(state, True, {}), facts


def _placed(plan: Plan, levels: int) -> Judgement:
    placement = plan.placement
    assert placement.phys_base is not None  # noqa: S101 - Placement.known
    assert placement.kaslr_offset is not None  # noqa: S101 - Placement.known
    mode = PagingMode(levels=levels, max_phys_bits=_phys_bits(plan))
    resumer = PlacedKernel(plan.resumer, mode, placement.kaslr_offset, placement.phys_base)
    memory = Composite(plan.image, resumer)
    replayer = ApReplayer(memory, plan.resumee, _suppositions(plan), plan.reinitialised)
    contexts = {parked.cpu: _placed_context(plan, parked, resumer) for parked in plan.parked}
    results = tuple(
        replayer.replay(parked, contexts[parked.cpu], _placed_entry(plan, parked, resumer), _placed_facts(plan, parked))
        for parked in plan.parked
    )
    return Judgement(memory, replay_boot_cpu(memory, plan.resumee), results, contexts)


def _placed_context(plan: Plan, parked: Parked, resumer: ResumerMemory) -> ApContext:
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


def _placed_entry(plan: Plan, parked: Parked, resumer: ResumerMemory) -> EntryFacts:
    """Build the registers that take part in delivery as the kernel sets them up (arch/x86/mm/cpu_entry_area.c)."""
    size = plan.traits.cea_size.value
    area = CPU_ENTRY_AREA + PAGE_SIZE + parked.cpu * (size or 0)
    features = plan.resumee.features
    flags = features.flags if features else frozenset()
    cr4 = _CR4_BASE | (_CR4_LA57 if resumer.mode.levels == 5 else 0) | _CR4_MCE
    cr4 |= (_CR4_SMEP if "smep" in flags else 0) | (_CR4_SMAP if "smap" in flags else 0)
    wait = parked.loop.wait if parked.loop else 0
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
    return EntryFacts(state, size is not None, {})


def _placed_facts(plan: Plan, parked: Parked) -> Facts:
    enabled = plan.resumer.symbol("mcheck_cpu_init") is not None
    return Facts(interrupts_enabled=bool(parked.loop and parked.loop.interrupts), machine_checks_enabled=enabled)


def _swept(plan: Plan, levels: int) -> Judgement:
    """Judge every placement: which CPUs something makes run, and in how many places that kills one of them."""
    results: list[ApResult] = []
    warm: list[ParkLoop] = []
    cold: list[ParkLoop] = []
    for parked in plan.parked:
        results.append(_unplaced(plan, parked))
        if results[-1].depends is None or parked.loop is None:
            continue
        (warm if plan.options.spurious_mwait and results[-1].cause is Event.SPURIOUS else cold).append(parked.loop)
    found = None
    if warm or cold:
        found = sweep(
            plan.image,
            plan.resumer,
            plan.resumee,
            (*warm, *cold),
            plan.traits.physical_start.value or _LOAD_PHYSICAL_ADDRESS,
            tables_matter=bool(cold),
            levels=levels,
        )
        results = [_settle(result, found) for result in results]
    return Judgement(None, _boot_cpu_unplaced(plan, levels), tuple(results), {}, found)


def _unplaced(plan: Plan, parked: Parked) -> ApResult:
    """Say what makes a CPU run whose place is not known; ``depends`` marks what the sweep must decide."""
    if parked.unsettled is not None:
        return ApResult(parked, Fate.UNKNOWN, missing=(parked.unsettled.fact, parked.unsettled.supply))
    if parked.loop is None and parked.state not in NO_MEMORY:
        missing = (f"the code in which CPU {parked.cpu} waits", "a resumer vmlinux with symbols")
        return ApResult(parked, Fate.UNKNOWN, missing=missing)
    chance = "the resumer's load address is random"
    if parked.state is ParkState.MWAIT:
        cause = Event.SPURIOUS if plan.options.spurious_mwait else Event.STORE
        return ApResult(parked, Fate.DIES, "in the handoff", cause, depends=chance)
    if parked.cpu in plan.reinitialised:
        return ApResult(parked, Fate.REINITIALISED, reinitialised=True)
    for name in sorted(plan.options.suppose):
        effect = rule(SUPPOSED[name], parked.state, _placed_facts(plan, parked)).effect
        if effect.ends_machine:
            return ApResult(parked, Fate.DIES, "after the handoff", SUPPOSED[name])
        if effect.touches_memory:
            return ApResult(parked, Fate.DIES, "after the handoff", SUPPOSED[name], depends=chance)
    fate = Fate.UNTOUCHED if parked.state in NO_MEMORY else Fate.STAYS_PARKED
    return ApResult(parked, fate)


def _settle(result: ApResult, found: Sweep) -> ApResult:
    """Turn a risk into a fact where all placements agree."""
    if result.depends is None or 0 < found.failing < found.placements:
        return result
    if found.failing:
        return ApResult(result.parked, Fate.DIES, result.when, result.cause)
    return ApResult(result.parked, Fate.STAYS_PARKED if not result.reinitialised else Fate.REINITIALISED)


def _boot_cpu_unplaced(plan: Plan, levels: int) -> BootCpuReplay:
    """The boot CPU's step does not depend on where the resumer lies: the resumee's tables are all in the image."""
    resumer = _Nowhere(PagingMode(levels=levels, max_phys_bits=_phys_bits(plan)), plan)
    return replay_boot_cpu(Composite(plan.image, resumer), plan.resumee)


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A resumer of which nothing is known but its paging mode."""

    mode: PagingMode
    plan: Plan
    cr3: int = 0
    kaslr_offset: int = 0
    phys_base: int = 0
    exact: bool = False

    @property
    def kernel(self) -> KernelView:
        return self.plan.resumer

    def frame(self, _pfn: int) -> bytes | None:
        return None

    def knows_entry(self, _table: int, _index: int) -> bool:
        return False

    def bytes_at(self, _address: int, _size: int) -> bytes | None:
        return None
