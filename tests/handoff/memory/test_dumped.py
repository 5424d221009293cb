"""CPUs out of a made dump: each taken as its registers have it, or as it is planned, and never half of each."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.dump.registers import GENERAL, CpuRegisters
from hibercheck.errors import MalformedDump, Mismatch, MissingFact
from hibercheck.handoff.facts.pending import PendingCopies
from hibercheck.handoff.memory.dumped import check_code, dumped, relocated
from hibercheck.handoff.scenario.park import Parked
from hibercheck.kernel.code.model import Patch
from hibercheck.x86.cpu import FredState, ParkState
from hibercheck.x86.events import Facts
from hibercheck.x86.paging import CR4_FRED
from tests.support import made_inputs
from tests.support.made_inputs import made_plan, made_resumee
from tests.support.made_memory import NO_EXECUTE, Memory
from tests.support.made_states import CODE, TEXT, park_loop
from tests.support.made_traits import made_traits

SHIFT, PLACE = 0x5000000, 0x2000000
LINK, MASK = START_KERNEL_MAP + 0x1000000, (1 << 64) - 1
BANNER = "Linux version 6.1.0 (a@b) #1"
SYMBOLS = {
    "_text": LINK, "_end": LINK + 0x8000, "linux_banner": LINK + 0x1000, "init_top_pgt": LINK + 0x2000,
    "__cpu_present_mask": LINK + 0x3000, "nr_cpu_ids": LINK + 0x3040, "frozen_cpus": LINK + 0x3080,
    "__per_cpu_offset": LINK + 0x30C0, "mwait_cpu_dead": 0x1080, "cea_exception_stacks": 0x1100,
    "asm_fred_entrypoint_user": LINK + 0x4000,
}  # fmt: skip
PERCPU = 0xFFFF888008000000
STACK, OTHER_STACK, NOWHERE = 0xFFFFC90000004000, 0xFFFFC90000008000, 0xFFFFC9000000C000
LOOP = replace(park_loop(), role="resume", instructions=(SimpleNamespace(address=TEXT + 0x1B, size=3),))
HALT = replace(LOOP, kind="hlt", ranges=((TEXT + 0x20, TEXT + 0x22),), wait=TEXT + 0x20, line=None, instructions=())


class Kernel(made_inputs.Kernel):
    """The resumer's file, which has the code of its loop."""

    def __init__(self, without=()):
        super().__init__(banner=f"{BANNER}\n", **{name: at for name, at in SYMBOLS.items() if name not in without})

    def symbols(self, _wanted):
        return {}

    def read(self, address, size):
        return CODE.ljust(0x100, b"\x90")[address - TEXT :][:size]


def physical(name, offset=0):
    return SYMBOLS[name] - START_KERNEL_MAP + PLACE + offset


class Dump:
    """A dump of the resumer with these CPUs."""

    path, vmcoreinfo = "dump", None

    def __init__(self, cpus, *, present=0b1111, frozen=0b1110, without=(), machine_cpus=None):
        self.machine_cpus = machine_cpus
        memory = Memory(root=physical("init_top_pgt") >> 12)
        memory.following = 0x200
        for page in range(LINK, LINK + 0x8000, 4096):
            if page != SYMBOLS["init_top_pgt"]:
                memory.map(page + SHIFT, page - START_KERNEL_MAP + PLACE)
        memory.put(physical("linux_banner"), BANNER.encode())
        memory.put(TEXT - START_KERNEL_MAP + PLACE, CODE.ljust(0x100, b"\x90"))
        for name, value in {"__cpu_present_mask": present, "nr_cpu_ids": 8, "frozen_cpus": frozen}.items():
            memory.put(physical(name), struct.pack("<Q", value)[: 4 if name == "nr_cpu_ids" else 8])
        for cpu in range(8):
            memory.put(physical("__per_cpu_offset", 8 * cpu), struct.pack("<Q", PERCPU + 0x10000 * cpu))
        memory.map(STACK, 0x9000000, 3 | NO_EXECUTE)
        memory.map(OTHER_STACK, 0x9001000)
        self.memory, self.cpus, self.without = memory, cpus, without
        self.frame = memory.frame

    def runs(self):
        return ((pfn, 1) for pfn in sorted(self.memory))


def cpu_of(number, rip=TEXT + 0x1E + SHIFT, **values):
    """Return the registers of a CPU that has just left its MWAIT, or is told otherwise."""
    plain = {name: 0x1000 * place + number for place, name in enumerate(GENERAL)}
    plain |= {
        "rip": rip, "rflags": 0x46, "cs": 0x10, "ss": 0x18, "cr0": 0x80050033, "cr3": physical("init_top_pgt") | 0x7,
        "cr4": 0x6F0, "rsp": STACK + 0x800, "rdi": 0xFFFF888008001080 + 0x10000 * number, "tr": 0x40,
        "gs_base": PERCPU + 0x10000 * number, "idt_base": 0xFFFFFE0000000000, "idt_limit": 0xFFF, "tr_limit": 0x206F,
        "gdt_base": 0xFFFFFE0000001000 + number, "gdt_limit": 0x7F, "tr_base": 0xFFFFFE0000003000, "efer": 0xD01,
    }  # fmt: skip
    return CpuRegisters(cpu=number, source="made", **{**plain, **values})


MONITORED = {"monitored": "percpu:mwait_cpu_dead"}


def planned(*parked, traits=MONITORED, idle=None, **values):
    """Return a plan in which CPUs are parked so; by default all in the loop with MWAIT."""
    plan = made_plan(traits=traits, resumee=made_resumee(made_inputs.made_space(Kernel())), resumer_idle=idle)
    cpus = parked or tuple(Parked(cpu, ParkState.MWAIT, LOOP, "as planned") for cpu in (1, 2, 3))
    loops = made_traits(loops=(LOOP, HALT), **{**made_inputs.KNOWN, **traits})
    return replace(plan, parked=cpus, inputs=replace(plan.inputs, traits=loops, resumer=Kernel()), **values)


def taken(plan, *cpus, **dump):
    """Return what a dump gives of CPUs by number; CPU 0, which copies, is the dump's first."""
    found = dumped(plan, Dump((cpu_of(0, rip=0xFFFFFFFF82345678), *cpus), **dump))
    return {one.number: one for one in found.cpus}, found


ALL = tuple(cpu_of(number) for number in (1, 2, 3))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_cpu_that_waits_is_taken_as_its_registers_have_it(number):
    cpus, found = taken(planned(), *ALL)
    one, own = cpus[number], ALL[number - 1]
    context = one.context
    assert found.shows_parked
    assert one.parked == Parked(number, ParkState.MWAIT, LOOP, "as planned")
    assert one.general == context.registers == {name: getattr(own, name) for name in GENERAL}
    assert one.seen == (own.rip, physical("init_top_pgt"))
    assert (context.cpu, context.cr3, context.gs_base) == (number, physical("init_top_pgt"), own.gs_base)
    assert (context.placed, context.paging, context.stack) == (True, True, own.rsp)
    assert (context.rip, context.line, context.gdt) == (own.rip, own.rdi, (own.gdt_base, 0x7F))
    assert (one.entry.rip, one.entry.cr3, one.entry.rsp, one.entry.efer) == (own.rip, own.cr3, own.rsp, 0xD01)
    assert one.facts == Facts(interrupts_enabled=False, machine_checks_enabled=True)
    assert one.announced is not False


@pytest.mark.parametrize("state", [ParkState.HLT, ParkState.RUNNING, ParkState.MWAIT])
def test_registers_tell_the_state_whatever_was_planned(state):
    cpus, _ = taken(planned(Parked(1, state, HALT, "as planned", left_behind=True)), *ALL)
    found = cpus[1].parked
    agrees = state is ParkState.MWAIT
    assert (found.state, found.loop, found.left_behind) == (ParkState.MWAIT, LOOP, True)
    assert found.why == ("as planned" if agrees else f"found by its registers at {TEXT + 0x1E + SHIFT:#x} in the dump")


@pytest.mark.parametrize(("role", "left_behind", "idle", "contradicts"), [
    ("cpuidle", True, "halt", True), ("cpuidle", True, None, False), ("cpuidle", False, "halt", False),
    ("native", True, "halt", False),  # that loop is no driver's
])  # fmt: skip
def test_a_dump_that_shows_another_idle_driver_than_the_one_given(role, left_behind, idle, contradicts):
    halt = replace(HALT, role=role)
    plan = planned(Parked(1, ParkState.HLT, halt, "as planned", left_behind=left_behind), idle=idle)
    if contradicts:
        with pytest.raises(Mismatch, match="CPU 1 parked in MWAIT, which --resumer-idle halt contradicts"):
            taken(plan, *ALL)
        return
    assert taken(plan, *ALL)[0][1].parked.state is ParkState.MWAIT


BUSY = cpu_of(1, rip=0xFFFFFFFF82345678, rflags=0x202, cs=0x33, ss=0x2B, cr3=0x7777000, rsp=STACK + 0x10)


@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("base", [0x123000, None])
def test_a_cpu_that_still_works_will_wait_as_planned(interrupts, base):
    """It has its own stack and tables until then; its descriptor tables stay."""
    loop = replace(LOOP, interrupts=interrupts)
    busy = replace(BUSY, gs_base=base, kernel_gs_base=PERCPU + 0x10000)
    cpus, found = taken(planned(Parked(1, ParkState.MWAIT, loop, "as planned")), busy, frozen=0)
    one, line, wait = cpus[1], PERCPU + 0x10000 + 0x1080, TEXT + 0x1E + SHIFT & MASK
    assert not found.shows_parked
    assert (one.general, one.seen) == (None, None)
    context = one.context
    assert (context.cr3, context.gs_base, context.stack) == (physical("init_top_pgt"), PERCPU + 0x10000, None)
    assert (context.line, context.rip, context.registers) == (line, wait, {"rdi": line})
    assert (context.gdt, context.paging) == ((busy.gdt_base, 0x7F), True)
    entry = one.entry
    assert (entry.rip, entry.cr3, entry.cs, entry.ss) == (wait, physical("init_top_pgt"), 0x10, 0x18)
    assert (entry.rflags, entry.gs_base) == (0x202 if interrupts else 0x2, PERCPU + 0x10000)
    assert (entry.gdt_base, entry.idt_base) == (busy.gdt_base, busy.idt_base)
    assert one.facts == Facts(interrupts_enabled=interrupts, machine_checks_enabled=True)


def test_one_that_works_and_will_wait_in_no_loop():
    entry = taken(planned(Parked(1, ParkState.HLT, None, "made")), BUSY, frozen=0)[0][1].entry
    assert (entry.rip, entry.rflags) == (SHIFT, 2)


def test_one_that_was_left_behind_is_seen_before_the_others_are_parked():
    plan = planned(Parked(1, ParkState.HLT, HALT, "a", left_behind=True), Parked(2, ParkState.HLT, HALT, "b"))
    cpus, found = taken(plan, cpu_of(1), cpu_of(2, rip=TEXT + 0x1E + SHIFT), frozen=0)
    assert not found.shows_parked
    assert (cpus[1].parked.state, cpus[1].parked.loop) == (ParkState.MWAIT, LOOP)
    assert (cpus[2].parked.state, cpus[2].context.stack) == (ParkState.HLT, None)  # its own moment is still to come


def test_whether_cpus_are_parked_is_asked_of_those_that_are_parked_for_the_handoff():
    """One left behind was parked long ago, and one never started waits for nothing of the kernel's."""
    cpus = (Parked(1, ParkState.MWAIT, LOOP, "a", left_behind=True), Parked(2, ParkState.NEVER_BOOTED, None, "b"))
    assert taken(planned(*cpus), *ALL, frozen=0, present=0b0111)[1].shows_parked
    assert not taken(planned(*cpus, Parked(3, ParkState.HLT, HALT, "c")), *ALL, frozen=0)[1].shows_parked


REAL = {"rip": 0xFFF0, "cr0": 0x60000010, "cr3": 0, "efer": 0, "gs_base": 0, "rsp": 0}


@pytest.mark.parametrize("state", [ParkState.NEVER_BOOTED, ParkState.WAIT_FOR_SIPI, ParkState.HLT])
def test_a_cpu_in_real_mode_waits_for_a_sipi(state):
    """Where one that was never started is seen at the reset vector it stays what it was."""
    one = taken(planned(Parked(1, state, None, "as planned")), cpu_of(1, **REAL))[0][1]
    assert one.parked.state is (state if state is not ParkState.HLT else ParkState.WAIT_FOR_SIPI)
    assert (one.context.paging, one.context.cr3, one.context.stack) == (False, 0, None)
    assert one.context.gs_base == PERCPU + 0x10000  # what it will be: it has none yet
    assert (one.entry, one.facts) == (None, Facts())
    assert one.seen == (0xFFF0, 0)


def test_a_cpu_to_which_an_init_is_on_its_way_keeps_its_registers():
    one = taken(planned(Parked(1, ParkState.WAIT_FOR_SIPI, None, "as planned")), cpu_of(1))[0][1]
    assert (one.parked.state, one.parked.loop) == (ParkState.WAIT_FOR_SIPI, None)
    assert one.general["rdi"] == ALL[0].rdi


def test_one_that_was_never_started_and_is_nowhere_in_the_kernel_is_where_the_firmware_left_it():
    one = taken(planned(Parked(1, ParkState.NEVER_BOOTED, None, "as planned")), cpu_of(1, rip=0x7000))[0][1]
    assert (one.parked.state, one.seen[0]) == (ParkState.NEVER_BOOTED, 0x7000)
    waits = taken(planned(Parked(1, ParkState.NEVER_BOOTED, None, "as planned")), cpu_of(1))[0][1]
    assert waits.parked.state is ParkState.MWAIT  # so it was started


def test_under_another_arrangement_a_dump_shows_no_cpu_where_it_will_be():
    plan = planned(rearranged=True)
    cpus, _ = taken(plan, *ALL)
    one = cpus[1]
    assert one.parked is plan.parked[0]
    assert (one.general, one.seen, one.context.stack) == (None, None, None)
    assert (one.context.rip, one.context.registers, one.context.gdt) == (None, None, None)
    assert one.context.line == PERCPU + 0x10000 + 0x1080
    assert one.entry.rip == TEXT + 0x1E + SHIFT & MASK


def test_a_cpu_without_registers_will_wait_as_planned():
    one = taken(planned(), *ALL[1:])[0][1]
    assert (one.parked.why, one.entry, one.facts, one.general) == ("as planned", None, Facts(), None)
    assert (one.context.gs_base, one.context.gdt) == (PERCPU + 0x10000, None)
    assert one.context.registers == {"rdi": PERCPU + 0x10000 + 0x1080}


@pytest.mark.parametrize(("traits", "state", "loop", "line"), [
    (MONITORED, ParkState.MWAIT, LOOP, True), ({}, ParkState.MWAIT, LOOP, False),
    ({"monitored": "fixmap:0xffffffffff578000"}, ParkState.MWAIT, LOOP, False),
    (MONITORED, ParkState.HLT, HALT, False), (MONITORED, ParkState.MWAIT, replace(LOOP, line=None), True),
])  # fmt: skip
def test_the_line_that_one_will_monitor(traits, state, loop, line):
    context = taken(planned(Parked(1, state, loop, "made"), traits=traits), BUSY, frozen=0)[0][1].context
    at = PERCPU + 0x10000 + 0x1080
    assert context.line == (at if line else None)
    assert context.registers == ({"rdi": at} if line and loop.line else {})


@pytest.mark.parametrize(("line", "expected"), [("rbx", "rbx"), (None, None)])
def test_the_line_of_one_that_waits_is_in_the_register_of_its_loop(line, expected):
    loop = replace(LOOP, line=line)
    plan = planned(Parked(1, ParkState.MWAIT, loop, "made"))
    plan = replace(plan, inputs=replace(plan.inputs, traits=made_traits(loops=(loop,), **MONITORED)))
    found = taken(plan, cpu_of(1))[0][1].context.line
    assert found == (getattr(ALL[0], expected) if expected else PERCPU + 0x10000 + 0x1080)


def test_one_that_was_never_started_has_been_seen_by_no_page_tables():
    plan = planned(Parked(1, ParkState.NEVER_BOOTED, None, "made"))
    one = taken(plan, cpu_of(1, rip=0x7000, cr3=None))[0][1]
    assert (one.seen, one.entry) == ((0x7000, 0), None)


@pytest.mark.parametrize("missing", ["gdt_base", "gdt_limit"])
def test_half_a_descriptor_table_is_none(missing):
    assert taken(planned(), cpu_of(1, **{missing: None}))[0][1].context.gdt is None


@pytest.mark.parametrize(("state", "stack"), [
    (ParkState.MWAIT, True), (ParkState.HLT, True), (ParkState.WAIT_FOR_SIPI, False), (ParkState.NEVER_BOOTED, False),
])  # fmt: skip
def test_only_one_that_waits_in_memory_has_a_stack(state, stack):
    rip = 0x7000 if state is ParkState.NEVER_BOOTED else TEXT + 0x1E + SHIFT
    context = taken(planned(Parked(1, state, None, "made")), cpu_of(1, rip=rip))[0][1].context
    assert (context.stack is not None) is stack


@pytest.mark.parametrize(("own", "other", "efer"), [
    (STACK, STACK, 0xD01), (OTHER_STACK, STACK, 0x501), (NOWHERE, STACK, 0xD01), (NOWHERE, OTHER_STACK, 0x501),
    (NOWHERE, NOWHERE, None),
])  # fmt: skip
def test_efer_is_told_by_the_stack_of_the_cpu_or_of_any_other(own, other, efer):
    dump = Dump((cpu_of(0, rip=1, rsp=NOWHERE), cpu_of(1, rsp=own, efer=None), cpu_of(2, rsp=other, efer=None)))
    entry = dumped(planned(Parked(1, ParkState.MWAIT, LOOP, "made")), dump).cpus[0].entry
    assert (entry.efer if entry else None) == efer


@pytest.mark.parametrize("efer", [0xD01, 0x501])
def test_efer_that_a_dump_has_is_not_worked_out(efer):
    assert taken(planned(), cpu_of(1, efer=efer, rsp=STACK))[0][1].entry.efer == efer


FRED_LEVELS = 2 << 2 * 18 | 3 << 2 * 8 | 2 << 2 * 2 | 1 << 2 * 1


@pytest.mark.parametrize("stacks", [(FRED_LEVELS, 0x9000, 0x6000, 0x3000), None])
@pytest.mark.parametrize("missing", [(), ("cea_exception_stacks",), ("asm_fred_entrypoint_user",)])
@pytest.mark.parametrize("cr4", [0x6F0, 0x6F0 | CR4_FRED])
def test_a_cpu_that_uses_fred_has_its_stacks_where_the_dump_has_them(stacks, missing, cr4):
    """The MSRs are in no dump: they are what fred.c writes, of the place that a per-CPU variable holds."""
    plan = planned(traits={**MONITORED, "fred_stacks": stacks})
    plan = replace(plan, inputs=replace(plan.inputs, resumer=Kernel(without=missing)))
    dump = Dump((cpu_of(0, rip=1), cpu_of(1, cr4=cr4)))
    area = 0xFFFFFE0000040000
    dump.memory.map(PERCPU + 0x10000 + 0x1000, 0xA000000)
    dump.memory.put(0xA000100, struct.pack("<Q", area))
    entry = {one.number: one for one in dumped(plan, dump).cpus}[1].entry
    known = stacks and not missing and cr4 & CR4_FRED
    config = SYMBOLS["asm_fred_entrypoint_user"] + SHIFT & MASK | 0x40
    ends = (area + 0x9000, area + 0x6000, area + 0x3000)
    assert entry.fred == (FredState(config, FRED_LEVELS, (0, *ends)) if known else None)
    assert entry.uses_fred is bool(cr4 & CR4_FRED)


def test_a_cpu_out_of_paging_has_no_efer_to_be_worked_out():
    plan = planned(Parked(1, ParkState.NEVER_BOOTED, None, "made"))
    for rip in (0x9_8000, 0xFFFF_FFFF):
        one = taken(plan, cpu_of(1, rip, cr0=0x11, efer=None, rsp=NOWHERE))[0][1]
        assert (one.entry.efer, one.context.paging, one.context.cr3) == (0, False, 0)


@pytest.mark.parametrize("cr0", [0, 0x11, 0x7FFF_FFFF])
@pytest.mark.parametrize("rip", [1 << 32, TEXT + 0x1E + SHIFT])
def test_a_cpu_out_of_paging_is_nowhere_beyond_four_gigabytes(cr0, rip):
    """Damage that takes CR0 away would else let it find its code by physical addresses: a reset was called safe."""
    plan = planned(Parked(1, ParkState.MWAIT, LOOP, "made"))
    with pytest.raises(MalformedDump, match=r"registers of CPU 1 contradict .* without paging, and RIP 0x"):
        taken(plan, cpu_of(1, rip, cr0=cr0))


@pytest.mark.parametrize("missing", ["cr3", "cr4", "tr_base"])
def test_without_a_register_delivery_is_not_known(missing):
    one = taken(planned(), cpu_of(1, **{missing: None}))[0][1]
    assert (one.entry, one.facts) == (None, Facts())
    assert one.context.cr3 == physical("init_top_pgt")


@pytest.mark.parametrize("without", ["__per_cpu_offset", "frozen_cpus"])
def test_what_the_kernel_does_not_name_is_not_known(without):
    plan = planned(Parked(1, ParkState.HLT, HALT, "made"))
    plan = replace(plan, inputs=replace(plan.inputs, resumer=Kernel(without=(without,))))
    one = taken(plan, BUSY)[0][1]
    assert one.context.gs_base == (None if without == "__per_cpu_offset" else PERCPU + 0x10000)


# -- which CPUs there are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("present", "cpus", "expected"), [
    (0b1111, ALL, {1, 2, 3}), (0b0011, (), {1}), (0b0011, ALL, {1, 2, 3}), (0b0011, ALL[:2], {1, 2}),
    (0b11111, ALL, {1, 2, 3, 4}), (0b1110, ALL, {1, 2, 3}),
])  # fmt: skip
def test_the_cpus_are_those_that_the_resumer_or_the_dump_has(present, cpus, expected):
    found, _ = taken(planned(), *cpus, present=present)
    assert set(found) == expected
    if 4 in expected:
        parked = found[4].parked
        assert (parked.state, parked.loop, parked.why) == (ParkState.RUNNING, None, "in the resumer's present mask")
        assert parked.unsettled.fact == "how it came to be parked"


def test_a_cpu_that_only_the_resumer_s_mask_tells_of_is_known_by_its_base():
    """The dump has it as its second, which is no number where a base says otherwise."""
    moved = replace(cpu_of(4), cpu=1)
    found, _ = taken(planned(), moved, present=0b10001)
    assert set(found) == {4}
    assert found[4].general == {name: getattr(moved, name) for name in GENERAL}


@pytest.mark.parametrize(("count", "there"), [(3, {1, 2}), (4, {1}), (None, {1})])
def test_a_cpu_of_which_the_resumer_takes_no_note_is_there_if_the_dump_has_as_many(count, there):
    """Measured with disable_cpu_apicid=1: the dump's second CPU is hidden from the resumer, its third is the next."""
    plan = planned(Parked(1, ParkState.HLT, None, "a"), Parked(2, ParkState.NEVER_BOOTED, None, "hidden"))
    plan = replace(plan, bringup=replace(plan.bringup, present=frozenset({0, 1})))
    in_firmware = replace(cpu_of(7, rip=0xFD09A), cpu=1, gs_base=0)
    found, _ = taken(plan, in_firmware, replace(cpu_of(1), cpu=2), present=0b0011, machine_cpus=count)
    assert set(found) == there
    assert found[1].general == {name: getattr(cpu_of(1), name) for name in GENERAL}
    if 2 in there:
        assert (found[2].parked.state, found[2].seen[0]) == (ParkState.NEVER_BOOTED, 0xFD09A)


def test_the_finished_copy_is_made_of_what_the_scenario_has():
    plan = planned()
    found = dumped(plan, Dump((cpu_of(0, rip=1), *ALL))).memory
    assert (found.image, found.resumee) == (plan.image, plan.resumee.space)
    assert found.owners is not None
    assert found.resumer.kaslr_offset == SHIFT


def test_the_list_of_copies_is_that_of_the_inputs_if_it_is_of_this_memory():
    plan, dump = planned(), Dump((cpu_of(0, rip=1), *ALL))
    own = dumped(plan, dump).memory
    assert own.pending is not None
    for space, same in ((own.resumer.space, True), (replace(own.resumer.space, kaslr_offset=0), False)):
        known = replace(made_inputs.made_dumped(space), copies=PendingCopies(space, 7))
        again = dumped(replace(plan, inputs=replace(plan.inputs, dumped=known)), dump).memory.pending
        assert (again is known.copies) is same


def test_without_a_mask_or_under_another_arrangement_they_are_those_of_the_plan():
    plan = planned()
    plan = replace(plan, inputs=replace(plan.inputs, resumer=Kernel(without=("__cpu_present_mask",))))
    assert set(taken(plan, present=0b0011)[0]) == {1, 2, 3}
    assert set(taken(planned(rearranged=True), present=0b0011)[0]) == {1, 2, 3}


# -- code --------------------------------------------------------------------------------------------------------------


def resumer(found, linked=CODE, offset=0x1200000):
    """Return a resumer whose dump has this code where its file has that."""
    return SimpleNamespace(
        kernel=SimpleNamespace(read=lambda address, size: linked[address - TEXT :][:size], path="vmlinux"),
        bytes_at=lambda address, size: None if found is None else found[address - offset - TEXT & MASK :][:size],
        kaslr_offset=offset,
        dump=SimpleNamespace(path="dump"),
    )


@given(st.integers(0, 0x1F), st.integers(1, 255))
def test_other_code_than_the_file_s_is_told(place, change):
    damaged = bytearray(CODE)
    damaged[place] ^= change
    with pytest.raises(Mismatch, match=f"dump: has other code at {TEXT:#x} .mwait_play_dead. than vmlinux"):
        check_code(resumer(bytes(damaged)), LOOP)
    check_code(resumer(bytes(damaged)), replace(LOOP, patchable=(Patch(TEXT + place, TEXT + place + 1, "made"),)))
    beyond = replace(LOOP, ranges=((TEXT + place + 1, TEXT + 0x20), (TEXT, TEXT + place)))
    check_code(resumer(bytes(damaged)), beyond)


def test_code_as_it_is_in_the_file_or_not_in_the_dump_is_right():
    check_code(resumer(CODE), LOOP)
    check_code(resumer(None), LOOP)


@pytest.mark.parametrize("left", ["not planned", "in a place of its own", "rearranged"])
def test_only_a_loop_of_the_kernel_s_file_is_compared_with_it(left):
    """The dump's code is another one."""
    parked = Parked(1, ParkState.MWAIT, None if left == "not planned" else LOOP, "made",
                    in_place=left == "in a place of its own")  # fmt: skip
    plan = planned(parked, rearranged=left == "rearranged")
    dump = Dump((cpu_of(0, rip=1), BUSY), frozen=0, present=0b0011)
    dump.memory.put(TEXT - START_KERNEL_MAP + PLACE, bytes(0x20))
    (one,) = dumped(plan, dump).cpus
    assert (one.announced is False) is (left == "in a place of its own")  # of which the resumee is told nothing
    if left == "rearranged":
        with pytest.raises(Mismatch):
            dumped(replace(plan, rearranged=False), dump)


@given(st.binary(min_size=12, max_size=40), st.integers(1, 200).map(lambda step: step << 21), st.data())
def test_addresses_in_code_move_with_the_kernel_and_distances_to_what_stays_against_it(code, offset, data):
    place = data.draw(st.integers(0, len(code) - 4))
    for move in (offset, -offset):
        moved = bytearray(code)
        moved[place : place + 4] = (int.from_bytes(code[place : place + 4], "little") + move & 0xFFFFFFFF).to_bytes(
            4, "little"
        )
        assert relocated(code, bytes(moved), offset) == bytes(moved)
        assert relocated(code, bytes(moved), 0) == code
        assert relocated(code, code, offset) == code


def test_two_addresses_beside_each_other_move():
    code, move = bytes(range(16)), 0x1200000
    moved = b"".join((int.from_bytes(code[at : at + 4], "little") + move).to_bytes(4, "little") for at in (0, 4, 8, 12))
    assert relocated(code, moved, move) == moved


@pytest.mark.parametrize("place", [0, 6, 12])
def test_no_other_difference_is_explained_so(place):
    code = bytes(range(1, 17))
    other = bytearray(code)
    other[place] ^= 0x40
    assert relocated(code, bytes(other), 0x1200000) == code
    with pytest.raises(Mismatch):
        check_code(resumer(bytes(CODE[:2]) + b"\0" + CODE[3:]), LOOP)


def test_what_is_no_dump_of_the_resumer_is_refused():
    plan = planned()
    other = Kernel()
    other.banner = "Linux version 5.0.0 (a@b) #1\n"
    with pytest.raises(Mismatch, match="the dump: is not a dump of"):
        dumped(replace(plan, inputs=replace(plan.inputs, resumer=other)), Dump((cpu_of(0), *ALL)))
    with pytest.raises(MissingFact):
        dumped(replace(plan, inputs=replace(plan.inputs, resumer=Kernel(without=("linux_banner",)))), Dump(ALL))
    named = replace(plan, options=replace(plan.options, resumer_memory="/var/crash/vmcore"))
    with pytest.raises(Mismatch, match="/var/crash/vmcore: is not a dump of"):
        dumped(replace(named, inputs=replace(plan.inputs, resumer=other)), Dump((cpu_of(0), *ALL)))


@pytest.mark.parametrize(("cpu", "in_place", "rearranged", "frozen", "found"), [
    (True, True, False, 0b1110, True), (True, True, False, 0, False), (True, True, True, 0b1110, False),
    (False, True, False, 0b1110, False), (True, False, False, 0b1110, False),
])  # fmt: skip
def test_a_cpu_in_a_place_of_its_own_waits_in_what_is_there(cpu, in_place, rearranged, frozen, found):
    """Its loop is in no file: it is read out of the dump, once CPUs are parked."""
    plan = planned(Parked(1, ParkState.HLT, None, "made", in_place=in_place), rearranged=rearranged)
    dump = Dump((cpu_of(0, rip=1), *([cpu_of(1, rip=STACK + 0x101)] if cpu else [])), present=0b0011, frozen=frozen)
    dump.memory.put(0x9000100, b"\xf4\xeb\xfd")
    one = {each.number: each for each in dumped(plan, dump).cpus}[1]
    assert (one.parked.loop is not None) is found
    if found:
        assert (one.parked.state, one.parked.loop.symbol) == (ParkState.HLT, "copied code")
        assert one.parked.loop.wait == STACK + 0x100 - SHIFT & MASK


def test_one_that_left_its_place_for_the_kernel_is_where_the_kernel_parks_it():
    plan = planned(Parked(1, ParkState.HLT, None, "made", in_place=True))
    one = taken(plan, cpu_of(1), present=0b0011)[0][1]
    assert (one.parked.state, one.parked.loop) == (ParkState.MWAIT, LOOP)
