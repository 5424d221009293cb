"""A resumer at a random address: what it leaves behind may lie in memory that is replaced."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.memory.placed import placed
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judge import judge_cpu, suppositions
from hibercheck.handoff.replay.places import alignment_of, classes_of, placements
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from tests.support.made_states import park_loop


def test_a_cpu_left_behind_is_exposed_in_some_places(predict):
    """Without a known address it is no safer than with the one at which it is known to be exposed."""
    report = predict("latent", resumer_cmdline="", suppose=frozenset())
    assert (report.outcome, report.verdict) == (Outcome.RESUMES, Verdict.LATENT)
    assert "some of the places" in report.headline
    assert report.share is None


def test_a_class_stands_for_each_of_its_places(judged):
    """Judging every address by the engine gives what judging one of each class gives."""
    plan, judgement = judged("random-address", memory=False)
    lost = looked_at = 0
    supposed = suppositions(plan)
    ranges = placements(plan.resumer, plan.resumee.e820, plan.traits.physical_start.value or 16 << 20, 2 << 20)
    for displacement in (one for each in ranges for one in each):
        offset = classes_of(plan, plan.levels)[0].kaslr_offset
        memory, cpus = placed(plan, plan.levels, displacement, offset)
        results = [judge_cpu(memory, cpu, supposed, reinitialised=cpu.number in plan.reinitialised) for cpu in cpus]
        lost += any(result.fate is Fate.DIES for result in results)
        looked_at += 1
    assert looked_at == judgement.sweep.placements
    assert lost == judgement.sweep.failing
    assert 0 < lost < looked_at


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_places_are_multiples_of_what_the_resumer_says(judged, size):
    """CONFIG_PHYSICAL_ALIGN: of a kernel with 16 MiB no place between is one."""
    plan, judgement = judged("random-address", memory=False, facts=(("load-align", f"{size}M"),), what_if=True)
    assert alignment_of(plan) == size << 20
    link = plan.resumer.require("_text").address - 0xFFFFFFFF80000000
    size_of = plan.resumer.require("_end").address - plan.resumer.require("_text").address
    expected = [
        at
        for one in plan.resumee.e820
        if one.kind == 1
        for at in range(0, one.address + one.size - size_of + 1, size << 20)
        if at >= max(one.address, plan.traits.physical_start.value)
    ]
    first = {one.phys_base + link for one in classes_of(plan, plan.levels)}
    assert sum(one.count for one in classes_of(plan, plan.levels)) == len(expected) > 0
    assert first <= set(expected)
    if judgement.sweep is not None:
        assert judgement.sweep.alignment == size << 20


@pytest.fixture
def silent(committed, tmp_path):
    """The resumer's vmlinux without the configuration that it carries."""
    path = tmp_path / "vmlinux"
    data = Path(committed("random-address")["resumer"]).read_bytes()
    assert data.count(b"IKCFG_ST") >= 1
    path.write_bytes(data.replace(b"IKCFG_ST", b"IKCFG_XX"))
    return path


def known(report):
    found = next(one for one in report.assumptions if one.name == "load-alignment")
    return found.value, found.standing, found.source


def test_a_kernel_that_carries_its_configuration(predict):
    assert known(predict("random-address")) == ("2 MiB", "read", "CONFIG_PHYSICAL_ALIGN")
    with pytest.raises(Mismatch, match=r"2 MiB .* and 16 MiB \(--fact load-align=\)"):
        predict("random-address", facts=(("load-align", "16M"),))


def test_an_alignment_that_nobody_told_is_a_condition_where_it_matters(predict, silent):
    """The largest is tried."""
    report = predict("random-address", resumer=str(silent))
    assert known(report)[:2] == ("2 MiB", "usual")
    told = predict("random-address", resumer=str(silent), facts=(("load-align", "16M"),))
    assert known(told)[:2] == ("16 MiB", "given")
    changes = (told.outcome, told.verdict) != (report.outcome, report.verdict)
    assert [one.id for one in report.conditions if one.id == "load-alignment"] == ["load-alignment"] * changes


def test_a_configuration_beside_the_resumer_is_read(predict, silent):
    """As it lies where a vmlinux was built; where it says nothing, nothing is said."""
    beside = silent.parent / ".config"
    for text, expected in (("", ("2 MiB", "usual")), ("CONFIG_PHYSICAL_ALIGN=0x800000\n", ("8 MiB", "read"))):
        beside.write_text(f"# Linux/x86 6.1.192 Kernel Configuration\n{text}")
        os.utime(beside, (silent.stat().st_mtime - 1,) * 2)
        report = predict("random-address", resumer=str(silent))
        assert known(report)[:2] == expected
    assert known(report)[2] == str(beside)
    assert "load-alignment" not in {one.id for one in report.conditions}


def test_where_the_physical_place_is_known_only_that_is_judged(judged):
    plan, judgement = judged("random-address", memory=False, resumer_phys_base=0x1000000)
    assert judgement.sweep is None or judgement.sweep.placements == 1
    assert [one.count for one in classes_of(plan, plan.levels)] == [1]


START, STEP, PAGE = 0xFFFFFFFF80000000, 2 << 20, 4096
TEXT, SIZE = 0x1000000, 0x600000
SYMBOLS = {"_text": TEXT, "_end": TEXT + SIZE, "init_top_pgt": TEXT + 0x400000, "level3_kernel_pgt": TEXT + 0x401000,
           "level2_kernel_pgt": TEXT + 0x402000, "level4_kernel_pgt": TEXT + 0x403000}  # fmt: skip


class Frames(set):
    """Frames of an image, as a set."""

    @property
    def last(self):
        return max(self)


def plan_of(e820, frames, ranges, *, contents=None, own=0x3000000, start=None, offset=0, physical=None):
    """A run whose resumer may lie anywhere in some memory; its text is of zeros, what is copied of ones or as given."""
    loops = [replace(park_loop(), ranges=tuple((START + a, START + b) for a, b in one), patchable=()) for one in ranges]
    contents = contents or {}
    space = SimpleNamespace(kaslr_offset=0x40000000 - 0x200000, phys_base=own - TEXT,
                            in_image=lambda at: own <= at < own + SIZE)  # fmt: skip
    kernel = SimpleNamespace(
        release="7.3", require=lambda name: SimpleNamespace(address=START + SYMBOLS[name]), read=lambda _, n: bytes(n)
    )
    image = SimpleNamespace(pfns=Frames(frames), frame=lambda pfn: contents.get(pfn, b"\1" * PAGE))
    return SimpleNamespace(
        placement=SimpleNamespace(kaslr_offset=offset, phys_base=physical), resumer=kernel, image=image,
        resumee=SimpleNamespace(space=space, e820=e820, missing={"e820": "gone"}),
        traits=SimpleNamespace(physical_start=SimpleNamespace(value=start)),
        asking=SimpleNamespace(need=lambda _: SimpleNamespace(value=STEP)),
        parked=[SimpleNamespace(loop=one) for one in (*loops, *loops, None)],
    )  # fmt: skip


def ram(start, size):
    return E820Entry(start, size, 1)


def state_of(plan, at, levels):
    """Say what decides at a place, frame by frame."""
    frames, found = plan.image.pfns, []
    for parked in plan.parked:
        for start, end in () if parked.loop is None else parked.loop.ranges:
            for byte in range(start - START + at, end - START + at):
                kept, ours = byte // PAGE not in frames, plan.resumee.space.in_image(byte)
                content = None if kept else plan.image.frame(byte // PAGE)
                found.append("kept" if kept else ours and content is not None and not content[byte % PAGE])
    tables = ["init_top_pgt", "level3_kernel_pgt", "level2_kernel_pgt", *(["level4_kernel_pgt"] if levels == 5 else [])]
    return found, [(SYMBOLS[name] + at) // PAGE in frames for name in tables], at == plan.resumee.space.phys_base


PLACES = range(0x1000000, 0x5000000, STEP)
LOOP = ((TEXT + 0x1FF8, TEXT + 0x2008),)
USED = (0x1, 0x2, 0x400, 0x401, 0x402, 0x403)
"""Frames of a resumer that its loop and its page tables are in."""


@given(
    places=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(USED)), min_size=1, max_size=12),
    same=st.lists(st.sampled_from(USED), max_size=3),
    memory=st.lists(st.sampled_from((0x1000000, 0x2800000, 0x4000000)), min_size=1, unique=True),
    levels=st.sampled_from((4, 5)),
)
def test_a_class_has_all_the_places_that_agree_and_no_other(places, same, memory, levels):
    frames = {(place >> 12) + used for place, used in places}
    e820 = (*(ram(at, 0x1400000) for at in sorted(memory)), E820Entry(0, 1 << 40, 2))
    contents = {0x3000 + used: bytes(PAGE) for used in same}
    plan = plan_of(e820, frames, (LOOP,), contents=contents, start=0x1000000)
    every = sorted(at - TEXT for one in memory for at in range(max(one, 0x1000000), one + 0x1400000 - SIZE + 1, STEP))
    found = classes_of(plan, levels)
    members = [[first + STEP * n for first, count in one.runs for n in range(count)] for one in found]
    assert sorted(at for one in members for at in one) == every
    assert [one.count for one in found] == list(map(len, members))
    assert all(one.phys_base in its for one, its in zip(found, members, strict=True))
    states = [[state_of(plan, at, levels) for at in its] for its in members]
    end = (max(frames) + 1 << 12) - TEXT
    assert all(state[:2] == its[0][:2] for its in states for state in its)
    assert all(state == its[0] for its, at in zip(states, members, strict=True) if at[0] < end for state in its)
    below = [its[0] for its, at in zip(states, members, strict=True) if at[0] < end]
    assert all(below.count(one) == 1 for one in below)
    assert all(one.runs == tuple(sorted(one.runs)) for one in found)


@pytest.mark.parametrize(("entry", "start", "expected"), [
    (ram(0x1000000, SIZE), 0x1000000, [0x1000000]), (ram(0x1000000, SIZE - 1), 0x1000000, []),
    (ram(0x1000000, SIZE + STEP - 1), 0x1000000, [0x1000000]),
    (ram(0x1000000, SIZE + STEP), 0x1000000, [0x1000000, 0x1200000]),
    (ram(0x1000001, SIZE + STEP - 2), 0x1000000, []),
    (ram(0x1000001, SIZE + STEP - 1), 0x1000000, [0x1200000]),
    (ram(0, 0x1000000 + SIZE), None, [0x1000000]), (ram(0, 0x1000000 + SIZE), 0x1200000, []),
    (ram(0, 0x1000000 + SIZE), 0xE00000, [0xE00000, 0x1000000]), (replace(ram(0x1000000, SIZE), kind=2), None, []),
])  # fmt: skip
def test_where_it_fits(entry, start, expected):
    plan = plan_of((entry,), {0x100000}, (LOOP,), start=start)
    if not expected:
        with pytest.raises(MissingFact, match=r"no place for 7\.3"):
            classes_of(plan, 4)
    else:
        (found,) = classes_of(plan, 4)
        assert (found.phys_base, found.runs) == (expected[0] - TEXT, ((expected[0] - TEXT, len(expected)),))


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, 0), (0x200000, 0x200000), (None, (0x3FE00000 + (16 << 20)) % (1 << 29))]
)
def test_the_virtual_offset_is_known_or_another_than_the_resumees(offset, expected):
    plan = plan_of((ram(0x1000000, SIZE),), {0x1000}, (LOOP,), offset=offset)
    assert {one.kaslr_offset for one in classes_of(plan, 4)} == {expected}
    plan = plan_of(None, {0x1000}, (LOOP,), offset=offset, physical=0x5000)
    assert [(one.phys_base, one.kaslr_offset, one.count) for one in classes_of(plan, 4)] == [(0x5000, expected, 1)]


def test_places_that_cannot_be_told_or_are_too_many():
    with pytest.raises(MissingFact, match="cannot be read from the image: gone"):
        classes_of(plan_of(None, {0x1000}, (LOOP,)), 4)
    terabyte = plan_of((ram(0, 1 << 42),), {(1 << 42 >> 12) - 1}, (LOOP,))
    with pytest.raises(MissingFact, match=r"more than 524288 places for 7\.3"):
        classes_of(terabyte, 4)


def test_above_what_is_copied_places_are_not_looked_at():
    """However many there are: they are one class, and the lowest frame above is the first of it."""
    plan = plan_of((ram(0, 1 << 42), ram(1 << 43, 1 << 30)), {0x1000, 0x1400}, (LOOP,))
    *looked_at, above = classes_of(plan, 4)
    copied_to = 0x1401000 - TEXT
    assert all(at < copied_to for one in looked_at for at, _ in one.runs)
    assert above.runs[0][0] == -(-copied_to // STEP) * STEP
    assert above.phys_base == (1 << 43) + (1 << 30) - SIZE - TEXT
    assert above.count == sum(count for _, count in above.runs)
    assert (
        sum(one.count for one in (*looked_at, above))
        == ((1 << 42) - SIZE - 0x1000000) // STEP + 1 + ((1 << 30) - SIZE) // STEP + 1
    )
