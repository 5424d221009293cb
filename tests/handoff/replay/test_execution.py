"""The emulator's opinion beside the replay's, on measured cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.replay import execution
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.execution import second_opinions
from hibercheck.x86.execute import ExecutionEnd

pytest.importorskip("unicorn")


def test_a_cpu_whose_loop_is_gone_faults_or_leaves_it(judged):
    (opinion,) = second_opinions(*judged("fatal", memory=True))
    assert opinion.agrees is True
    assert opinion.runs[0].end is not ExecutionEnd.WAITS_AGAIN


def test_it_disagrees_with_a_replay_that_is_wrong(judged):
    plan, judgement = judged("fatal", memory=True)
    result = judgement.aps[0]
    wrong = replace(result, iteration=replace(result.iteration, difference=Difference.SAME))
    (opinion,) = second_opinions(plan, replace(judgement, aps=(wrong,)))
    assert opinion.agrees is False
    assert opinion.text.endswith("the replay says otherwise")


def test_a_disagreement_is_a_warning_of_the_report(predict, monkeypatch):
    wrong = execution.SecondOpinion(1, "it does something else", agrees=False)
    monkeypatch.setattr(execution, "second_opinions", lambda _plan, _judgement: (wrong,))
    report = predict("fatal", memory=True, execute=True)
    assert any("does not agree" in warning and "CPU 1" in warning for warning in report.warnings)
    assert report.outcome.value == "resets"


def test_without_registers_it_says_what_is_lacking(judged):
    (opinion,) = second_opinions(*judged("benign", memory=False))
    assert opinion.agrees is None
    assert opinion.text.startswith("not run: its loop uses")
    assert "--resumer-memory" in opinion.text


def test_a_loop_that_uses_no_registers_is_run_without_a_dump(predict):
    report = predict("latent", execute=True)
    told = [cpu.executed for cpu in report.cpus if not cpu.boot_cpu]
    assert told
    assert all(text is not None for text in told)


def test_without_a_place_nothing_is_run(judged):
    opinions = second_opinions(*judged("random-address", memory=False))
    assert opinions
    assert all(opinion.agrees is None and "where the resumer is loaded" in opinion.text for opinion in opinions)


def test_without_unicorn_there_is_one_line_and_nothing_is_opened(predict, monkeypatch):
    monkeypatch.setattr(execution, "find_spec", lambda _name: None)
    with pytest.raises(UsageProblem, match="unicorn") as raised:
        predict("fatal", execute=True)
    assert raised.value.exit_status == 2
