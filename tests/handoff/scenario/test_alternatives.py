"""What of a run could be otherwise, each with the sign of it in the inputs and the options that say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.facts.cpufacts import Topology
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.scenario.alternatives import KINDS, alternatives, place_is_open, with_fact
from tests.support.cases import says_the_same
from tests.support.made_inputs import INTEL, LINKED, made_dumped, made_plan, made_resumee, made_space

CORES = frozenset(range(4))


def offered(kind, **given):
    """Return the alternatives of a kind, as (value, what to add to the command line), which says what is judged."""
    plan = made_plan(**given)
    found = [one for one in alternatives(plan) if one.id == kind]
    assert all(says_the_same(one, plan.options) for one in found)
    assert all(KINDS[kind].fact == one.fact and one.reason for one in found)
    return [(one.value, *one.arguments) for one in found]


def test_nothing_is_varied_without_a_sign():
    assert alternatives(made_plan()) == ()


ABOUT = (
    # who is parked, and how
    ("idle-driver", "mwait-exits", "tlb", "smt", "bringup-order", "resumee-start"),
    # where the resumer lies, and what its machine is
    ("load-address", "load-alignment", "cpus", "cpu-features", "modes"),
    # whether it loads the image at all
    ("bootconfig", "lockdown", "resume", "hw-sig", "hw-sig-guest", "lz4-module", "memory-added", "room"),
)


def test_two_kinds_are_judged_together_only_where_they_are_about_different_things():
    """Of two about one thing the second has nothing to add: CPUs parked in HLT are not parked in MWAIT as well."""
    assert {kind.id: kind.about for kind in KINDS.values()} == {
        name: about for about, names in enumerate(ABOUT) for name in names
    }
    assert all(name == kind.id for name, kind in KINDS.items())


def at(phys_base, line="nokaslr", **values):
    return made_resumee(made_space(phys_base=phys_base), command_line=line, **values)


ELSEWHERE = f"{LINKED:#x}", ("--resumer-phys-base", f"{LINKED:#x}")


@pytest.mark.parametrize(("given", "reason", "expected"), [
    ({}, None, []),
    ({"resumee": at(0)}, None, []),
    ({"resumee": at(0x2000000)}, "the resumee, without KASLR too, lies at 0x3000000", [ELSEWHERE]),
    ({"resumee": at(0x2000000, "quiet")}, None, []),
    ({"resumee": at(0, "quiet", booted_by_efi=True)}, "the firmware is UEFI", []),
    ({"resumee": at(0, booted_by_efi=True)}, None, []),  # UEFI put the resumee where it is linked
    ({"resumee": at(0, "quiet", booted_by_kexec=True)}, "the resumee was started by kexec", []),
    ({"resumee": at(0x2000000, booted_by_kexec=True)}, "the resumee was started by kexec", [ELSEWHERE]),
    ({"resumee": at(0x2000000), "resumer_phys_base": 0x3000000}, None, []),
    ({"resumee": at(0x2000000), "traits": {"randomize_base": True}, "resumer_cmdline": "quiet"}, None, []),
    ({"resumee": at(0x2000000), "collected": {"load_address": 0x3000000}}, None, []),
    ({"resumee": at(0x2000000, booted_by_kexec=True), "traits": {"randomize_base": True}, "resumer_cmdline": "quiet"},
     None, []),
])  # fmt: skip
def test_a_resumer_without_kaslr_may_lie_elsewhere(given, reason, expected):
    said = place_is_open(made_plan(**given))
    assert (said is None) is (reason is None)
    assert said is None or said.startswith(reason)
    assert offered("load-address", **given) == expected


RANDOM = {"traits": {"randomize_base": True}, "resumer_cmdline": "quiet"}


@pytest.mark.parametrize(("given", "offers"), [
    (RANDOM, True), ({**RANDOM, "resumer_cmdline": "nokaslr"}, False),
    ({**RANDOM, "facts": (("load-align", "4M"),)}, False), ({**RANDOM, "resumer_phys_base": 0x3000000}, False),
    ({"traits": {"randomize_base": False}, "resumer_cmdline": "quiet"}, False),
    ({"traits": {"randomize_base": None}, "resumer_cmdline": "quiet"}, False),  # where it lies is missing
])  # fmt: skip
def test_a_random_address_may_be_a_multiple_of_more_than_its_file_tells(given, offers):
    """CONFIG_PHYSICAL_ALIGN is at most 16 MiB (arch/x86/Kconfig)."""
    expected = [("16 MiB", ("--fact", "load-align=16M"))] if offers else []
    assert offered("load-alignment", **given) == expected


VIRTUAL = replace(INTEL, flags=INTEL.flags | {"hypervisor"})
MWAIT = {"resume_park": "native", "play_dead_order": ("mwait", "hlt"), "mwait_vendor_check": ("AMD",)}


@pytest.mark.parametrize(("given", "offers"), [
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL)}, True),
    ({"traits": MWAIT}, False),
    ({"resumee": made_resumee(features=VIRTUAL)}, False),  # its CPUs are parked in HLT
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "spurious_mwait": True}, False),
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "mwait_spins": True}, False),
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "facts": (("mwait", "sleeps"),)}, False),
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL, hypervisor=True)}, True),
    ({"traits": MWAIT, "resumee": made_resumee(features=None)}, False),
])  # fmt: skip
def test_a_hypervisor_may_let_mwait_end_at_once(given, offers):
    assert offered("mwait-exits", **given) == ([("at once", ("--mwait-spins", ""))] if offers else [])


PORT = {"resume_park": "native", "play_dead_order": ("cpuidle", "hlt"), "enter_dead": ("acpi_idle:port",)}


@pytest.mark.parametrize(("given", "offers"), [
    ({"traits": MWAIT}, True),
    ({"traits": PORT, "resumer_idle": "port"}, True),
    ({"traits": {}}, False),  # its CPUs are parked in HLT
    ({"traits": MWAIT, "mwait_spins": True}, False),
    ({"traits": MWAIT, "facts": (("mwait", "ends"),)}, False),
    ({"traits": MWAIT, "facts": (("mwait", "sleeps"),)}, False),
    ({"traits": MWAIT, "spurious_mwait": True}, False),
    ({"traits": MWAIT, "dumped": made_dumped(features=VIRTUAL, hypervisor=False)}, True),
])  # fmt: skip
def test_a_cpu_that_is_emulated_may_sleep_all_the_same(given, offers):
    resumee = made_resumee(features=VIRTUAL, hypervisor=False)
    assert offered("mwait-exits", resumee=resumee, **given) == (
        [("it sleeps", ("--fact", "mwait=sleeps"))] if offers else []
    )


@pytest.mark.parametrize(("given", "offers"), [
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "spurious_mwait": True}, True),
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL)}, False),  # no wait ends by itself
    ({"traits": MWAIT, "spurious_mwait": True}, False),  # on the machine itself it is taken to be cold
    ({"resumee": made_resumee(features=VIRTUAL), "spurious_mwait": True}, False),  # its CPUs are parked in HLT
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "tlb": "warm"}, False),
    ({"traits": MWAIT, "resumee": made_resumee(features=VIRTUAL), "tlb": "cold"}, False),
])  # fmt: skip
def test_a_virtual_cpu_may_wake_without_its_translations(given, offers):
    assert offered("tlb", **given) == ([("none of them", ("--tlb", "cold"))] if offers else [])


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_cmdline": "acpi=off"}, [("0-3", ("--fact", "cpus=0-3"))]),
    ({"resumer_cmdline": "acpi=off", "facts": (("cpus", "0"),)}, []),
    ({"resumer_cmdline": "acpi=off", "resumee": made_resumee(booted_by_efi=True)}, []),  # UEFI has no MP table
    ({"resumer_cmdline": "acpi=off", "resumee": made_resumee(present=frozenset({0}), frozen=frozenset(),
                                                             topology=Topology({0: 0}, 0, frozenset({0})))}, []),
    ({"resumer_cmdline": "acpi=off", "resumee": made_resumee(present=frozenset({0, 1}), frozen=frozenset({1}),
                                                             topology=Topology({0: 0, 1: 1}, 0, frozenset({0, 1})))},
     [("0-1", ("--fact", "cpus=0-1"))]),
    ({"resumer_cmdline": ""}, []),
    ({"collected": {"present": frozenset({0, 1})}}, [("0-3", ("--fact", "cpus=0-3"), ("--what-if", ""))]),
    ({"collected": {"present": CORES}}, []),
    ({"resumee": made_resumee(present=frozenset({0, 1}), frozen=frozenset({1}), may_count_slots=True)},
     [("0-1", ("--fact", "cpus=0-1"))]),
    ({"resumee": made_resumee(may_count_slots=True)}, []),
    ({"resumee": made_resumee(present=frozenset({0, 1}), frozen=frozenset({1}))}, []),
])  # fmt: skip
def test_cpus_that_only_one_kernel_saw(given, expected):
    assert offered("cpus", **given) == expected


HIDDEN = made_resumee(command_line="nosmep clearcpuid=131", features=replace(INTEL, flags=frozenset({"clflush"})))


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumee": HIDDEN, "resumer_cmdline": ""}, [("-monitor,-smep", ("--fact", "cpu-flags=-monitor,-smep"))]),
    ({"resumee": HIDDEN, "resumer_cmdline": "nosmep"}, [("-monitor", ("--fact", "cpu-flags=-monitor"))]),
    ({"resumee": HIDDEN, "resumer_cmdline": "nosmep clearcpuid=131"}, []),
    ({"resumee": HIDDEN, "resumer_cmdline": "", "facts": (("cpu-flags", "+smap"),)}, []),
    ({"collected": {"features": replace(INTEL, flags=frozenset({"clflush", "gbpages"}))}},
     [("+monitor,+smep,-pdpe1gb", ("--fact", "cpu-flags=+monitor,+smep,-pdpe1gb"), ("--what-if", ""))]),
    ({"collected": {"features": replace(INTEL, vendor="amd")}},
     [("intel", ("--fact", "cpu-vendor=intel"), ("--what-if", ""))]),
    ({"collected": {"features": replace(INTEL, vendor="amd", flags=frozenset({"clflush", "smep"}))}},
     [("intel, +monitor", ("--fact", "cpu-vendor=intel"), ("--fact", "cpu-flags=+monitor"), ("--what-if", ""))]),
    ({"collected": {"features": replace(INTEL, model=1)}}, []),  # which model decides is not said
    ({"resumee": made_resumee(features=replace(INTEL, vendor="Shrimp")), "collected": {"features": INTEL}}, []),
])  # fmt: skip
def test_features_that_only_one_kernel_saw(given, expected):
    assert offered("cpu-features", **given) == expected


MAYBE = "mitigations=auto,nosmt"
OPEN = made_resumee(features=replace(INTEL, bugs=None))


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumee": OPEN, "resumer_cmdline": MAYBE}, [("on", ("--fact", "smt=on"))]),
    ({"resumee": OPEN, "resumer_cmdline": "nosmt"}, []),
    ({"resumee": OPEN, "resumer_cmdline": MAYBE, "facts": (("smt", "off"),)}, []),
    ({"resumer_cmdline": MAYBE}, []),
])  # fmt: skip
def test_bugs_that_nobody_told_of(given, expected):
    assert offered("smt", **given) == expected


TWO = [("CPUs 0,2 are started", ("--fact", "booted=0,2"))]


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_cmdline": "maxcpus=2"}, TWO),
    ({"resumer_cmdline": "maxcpus=2", "traits": {"parallel_bringup": True}}, []),
    ({"resumer_cmdline": "maxcpus=2", "traits": {"parallel_bringup": False}}, []),
    ({"resumer_cmdline": "maxcpus=4"}, []),  # it comes to the same
    ({"resumer_cmdline": "nosmt maxcpus=2"}, TWO),
    ({"resumer_cmdline": "maxcpus=2", "facts": (("booted", "0-1"),)}, []),
    ({"resumer_cmdline": ""}, []), ({"resumer_cmdline": "maxcpus=0"}, []),
    ({"resumer_cmdline": "maxcpus=2", "resumer_offline": frozenset({1})}, TWO),
])  # fmt: skip
def test_the_order_of_bringup_where_it_is_not_known(given, expected):
    assert offered("bringup-order", **given) == expected


OFF = made_resumee(smt_control="disabled", frozen=frozenset({2}))


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumee": OFF, "traits": {"nosmt_resume_targets": None}}, []),  # cores that are online: all of them
    ({"resumee": replace(OFF, frozen=frozenset()), "traits": {"nosmt_resume_targets": None}},
     [("CPUs 2-3 too", ("--resumee-online", "2-3"))]),
    ({"resumee": replace(OFF, frozen=frozenset()), "traits": {"nosmt_resume_targets": None},
      "resumee_online": frozenset({2})}, [("CPUs 3 too", ("--resumee-online", "2-3"))]),
    ({"resumee": replace(OFF, frozen=frozenset())}, []),
    ({"resumee": made_resumee(frozen=frozenset()), "traits": {"nosmt_resume_targets": None}}, []),
])  # fmt: skip
def test_whom_the_resumee_starts_where_its_code_does_not_tell(given, expected):
    assert offered("resumee-start", **given) == expected


def test_cpus_that_are_brought_online_add_to_those_that_were_named():
    given = {"resumee": replace(OFF, frozen=frozenset()), "resumee_online": frozenset({2})}
    (found,) = alternatives(made_plan(**given, traits={"nosmt_resume_targets": None}))
    assert found.options.resumee_online == {2, 3}


ASKS = {"resume_park": "native", "play_dead_order": ("cpuidle", "hlt"), "mwait_vendor_check": (),
        "idle_drivers": ("acpi_idle:builtin",), "enter_dead": ("acpi_idle:port_io",)}  # fmt: skip


@pytest.mark.parametrize(("given", "values"), [
    ({"resumer_cmdline": "quiet"}, ["mwait", "port", "halt"]),
    ({"resumee": made_resumee(idle=IdleDriver("haltpoll")), "resumer_idle": "none"}, []),
    ({"resumer_cmdline": "quiet", "resumer_idle": "mwait"}, []),  # it is said
    ({"resumer_cmdline": "cpuidle.off=1"}, []),
    ({"traits": {"resume_park": "hlt"}, "resumer_cmdline": "quiet"}, []),  # nobody asks the driver
])  # fmt: skip
def test_how_dead_cpus_are_parked_where_the_image_does_not_show_it(given, values):
    given = {**given, "traits": {**ASKS, **given.get("traits", {})}}
    assert [arguments for _, arguments in offered("idle-driver", **given)] == [
        ("--resumer-idle", value) for value in values
    ]  # fmt: skip


ASKED = {"traits": {"bootconfig": "if asked for"}}
FORCED = {"traits": {"bootconfig": "always"}}


def adds(line):
    return [(more, ("--resumer-cmdline", f"{line} {more}".strip())) for more in ("hibernate=no", "cpuidle.off=1")]


@pytest.mark.parametrize(("given", "expected"), [
    (ASKED | {"resumer_cmdline": "quiet bootconfig"}, adds("quiet bootconfig")),
    ({"resumer_cmdline": "bootconfig", "traits": {"bootconfig": None}}, adds("bootconfig")),
    ({"resumer_cmdline": "bootconfig", "traits": {"bootconfig": "no"}}, []),
    (ASKED | {"resumer_cmdline": "quiet"}, []),
    (FORCED | {"resumer_cmdline": "quiet"}, adds("quiet")),
    (FORCED | {"resumer_cmdline": ""}, adds("")),
    # what the line itself says comes after it
    (FORCED | {"resumer_cmdline": "cpuidle.off=0"}, adds("cpuidle.off=0")[:1]),
    (FORCED | {"resumer_cmdline": "hibernate=noresume"}, adds("hibernate=noresume")[1:]),
    # what is built in is not said again: the decompressor would see it
    ({"resumer_cmdline": "quiet", "traits": {"bootconfig": "always", "builtin_cmdline": "nokaslr"}}, adds("quiet")),
    ({"resumer_cmdline": "quiet", "traits": {"bootconfig": "always", "builtin_cmdline": "nokaslr",
                                             "builtin_cmdline_overrides": True}}, []),
    (FORCED | {"collected": {"command_line": "quiet"}}, []),  # a line that was measured has them
])  # fmt: skip
def test_a_bootconfig_that_nobody_has_looked_at(given, expected):
    assert offered("bootconfig", **given) == expected


def test_a_fact_that_is_said_again_replaces_the_first():
    options = made_plan(facts=(("smt", "on"), ("pages", "5"))).options
    assert with_fact(options, "smt", "off") == (("pages", "5"), ("smt", "off"))


@pytest.mark.parametrize(("given", "value"), [
    ({"resumer_cmdline": "nox2apic intel_iommu=on"}, "x2APIC and the IOMMU"),
    ({"resumer_cmdline": ""}, None),
    ({"resumer_cmdline": "nox2apic", "resumee": made_resumee(made_space(variables={"x2apic_mode": 0}))}, None),
    ({"resumer_cmdline": "nox2apic", "resumee": made_resumee(made_space(variables={"x2apic_mode": 1}))},
     "x2APIC"),
    ({"resumer_cmdline": "nox2apic", "facts": (("modes", "same"),)}, None),
    ({"collected": {"command_line": "nox2apic", "modes": {}}}, "x2APIC"),
])  # fmt: skip
def test_modes_of_the_machine_that_one_kernel_alone_was_told_of(given, value):
    found = offered("modes", **given)
    more = (("--what-if", ""),) if "collected" in given else ()
    assert found == ([] if value is None else [(value, ("--fact", "modes=other"), *more)])
