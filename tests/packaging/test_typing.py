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


PROGRAMS = {
    "use.py": USE,
    "wrong_keyword.py": 'import hibercheck\nhibercheck.check("i", "r", "e", resumer_cmdlin="x")\n',
    "wrong_value.py": 'import hibercheck\nhibercheck.check("i", "r", "e", resumer_cmdline=1)\n',
}


@pytest.mark.slow
def test_it_is_typed_and_a_wrong_keyword_and_a_wrong_value_are_errors(tmp_path):
    """Checked strictly, all in one run: most of it is that mypy reads the package."""
    pytest.importorskip("mypy")
    for name, program in PROGRAMS.items():
        (tmp_path / name).write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", *PROGRAMS]
    environment = {"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = run.stdout.splitlines()
    said = {name: "\n".join(line for line in lines if line.startswith(f"{name}:")) for name in PROGRAMS}
    assert "error" not in said["use.py"]
    assert 'Revealed type is "hibercheck.handoff.verdict.findings.Verdict"' in said["use.py"]
    assert "str | None" in said["use.py"]
    assert 'Unexpected keyword argument "resumer_cmdlin"' in said["wrong_keyword.py"]
    assert 'has incompatible type "int"' in said["wrong_value.py"]
