"""A resumer at a random address: what it leaves behind may lie in memory that is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hibercheck.errors import Mismatch
from hibercheck.handoff.memory.placed import placed
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judge import judge_cpu, suppositions
from hibercheck.handoff.replay.places import alignment_of, classes_of, placements
from hibercheck.handoff.verdict.findings import Outcome, Verdict


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
