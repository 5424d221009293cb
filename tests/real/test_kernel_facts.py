"""A check gives the same answer with facts in place of the kernels."""

from __future__ import annotations

import json

import pytest

from hibercheck.cli.run import run
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel


@pytest.mark.parametrize("name", ["stock73-primary-offline", "nosmt-current-deb61", "la57-mismatch-small"])
def test_the_same_verdict(capsys, shared_cases, unpacked, tmp_path, name):
    cases = json.loads((shared_cases / "cases.json").read_text())["cases"]
    (case,) = [one for one in cases if one["name"] == name]
    kernels, facts = {}, {}
    for role in ("resumer", "resumee"):
        kernels[role] = str(unpacked(case[role]))
        facts[role] = str(tmp_path / f"{role}.json")
        with open_kernel(kernels[role]) as kernel, open(facts[role], "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(facts_of(kernel), file)
    answers = []
    for given in (kernels, facts):
        arguments = ["--resumer", given["resumer"], "--resumee", given["resumee"], "--format", "json", *case["args"]]
        run([str(unpacked(case["image"])), *arguments])
        report = json.loads(capsys.readouterr().out)
        findings = [(one["rule"], one["cpu"], one["level"]) for one in report["findings"]]
        answers.append((report["outcome"], report["verdict"], findings))
    assert answers[0] == answers[1]
    assert answers[0][0] == case["truth"]["outcome"]
