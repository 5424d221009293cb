"""The family of designs, and the table that is made of its record."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import design_table
from tests.lab.designs import ALL, NEW, designs
from tests.lab.records import PLACE, Entry, Said, load

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "tests" / "lab" / "kernels"
SAFE, FATAL = Said(0, "resumes", "safe"), Said(1, "resets", "fatal")


def entry(name, outcome="resumes", first=SAFE):
    experiment = next(one for one in designs() if one.name == name)
    return Entry(experiment, "QEMU", "2026-11-29", "abc", first, None, outcome)


def test_every_design_is_a_patch_that_the_build_knows():
    build = (KERNELS / "build.sh").read_text()
    known = re.search(r"for one in ([a-z ]+); do", build)[1].split()
    assert known == ["current", *NEW]
    for design in NEW:
        patch = (KERNELS / f"park-{design}.patch").read_text()
        assert f"+config HIBERNATE_PARK_{design.upper()}\n" in patch


def test_every_design_meets_every_pair_and_event():
    names = [one.name for one in designs()]
    assert len(set(names)) == len(names)
    for design in ALL:
        for pair in design_table.PAIRS:
            assert {f"design-{design}-{pair}-{event}" for event in ("none", "nmi", "smi", "mce")} <= set(names)
        assert {f"design-{design}-{other}" for other in design_table.OTHERS} <= set(names)


@pytest.mark.parametrize(
    ("outcome", "first", "cell"),
    [
        ("resumes", SAFE, "+"),
        ("resumes", FATAL, "+!"),
        ("resets", FATAL, "X"),
        ("hangs", FATAL, "X"),
        ("survives", SAFE, "X!"),
        ("resumes", Said(4, "undetermined", "undetermined"), "+?"),
    ],
)
def test_a_cell_says_what_happened_and_what_was_foretold(outcome, first, cell):
    text = design_table.table([entry("design-paged-new-old-none", outcome, first)])
    row = next(line for line in text.splitlines() if line.startswith("paged "))
    assert row.split()[1] == cell
    assert set(row.split()[2:]) == {"."}


@pytest.mark.parametrize(
    ("runs", "cell"),
    [
        ({"none": [[1, "hlt", "resumer"]]}, "hlt R"),
        ({"none": [[1, "hlt", "resumer"]], "nmi": [[1, "wait-for-sipi"]]}, "wait-for-sipi"),
        ({"none": [[1, "mwait", "resumee", 0x60]]}, "mwait E 0x60"),
        ({"nmi": None}, "-"),
        ({"mce": [[1, "hlt", "resumer"]]}, "."),
        ({"smi": ()}, "?"),
    ],
)
def test_where_a_cpu_spends_its_time_is_told_by_the_run_that_shows_it_best(runs, cell):
    rows = [entry(f"design-init-both-{event}", "resets" if rest is None else "resumes") for event, rest in runs.items()]
    rows = [replace(row, events={"rest": rest} if rest else {}) for row, rest in zip(rows, runs.values(), strict=True)]
    text = design_table.table(rows)
    line = [line for line in text.splitlines() if line.startswith("init ")][-1]
    assert [part for part in re.split(r"  +", line)[1:] if part != "."] == ([] if cell == "." else [cell])


def test_what_is_not_of_the_family_is_in_no_table():
    other = entry("design-paged-new-old-none")
    other = replace(other, experiment=replace(other.experiment, name="v1"))
    assert "Nothing has been run yet." in design_table.table([other])


def test_the_committed_table_is_that_of_the_record():
    assert (ROOT / design_table.PLACE).read_text() == design_table.table(load(PLACE))


def test_no_line_is_too_long_for_a_manual_page():
    assert max(map(len, design_table.table([entry("design-paged-new-old-none")]).splitlines())) <= 80
