"""Suppressions and baselines, as their user meets them."""

from __future__ import annotations

import json

import pytest

from tests.report.samples import SAMPLES

KERNELS = ("--resumer", "r", "--resumee", "e")
BOTH = """
[[suppress]]
rule = "HC201"
symbol = "native_play_dead*"
reason = "we never boot with nosmt"
owner = "kernel team"

[[suppress]]
rule = "HC202"
cpu = "1-3"
resumer = "6.12.*"
reason = "the same"
expires = 2999-01-31
"""


def test_suppressed_findings_do_not_count(hibercheck, engine, tmp_path):
    (tmp_path / "s.toml").write_text(BOTH)
    ran = hibercheck("i", *KERNELS, "--suppressions", "s.toml", "--format", "json")
    document = json.loads(ran.out)
    assert ran.status == 0
    assert (document["outcome"], document["verdict"]) == ("resets", "fatal")
    assert document["gate"] == {
        "fail_on": "risk",
        "effective_verdict": "safe",
        "passed": True,
        "exit_status": 0,
        "reason": "without the 2 findings that do not count, safe is below --fail-on risk",
    }
    marks = {finding["rule"]: finding["mark"] for finding in document["findings"]}
    assert marks["HC201"] == {"kind": "suppressed", "reason": "we never boot with nosmt (kernel team)"}
    assert marks["HC701"] is None
    assert document["warnings"] == []


def test_one_finding_left_still_fails(hibercheck, engine, tmp_path):
    (tmp_path / "s.toml").write_text(BOTH.partition('[[suppress]]\nrule = "HC202"')[0])
    assert hibercheck("i", *KERNELS, "--suppressions", "s.toml").status == 1


def test_what_expired_counts_again_and_what_is_unused_warns(hibercheck, engine, tmp_path):
    (tmp_path / "s.toml").write_text(
        BOTH.replace("2999", "1999") + '[[suppress]]\nrule = "HC101"\ncpu = 7\nreason = "x"\n'
    )
    ran = hibercheck("i", *KERNELS, "--suppressions", "s.toml", "--format", "json")
    assert ran.status == 1
    assert json.loads(ran.out)["warnings"] == [
        "s.toml: entry 2: expired on 1999-01-31, HC202 counts again",
        "s.toml: entry 3: suppresses nothing (HC101)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[suppress]]\nrule = "HC201"\nreason = "x"\n', "no selector"),
        ('[[suppress]]\nrule = "HC201"\ncpu = "1"\n', "reason is missing"),
        ('[[suppress]]\nrule = "HC201"\ncpu = "1"\nreason = " "\n', "reason is missing"),
        ('[[suppress]]\nrule = "HC999"\ncpu = "1"\nreason = "x"\n', "no rule 'HC999'"),
        ('[[suppress]]\nrule = "HC201"\ncpus = "1"\nreason = "x"\n', "unknown key 'cpus'"),
        ('[[suppress]]\nrule = "HC201"\ncpu = ""\nreason = "x"\n', "selects nothing"),
        ('[[suppress]]\nrule = "HC201"\nsymbol = ""\nreason = "x"\n', "symbol is missing or empty"),
        ('[[suppress]]\nrule = "HC201"\ncpu = "x"\nreason = "x"\n', "not a CPU"),
        ('[[suppress]]\nrule = "HC201"\ncpu = "1"\nreason = "x"\nexpires = "soon"\n', "not a date"),
        ("[suppress]\nrule = 1\n", "not a list"),
        ("suppress = [1]\n", "not a table"),
        ("[[supress]]\n", "unknown key 'supress'"),
        ("[[suppress", "not TOML"),
    ],
)
def test_a_bad_suppression_is_an_error(hibercheck, engine, tmp_path, text, said):
    (tmp_path / "s.toml").write_text(text)
    ran = hibercheck("i", *KERNELS, "--suppressions", "s.toml")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert said in ran.err


def test_a_baseline_lets_only_the_new_fail(hibercheck, engine, tmp_path):
    assert hibercheck("i", *KERNELS, "--write-baseline", "b.json").status == 0
    assert hibercheck("i", *KERNELS, "--baseline", "b.json").status == 0
    first = (tmp_path / "b.json").read_text()
    hibercheck("i", *KERNELS, "--write-baseline", "b.json")
    assert (tmp_path / "b.json").read_text() == first
    engine.answer = SAMPLES["many-cpus"]()
    assert hibercheck("i", *KERNELS, "--baseline", "b.json").status == 1


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"hibercheck_baseline": 1}', '{"hibercheck_baseline": 2, "findings": []}', "\x00"]
)
def test_a_bad_baseline_is_an_error(hibercheck, engine, tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    ran = hibercheck("i", *KERNELS, "--baseline", "b.json")
    assert (ran.status, ran.err.count("\n")) == (2, 1)


def test_a_missing_fact_is_not_suppressed_away(hibercheck, engine, tmp_path):
    engine.answer = SAMPLES["undetermined"]()
    assert hibercheck("i", *KERNELS, "--write-baseline", "b.json").status == 4
