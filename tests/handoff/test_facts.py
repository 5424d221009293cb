"""Facts that real kernels gave of themselves, what they decide, and what contradicts them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, InputProblem, MalformedDump, Mismatch, UsageProblem
from hibercheck.handoff.check import check
from hibercheck.handoff.facts import parse_facts, read_facts
from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.resumee import e820_checksum

FACTS = Path(__file__).with_name("facts")
KASLR, DEBIAN = FACTS / "small-current-kaslr.json", FACTS / "debian-7.3.4-offline-2.json"


@pytest.fixture
def run(committed, tmp_path):
    """Check the case `same-build` with facts, changed as wanted."""
    case = committed("same-build")

    def go(changes=None, **options):
        path = tmp_path / "facts.json"
        path.write_text(json.dumps(json.loads(KASLR.read_text()) | (changes or {})))
        wanted = CheckOptions(resumer_facts=str(path), **options)
        return check(case["image"], case["resumer"], case["resumee"], wanted)

    return go


def test_what_a_debian_kernel_says_of_itself():
    facts = read_facts(str(DEBIAN))
    assert facts.command_line.endswith("nokaslr")
    assert (facts.load_address, facts.text_address) == (0x1000000, 0xFFFFFFFF81000000)
    assert (facts.present, facts.online) == ({0, 1, 2, 3}, {0, 1, 3})
    assert facts.idle.name is None
    assert facts.features.vendor == "intel"
    assert {"mwait", "clflush", "smep"} <= facts.features.flags
    assert "la57" not in facts.features.flags
    assert {"l1tf", "meltdown"} <= facts.features.bugs
    assert facts.features.physical_bits == 40
    assert facts.topology is None  # CPU 2 is offline, so its APIC id is not known


def test_the_firmware_map_survives_the_way_through_sysfs():
    """The checksum is the one that images made on this machine carry in their arch record."""
    facts = read_facts(str(DEBIAN))
    assert len(facts.e820) == 8
    assert e820_checksum(facts.e820) == 0x1D1E3625


def test_cores_come_from_the_topology():
    data = json.loads(DEBIAN.read_text())
    data["cpuinfo"] += ["processor: 2", "apicid: 2"]
    data["topology"][2] |= {"core": "1", "package": "0"}
    topology = parse_facts(json.dumps(data), "x").topology
    assert topology.smt_shift == 1
    assert topology.primaries == {0, 2}
    assert topology.primary_of(3) == 2


@pytest.mark.parametrize(
    ("desc", "method"),
    [("ACPI FFH MWAIT 0x33", "mwait"), ("ACPI IOPORT 0x415", "port"), ("ACPI HLT", "halt"), ("", None)],
)
def test_how_acpi_idle_enters_its_deepest_state(desc, method):
    data = {"hibercheck_facts": 1, "idle_driver": "acpi_idle", "idle_states": [{"desc": "POLL"}, {"desc": desc}]}
    assert parse_facts(json.dumps(data), "x").idle.entry_method == method


def test_zeros_of_an_unprivileged_reader_count_as_not_known():
    data = {
        "hibercheck_facts": 1,
        "iomem": ["00000000-00000000 : Kernel code"],
        "kallsyms": ["0000000000000000 T _text"],
    }
    facts = parse_facts(json.dumps(data), "x")
    assert facts.load_address is None
    assert facts.text_address is None


def test_with_facts_a_random_address_is_a_known_one(run):
    report = run()
    assert report.verdict not in {Verdict.RISK, Verdict.UNDETERMINED}
    assert report.resumer.load_address == 0x5400000
    assert report.resumer.kaslr_offset == 0xC600000
    sources = {assumption.fact: assumption.source for assumption in report.assumptions}
    assert sources["the resumer's load address"] == "collected on the resumer"
    assert sources["the resumer's command line"] == "collected on the resumer"


def test_vmcoreinfo_stands_in_for_addresses_that_are_hidden(run):
    # the kernel's phys_base is less by the virtual offset, as measured: KERNELOFFSET=1ba00000, phys_base=-440401920
    notes = {
        "kernel_offset": "0xc600000",
        "phys_base": str(0x5400000 - 0x1000000 - 0xC600000),
        "pgtable_l5_enabled": "0",
    }
    report = run({"iomem": [], "kallsyms": [], "vmcoreinfo": notes})
    assert report.resumer.load_address == 0x5400000
    assert report.resumer.kaslr_offset == 0xC600000


def test_a_cpu_that_is_offline_though_nothing_says_so_was_taken_offline_by_hand(run):
    report = run({"cmdline": "nokaslr", "online": "0"}, resumer_phys_base=None)
    taken = next(one.value for one in report.assumptions if one.fact.startswith("CPUs taken offline by hand"))
    assert taken == "1"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"resumer_cmdline": "nokaslr"}, "--resumer-cmdline"),
        ({"resumer_phys_base": 0x1000000}, "--resumer-phys-base"),
        ({"resumer_offline": frozenset({1})}, "--resumer-offline"),
        ({"resumer_idle": "mwait"}, "--resumer-idle"),
    ],
)
def test_an_option_that_contradicts_the_facts_is_refused(run, options, name):
    with pytest.raises(UsageProblem, match=name):
        run(**options)


def test_an_option_that_says_the_same_is_not(run):
    run(resumer_cmdline="quiet nosmt", resumer_phys_base=0x5400000, resumer_idle="none")


def test_facts_of_another_kernel_do_not_belong_here(run):
    with pytest.raises(Mismatch, match="was collected on"):
        run({"version": "Linux version 5.0.0"})


def test_another_memory_map_is_a_refusal(run):
    entries = [{"start": "0x0", "end": "0x9ffff", "type": "System RAM"}]
    report = run({"e820": entries})
    assert report.verdict is Verdict.REFUSED
    assert "memory map" in report.headline
    assert "(error -1)" in report.findings[0].message  # check_header() returns -EPERM


def test_more_memory_shows_where_ram_ends(run):
    """As measured: with 160 instead of 128 MiB the resumer fails with -EPERM."""
    iomem = ["00100000-09fd6fff : System RAM", "  05400000-05a000ff : Kernel code"]
    report = run({"iomem": iomem})
    assert report.verdict is Verdict.REFUSED
    assert "RAM up to 0x9fd7000" in report.headline
    assert run({"iomem": iomem, "cmdline": "nosmt memmap=4K$0x1000"}).verdict is not Verdict.REFUSED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"hibercheck_facts": 2}',
        '{"hibercheck_facts": 1, "present": "5-1"}',
        '{"hibercheck_facts": 1, "present": "0-99999999999"}',
        '{"hibercheck_facts": 1, "cmdline": 5}',
        '{"hibercheck_facts": 1, "iomem": "x"}',
        '{"hibercheck_facts": 1, "e820": [{"start": "x", "end": "1", "type": "Reserved"}]}',
        '{"hibercheck_facts": 1, "e820": [{"type": "Reserved"}]}',
        '{"hibercheck_facts": 1, "vmcoreinfo": [1]}',
        '{"hibercheck_facts": 1, "vmcoreinfo": {"phys_base": "x"}}',
        "[" * 100000,
    ],
)
def test_what_is_no_facts_file_is_said_to_be_none(text):
    with pytest.raises(MalformedDump) as raised:
        parse_facts(text, "facts.json")
    assert str(raised.value).startswith("facts.json: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputProblem, match="No such file"):
        read_facts(str(tmp_path / "none"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_NAMES = ("version", "present", "topology", "e820", "iomem", "kallsyms", "cpuinfo", "idle_states", "vmcoreinfo")


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON))
def test_no_document_ends_in_a_traceback(members):
    with contextlib.suppress(HibercheckError):
        parse_facts(json.dumps({"hibercheck_facts": 1, **members}), "x")
