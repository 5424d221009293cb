"""The resumer's machine: its command line, CPUs, cores and features, each from the best source that has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.cpufacts import Topology
from hibercheck.handoff.facts.logged import LogFacts
from hibercheck.handoff.facts.modes import MODES
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known_machine import (
    COMMAND_LINE,
    FEATURES,
    MACHINE_MODES,
    PRESENT,
    TOPOLOGY,
    UNNAMED,
    bootconfig_unseen,
    embedded_bootconfig,
    machine_features,
    modes_told_apart,
    remark_bootconfig,
    settle_local_apic,
    settle_modes,
)
from tests.support.made_inputs import INTEL, SMT, Kernel, asking, made_dumped, made_plan, made_resumee, made_space

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing


def told(fact, **given):
    found = asking(**given).known(fact)
    return None if found is None else (found.value, found.standing)


@pytest.mark.parametrize(("given", "text", "standing"), [
    ({"resumer_cmdline": "nosmt"}, "nosmt", GIVEN),
    ({"resumer_cmdline": ""}, "", GIVEN),
    ({"resumee": made_resumee(loader_line="quiet")}, "quiet", INFERRED),
    ({"resumee": made_resumee(loader_line=None, command_line="quiet")}, "", USUAL),
    ({"collected": {"command_line": "nosmt"}}, "nosmt", MEASURED),
    ({"collected": {}}, "", INFERRED),
    ({"dumped": made_dumped(command_line="nosmt")}, "nosmt", MEASURED),
    ({"dumped": made_dumped()}, "", INFERRED),
    ({"traits": {"builtin_cmdline": "nosmt"}, "resumer_cmdline": "quiet"}, "nosmt quiet", GIVEN),
    ({"traits": {"builtin_cmdline": "nosmt", "builtin_cmdline_overrides": True}, "resumer_cmdline": "quiet"},
     "nosmt", GIVEN),
    ({"traits": {"builtin_cmdline": "", "builtin_cmdline_overrides": True}, "resumer_cmdline": "quiet"},
     "quiet", GIVEN),
    ({"traits": {"builtin_cmdline": "nosmt"}, "resumee": made_resumee(loader_line="quiet")}, "nosmt quiet", INFERRED),
    # what a running kernel shows has what is built in already
    ({"traits": {"builtin_cmdline": "nosmt"}, "collected": {"command_line": "nosmt quiet"}}, "nosmt quiet", MEASURED),
    # what is added goes to what is known of the line, without what is built in of either kernel
    ({"resumer_cmdline": "quiet", "resumer_cmdline_add": "nosmt"}, "quiet nosmt", GIVEN),
    ({"resumee": made_resumee(loader_line="quiet", command_line="ro quiet"), "resumer_cmdline_add": "nosmt"},
     "quiet nosmt", GIVEN),
    ({"resumee": made_resumee(loader_line=None, command_line="ro"), "resumer_cmdline_add": "nosmt"}, "nosmt", GIVEN),
    ({"collected": {"command_line": "quiet"}, "resumer_cmdline_add": "nosmt", "what_if": True}, "quiet nosmt", GIVEN),
    ({"dumped": made_dumped(command_line="quiet"), "resumer_cmdline_add": "nosmt", "what_if": True},
     "quiet nosmt", GIVEN),
    ({"traits": {"builtin_cmdline": "ro"}, "collected": {"command_line": "ro quiet"}, "resumer_cmdline_add": "nosmt",
      "what_if": True}, "ro quiet nosmt", GIVEN),
    ({"collected": {"command_line": "quiet"}, "resumer_cmdline": "splash", "resumer_cmdline_add": "nosmt",
      "what_if": True}, "splash nosmt", GIVEN),
])  # fmt: skip
def test_the_command_line(given, text, standing):
    found = asking(**given).need(COMMAND_LINE)
    assert (found.value.text, found.standing) == (text, standing)


def test_two_lines_of_one_meaning_do_not_contradict_each_other():
    assert told(COMMAND_LINE, collected={"command_line": "quiet  nosmt"}, resumer_cmdline="nosmt")[1] is MEASURED
    with pytest.raises(Mismatch, match="the resumer's command line"):
        told(COMMAND_LINE, collected={"command_line": "quiet"}, resumer_cmdline="nosmt")
    assert COMMAND_LINE.show(asking(resumer_cmdline="").value(COMMAND_LINE)) == "(empty)"


DUMPED = {"present": frozenset(range(2)), "topology": SMT}


@pytest.mark.parametrize(("given", "cpus", "standing"), [
    ({}, range(4), INFERRED),
    ({"resumer_cmdline": "nr_cpus=2"}, range(2), INFERRED),
    ({"resumer_cmdline": "nr_cpus=2", "facts": (("cpus", "0-7"),)}, range(2), GIVEN),
    ({"facts": (("cpus", "0-7"),)}, range(8), GIVEN),
    ({"collected": {"present": frozenset(range(3))}}, range(3), MEASURED),
    ({"dumped": made_dumped(present=frozenset(range(3)))}, range(3), MEASURED),
    ({"collected": {}}, range(4), INFERRED),
    ({"dumped": made_dumped()}, range(4), INFERRED),
    # another run on the machine that was measured: what it has, as the line then lets it see
    ({"collected": {"present": frozenset(range(6))}, "resumer_cmdline": "nr_cpus=5", "what_if": True},
     range(5), MEASURED),
    ({"dumped": made_dumped(**DUMPED), "resumer_cmdline": "", "what_if": True}, range(4), MEASURED),
    ({"dumped": made_dumped(**DUMPED), "resumer_cmdline": "nr_cpus=3", "what_if": True}, range(3), MEASURED),
    ({"dumped": made_dumped(present=frozenset(range(6))), "resumer_cmdline": "", "what_if": True},
     range(6), MEASURED),
    ({"dumped": made_dumped(**DUMPED), "resumer_cmdline": "", "what_if": True, "facts": (("cpus", "0-4"),)},
     range(5), GIVEN),
    ({"collected": {}, "resumer_cmdline": "", "what_if": True}, range(4), INFERRED),
    ({"dumped": made_dumped(), "resumer_cmdline": "", "what_if": True}, range(4), INFERRED),
])  # fmt: skip
def test_the_cpus(given, cpus, standing):
    assert told(PRESENT, **given) == (frozenset(cpus), standing)


@pytest.mark.parametrize(
    ("given", "cpus"),
    [
        ({}, {0}),
        ({"facts": (("cpus", "0-7"),)}, {0}),
        ({"collected": {"present": frozenset(range(6))}, "resumer_cmdline": "", "what_if": True}, {0}),
        ({"dumped": made_dumped(**DUMPED), "resumer_cmdline": "", "what_if": True}, {0}),
        ({"dumped": made_dumped(present=frozenset({0}))}, {0}),
    ],
)
def test_a_resumer_that_is_built_for_one_cpu_takes_note_of_no_other(given, cpus):
    assert told(PRESENT, traits={"one_cpu": True}, **given)[0] == cpus


def test_another_number_of_cpus_than_the_resumee_had_is_no_contradiction_but_is_told():
    run = asking(collected={"present": frozenset(range(3))})
    run.need(PRESENT)
    (found,) = run.disagreements
    assert (found.fact, found.other) == ("cpus", frozenset(range(4)))
    assert "0-2 (collected on the resumer) and 0-3 (the resumee's present CPUs" in found.text
    with pytest.raises(Mismatch):
        told(PRESENT, collected={"present": frozenset(range(3))}, facts=(("cpus", "0-7"),))


OTHER = Topology({0: 0, 1: 2}, 1, frozenset({0, 1}))


@pytest.mark.parametrize(("given", "apic_ids", "standing"), [
    ({}, SMT.apic_ids, INFERRED),
    ({"collected": {"topology": OTHER, "present": frozenset({0, 1})}}, {0: 0, 1: 2, 2: 1, 3: 3}, MEASURED),
    ({"dumped": made_dumped(topology=OTHER, present=frozenset({0, 1}))}, {0: 0, 1: 2, 2: 1, 3: 3}, MEASURED),
    ({"dumped": made_dumped(topology=SMT), "collected": {"topology": OTHER}}, SMT.apic_ids, MEASURED),
    ({"facts": (("cpus", "0-5"),)}, SMT.apic_ids | {4: 4, 5: 5}, USUAL),
    ({"facts": (("cpus", "0-5"),), "resumee": made_resumee(topology=OTHER)}, {0: 0, 1: 2, 2: 4, 3: 5, 4: 6, 5: 7},
     USUAL),
])  # fmt: skip
def test_which_cpus_share_a_core(given, apic_ids, standing):
    found = asking(**given).need(TOPOLOGY)
    assert (found.value.apic_ids, found.standing) == (apic_ids, standing)
    assert ("follow the others" in found.source) is (standing is USUAL)


ALONE, PAIR = Topology({0: 0}, 0, frozenset({0})), Topology({0: 0, 1: 1}, 1, frozenset({0}))


def test_who_saw_one_cpu_does_not_tell_that_cores_have_one_thread():
    seen = {"collected": {"topology": ALONE, "present": frozenset({0})}, "resumee": made_resumee(topology=PAIR)}
    assert asking(**seen).need(TOPOLOGY).value.cores() == [[0], [1]]
    both = asking(**seen, facts=(("cpus", "0-1"),), what_if=True).need(TOPOLOGY).value
    assert (both.cores(), both.primaries) == ([[0, 1]], frozenset({0}))


@pytest.mark.parametrize(("given", "differ"), [
    ({"collected": {"topology": SMT}}, False),
    ({"collected": {"topology": OTHER, "present": frozenset({0, 1})}}, True),
    ({"dumped": made_dumped(topology=OTHER, present=frozenset({0, 1}))}, True),
    ({"dumped": made_dumped(topology=SMT), "collected": {"topology": OTHER}}, True),
    ({"collected": {"topology": ALONE, "present": frozenset({0})}}, False),
    # CPUs 2 and 3 the resumee only counted: where they are is not known
    ({"collected": {"topology": Topology({0: 0, 1: 1, 2: 4, 3: 6}, 1, frozenset({0, 2, 3}))},
      "resumee": made_resumee(present=frozenset({0, 1}), frozen=frozenset({1}))}, False),
])  # fmt: skip
def test_two_that_put_cpus_into_other_cores_are_told(given, differ):
    run = asking(**given)
    run.need(TOPOLOGY)
    assert any("which of the resumer's CPUs share a core" in remark for remark in run.remarks) is differ


def test_without_any_topology_cores_are_not_known():
    assert told(TOPOLOGY, resumee=made_resumee(topology=None)) is None
    with pytest.raises(MissingFact, match="share a core is not known"):
        asking(resumee=made_resumee(topology=None)).need(TOPOLOGY)


def test_cores_are_shown_one_by_one():
    assert TOPOLOGY.show(SMT) == "0-1; 2-3"
    many = SMT.extended(dict(enumerate(range(1024))))
    assert TOPOLOGY.show(many) == "0-1; 2-3; 4-5; ...; 1022-1023 (512 cores)"
    assert TOPOLOGY.show(SMT.extended(dict(enumerate(range(32))))).count(";") == 15


AMD = replace(INTEL, vendor="amd", flags=frozenset({"clflush"}))


@pytest.mark.parametrize(("given", "flags", "standing"), [
    ({}, INTEL.flags, INFERRED),
    ({"resumer_cmdline": "nosmep"}, INTEL.flags - {"smep"}, INFERRED),
    ({"resumer_cmdline": "clearcpuid=131"}, INTEL.flags - {"mwait"}, INFERRED),
    # what the resumee was told to clear its CPU has
    ({"resumee": made_resumee(command_line="nosmep", features=replace(INTEL, flags=frozenset()))}, {"smep"}, INFERRED),
    ({"facts": (("cpu-flags", "-monitor,+pcid"),)}, INTEL.flags - {"mwait"} | {"pcid"}, GIVEN),
    ({"facts": (("cpu-flags", "+smap"),), "resumer_cmdline": "nosmap nosmep"}, INTEL.flags - {"smep"}, GIVEN),
    ({"collected": {"features": AMD}}, AMD.flags, MEASURED),
    ({"dumped": made_dumped(features=AMD)}, AMD.flags, MEASURED),
    ({"dumped": made_dumped(), "collected": {}}, INTEL.flags, INFERRED),
])  # fmt: skip
def test_what_its_cpu_can_do(given, flags, standing):
    found = asking(**given).need(FEATURES)
    assert (found.value.flags, found.standing) == (flags, standing)


@pytest.mark.parametrize(("given", "flags"), [
    ({"collected": {"features": AMD}}, {"clflush", "pcid"}),
    ({"dumped": made_dumped(features=AMD)}, {"clflush", "pcid"}),
    ({"dumped": made_dumped(features=AMD), "collected": {"features": INTEL}}, {"clflush", "pcid"}),
])  # fmt: skip
def test_a_flag_is_said_of_the_cpu_that_was_measured(given, flags):
    run = asking(**given, facts=(("cpu-flags", "+pcid"),), resumer_cmdline="", what_if=True)
    assert run.need(FEATURES).value.flags == flags


def test_where_nothing_tells_the_cpu_no_flag_makes_one():
    nothing = made_resumee(features=None)
    assert told(FEATURES, resumee=nothing) is None
    assert told(FEATURES, resumee=nothing, facts=(("cpu-flags", "+pcid"),)) is None
    with pytest.raises(MissingFact):
        machine_features(nothing)


def test_another_cpu_than_the_resumees_is_told():
    run = asking(collected={"features": AMD})
    run.need(FEATURES)
    assert [one.fact for one in run.disagreements] == ["cpu-features"]
    same = asking(collected={"features": replace(INTEL, bugs=frozenset({"mds"}))})
    same.need(FEATURES)
    assert same.disagreements == []
    assert FEATURES.show(INTEL) == "intel 6/158: clflush mwait smep"
    assert FEATURES.show(replace(INTEL, flags=frozenset(), model=None)) == "intel: none of those that matter"


@pytest.mark.parametrize(("changes", "differ"), [
    ({"model": 0x5E}, True), ({"family": 15}, True), ({"model": None}, False), ({"family": None}, False),
    ({"virtual_bits": 57}, True), ({"virtual_bits": None}, False), ({"physical_bits": 46}, False),
    ({"flags": INTEL.flags | {"lkgs"}}, False), ({"cpuid_level": 7}, False),
])  # fmt: skip
def test_another_model_is_another_cpu(changes, differ):
    other = replace(INTEL, **changes)
    run = asking(collected={"features": other})
    run.need(FEATURES)
    assert bool(run.disagreements) is differ
    assert not differ or FEATURES.show(other) != FEATURES.show(INTEL)


@pytest.mark.parametrize(("facts", "option", "expected"), [
    ((("cpu-vendor", "amd"),), "--fact cpu-vendor=", replace(INTEL, vendor="amd", family=None, model=None)),
    ((("cpu-vendor", "intel"),), "--fact cpu-vendor=", INTEL),
    ((("cpu-vendor", "amd"), ("cpu-flags", "-monitor")), "--fact cpu-flags=",
     replace(INTEL, vendor="amd", family=None, model=None, flags=INTEL.flags - {"mwait"})),
])  # fmt: skip
def test_the_vendor_can_be_said(facts, option, expected):
    found = asking(facts=facts).need(FEATURES)
    assert (found.value, found.standing, found.option) == (expected, GIVEN, option)
    with pytest.raises(Mismatch, match="what the resumer's CPU can do"):
        asking(facts=(("cpu-vendor", "amd"),), collected={"features": INTEL}).need(FEATURES)


@pytest.mark.parametrize(("reads", "line", "collected", "told"), [
    ("if asked for", "quiet bootconfig", None, True), ("always", "quiet bootconfig", None, True),
    (None, "quiet bootconfig", None, True), ("no", "quiet bootconfig", None, False),
    ("always", "quiet", None, True), ("always", None, {"command_line": "quiet"}, False),
    ("if asked for", "quiet", None, False), ("if asked for", "quiet -- bootconfig", None, False),
    ("if asked for", None, {"command_line": "quiet bootconfig"}, False),
])  # fmt: skip
def test_a_bootconfig_that_nobody_has_looked_at_is_told(reads, line, collected, told):
    given = {} if line is None else {"resumer_cmdline": line}
    found = asking(traits={"bootconfig": reads}, collected=collected, **given)
    remark_bootconfig(found)
    assert bool(found.remarks) is told


@pytest.mark.parametrize(("reads", "line", "attached", "embedded", "text", "open_"), [
    ("if asked for", "nokaslr bootconfig", "kernel.nosmt", "", "nosmt nokaslr bootconfig", False),
    ("if asked for", "nokaslr", "kernel.nosmt", "", "nokaslr", False),
    ("no", "nokaslr bootconfig", "kernel.nosmt", "", "nokaslr bootconfig", False),
    ("always", "nokaslr", "kernel.quiet", "kernel.nosmt", "quiet nokaslr", False),  # the initramfs comes first
    ("always", "nokaslr", "", "kernel.nosmt", "nosmt nokaslr", False),
    ("always", "nokaslr", None, "kernel.nosmt", "nosmt nokaslr", True),
    ("always", "nokaslr", "kernel {", "", "nokaslr", False),  # which the kernel takes nothing of
    ("always", "", "kernel.hibernate = no", "", "hibernate=no ", False),
])  # fmt: skip
def test_a_bootconfig_that_was_given_is_read(reads, line, attached, embedded, text, open_):
    resumer = Kernel()
    if embedded:
        resumer.addresses |= {
            "embedded_bootconfig_data": 0x5000,
            "embedded_bootconfig_data_end": 0x5000 + len(embedded),
        }
        resumer.read = lambda address, size: embedded.encode()[address - 0x5000 :][:size]
    found = asking(traits={"bootconfig": reads}, resumer=resumer, resumer_cmdline=line, attached=attached)
    known = found.need(COMMAND_LINE).value
    assert known.text == text
    assert known.kaslr is ("nokaslr" not in line)
    assert bool(known.no_hibernation) is ("hibernate=no" in text)
    assert not known.nosmt  # an early parameter, which has been read by then
    assert (bootconfig_unseen(found) is not None) is open_
    remarks = list(found.remarks)
    assert bool(remarks) is (attached == "kernel {")


def test_a_bootconfig_in_a_line_that_was_measured_came_too_late_for_early_parameters():
    given = {"traits": {"bootconfig": "always"}, "attached": "kernel.nosmt\nkernel.nokaslr"}
    late = asking(**given, collected={"command_line": "nosmt nokaslr quiet"}).need(COMMAND_LINE).value
    assert (late.text, late.nosmt, late.kaslr) == ("nosmt nokaslr quiet", False, True)
    early = asking(**given, collected={"command_line": "nokaslr nosmt"}).need(COMMAND_LINE).value
    assert (early.nosmt, early.kaslr) == (True, False)


@pytest.mark.parametrize(
    ("overrides", "text", "nosmt", "kaslr"),
    [
        # what is built in takes the place of the boot loader's: of that nothing is on the line
        (True, "nosmt nokaslr quiet", False, True),
        # of "quiet nokaslr" the last word is the boot loader's, and only that the decompressor has seen
        (False, "nosmt quiet nokaslr", False, False),
    ],
)
def test_a_measured_line_is_of_a_bootconfig_what_is_built_in_and_the_boot_loader(overrides, text, nosmt, kaslr):
    builtin = "nokaslr quiet" if overrides else "quiet"
    traits = {"bootconfig": "always", "builtin_cmdline": builtin, "builtin_cmdline_overrides": overrides}
    found = asking(traits=traits, attached="kernel.nosmt", collected={"command_line": text}).need(COMMAND_LINE).value
    assert (found.text, found.nosmt, found.kaslr) == (text, nosmt, kaslr)


@pytest.mark.parametrize(("ours", "theirs", "told"), [
    ("nokaslr nox2apic", "nokaslr", "x2apic"), ("nokaslr", "nokaslr nox2apic", "x2apic"),
    ("nox2apic", "nox2apic quiet", None), ("mem_encrypt=on", "mem_encrypt=off", "memory-encryption"),
    ("intel_iommu=off", "", "iommu"), ("intremap=off", "", "interrupt-remapping"), ("quiet -- nox2apic", "", None),
    ("iommu=pt amd_iommu=off", "iommu=pt", "iommu"), ("", None, None),
])  # fmt: skip
def test_modes_that_only_one_kernel_was_told_of(ours, theirs, told):
    found = asking(resumee=made_resumee(command_line=theirs), resumer_cmdline=ours)
    assert list(modes_told_apart(found)) == ([told] if told else [])


def with_modes(**modes):
    """Return a resumee whose memory shows these modes of the machine."""
    variables = {SYMBOL[name.replace("_", "-")]: state for name, state in modes.items()}
    return made_resumee(made_space(variables=variables), command_line="")


SYMBOL = {name: mode.symbol for name, mode in MODES.items()}


@pytest.mark.parametrize(("given", "apart", "standing"), [
    ({}, (), USUAL),
    ({"resumer_cmdline": "nox2apic"}, (), USUAL),  # a condition
    ({"dumped": {"x2apic": True}}, ("x2apic",), MEASURED),
    ({"dumped": {"x2apic": False}}, (), MEASURED),
    ({"collected": {"x2apic": True, "iommu": False}}, ("x2apic", "iommu"), MEASURED),
    ({"collected": {"x2apic": True}, "what_if": True}, (), USUAL),  # of another run
    ({"dumped": {"x2apic": True}, "what_if": True}, (), USUAL),
    ({"logged": {"x2apic": True}, "what_if": True}, (), USUAL),
    ({"logged": {"x2apic": True}}, ("x2apic",), MEASURED),
    ({"logged": {"x2apic": False}}, (), MEASURED),
    ({"collected": {"memory-encryption": True}}, (), MEASURED),  # the image does not show the resumee's
    ({"collected": {"iommu": True}, "line": "mem_encrypt=on"}, (), USUAL),  # says nothing of what only one was told
    ({"collected": {"x2apic": False}, "line": "nox2apic"}, (), MEASURED),
    ({"facts": (("modes", "same"),), "resumer_cmdline": "mem_encrypt=on"}, (), GIVEN),
    ({"facts": (("modes", "other"),), "resumer_cmdline": "mem_encrypt=on"}, ("memory-encryption",), GIVEN),
    ({"facts": (("modes", "other"),)}, (UNNAMED,), GIVEN),
])  # fmt: skip
def test_modes_in_which_the_kernels_differ(given, apart, standing):
    given = dict(given)
    if "dumped" in given:
        given["dumped"] = made_dumped(modes=given["dumped"])
    if "logged" in given:
        given["logged"] = LogFacts("log", modes=given["logged"])
    if "collected" in given:
        line = given.pop("line", None)
        given["collected"] = {"modes": given["collected"]} | ({} if line is None else {"command_line": line})
    found = asking(resumee=with_modes(x2apic=0, iommu=1), **given)
    assert told_of(found, MACHINE_MODES) == (apart, standing)
    settled = settle_modes(found)
    assert (settled is None) is (apart == ())
    assert settled is None or "measured on none" in settled[0]


def told_of(found, fact):
    known = found.need(fact)
    return known.value, known.standing


def test_a_dump_without_x2apic_beside_an_image_with_it_is_undetermined():
    plan = made_plan(resumee=with_modes(x2apic=1), collected={"modes": {"x2apic": False}})
    assert [what for what, _ in plan.missing] == [
        "what becomes of a machine whose kernels differ in x2APIC (measured on none)"
    ]
    assert made_plan(resumee=with_modes(x2apic=1), collected={"modes": {"x2apic": True}}).missing == ()


@pytest.mark.parametrize(("ours", "theirs", "settled"), [
    ("", "nolapic", False), ("quiet", "disableapic quiet", False), ("nolapic", "nolapic", True), ("nolapic", "", True),
    ("disableapic", "nolapic", True), ("noapic", "", True), ("", "noapic", True), ("", "", True),
])  # fmt: skip
def test_a_resumee_that_left_the_local_apic_alone_wants_a_resumer_that_does(ours, theirs, settled):
    """As measured in QEMU: of these the first two hung, the others resumed."""
    told = {"resumee": made_resumee(command_line=theirs, mp_table_has_all=True), "resumer_cmdline": ours}
    found = settle_local_apic(asking(**told))
    assert (found is None) is settled
    assert (found in made_plan(**told).missing) is not settled


@pytest.mark.parametrize(("ours", "theirs", "alone", "settled"), [
    ("", "acpi=off", True, False), ("", "acpi=off", False, True), ("acpi=off", "acpi=off", True, True),
    ("nolapic", "acpi=off", True, True), ("acpi=off", "nolapic", True, False), ("", "", True, True),
])  # fmt: skip
def test_without_an_mp_table_acpi_off_leaves_the_local_apic_alone(ours, theirs, alone, settled):
    """As measured in QEMU of Debian's 6.1 and 6.12: the first hung, the second and third resumed."""
    found = made_resumee(command_line=theirs, mp_table_has_all=True, without_local_apic=alone)
    assert (settle_local_apic(asking(resumee=found, resumer_cmdline=ours)) is None) is settled


@pytest.mark.parametrize(("facts", "told"), [((), True), ((("cpus", "0-7"),), False)])
def test_a_cpu_beyond_the_resumees_is_a_surprise_only_where_nobody_has_said_so(facts, told):
    found = asking(resumer_offline=frozenset({6}), facts=facts)
    found.need(PRESENT)
    assert bool(found.remarks) is told


@pytest.mark.parametrize(("offline", "source"), [
    ((), "the resumee's present CPUs, out of the image"), ((3,), "the resumee's present CPUs, out of the image"),
    ((6,), "the resumee's present CPUs, out of the image, and all up to CPU 6, which --resumer-offline names"),
])  # fmt: skip
def test_where_the_cpus_that_are_taken_for_granted_come_from(offline, source):
    assert asking(resumer_offline=frozenset(offline)).need(PRESENT).source == source


@pytest.mark.parametrize(("size", "content", "text"), [
    (12, b"kernel.nosmt", "kernel.nosmt"), (14, b"kernel.nosmt\0x", "kernel.nosmt"), (0, b"", ""), (-8, b"", ""),
    (1, b"\0", ""), ((1 << 15) - 1, b"x" * ((1 << 15) - 1), "x" * ((1 << 15) - 1)), (1 << 15, b"x" * (1 << 15), ""),
    (3, b"a\xffb", "a\ufffdb"), (5, None, ""),
])  # fmt: skip
def test_the_bootconfig_in_a_kernel_is_as_long_as_one_can_be(size, content, text):
    """XBC_DATA_MAX, include/linux/bootconfig.h; what lies outside the file is none."""
    kernel = Kernel(embedded_bootconfig_data=0x5000, embedded_bootconfig_data_end=0x5000 + size)

    def read(address, length):
        if content is None or (address, length) != (0x5000, len(content)):
            raise MissingFact("not in the file")
        return content

    kernel.read = read
    assert embedded_bootconfig(kernel) == text
    assert embedded_bootconfig(Kernel()) == embedded_bootconfig(Kernel(embedded_bootconfig_data=0x5000)) == ""


@pytest.mark.parametrize(("facts", "vendor", "model"), [
    ((("cpu-flags", "-mwait"),), "intel", 0x9E), ((("cpu-vendor", "intel"),), "intel", 0x9E),
    ((("cpu-vendor", "amd"),), "amd", None), ((("cpu-vendor", "amd"), ("cpu-flags", "-mwait")), "amd", None),
    ((("cpu-vendor", "intel"), ("cpu-flags", "-mwait")), "intel", 0x9E),
])  # fmt: skip
def test_of_another_vendor_no_model_is_known(facts, vendor, model):
    found = asking(facts=facts).need(FEATURES).value
    assert (found.vendor, found.model, found.family is None) == (vendor, model, model is None)
    assert ("mwait" in found.flags) is not any(name == "cpu-flags" for name, _ in facts)


@pytest.mark.parametrize(
    ("given", "known"),
    [({"facts": (("cpus", "0"),)}, True), ({"facts": (("cpus", "0-1"),)}, False), ({}, False)],
)
def test_a_cpu_that_is_said_to_be_alone_shares_its_core_with_none(given, known):
    """What the image does not tell, as where it contradicts itself, the one CPU in its own mask does not tell."""
    run = asking(resumee=made_resumee(topology=None, present=frozenset({0}), frozen=frozenset()), **given)
    topology = run.value(TOPOLOGY)
    assert (topology is not None) is known
    assert topology is None or (topology.smt_shift, topology.primaries) == (0, {0})
