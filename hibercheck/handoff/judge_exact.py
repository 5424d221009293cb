"""The replay in a dump of the resumer's memory: every frame and every register is a fact."""

from __future__ import annotations

from hibercheck.dump.dump import Dump
from hibercheck.dump.registers import CpuRegisters
from hibercheck.errors import MissingFact
from hibercheck.handoff.ap import NO_MEMORY, ApReplayer
from hibercheck.handoff.boot_cpu import replay_boot_cpu
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.event_replay import EntryFacts
from hibercheck.handoff.exact import DumpedResumer, open_resumer, park_state, registers_by_cpu
from hibercheck.handoff.judgement import Judgement, physical_bits, suppositions
from hibercheck.handoff.loop_replay import ApContext
from hibercheck.handoff.park import Parked
from hibercheck.handoff.plan import Plan
from hibercheck.x86.cpu import CpuState, ParkState, infer_efer
from hibercheck.x86.events import Facts


def judge_exact(plan: Plan, dump: Dump) -> Judgement:
    """Replay the handoff in the resumer's own memory."""
    resumer = open_resumer(dump, plan.resumer, plan.options.resumer_memory or "the dump", physical_bits(plan))
    memory = Composite(plan.image, resumer)
    replayer = ApReplayer(memory, plan.resumee, suppositions(plan), plan.reinitialised)
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
    if planned.state in NO_MEMORY and ParkState.WAIT_FOR_SIPI in {state, planned.state}:
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
        state = CpuState.of(own, efer=efer, max_phys_bits=physical_bits(plan))
    except MissingFact:
        return EntryFacts(None, True, {}), Facts()
    facts = Facts(interrupts_enabled=state.interrupts_enabled, machine_checks_enabled=state.machine_checks_enabled)
    return EntryFacts(state, True, {}), facts
