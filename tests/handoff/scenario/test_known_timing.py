"""Time: a parked CPU's latency out of the resumer's own table, the rate of copying, the length of a line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known_cpus import MWAIT_STATES, TLB
from hibercheck.handoff.scenario.known_timing import COPY_RATE, EXIT_LATENCY, LINE_SIZE, WAKE_LATENCY
from hibercheck.kernel.code.model import IdleModel, IdleState, IdleTables
from tests.support.made_inputs import INTEL, asking, made_resumee

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing
STATES = (IdleState("C1", 0, 2, usable=True), IdleState("C6", 0x20, 133, usable=True),
          IdleState("C10", 0x60, 2600, usable=False))  # fmt: skip
TABLES = IdleTables((IdleModel(0, INTEL.family, INTEL.model, 0, 0, acpi=False, table=0),), (STATES,))
HAS = {"idle_drivers": ("intel_idle:builtin",), "intel_idle": TABLES, "enter_dead": ("intel_idle:mwait",)}
GUEST = replace(INTEL, flags=INTEL.flags | {"hypervisor"})


def leaf(*sub_states, line=64, extended=True):
    return MonitorLeaf(line, (*sub_states, *[0] * (8 - len(sub_states))), extended)


def told(fact, **given):
    found = asking(**given).known(fact)
    return None if found is None else (found.value, found.standing)


def fact(name, value):
    return (name, str(value))


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": HAS}, (133, INFERRED)),  # the deepest that it enters
    ({"traits": HAS, "resumer_cmdline": "intel_idle.max_cstate=0"}, None),
    ({"traits": HAS, "resumer_cmdline": "idle=nomwait"}, None),
    ({"traits": {**HAS, "idle_drivers": ("intel_idle:absent",)}}, None),
    ({"traits": HAS, "resumee": made_resumee(features=replace(INTEL, model=1))}, None),
    ({"traits": HAS, "resumee": made_resumee(features=None)}, None),
    ({"traits": HAS, "facts": (fact("exit-latency", 20),)}, (20, GIVEN)),
    ({"traits": HAS, "collected": {"exit_latency": 300}}, (300, MEASURED)),
    ({"traits": HAS, "collected": {"monitor": leaf(0, 2)}}, (2, INFERRED)),  # C6 has no sub-states here
    ({"traits": HAS, "collected": {"monitor": leaf(0, 2, 0, 1)}}, (133, INFERRED)),
    ({"traits": HAS, "collected": {"monitor": leaf()}}, None),
    ({"traits": HAS, "collected": {"monitor": leaf(0, 2, extended=False)}}, None),
    ({}, None),
])  # fmt: skip
def test_the_latency_is_that_of_the_resumers_own_table(given, expected):
    assert told(EXIT_LATENCY, **given) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({}, (2500, USUAL)), ({"facts": (fact("copy-rate", 10),)}, (10, GIVEN)),
])  # fmt: skip
def test_the_rate_is_usual_or_given(given, expected):
    assert told(COPY_RATE, **given) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": HAS}, (333, USUAL)),  # 133 us at 2.5 pages a microsecond, rounded up
    ({"traits": HAS, "facts": (fact("copy-rate", 1000),)}, (133, INFERRED)),
    ({"facts": (fact("copy-rate", 1000), fact("exit-latency", 7))}, (7, GIVEN)),
    ({"traits": HAS, "wake_latency": 5}, (5, GIVEN)),
    ({"wake_latency": 0}, (0, GIVEN)),
    ({}, None),
])  # fmt: skip
def test_the_longest_wake_up_in_copies(given, expected):
    assert told(WAKE_LATENCY, **given) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({}, (64, USUAL)), ({"facts": (fact("line-size", 128),)}, (128, GIVEN)),
    ({"collected": {"monitor": leaf(line=256)}}, (256, MEASURED)),
    ({"collected": {"monitor": leaf(line=None)}}, (64, USUAL)),
])  # fmt: skip
def test_the_line_is_as_long_as_cpuid_says(given, expected):
    assert told(LINE_SIZE, **given) == expected


@pytest.mark.parametrize(("states", "expected"), [
    (leaf(0, 2, 0, 1), "C1, C3"), (leaf(), "none"), (leaf(0, 2, extended=False), "none that CPUID.5 counts"),
])  # fmt: skip
def test_the_states_of_mwait_are_what_cpuid_counts(states, expected):
    assert told(MWAIT_STATES, collected={"monitor": states}) == (states, MEASURED)
    assert MWAIT_STATES.show(states) == expected
    assert told(MWAIT_STATES) is None  # no image has them


@pytest.mark.parametrize(("given", "expected"), [
    ({}, None),
    ({"tlb": "cold"}, ("cold", GIVEN)),
    ({"spurious_mwait": True}, ("cold", USUAL)),
    ({"spurious_mwait": True, "tlb": "warm"}, ("warm", GIVEN)),
    ({"spurious_mwait": True, "resumee": made_resumee(features=GUEST)}, ("warm", USUAL)),
    ({"spurious_mwait": True, "resumee": made_resumee(features=None)}, ("cold", USUAL)),
    ({"mwait_spins": True}, ("warm", READ)),
    ({"resumee": made_resumee(features=GUEST, hypervisor=False)}, ("warm", READ)),  # an emulator's
    ({"resumee": made_resumee(features=GUEST, hypervisor=False), "spurious_mwait": True}, ("warm", USUAL)),
])  # fmt: skip
def test_a_spurious_exit_finds_a_cold_tlb_but_on_a_virtual_cpu(given, expected):
    assert told(TLB, **given) == expected


def test_in_words():
    shown = {one.name: one.show(value) for one, value in ((EXIT_LATENCY, 2600), (COPY_RATE, 2500), (WAKE_LATENCY, 6500),
                                                          (LINE_SIZE, 64), (TLB, "cold"))}  # fmt: skip
    assert shown == {
        "exit-latency": "up to 2,600 us", "copy-rate": "2,500", "wake-latency": "6,500", "line-size": "64 bytes",
        "tlb": "none (a cold TLB)",
    }  # fmt: skip
