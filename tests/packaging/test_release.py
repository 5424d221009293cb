"""What `.ci/release` makes: the same bytes from two builds, checksums, and an SBOM of all that is needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")


def names(requirements):
    return {re.split(r"[<>=!~; \[]", text)[0].lower().replace(".", "-").replace("_", "-") for text in requirements}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("a release is built from a commit, and this is not a checkout")
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("release")
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [ROOT / ".ci" / "release", target]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return target


def test_a_second_release_is_the_same(released):
    """The script itself builds twice, the second time in another zone and locale; it makes the bill only once."""
    script = (ROOT / ".ci" / "release").read_text(encoding="utf-8")
    first, second = re.findall(r"^\((.*)build [12] (\d+)\)$", script, re.MULTILINE)
    assert (first[0], second[0]) == ("", "export TZ=Asia/Tokyo LC_ALL=C; ")
    assert first[1] != second[1]
    epoch = subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True).strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    bill = subprocess.run(
        [sys.executable, ".ci/sbom.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    assert bill.stdout == (released / "hibercheck.cdx.json").read_bytes()


def test_what_is_not_reproducible_is_no_release(tmp_path):
    """A build that depends on the zone, made of the script's own words."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("a release is built from a commit, and this is not a checkout")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nwhile [ "$1" != --outdir ]; do shift; done\nmkdir -p "$2"; echo "$TZ" >"$2/a.whl"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python)}
    command = [ROOT / ".ci" / "release", tmp_path / "out"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "not reproducible: a.whl\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_checksums_are_of_what_is_there(released):
    rows = dict(reversed(line.split()) for line in (released / "SHA256SUMS").read_text().splitlines())
    assert {path.suffix for path in map(Path, rows)} == {".whl", ".gz", ".json"}
    for name, digest in rows.items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest


def test_the_bill_names_all_that_is_needed_at_run_time(released):
    document = json.loads((released / "hibercheck.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    listed = {one["name"] for one in document["components"]}
    assert names(project()["project"]["dependencies"]) <= listed
    assert {"markdown-it-py", "pygments"} <= listed  # what rich needs
    assert not {"pytest", "ruff", "mypy"} & listed
    assert all(one["hashes"] and one["version"] for one in document["components"])


def test_everything_declared_is_pinned_with_hashes():
    pins = {match[1] for match in re.finditer(r"^([a-z0-9.-]+)==", PINNED, re.MULTILINE)}
    pins = {name.replace(".", "-") for name in pins}
    extras = project()["project"]["optional-dependencies"]
    wanted = [
        *project()["project"]["dependencies"],
        *extras["dev"],
        *extras["emu"],
        *project()["build-system"]["requires"],
    ]
    assert names(wanted) <= pins
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", PINNED, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert "file:" not in PINNED
    assert "index-url" not in PINNED


def test_what_only_some_tests_need_is_pinned_too():
    blocks = re.split(r"^(?=[a-z0-9.-]+==)", (ROOT / ".ci" / "clients.txt").read_text(), flags=re.MULTILINE)[1:]
    assert names(project()["project"]["optional-dependencies"]["clients"]) <= names(blocks)
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("script", ["run", "second"])
def test_nothing_that_is_not_pinned_is_installed(script):
    """But the checkout itself, which brings nothing along and is built with what is pinned."""
    lines = [line for line in (ROOT / ".ci" / script).read_text().splitlines() if "pip install" in line]
    assert len(lines) >= 2
    for line in lines:
        assert "--require-hashes -r .ci/" in line or "--no-deps --no-build-isolation -e ." in line, line


def test_no_example_installs_from_an_index():
    for path in sorted((ROOT / "man" / "examples").iterdir()):
        if path.suffix in {".yml", ".sh"}:
            assert not re.search(r"(pip|pipx) install hibercheck\b", path.read_text(encoding="utf-8")), path.name
