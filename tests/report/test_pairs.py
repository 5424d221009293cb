"""Pairs of kernels as cases of a gate, in the formats of CI."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jsonschema import validate

from hibercheck.cli.matrix import CASES
from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix, Member
from hibercheck.handoff.verdict.findings import Condition, Outcome, Verdict
from hibercheck.kernel.code.model import Trait
from hibercheck.report import pairs
from hibercheck.report.cases import Status
from hibercheck.report.gate import Exit
from hibercheck.report.kernel import label, words

SARIF = Path(__file__).parent / "schemas" / "sarif-2.1.0.json"

CELLS = [
    Cell(Outcome.RESUMES, Verdict.SAFE, "nothing"),
    Cell(Outcome.RESETS, Verdict.FATAL, "a <loop> | ::error:: is\ngone"),
    Cell(Outcome.REFUSED, Verdict.REFUSED, "no"),
    Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, "who knows"),
]


@pytest.fixture
def matrix():
    made = Matrix((Member("a", None, "/a"), Member("b", None, "/b")), ("nosmt",))
    made.add(0, CELLS, [[0, 1]])
    made.add(1, CELLS, [[2, 3]])
    return made


def statuses(matrix, fail_on, *, refused_fails=False):
    return [one.case.status for one in pairs.of_matrix(matrix, fail_on, refused_fails=refused_fails, strict=False)]


def test_a_refusal_fails_on_request(matrix):
    passed, failed, error = Status.PASSED, Status.FAILED, Status.ERROR
    assert statuses(matrix, "risk") == [passed, failed, passed, error]
    assert statuses(matrix, "risk", refused_fails=True) == [passed, failed, failed, error]
    assert statuses(matrix, "never") == [passed, passed, passed, error]


def test_the_formats_are_those_that_the_command_offers():
    assert pairs.FORMATS == CASES


def test_each_format_has_what_fails(matrix):
    cases = pairs.of_matrix(matrix, "risk", refused_fails=True, strict=False)
    root = ET.fromstring(pairs.render(cases, "junit", "x"))  # noqa: S314 - what we wrote ourselves
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("4", "2", "1")
    assert [one.get("name") for one in root.iter("testcase")][1] == "nosmt: a resumes b"
    ktap = pairs.render(cases, "ktap", "x").splitlines()
    assert "1..4" in ktap
    assert "not ok 2 nosmt: a resumes b" in ktap
    github = pairs.render(cases, "github", "x").splitlines()
    assert len(github) == 1 + 3
    assert all(line.startswith("::error title=") for line in github)
    markdown = pairs.render(cases, "markdown", "x").splitlines()
    assert sum(line.startswith("| nosmt") for line in markdown) == 3
    assert "\\|" in next(line for line in markdown if "a resumes b" in line and line.startswith("|"))


def test_the_conclusion_names_the_first_that_fails(matrix):
    told = pairs.conclusion(pairs.of_matrix(matrix, "risk", refused_fails=False, strict=False))
    assert told.startswith("1 of 4 pairs fails, 1 is undetermined; the first: nosmt: a resumes b: fatal: a <loop>")
    assert (
        pairs.conclusion(pairs.of_matrix(matrix, "never", refused_fails=False, strict=False)[:1])
        == "1 pair, none fails."
    )


def test_sarif_and_gitlab_list_what_does_not_pass(matrix):
    cases = pairs.of_matrix(matrix, "risk", refused_fails=True, strict=False)
    log = json.loads(pairs.render(cases, "sarif", "x"))
    validate(log, json.loads(SARIF.read_text()))
    (run,) = log["runs"]
    assert [one["ruleId"] for one in run["results"]] == ["pair-fatal", "pair-refused", "pair-undetermined"]
    assert [one["level"] for one in run["results"]] == ["error", "error", "warning"]
    for one in run["results"]:
        assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
    assert run["invocations"][0]["exitCode"] == 1
    listed = json.loads(pairs.render(cases, "gitlab", "x"))
    assert [one["check_name"] for one in listed] == ["pair-fatal", "pair-refused", "pair-undetermined"]
    assert [one["severity"] for one in listed] == ["blocker", "blocker", "critical"]
    assert len({one["fingerprint"] for one in listed}) == 3
    assert listed[0]["location"]["path"] == "/a"
    assert "\n" not in listed[0]["description"]


def test_what_does_not_fit_is_said(matrix, monkeypatch):
    monkeypatch.setattr(pairs, "MOST_RESULTS", 1)
    cases = pairs.of_matrix(matrix, "risk", refused_fails=True, strict=False)
    run = pairs.to_sarif(cases)["runs"][0]
    assert len(run["results"]) == 1
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"].startswith("2 pairs more")
    assert len(pairs.to_gitlab(cases)) == 1


def baseline(matrix, tmp_path, fail_on="risk"):
    place = tmp_path / "known.json"
    place.write_text(pairs.write_baseline(pairs.of_matrix(matrix, fail_on, refused_fails=True, strict=False)))
    return str(place)


def test_a_baseline_knows_what_failed(matrix, tmp_path):
    cases = pairs.of_matrix(matrix, "risk", refused_fails=True, strict=False)
    place = baseline(matrix, tmp_path)
    known = pairs.with_baseline(cases, pairs.load_baseline(place), place)
    passed, expected = Status.PASSED, Status.EXPECTED
    assert [one.case.status for one in known] == [passed, expected, expected, expected]
    assert pairs.status_of(known) is Exit.PASSED
    assert pairs.conclusion(known) == "4 pairs, none fails. 3 pairs that would fail are known."
    assert json.loads(pairs.render(known, "gitlab", "x")) == []
    results = json.loads(pairs.render(known, "sarif", "x"))["runs"][0]["results"]
    assert all(one["suppressions"][0]["justification"].startswith("baseline: ") for one in results)
    assert "ok 2" in pairs.render(known, "ktap", "x")
    assert pairs.render(known, "github", "x").startswith("::notice ")
    assert "| fails |" not in pairs.render(known, "markdown", "x")
    assert json.loads(pairs.write_baseline(known)) == json.loads(pairs.write_baseline(cases))  # it is kept


@pytest.mark.parametrize(("verdict", "status"), [
    (Verdict.RISK, Status.EXPECTED), (Verdict.FATAL, Status.FAILED), (Verdict.REFUSED, Status.FAILED),
])  # fmt: skip
def test_what_is_worse_than_the_baseline_has_it_counts(matrix, verdict, status):
    cells = [*CELLS[:1], replace(CELLS[1], verdict=verdict), *CELLS[2:]]
    now = Matrix(matrix.members, ("nosmt",))
    now.add(0, cells, [[0, 1]])
    cases = pairs.of_matrix(now, "risk", refused_fails=True, strict=False)
    known = pairs.with_baseline(cases, {"nosmt: a resumes b": Verdict.RISK}, "old")
    assert [one.case.status for one in known] == [Status.PASSED, status]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hibercheck_pairs_baseline": 1}', '{"hibercheck_baseline": 2}',
                                  '{"hibercheck_pairs_baseline": 1, "pairs": {"a": "b"}}',
                                  '{"hibercheck_pairs_baseline": 9, "pairs": {}}', "[" * 100000])  # fmt: skip
def test_what_is_no_baseline_of_pairs(text, tmp_path):
    place = tmp_path / "b.json"
    place.write_text(text)
    with pytest.raises(UsageProblem, match="baseline of pairs"):
        pairs.load_baseline(str(place))


def test_what_only_a_condition_makes_fail_names_it(matrix):
    condition = Condition("idle-driver", "how", "by MWAIT", "a sign", Outcome.RESETS, Verdict.FATAL, (), "look")
    made = Matrix(matrix.members, ("nosmt",))
    made.add(0, [replace(CELLS[0], conditions=(condition,))], [[0, 0]])
    strict = pairs.of_matrix(made, "risk", refused_fails=False, strict=True)[0]
    assert strict.case.status is Status.FAILED
    assert strict.case.reason == "fatal on condition idle-driver: how: by MWAIT (a sign); without it safe"


def test_a_trait_that_this_version_does_not_know_is_shown_as_it_is():
    """A facts file may name anything: measured by the fuzzer, as an internal error."""
    assert label("one_cpu") == "runs on one CPU alone"  # which is told where it is so, after nothing else
    assert (label("\x1b[2J"), words(Trait("\x1b[2J", (1,)))) == ("\x1b[2J", "(1,)")


@pytest.mark.parametrize("form", ["junit", "ktap", "github", "markdown", "sarif"])
def test_what_was_not_judged_is_told_in_each_format(matrix, form):
    """Once, with of how many pairs it is; a pair that passes has it too."""
    matrix = Matrix(matrix.members, matrix.scenarios)
    matrix.add(0, [replace(cell, warnings=("idle-driver not judged",)) for cell in CELLS[:2]], [[0, 1]])
    matrix.add(1, CELLS, [[0, 0]])
    text = pairs.render(pairs.of_matrix(matrix, "never", refused_fails=False, strict=False), form, "x")
    assert text.count("driver not judged (2 pairs)") == 1
