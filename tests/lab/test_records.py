"""The record: lines that make the experiment again, and tables that are made of nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab import records
from tests.lab.__main__ import main
from tests.lab.agreement import BEGIN, END, disagreements, line, rewrite, tables, totals
from tests.lab.agreement import asleep as asleep_in
from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.bochs.rows import asleep
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.families import every
from tests.lab.machine import Machine
from tests.lab.predict import answer, grade, woken_right
from tests.lab.record import EMULATOR
from tests.lab.records import Entry, Said

ROOT = Path(__file__).resolve().parents[2]
SAFE, FATAL = Said(0, "resumes", "safe"), Said(1, "resets", "fatal")
V1 = next(asleep())
ENTRY = Entry(V1, BOCHS, "2026-11-28", "0a0155e000", SAFE, FATAL, "resumes", events={"copies": 6230, "init": [2, 3]})


def test_a_line_makes_the_entry_again():
    entries = [ENTRY, *(replace(ENTRY, experiment=one, dump=None, errno=-1) for one in every())]
    for entry in entries:
        written = records.line_of(entry)
        assert "\n" not in written
        assert records.entry_of(written) == entry


def test_a_line_is_short_and_says_only_what_is_not_usual():
    written = records.line_of(ENTRY)
    assert len(written) < 600
    row = json.loads(written)
    assert row["experiment"]["resumer"] == {"kernel": "v73-stock", "offline": [2, 3]}
    assert row["experiment"]["resumee"] == {"kernel": "small-current"}
    assert row["first"] == {"exit": 0, "outcome": "resumes", "verdict": "safe"}


def test_other_hardware_under_the_resumer_comes_back():
    item = Experiment("x", Side("a"), Side("b"), resumer_machine=Machine())
    again = records.entry_of(records.line_of(replace(ENTRY, experiment=item)))
    assert again.experiment == item


def test_entries_are_added_and_found(tmp_path: Path):
    path = tmp_path / "records" / "x.jsonl"
    assert records.load(path) == []
    records.add(path, [ENTRY])
    records.add(path, [replace(ENTRY, experiment=replace(V1, name="other"))])
    assert [entry.name for entry in records.load(path.parent)] == ["v1", "other"]
    assert [entry.name for entry in records.named(records.load(path), ["oth"])] == ["other"]


@pytest.mark.parametrize(
    ("outcome", "said", "dump", "expected"),
    [
        ("resumes", SAFE, False, "right"),
        ("resumes", FATAL, True, "FALSE ALARM"),
        ("resets", SAFE, False, "MISS"),
        ("hangs", FATAL, True, "right"),
        ("survives", SAFE, True, "MISS"),
        ("refused", SAFE, False, "WRONG"),
        ("resets", Said(0, "resumes", "safe", conditions=("idle",)), False, "abstained"),
        ("resets", Said(0, "resumes", "safe", conditions=("idle",)), True, "MISS"),
        ("resumes", Said(1, "may-reset", "risk", "resumes"), True, "right"),
        ("resets", Said(1, "may-reset", "risk", "resumes"), True, "MISS"),
        ("resets", Said(1, "may-reset", "risk"), True, "WRONG"),
        ("resets", Said(1, "may-reset", "risk", doubts=("reused",)), True, "abstained"),
        ("resumes", Said(1, "may-reset", "risk", doubts=("reused",)), True, "abstained"),
        ("resets", Said(1, "may-reset", "risk", doubts=("line", "reused")), True, "WRONG"),
        ("resets", Said(1, "may-reset", "risk", "resumes", doubts=("store", "timing")), True, "MISS"),
        ("resets", Said(4, "undetermined", "undetermined"), False, "abstained"),
        ("resets", Said(4, "undetermined", "undetermined"), True, "WRONG"),
        ("resets", Said(4, note="no"), False, "WRONG"),
    ],
)
def test_grades(outcome: str, said: Said, dump: bool, expected: str):
    assert grade(replace(ENTRY, outcome=outcome), said, dump=dump) == expected


def test_a_random_address_allows_to_abstain_but_not_with_a_dump():
    entry = replace(ENTRY, experiment=replace(V1, resumer=Side("b", "")))
    risk = Said(1, "may-reset", "risk")
    assert grade(entry, risk, dump=False) == "abstained"
    assert grade(entry, risk, dump=True) == "WRONG"


@pytest.mark.parametrize(
    ("when", "doubts", "usual", "expected"),
    [
        ("after the handoff", ("store",), "resumes", "abstained"),
        ("after the handoff", ("handed-out",), "resumes", "abstained"),
        ("after the handoff", ("store", "timing"), "resumes", "abstained"),
        ("in the handoff", ("store", "timing"), "resumes", "MISS"),
        ("after the handoff", ("timing",), "resumes", "MISS"),
        ("after the handoff", ("store",), None, "WRONG"),
    ],
)
def test_what_a_resumee_comes_to_write_no_input_tells(when: str, doubts: Any, usual: str | None, expected: str):
    entry, said = replace(ENTRY, outcome="resets", when=when), Said(1, "may-reset", "risk", usual, doubts=doubts)
    assert grade(entry, said, dump=True) == expected


def test_a_design_that_no_reader_knows_is_to_be_undetermined_with_a_dump_too():
    entry = replace(ENTRY, experiment=replace(V1, resumer=Side("near-pause")))
    assert grade(entry, Said(4, "undetermined", "undetermined"), dump=True) == "abstained"
    assert grade(replace(entry, outcome="resets"), SAFE, dump=True) == "MISS"


def test_the_moment_of_a_wake_allows_to_abstain_but_not_with_a_dump():
    risk = Said(1, "may-reset", "risk")
    for phase, grades in (("copy", ("abstained", "WRONG")), ("resumee", ("WRONG", "WRONG"))):
        entry = replace(ENTRY, outcome="resumes", events={"wakes": [[3, "store", 1876, phase, True]]})
        assert tuple(grade(entry, risk, dump=dump) for dump in (False, True)) == grades


def test_what_hibercheck_says_is_read():
    report = {"outcome": "may-reset", "verdict": "risk", "usual_outcome": "resumes", "conditions": [{"id": "idle"}]}
    assert answer(1, json.dumps(report), "", V1) == Said(1, "may-reset", "risk", "resumes", ("idle",), wakes=())
    report["cpus"] = [{"doubt": None}, {"doubt": "reused"}, {"doubt": "reused"}]
    assert answer(1, json.dumps(report), "", V1).doubts == ("reused",)
    assert answer(3, "", "x: no image\n", V1) == Said(3, note="x: no image")
    assert answer(3, "", "hibercheck: /a/place/of/x.elf: no/t one\n", V1).note == "hibercheck: x.elf: no/t one"


@pytest.mark.parametrize(
    ("latency", "tlb", "passes"),
    [
        (0, "warm", True), (0, "cold", True), (801, "cold", True), (802, "cold", False), (802, "warm", True),
        (2089, "warm", False),
    ],
)  # fmt: skip
def test_whether_a_woken_cpu_passes_is_read_of_its_moments(latency: int, tlb: Any, passes: bool):
    timing = {"store": 1872, "tables": 2674, "code": 3961}
    cpus = [{"cpu": 1, "timing": None}, {"cpu": 2, "cpus": [2, 3], "timing": timing}, {"cpu": 0}]
    lines = [{"rule": "HC101", "cpus": [2]}, {"rule": "HC101", "cpus": [1]}, {"rule": "HC201", "cpus": [0]}]
    report = json.dumps({"outcome": "may-reset", "verdict": "risk", "cpus": cpus, "findings": lines})
    experiment = replace(V1, latency=latency, tlb=tlb)
    # of CPU 1 nothing is replaced but its line
    assert answer(1, report, "", experiment).wakes == ((1, 0, True), (2, 1872, passes), (3, 1872, passes))


BOTH = ((2, 1999, True), (3, 1873, True))


@pytest.mark.parametrize(
    ("wakes", "said", "reset", "expected"),
    [
        ([[3, "delay", 1904], [2, "delay", 2030]], BOTH, 0, True),
        ([[3, "delay", 1904], [2, "delay", 2031]], BOTH, 0, False),
        ([[3, "delay", 1904], [2, "delay", 2030, False]], BOTH, 0, False),
        ([[3, "delay", 1904], [2, "delay", 2030, False]], ((2, 1999, False), (3, 1873, True)), 0, True),
        ([[3, "delay", 1904], [2, "delay", 2030, False]], ((2, 1999), (3, 1873)), 0, True),  # older records
        ([[3, "delay", 1904]], BOTH, 0, False),
        ([[3, "delay", 1904]], BOTH, 2030, True),
        ([[3, "delay", 1904]], BOTH, 2031, False),
        ([[3, "delay", 1904], [2, "store", 1999, False]], BOTH, 2030, True),  # reset before CPU 2 ran
        ([[3, "delay", 1904]], ((2, 6200, True), (3, 1873, True)), 0, True),  # it would run after the copy
        ([[3, "delay", 1904], [3, "delay", 1931, False]], ((3, 1873, True),), 0, True),
        ([[3, "delay", 1904]], (), 0, False),
        ([[3, "delay", 1904]], ((3, 0, True),), 0, True),
        ([], ((3, 0, True),), 0, True),
        ([[3, "nmi", 1904]], ((3, 1873, True),), 0, False),
        ([[3, "delay", 1904]], None, 0, None),
        ([], (), 0, None),
    ],
)
def test_which_copy_wakes_which_cpu_is_held_to_the_events(wakes: Any, said: Any, reset: int, expected: bool | None):
    events: Any = {"wakes": [[*wake[:3], "copy", *(wake[3:] or [True])] for wake in wakes]}
    events |= {"reset": [2, [13, 8], reset, "copy"]} if reset else {"copies": 6230}
    entry = replace(ENTRY, experiment=replace(V1, latency=31), events=events)
    assert woken_right(entry, replace(FATAL, wakes=said)) is expected
    again = records.entry_of(records.line_of(replace(entry, dump=replace(FATAL, wakes=said))))
    assert again.dump == replace(FATAL, wakes=said)
    assert woken_right(replace(entry, machine=EMULATOR), replace(FATAL, wakes=said)) is None  # QEMU shows no wake-up
    assert ("Which CPU" in totals([again])) == (expected is not None)


def test_a_later_prediction_stands_beside_the_first(tmp_path: Path):
    later = records.Later("abc", {ENTRY.key: (FATAL, SAFE), "gone": (SAFE, None)})
    records.save_later(later, tmp_path / "later.json")
    assert records.load_later(tmp_path / "later.json") == later
    assert records.load_later(tmp_path / "none") is None
    assert "| the same, as predicted at abc | 1 | 0 | 0 | 1 | 1 | 1 | 0 |" in totals([ENTRY], later)


def test_tables_count_first_predictions():
    other = replace(ENTRY, experiment=replace(V1, name="q"), machine=EMULATOR, outcome="resets", dump=None)
    assert line("x", [ENTRY, other]) == "| x | 2 | 1 | 0 | 1 | 1 | 0 | 1 |"
    table = totals([ENTRY, other])
    assert f"| **{BOCHS}** | 1 | 1 | 0 | 0 | 1 | 0 | 1 |" in table
    assert "| v1 | Bochs 3.0 | resumes | safe | fatal |" in disagreements([ENTRY, other])
    assert "0a0155e000" in table
    assert "asleep" not in table


def test_those_with_a_cpu_asleep_are_counted():
    parked = {"parked": [[1, "hlt"], [2, "mwait", 79136]]}
    table = totals([ENTRY, replace(ENTRY, experiment=replace(V1, name="q"), events=parked)])
    assert "| of all: CPUs asleep in MWAIT | 1 | 1 | 0 | 0 | 1 | 0 | 1 |" in table
    assert "asleep" not in totals([ENTRY], outcomes=False)


def test_a_hundred_experiments_in_bochs_and_sixty_with_cpus_asleep():
    own = [one for one in records.load(records.PLACE) if one.machine == BOCHS]
    assert (len(own) >= 100, sum(map(asleep_in, own)) >= 60) == (True, True)


def test_only_what_is_between_the_markers_is_rewritten(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text(f"# a\n\n{BEGIN}\nold\n{END}\n\nb\n")
    for _ in range(2):
        rewrite(path, totals([ENTRY]))
        text = path.read_text()
        assert text.startswith(f"# a\n\n{BEGIN}\n")
        assert text.endswith(f"\n{END}\n\nb\n")
        assert "\nold\n" not in text
    path.write_text(f"{END}\n{BEGIN}")
    with pytest.raises(LabError, match="lacks the lines"):
        rewrite(path, totals([ENTRY]))


def test_the_tables_are_those_of_the_record():
    entries = records.load(records.PLACE)
    assert entries, "the record is empty"
    for path, text in tables(ROOT, entries):
        assert text in path.read_text(), f"{path.name} is not what the record says: python -m tests.lab table"


def test_the_record_is_whole():
    entries = records.load(records.PLACE)
    keys = [entry.key for entry in entries]
    assert len(set(keys)) == len(keys)
    for path in records.PLACE.glob("*.jsonl"):
        for written in path.read_text().splitlines():
            assert records.line_of(records.entry_of(written)) == written
            assert len(written) < 2000


def test_an_experiment_that_is_not_recorded_is_said(tmp_path: Path, capsys):
    assert main(["--work", str(tmp_path), "replay", "none", "--records", str(tmp_path)]) == 2
    assert "no experiment none" in capsys.readouterr().err


def test_nothing_kept_is_said(tmp_path: Path, capsys):
    records.add(tmp_path / "x.jsonl", [ENTRY])
    assert main(["--work", str(tmp_path), "predict", "--records", str(tmp_path)]) == 2
    assert "1 recorded; 0 right" in capsys.readouterr().out


def test_a_replay_is_held_to_the_pages_of_the_copy_alone():
    def events(copy: int, later: int) -> dict[str, Any]:
        wakes = [[1, "delay", copy, "copy", True], [1, "smi", later, "resumee", True]]
        return {"copies": 6262, "wakes": wakes, "reset": [1, [14, 8], later, "resumee"]}

    assert records.in_copy(events(1863, 215307)) == records.in_copy(events(1863, 215279))
    assert records.in_copy(events(1863, 215307)) != records.in_copy(events(1864, 215307))
    assert records.in_copy({"copies": 5}) == {"copies": 5}
    assert records.in_copy({"copies": 5, "rest": [[1, "hlt", "resumer"]]}) == {"copies": 5}  # older records have none
