"""Cells of the matrix, judged without the image, against what was measured with it."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from hibercheck.cli.matrix import command
from hibercheck.handoff.check import check
from hibercheck.handoff.cmdline import parse_command_line
from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.kernels import open_resumee
from hibercheck.handoff.matrix.brief import brief_of
from hibercheck.handoff.matrix.pair import judge_pair
from hibercheck.handoff.matrix.scenario import Machine, Scenario, Settings
from hibercheck.handoff.resumee import read_resumee
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if SHARED_CASES.is_dir() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


def machine_of(case) -> Machine:
    cpus, threads = (int(re.search(pattern, case["machine"]["smp"])[1]) for pattern in (r"^(\d+)", r"threads=(\d+)"))
    model = case["machine"]["cpu"]
    return Machine(cpus, threads, "intel", "+monitor" in model, "+la57" in model, case["machine"]["memory_mib"] << 20)


def resumee_of(case, unpacked):
    """What E was: its command line, and the CPUs that were offline in it by hand."""
    with (
        open_image(str(unpacked(case["image"]))) as image,
        open_resumee(str(unpacked(case["resumee"])), None) as kernel,
    ):
        facts = read_resumee(image, kernel)
    boot_cpu = min(facts.present)
    by_hand = facts.present - facts.frozen - {boot_cpu}
    if facts.smt_disabled:
        by_hand &= facts.topology.primaries
    return facts.command_line, frozenset(by_hand)


def settings_of(case, unpacked) -> Settings:
    options = options_of(case["args"])
    cmdline, offline = resumee_of(case, unpacked)
    scenario = Scenario(
        "measured", options.resumer_cmdline, cmdline, options.resumer_offline, offline, options.resumer_idle
    )
    return Settings(machine_of(case), (scenario,), options.spurious_mwait, options.suppose)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_cell_agrees_with_the_measured_resume(case, unpacked):
    settings = settings_of(case, unpacked)
    with open_kernel(str(unpacked(case["resumer"]))) as resumer, open_kernel(str(unpacked(case["resumee"]))) as resumee:
        (cell,) = judge_pair(brief_of(resumer, settings), brief_of(resumee, settings), settings)
    random = parse_command_line(settings.scenarios[0].resumer_cmdline).kaslr
    assert random == case["may_abstain"]
    if random:
        assert cell.verdict is Verdict.RISK
        assert 0 < cell.share < 1
    else:
        assert str(cell.outcome) == case["truth"]["outcome"]
        assert cell.verdict not in {Verdict.RISK, Verdict.UNDETERMINED}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_cell_agrees_with_the_check_of_the_image(case, unpacked):
    """Not only the outcome: fatal, latent, benign or safe as with the image, or more careful by a chance."""
    settings = settings_of(case, unpacked)
    with open_kernel(str(unpacked(case["resumer"]))) as resumer, open_kernel(str(unpacked(case["resumee"]))) as resumee:
        (cell,) = judge_pair(brief_of(resumer, settings), brief_of(resumee, settings), settings)
    report = check(*(str(unpacked(case[name])) for name in ("image", "resumer", "resumee")), options_of(case["args"]))
    assert cell.verdict is report.verdict


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
