"""Dumps of all kinds: from before parking, with PCID and page-table isolation, encrypted, or without any registers."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.errors import Mismatch
from hibercheck.handoff.check import open_inputs
from hibercheck.handoff.exact import cpus_are_parked, open_resumer, registers_by_cpu
from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.judge_exact import judge_exact
from hibercheck.handoff.refusal import EPERM, Acceptance
from hibercheck.handoff.refusal_measured import firmware_map, judge_measured
from hibercheck.handoff.resumee import E820Entry, pack_e820
from tests.support.cases import options_of

ACCEPTED = Acceptance(None, ())


class Altered:
    """A dump with other registers or another description."""

    def __init__(self, dump, cpus=None, vmcoreinfo=None):
        self.frame, self.runs = dump.frame, dump.runs
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
    measured = judge_exact(plan, dump)
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
    planned = judge_exact(plan, Altered(dump, cpus=(dump.cpus[0], *working)))
    assert planned.registers == {}
    for cpu, context in measured.contexts.items():
        derived = planned.contexts[cpu]
        assert (derived.cr3, derived.gs_base, derived.line) == (context.cr3, context.gs_base, context.line)
        state, before = planned.states[cpu], measured.states[cpu]
        loop = planned.aps[cpu - 1].parked.loop
        assert state.rip - measured.memory.resumer.kaslr_offset & (1 << 64) - 1 == loop.resume_at
        assert (state.cs, state.interrupts_enabled, state.idt_base) == (0x10, False, before.idt_base)
        assert planned.aps[cpu - 1].turn.state is measured.aps[cpu - 1].turn.state
        assert planned.aps[cpu - 1].fate is measured.aps[cpu - 1].fate


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


def test_the_encryption_bit_is_no_address(opened):
    plan, dump = opened
    plain = open_resumer(dump, plan.resumer, "dump", 40)
    altered = Altered(dump, cpus=tuple(replace(cpu, cr3=cpu.cr3 | 1 << 47) for cpu in dump.cpus))
    found = open_resumer(altered, plan.resumer, "dump", 52)
    assert found.mode.encryption_mask == 1 << 47
    assert found.phys_base == plain.phys_base
    judgement = judge_exact(plan, altered)
    assert all(context.cr3 >> 47 == 0 for context in judgement.contexts.values())


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
    for useless in ({}, {"NUMBER(phys_base)": "x"}, {"NUMBER(phys_base)": "123456"}):
        with pytest.raises(Mismatch, match="is no dump of"):
            open_resumer(Altered(dump, cpus=(), vmcoreinfo=useless), plan.resumer, "dump", 40)


def test_a_dump_of_another_kernel_is_named(opened):
    plan, dump = opened
    name = plan.resumer.banner.strip()
    other = replace_kernel(plan.resumer, "Linux version 5.0.0 (a@b) #1")
    with pytest.raises(Mismatch) as caught:
        open_resumer(dump, other, "dump", 40)
    assert str(caught.value).startswith(f"dump: is no dump of 'Linux version 5.0.0 (a@b) #1' but of '{name}'")
    assert "\n" not in str(caught.value)


def replace_kernel(kernel, banner):
    """A kernel at the same addresses with another banner."""
    return SimpleNamespace(require=kernel.require, banner=banner, release="5.0.0")


def test_the_same_machine_is_accepted_and_another_refused(opened):
    plan, dump = opened
    space = open_resumer(dump, plan.resumer, "dump", 40).space
    own = firmware_map(space)
    pages = plan.image.info.num_physpages
    assert judge_measured(ACCEPTED, plan.image, plan.traits, own, pages) is ACCEPTED
    grown = (*own[:-1], E820Entry(own[-1].address, own[-1].size + 4096, own[-1].kind))
    refusal = judge_measured(ACCEPTED, plan.image, plan.traits, grown, pages).refusal
    assert refusal.errno == EPERM
    assert "memory map" in refusal.reason
    refusal = judge_measured(ACCEPTED, plan.image, plan.traits, own, pages + 1).refusal
    assert refusal.reason == f"has {pages + 1} pages of memory, and the image says {pages}"


def test_a_digest_of_older_kernels_is_compared_too(opened):
    plan, dump = opened
    own = firmware_map(open_resumer(dump, plan.resumer, "dump", 40).space)
    kind = replace(plan.traits.e820_check, value="md5")

    class Traits:
        e820_check = kind

    def with_digest(digest):
        class Image:
            record = replace(plan.image.record, e820_checksum=None, e820_digest=digest)
            info = plan.image.info

        return judge_measured(ACCEPTED, Image, Traits, own, None).refusal

    assert with_digest(hashlib.md5(pack_e820(own)).digest()) is None  # noqa: S324 - the kernel's choice
    assert with_digest(bytes(16)) is None  # all zeros: not checked
    assert with_digest(b"x" * 16) is not None


def test_a_refusal_by_the_dump_is_the_verdict(predict, monkeypatch):
    from hibercheck.handoff import check  # noqa: PLC0415 - patched only here

    assert predict("fatal", memory=True).verdict is Verdict.FATAL
    monkeypatch.setattr(check, "firmware_map", lambda _space: (E820Entry(0, 4096, 1),))
    report = predict("fatal", memory=True)
    assert report.verdict is Verdict.REFUSED
    assert [finding.rule for finding in report.findings] == ["HC402"]
    assert report.cpus == ()
