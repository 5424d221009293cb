"""Completion, asked as each shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

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
        ("hibercheck explain HC20", ["plain,HC201", "plain,HC202", "plain,HC203", "plain,HC204"]),
        ("hibercheck image.bin --format sa", ["plain,sarif"]),
        ("hibercheck image.bin --fail-on r", ["plain,risk"]),
        ("hibercheck image.bin --resumer-p", ["plain,--resumer-phys-base"]),
        ("hibercheck completion z", ["plain,zsh"]),
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
