"""Rules and conditions, explained."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hibercheck.cli.run import run
from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.report.rules import explain_condition


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_is_explained_as_a_rule_is(kind):
    console = Console(file=io.StringIO(), width=1000)
    explain_condition(kind, console)
    text = " ".join(console.file.getvalue().split())
    assert text.startswith(f"{kind} condition {KINDS[kind].fact}")
    assert KINDS[kind].means in text
    assert (
        KINDS[kind].settle in text.replace("Run `", "run `").replace("Give ", "give ") or KINDS[kind].settle[1:] in text
    )
    for heading in ("What it means", "What could be otherwise", "What becomes of the verdict", "How to find out"):
        assert heading in text


def test_two_that_come_together_and_a_rule_in_one_go(capsys):
    assert run(["explain", "Idle-Driver+CPUS", "HC202"]) == 0
    out = capsys.readouterr().out
    assert ("idle-driver condition" in out, "cpus condition" in out, "HC202 " in out) == (True, True, True)


@pytest.mark.parametrize("name", ["idle-drive", "idle-driver+", "+", "idle-driver+nothing"])
def test_what_is_no_condition_is_a_usage_error(name, capsys):
    assert run(["explain", name]) == 2
    assert "a condition" in capsys.readouterr().err
