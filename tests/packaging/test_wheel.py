"""The wheel and the source distribution, built and installed as a user would."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from hibercheck import __version__

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both into a directory of their own, from a copy: a build writes nothing into the source."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return target


def test_the_wheel_has_everything_and_nothing_else(built):
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    data = f"hibercheck-{__version__}.data/data/share/man"
    for needed in (
        "hibercheck/py.typed",
        "hibercheck/report/schema/report.json",
        "hibercheck/cli/collect.sh",
        f"{data}/man1/hibercheck.1",
        f"{data}/man1/hibercheck-check.1",
        f"{data}/man7/hibercheck-ci.7",
        f"hibercheck-{__version__}.dist-info/licenses/LICENSE",
    ):
        assert needed in names
    allowed = ("hibercheck/", f"hibercheck-{__version__}.")
    assert not [name for name in names if not name.startswith(allowed)]


def test_the_source_distribution_can_be_tested(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    for needed in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "man/generate.py",
        "man/examples/qa-gate.sh",
    ):
        assert f"hibercheck-{__version__}/{needed}" in names


def find(name: str) -> str | None:
    """Return a Python of this version that can make environments: on PATH, or one that pyenv keeps."""
    version = name.removeprefix("python")
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"))
    for python in (shutil.which(name), *map(str, kept)):
        if (
            python
            and subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
        ):
            return python
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHONS)
def test_it_installs_into_an_empty_environment(built, tmp_path, name):
    python = find(name)
    if python is None:
        pytest.skip(f"no {name} here")
    # A pip of its own, and byte code of all that is installed, are half of the time and say nothing of the wheel.
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", tmp_path / "venv/bin/python"]
    command = [*pip, "install", "--quiet", "--no-compile", next(built.glob("*.whl"))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode and "No matching distribution" in run.stderr:
        pytest.skip(f"a dependency has no wheel for {name} here: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    command = tmp_path / "venv/bin/hibercheck"
    assert (
        subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        .stdout.strip()
        .endswith(__version__)
    )
    shown = subprocess.run([command, "explain", "HC202"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("HC202")
    assert (tmp_path / "venv/share/man/man1/hibercheck.1").exists()
    code = "import hibercheck, inspect; print(*inspect.signature(hibercheck.check).parameters)"
    ran = subprocess.run([tmp_path / "venv/bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "image resumer resumee options cache fields\n"


def test_a_zip_application_runs(built, tmp_path):
    """As pipx does: no installation, only the wheel on the path."""
    wheel = next(built.glob("*.whl"))
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); sys.argv = ['hibercheck', '--help']\n"
    code += "from hibercheck.cli.main import main; main()"
    builder = venv.EnvBuilder(with_pip=False)
    builder.create(tmp_path / "empty")
    ran = subprocess.run([tmp_path / "empty/bin/python", "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Usage: hibercheck" in ran.stdout
