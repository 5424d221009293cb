"""What the guides tell users to copy, run as they would run it, on an engine that answers with made-up reports."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "man" / "examples"
WORKFLOW, JOB, GATE = EXAMPLES / "github-workflow.yml", EXAMPLES / "gitlab-ci.yml", EXAMPLES / "qa-gate.sh"

STAND_IN = """#!{python}
import sys
from types import SimpleNamespace
sys.path.insert(0, {root!r})
from tests.report.samples import SAMPLES
def check(image, resumer, resumee, options, cache=None):
    return SAMPLES["latent" if options.suppose else {sample!r}]()
sys.modules["hibercheck.handoff.verdict.check"] = SimpleNamespace(check=check)
from hibercheck.cli.main import main
main()
"""


@pytest.fixture
def stand_in(tmp_path):
    """Return a function that puts a ``hibercheck`` on PATH whose engine answers with a sample."""

    def put(sample: str) -> dict[str, str]:
        program = tmp_path / "bin" / "hibercheck"
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAND_IN.format(python=sys.executable, root=str(ROOT), sample=sample))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": "summary.md"}

    return put


def load(path: Path) -> dict:
    yaml = pytest.importorskip("ruamel.yaml")
    return yaml.YAML(typ="safe").load(path.read_text())


def shell(script: str, environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("schema", "path"), [("vendor.github-workflows", WORKFLOW), ("vendor.gitlab-ci", JOB)])
def test_the_jobs_follow_their_services_schemas(schema, path):
    pytest.importorskip("check_jsonschema")
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *transform, path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(("sample", "status"), [("safe", 1), ("undetermined", 1)])
def test_the_github_job_runs(stand_in, tmp_path, sample, status):
    job = load(WORKFLOW)["jobs"]["resume"]
    scripts = [step["run"] for step in job["steps"] if step.get("name") == "Check"]
    ran = shell(scripts[0], stand_in(sample) | job["env"], tmp_path)
    assert ran.returncode == status, ran.stderr
    assert ran.stdout.startswith("::error title=hibercheck%3A latent::")
    assert json.loads((tmp_path / "hibercheck.sarif").read_text())["version"] == "2.1.0"
    assert (tmp_path / "summary.md").read_text().startswith("## hibercheck")


def test_the_gitlab_job_runs(stand_in, tmp_path):
    job = load(JOB)["hibernation"]
    ran = shell("\n".join(job["script"]), stand_in("safe") | job["variables"], tmp_path)
    assert ran.returncode == 1
    for report in job["artifacts"]["reports"].values():
        assert (tmp_path / report).stat().st_size


@pytest.mark.parametrize(("sample", "status"), [("fatal", 1), ("undetermined", 1)])
def test_the_gate_runs(stand_in, tmp_path, sample, status):
    ran = subprocess.run(
        [GATE, "disk", "new", "old"], env=stand_in(sample), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == status, ran.stderr
    lines = {line.split()[0]: line.split()[1] for line in ran.stdout.splitlines()}
    assert lines == dict.fromkeys(("as-it-was", "nosmt", "spurious"), "FAILED" if sample == "fatal" else sample) | {
        "nmi": "FAILED"
    }
    assert len(list((tmp_path / "hibercheck-reports").iterdir())) == 8


def test_the_gate_stops_at_a_bad_input(tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if not shutil.which("hibercheck", path=environment["PATH"]):
        pytest.skip("hibercheck is not installed beside this Python")
    command = [GATE, "no-disk", "no-kernel", "no-kernel"]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    usage = subprocess.run([GATE], capture_output=True, text=True, check=False)
    assert (usage.returncode, usage.stderr.split(":")[0]) == (2, "usage")


def test_the_gate_is_plain_shell():
    for name in ("dash", "busybox"):
        interpreter = shutil.which(name)
        if interpreter:
            command = [interpreter, *(["sh"] if name == "busybox" else []), "-n", GATE]
            assert subprocess.run(command, check=False).returncode == 0
