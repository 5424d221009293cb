"""How a dead CPU is parked where nobody saw it: the command line, the same build, intel_idle's tables, the firmware."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.idle_outlook import idle_choices, outlook, same_build
from hibercheck.kernel.code.model import IdleModel, IdleState, IdleTables
from tests.support.made_inputs import INTEL, Kernel, made_resumee, made_space
from tests.support.made_traits import made_traits

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing
C6 = (IdleState("C6", 0x20, 133, usable=True),)
TABLES = IdleTables((IdleModel(0, 6, 0x9E, 0, 0, acpi=False, table=0),
                     IdleModel(0, 6, 0x8F, 0, 0, acpi=True, table=None)), (C6,))  # fmt: skip
BOTH = ("intel_idle:builtin", "acpi_idle:builtin")
WAYS = ("intel_idle:mwait", "acpi_idle:port_io", "acpi_idle:mwait", "acpi_idle:hlt")
PLAIN = {"enter_dead": WAYS, "idle_drivers": BOTH, "intel_idle": TABLES}
PORT, FFH = (IdleDriver("acpi_idle", "acpi_idle_play_dead", method) for method in ("port", "mwait"))
OURS, THEIRS = Kernel(build_id="aa"), Kernel(build_id="bb")


def looked(
    line="",
    *,
    traits=PLAIN,
    features=INTEL,
    monitor=None,
    seen=None,
    theirs="",
    kernel=THEIRS,
    has_acpi=False,
    their_traits=None,
    their_cpu=INTEL,
    emulated=False,
    **more,
):
    resumee = made_resumee(made_space(kernel), idle=seen, command_line=theirs, features=their_cpu)
    other = their_traits or ({"idle_drivers": ("acpi_idle:builtin",)} if has_acpi else {})
    own = made_traits(**{**traits, **more})
    given = (parse_command_line(line), OURS, own, resumee, made_traits(**other), features, monitor)
    return outlook(*given, emulated=emulated)


def told(*args, **given):
    found = looked(*args, **given)
    return None if found is None else (found.known.value, found.known.standing, found.others)


@pytest.mark.parametrize("line", ["cpuidle.off=1", "idle=poll", "idle=halt"])
def test_without_cpuidle_there_is_no_driver(line):
    assert told(line, seen=PORT, kernel=OURS, theirs=line) == ("none", READ, ())


def test_a_kernel_whose_drivers_park_no_dead_cpus_has_none():
    assert told(enter_dead=(), seen=PORT, kernel=OURS) == ("none", READ, ())
    assert told(enter_dead=None, seen=PORT, kernel=OURS) != ("none", READ, ())


@pytest.mark.parametrize(("given", "expected"), [
    ({"seen": PORT, "kernel": OURS}, ("port", INFERRED, ())),
    ({"seen": IdleDriver(None), "kernel": OURS}, ("none", INFERRED, ())),
    # of another build, or told otherwise, it is another driver's business
    ({"seen": PORT, "kernel": THEIRS}, ("mwait", USUAL, ())),
    ({"seen": PORT, "kernel": OURS, "theirs": "intel_idle.max_cstate=0"}, ("mwait", USUAL, ())),
    ({"seen": PORT, "kernel": OURS, "theirs": "processor.max_cstate=2"}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver("other", "f"), "kernel": OURS}, ("mwait", USUAL, ())),  # how that parks cannot be told
])  # fmt: skip
def test_the_driver_of_the_same_build_told_the_same(given, expected):
    assert told(**given) == expected


@pytest.mark.parametrize(("ours", "theirs", "same"), [
    (Kernel(build_id="aa"), Kernel(build_id="aa", banner="x"), True), (OURS, THEIRS, False),
    (Kernel(build_id="aa"), Kernel(), True), (Kernel(), Kernel(build_id="aa", banner="x"), False),
    (Kernel(), Kernel(banner="x"), False),
])  # fmt: skip
def test_two_kernels_are_one_build_by_their_ids_or_else_their_banners(ours, theirs, same):
    assert same_build(ours, theirs) is same


@pytest.mark.parametrize("line", [
    "cpuidle.off=1", "idle=nomwait", "intel_idle.max_cstate=0", "processor.max_cstate=1", "acpi=off", "nolapic",
    "clearcpuid=monitor",
])  # fmt: skip
def test_what_a_command_line_says_of_idle_cpus_is_a_choice_of_that_boot(line):
    assert not any(idle_choices(parse_command_line("quiet nosmt")))
    assert any(idle_choices(parse_command_line(line)))
    # what a resumee of the same build does that was told so says nothing of a resumer that was not
    halting = IdleDriver("acpi_idle", "acpi_idle_play_dead", "halt")
    assert told(seen=halting, kernel=OURS, theirs=line) == ("mwait", USUAL, ())


VIRTUAL = replace(INTEL, flags=INTEL.flags | {"hypervisor"})
NO_STATES = ("mwait", "port", "halt")


@pytest.mark.parametrize(("given", "expected"), [
    ({}, ("mwait", USUAL, ())),
    ({"features": VIRTUAL}, ("mwait", USUAL, ("none",))),
    ({"features": VIRTUAL, "monitor": MonitorLeaf(64, (0, 1, 0, 1, 0, 0, 0, 0), extended=True)}, ("mwait", USUAL, ())),
    ({"monitor": MonitorLeaf(64, (0,) * 8, extended=True)}, ("none", USUAL, NO_STATES)),
    ({"monitor": MonitorLeaf(64, (0, 1, 0, 1, 0, 0, 0, 0), extended=False)}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, model=0x8F)}, ("none", USUAL, NO_STATES)),  # it asks ACPI's _CST for all states
    ({"features": replace(INTEL, model=1)}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, model=None)}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, family=None)}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, family=7)}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, vendor="amd")}, ("none", USUAL, NO_STATES)),
    ({"features": replace(INTEL, flags=frozenset())}, ("none", USUAL, NO_STATES)),
    ({"features": None}, ("none", USUAL, NO_STATES)),
    ({"line": "intel_idle.max_cstate=0"}, ("none", USUAL, NO_STATES)),
    ({"line": "idle=nomwait"}, ("none", USUAL, NO_STATES)),
    ({"intel_idle": None}, ("none", USUAL, NO_STATES)),
    ({"enter_dead": ("acpi_idle:port_io",)}, ("none", USUAL, NO_STATES)),  # its intel_idle parks no dead CPU
    ({"enter_dead": None}, ("none", USUAL, NO_STATES)),
    ({"idle_drivers": ("acpi_idle:builtin",)}, ("none", USUAL, NO_STATES)),
])  # fmt: skip
def test_intel_idle_by_its_tables(given, expected):
    assert told(**given) == expected


COUNTS = MonitorLeaf(64, (0, 1, 0, 0, 0, 0, 0, 0), extended=True)
HAD = {"idle_drivers": BOTH, "intel_idle": TABLES}
"""What a kernel has whose drivers park no dead CPUs, as before v6.16."""


@pytest.mark.parametrize(("given", "expected"), [
    ({"seen": IdleDriver(None)}, ("none", INFERRED, ())),  # its acpi_idle found nothing either
    ({"seen": PORT}, ("port", INFERRED, ())),
    ({"seen": IdleDriver("haltpoll")}, ("none", USUAL, NO_STATES)),
    ({"seen": IdleDriver("intel_idle")}, ("mwait", USUAL, ())),
    ({"seen": None}, ("mwait", USUAL, ())),
    # it was told off, or had another CPU, or one that it does not know
    ({"seen": IdleDriver(None), "theirs": "intel_idle.max_cstate=0"}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "theirs": "cpuidle.off=1"}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "theirs": "idle=nomwait"}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "their_cpu": replace(INTEL, model=1)}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "their_cpu": None}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "their_cpu": replace(INTEL, flags=frozenset())}, ("mwait", USUAL, ())),
    ({"seen": IdleDriver(None), "their_traits": {"idle_drivers": ("acpi_idle:builtin",)}}, ("mwait", USUAL, ())),
    # CPUID.5 of the resumer's own boot says more
    ({"seen": IdleDriver(None), "monitor": COUNTS}, ("mwait", USUAL, ())),
])  # fmt: skip
def test_an_intel_idle_of_the_resumee_that_stayed_away_tells_that_the_cpu_has_no_states(given, expected):
    assert told(**{"their_traits": HAD, **given}) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({}, ("none", USUAL, (*NO_STATES[1:], "mwait"))),
    ({"seen": IdleDriver(None), "has_acpi": True}, ("none", USUAL, ("mwait",))),
    ({"seen": PORT}, ("port", USUAL, ("mwait",))),
    ({"idle_drivers": ("intel_idle:builtin", "acpi_idle:absent")}, ("none", USUAL, ("mwait",))),
    ({"monitor": COUNTS}, ("mwait", USUAL, ())),
    ({"features": INTEL}, ("mwait", USUAL, ())),
    ({"line": "intel_idle.max_cstate=0"}, ("none", USUAL, NO_STATES)),
])  # fmt: skip
def test_an_emulators_cpu_counts_no_states(given, expected):
    found = told(**{"features": VIRTUAL, "emulated": True, **given})
    assert (*found[:2], set(found[2])) == (*expected[:2], set(expected[2]))


def test_what_is_said_of_an_emulators_cpu():
    found = looked(features=VIRTUAL, emulated=True)
    assert found.known.source.startswith("an emulator's CPU counts no sub-states of MWAIT")
    assert "CPUID is not in the inputs" in found.reason


OTHER_CPU = replace(INTEL, model=1)


@pytest.mark.parametrize(("given", "expected"), [
    ({"idle_drivers": ("acpi_idle:absent",)}, ("none", READ, ())),
    ({"line": "acpi=off"}, ("none", READ, ())),
    ({"seen": PORT}, ("port", INFERRED, ())),
    ({"seen": FFH}, ("mwait", INFERRED, ())),
    ({"seen": PORT, "idle_drivers": ("acpi_idle:module?",)}, ("port", INFERRED, ("none",))),
    ({"seen": PORT, "idle_drivers": ("acpi_idle:module?",), "enter_dead": ("acpi_idle:mwait",)},
     ("none", INFERRED, ())),
    # what one of them was told of C-states says nothing of the other's
    ({"seen": PORT, "theirs": "idle=nomwait"}, ("port", USUAL, ("mwait", "halt"))),
    ({"seen": PORT, "theirs": "idle=nomwait", "line": "idle=nomwait"}, ("port", INFERRED, ())),
    ({"seen": FFH, "line": "idle=nomwait"}, ("mwait", USUAL, ("port", "halt"))),
    ({"seen": FFH, "theirs": "processor.max_cstate=1"}, ("mwait", USUAL, ("port", "halt"))),
    ({"seen": PORT, "theirs": "clearcpuid=monitor"}, ("port", USUAL, ("mwait", "halt"))),
    ({"seen": PORT, "line": "processor.max_cstate=1", "idle_drivers": ("acpi_idle:module?",)},
     ("port", USUAL, ("mwait", "halt", "none"))),
    ({"seen": PORT, "enter_dead": None}, None),
    ({"seen": IdleDriver("acpi_idle", None)}, None),
    ({"seen": IdleDriver(None), "has_acpi": True}, ("none", INFERRED, ())),
    ({"seen": IdleDriver(None)}, ("none", USUAL, NO_STATES)),  # it has no acpi_idle that could have shown them
    ({"seen": IdleDriver(None), "has_acpi": True, "theirs": "acpi=off"}, ("none", USUAL, NO_STATES)),
    ({"seen": IdleDriver(None), "has_acpi": True, "theirs": "cpuidle.off=1"}, ("none", USUAL, NO_STATES)),
    ({"seen": IdleDriver("intel_idle"), "has_acpi": True}, ("none", USUAL, NO_STATES)),
    ({"seen": None, "has_acpi": True}, ("none", USUAL, NO_STATES)),
])  # fmt: skip
def test_the_firmwares_c_states_as_the_resumee_shows_them(given, expected):
    assert told(features=OTHER_CPU, **given) == expected


@pytest.mark.parametrize(("seen", "expected"), [
    (PORT, ("port", USUAL, ("mwait", "halt", "none"))),
    (IdleDriver(None), ("none", USUAL, NO_STATES)),
    (None, None),
    (IdleDriver("other", "f"), None),
])  # fmt: skip
def test_where_its_drivers_cannot_be_read_the_resumees_is_usual_and_any_other_may_be(seen, expected):
    assert told(seen=seen, idle_drivers=None) == expected


@pytest.mark.parametrize(("given", "driver"), [
    ({"seen": PORT, "kernel": OURS}, "acpi_idle"), ({}, "intel_idle"),
    ({"seen": IdleDriver(None), "kernel": OURS}, None),
    ({"features": VIRTUAL}, "intel_idle"), ({"features": OTHER_CPU, "seen": PORT}, "acpi_idle"),
    ({"features": OTHER_CPU, "seen": PORT, "theirs": "processor.max_cstate=2"}, "acpi_idle"),
    ({"seen": PORT, "idle_drivers": None}, "acpi_idle"), ({"line": "cpuidle.off=1"}, None),
])  # fmt: skip
def test_which_driver_it_is_taken_to_be(given, driver):
    assert looked(**given).driver == driver


def test_it_is_said_why_it_may_be_otherwise():
    assert "virtual" in looked(features=VIRTUAL).reason
    assert looked().reason == ""
    assert looked(features=OTHER_CPU, seen=IdleDriver("haltpoll")).reason.startswith("the resumee, with haltpoll, does")
    assert looked(features=OTHER_CPU).reason.startswith("the resumee, with no driver, does")
    assert looked(features=OTHER_CPU, seen=IdleDriver(None)).reason.startswith("the resumee, with no driver, does")
    assert looked(seen=PORT, idle_drivers=None).reason.endswith("cannot be read from its code")
    assert "(acpi_idle)" in looked(seen=PORT, idle_drivers=None).known.source
    assert "(none)" in looked(seen=IdleDriver(None), idle_drivers=None).known.source
    assert "(none)" in looked(seen=IdleDriver(None), kernel=OURS).known.source
    assert "(acpi_idle)" in looked(seen=PORT, kernel=OURS).known.source
