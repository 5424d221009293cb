"""The family of designs, and the table that is made of its record."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import design_table
from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.designs import ALL, NEW, ON_7, designs, designs_7, planned
from tests.lab.record import EMULATOR
from tests.lab.records import PLACE, Entry, Said, load

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "tests" / "lab" / "kernels"
SAFE, FATAL = Said(0, "resumes", "safe"), Said(1, "resets", "fatal")


def entry(name, outcome="resumes", first=SAFE, machine=EMULATOR):
    experiment = next(one for one in (*designs(), *designs_7()) if one.name == name)
    return Entry(experiment, machine, "2026-11-29", "abc", first, None, outcome)


def rows(text, design):
    return [line.split()[1:] for line in text.splitlines() if line.startswith(f"{design} ")]


def test_every_design_is_a_patch_that_the_build_knows():
    build = (KERNELS / "build.sh").read_text()
    known = re.search(r"for one in ([a-z ]+); do", build)[1].split()
    assert known == ["current", *NEW]
    for design in NEW:
        for patch in KERNELS.glob(f"**/park-{design}.patch"):
            assert f"+config HIBERNATE_PARK_{design.upper()}\n" in patch.read_text()
    assert {path.name for path in (KERNELS / "7.3").iterdir()} <= {path.name for path in KERNELS.glob("park*.patch")}


def test_every_patch_says_what_it_is_for_and_the_same_of_each_source():
    said = {path: path.read_text().partition("\n---\n")[0] for path in KERNELS.glob("**/park*.patch")}
    for path, text in said.items():
        assert re.match(r"x86/(power|smp): .{10,}\n\n.{30,}", text), path
        assert text == said[KERNELS / path.name]


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
        ("resumes", Said(1, "resets", "risk"), "+?"),
        ("resumes", Said(1, "resets", "risk", "resets"), "+!"),
    ],
)
def test_a_cell_says_what_happened_and_what_was_foretold(outcome, first, cell):
    text = design_table.table([entry("design-paged-new-old-none", outcome, first)])
    row = next(line for line in text.splitlines() if line.startswith("paged "))
    assert row.split()[1] == cell
    assert set(row.split()[2:]) == {"."}


def test_a_cell_that_an_emulator_cannot_show_is_not_one_that_lacks():
    text = design_table.table([entry("design-hlt-same-none"), entry("design-hlt-same-none", machine=BOCHS)])
    on_bochs, on_qemu = (part.split("\nWhere CPU 1")[0] for part in text.split("linux-source-6.1")[1:])
    assert rows(on_qemu, "mwait") == [["/"] * 4 + ["."] * 4 + ["/"] * 8, ["/"] * len(design_table.OTHERS)]
    assert rows(on_bochs, "mwait") == [["."] * 4 + ["/"] * 4 + ["."] * 8, ["."] * 8 + ["/"] * 2]  # no kexec on Bochs
    assert rows(on_qemu, "hlt") == [["."] * 12 + ["+"] + ["."] * 3, ["."] * len(design_table.OTHERS)]
    assert rows(on_bochs, "hlt") == [
        ["."] * 4 + ["/"] * 8 + ["+"] + ["/"] * 3,
        [".", ".", ".", "/", ".", "/", "/", "/", "/", "/"],
    ]


def test_an_image_that_was_refused_is_no_reset():
    text = design_table.table([entry("design7-hlt-old-new-none", "refused", Said(3, "refused", "refused"))])
    assert "linux-source-7.3" in text
    assert rows(text, "hlt")[0] == [".", ".", "-", ".", ".", ".", ".", "."]


def test_in_short_a_design_is_told_by_the_machines_that_were_lost():
    strayed = replace(entry("design-hlt-new-old-smi", "survives"), events={"differs": [[1, "fetch", 7, "copy"]]})
    runs = [
        entry("design-hlt-new-old-none"),
        replace(entry("design-hlt-new-old-mce", "resets"), when="after the handoff"),
        replace(entry("design-hlt-new-old-nmi", "resets"), when="in the handoff"),
        strayed,
        entry("design-hlt-same-nmi"),
        entry("design-hlt-same-nmi", machine=BOCHS),
        entry("design-hlt-kaslr", "survives"),
        entry("design-hlt-hand-in-r", "hangs"),
        entry("design7-hlt-old-new-nmi", "refused"),
    ]
    text = design_table.in_short(runs)
    assert rows(text, "hlt") == [["3/8", "1/3", ".", ".", "0/2"]]
    assert rows(text, "init") == [["."] * 5]


def test_in_short_predictions_are_counted_as_the_table_marks_them():
    unknown = Said(4, "undetermined", "undetermined")
    runs = [
        entry("design-hlt-new-old-none"),
        entry("design-hlt-new-old-nmi", "resets"),
        entry("design-hlt-new-old-smi", "hangs", FATAL),
        entry("design7-hlt-new-old-none", "resumes", unknown),
        entry("design-hlt-new-old-none", machine=BOCHS),
    ]
    said = " ".join(design_table.in_short(runs).split("\n\n")[-1].split())
    assert said.startswith("Of 5 experiments hibercheck foretold 3 as they came")
    assert said.endswith("1 it left open, and 1 came otherwise.")


def test_what_lacks_is_what_an_emulator_shows_and_the_record_has_not():
    done = [entry("design-hlt-new-old-none"), entry("design-hlt-new-old-nmi", machine=BOCHS)]
    lacking = design_table.lacking(done, BOCHS)
    assert {"design-hlt-new-old-none", "design-mwait-same-nmi", "design7-mwait-hand-in-r"} <= set(lacking)
    assert not {"design-hlt-new-old-nmi", "design-hlt-boot-nmi"} & set(lacking)
    assert "design-mwait-same-none" not in design_table.lacking([], EMULATOR)
    assert len(lacking) + 1 == sum(planned(one, BOCHS) for one in (*designs(), *designs_7()))


def test_bochs_is_to_run_what_qemu_shows_otherwise_than_a_processor():
    wanted = {one.name for one in (*designs(), *designs_7()) if planned(one, BOCHS)}
    for design in ALL:
        assert {f"design-{design}-new-old-{event}" for event in ("none", "nmi", "smi", "mce")} <= wanted
        assert (f"design7-{design}-new-old-nmi" in wanted) is (design in ("mwait", "init", "bsp"))
        left = design not in ("rescue", "paged", "flat", "pause")  # those bring up every CPU, and send it no INIT
        for other in ("hand-in-r", "hand-in-both", "nosmt-r", "nosmt-both"):
            assert (f"design-{design}-{other}" in wanted) is left
        assert (f"design7-{design}-hand-in-r" in wanted) is left
        assert (f"design-{design}-both-nmi" in wanted) is (design in ("mwait", "init", "bsp"))
        assert (f"design-{design}-kaslr" in wanted) is (design == "mwait")
        assert not {f"design-{design}-old-new-nmi", f"design-{design}-boot-nmi"} & wanted  # today's resumer; no kexec


def test_qemu_is_to_run_all_but_what_parks_in_mwait():
    left = [one for one in (*designs(), *designs_7()) if not planned(one, EMULATOR)]
    assert {one.resumer.kernel for one in left} == {"near-mwait", "n73-mwait"}
    assert "design-mwait-old-new-nmi" not in {one.name for one in left}


def test_an_experiment_of_no_design_is_planned_on_both():
    other = replace(next(designs()), name="v1")
    assert planned(other, BOCHS)
    assert planned(other, EMULATOR)


def test_a_resumer_of_7_3_takes_images_of_both_versions():
    pairs = {(one.resumee.kernel[:3], one.resumer.kernel[:3]) for one in designs_7()}
    assert pairs == {("far", "n73"), ("n73", "n73")}
    assert all(one.name.startswith(ON_7) for one in designs_7())


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
    entries = load(PLACE)
    assert (ROOT / design_table.PLACE).read_text() == design_table.table(entries)
    assert (ROOT / design_table.IN_SHORT).read_text() == design_table.in_short(entries)


def test_no_line_is_too_long_for_a_manual_page():
    wide = replace(entry("design-mwait-new-old-none"), events={"rest": [[1, "wait-for-sipi", "resumer", 0x33]]})
    for made in (design_table.table, design_table.in_short):
        assert max(map(len, made([*load(PLACE), wide]).splitlines())) <= 71  # nine are the margin
