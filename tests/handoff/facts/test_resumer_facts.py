"""Facts that real kernels gave of themselves, what they decide, and what contradicts them."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, InputProblem, MalformedDump, Mismatch
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.e820 import e820_checksum
from hibercheck.handoff.facts.resumer_facts import parse_facts, read_facts
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Verdict
from tests.conftest import ROOT

FACTS = Path(__file__).parent
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


@pytest.mark.parametrize(("latencies", "expected"), [([], None), (["2", "133", None], 133), ([None], None)])
def test_the_longest_latency_of_its_idle_states(latencies, expected):
    states = [{"name": "C", "desc": "", "latency": one} for one in latencies]
    data = json.loads(DEBIAN.read_text()) | {"idle_states": states}
    assert parse_facts(json.dumps(data), "facts").exit_latency == expected


@pytest.mark.parametrize("latency", ["-1", "fast", "1e3", str(1 << 33)])
def test_a_latency_that_is_none_is_malformed(latency):
    data = json.loads(DEBIAN.read_text()) | {"idle_states": [{"name": "C", "desc": "", "latency": latency}]}
    with pytest.raises(MalformedDump):
        parse_facts(json.dumps(data), "facts")


def test_what_leaf_5_of_cpuid_says_of_mwait():
    data = json.loads(DEBIAN.read_text())
    assert parse_facts(json.dumps(data), "facts").monitor is None
    leaf = MonitorLeaf(128, (0, 2, 1, 0, 0, 0, 0, 1), extended=True)
    assert parse_facts(json.dumps(data | {"cpuid5": "40 00000080 3 10000120"}), "facts").monitor == leaf
    for wrong in (0, "", "40", "40 40 3 21 20", "40 40 3 -1", "40 40 3 100000000", "40 40 3 x", ["40", "40", "3", "0"]):
        with pytest.raises(MalformedDump):
            parse_facts(json.dumps(data | {"cpuid5": wrong}), "facts")


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
    report = run({"cmdline": "quiet", "online": "0", "smt_control": "on"})
    taken = next(one.value for one in report.assumptions if one.fact.startswith("CPUs taken offline by hand"))
    assert taken == "1"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"resumer_cmdline": "nokaslr"}, "--resumer-cmdline"),
        ({"resumer_phys_base": 0x1000000}, "--resumer-phys-base"),
        ({"resumer_idle": "mwait"}, "--resumer-idle"),
    ],
)
def test_an_option_that_contradicts_the_facts_is_refused(run, options, name):
    """What was measured and what is given cannot both be true: both are named, and nothing is judged."""
    with pytest.raises(Mismatch, match=name) as raised:
        run(**options)
    assert raised.value.exit_status == 3
    assert "(collected on the resumer)" in str(raised.value)


def test_a_cpu_that_the_facts_have_online_was_not_taken_offline(run):
    with pytest.raises(Mismatch, match="--resumer-offline"):
        run({"cmdline": "quiet", "online": "0-1", "smt_control": "on"}, resumer_offline=frozenset({1}))


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
    assert run({"iomem": iomem, "cmdline": "nosmt memmap=16M$0x9000000"}).verdict is not Verdict.REFUSED


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
        '{"hibercheck_facts": true}',
        '{"hibercheck_facts": 1.0}',
        '{"hibercheck_facts": 1, "present": "\\u0660-\\u0663"}',
        '{"hibercheck_facts": 1, "vmcoreinfo": {"phys_base": true}}',
        '{"hibercheck_facts": 1, "vmcoreinfo": {"phys_base": "1_0"}}',
        '{"hibercheck_facts": 1, "kallsyms": ["ffff_fff_81000000 T _text"]}',
        '{"hibercheck_facts": 1, "cpuinfo": ["processor: \\u0661"]}',
        '{"hibercheck_facts": 1, "cpuinfo": ["processor: 8192"]}',
        f'{{"hibercheck_facts": 1, "cpuinfo": ["processor: 0", "apicid: {1 << 70}"]}}',
        f'{{"hibercheck_facts": 1, "cpuinfo": ["processor: 0", "apicid: {1 << 32}"]}}',
        '{"hibercheck_facts": 1, "e820": [{"start": "1_0", "end": "0x20", "type": "Reserved"}]}',
        '{"hibercheck_facts": 1, "frames": {"0x1_0": ""}}',
        "[" * 100000,
    ],
)
def test_what_is_no_facts_file_is_said_to_be_none(text):
    with pytest.raises(MalformedDump) as raised:
        parse_facts(text, "facts.json")
    assert str(raised.value).startswith("facts.json: ")
    assert "\n" not in str(raised.value)


def test_cpus_are_listed_as_everywhere():
    facts = parse_facts('{"hibercheck_facts": 1, "present": "0-7:1/2,9", "online": "0"}', "x")
    assert (facts.present, facts.online) == ({0, 2, 4, 6, 9}, {0})


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


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (None, None),
        ({"uuid": "AB-cd", "offset": 7, "kernel": "6.1"}, ("ab-cd", 7)),
        ({"uuid": "x", "offset": 0}, ("x", 0)),
    ],
)
def test_where_systemd_says_that_an_image_is(location, expected):
    assert parse_facts(json.dumps({"hibercheck_facts": 1, "hibernate_location": location}), "f").location == expected


@pytest.mark.parametrize(
    "location", [7, {}, {"uuid": 1}, {"uuid": "x"}, {"uuid": "x", "offset": True}, {"uuid": "x", "offset": -1}]
)
def test_a_location_that_is_none(location):
    with pytest.raises(MalformedDump, match="hibernate_location"):
        parse_facts(json.dumps({"hibercheck_facts": 1, "hibernate_location": location}), "f")


WHOLE = {
    "version": "Linux version 6.1", "cmdline": "quiet", "present": "0-1", "online": "0-1", "smt_control": "on",
    "power_disk": "[platform] shutdown", "lockdown": "[none] integrity", "hw_signature": "0x12", "pages": 4096,
    "idle_driver": "acpi_idle", "topology": [{"cpu": n, "core": "0", "package": "0"} for n in (0, 1)],
    "idle_states": [{"name": "C1", "desc": "ACPI FFH MWAIT 0x0", "latency": "1"}],
    "e820": [{"start": "0x0", "end": "0xfffff", "type": "System RAM"}],
    "memory_log": ["BIOS-provided physical RAM map:", "BIOS-e820: [mem 0x0000000000000000-0x00000000000fffff] usable"],
    "modes_log": ["x2apic enabled"], "iomem": ["00000000-000fffff : System RAM", "  01000000-01ffffff : Kernel code"],
    "meminfo": ["MemFree: 4096 kB"], "compressors": ["lzo"], "loadable": ["lz4"],
    "kallsyms": ["ffffffff81000000 T _text"],
    "cpuinfo": ["processor: 0", "vendor_id: GenuineIntel", "flags: monitor", "apicid: 0", "processor: 1", "apicid: 1"],
    "vmcoreinfo": {"kernel_offset": "0x0", "phys_base": "0", "pgtable_l5_enabled": "0"},
    "e820_table": [[0, 0x100000, 1]], "booted": "0-1", "modes": {"sme_me_mask": 0}, "cpuid5": "40 40 3 20",
    "frames": {"0x1": base64.b64encode(zlib.compress(bytes(4096))).decode()},
    "hibernate_location": {"uuid": "a", "offset": 0, "kernel": "6.1"},
    "boot_id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
}  # fmt: skip
BETTER = {"e820": ("memory_log", "e820_table"), "memory_log": ("e820_table",)}
"""What is read only where something better is not there."""


def written():
    """Return the members that `hibercheck collect` and its script write."""
    script = (ROOT / "hibercheck" / "cli" / "collect.sh").read_text()
    names = set(re.findall(r"^member (\w+)", script, re.MULTILINE)) | set(re.findall(r"\| lines (\w+)", script))
    names |= set(re.findall(r"printf '  \"(\w+)\": ", script))
    values = (ROOT / "hibercheck" / "handoff" / "facts" / "collecting.py").read_text()
    names |= set(re.findall(r'found\["(\w+)"\] =', values))
    return names | {"vmcoreinfo", "frames", "hibernate_location"}


def test_all_that_collect_writes_is_known_here():
    assert written() == set(WHOLE)


@pytest.mark.parametrize("name", WHOLE)
def test_everything_that_collect_writes_is_read(name):
    """What is written and not read is a fact that nobody hears of."""
    whole = {key: value for key, value in WHOLE.items() if key not in BETTER.get(name, ())}
    less = {key: value for key, value in whole.items() if key != name}
    first, second = (parse_facts(json.dumps({"hibercheck_facts": 1} | one), "facts") for one in (whole, less))
    assert first != second
