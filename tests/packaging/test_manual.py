"""The manual pages are what the commands say, and every reader of manual pages accepts them."""

from __future__ import annotations

import difflib
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hibercheck.cli.commands import summaries
from hibercheck.handoff.facts.given import FACTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "man").glob("man?/*"))


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_manual", ROOT / "man" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_in_step_with_the_commands(generator):
    committed = {str(path.relative_to(ROOT / "man")): path.read_text(encoding="utf-8") for path in PAGES}
    made = generator.pages()
    assert set(committed) == set(made), "python man/generate.py writes them anew"
    for name, content in made.items():
        lines = difflib.unified_diff(committed[name].splitlines(), content.splitlines(), name, "made anew", lineterm="")
        difference = "\n".join(lines)
        if difference:
            pytest.fail(f"python man/generate.py writes them anew:\n{difference}", pytrace=False)


def test_what_check_takes_is_in_step_with_its_options(generator):
    assert generator.PARAMETERS.read_text(encoding="utf-8") == generator.parameters(), "python man/generate.py"


def test_there_is_one_for_each_command_and_each_kind_of_user():
    names = {path.name for path in PAGES}
    assert names >= {"hibercheck.1", *(f"hibercheck-{name}.1" for name in summaries())}
    assert names >= {"hibercheck-ci.7", "hibercheck-qa.7", "hibercheck-diagnose.7"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_mandoc_has_nothing_to_say(page):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    run = subprocess.run(["mandoc", "-Tlint", "-Wstyle", page], capture_output=True, text=True, check=False)
    assert run.stdout + run.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_man_has_nothing_to_say(page):
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("man or groff is not installed")
    environment = {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin", "MAN_DISABLE_SECCOMP": "1"}
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", page]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "hibercheck" in run.stdout


@pytest.mark.parametrize("fact", FACTS.values(), ids=lambda fact: fact.name)
def test_every_fact_that_can_be_said_is_in_the_manual(fact):
    """With its form, as the message for a wrong value has it."""
    assert f"`{fact.name}={fact.form}`" in (ROOT / "man" / "source" / "hibercheck-check.1.md").read_text()


@pytest.mark.parametrize("source", sorted((ROOT / "man" / "source").glob("*.md")), ids=lambda path: path.name)
def test_no_line_that_is_to_be_copied_is_broken_by_a_terminal_of_80_columns(source):
    blocks = re.findall(r"^```\n(.*?)^```$", source.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 71] == []  # nine are the margin
