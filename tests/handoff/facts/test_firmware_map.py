"""The firmware's memory map as kernels of several versions show it."""

import json
from pathlib import Path

import pytest

from hibercheck.handoff.facts.e820 import E820Entry, e820_checksum
from hibercheck.handoff.facts.firmware_map import FirmwareMap, from_kernel, from_log, from_sysfs
from hibercheck.handoff.facts.resumer_facts import parse_facts, read_facts

DEBIAN = str(Path(__file__).parent / "debian-7.3.4-offline-2.json")

UP_TO_6 = """\
[    0.000000] BIOS-provided physical RAM map:
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
[    0.000000] BIOS-e820: [mem 0x00000000bffe0000-0x00000000bfffffff] ACPI NVS
[    0.000000] BIOS-e820: [mem 0x0000000100000000-0x000000013fffffff] persistent (type 12)
[    0.000000] NX (Execute Disable) protection: active
[    0.000000] user-defined physical RAM map:
[    0.000000] user: [mem 0x0000000000000000-0x000000000009fbff] usable
""".splitlines()
SINCE_7 = """\
<6>BIOS-provided physical RAM map:
<6>BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff]  System RAM
<6>BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff]  device reserved
<6>BIOS-e820: [gap 0x00000000000a0000-0x00000000bffdffff]
<6>BIOS-e820: [mem 0x00000000bffe0000-0x00000000bfffffff]  ACPI NVS
<6>BIOS-e820: [gap 0x00000000c0000000-0x00000000ffffffff]
<6>BIOS-e820: [mem 0x0000000100000000-0x000000013fffffff]  persistent RAM (type 12)
""".splitlines()
MAP = (
    E820Entry(0, 0x9FC00, 1),
    E820Entry(0x9FC00, 0x400, 2),
    E820Entry(0xBFFE0000, 0x20000, 4),
    E820Entry(1 << 32, 1 << 30, 12),
)


@pytest.mark.parametrize("lines", [UP_TO_6, SINCE_7])
def test_what_kernels_log(lines):
    assert from_log(lines) == FirmwareMap(MAP, "log")


@pytest.mark.parametrize(
    "lines",
    [
        UP_TO_6[1:],  # the first lines are gone from a log that wrapped
        [],
        [*SINCE_7, "BIOS-e820: [mem 0x0000000200000000-0x0000000200000fff]  something new"],
    ],
)
def test_a_log_that_does_not_tell_all(lines):
    assert from_log(lines) is None


def test_a_map_of_more_entries_than_fit_is_printed_again():
    extended = ["extended physical RAM map:", "extended: [mem 0x0000000000000000-0x0000000000000fff] usable"]
    assert from_log([*UP_TO_6, *extended]) == FirmwareMap((E820Entry(0, 4096, 1),), "log")
    reserved = ["extended physical RAM map:", "reserve setup_data: [mem 0x0000000000000000-0x0000000000000fff] usable"]
    assert from_log([*UP_TO_6, *reserved]) == FirmwareMap(MAP, "log")


def test_the_best_source_is_taken():
    document = json.loads(Path(DEBIAN).read_text())
    assert parse_facts(json.dumps(document), "x").firmware.source == "sysfs"
    document["memory_log"] = UP_TO_6
    assert parse_facts(json.dumps(document), "x").firmware == FirmwareMap(MAP, "log")
    document["e820_table"] = [[0, 4096, 1]]
    assert parse_facts(json.dumps(document), "x").firmware == FirmwareMap((E820Entry(0, 4096, 1),), "kernel")
    assert e820_checksum(read_facts(DEBIAN).e820) == 0x1D1E3625


def test_what_sysfs_shows_may_lack_what_the_kernel_reserved():
    """As on a host of SEV-SNP guests: snp_fixup_e820_tables() reserves 2 MiB at the RMP's ends in e820_table_kexec."""
    shown = [
        {"start": "0x0", "end": "0xfffff", "type": "System RAM"},
        {"start": "0x100000", "end": "0x1fffff", "type": "Reserved"},
        {"start": "0x200000", "end": "0x7ffffff", "type": "System RAM"},
    ]
    found = from_sysfs(shown)
    whole = (E820Entry(0, 128 << 20, 1),)
    assert found.same_machine(whole)
    assert not FirmwareMap(found.entries, "log").same_machine(whole)
    assert not found.same_machine((E820Entry(0, 64 << 20, 1),))
    assert not FirmwareMap(whole, "sysfs").same_machine(found.entries)
    assert from_sysfs([{"start": "0x0", "end": "0xfff", "type": "Unknown E820 type"}]) is None


@pytest.mark.parametrize("rows", [[[0, -1, 1]], [["0", 1, 1]], [[0, 1, True]], [[1 << 63, 1 << 63, 1]], [[5, 0, 1]]])
def test_other_rows_are_no_map(rows):
    with pytest.raises(ValueError, match="e820"):
        from_kernel(rows)
