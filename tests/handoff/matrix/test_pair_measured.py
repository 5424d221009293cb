"""Cells of the committed cases: what was measured, or a chance where the kernels do not overlap."""

from __future__ import annotations

import json

import pytest

from hibercheck.handoff.verdict.findings import Verdict
from tests.conftest import ROOT
from tests.support.matrix_settings import cell_of

NAMES = [case["name"] for case in json.loads((ROOT / "fixtures" / "cases.json").read_text())["cases"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_does_not_contradict_what_was_measured(name, committed):
    case = committed(name)
    cell = cell_of(case, case["image"], case["resumer"], case["resumee"])
    assert cell.verdict is Verdict.RISK or str(cell.outcome) == case["truth"]["outcome"]
    assert cell.verdict is not Verdict.UNDETERMINED


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("safe", Verdict.SAFE), ("benign", Verdict.BENIGN), ("same-build", Verdict.SAFE), ("paging-mode", Verdict.FATAL)],
)
def test_cells_that_need_no_image_are_certain(name, verdict, committed):
    case = committed(name)
    assert cell_of(case, case["image"], case["resumer"], case["resumee"]).verdict is verdict
