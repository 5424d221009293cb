"""Parking designs against what was measured of kernels that park so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hibercheck.handoff.designs.catalogue import DESIGNS, NAMES
from hibercheck.handoff.designs.compare import DEPENDS, DIES, SURVIVES, compare_designs
from hibercheck.handoff.designs.occupy import island_of
from hibercheck.handoff.designs.replay import replay_under
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check, open_inputs
from hibercheck.handoff.verdict.findings import Fate, Outcome, Verdict
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event
from hibercheck.x86.execute import ExecutionEnd, execute
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if SHARED_CASES.is_dir() else []
BY_NAME = {case["name"]: case for case in CASES}
IMAGE = "images/b9e5b9779f.bin.xz"
DESIGN_OF = {"mwait": "mwait-percpu", "hlt": "hlt", "current": "hlt-rescued", "init": "init"}
MEASURED = {
    DESIGN_OF[Path(case["resumer"]).name.removeprefix("park-").removesuffix(".vmlinux.xz")]: case
    for case in CASES
    if case["image"] == IMAGE and Path(case["resumer"]).name.startswith("park-")
}
OFFLINE = "stock612-resumes-61-offline-nmi"
pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


@pytest.fixture(scope="module")
def inputs(unpacked):
    """Return a function that unpacks a case's image, resumer and resumee."""
    return lambda case: tuple(str(unpacked(case[name])) for name in ("image", "resumer", "resumee"))


def test_all_four_designs_were_measured():
    assert set(MEASURED) == set(DESIGN_OF.values())


@pytest.mark.parametrize("resumer", sorted(MEASURED))
@pytest.mark.parametrize("design", sorted(MEASURED))
def test_a_design_does_what_a_kernel_of_that_design_did(design, resumer, inputs):
    """Whatever R does by itself: the four kernels differ in one function only."""
    case = MEASURED[design]
    image, _, resumee = inputs(case)
    report = check(image, inputs(MEASURED[resumer])[1], resumee, options_of(case["args"], park=design))
    assert str(report.outcome) == case["truth"]["outcome"]


@pytest.mark.parametrize("design", sorted(MEASURED))
def test_a_design_says_what_the_kernel_itself_says(design, inputs):
    case = MEASURED[design]
    own = check(*inputs(case), options_of(case["args"]))
    under = check(*inputs(case), options_of(case["args"], park=design))
    assert (under.outcome, under.verdict) == (own.outcome, own.verdict)
    assert [(cpu.state, cpu.fate) for cpu in under.cpus] == [(cpu.state, cpu.fate) for cpu in own.cpus]


def test_the_comparison_has_every_design_with_old_and_new_resumees(inputs):
    case = MEASURED["hlt"]
    comparison = compare_designs(*inputs(case), options_of(case["args"]))
    assert list(dict.fromkeys(row.design.name for row in comparison.rows)) == list(NAMES)
    assert {row.design.name for row in comparison.rows if row.known} == {
        design.name for design in DESIGNS if design.announcement != "none"
    }
    assert comparison.own == (Outcome.RESETS, Verdict.FATAL)


def test_the_kick_would_have_saved_the_machine(inputs):
    case = MEASURED["mwait-percpu"]
    (row,) = compare_designs(*inputs(case), options_of(case["args"]), names=["mwait-percpu"]).rows
    assert row.outcome is Outcome.RESETS
    assert row.notes[0] == (
        "with its CPUs moved from MWAIT to HLT before the copy, as kexec does (the kick): the machine resumes (safe)"
    )


def test_designs_by_a_dump(inputs, unpacked):
    case = BY_NAME["nosmt-hlt-deb61"]
    options = options_of(case["args"], resumer_memory=str(unpacked(case["memory"])))
    rows = {(row.design.name, row.known): row for row in compare_designs(*inputs(case), options).rows}
    for design, measured in MEASURED.items():
        assert str(rows[design, False].outcome) == measured["truth"]["outcome"]
    for design in ("self-contained", "self-contained-nopaging"):
        row = rows[design, True]
        assert (row.outcome, row.verdict) == (Outcome.RESUMES, Verdict.SAFE)
        assert row.placed == "they are free in the dump of R, by its page allocator"


def test_the_fixmap_page_helps_only_where_both_have_it_and_nothing_else_wakes(inputs, unpacked):
    case = BY_NAME["nosmt-hlt-deb61"]
    # the machine of the case is an emulator, whose MWAIT does not sleep
    sleeps = [*case["args"], "--fact", "mwait=sleeps"]
    options = options_of(sleeps, resumer_memory=str(unpacked(case["memory"])), spurious_mwait=False)
    old, new = compare_designs(*inputs(case), options, names=["fixmap"]).rows
    # the page lies above the text, so that the store to it wakes the CPU while its code is still R's
    assert (old.known, old.verdict) == (False, Verdict.RISK)
    assert (new.known, new.outcome) == (True, Outcome.RESUMES)
    assert {exposure.window for exposure in new.exposures} == {DIES}  # Kosina: MWAIT wakes on anything


@pytest.fixture(scope="module")
def offline(inputs):
    """The case in which E leaves CPU 1 offline."""
    case = BY_NAME[OFFLINE]
    return inputs(case), options_of([arg for arg in case["args"] if arg not in {"--suppose", "nmi"}])


def test_a_cpu_that_e_leaves_behind_needs_an_e_that_knows(offline):
    files, options = offline
    rows = {(row.design.name, row.known): row for row in compare_designs(*files, options).rows}
    for design in ("self-contained", "self-contained-nopaging"):
        assert rows[design, False].verdict is Verdict.LATENT
        assert rows[design, True].verdict is Verdict.SAFE
        exposed = {exposure.event: exposure for exposure in rows[design, False].exposures}
        # as `check` has it of a kernel with the design: a risk, and of 18 such runs of the lab 2 were lost
        assert (exposed[Event.NMI].window, exposed[Event.NMI].after) == (SURVIVES, DEPENDS)
    assert rows["hlt-rescued", False].verdict is Verdict.LATENT
    init = {exposure.event: exposure.after for exposure in rows["init", False].exposures}
    assert init == {
        Event.SPURIOUS: SURVIVES, Event.NMI: SURVIVES, Event.SMI: SURVIVES, Event.MACHINE_CHECK: DIES,
    }  # fmt: skip
    assert [(one.state, one.whose) for one in rows["init", False].rest] == [(ParkState.WAIT_FOR_SIPI, None)]
    assert [(one.state, one.whose) for one in rows["hlt-rescued", False].rest] == [(ParkState.HLT, "resumer")]


def test_a_supposed_nmi_kills_by_the_shipped_design_and_not_by_init(inputs, unpacked):
    case = BY_NAME[OFFLINE]
    files = inputs(case)
    memory = str(unpacked(case["memory"]))
    shipped = check(*files, options_of(case["args"], park="hlt-rescued", resumer_memory=memory))
    assert str(shipped.outcome) == case["truth"]["outcome"] == "resets"
    init = check(*files, options_of(case["args"], park="init", resumer_memory=memory))
    assert init.outcome is Outcome.RESUMES
    reused = check(*files, options_of(case["args"], park="self-contained", resumer_memory=memory))
    assert reused.verdict is Verdict.RISK


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("name", ["nosmt-hlt-deb61", OFFLINE])
def test_the_places_frames_are_ram_outside_the_image_and_the_cpu_waits_there(name, memory, inputs, unpacked):
    pytest.importorskip("unicorn")
    case = BY_NAME[name]
    dump = str(unpacked(case["memory"])) if memory else None
    options = CheckOptions(resumer_cmdline="nokaslr nosmt", park="self-contained", resumer_memory=dump, what_if=memory)
    with open_inputs(*inputs(case), options) as (plan, _, opened):
        replayed = replay_under(plan, opened)
        island = island_of(replayed.judgement.memory)
        for pfn in island.frames:
            assert pfn not in plan.image.pfns
            assert any(entry.address <= pfn << 12 < entry.address + entry.size for entry in plan.resumee.e820)
        if opened is not None:
            resumer = replayed.judgement.memory.resumer
            first = resumer.kernel.require("_text").address - 0xFFFFFFFF80000000 + resumer.phys_base
            last = resumer.kernel.require("_end").address - 0xFFFFFFFF80000000 + resumer.phys_base
            assert not any(first <= pfn << 12 < last for pfn in island.frames)
            assert island.cr3 >> 12 not in {found.cr3 >> 12 for found in opened.cpus if found.cr3}
        cpu = island.cpu(1, 0x80050033, 0x20 | 1 << 6, 0xD01, 40)
        loop = island.park_loop()
        run = execute(replayed.judgement.memory, cpu, {}, inside=loop.ranges)
        assert (run.end, run.left) == (ExecutionEnd.WAITS_AGAIN, None)


def test_no_place_is_said_to_be_none(inputs, monkeypatch):
    case = MEASURED["hlt"]
    options = options_of(case["args"], park="self-contained")
    monkeypatch.setattr("hibercheck.handoff.designs.occupy.ram_of", lambda _e820: ((0, 0x110),))
    report = check(*inputs(case), options)
    assert report.verdict is Verdict.UNDETERMINED
    assert "no 2 MiB of RAM have" in report.missing[0].fact


def test_init_is_never_sent_to_the_cpu_with_the_bsp_flag(inputs):
    case = MEASURED["init"]
    (row,) = (
        row
        for row in compare_designs(*inputs(case), options_of(case["args"]), names=["init"], bsp=1).rows
        if not row.known
    )
    assert [(cpu.cpu, cpu.state) for cpu in row.cpus] == [(1, "hlt")]
    assert row.cpus[0].fate is not Fate.DIES


def test_a_refused_image_has_no_designs(inputs):
    case = BY_NAME["stock61-refuses-612-image"]
    comparison = compare_designs(*inputs(case), options_of(case["args"]))
    assert comparison.rows == ()
    assert "zero-page flag" in comparison.refusal
