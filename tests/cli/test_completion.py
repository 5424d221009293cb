"""Completion, asked as each shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "hibercheck"]


def complete(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    environment = os.environ | {"_HIBERCHECK_COMPLETE": f"{shell}_complete", "COMP_WORDS": line}
    environment["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words) - 1)
    run = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hibercheck expl", ["plain,explain", "file,expl"]),
        ("hibercheck explain bring", ["plain,bringup-order"]),
        ("hibercheck explain HC20", ["plain,HC201", "plain,HC202", "plain,HC203", "plain,HC204"]),
        ("hibercheck image.bin --format sa", ["plain,sarif"]),
        ("hibercheck image.bin --fail-on r", ["plain,risk"]),
        ("hibercheck image.bin --resumer-p", ["plain,--resumer-phys-base"]),
        ("hibercheck completion z", ["plain,zsh"]),
        ("hibercheck image.bin --resumer ker", ["file,ker"]),
        ("hibercheck kernel vm", ["file,vm"]),
        ("hibercheck matrix --cache-dir d", ["dir,d"]),
        ("hibercheck check --help-", ["plain,--help-all"]),
    ],
)
def test_bash(line, offered):
    assert complete(line) == offered


def test_a_first_word_may_be_a_command_or_a_file():
    offered = complete("hibercheck ")
    assert "plain,check" in offered
    assert "file," in offered


def test_zsh_and_fish_show_help():
    zsh = complete("hibercheck explain HC202", "zsh")
    assert zsh[:3] == ["plain", "HC202", "page-table walk diverges"]
    assert complete("hibercheck explain HC202", "fish") == ["plain,HC202\tpage-table walk diverges"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_accepts(shell):
    run = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    assert f"{shell}_complete" in run.stdout
    interpreter = shutil.which(shell)
    if interpreter is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([interpreter, "-n"], input=run.stdout, text=True, check=True)


@pytest.fixture
def directory(tmp_path):
    """A directory with files to complete, and ``hibercheck`` on PATH."""
    (tmp_path / "image.bin").touch()
    (tmp_path / "kernels").mkdir()
    program = tmp_path / "bin" / "hibercheck"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hibercheck "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "fish"):
        script = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True).stdout
        (tmp_path / f"script.{shell}").write_text(script)
    return tmp_path


OFFERED = [
    ("hibercheck ima", {"image", "image.bin"}),
    ("hibercheck expl", {"explain"}),
    ("hibercheck explain HC30", {"HC301", "HC302", "HC303"}),
    ("hibercheck image.bin --resumer ker", {"kernels"}),
    ("hibercheck image.bin --spur", {"--spurious-mwait"}),
]


def within(directory: Path, *command: str) -> set[str]:
    environment = os.environ | {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(Path.cwd())}
    ran = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    return {line.partition("\t")[0].rstrip("/") for line in ran.stdout.splitlines()}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_bash_itself_completes(directory, line, offered):
    words = line.split(" ")
    script = f"""
        source script.bash
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
        _hibercheck_completion hibercheck
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert within(directory, "bash", "-c", script) == offered


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_fish_itself_completes(directory, line, offered):
    assert within(directory, "fish", "--no-config", "-c", f"source script.fish; complete -C '{line}'") == offered
