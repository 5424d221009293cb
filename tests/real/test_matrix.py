"""Cells of the matrix, judged without the image, against what was measured with it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hibercheck.cli.matrix import command
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Verdict
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of
from tests.support.matrix_settings import cell_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if SHARED_CASES.is_dir() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


@pytest.fixture(scope="module")
def files(unpacked):
    """Return a function that unpacks a case's image, resumer and resumee."""
    return lambda case: [str(unpacked(case[name])) for name in ("image", "resumer", "resumee")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case["name"])
def case(request):
    return request.param


@pytest.fixture(scope="module")
def cell(case, files):
    return cell_of(case, *files(case))


def test_a_cell_agrees_with_the_measured_resume(case, cell):
    random = parse_command_line(options_of(case["args"]).resumer_cmdline).kaslr
    assert random == case["may_abstain"]
    if random:
        assert cell.verdict is Verdict.RISK
        assert 0 < cell.share < 1
    else:
        assert str(cell.outcome) == case["truth"]["outcome"]
        assert cell.verdict not in {Verdict.RISK, Verdict.UNDETERMINED}


def test_a_cell_agrees_with_the_check_of_the_image(case, cell, files):
    assert cell.verdict is check(*files(case), options_of(case["args"])).verdict


def test_an_attached_image_makes_cells_exact(unpacked, tmp_path):
    kernels = {
        name: str(unpacked(f"kernels/{name}.vmlinux.xz")) for name in ("park-hlt", "park-init", "debian-6.1.176")
    }
    image = unpacked("images/b9e5b9779f.bin.xz")
    output = tmp_path / "matrix.json"
    scenario = "measured=nokaslr nosmt"
    result = CliRunner().invoke(
        command,
        [
            *kernels.values(), "--image", f"{kernels['debian-6.1.176']}={image}", "--scenario", scenario,
            "--spurious-mwait", "--cpus", "2", "--no-cache", "--format", f"json={output}",
        ],
        standalone_mode=False,
    )  # fmt: skip
    assert result.return_value == 1, result.exception
    document = json.loads(output.read_text())
    by_resumer = {
        document["kernels"][row["resumer"]]["path"]: [document["cells"][cell] for cell in row["cells"][0]]
        for row in document["rows"]
    }
    column = list(kernels).index("debian-6.1.176")
    measured = {
        case["resumer"]: case["truth"]["outcome"] for case in CASES if case["image"].endswith("b9e5b9779f.bin.xz")
    }
    for name in ("park-hlt", "park-init"):
        cells = by_resumer[kernels[name]]
        assert [cell["exact"] for cell in cells] == [False, False, True]
        assert cells[column]["outcome"] == measured[f"kernels/{name}.vmlinux.xz"]
