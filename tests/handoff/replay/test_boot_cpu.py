"""Another CPU model under the resumer: what the resumee uses and this one lacks, and what it does not use."""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.replay.boot_cpu import lacking, replay_boot_cpu
from hibercheck.handoff.verdict.check import check, open_inputs
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.x86.paging import PagingMode
from tests.support.cases import options_of
from tests.support.made_inputs import INTEL, Kernel, made_plan, made_resumee
from tests.support.made_states import ENTRY, ENTRY_FRAME, ROOT, Frames, own_frames

CR4 = 0x3506B0
"""Of this image: SMAP, SMEP, OSXSAVE, FSGSBASE; no PCIDE."""


@pytest.fixture
def lost(committed):
    """Return a function that gives what the resumer's CPU lacks."""
    case = committed("safe")

    def run(line="nokaslr nosmt", **more):
        options = options_of(case["args"], resumer_cmdline=line, **more)
        with ExitStack() as stack:
            plan = stack.enter_context(open_inputs(case["image"], case["resumer"], case["resumee"], options))[0]
            assert plan.resumee.cr4 == CR4
            return [one.feature for one in lacking(plan)]

    return run


@pytest.mark.parametrize(
    ("flags", "line", "features"),
    [
        ("-smap", "", ["smap"]),  # measured: hangs
        ("-fsgsbase", "", ["fsgsbase"]),  # measured: hangs
        ("-xsave", "", ["xsave"]),  # measured: resets
        ("-smap,-smep,-xsave,-fsgsbase", "", ["fsgsbase", "xsave", "smep", "smap"]),
        ("-pcid", "", []),  # measured: resumes; this resumee does not use it
        ("-gbpages", "", []),  # measured: resumes; it has 128 MiB
        ("-mwait", "", []),
        ("+la57", "", []),
        ("-smap", "clearcpuid=smap", []),  # the CPU has it, the resumer was told to ignore it
        ("-smap", "nosmap", []),
    ],
)
def test_what_is_missed(lost, flags, line, features):
    assert lost(f"nokaslr nosmt {line}", facts=(("cpu-flags", flags),)) == features


def test_the_same_machine_lacks_nothing(lost):
    assert lost() == []
    assert lost("nokaslr nosmt clearcpuid=smap") == []


def test_facts_of_another_cpu_model(committed, tmp_path):
    case = committed("safe")
    with open_inputs(case["image"], case["resumer"], case["resumee"], options_of(case["args"])) as inputs:
        banner = inputs[0].resumer.banner
    nehalem = "fpu pse tsc msr pae clflush nx monitor hypervisor"
    facts = tmp_path / "facts.json"
    said = ["processor: 0", "vendor_id: GenuineIntel", "cpuid level: 11", f"flags: {nehalem}"]
    facts.write_text(
        json.dumps({"hibercheck_facts": 1, "version": banner, "cmdline": "nokaslr nosmt", "cpuinfo": said})
    )
    files = case["image"], case["resumer"], case["resumee"]
    report = check(*files, options_of(case["args"], resumer_cmdline=None, resumer_facts=str(facts)))
    assert (report.outcome, report.verdict) == (Outcome.RESETS, Verdict.FATAL)
    assert [one.rule for one in report.findings if one.rule == "HC406"] == ["HC406"] * 4
    assert "lacks fsgsbase" in report.headline
    assert report.cpus[0].fate == "dies"


DIRECT, PAGE = 256, 0x67
HUGE = 1 << 7
"""PS: the entry maps a page of its level (SDM 3A 4.5)."""


def tables(levels, place, entry):
    """Return frames in which one path of ``place`` indices leads to a table of the third level that has an entry."""
    frames = Frames()
    for depth, index in enumerate(place):
        frames[1 + depth] = bytearray(4096)
        following = entry if depth == len(place) - 1 else (2 + depth) << 12 | PAGE
        struct.pack_into("<Q", frames[1 + depth], 8 * index, following)
    assert len(place) == levels - 2
    return Frames({pfn: bytes(content) for pfn, content in frames.items()})


@pytest.mark.parametrize(("levels", "place", "entry", "lacks"), [
    (4, (DIRECT, 3), 1 << 30 | PAGE | HUGE, True),
    (4, (510, 0), 1 << 30 | PAGE | HUGE, True),
    (4, (511, 3), 1 << 30 | PAGE | HUGE, False),  # the kernel's own image
    (4, (255, 3), 1 << 30 | PAGE | HUGE, False),  # a process
    (4, (DIRECT, 3), 0x5000 | PAGE, False),
    (4, (DIRECT, 3), 1 << 30 | HUGE, False),  # not present
    (4, (DIRECT, 3), 0, False),
    (5, (DIRECT, 0, 3), 1 << 30 | PAGE | HUGE, True),
    (5, (DIRECT, 511, 511), 1 << 30 | PAGE | HUGE, True),
    (5, (3, 300, 3), 1 << 30 | PAGE | HUGE, False),
    (5, (511, 300, 3), 1 << 30 | PAGE | HUGE, False),
])  # fmt: skip
def test_a_direct_map_of_1_gib_pages_needs_a_cpu_that_has_them(levels, place, entry, lacks):
    frames = tables(levels, place, entry)
    space = KernelSpace(Kernel(), frames, PagingMode(levels=levels), 1 << 12, 0, 0)
    resumee = made_resumee(space, features=replace(INTEL, flags=INTEL.flags | {"gbpages"}))
    plan = made_plan(resumee=resumee, facts=(("cpu-flags", "-pdpe1gb"),))
    assert [one.feature for one in lacking(plan)] == (["gbpages"] if lacks else [])
    assert lacking(made_plan(resumee=resumee)) == ()
    fits = {"resumee": replace(resumee, features=INTEL), "facts": (("cpu-flags", "-pdpe1gb"),)}
    assert lacking(made_plan(**fits)) == ()


def test_tables_that_are_not_in_the_image_map_nothing_that_is_known():
    space = KernelSpace(Kernel(), Frames(), PagingMode(), 1 << 12, 0, 0)
    resumee = made_resumee(space, features=replace(INTEL, flags=INTEL.flags | {"gbpages"}))
    assert lacking(made_plan(resumee=resumee, facts=(("cpu-flags", "-pdpe1gb"),))) == ()


@pytest.mark.parametrize(("cr4", "said", "lacks"), [
    (1 << 20, "-smep", [("smep", "sets CR4.SMEP")]), (1 << 21, "-smep", []), (None, "-smep", []), (0, "-smep", []),
    (1 << 18, "-xsave", [("xsave", "sets CR4.OSXSAVE")]), (1 << 17, "-pcid", [("pcid", "sets CR4.PCIDE")]),
    (1 << 16, "-fsgsbase", [("fsgsbase", "sets CR4.FSGSBASE")]), (1 << 21, "-smap", [("smap", "sets CR4.SMAP")]),
    ((1 << 23) - 1, "-smep,-smap", [("smep", "sets CR4.SMEP"), ("smap", "sets CR4.SMAP")]),
])  # fmt: skip
def test_each_bit_of_cr4_needs_its_feature(cr4, said, lacks):
    """SDM 3A 2.5: 16 FSGSBASE, 17 PCIDE, 18 OSXSAVE, 20 SMEP, 21 SMAP."""
    every = INTEL.flags | {"xsave", "pcid", "fsgsbase", "smap"}
    resumee = made_resumee(cr4=cr4, features=replace(INTEL, flags=every))
    found = lacking(made_plan(resumee=resumee, facts=(("cpu-flags", said),)))
    assert [(one.feature, one.use) for one in found] == lacks


def test_what_is_only_taken_to_be_the_resumees_cpu_lacks_nothing():
    resumee = made_resumee(cr4=1 << 20, command_line="", features=INTEL)
    assert lacking(made_plan(resumee=resumee, resumer_cmdline="nosmep")) == ()
    assert lacking(made_plan(resumee=made_resumee(features=None))) == ()
    assert lacking(made_plan(resumee=made_resumee(features=None, cr4=1 << 20), collected={"features": INTEL})) == ()


def booted(code, *, moved=None, levels=4, bits=52, mask=0):
    """Load the resumee's CR3 with the code of restore_registers at ENTRY, and fetch on."""
    frames, _ = own_frames()
    image = Frames(frames if moved is None else {**frames, ROOT: moved})
    symbol = SimpleNamespace(address=ENTRY)
    kernel = SimpleNamespace(
        require=lambda _name: symbol, symbol=lambda _name: symbol, read=lambda _at, size: code.ljust(size, b"\x90")
    )
    resumer = SimpleNamespace(
        mode=PagingMode(levels=levels, max_phys_bits=bits),
        frame=lambda _pfn: None,
        knows_entry=lambda _table, _index: True,
    )
    memory = Composite(SimpleNamespace(pfns=image, frame=image.frame), resumer)
    space = KernelSpace(kernel, image, PagingMode(encryption_mask=mask), ROOT << 12, 0, 0)
    return replay_boot_cpu(memory, SimpleNamespace(space=space, kernel=kernel))


@pytest.mark.parametrize(("code", "after"), [
    ("0f20d0 0f22d8 90", 6),  # mov %cr2,%rax; mov %rax,%cr3
    ("410f22d9", 4),  # mov %r9,%cr3, as restore_registers has it
    ("0f22e0 0f22d8", 6),  # mov %rax,%cr4 comes first
    ("0f22c0 0f22e0 0f22d9", 9),
    ("0f2218 0f22d8", 6),  # no register: an encoding that does not exist
    ("9090", 0), ("0f22e0", 0), ("90" * 62 + "0f22", 0), ("90" * 61 + "0f22d9", 64),  # within its first 64 bytes
])  # fmt: skip
def test_the_first_fetch_is_behind_the_load_of_cr3(code, after):
    found = booted(bytes.fromhex(code))
    assert (found.address, found.levels, found.survives) == (ENTRY + after, 4, True)
    assert found.walk.physical == (ENTRY_FRAME << 12) + after


def test_it_dies_where_the_resumees_tables_are_read_as_of_another_depth_or_lead_elsewhere():
    code = bytes.fromhex("0f22d9")
    assert not booted(code, levels=5).survives
    assert booted(code, levels=5).levels == 5
    gone = booted(code, moved=bytes(4096))
    assert (gone.survives, gone.walk.physical) == (False, None)


@pytest.mark.parametrize(("bits", "mask", "survives"), [
    (52, 0, False),  # it is part of the address
    (40, 0, False),  # it is reserved
    (52, 1 << 47, True), (40, 1 << 47, True), (48, 1 << 46, False),
])  # fmt: skip
def test_a_bit_of_a_table_is_what_the_resumer_s_cpu_and_the_resumee_s_encryption_make_of_it(bits, mask, survives):
    """SDM 3A 4.5: from MAXPHYADDR on bits are reserved; APM 2 7.10: but for the C-bit."""
    root = bytearray(own_frames()[0][ROOT])
    for at in range(0, 4096, 8):
        (entry,) = struct.unpack_from("<Q", root, at)
        if entry:
            struct.pack_into("<Q", root, at, entry | 1 << 47)
    found = booted(bytes.fromhex("0f22d9"), moved=bytes(root), bits=bits, mask=mask)
    assert found.survives is survives
    if bits == 40 and not mask:
        assert "reserved bits" in found.walk.fault.reason
