"""Modes in which a kernel leaves the machine, out of its memory, its log and what was collected of it."""

from __future__ import annotations

import json

import pytest

from hibercheck.handoff.facts.logged import parse_log_facts
from hibercheck.handoff.facts.modes import MODES, SYMBOLS, by_variables, logged_modes, read_modes
from hibercheck.handoff.facts.resumer_facts import parse_facts
from hibercheck.kernel.code import needed
from tests.support.made_inputs import made_space


@pytest.mark.parametrize(("line", "found"), [
    ("[    0.1] x2apic enabled", {"x2apic": True}), ("[    0.1] APIC: x2apic disabled", {"x2apic": False}),
    ("[    0.1] DMAR-IR: Enabled IRQ remapping in x2apic mode", {"interrupt-remapping": True}),
    ("[    0.1] AMD-Vi: Interrupt remapping enabled", {"interrupt-remapping": True}),
    ("[    0.1] DMAR: Intel(R) Virtualization Technology for Directed I/O", {"iommu": True}),
    ("[    0.1] DMAR: IOMMU disabled", {"iommu": False}),
    ("[    0.1] DMAR: IOMMU enabled", {}),  # a parameter says so, before the IOMMU is looked for
    ("[    0.1] Memory Encryption Features active: AMD SME", {"memory-encryption": True}),
    ("[    0.1] AMD Memory Encryption Features active: SEV", {"memory-encryption": True}),
    ("[    0.1] x2apic: IRQ remapping doesn't support X2APIC mode", {}),
])  # fmt: skip
def test_what_a_log_says(line, found):
    assert logged_modes([line]) == found
    log = parse_log_facts(f"[    0.0] Linux version 6.1.0 (a@b) #1\n{line}\n", "log")
    assert log.modes == found
    facts = parse_facts(json.dumps({"hibercheck_facts": 1, "modes_log": [line]}), "facts")
    assert facts.modes == found


def test_what_variables_say():
    """Those that are not there say nothing."""
    assert read_modes(made_space(variables={"x2apic_mode": 1, "sme_me_mask": 0})) == {
        "x2apic": True, "memory-encryption": False,
    }  # fmt: skip
    assert by_variables({"sme_me_mask": 1 << 47, "intel_iommu_enabled": 0}) == {
        "iommu": False, "memory-encryption": True,
    }  # fmt: skip
    collected = {"hibercheck_facts": 1, "modes": {"x2apic_mode": 1}, "modes_log": ["x2apic disabled"]}
    assert parse_facts(json.dumps(collected), "facts").modes == {"x2apic": True}


def test_their_variables_are_looked_up_and_kept():
    assert set(SYMBOLS) <= set(needed.SYMBOLS)
    assert len(SYMBOLS) == len(MODES)
