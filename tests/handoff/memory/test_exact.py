"""Dumps of all kinds: from before parking, with PCID and page-table isolation, encrypted, or without any registers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.memory.exact import cpus_are_parked, open_resumer, park_state, registers_by_cpu
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.x86.cpu import ParkState
from tests.support.cases import options_of
from tests.support.made_states import TEXT, park_loop


class Altered:
    """A dump with other registers or another description."""

    def __init__(self, dump, cpus=None, vmcoreinfo=None):
        self.frame, self.runs, self.machine_cpus = dump.frame, dump.runs, dump.machine_cpus
        self.cpus = dump.cpus if cpus is None else cpus
        self.vmcoreinfo = vmcoreinfo


@pytest.fixture(params=["fatal", "random-address"])
def opened(request, committed):
    case = committed(request.param)
    with ExitStack() as stack:
        inputs = open_inputs(case["image"], case["resumer"], case["resumee"], options_of(case["args"]))
        plan, _, _ = stack.enter_context(inputs)
        yield plan, stack.enter_context(open_dump(case["memory"]))


def test_what_is_planned_for_a_cpu_not_parked_yet_is_what_is_measured_once_it_is(opened):
    plan, dump = opened
    measured = judge(plan, dump)
    working = tuple(
        replace(
            cpu,
            rip=0x401000,
            cr3=0x7777000 | 0x5,
            rflags=0x202,
            cs=0x33,
            ss=0x2B,
            gs_base=0,
            kernel_gs_base=cpu.gs_base,
        )
        for cpu in dump.cpus[1:]
    )
    planned = judge(plan, Altered(dump, cpus=(dump.cpus[0], *working)))
    for after, before in zip(planned.aps, measured.aps, strict=True):
        assert after.cpu.general is None
        ours, theirs = after.cpu.context, before.cpu.context
        assert (ours.cr3, ours.gs_base, ours.line) == (theirs.cr3, theirs.gs_base, theirs.line)
        state = after.cpu.entry
        assert state.rip - measured.memory.resumer.kaslr_offset & (1 << 64) - 1 == after.parked.loop.resume_at
        assert (state.cs, state.interrupts_enabled, state.idt_base) == (0x10, False, before.cpu.entry.idt_base)
        assert after.iteration.difference is before.iteration.difference
        assert after.fate is before.fate


@pytest.mark.parametrize("flag", [0, 0x200])
def test_whether_a_parked_cpu_takes_interrupts_is_read_from_its_flags(opened, flag):
    plan, dump = opened
    cpus = tuple(replace(cpu, rflags=cpu.rflags & ~0x200 | flag) for cpu in dump.cpus)
    for found in judge(plan, Altered(dump, cpus=cpus)).aps:
        assert found.cpu.facts.interrupts_enabled is bool(flag)
        assert found.cpu.facts.machine_checks_enabled is bool(dump.cpus[1].cr4 & 1 << 6)


def test_whether_cpus_are_parked_is_read_from_frozen_cpus(opened):
    """CPU 1 was down since boot in both: nothing was frozen, so a CPU that should have been still works."""
    plan, dump = opened
    resumer = open_resumer(dump, plan.resumer, "dump", 40)
    registers = registers_by_cpu(resumer, frozenset({0, 1}))
    assert cpus_are_parked(resumer, frozenset(), registers)
    assert not cpus_are_parked(resumer, frozenset({1}), registers)


@pytest.mark.parametrize("extra", [0, 0x7, 0x1000, 0x1803], ids=["plain", "PCID", "PTI user half", "both"])
def test_the_resumer_is_found_whatever_its_cr3_carries(opened, extra):
    plan, dump = opened
    plain = open_resumer(dump, plan.resumer, "dump", 40)
    altered = Altered(dump, cpus=tuple(replace(cpu, cr3=plain.cr3 | extra) for cpu in dump.cpus))
    found = open_resumer(altered, plan.resumer, "dump", 40)
    assert (found.cr3, found.kaslr_offset, found.phys_base) == (plain.cr3, plain.kaslr_offset, plain.phys_base)


@pytest.mark.parametrize("lacking", [{"cr3": None}, {"cr3": 0}, {"cr4": None}])
def test_a_cpu_without_page_tables_leads_nowhere(opened, lacking):
    """One that was never started has none; CR4 says of how many levels they are."""
    plan, dump = opened
    plain = open_resumer(dump, plan.resumer, "dump", 40)
    without = replace(dump.cpus[0], **lacking)
    found = open_resumer(Altered(dump, cpus=(without, dump.cpus[0])), plan.resumer, "dump", 40)
    assert (found.cr3, found.kaslr_offset) == (plain.cr3, plain.kaslr_offset)
    with pytest.raises(Mismatch):
        open_resumer(Altered(dump, cpus=(without,)), plan.resumer, "dump", 40)


def test_the_encryption_bit_is_no_address(opened):
    plan, dump = opened
    plain = open_resumer(dump, plan.resumer, "dump", 40)
    altered = Altered(dump, cpus=tuple(replace(cpu, cr3=cpu.cr3 | 1 << 47) for cpu in dump.cpus))
    found = open_resumer(altered, plan.resumer, "dump", 52)
    assert found.mode.encryption_mask == 1 << 47
    assert found.phys_base == plain.phys_base
    judgement = judge(plan, altered)
    assert all(result.cpu.context.cr3 >> 47 == 0 for result in judgement.aps)


def test_vmcoreinfo_leads_to_a_resumer_without_registers(opened):
    plan, dump = opened
    plain = open_resumer(dump, plan.resumer, "dump", 40)
    notes = {
        "NUMBER(phys_base)": str(plain.phys_base - plain.kaslr_offset),
        "KERNELOFFSET": f"{plain.kaslr_offset:x}",
        "NUMBER(pgtable_l5_enabled)": "0",
    }
    found = open_resumer(Altered(dump, cpus=(), vmcoreinfo=notes), plan.resumer, "dump", 40)
    assert (found.kaslr_offset, found.phys_base) == (plain.kaslr_offset, plain.phys_base)
    assert found.mode.encryption_mask == 0
    if not plain.kaslr_offset:
        del notes["KERNELOFFSET"]  # which a kernel that was not moved need not say
        assert (
            open_resumer(Altered(dump, cpus=(), vmcoreinfo=notes), plan.resumer, "dump", 40).phys_base
            == plain.phys_base
        )
    for useless in ({}, {"NUMBER(phys_base)": "x"}, {"NUMBER(phys_base)": "123456"}):
        with pytest.raises(Mismatch, match="is not a dump of"):
            open_resumer(Altered(dump, cpus=(), vmcoreinfo=useless), plan.resumer, "dump", 40)


def test_a_dump_of_another_kernel_is_named(opened):
    plan, dump = opened
    name = plan.resumer.banner.strip()
    other = replace_kernel(plan.resumer, "Linux version 5.0.0 (a@b) #1")
    with pytest.raises(Mismatch) as caught:
        open_resumer(dump, other, "dump", 40)
    assert str(caught.value).startswith(f"dump: is not a dump of 'Linux version 5.0.0 (a@b) #1' but of '{name}'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("at", "seen"), [(0, True), (7, True), ((1 << 16) - 1, True), (1 << 16, False)])
def test_another_kernels_banner_is_looked_for_in_the_first_frames(at, seen):
    """256 MiB: a kernel's text lies low in memory, and a dump may have terabytes."""
    banner = b"Linux version 6.9.0 (someone@somewhere) (gcc) #1 SMP\n"
    dump = SimpleNamespace(
        cpus=(), vmcoreinfo=None, runs=lambda: [(0x10, 5), (0x100, 1 << 17)],
        frame=lambda pfn: bytes(64) + banner if pfn == (0x10 + at if at < 5 else 0x100 + at - 5) else None,
    )  # fmt: skip
    kernel = SimpleNamespace(require=lambda _name: SimpleNamespace(address=0), banner="Linux version 5.0.0 (a@b) #1")
    with pytest.raises(Mismatch) as caught:
        open_resumer(dump, kernel, "dump", 40)
    assert ("but of 'Linux version 6.9.0 (someone@somewhere)" in str(caught.value)) is seen


def replace_kernel(kernel, banner):
    """A kernel at the same addresses with another banner."""
    return SimpleNamespace(require=kernel.require, banner=banner, release="5.0.0")


def test_a_refusal_by_the_dump_is_the_verdict(predict, monkeypatch):
    from hibercheck.handoff.facts import running  # noqa: PLC0415 - patched only here

    assert predict("fatal", memory=True).verdict is Verdict.FATAL
    monkeypatch.setattr(running, "read_e820", lambda _space: (E820Entry(0, 4096, 1),))
    # it is of the moment at which the image has been loaded: that is proof enough that it was not refused
    assert predict("fatal", memory=True).verdict is Verdict.FATAL
    monkeypatch.setattr(running, "restores", lambda _space: None)
    report = predict("fatal", memory=True)
    assert report.verdict is Verdict.REFUSED
    assert [finding.rule for finding in report.findings] == ["HC402"]
    assert report.cpus == ()


def cpu_at(rip=TEXT, *, cpu=0, rflags=0x46, cr0=0x80050033, **bases):
    """Return the registers of a CPU, as far as these functions look at them."""
    plain = {"gs_base": None, "kernel_gs_base": None}
    return SimpleNamespace(cpu=cpu, rip=rip, rflags=rflags, cr0=cr0, **{**plain, **bases})


SHIFT = 0x5000000
MWAITS, HALTS = park_loop(), replace(park_loop(ParkState.HLT), ranges=((TEXT + 0x100, TEXT + 0x110),))
PORT = replace(park_loop(ParkState.PORT_IO), ranges=((TEXT + 0x200, TEXT + 0x208), (TEXT + 0x300, TEXT + 0x308)))


@pytest.mark.parametrize("offset", [0, SHIFT])
@pytest.mark.parametrize(("rip", "state", "loop"), [
    (TEXT, ParkState.MWAIT, MWAITS), (TEXT + 0x1F, ParkState.MWAIT, MWAITS), (TEXT + 0x20, None, None),
    (TEXT - 1, None, None), (TEXT + 0x10F, ParkState.HLT, HALTS), (TEXT + 0x307, ParkState.PORT_IO, PORT),
    (TEXT + 0x208, None, None),
])  # fmt: skip
def test_how_a_cpu_is_parked_is_read_from_its_instruction_pointer(offset, rip, state, loop):
    found = park_state(cpu_at(rip + offset), (MWAITS, HALTS, PORT), offset)
    assert found == (None if state is None else (state, loop))


@pytest.mark.parametrize(("registers", "waits"), [
    (cpu_at(0xFFF0), True), (cpu_at(0xFFF1), False), (cpu_at(0x1234, cr0=0x60000010), True),
    (cpu_at(TEXT, cr0=0x10), True),
    (cpu_at(0x1234, cr0=None), False), (cpu_at(0x1234), False),
])  # fmt: skip
def test_a_cpu_in_real_mode_waits_for_a_sipi(registers, waits):
    found = park_state(registers, (MWAITS,), 0)
    assert found == ((ParkState.WAIT_FOR_SIPI, None) if waits else None)


def test_of_loops_that_share_code_the_one_of_the_resume_and_not_of_a_kick_counts():
    native, resume = replace(MWAITS, role="native"), replace(MWAITS, role="resume")
    kicked = replace(MWAITS, role="native", after_kick=True)
    assert park_state(cpu_at(), (kicked, native, resume), 0)[1] is resume
    assert park_state(cpu_at(), (kicked, native), 0)[1] is native
    assert park_state(cpu_at(), (kicked,), 0)[1] is kicked


class Percpu:
    """A resumer of which only the per-CPU bases and a mask are known."""

    one_cpu = False

    def __init__(self, cpus, bases, frozen=None):
        self.dump, self.space = SimpleNamespace(cpus=cpus), self
        self.bases, self.frozen = bases, frozen

    def percpu_base(self, cpu):
        if cpu not in self.bases:
            raise MissingFact("not mapped")
        return self.bases[cpu]

    def address(self, _symbol):
        return 0x1000

    def variable(self, _symbol, size=8):
        if size == 4:
            return 4
        if self.frozen is None:
            raise MissingFact("no such symbol")
        return self.frozen

    def number(self, _address, _size=8):
        return self.frozen


BASES = {0: 0xA000, 1: 0xB000, 2: 0xC000}


@pytest.mark.parametrize(("cpus", "expected"), [
    ([cpu_at(gs_base=0xB000), cpu_at(gs_base=0xA000)], {1: 0, 0: 1}),
    ([cpu_at(gs_base=0, kernel_gs_base=0xC000)], {2: 0}),  # in user mode
    ([cpu_at(gs_base=0xB000, kernel_gs_base=0xC000)], {1: 0}),
    ([cpu_at(cpu=3, gs_base=0x7777)], {3: 0}), ([cpu_at(cpu=3)], {3: 0}),
    ([cpu_at(gs_base=0xB000), cpu_at(cpu=1)], {1: 0}),  # by its base, and not by its place
    ([cpu_at(cpu=0), cpu_at(cpu=1, gs_base=0xA000)], {0: 1}),  # in whatever order they come
    ([cpu_at(cpu=0, gs_base=0xA000), cpu_at(cpu=1)], {0: 0, 1: 1}),
    ([cpu_at(cpu=0, gs_base=0xB000), cpu_at(cpu=1), cpu_at(cpu=2)], {1: 0}),  # places are no numbers there
])  # fmt: skip
def test_cpus_of_a_dump_are_known_by_their_per_cpu_bases(cpus, expected):
    found = registers_by_cpu(Percpu(cpus, BASES), frozenset({0, 1, 2, 9}))
    assert {number: cpus.index(one) for number, one in found.items()} == expected


def test_the_only_cpu_without_a_base_is_the_only_one_that_is_left():
    """A kernel that kexec started on the second CPU, with the first in a page of its own."""
    parked, copying = cpu_at(cpu=0, rip=0x5000), cpu_at(cpu=1, gs_base=0xA000)
    found = registers_by_cpu(Percpu([parked, copying], BASES), frozenset({0, 1}))
    assert found == {0: copying, 1: parked}


@pytest.mark.parametrize(("frozen", "flags", "parked"), [
    (0b1110, 0x202, True), (0, 0x46, False), (None, 0x46, True), (None, 0x246, False),
])  # fmt: skip
def test_cpus_are_parked_if_some_were_frozen_or_else_if_all_have_interrupts_off(frozen, flags, parked):
    resumer = Percpu([], BASES, frozen)
    registers = {1: cpu_at(rflags=0x46), 2: cpu_at(rflags=flags)}
    assert cpus_are_parked(resumer, frozenset({1, 2, 3}), registers) is parked
    assert cpus_are_parked(resumer, frozenset(), registers)
