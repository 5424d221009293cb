"""Every committed measured case is predicted anew, and held to what the machine did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hibercheck.handoff.verdict.findings import Verdict

CASES = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "cases.json").read_text())["cases"]
BY_NAME = {case["name"]: case for case in CASES}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_committed_case_is_predicted_as_it_was_measured(predict, name):
    case, report = BY_NAME[name], predict(name)
    if case["may_abstain"] and report.verdict in {Verdict.RISK, Verdict.UNDETERMINED}:
        return
    assert report.outcome.value == case["truth"]["outcome"]


@pytest.mark.parametrize("name", [name for name, case in BY_NAME.items() if case.get("memory")])
def test_with_its_dump_none_abstains(predict, name):
    report = predict(name, memory=True)
    assert report.verdict not in {Verdict.RISK, Verdict.UNDETERMINED}
    assert report.outcome.value == BY_NAME[name]["truth"]["outcome"]


def test_there_is_a_case_of_each_outcome():
    assert {case["truth"]["outcome"] for case in CASES} == {"resumes", "resets", "refused"}
