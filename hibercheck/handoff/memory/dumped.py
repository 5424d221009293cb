"""Memory and parked CPUs out of a dump of the resumer: every frame and every register is a fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.dump.registers import GENERAL, CpuRegisters
from hibercheck.errors import MalformedDump, Mismatch, MissingFact
from hibercheck.handoff.facts.cpufacts import cpu_count, read_mask
from hibercheck.handoff.facts.pending import PendingCopies
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.memory.copied import copied_loop
from hibercheck.handoff.memory.exact import (
    DumpedResumer,
    cpus_are_parked,
    open_resumer,
    pages,
    park_state,
    registers_by_cpu,
)
from hibercheck.handoff.memory.fred import dumped_fred
from hibercheck.handoff.memory.placed import owners, withheld
from hibercheck.handoff.scenario.known_cpus import IDLE
from hibercheck.handoff.scenario.park import NO_MEMORY, Parked, Unsettled
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.code.patching import same_code
from hibercheck.x86.cpu import RFLAGS_IF, CpuState, ParkState, infer_efer
from hibercheck.x86.events import Facts

KERNEL_CS, KERNEL_DS = 0x10, 0x18
"""__KERNEL_CS and __KERNEL_DS, arch/x86/include/asm/segment.h."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump gives.

    Attributes:
        memory: The finished copy.
        cpus: Every CPU but the one that copies.
        shows_parked: Whether the dump was taken after the resumer had parked its CPUs.
    """

    memory: Composite
    cpus: tuple[ParkedCpu, ...]
    shows_parked: bool


@dataclass(frozen=True, slots=True)
class _OneCpu:
    """One CPU in the dump.

    Attributes:
        parked: How it is parked, or will be.
        registers: Its registers; None where the dump has none for it.
        waiting: The same if these are the registers of the parked CPU, and not those from before; else None.
    """

    parked: Parked
    registers: CpuRegisters | None
    waiting: CpuRegisters | None


def dumped(plan: Plan, dump: Dump) -> Dumped:
    """Take memory and CPUs from a dump.

    Raises:
        Mismatch: It is not a dump of the resumer, or its code is another.
    """
    resumer = open_resumer(dump, plan.resumer, plan.options.resumer_memory or "the dump", plan.physical_bits)
    memory = Composite(
        plan.image, resumer, resumee=plan.resumee.space, pending=_pending(plan, resumer), owners=owners(plan)
    )
    present = _present(resumer)
    known = plan.bringup.present | (present or frozenset())
    hidden = {one.cpu for one in plan.parked} - known
    if len(known | hidden) != dump.machine_cpus:
        hidden = set()  # what the resumer takes no note of may be no CPU, or another than the dump has there
    registers = registers_by_cpu(resumer, known | hidden)
    check_registers(resumer, registers)
    there = frozenset(registers) | hidden
    parked = plan.parked if present is None or plan.rearranged else _as_present(plan, present, there)
    waiting = frozenset(one.cpu for one in parked if not one.left_behind and one.state not in NO_MEMORY)
    over = cpus_are_parked(resumer, waiting, registers)
    cpus = []
    for planned in parked:
        one = _in_dump(plan, planned, registers.get(planned.cpu), resumer, over=over)
        if one.parked.loop is not None and not plan.rearranged and not one.parked.in_place:
            check_code(resumer, one.parked.loop)
        cpus.append(_cpu(plan, one, resumer))
    return Dumped(memory, tuple(cpus), over)


def _pending(plan: Plan, resumer: DumpedResumer) -> PendingCopies:
    """Return the list of copies: that of the inputs, unless this scenario sees the resumer's memory otherwise."""
    known = plan.inputs.dumped
    if known is not None and known.space == resumer.space:
        return known.copies
    return PendingCopies(resumer.space, len(plan.image.pfns))


def _cpu(plan: Plan, one: _OneCpu, resumer: DumpedResumer) -> ParkedCpu:
    """Put together what is known of a CPU."""
    entry, facts = _entry(plan, one, resumer)
    general = seen = None
    if one.waiting is not None:
        general = {name: getattr(one.waiting, name) for name in GENERAL}
        root = one.waiting.cr3
        seen = (one.waiting.rip, 0 if root is None else root & resumer.mode.address_mask)
    announced = plan.announced if one.parked.in_place else None
    context = _context(plan, one, resumer)
    return ParkedCpu(one.parked, context, entry, facts=facts, general=general, seen=seen, announced=announced)


def _present(resumer: DumpedResumer) -> frozenset[int] | None:
    """Return the CPUs that the resumer itself knows of, or None where its memory does not tell."""
    space = resumer.space
    try:
        return read_mask(space, space.address("__cpu_present_mask"), cpu_count(space))
    except MissingFact:
        return None


def _as_present(plan: Plan, present: frozenset[int], dumped: frozenset[int]) -> tuple[Parked, ...]:
    """Leave out CPUs that neither the resumer nor the dump has, and add those that the image does not tell of.

    What the image tells of the machine's CPUs is the resumee's view, which ``nr_cpus=`` and the like narrow.
    """
    known = {one.cpu for one in plan.parked} | {plan.bringup.boot_cpu}
    missing = Unsettled("how it came to be parked", "a dump taken after the resumer has parked its CPUs")
    added = [
        Parked(cpu, ParkState.RUNNING, None, "in the resumer's present mask", unsettled=missing)
        for cpu in sorted(present - known)
    ]
    return (*(one for one in plan.parked if one.cpu in present | dumped), *added)


def _in_dump(plan: Plan, planned: Parked, own: CpuRegisters | None, resumer: DumpedResumer, *, over: bool) -> _OneCpu:
    """Take the park state from the registers; a CPU that is not parked yet will be as planned."""
    if own is None:
        return _OneCpu(planned, None, None)
    found = park_state(own, plan.traits.park_loops, resumer.kaslr_offset)
    if found is None and planned.in_place:
        loop = copied_loop(resumer, own)
        found = None if loop is None else (planned.state, loop)
    if found is None and planned.state is ParkState.NEVER_BOOTED:
        return _OneCpu(planned, own, own)  # where the firmware left it
    if found is None or not (over or planned.left_behind) or plan.rearranged:
        return _OneCpu(planned, own, None)  # under a design the CPU is not where the dump has it
    state, loop = found
    if planned.state in NO_MEMORY and ParkState.WAIT_FOR_SIPI in {state, planned.state}:
        return _OneCpu(planned, own, own)  # never started; or an INIT is on its way to it
    agrees = state is planned.state
    if not agrees:
        _see_idle(plan, planned, state, loop, resumer)
    why = planned.why if agrees else f"found by its registers at {own.rip:#x} in the dump"
    parked = replace(planned, state=state, loop=loop, why=why, unsettled=None)
    return _OneCpu(parked, own, own)


def _see_idle(plan: Plan, planned: Parked, state: ParkState, loop: ParkLoop | None, resumer: DumpedResumer) -> None:
    """See that the dump does not show another idle driver than the one that was given.

    Raises:
        Mismatch: It does: a CPU that was left behind waits otherwise than that driver parks it.
    """
    known = plan.known.get(IDLE.name)
    if known is None or known.standing is not Standing.GIVEN or not planned.left_behind:
        return
    where = "an I/O port read" if state is ParkState.PORT_IO else state.value.upper()
    if "cpuidle" in {one.role for one in (loop, planned.loop) if one is not None}:
        raise Mismatch(
            f"shows CPU {planned.cpu} parked in {where}, which --resumer-idle {known.value} contradicts",
            path=resumer.dump.path,
            advice="leave out --resumer-idle, or add --what-if to judge a run that was not measured",
        )


def check_registers(resumer: DumpedResumer, registers: Mapping[int, CpuRegisters]) -> None:
    """See that each CPU can be where its registers say: without paging there is no 64-bit mode (SDM 3A 2.2).

    A CPU that seems not to page would be taken to find its code wherever physical memory has it.

    Raises:
        MalformedDump: A CPU has an RIP beyond 4 GiB and CR0.PG clear.
    """
    for cpu, own in sorted(registers.items()):
        if not pages(own) and own.rip >> 32:
            raise MalformedDump(
                f"the registers of CPU {cpu} contradict one another: CR0 is {own.cr0 or 0:#x}, without paging, "
                f"and RIP {own.rip:#x}",
                path=resumer.dump.path,
                advice="the dump is damaged: take it again",
            )


def check_code(resumer: DumpedResumer, loop: ParkLoop) -> None:
    """See that the dump has the code of a park loop as the kernel's file has it.

    What the image does to a loop is judged by the dump's bytes: were they damaged, another loop would be judged.

    Raises:
        Mismatch: It has other code, beyond what a kernel patches at run time.
    """
    for start, end in loop.ranges:
        linked = resumer.kernel.read(start, end - start)
        found = resumer.bytes_at(start + resumer.kaslr_offset & 0xFFFF_FFFF_FFFF_FFFF, end - start)
        if found is None:
            continue
        if not same_code(relocated(linked, found, resumer.kaslr_offset), found, start, loop.patchable):
            raise Mismatch(
                f"has other code at {start:#x} ({loop.symbol}) than {resumer.kernel.path}",
                path=resumer.dump.path,
                advice="the dump or the kernel's file is damaged, or of another build",
            )


def relocated(linked: bytes, found: bytes, offset: int) -> bytes:
    """Return code as KASLR makes it where that explains a difference from what is found.

    Addresses in code move with the kernel, and distances from it to what does not move shrink by as much, such as to
    zero-based per-CPU variables (handle_relocations(), arch/x86/boot/compressed/misc.c): 32 bits each.  A kernel moves
    by multiples of 2 MiB, so that of these the third or the fourth byte is the first to differ.
    """
    code, at = bytearray(linked), 0
    moves = {offset & 0xFFFF_FFFF, -offset & 0xFFFF_FFFF}
    while offset and at < len(code):
        if code[at] != found[at]:
            for start in range(max(0, at - 3), at - 1):
                old, new = code[start : start + 4], found[start : start + 4]
                move = int.from_bytes(new, "little") - int.from_bytes(old, "little") & 0xFFFF_FFFF
                if len(old) == len(new) == 4 and move in moves:
                    code[start : start + 4] = new
                    break
        at += 1
    return bytes(code)


def _context(plan: Plan, one: _OneCpu, resumer: DumpedResumer) -> ApContext:
    """Say what is known of the registers in which a CPU waits; one that goes offline runs on init_mm's tables."""
    parked, own = one.parked, one.waiting
    cr3 = own.cr3 & resumer.mode.address_mask if own is not None and own.cr3 else resumer.cr3
    base = own.gs_base if own is not None and own.gs_base else _attempt_base(resumer, parked.cpu)
    stack = own.rsp if own is not None and parked.state not in NO_MEMORY else None
    line = _line(plan, parked, own, resumer)
    paging = own is None or pages(own)
    found = ApContext(parked.cpu, cr3 if paging else 0, base, placed=True, stack=stack, line=line, paging=paging)
    found = replace(found, line_withheld=line is not None and withheld(plan))
    if parked.loop is None or plan.rearranged:
        return found  # a design's loop is not the one that the kernel's file has
    if one.registers is not None and one.registers.gdt_base is not None and one.registers.gdt_limit is not None:
        found = replace(found, gdt=(one.registers.gdt_base, one.registers.gdt_limit))
    if own is not None:
        return replace(found, rip=own.rip, registers={name: getattr(own, name) for name in GENERAL})
    held = {} if line is None or parked.loop.line is None else {parked.loop.line: line}
    return replace(found, rip=(parked.loop.resume_at + resumer.kaslr_offset) & ADDRESS_MASK, registers=held)


def _line(plan: Plan, parked: Parked, own: CpuRegisters | None, resumer: DumpedResumer) -> int | None:
    if parked.loop is None or parked.loop.kind != "mwait":
        return None
    if own is not None and parked.loop.line:
        return int(getattr(own, parked.loop.line))
    if plan.traits.monitored.value == "percpu:mwait_cpu_dead":
        return resumer.space.percpu_address("mwait_cpu_dead", parked.cpu)
    return None


def _attempt_base(resumer: DumpedResumer, cpu: int) -> int | None:
    try:
        return resumer.space.percpu_base(cpu)
    except MissingFact:
        return None


def _entry(plan: Plan, one: _OneCpu, resumer: DumpedResumer) -> tuple[CpuState | None, Facts]:
    """Return the registers that take part in delivery, where they are known, and what decides how events are taken."""
    own = one.registers
    if own is None or not own.cr3:
        return None, Facts()
    try:
        efer = own.efer if own.efer is not None else _infer_efer(resumer, own) if pages(own) else 0
        mask = resumer.mode.encryption_mask
        state = CpuState.of(own, efer=efer, max_phys_bits=plan.physical_bits, encryption_mask=mask)
        if state.uses_fred:
            state = replace(state, fred=dumped_fred(plan, resumer.space, one.parked.cpu))
    except MissingFact:
        return None, Facts()
    if one.waiting is None:
        state = _once_parked(state, one.parked, resumer)
    facts = Facts(interrupts_enabled=state.interrupts_enabled, machine_checks_enabled=state.machine_checks_enabled)
    return state, facts


def _infer_efer(resumer: DumpedResumer, own: CpuRegisters) -> int:
    """Work out EFER from a CPU's own stack, or from any other's: it is the same on all.

    Raises:
        MissingFact: No CPU's stack is in the dump.
    """
    for registers in resumer.dump.cpus:
        try:
            return infer_efer(resumer, own)
        except MissingFact:
            own = registers
    return infer_efer(resumer, own)


def _once_parked(state: CpuState, parked: Parked, resumer: DumpedResumer) -> CpuState:
    """Turn the state of a CPU that still works into that in which it will wait; its descriptor tables stay."""
    wait = (parked.loop.resume_at if parked.loop else 0) + resumer.kaslr_offset
    interrupts = RFLAGS_IF if parked.loop is not None and parked.loop.interrupts else 0
    return replace(
        state,
        rip=wait & 0xFFFF_FFFF_FFFF_FFFF,
        cr3=resumer.cr3,
        cs=KERNEL_CS,
        ss=KERNEL_DS,
        rflags=0x2 | interrupts,
        gs_base=_attempt_base(resumer, parked.cpu),
    )
