"""Every fact of a run has a standing; the best source wins, and what cannot both be true ends the check."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hibercheck.errors import Mismatch, UsageProblem
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.e820 import RAM, E820Entry
from hibercheck.handoff.facts.firmware_map import FirmwareMap
from hibercheck.handoff.facts.logged import LogFacts
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known import TABLE
from hibercheck.handoff.verdict.findings import Fate, Outcome, Verdict
from tests.support.made_inputs import INTEL, asking, made_dumped

FACTS = Path(__file__).parent.parent / "facts" / "small-current-kaslr.json"
"""Collected on small-current with two CPUs, SMT off by nosmt and a random address."""


@pytest.fixture
def collected(tmp_path):
    """Return a function that writes facts, changed as wanted, and gives their path."""

    def write(**changes):
        path = tmp_path / "facts.json"
        path.write_text(json.dumps(json.loads(FACTS.read_text()) | changes))
        return str(path)

    return write


def by_name(report):
    return {one.name: one for one in report.assumptions if one.name is not None}


def values(report, *names):
    found = by_name(report)
    return tuple(found[name].value for name in names)


def test_each_fact_is_declared_once_and_has_a_source():
    names = [fact.name for fact in TABLE]
    assert len(set(names)) == len(names)
    assert all(fact.sources for fact in TABLE)


BY_NAME = {fact.name: fact for fact in TABLE}
IMAGE = SimpleNamespace(header=SimpleNamespace(hw_sig=1), info=SimpleNamespace(num_physpages=5), compressor="none")


def those(wanted):
    return {name for name, fact in BY_NAME.items() if wanted(fact)}


def test_what_may_have_changed_between_two_boots_is_the_machine():
    """Of these the resumee's is held against what was measured; all others are of a run's own doing."""
    assert those(lambda fact: fact.of_machine) == {"cpus", "cpu-features", "line-size", "mwait-states"}


def test_what_is_compared_by_something_else():
    """The map is what the resumer itself compares; memory is freed while it runs."""
    assert those(lambda fact: fact.same is None) == {"memory-map", "free-pages"}


def test_what_is_asked_for_only_where_something_rests_on_it():
    """Of most runs these decide nothing."""
    assert those(lambda fact: fact.on_demand) == {
        *("mwait", "mwait-states", "line-size", "exit-latency", "copy-rate", "wake-latency")
    }
    assert those(lambda fact: fact.lazy) == {"idle-driver", "load-alignment"}  # it takes reading much of a kernel


def test_what_a_report_shows_without_being_asked():
    """What a user says of a run, or is to look at first."""
    assert those(lambda fact: not fact.detail) == {
        *("command-line", "cpus", "offline-by-hand", "idle-driver", "load-address", "mwait", "wake-latency")
    }


OPTIONS = {
    "--resumer-cmdline": ("command-line", "kaslr-offset", "paging-levels"),
    "--resumer-offline": ("offline-by-hand", "online"),
    "--resumer-idle": ("idle-driver",),
    "--resumer-phys-base": ("load-address",),
    "--resumer-facts": ("hibernates", "memory-map"),
    "--wake-latency": ("wake-latency",),
    "--tlb": ("tlb",),
    "--fact cpu-flags=": ("cpu-features", "fred"),
    "--fact smt=": ("smt-off",),
    "--fact load-align=": ("load-alignment",),
    "--fact lz4=": ("compressor",),
    "--fact pages=": ("pages",),
    **{f"--fact {name}=": (name,)
       for name in ("booted", "copy-rate", "cpus", "exit-latency", "free-pages", "hw-sig", "line-size", "lockdown",
                    "modes", "mwait", "resume")},
    None: ("mwait-states", "topology"),  # which nothing but the machine tells
}  # fmt: skip


def test_what_settles_a_fact():
    """The option that a report names beside what it assumes."""
    assert {name: fact.option for name, fact in BY_NAME.items()} == {
        name: option for option, names in OPTIONS.items() for name in names
    }


@pytest.mark.parametrize(("options", "name", "option"), [
    ({"resumer_cmdline": "quiet"}, "command-line", "--resumer-cmdline"),
    ({"resumer_offline": frozenset({1})}, "offline-by-hand", "--resumer-offline"),
    ({"resumer_idle": "mwait"}, "idle-driver", "--resumer-idle"),
    ({"resumer_phys_base": 0x2000000}, "load-address", "--resumer-phys-base"),
    ({"wake_latency": 3}, "wake-latency", "--wake-latency"), ({"tlb": "cold"}, "tlb", "--tlb"),
    ({"mwait_spins": True}, "mwait", "--mwait-spins"), ({"facts": (("mwait", "ends"),)}, "mwait", "--fact mwait="),
    ({"facts": (("cpus", "0-1"),)}, "cpus", "--fact cpus="), ({"facts": (("smt", "off"),)}, "smt-off", "--fact smt="),
    ({"facts": (("booted", "0-1"),)}, "booted", "--fact booted="),
    ({"facts": (("cpu-flags", "-mwait"),)}, "cpu-features", "--fact cpu-flags="),
    ({"facts": (("cpu-vendor", "amd"),)}, "cpu-features", "--fact cpu-vendor="),
    ({"facts": (("load-align", "4M"),)}, "load-alignment", "--fact load-align="),
    ({"facts": (("lockdown", "integrity"),)}, "lockdown", "--fact lockdown="),
    ({"facts": (("hw-sig", "other"),)}, "hw-sig", "--fact hw-sig="),
    ({"facts": (("pages", "77"),)}, "pages", "--fact pages="),
    ({"facts": (("free-pages", "77"),)}, "free-pages", "--fact free-pages="),
    ({"facts": (("resume", "user"),)}, "resume", "--fact resume="),
    ({"facts": (("line-size", "32"),)}, "line-size", "--fact line-size="),
    ({"facts": (("exit-latency", "32"),)}, "exit-latency", "--fact exit-latency="),
    ({"facts": (("copy-rate", "32"),)}, "copy-rate", "--fact copy-rate="),
])  # fmt: skip
def test_what_was_given_is_said_to_come_of_its_option(options, name, option):
    found = asking(image=IMAGE, traits={"randomize_base": True}, **options).need(BY_NAME[name])
    assert (found.standing, found.option) == (Standing.GIVEN, option)


TWO = frozenset({0, 2})
MAP = (E820Entry(0, 1 << 30, RAM),)
SLOW = MonitorLeaf(32, (0, 1, 0, 0, 0, 0, 0, 0), True)


@pytest.mark.parametrize("what_if", [False, True])
@pytest.mark.parametrize(("name", "source", "of_run"), [
    ("smt-off", {"dumped": made_dumped(smt_control="disabled")}, True),
    ("smt-off", {"collected": {"smt_control": "off"}}, True),
    ("smt-off", {"logged": LogFacts("log", smt_off=True)}, True),
    ("booted", {"dumped": made_dumped(booted=TWO)}, True), ("booted", {"collected": {"booted": TWO}}, True),
    ("online", {"dumped": made_dumped(online=TWO, frozen=TWO)}, True),
    ("online", {"collected": {"online": TWO}}, True),
    ("lockdown", {"dumped": made_dumped(lockdown="integrity")}, True),
    ("lockdown", {"collected": {"lockdown": "integrity"}}, True),
    ("lockdown", {"logged": LogFacts("log", lockdown="integrity")}, True),
    ("paging-levels", {"collected": {"levels": 5}}, True), ("hibernates", {"collected": {"hibernation": True}}, True),
    ("free-pages", {"collected": {"free_pages": 7}}, True), ("exit-latency", {"collected": {"exit_latency": 7}}, True),
    ("cpus", {"logged": LogFacts("log", present=TWO)}, True),
    ("cpus", {"dumped": made_dumped(present=TWO)}, False), ("cpus", {"collected": {"present": TWO}}, False),
    ("cpu-features", {"dumped": made_dumped(features=INTEL)}, False),
    ("cpu-features", {"collected": {"features": INTEL}}, False),
    ("pages", {"dumped": made_dumped(pages=9)}, False), ("pages", {"collected": {"pages": 9}}, False),
    ("memory-map", {"dumped": made_dumped(e820=MAP)}, False),
    ("memory-map", {"collected": {"firmware": FirmwareMap(MAP, "kernel")}}, False),
    ("memory-map", {"logged": LogFacts("log", firmware=FirmwareMap(MAP, "kernel"))}, False),
    ("line-size", {"collected": {"monitor": SLOW}}, False), ("mwait-states", {"collected": {"monitor": SLOW}}, False),
])  # fmt: skip
def test_of_another_run_on_a_measured_machine_only_the_machine_is_taken(name, source, of_run, what_if):
    """With --what-if a command line is judged on the machine that was measured; what came of the other line is not."""
    found = asking(image=IMAGE, resumer_cmdline="", what_if=what_if, **source).known(BY_NAME[name])
    assert (found is not None and found.standing is Standing.MEASURED) is not (of_run and what_if)


def test_without_anything_of_the_resumer_its_facts_are_given_inferred_or_usual(predict):
    found = by_name(predict("same-build"))
    assert found["command-line"].standing is Standing.GIVEN
    assert found["cpus"].standing is Standing.INFERRED
    assert found["cpu-features"].standing is Standing.INFERRED
    assert found["load-address"].standing is Standing.INFERRED  # the resumee had no KASLR either, and lies there
    assert found["offline-by-hand"].standing is Standing.USUAL
    assert found["paging-levels"].standing is Standing.INFERRED


def test_with_a_dump_everything_comes_from_the_dump(predict):
    report = predict("fatal", memory=True, resumer_cmdline=None)
    found = by_name(report)
    measured = {name for name, one in found.items() if one.standing is Standing.MEASURED}
    # which its kernel has no types for: the number of pages; what a kernel does with images it says in its code; how
    # fast a machine is, how long its lines are and what a CPU has cached is in no memory
    assert {*found} - measured == {"pages", "compressor", "tlb", "line-size"}
    assert {one.source for name, one in found.items() if name in measured} == {"its memory dump"}
    assert found["command-line"].value == "console=ttyS0 panic=-1 nokaslr nosmt init_on_free=1"
    assert values(report, "cpus", "booted", "online", "smt-off") == ("0-1", "0-1", "0", "yes")
    assert report.verdict is Verdict.FATAL


def test_with_facts_what_was_collected_is_measured(predict, collected):
    found = by_name(predict("same-build", resumer_cmdline=None, resumer_facts=collected()))
    assert {name for name, one in found.items() if one.standing is Standing.MEASURED} >= {
        *("command-line", "cpus", "offline-by-hand", "idle-driver", "load-address", "kaslr-offset"),
        *("cpu-features", "smt-off", "online"),
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resumer_cmdline": "nokaslr"}, "nokaslr (--resumer-cmdline)"),
        ({"resumer_phys_base": 0x4000000}, "0x4000000 (--resumer-phys-base)"),
        ({"resumer_idle": "mwait"}, "mwait (--resumer-idle)"),
    ],
)
def test_what_contradicts_a_dump_is_not_obeyed(predict, options, said):
    """The right dump with another command line once turned a reset that was measured into a pass."""
    with pytest.raises(Mismatch) as raised:
        predict("fatal", memory=True, **options)
    assert raised.value.exit_status == 3
    assert said in str(raised.value)
    assert "(its memory dump)" in str(raised.value)
    assert "--what-if" in str(raised.value)


def test_what_if_obeys_the_command_line_and_takes_machine_and_place_from_the_dump(predict):
    report = predict("random-address", memory=True, resumer_cmdline="quiet", what_if=True)
    measured = predict("random-address", memory=True)
    found = by_name(report)
    assert (found["command-line"].value, found["command-line"].standing) == ("quiet", Standing.GIVEN)
    assert found["load-address"].standing is Standing.MEASURED
    assert report.resumer.load_address == measured.resumer.load_address
    assert found["cpu-features"].standing is Standing.MEASURED
    # without nosmt CPU 1 is online and parked by the handoff, in HLT, where the dump has it in MWAIT
    states = [{cpu.cpu: cpu.state for cpu in one.cpus} for one in (report, measured)]
    assert [state[1] for state in states] == ["hlt", "mwait"]
    assert any("nobody has measured" in warning for warning in report.warnings)
    assert not any("nobody has measured" in warning for warning in measured.warnings)


def test_a_dump_of_another_boot_is_told(committed, predict):
    """Its command line is not the one that is given, although both are of this kernel."""
    with pytest.raises(Mismatch, match=r"command line: .* nosmt init_on_free=1 \(its memory dump\) and nokaslr nosmt"):
        predict("benign", resumer_memory=committed("random-address")["memory"])


def test_facts_with_more_cpus_than_the_image(predict, collected):
    """The machine was resized: CPUs 2 and 3 follow the two that the image knows, and there is a warning."""
    more = {"present": "0-3", "online": "0,2", "cmdline": "nokaslr nosmt", "kallsyms": [], "iomem": []}
    report = predict("safe", resumer_cmdline=None, resumer_facts=collected(**more))
    assert values(report, "cpus", "topology") == ("0-3", "0-1; 2-3")
    assert [cpu.cpu for cpu in report.cpus] == [0, 1, 2, 3]
    assert any("0-3 (collected on the resumer)" in warning for warning in report.warnings)


def test_cpus_that_the_image_does_not_know_can_be_given(predict):
    report = predict(
        "no-overlap", resumer_cmdline="nokaslr", facts=(("cpus", "0-3"),), resumer_offline=frozenset({2, 3})
    )
    assert values(report, "cpus", "offline-by-hand") == ("0-3", "2-3")


def test_a_cpu_that_only_the_resumer_has_may_be_offline(predict):
    report = predict("no-overlap", resumer_cmdline="nokaslr", resumer_offline=frozenset({3}))
    assert values(report, "cpus", "offline-by-hand") == ("0-3", "3")
    assert [cpu.cpu for cpu in report.cpus] == [0, 1, 2, 3]
    assert any("the resumer is taken to have CPUs 0-3" in warning for warning in report.warnings)
    with pytest.raises(UsageProblem, match=r"CPU 3, but the resumer has CPUs 0-1; give --fact cpus=LIST"):
        predict("no-overlap", resumer_cmdline="nokaslr nr_cpus=2", resumer_offline=frozenset({3}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"online": "0-1", "smt_control": "forceoff"}, "SMT is off, and CPUs 0-1 of one core are online"),
        ({"cmdline": "nokaslr nosmt"}, "0xc600000 (collected on the resumer) and 0x0 (no KASLR)"),
        ({"online": "1"}, "CPU 0, which is the one that resumes, is offline"),
        ({"present": "0", "online": "0-1", "smt_control": "on", "cmdline": "quiet"}, "the resumer has CPU 1 online"),
    ],
)
def test_facts_that_cannot_be_of_one_boot(predict, collected, changes, said):
    with pytest.raises(Mismatch) as raised:
        predict("same-build", resumer_cmdline=None, resumer_facts=collected(**changes))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"present": "0", "online": "0"}, "the resumer's CPUs: 0 (collected on the resumer) and 0-1 (the resumee's"),
        (
            {"cpuinfo": ["processor: 0", "vendor_id: AuthenticAMD", "apicid: 0", "flags: clflush nx"]},
            "what the resumer's CPU can do: amd: clflush nx (collected on the resumer) and intel 6/94: ",
        ),
    ],
)
def test_another_machine_under_the_resumer_is_a_warning(predict, collected, changes, said):
    report = predict("same-build", resumer_cmdline=None, resumer_facts=collected(**changes))
    assert any(said in warning for warning in report.warnings)


def test_a_flag_that_the_resumer_was_told_to_clear_is_no_other_machine(predict):
    """131 is MONITOR/MWAIT: 4 * 32 + 3."""
    hlt = predict("benign", resumer_cmdline="nokaslr nosmt clearcpuid=131")
    assert {cpu.cpu: cpu.state for cpu in hlt.cpus}[1] == "hlt"
    again = predict("benign", facts=(("cpu-flags", "-monitor"),))
    assert {cpu.cpu: cpu.state for cpu in again.cpus}[1] == "hlt"
    assert {cpu.cpu: cpu.state for cpu in predict("benign").cpus}[1] == "mwait"


def test_whether_smt_is_off_is_taken_from_what_the_same_words_did_to_the_resumee(predict):
    report = predict("same-build", resumer_cmdline="nokaslr mitigations=auto,nosmt")
    assert report.verdict is not Verdict.UNDETERMINED
    given = predict("same-build", resumer_cmdline="nokaslr mitigations=auto,nosmt", facts=(("smt", "on"),))
    assert values(given, "smt-off", "online") == ("no", "0-1")


def test_a_cpu_that_the_resumee_has_started_anew_is_in_its_own_memory(predict):
    """The same NMI kills the CPU that the resumee left where it was."""
    left = predict("latent")
    back = predict("latent", resumee_online=frozenset({1}))
    again = predict("latent", resumee_online=frozenset({1}), resumee_offline=frozenset({1}))
    fates = [{cpu.cpu: cpu.fate for cpu in one.cpus}[1] for one in (left, back, again)]
    assert fates == [Fate.DIES, Fate.REINITIALISED, Fate.REINITIALISED]
    assert left.verdict is Verdict.FATAL
    assert back.verdict is Verdict.SAFE


def test_a_sibling_that_is_down_already_is_not_taken_offline_by_hand(predict):
    report = predict("same-build", resumer_offline=frozenset({1}))
    assert values(report, "offline-by-hand") == ("none",)
    assert any("down already" in warning for warning in report.warnings)


def test_a_cpu_that_was_taken_offline_by_hand_had_been_started(predict):
    """maxcpus=1 leaves it alone, so that only a hand can have started it."""
    report = predict("same-build", resumer_cmdline="nokaslr maxcpus=1", resumer_offline=frozenset({1}))
    assert values(report, "booted", "online", "offline-by-hand") == ("0-1", "0", "1")
    assert any("does not start by itself" in warning for warning in report.warnings)
    assert {cpu.cpu: cpu.state for cpu in report.cpus}[1] != "never_booted"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resumee_online": frozenset({7})}, "--resumee-online names CPU 7, but the resumee knows of CPUs 0-1"),
        ({"resumee_offline": frozenset({1})}, "--resumee-offline names CPU 1, but the resumee runs on CPUs 0"),
    ],
)
def test_what_the_resumee_cannot_do(predict, options, said):
    with pytest.raises(UsageProblem, match=said):
        predict("latent", **options)


@pytest.mark.parametrize(("address", "outcome"), [
    (None, Outcome.MAY_RESET), (0x1000000, Outcome.RESETS), (0x6000000, Outcome.RESUMES),
])  # fmt: skip
def test_an_address_that_is_given_is_obeyed_without_nokaslr_too(predict, address, outcome):
    report = predict("fatal", resumer_cmdline="nosmt init_on_free=1", resumer_phys_base=address)
    assert (report.outcome, report.resumer.load_address) == (outcome, address)
