"""Whom the resumee sends an INIT, and what a plan makes of options and of what is missing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.facts.cpufacts import Topology
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.scenario.known_cpus import IDLE
from hibercheck.handoff.scenario.plan import Placement, reinitialised_by
from hibercheck.x86.cpu import ParkState
from tests.support.made_inputs import Kernel, made_dumped, made_plan, made_resumee
from tests.support.made_traits import made_traits

SMT = Topology({0: 0, 1: 1, 2: 2, 3: 3}, 1, frozenset({0, 2}))
NUMBERED_LATE = Topology({0: 0, 1: 2, 2: 1, 3: 3}, 1, frozenset({0, 1}))
"""As firmware lists them that has the first threads of all cores before the second ones."""


def resumee(frozen, *, off=False, present=range(4), topology=SMT):
    return SimpleNamespace(frozen=frozenset(frozen), smt_disabled=off, topology=topology, present=frozenset(present))


@pytest.mark.parametrize("targets", ["none", "present", "online cores", None])
@pytest.mark.parametrize("frozen", [{1, 2, 3}, {2}, set()])
def test_with_smt_on_the_resumee_starts_those_that_it_froze(targets, frozen):
    found = reinitialised_by(resumee(frozen), made_traits(nosmt_resume_targets=targets))
    assert found == frozen


@pytest.mark.parametrize(("targets", "frozen", "topology", "started"), [
    ("present", {2}, SMT, {0, 1, 2, 3}),  # every CPU that is present: ec527c318036
    ("none", {2}, SMT, {2}),
    ("online cores", {2}, SMT, {0, 1, 2, 3}),
    ("online cores", set(), SMT, {0, 1}),  # core 1 was offline: passed by since 2066f00e5b2d
    (None, set(), SMT, {0, 1}),
    ("online cores", set(), NUMBERED_LATE, {0, 2}),
    ("online cores", {1}, NUMBERED_LATE, {0, 1, 2, 3}),
    ("present", {2}, None, {2}),  # which CPUs share a core is not known
])  # fmt: skip
def test_with_smt_off_arch_resume_nosmt_starts_siblings_too(targets, frozen, topology, started):
    given = resumee(frozen, off=True, topology=topology)
    assert reinitialised_by(given, made_traits(nosmt_resume_targets=targets)) == started


def test_only_cpus_that_are_present_are_started():
    given = resumee({2}, off=True, present={0, 2, 3})
    assert reinitialised_by(given, made_traits(nosmt_resume_targets="present")) == {0, 2, 3}
    assert reinitialised_by(given, made_traits(nosmt_resume_targets="online cores")) == {0, 2, 3}


@pytest.mark.parametrize(("place", "known"), [
    (Placement(0, 0), True), (Placement(None, 0), False), (Placement(0, None), False), (Placement(None, None), False),
])  # fmt: skip
def test_a_place_is_known_if_both_its_addresses_are(place, known):
    assert place.known is known


def taken_over(predict, **options):
    return {cpu.cpu: str(cpu.fate) for cpu in predict("latent", **options).cpus}[1]


def test_a_cpu_that_the_resumee_brings_online_is_started_anew(predict):
    assert taken_over(predict) == "dies"
    assert taken_over(predict, resumee_online=frozenset({1})) == "re-initialised"
    assert taken_over(predict, resumee_online=frozenset({1}), resumee_offline=frozenset({1})) == "re-initialised"
    with pytest.raises(UsageProblem, match=r"--resumee-offline names CPU 1, but the resumee runs on CPUs 0$"):
        taken_over(predict, resumee_offline=frozenset({1}))
    with pytest.raises(UsageProblem, match=r"--resumee-online names CPU 2, but the resumee knows of CPUs 0-1$"):
        taken_over(predict, resumee_online=frozenset({0, 2, 3}))


def test_cpus_that_the_resumer_is_said_to_find_without_acpi_are_there():
    plan = made_plan(resumer_cmdline="acpi=off", facts=(("cpus", "0-3"),))
    assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys((1, 2, 3), ParkState.HLT)
    hidden = made_plan(resumer_cmdline="nr_cpus=2", facts=(("cpus", "0-3"),))
    assert [one.cpu for one in hidden.parked if one.state is ParkState.NEVER_BOOTED] == [2, 3]


def test_what_a_resumer_that_is_built_for_one_cpu_never_starts_waits_in_the_firmware():
    plan = made_plan(traits={"one_cpu": True, "play_dead_order": None, "resume_park": None})
    assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys((1, 2, 3), ParkState.NEVER_BOOTED)
    assert {one.why for one in plan.parked} == {"never started by the resumer, which is built for one CPU"}


@pytest.mark.parametrize("alone", [{"resumer_cmdline": "nosmp"}, {"traits": {"one_cpu": True}}])
def test_cpus_that_the_machine_is_said_to_have_do_not_vanish_where_the_resumer_has_one(alone):
    resumee = made_resumee(
        present=frozenset({0, 1}), frozen=frozenset({1}), topology=Topology({0: 0, 1: 1}, 1, frozenset({0}))
    )
    plan = made_plan(resumee=resumee, facts=(("cpus", "0-3"),), **alone)
    assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys((1, 2, 3), ParkState.NEVER_BOOTED)


def test_cpus_that_only_a_dump_tells_of_do_not_vanish():
    """A resumee that took no note of them, and of which it cannot be read how many there are."""
    zero = frozenset({0})
    seen = {"present": zero, "online": zero, "booted": zero, "frozen": frozenset(), "topology": SMT}
    alone = made_resumee(present=zero, frozen=frozenset(), topology=None)
    plan = made_plan(resumee=alone, dumped=made_dumped(command_line="nr_cpus=1", **seen))
    assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys((1, 2, 3), ParkState.NEVER_BOOTED)


ONE = {"present": frozenset({0}), "frozen": frozenset(), "topology": Topology({0: 0}, 0, frozenset({0}))}
NMI = {"suppose": frozenset({"nmi"})}
SEEN = {"dumped": made_dumped(present=frozenset({0, 1}), online=frozenset({0, 1}))}
LESS = {"command_line": "nr_cpus=1", "present": frozenset({0}), "online": frozenset({0}), "topology": None}


@pytest.mark.parametrize(
    ("resumee", "given", "known"),
    [
        ({"command_line": "acpi=off"}, {}, False),
        ({"command_line": "nolapic"}, {}, False),
        ({"command_line": "acpi=off"}, {"facts": (("cpus", "0"),)}, True),
        ({"command_line": "acpi=off"}, SEEN, True),
        (
            {"command_line": "acpi=off"},
            {"resumer_cmdline": "acpi=off"},
            True,
        ),  # who never was started stays where it is
        ({"command_line": "acpi=off"}, {"resumer_cmdline": "acpi=off", **NMI}, False),
        ({"command_line": "acpi=off"}, {"resumer_cmdline": "nr_cpus=1"}, True),
        ({"command_line": "acpi=off"}, {"resumer_cmdline": "nosmp"}, True),
        ({"command_line": "acpi=off"}, {"traits": {"one_cpu": True}, "resumer_cmdline": ""}, True),
        (
            {"command_line": "acpi=off"},
            {"resumer_cmdline": "nr_cpus=2"},
            False,
        ),  # it starts one of which nothing is known
        ({"command_line": "acpi=off"}, {"resumer_cmdline": "possible_cpus=4"}, False),
        ({"command_line": "acpi=off"}, {"resumer_cmdline": "maxcpus=1"}, False),
        ({"command_line": "acpi=off", "topology": SMT}, {}, False),  # an MP table lists none but first threads
        ({"command_line": "acpi=off", "topology": SMT, "mp_table_has_all": True}, {}, True),
        ({"command_line": "acpi=off", "mp_table_has_all": True}, {}, True),
        ({"command_line": "nolapic", "mp_table_has_all": True}, NMI, True),
        ({"command_line": "nosmp"}, NMI, True),  # it has counted them
        ({"command_line": "nosmp", "topology": None}, {"dumped": made_dumped(**LESS), **NMI}, False),
        ({"command_line": "nosmp", "topology": None}, {"dumped": made_dumped(**LESS | {"topology": SMT}), **NMI}, True),
        ({"command_line": None, "topology": None}, {"dumped": made_dumped(**LESS), **NMI}, False),
        ({"command_line": None}, {}, False),  # it may have been told to leave some out
        ({"command_line": None}, {"facts": (("cpus", "0"),)}, True),
        ({"topology": None}, {"dumped": made_dumped(**LESS), **NMI}, True),
    ],
)
def test_where_the_image_does_not_tell_the_machines_cpus_somebody_has_to(resumee, given, known):
    plan = made_plan(resumee=made_resumee(**ONE | resumee), **given)
    assert (("which CPUs the machine has", "--fact cpus=LIST") in plan.missing) is not known


@pytest.mark.parametrize(("count", "words", "given", "cpus"), [
    (None, "acpi=off", {}, None), (1, "acpi=off", {}, set()), (3, "acpi=off", {}, {1, 2}), (3, "nolapic", {}, {1, 2}),
    (3, "acpi=off", {"what_if": True, "resumer_cmdline": "quiet"}, {1, 2}),  # which that run would start
    (3, "", {}, set()),  # ACPI's list has all: the dump is of another machine
])  # fmt: skip
def test_an_emulators_dump_tells_how_many_cpus_the_machine_has(count, words, given, cpus):
    """As measured with acpi=off on both sides, where neither kernel knows of a second CPU, which an NMI shuts down."""
    zero = frozenset({0})
    dumped = made_dumped(**LESS | {"command_line": words, "booted": zero, "frozen": frozenset()}, machine_cpus=count)
    plan = made_plan(resumee=made_resumee(**ONE, command_line=words), dumped=dumped, **NMI, **given)
    assert (("which CPUs the machine has", "--fact cpus=LIST") in plan.missing) is (cpus is None)
    if cpus is not None:
        state = ParkState.HLT if given else ParkState.NEVER_BOOTED
        assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys(cpus, state)


BY_MP_TABLE = {
    "command_line": "acpi=off",
    "present": frozenset({0, 1}),
    "frozen": frozenset({1}),
    "topology": Topology({0: 0, 1: 2}, 1, frozenset({0, 1})),
}
"""As measured on a machine with two packages of two threads."""


@pytest.mark.parametrize(
    ("resumee", "given", "known"),
    [
        ({}, {"dumped": made_dumped(topology=SMT)}, False),
        (
            {},
            {"dumped": made_dumped(topology=NUMBERED_LATE)},
            True,
        ),  # as firmware numbers them that has first threads first
        ({}, {"resumer_cmdline": "", "facts": (("cpus", "0-3"),)}, False),  # by which numbers is a guess
        ({"mp_table_has_all": True}, {"resumer_cmdline": ""}, True),
        ({"command_line": ""}, {"dumped": made_dumped(topology=SMT)}, True),
        ({}, {"resumer_cmdline": "acpi=off", "facts": (("cpus", "0-3"),)}, True),
        ({}, {"resumer_cmdline": "nosmp", "facts": (("cpus", "0-3"),)}, True),  # it starts none
    ],
)
def test_a_resumee_that_numbers_cpus_by_an_mp_table_may_number_them_otherwise(resumee, given, known):
    plan = made_plan(resumee=made_resumee(**BY_MP_TABLE | resumee), **given)
    assert any("numbered them otherwise" in fact for fact, _ in plan.missing) is not known


@pytest.mark.parametrize(("given", "known"), [
    ({"facts": (("cpus", "0-1"),)}, False), ({"facts": (("cpus", "0-3"),)}, True), ({}, True),
    ({"dumped": made_dumped(topology=BY_MP_TABLE["topology"], present=frozenset({0, 1}))}, True),  # by the APIC ids
    ({"dumped": made_dumped(topology=SMT, present=frozenset({0, 1}))}, True),
    ({"facts": (("cpus", "0-1"),), "resumee": made_resumee(mp_table_has_all=True)}, True),
])  # fmt: skip
def test_a_resumer_that_numbers_cpus_by_an_mp_table_may_number_them_otherwise(given, known):
    plan = made_plan(resumer_cmdline="acpi=off", **given)
    assert any("numbered them otherwise" in fact for fact, _ in plan.missing) is not known


@pytest.mark.parametrize(("offline", "started", "runs"), [
    ({2}, {2, 3}, {0, 1, 3}), ({1}, {1, 3}, {0, 2, 3}), (set(), {1, 2, 3}, {0, 1, 2, 3}),
])  # fmt: skip
def test_the_resumees_cpus_have_the_resumers_numbers_where_the_apic_ids_say_so(offline, started, runs):
    """Measured with two packages of two threads, by an MP table: the resumer's CPU 1 is the resumee's CPU 2."""
    pair = frozenset({0, 1})
    dumped = made_dumped(
        command_line="acpi=off", present=pair, online=pair, booted=pair, topology=BY_MP_TABLE["topology"]
    )
    plan = made_plan(resumee=made_resumee(frozen=frozenset({1, 2, 3} - offline)), dumped=dumped)
    assert (plan.missing, plan.numbers) == ((), {0: 0, 1: 2, 2: 1, 3: 3})
    assert (plan.reinitialised, plan.resumee_runs) == (started, runs)
    assert plan.topology.apic_ids == {0: 0, 1: 2, 2: 1, 3: 3}
    assert {one.cpu: one.state for one in plan.parked} == {
        1: ParkState.HLT, 2: ParkState.NEVER_BOOTED, 3: ParkState.NEVER_BOOTED,
    }  # fmt: skip


def test_a_cpu_that_is_taken_offline_with_acpi_off_was_found():
    """Measured: it spun in the resumer's memory, and the machine reset, where this was refused as a contradiction."""
    plan = made_plan(
        resumee=made_resumee(mp_table_has_all=True), resumer_cmdline="acpi=off", resumer_offline=frozenset({1})
    )
    assert (plan.bringup.present, plan.bringup.by_hand, plan.missing) == ({0, 1, 2, 3}, {1}, ())
    with pytest.raises(UsageProblem, match="the resumer has CPUs 0"):
        made_plan(resumer_cmdline="nolapic acpi=off", resumer_offline=frozenset({1}))


@pytest.mark.parametrize(("slots", "line", "cpus"), [
    (True, "", {1}), (False, "", {1, 2, 3}), (True, "nr_cpus=1", {1}), (False, "nr_cpus=1", {1, 2, 3}),
])  # fmt: skip
def test_who_says_which_cpus_there_are_knows_which_are_empty_slots(slots, line, cpus):
    """Measured in QEMU with slots for two more CPUs: an NMI found none there."""
    left_out = {"command_line": "nr_cpus=2", "present": frozenset({0, 1}), "frozen": frozenset({1})}
    one = made_resumee(**left_out, may_count_slots=slots)
    plan = made_plan(resumee=one, resumer_cmdline=line, facts=(("cpus", "0-1"),), **NMI)
    assert {parked.cpu for parked in plan.parked} == cpus
    asked = made_plan(resumee=one, resumer_cmdline=line, **NMI)
    assert {parked.cpu for parked in asked.parked} == {1, 2, 3}


NEW = Kernel(topology_register_apic=1)
"""A kernel that knows nothing of ``disable_cpu_apicid=``."""


@pytest.mark.parametrize(("ours", "theirs", "resumer", "present", "known"), [
    ("disable_cpu_apicid=3", "", None, {0, 1, 2}, True), ("disable_cpu_apicid=1", "", None, {0, 2, 3}, False),
    ("disable_cpu_apicid=1", "", NEW, {0, 1, 2, 3}, True), ("disable_cpu_apicid=0", "", None, {0, 1, 2, 3}, True),
    ("disable_cpu_apicid=9", "", None, {0, 1, 2, 3}, True), ("", "disable_cpu_apicid=9", None, {0, 1, 2, 3}, True),
    ("", "disable_cpu_apicid=2", None, {0, 1, 2, 3}, False),
    ("disable_cpu_apicid=2", "disable_cpu_apicid=2", None, {0, 1, 3}, True),
])  # fmt: skip
def test_a_kernel_may_be_told_to_ignore_a_cpu(ours, theirs, resumer, present, known):
    """It numbers those behind it otherwise than one that was not.  Measured with the last CPU."""
    plan = made_plan(resumer_cmdline=ours, resumee=made_resumee(command_line=theirs), resumer=resumer)
    assert plan.bringup.present == present
    assert any("numbered them otherwise" in fact for fact, _ in plan.missing) is not known


def test_with_acpi_off_on_both_sides_the_resumer_finds_what_the_resumee_found():
    plan = made_plan(resumee=made_resumee(**BY_MP_TABLE), resumer_cmdline="acpi=off")
    assert {one.cpu: one.state for one in plan.parked} == {1: ParkState.HLT}
    assert plan.reinitialised == {1}


def test_with_acpi_off_the_resumer_finds_what_the_resumee_left_out():
    alone = BY_MP_TABLE | {"command_line": "acpi=off nosmp", "present": frozenset({0}), "frozen": frozenset()}
    plan = made_plan(resumee=made_resumee(**alone), resumer_cmdline="acpi=off")
    assert {one.cpu: one.state for one in plan.parked} == {1: ParkState.HLT}
    assert plan.reinitialised == frozenset()


def test_a_resumee_brings_online_what_it_knows_of():
    alone = made_resumee(present=frozenset({0}), frozen=frozenset())
    with pytest.raises(UsageProblem, match=r"--resumee-online names CPU 1, but the resumee knows of CPUs 0$"):
        made_plan(resumee=alone, resumee_online=frozenset({1}))


@pytest.mark.parametrize(("line", "present"), [
    ("nosmp", {0}), ("nolapic", {0}), ("acpi=off", {0}), ("maxcpus=1", {0, 1, 2, 3}),
])  # fmt: skip
def test_a_cpu_that_the_resumer_in_a_dump_never_started_waits_in_the_firmware(line, present):
    """Measured: such a CPU, with CR3 0, is in no loop of the resumer, whose copy does not reach it."""
    zero = frozenset({0})
    dumped = made_dumped(command_line=line, present=frozenset(present), online=zero, booted=zero, frozen=frozenset())
    plan = made_plan(dumped=dumped)
    assert {one.cpu: one.state for one in plan.parked} == dict.fromkeys((1, 2, 3), ParkState.NEVER_BOOTED)


@pytest.mark.parametrize(("given", "told"), [
    ({}, False), ({"collected": {}}, False),
    ({"resumer_idle": "halt"}, True), ({"collected": {"idle": IdleDriver("haltpoll")}}, True),
    ({"dumped": made_dumped(idle=IdleDriver("haltpoll"))}, True),
])  # fmt: skip
def test_of_the_idle_driver_a_plan_tells_what_was_seen_or_said(given, told):
    """What only the kernel's code could tell is read if something rests on it, as here nothing does."""
    assert (IDLE.name in made_plan(**given).known) is told


def test_what_is_missing_is_named_and_not_said_to_be_missing():
    """A headline says "cannot tell: X is not known"."""
    plan = made_plan(resumee=made_resumee(topology=None, missing={"topology": "lost"}))
    assert plan.missing == (("which of the resumer's CPUs share a core", "a vmlinux with symbols"),)
