"""Who runs in the resumer: SMT, who was started, who is online or was taken offline, and how a dead CPU is parked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.cpulist import parse_cpu_list
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.logged import LogFacts
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known_cpus import (
    BOOTED,
    BY_HAND,
    IDLE,
    MWAIT,
    MWAIT_STATES,
    ONLINE,
    SMT_OFF,
    TLB,
    by_itself,
    idle_driver,
    rescue,
    started,
)
from tests.support.made_inputs import INTEL, asking, made_dumped, made_resumee

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing
ALL = frozenset(range(4))


def cpus(*numbers):
    return frozenset(numbers)


def told(fact, **given):
    found = asking(**given).known(fact)
    return None if found is None else (found.value, found.standing)


MAYBE = "mitigations=auto,nosmt"
BUGGY, WHOLE, OPEN = (replace(INTEL, bugs=bugs) for bugs in (cpus("mds"), cpus(), None))


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_cmdline": ""}, (False, INFERRED)),
    ({"resumer_cmdline": "nosmt"}, (True, INFERRED)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=BUGGY)}, (True, INFERRED)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=WHOLE)}, (False, INFERRED)),
    # whether the CPU has the bugs is not known: it did to the resumee what it does to the resumer
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN, command_line=MAYBE, smt_control="disabled")},
     (True, INFERRED)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN, command_line=MAYBE, smt_control="enabled")},
     (False, INFERRED)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN, command_line=MAYBE, smt_control=None)},
     (True, USUAL)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN, command_line=f"{MAYBE} nosmt",
                                                        smt_control="disabled")}, (True, USUAL)),
    ({"resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN, smt_control="enabled")}, (True, USUAL)),
    ({"resumer_cmdline": "", "facts": (("smt", "off"),)}, (True, GIVEN)),
    ({"resumer_cmdline": "nosmt", "facts": (("smt", "on"),)}, (False, GIVEN)),
    ({"collected": {"smt_control": "off"}}, (True, MEASURED)),
    ({"collected": {"smt_control": "forceoff"}}, (True, MEASURED)),
    ({"collected": {"smt_control": "on"}}, (False, MEASURED)),
    ({"collected": {"smt_control": "notsupported"}}, (False, MEASURED)),
    ({"collected": {}}, (False, INFERRED)),
    ({"dumped": made_dumped(smt_control="disabled")}, (True, MEASURED)),
    ({"dumped": made_dumped(smt_control="force-disabled")}, (True, MEASURED)),
    ({"dumped": made_dumped(smt_control="enabled")}, (False, MEASURED)),
    # the handoff enables it: cpuhp_smt_enable()
    ({"dumped": made_dumped(smt_control="enabled", frozen=cpus(1)), "resumer_cmdline": "nosmt"}, (True, INFERRED)),
    ({"dumped": made_dumped(smt_control="enabled"), "resumer_cmdline": "nosmt", "what_if": True}, (True, INFERRED)),
    ({"collected": {"smt_control": "on"}, "resumer_cmdline": "nosmt", "what_if": True}, (True, INFERRED)),
])  # fmt: skip
def test_whether_smt_is_off(given, expected):
    assert told(SMT_OFF, **given) == expected


def test_smt_beside_mitigations_off_is_the_kernels_choice_and_the_resumee_says_nothing_of_it():
    line = "mitigations=off mds=full,nosmt"
    same = {"resumee": made_resumee(command_line=line, smt_control="enabled"), "collected": {"features": BUGGY}}
    assert told(SMT_OFF, **same, resumer_cmdline=line) == (True, USUAL)
    assert told(SMT_OFF, **same, resumer_cmdline="mitigations=off nosmt") == (True, INFERRED)


def test_a_machine_that_was_measured_and_a_given_line_make_it_read():
    given = {"collected": {"features": BUGGY, "topology": made_resumee().topology}}
    assert told(SMT_OFF, **given, resumer_cmdline="nosmt") == (True, GIVEN)
    assert told(SMT_OFF, **given, resumer_cmdline=MAYBE) == (True, GIVEN)
    inferred = {"collected": {"topology": made_resumee().topology}}  # of the CPU only the resumee tells
    assert told(SMT_OFF, **inferred, resumer_cmdline=MAYBE)[1] is INFERRED
    assert told(SMT_OFF, **inferred, resumer_cmdline="nosmt")[1] is GIVEN


@pytest.mark.parametrize(("line", "offline", "booted", "online"), [
    ("", (), ALL, ALL),
    ("nosmt", (), ALL, {0, 2}),
    ("maxcpus=2", (), {0, 1}, {0, 1}),
    ("maxcpus=2", (3,), {0, 1, 3}, {0, 1}),
    ("", (3,), ALL, {0, 1, 2}),
    ("nosmt", (2,), ALL, {0}),
])  # fmt: skip
def test_who_was_started_and_who_is_online_by_the_command_line(line, offline, booted, online):
    run = {"resumer_cmdline": line, "resumer_offline": frozenset(offline), "traits": {"parallel_bringup": False}}
    assert told(BOOTED, **run) == (booted, INFERRED)
    # unless the user says who is offline, somebody may be
    assert told(ONLINE, **run) == (online, INFERRED if offline else USUAL)


@pytest.mark.parametrize(("parallel", "booted"), [(False, {0, 1}), (True, {0, 2}), (None, {0, 1})])
def test_maxcpus_counts_in_the_kernels_own_order(parallel, booted):
    assert told(BOOTED, resumer_cmdline="maxcpus=2", traits={"parallel_bringup": parallel})[0] == booted


@pytest.mark.parametrize(("given", "booted", "online"), [
    ({"facts": (("booted", "0-2"),)}, ({0, 1, 2}, GIVEN), ({0, 1, 2}, USUAL)),
    ({"collected": {"booted": cpus(0, 1), "online": cpus(0)}}, ({0, 1}, MEASURED), ({0}, MEASURED)),
    ({"dumped": made_dumped(booted=cpus(0, 1, 2), online=cpus(0), frozen=cpus(1))},
     ({0, 1, 2}, MEASURED), ({0, 1}, MEASURED)),
    ({"dumped": made_dumped(online=cpus(0))}, (ALL, INFERRED), (ALL, USUAL)),  # who is frozen is not known
    ({"dumped": made_dumped(frozen=cpus(0))}, (ALL, INFERRED), (ALL, USUAL)),
    ({"dumped": made_dumped(booted=cpus(0), online=cpus(0), frozen=cpus()), "what_if": True, "resumer_cmdline": ""},
     (ALL, INFERRED), (ALL, USUAL)),
])  # fmt: skip
def test_who_was_seen_started_and_online(given, booted, online):
    assert (told(BOOTED, **given), told(ONLINE, **given)) == (booted, online)


@pytest.mark.parametrize(("given", "taken", "standing"), [
    ({}, (), USUAL),
    ({"resumer_offline": cpus(2, 3)}, (2, 3), GIVEN),
    ({"resumer_offline": cpus(2, 3), "resumer_cmdline": "nosmt"}, (2,), GIVEN),  # 3 is down already
    ({"resumer_offline": cpus(3), "resumer_cmdline": "nosmt"}, (), USUAL),
    ({"collected": {"online": cpus(0, 1), "booted": ALL}}, (2, 3), MEASURED),
    ({"collected": {"online": cpus(0, 1)}}, (2, 3), MEASURED),
    ({"collected": {"online": cpus(0, 2), "booted": ALL, "command_line": "nosmt", "smt_control": "off"}},
     (), MEASURED),
    ({"collected": {"online": cpus(0), "booted": cpus(0, 1), "command_line": "maxcpus=1"}}, (1,), MEASURED),
    ({"collected": {}}, (), USUAL),
    ({"collected": {"online": cpus(0, 1)}, "what_if": True, "resumer_cmdline": ""}, (), USUAL),
    ({"dumped": made_dumped(online=cpus(0), frozen=cpus(1, 2))}, (3,), MEASURED),
    ({"dumped": made_dumped(online=cpus(0), frozen=cpus(1, 2)), "what_if": True, "resumer_cmdline": ""}, (), USUAL),
])  # fmt: skip
def test_who_was_taken_offline_by_hand(given, taken, standing):
    assert told(BY_HAND, **given) == (frozenset(taken), standing)


RESCUES = {"rescues_offline": True, "rescue_needs_primary": False}


def test_a_dump_taken_after_the_rescue_does_not_tell_who_was_offline_before():
    """CPU 3 was brought back for the handoff and frozen: that it was taken offline before only the user knows."""
    dumped = made_dumped(online=cpus(0), frozen=cpus(1, 2, 3))
    assert told(BY_HAND, dumped=dumped, traits=RESCUES) == (cpus(), MEASURED)
    assert told(BY_HAND, dumped=dumped, traits=RESCUES, resumer_offline=cpus(3)) == (cpus(3), MEASURED)
    with pytest.raises(Mismatch):  # a kernel that rescues nobody would have it offline still
        told(BY_HAND, dumped=dumped, traits={"rescues_offline": False}, resumer_offline=cpus(3))
    facts = {"online": ALL}  # no rescue has been yet
    with pytest.raises(Mismatch):
        told(BY_HAND, collected=facts, traits=RESCUES, resumer_offline=cpus(3))


@pytest.mark.parametrize(("line", "offline", "said"), [
    ("nosmt", cpus(1, 2, 3), "names CPUs 1,3, down already"),
    ("maxcpus=2", cpus(1, 3), "names CPU 3, which the resumer does not start by itself"),
])  # fmt: skip
def test_what_is_remarkable_about_cpus_that_are_said_to_be_offline(line, offline, said):
    run = asking(resumer_cmdline=line, resumer_offline=offline, traits={"parallel_bringup": False})
    run.need(BY_HAND)
    (remark,) = run.remarks
    assert said in remark


@pytest.mark.parametrize(("given", "present", "booted", "online", "down", "by_hand"), [
    ({}, ALL, ALL, ALL, (), ()),
    ({"resumer_cmdline": "nosmt"}, ALL, ALL, {0, 2}, {1, 3}, ()),
    ({"resumer_cmdline": "nosmt", "resumer_offline": cpus(2)}, ALL, ALL, {0}, {1, 3}, {2}),
    ({"resumer_cmdline": "maxcpus=2", "resumer_offline": cpus(3)}, ALL, {0, 1, 3}, {0, 1}, (), {3}),
    ({"collected": {"present": cpus(0, 1), "booted": ALL, "online": cpus(0)}}, {0, 1}, {0, 1}, {0}, (), {1}),
    ({"collected": {"online": cpus(0, 2), "booted": cpus(0, 2)}}, ALL, {0, 2}, {0, 2}, (), ()),  # 1, 3: never started
    ({"collected": {"online": cpus(0, 2), "booted": cpus(0, 2, 3)}}, ALL, {0, 2, 3}, {0, 2}, (), {3}),
])  # fmt: skip
def test_the_resumers_cpus_put_together(given, present, booted, online, down, by_hand):
    found = started(asking(traits={"parallel_bringup": False}, **given))
    assert (found.present, found.boot_cpu, found.booted, found.online) == (present, 0, booted, online)
    assert (found.siblings_down, found.by_hand) == (frozenset(down), frozenset(by_hand))


@pytest.mark.parametrize(("facts", "said"), [
    ({"online": cpus(1)}, "CPU 0, which is the one that resumes, is offline"),
    ({"present": cpus(0, 1), "online": ALL}, "the resumer has CPUs 2-3 online"),
    ({"online": cpus(0, 2, 3), "smt_control": "off", "command_line": "nosmt"}, "SMT is off, and CPUs 2-3 of one core"),
    ({"online": ALL, "smt_control": "on", "command_line": "nosmt=force"}, "SMT is on, and nosmt=force"),
    ({"online": cpus(0, 2), "smt_control": "on", "command_line": "nosmt=force"}, "SMT is on, and nosmt=force"),
    ({"online": cpus(0, 1, 2), "command_line": "nosmt=force"}, "the resumer has CPU 1 online, and nosmt=force"),
])  # fmt: skip
def test_what_was_collected_and_cannot_be(facts, said):
    with pytest.raises(Mismatch) as found:
        started(asking(collected=facts))
    assert said in str(found.value)
    assert found.value.path == "facts.json"


@pytest.mark.parametrize(("facts", "said"), [
    ({"online": ALL, "smt_control": "on", "command_line": "nosmt"}, "SMT is on (collected on the resumer), though"),
    ({"online": cpus(0, 1, 2), "command_line": "nosmt"}, "has CPU 1 online (collected on the resumer), though"),
    ({"online": cpus(0, 1, 2), "command_line": "maxcpus=2"}, "has CPU 2 online (collected on the resumer), which"),
    ({"online": ALL, "smt_control": "on", "command_line": "quiet"}, None),
    ({"online": cpus(0, 2), "smt_control": "off", "command_line": "nosmt=force"}, None),
    ({"online": cpus(0, 2), "smt_control": "off", "command_line": "quiet"}, None),  # switched off by hand
    ({"online": cpus(0, 1), "command_line": "maxcpus=2"}, None),
    ({"online": ALL, "smt_control": "notsupported", "command_line": MAYBE}, None),  # the bugs are not known
])  # fmt: skip
def test_cpus_that_run_though_the_command_line_does_not_start_them_are_told(facts, said):
    run = asking(collected=facts, traits={"parallel_bringup": False}, resumee=made_resumee(features=OPEN))
    started(run)
    assert [said in remark for remark in run.remarks] == ([] if said is None else [True])


def test_two_threads_of_a_core_contradict_smt_off_only_if_both_were_seen_at_one_time():
    started(asking(collected={"online": ALL}, facts=(("smt", "off"),)))
    started(asking(collected={"online": cpus(0, 2), "smt_control": "off"}))
    started(asking(collected={"online": ALL, "smt_control": "on"}))


@pytest.mark.parametrize(("traits", "offline", "rescued"), [
    ({"rescues_offline": False}, cpus(2), ()),
    (RESCUES, cpus(2, 3), (2, 3)),
    ({"rescues_offline": True, "rescue_needs_primary": True}, cpus(2, 3), ()),
    ({"rescues_offline": True, "rescue_needs_primary": True}, cpus(3), (3,)),
    (RESCUES, cpus(), ()),
    ({}, cpus(), ()),  # nobody is offline: how a kernel rescues does not matter
    ({"hibernation": False}, cpus(2), ()),  # nor where it cannot resume at all
])  # fmt: skip
def test_whom_the_rescue_brings_back(traits, offline, rescued):
    run = asking(resumer_offline=offline, traits=traits)
    assert rescue(run, started(run)) == frozenset(rescued)


@pytest.mark.parametrize(("traits", "said"), [
    ({}, "whether the resumer rescues offline CPUs"),
    ({"rescues_offline": True}, "which offline CPUs the resumer rescues"),
])  # fmt: skip
def test_how_a_kernel_rescues_has_to_be_known_where_cpus_are_offline(traits, said):
    run = asking(resumer_offline=cpus(2), traits=traits)
    with pytest.raises(MissingFact, match=said):
        rescue(run, started(run))


def test_starting_by_itself_is_as_well_known_as_what_it_rests_on():
    assert by_itself(asking(resumer_cmdline="")).standing is INFERRED
    facts = {"present": ALL, "smt_control": "on"}
    assert by_itself(asking(collected=facts, resumer_cmdline="")).standing is GIVEN


ACPI = IdleDriver("acpi_idle", "acpi_idle_play_dead", "port")
WAYS = {"enter_dead": ("acpi_idle:port_io", "intel_idle:mwait")}


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_idle": "halt"}, ("halt", GIVEN)),
    ({"collected": {"idle": ACPI}}, ("port", MEASURED)),
    ({"collected": {"idle": IdleDriver("intel_idle"), "command_line": ""}}, ("mwait", MEASURED)),
    ({"dumped": made_dumped(idle=ACPI)}, ("port", MEASURED)),
    ({"dumped": made_dumped(), "resumer_idle": "halt"}, ("halt", GIVEN)),
    ({"collected": {}, "resumer_idle": "halt"}, ("halt", GIVEN)),
    ({"resumer_cmdline": "cpuidle.off=1"}, ("none", READ)),
    ({"resumee": made_resumee(idle=ACPI)}, ("port", INFERRED)),
    ({"collected": {"idle": IdleDriver("other", "f")}, "resumer_idle": "halt"}, ("halt", GIVEN)),
    # in another run a driver that was seen counts if that run is told the same of idle CPUs
    ({"collected": {"idle": ACPI, "command_line": "quiet"}, "resumer_cmdline": "nosmt", "what_if": True},
     ("port", MEASURED)),
    ({"collected": {"idle": ACPI, "command_line": "quiet"}, "resumer_cmdline": "cpuidle.off=1", "what_if": True},
     ("none", READ)),
    ({"dumped": made_dumped(idle=ACPI, command_line="quiet"), "resumer_cmdline": "idle=halt", "what_if": True},
     ("none", READ)),
    ({"collected": {"idle": ACPI, "command_line": "intel_idle.max_cstate=0"},
      "resumer_cmdline": "intel_idle.max_cstate=0", "what_if": True}, ("port", MEASURED)),
])  # fmt: skip
def test_how_a_dead_cpu_is_parked_by_its_driver(given, expected):
    assert told(IDLE, traits=WAYS, **given) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_idle": "halt"}, None),
    ({"collected": {"idle": ACPI}}, "acpi_idle"),
    ({"collected": {"idle": IdleDriver("intel_idle"), "command_line": ""}}, "intel_idle"),
    ({"dumped": made_dumped(idle=ACPI)}, "acpi_idle"),
    ({"logged": LogFacts("log", idle=ACPI)}, "acpi_idle"),
    ({"resumee": made_resumee(idle=ACPI)}, "acpi_idle"),
    ({"resumer_cmdline": "cpuidle.off=1"}, None),
    ({"dumped": made_dumped(), "resumer_idle": "halt"}, None),
    ({"traits": {"enter_dead": None}}, None),
])  # fmt: skip
def test_which_driver_that_is(given, expected):
    assert idle_driver(asking(**{"traits": WAYS, **given})) == expected


@pytest.mark.parametrize(("driver", "line", "word"), [
    ("intel_idle", "idle=halt", "idle=halt"),
    ("intel_idle", "idle=nomwait", "idle=nomwait"),
    ("intel_idle", "intel_idle.max_cstate=0", "intel_idle.max_cstate=0"),
    ("acpi_idle", "cpuidle.off=1", "cpuidle.off=1"),
    ("haltpoll", "cpuidle.off=1", "cpuidle.off=1"),
    ("acpi_idle", "intel_idle.max_cstate=0 idle=nomwait", None),
    ("intel_idle", "intel_idle.max_cstate=1", None),
    (None, "cpuidle.off=1 idle=halt", None),
])  # fmt: skip
@pytest.mark.parametrize("source", ["collected", "dumped"])
def test_a_driver_that_its_command_line_keeps_away_is_of_another_boot(source, driver, line, word):
    values = {"idle": IdleDriver(driver), "command_line": line}
    given = {source: values if source == "collected" else made_dumped(**values)}
    if word is None:
        told(IDLE, traits=WAYS, **given)
        return
    with pytest.raises(Mismatch, match=f"{driver} is its cpuidle driver, and stays away with {word}"):
        told(IDLE, traits=WAYS, **given)


def test_how_facts_are_shown():
    assert [SMT_OFF.show(True), SMT_OFF.show(False)] == ["yes", "no"]
    assert [BY_HAND.show(cpus()), BY_HAND.show(cpus(2, 3))] == ["none", "2-3"]
    assert [BOOTED.show(ALL), ONLINE.show(cpus(0, 2)), IDLE.show("port")] == ["0-3", "0,2", "port"]


@pytest.mark.parametrize(("booted", "fits"), [({0, 1}, False), ({0, 1, 3}, True), ({0, 1, 2, 3}, True)])
def test_a_cpu_that_is_online_was_started(booted, fits):
    facts = {"present": frozenset(range(4)), "online": frozenset({0, 1, 3}), "booted": frozenset(booted)}
    run = asking(collected=facts, traits={"hibernation": True})
    if fits:
        assert started(run).booted == booted
        return
    with pytest.raises(Mismatch, match="it has CPU 3 online, and never started"):
        started(run)


@pytest.mark.parametrize(("line", "present", "contradicts"), [
    ("nr_cpus=1", "0-1", True), ("nr_cpus=2", "0-1", False), ("possible_cpus=3", "0-3", True),
    ("nr_cpus=0", "0-3", False), ("maxcpus=1", "0-3", False), ("", "0-3", False),
    ("nr_cpus=2 possible_cpus=4", "0-2", True), ("nr_cpus=4 possible_cpus=2", "0-2", True),
    ("nr_cpus=4 possible_cpus=3", "0-2", False),
])  # fmt: skip
def test_no_more_cpus_are_there_than_the_line_of_that_boot_allows(line, present, contradicts):
    seen = {"command_line": line, "present": frozenset(parse_cpu_list(present)), "online": cpus(0)}
    for given in ({"collected": seen}, {"dumped": made_dumped(**seen, topology=None)}):
        if contradicts:
            with pytest.raises(Mismatch, match="its command line allows it"):
                started(asking(**given))
        else:
            started(asking(**given))


def test_who_was_started_is_the_users_to_say_and_not_in_silence():
    says = asking(resumer_cmdline="nosmt", facts=(("booted", "0,2"),))
    assert started(says).booted == cpus(0, 2)
    assert not says.remarks  # whether its CPUs have threads is only inferred
    seen = {"command_line": "nosmt", "present": ALL, "online": cpus(0, 2), "smt_control": "off"}
    contradicts = asking(collected=seen, facts=(("booted", "0,2"),))
    started(contradicts)
    assert any("--fact booted= says that it has started CPUs 0,2" in remark for remark in contradicts.remarks)
    agrees = asking(collected=seen, facts=(("booted", "0-3"),))
    started(agrees)
    assert not agrees.remarks


def test_who_is_online_was_started_whatever_is_said():
    found = started(asking(collected={"present": cpus(0, 1), "online": cpus(0, 1)}, facts=(("booted", "0"),)))
    assert (found.booted, found.online, found.siblings_down) == (cpus(0, 1), cpus(0, 1), cpus())
    by_hand = started(asking(resumer_cmdline="maxcpus=1", resumer_offline=cpus(2), facts=(("booted", "0"),)))
    assert (by_hand.booted, by_hand.online, by_hand.by_hand) == (cpus(0, 2), cpus(0), cpus(2))


def test_the_count_of_a_log_tells_of_smt_only_where_the_order_is_known():
    """maxcpus= leaves out other CPUs by either order, so that the count is of one only where the code tells it."""
    given = {"logged": log(2), "resumer_cmdline": f"{MAYBE} maxcpus=3", "resumee": made_resumee(features=OPEN)}
    assert told(SMT_OFF, **given, traits={"parallel_bringup": False}) == (True, MEASURED)
    assert told(SMT_OFF, **given, traits={"parallel_bringup": None}) == (True, USUAL)


def log(count, **values):
    return LogFacts("log", brought_up=count, **values)


@pytest.mark.parametrize(("given", "runs"), [
    ({"logged": log(4)}, ALL),
    ({"logged": log(None)}, ALL),
    ({"logged": log(2), "resumer_cmdline": "nosmt"}, cpus(0, 2)),
    ({"logged": log(2, present=cpus(0, 1)), "resumer_cmdline": ""}, cpus(0, 1)),
    ({"logged": log(1), "resumer_cmdline": "nosmp"}, cpus(0)),
    ({"logged": log(4), "resumer_offline": cpus(3)}, cpus(0, 1, 2)),  # by hand, once it had booted
    ({"logged": log(3), "facts": (("booted", "0-2"),)}, cpus(0, 1, 2)),  # the user says which did not start
    ({"logged": log(2), "what_if": True}, ALL),
    # the count tells whether the CPU has the bugs for which SMT is off
    ({"logged": log(4), "resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN)}, ALL),
    ({"logged": log(2), "resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN)}, cpus(0, 2)),
    ({"logged": log(2), "resumer_cmdline": MAYBE, "resumee": made_resumee(features=WHOLE)}, cpus(0, 2)),
])  # fmt: skip
def test_as_many_cpus_run_as_the_log_says(given, runs):
    assert started(asking(**given)).online == runs


@pytest.mark.parametrize("given", [
    {"logged": log(3)},
    {"logged": log(4), "resumer_cmdline": "nosmt"},
    {"logged": log(2), "resumer_cmdline": "maxcpus=3", "traits": {"parallel_bringup": False}},
    {"logged": log(3), "facts": (("booted", "0-1"),)},
    {"logged": log(3), "resumer_cmdline": MAYBE, "resumee": made_resumee(features=OPEN)},
    {"logged": log(4, present=cpus(0, 1))},
    {"logged": log(4), "facts": (("cpus", "0-1"),)},
])  # fmt: skip
def test_other_cpus_than_the_log_counts_are_not_made_up(given):
    with pytest.raises(MissingFact, match="CPUs came up as the resumer booted") as caught:
        started(asking(**given))
    assert "--fact booted=" in caught.value.advice


def test_who_was_seen_online_stands_against_the_count_of_the_log():
    found = asking(logged=log(2), collected={"online": ALL, "present": ALL, "booted": ALL})
    assert started(found).online == ALL
    assert any("2 CPUs came up" in remark for remark in found.remarks)
    agrees = asking(logged=log(4), collected={"online": cpus(0, 1, 2), "present": ALL, "booted": ALL})
    assert started(agrees).by_hand == cpus(3)
    assert not any("came up" in remark for remark in agrees.remarks)


def leaf(*states):
    return MonitorLeaf(64, (*states, *[0] * (8 - len(states))), extended=True)


VIRTUAL = replace(INTEL, flags=INTEL.flags | {"hypervisor"})


def guest(hypervisor):
    return made_resumee(features=VIRTUAL, hypervisor=hypervisor)


@pytest.mark.parametrize(("given", "expected"), [
    ({}, None),
    ({"resumee": guest(None)}, None),  # its kernel looks for no hypervisor
    ({"resumee": guest(True)}, None),
    ({"resumee": guest(False)}, ("ends", INFERRED)),
    ({"resumee": made_resumee(hypervisor=False)}, None),  # the machine itself
    ({"resumee": made_resumee(features=None, hypervisor=False)}, None),
    ({"resumee": guest(False), "facts": (("cpu-flags", "-hypervisor"),)}, None),
    ({"resumee": guest(False), "spurious_mwait": True}, None),  # the user has said how it ends
    ({"resumee": guest(False), "facts": (("mwait", "sleeps"),)}, ("sleeps", GIVEN)),
    ({"facts": (("mwait", "ends"),)}, ("ends", GIVEN)),
    ({"mwait_spins": True}, ("ends", GIVEN)),
    ({"mwait_spins": True, "facts": (("mwait", "ends"),)}, ("ends", GIVEN)),
    ({"resumee": guest(None), "dumped": made_dumped(features=VIRTUAL, hypervisor=False)}, ("ends", INFERRED)),
    ({"resumee": guest(False), "dumped": made_dumped(features=VIRTUAL, hypervisor=True)}, None),
    ({"resumee": guest(False), "dumped": made_dumped(features=VIRTUAL, hypervisor=None)}, ("ends", INFERRED)),
    ({"resumee": guest(False), "collected": {"features": VIRTUAL}}, ("ends", INFERRED)),
    ({"resumee": guest(False), "collected": {"features": INTEL}}, None),  # it has moved to another machine
    ({"resumee": guest(False), "collected": {"features": VIRTUAL, "monitor": leaf(0, 0)}}, ("ends", INFERRED)),
    ({"resumee": guest(False), "collected": {"features": VIRTUAL, "monitor": leaf(0, 2)}}, None),
])  # fmt: skip
def test_mwait_ends_at_once_where_the_cpu_is_emulated(given, expected):
    assert told(MWAIT, **given) == expected


def test_mwait_cannot_both_sleep_and_end():
    with pytest.raises(Mismatch, match=r"contradicts itself on what MWAIT does: ends at once .* and sleeps"):
        told(MWAIT, mwait_spins=True, facts=(("mwait", "sleeps"),))


VIRTUAL_CPU = replace(INTEL, flags=INTEL.flags | {"hypervisor"})


@pytest.mark.parametrize(("given", "expected"), [
    ({}, None), ({"resumee": made_resumee(features=VIRTUAL_CPU)}, None),  # a store wakes it: that tells nothing
    ({"spurious_mwait": True}, ("cold", USUAL)),
    ({"spurious_mwait": True, "resumee": made_resumee(features=None)}, ("cold", USUAL)),
    ({"spurious_mwait": True, "resumee": made_resumee(features=VIRTUAL_CPU)}, ("warm", USUAL)),
    ({"mwait_spins": True}, ("warm", READ)), ({"facts": (("mwait", "ends"),)}, ("warm", READ)),
    ({"facts": (("mwait", "sleeps"),)}, None), ({"mwait_spins": True, "tlb": "cold"}, ("cold", GIVEN)),
    ({"tlb": "warm"}, ("warm", GIVEN)), ({"spurious_mwait": True, "tlb": "warm"}, ("warm", GIVEN)),
])  # fmt: skip
def test_what_a_cpu_has_cached_when_its_wait_ends(given, expected):
    assert told(TLB, **given) == expected


@pytest.mark.parametrize(("monitor", "shown"), [
    (MonitorLeaf(64, (0, 2, 1, 2, 4, 1, 1, 1), extended=True), "C1, C2, C3, C4, C5, C6, C7"),
    (MonitorLeaf(64, (0, 2, 0, 0, 0, 0, 0, 0), extended=True), "C1"),
    (MonitorLeaf(64, (0,) * 8, extended=True), "none"),
    (MonitorLeaf(64, (0, 2, 1, 2, 4, 1, 1, 1), extended=False), "none that CPUID.5 counts"),
])  # fmt: skip
def test_states_of_mwait_are_shown_by_their_numbers(monitor, shown):
    assert MWAIT_STATES.show(monitor) == shown
    assert told(MWAIT_STATES, collected={"monitor": monitor}) == (monitor, MEASURED)


def test_what_a_dump_or_facts_do_not_say_of_smt_the_command_line_does():
    assert told(SMT_OFF, dumped=made_dumped(smt_control=None), resumer_cmdline="nosmt") == (True, INFERRED)
    assert told(SMT_OFF, dumped=made_dumped(smt_control=None), resumer_cmdline="") == (False, INFERRED)


def test_of_a_way_to_park_that_was_given_no_driver_is_known():
    assert idle_driver(asking(resumer_idle="halt")) is None
    assert idle_driver(asking(collected={"idle": IdleDriver("haltpoll")})) == "haltpoll"
