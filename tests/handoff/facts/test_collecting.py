"""What is collected of a running kernel's memory, and that a check with it is as exact as with a dump."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.cli.collect import collect
from hibercheck.dump.dump import open_dump
from hibercheck.errors import MalformedDump, Mismatch
from hibercheck.handoff.facts.collecting import (
    MAX_FRAMES,
    SYMBOLS,
    collect_frames,
    collect_values,
    decode_frames,
    encode_frames,
    read_symbols,
    running_kernel,
)
from hibercheck.handoff.facts.e820 import e820_checksum
from hibercheck.handoff.facts.kernels import open_resumer
from hibercheck.handoff.facts.resumer_facts import parse_facts
from hibercheck.handoff.memory.collected import CollectedKernel
from hibercheck.handoff.memory.exact import open_resumer as find_resumer
from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.code import needed, traits
from hibercheck.kernel.code.names import ENTER_DEAD, ENTER_DEAD_CALLS, PARKING
from hibercheck.swsusp.image import open_image
from hibercheck.x86.paging import PagingMode
from tests.support.cases import options_of

NAME = "random-address"


@pytest.fixture(scope="module")
def running(committed):
    """The resumer of a case out of its dump, as it would show itself in /proc."""
    case = committed(NAME)
    with open_resumer(case["resumer"], None) as kernel, open_dump(case["memory"]) as dump:
        found = find_resumer(dump, kernel, case["memory"], 40)
        shift, mask = found.kaslr_offset, (1 << 64) - 1
        kallsyms = [
            f"{(one.address + shift * (one.address >> 63)) & mask:016x} T {name}"
            for name in sorted({*SYMBOLS, "_text"})
            if (one := kernel.symbol(name)) is not None
        ]
        root = kernel.require("init_top_pgt").address + shift
        notes = {
            "SYMBOL(swapper_pg_dir)": f"{root:x}",
            "NUMBER(phys_base)": str(found.phys_base - shift),
            "NUMBER(pgtable_l5_enabled)": "0",
            "KERNELOFFSET": f"{shift:x}",
        }
        load = kernel.require("_text").address - START_KERNEL_MAP + found.phys_base
        memory = [(start << 12, b"".join(dump.frame(start + n) for n in range(count))) for start, count in dump.runs()]
        yield case, dump, notes, kallsyms, load, memory, kernel.banner


def kcore(memory, notes, text):
    """Write /proc/kcore: the image by itself, vmalloc with no physical address, RAM; and VMCOREINFO."""
    content = "".join(f"{key}={value}\n" for key, value in notes.items()).encode()
    name = b"VMCOREINFO\0\0"
    note = struct.pack("<III", 11, len(content), 0) + name + content + bytes(-len(content) % 4)
    image = next(content[text - start : text - start + 0x2000] for start, content in memory if start <= text)
    segments = [(text, image), (0xFFFFFFFFFFFFFFFF, b"\xee" * 64), *memory]
    place = 64 + 56 * (len(segments) + 1)
    programs, body = struct.pack("<IIQQQQQQ", 4, 0, place, 0, 0, len(note), len(note), 0), note
    for address, content in segments:
        programs += struct.pack("<IIQQQQQQ", 1, 7, place + len(body), 0, address, len(content), len(content), 4096)
        body += content
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(segments) + 1, 0, 0, 0)
    return header + programs + body


@pytest.fixture(scope="module")
def collected(running, tmp_path_factory):
    """The facts that the command writes in a root with such a /proc."""
    _case, _dump, notes, kallsyms, load, memory, banner = running
    root = tmp_path_factory.mktemp("root")
    cpu = root / "sys/devices/system/cpu"
    cpu.mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "proc/kcore").write_bytes(kcore(memory, notes, load))
    (root / "proc/kallsyms").write_text("".join(f"{line}\n" for line in kallsyms))
    (root / "proc/version").write_text(f"{banner.strip()}\n")
    (root / "proc/iomem").write_text(f"  {load:08x}-{load + 0x600000:08x} : Kernel code\n")
    (cpu / "present").write_text("0-1\n")
    script = Path(collect.__code__.co_filename).with_name("collect.sh").read_text()
    return collect(script, str(root))


def test_the_command_collects_some_dozen_frames(collected):
    facts = parse_facts(collected, "x")
    assert 10 < len(facts.frames) < 100
    assert len(collected) < 100_000
    assert json.loads(collected)["vmcoreinfo"]["pgtable_l5_enabled"] == "0"


def test_a_check_with_it_says_what_a_check_with_the_dump_says(running, collected, tmp_path):
    case = running[0]
    path = tmp_path / "facts.json"
    path.write_text(collected)
    files = case["image"], case["resumer"], case["resumee"]
    exact = check(*files, options_of(case["args"], resumer_memory=case["memory"]))
    found = check(*files, options_of(case["args"], resumer_facts=str(path)))
    assert (found.outcome, found.verdict, found.headline) == (exact.outcome, exact.verdict, exact.headline)
    for ours, theirs in zip(found.cpus, exact.cpus, strict=True):
        assert (ours.state, ours.fate, ours.cr3) == (theirs.state, theirs.fate, theirs.cr3)
        frames = {(use.role, use.pfn, use.overwritten) for use in theirs.footprint}
        assert {(use.role, use.pfn, use.overwritten) for use in ours.footprint} <= frames
    assert any("frames of its memory were collected" in one.value for one in found.assumptions)
    # without the frames only the resumer's place is known
    path.write_text(json.dumps({key: value for key, value in json.loads(collected).items() if key != "frames"}))
    assert check(*files, options_of(case["args"], resumer_facts=str(path))).outcome is exact.outcome


def test_tables_that_lead_elsewhere_are_refused(running, collected, tmp_path):
    case, *_ = running
    document = json.loads(collected)
    document["iomem"] = ["  01000000-01600000 : Kernel code"]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(document))
    with pytest.raises(Mismatch, match="do not lead to where"):
        check(case["image"], case["resumer"], case["resumee"], options_of(case["args"], resumer_facts=str(path)))


@pytest.mark.parametrize(
    "change",
    [
        {"NUMBER(phys_base)": "0", "KERNELOFFSET": "0"},
        {"NUMBER(phys_base)": "x"},
        {"SYMBOL(swapper_pg_dir)": "0"},
        {"NUMBER(pgtable_l5_enabled)": "1"},
    ],
)
def test_where_the_tables_do_not_lead_to_the_banner_nothing_is_collected(running, change):
    _case, dump, notes, kallsyms, *_ = running
    assert running_kernel(dump, notes, kallsyms) is not None
    assert running_kernel(dump, notes | change, kallsyms) is None
    assert running_kernel(dump, notes, []) is None
    assert running_kernel(dump, {}, kallsyms) is None


def test_the_kernels_own_memory_map_and_the_cpus_it_has_started(running, collected):
    """The map is the one of which the image's arch record has the checksum: the machine is the same."""
    case, dump, notes, kallsyms, *_ = running
    facts = parse_facts(collected, "x")
    with open_image(case["image"]) as image:
        assert e820_checksum(facts.e820) == image.record.e820_checksum
    assert facts.firmware.source == "kernel"
    assert json.loads(collected)["booted"] == "0-1"
    assert facts.hw_signature is None  # the kernel was not told to compare one
    hidden = [line for line in kallsyms if "e820_table_firmware" not in line]
    assert "e820_table" not in collect_values(running_kernel(dump, notes, hidden), frozenset({0}))


def test_a_cpu_that_is_not_there_has_nothing_to_collect(running):
    _case, dump, notes, kallsyms, *_ = running
    kernel = running_kernel(dump, notes, kallsyms)
    assert collect_frames(kernel, frozenset()).items() <= collect_frames(kernel, frozenset({0, 1})).items()


def test_hidden_addresses_are_none():
    assert read_symbols(["0000000000000000 T linux_banner", "x T hlt_play_dead", "short"]) == ({}, ())
    assert read_symbols(["ffffffff81000000 T hlt_play_dead", "0 A gdt_page"])[0]["gdt_page"] == 0


def test_every_operand_of_verw_is_wanted_but_those_of_modules():
    lines = ["0010 T linux_banner", "2000 d ds.0", "3008 d ds.0", "4000 d f.ds", "5000 d ds.0\t[kvm]", "6000 d odds.0"]
    assert read_symbols(lines) == ({"linux_banner": 0x10}, (0x2000, 0x3008, 0x4000))


@pytest.mark.parametrize("function", PARKING)
def test_where_a_cpu_may_be_parked_is_said_once(function):
    """What is read of a kernel's code, kept in a summary and collected of a running one knows the same functions."""
    assert function in needed.SYMBOLS
    assert function in SYMBOLS


@pytest.mark.parametrize("function", [*ENTER_DEAD.values(), *ENTER_DEAD_CALLS])
def test_what_a_cpuidle_driver_parks_by_is_looked_up(function):
    assert function in traits.WANTED.candidates


def test_frames_survive_the_way_through_json():
    frames = {0x1A0A: bytes(4096), 5: bytes(range(256)) * 16}
    assert decode_frames(json.loads(json.dumps(encode_frames(frames)))) == frames


@pytest.mark.parametrize(
    "frames",
    [
        [],
        {"x": ""},
        {"0x1": 5},
        {"0x1": "!"},
        {"0x1": "eJw="},
        encode_frames({1: bytes(4095)}),
        encode_frames({1: bytes(1 << 24)}),
        dict.fromkeys(map(hex, range(MAX_FRAMES + 1)), ""),
    ],
)
def test_other_frames_are_no_facts(frames):
    if not frames:
        frames = ["x"]
    with pytest.raises(MalformedDump, match="contradicts its format"):
        parse_facts(json.dumps({"hibercheck_facts": 1, "frames": frames}), "x")


OFFSET, MOVED = 0x6000000, 0x4000000
FIRST = 0xFFFFFFFF81000000
PFN = (0x1000000 + MOVED) >> 12


@pytest.mark.parametrize(("start", "size", "frames", "has"), [
    (0, 16, {0}, True), (0, 4096, {0}, True), (0, 4097, {0}, False), (0, 4097, {0, 1}, True), (4095, 2, {0, 1}, True),
    (4095, 2, {0}, False), (4095, 2, {1}, False), (0, 16, {1}, False), (4096, 16, {1}, True), (0, 12288, {0, 2}, False),
    (0, 12288, {0, 1, 2}, True), (0, 16, set(), False),
])  # fmt: skip
def test_code_is_taken_as_it_was_collected_only_where_all_of_it_was(start, size, frames, has):
    """Addresses are those of the running kernel; its text is moved in physical memory by another distance."""
    placed = SimpleNamespace(
        kernel=None, mode=PagingMode(), cr3=0, kaslr_offset=OFFSET, phys_base=MOVED,
        bytes_at=lambda address, size: (address, size),
    )  # fmt: skip
    known = CollectedKernel(placed, {PFN + number: bytes(4096) for number in frames})
    at = FIRST + OFFSET + start
    assert known.has_text(at, at + size) is has
    if not has:
        assert known.bytes_at(at, size) == (at, size)  # as the file has it
