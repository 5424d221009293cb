"""FRED, as Debian's 7.3 uses it unless told otherwise.  No machine that has it was measured: this holds the reading."""

from __future__ import annotations

import json

import pytest

from hibercheck.handoff.memory.placed import placed
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import open_kernel
from hibercheck.x86.exceptions import Role, deliver
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []

pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")

LEVELS = 2 << 2 * 18 | 3 << 2 * 8 | 2 << 2 * 2 | 1 << 2 * 1
"""#MC on level 2, #DF on 3, NMI on 2, #DB on 1: FRED_STKLVLS of arch/x86/kernel/fred.c."""


@pytest.mark.parametrize(
    ("version", "built", "default", "stacks"),
    [
        ("6.1.176", False, None, None),
        ("6.12.94", False, False, None),
        ("7.3.4", True, True, (LEVELS, 0x9000, 0x6000, 0x3000)),
    ],
)
def test_what_kernels_do_with_it(unpacked, version, built, default, stacks):
    with open_kernel(str(unpacked(f"kernels/debian-{version}.vmlinux.xz"))) as kernel:
        traits = traits_on_demand(kernel)
        assert (traits.fred.value, traits.fred_default.value, traits.fred_stacks.value) == (built, default, stacks)
        if built:
            area = kernel.require("asm_fred_entrypoint_user").address
            assert area % 4096 == 0
            assert kernel.require("asm_fred_entrypoint_kernel").address == area + 256


@pytest.fixture
def waiting(unpacked):
    """Return a function that gives the plan of a case with a 7.3 resumer, a parked CPU, and an NMI that reaches it."""
    case = next(case for case in CASES if case["name"] == "stock73-primary-offline")

    def give(line, flags):
        facts = (("cpu-flags", flags),) if flags else ()
        options = options_of(case["args"], facts=facts, resumer_cmdline=line)
        files = [str(unpacked(case[name])) for name in ("image", "resumer", "resumee")]
        with open_inputs(*files, options) as (plan, _, _):
            memory, cpus = placed(plan, 4, 0x1000000, 0)
            cpu = next(one for one in cpus if one.number == 2)
            return plan, cpu, deliver(memory, cpu.entry, 2)

    return give


@pytest.mark.parametrize("flags", ["+fred,+lkgs", "+lkgs", "+fred"])
@pytest.mark.parametrize("line", ["nokaslr", "nokaslr fred=on", "nokaslr fred=offline", "nokaslr fred=off fred=on"])
def test_an_nmi_reads_no_table(waiting, line, flags):
    """It goes to the entry point for the kernel, on the stack of level 2, with 64 bytes pushed."""
    plan, cpu, delivery = waiting(line, flags)
    assert plan.known["fred"].value is True
    entry = plan.resumer.require("asm_fred_entrypoint_user").address
    assert cpu.entry.fred.config == entry | 1 << 6
    assert {access.role for access in delivery.accesses} <= {Role.STACK, Role.HANDLER}
    area = 0xFFFFFE0000001000 + 2 * plan.traits.cea_size.value
    assert delivery.accesses[0].role is Role.STACK
    assert delivery.accesses[0].walk.address == area + 0x5000 + 0x6000 - 8


@pytest.mark.parametrize(("line", "flags"), [("nokaslr", ""), ("nokaslr fred=off", "+lkgs"), ("nokaslr", "-lkgs")])
def test_an_nmi_goes_through_the_idt(waiting, line, flags):
    plan, cpu, delivery = waiting(line, flags)
    assert plan.known["fred"].value is False
    assert not cpu.entry.uses_fred
    assert delivery.accesses[0].role is Role.IDT_GATE
