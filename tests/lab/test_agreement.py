"""The table of agreement: how it counts, and the one that stands in README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lab.agreement import BEGIN, END, HEAD, HELD_OUT, IN_SAMPLE, First, block, facts, held_out, rewrite
from tests.lab.compare import Row
from tests.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]


def case(name: str, outcome: str, kernel: str = "small-hlt"):
    roles = {"resumer": f"kernels/{kernel}.vmlinux", "resumee": "kernels/debian-6.1.176.vmlinux"}
    return {"name": name, "may_abstain": False, "truth": {"outcome": outcome}, **roles}


CASES = [case("old", "resumes"), case("seed9-0", "resets", "debian-6.12.94"), case("seed9-1", "hangs")]
ROWS = [
    Row("old", False, "resumes", "resumes", "safe", "right", 1),
    Row("old", True, "resumes", "resumes", "safe", "right", 1),
    Row("seed9-0", False, "resets", "resets", "fatal", "right", 1),
    Row("seed9-1", False, "hangs", "resets", "fatal", "right", 1),
]


def test_what_was_said_first_is_never_overwritten(tmp_path):
    first = First(tmp_path)
    assert first.load() == {}
    miss = Row("seed9-0", False, "resets", "resumes", "safe", "MISS", 1)
    first.remember([miss], "0.1")
    first.remember([ROWS[2], ROWS[3]], "0.2")
    assert first.load()["seed9-0"] == {"got": "resumes", "verdict": "safe", "version": "0.1"}
    unseen = held_out(ROWS, CASES, first.load())
    assert [(row.name, row.grade) for row in unseen] == [("seed9-0", "MISS"), ("seed9-1", "right")]


def test_an_answer_that_failed_counts_as_wrong():
    first = {"old +memory": {"got": None, "verdict": None}}
    assert [row.grade for row in held_out(ROWS, CASES, first)] == ["WRONG"]


def test_held_out_is_counted_by_the_first_prediction_and_apart():
    first = {"seed9-0": {"got": "resumes", "verdict": "safe"}, "seed9-1": {"got": "resets", "verdict": "fatal"}}
    lines = block(ROWS, CASES, first).splitlines()
    assert f"| **{IN_SAMPLE}** | 1 | 1 | 0 | 0 | 1 | 1 | 0 |" in lines
    assert f"| **{HELD_OUT}** | 2 | 1 | 0 | 1 | 0 | 0 | 0 |" in lines
    assert "| resets | 1 | 0 | 0 | 1 | 0 | 0 | 0 |" in lines
    assert "| **the same, as predicted now** | 2 | 2 | 0 | 0 | 0 | 0 | 0 |" in lines
    assert HELD_OUT not in block(ROWS, CASES, {})


def test_the_table_names_versions():
    cases = [*CASES, case("x", "resumes", "debian-6.9.1")]
    assert "Debian's 6.1.176, 6.9.1, 6.12.94 and small builds." in facts(cases)
    assert "QEMU" in facts(cases)


def test_only_what_is_between_the_markers_is_rewritten(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# a\n\n{BEGIN}\nold\n{END}\n\nb\n")
    for _ in range(2):
        rewrite(path, block(ROWS, CASES, {}))
        text = path.read_text()
        assert text.startswith(f"# a\n\n{BEGIN}\n")
        assert text.endswith(f"\n{END}\n\nb\n")
        assert "old" not in text.replace("old:", "")
    path.write_text(f"{END}\n{BEGIN}")
    with pytest.raises(LabError, match="lacks the lines"):
        rewrite(path, "x")


def test_the_table_in_the_readme_adds_up():
    text = (ROOT / "README.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    inside = text.split(BEGIN)[1].split(END)[0]
    assert re.search(r"\d+ \w+ 20\d\d, hibercheck \S+", inside)
    assert "\n".join(HEAD) in inside
    lines = [[cell.strip() for cell in row.strip("|\n ").split("|")] for row in inside.splitlines() if row[:1] == "|"]
    table = [(cells[0], [int(cell) for cell in cells[1:]]) for cells in lines[2:]]
    for _, (count, right, abstained, bad, dumps, right_too, bad_too) in table:
        assert right + abstained + bad == count
        assert right_too + bad_too == dumps <= count
    titles = [title.strip("*") for title, _ in table]
    assert titles.count(IN_SAMPLE) == titles.count(HELD_OUT) == 1
    starts = [number for number, (title, _) in enumerate(table) if title.startswith("**")]
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        if end > start + 1:
            assert table[start][1] == [
                sum(column) for column in zip(*(row for _, row in table[start + 1 : end]), strict=True)
            ]
