"""The Python interface as a type checker of its users sees it: the package says py.typed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hibercheck.handoff.scenario.options import CheckOptions

ROOT = Path(__file__).resolve().parents[2]
EVERY = ", ".join(f"{field.name}=options.{field.name}" for field in fields(CheckOptions))
USE = f"""
import hibercheck
from hibercheck.handoff.scenario.options import CheckOptions

options = CheckOptions()
report = hibercheck.check("i", "r", "e", {EVERY})
reveal_type(report.verdict)
reveal_type(report.findings[0].resumer.symbol)
"""


@pytest.fixture
def checked(tmp_path):
    """Return a function that checks a program strictly and gives what mypy says."""
    pytest.importorskip("mypy")

    def check(program: str) -> str:
        (tmp_path / "use.py").write_text(program)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "use.py"]
        environment = {"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return "\n".join(line for line in run.stdout.splitlines() if line.startswith("use.py"))

    return check


@pytest.mark.slow
def test_it_is_typed(checked):
    said = checked(USE)
    assert "error" not in said
    assert 'Revealed type is "hibercheck.handoff.verdict.findings.Verdict"' in said
    assert "str | None" in said


@pytest.mark.slow
def test_a_wrong_keyword_and_a_wrong_value_are_errors(checked):
    said = checked('import hibercheck\nhibercheck.check("i", "r", "e", resumer_cmdlin="x")\n')
    assert 'Unexpected keyword argument "resumer_cmdlin"' in said
    assert 'has incompatible type "int"' in checked(
        'import hibercheck\nhibercheck.check("i", "r", "e", resumer_cmdline=1)\n'
    )
