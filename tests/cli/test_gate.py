"""Suppressions and baselines, as their user meets them."""

from __future__ import annotations

import dataclasses
import datetime
import json

import pytest

from hibercheck.cli.check import FORMATS
from hibercheck.errors import UsageProblem
from hibercheck.handoff.verdict.findings import Level, Verdict
from hibercheck.report import baseline, suppressions
from hibercheck.report.fingerprint import fingerprints
from tests.report.samples import SAMPLES
from tests.support.effort import ends

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
        "strict": False,
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
    "text",
    [
        *("", "{}", "[]", '"x"', "null", '{"hibercheck_baseline": 1}', "\x00"),
        *('{"hibercheck_baseline": 1, "findings": []}', '{"hibercheck_baseline": 2, "findings": []}'),
    ],
)
def test_a_bad_baseline_is_an_error(hibercheck, engine, tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    ran = hibercheck("i", *KERNELS, "--baseline", "b.json")
    assert (ran.status, ran.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "damage",
    [{"hibercheck_baseline": True}, {"verdict": "fine"}, {"resumer": "x"}, {"findings": [{"fingerprint": 1}]},
     {"findings": [{"fingerprint": "a", "level": "bad"}]}, {"findings": [1]}, {"resumee": {"release": None}}],
)  # fmt: skip
def test_a_damaged_baseline_is_an_error(hibercheck, engine, tmp_path, damage):
    hibercheck("i", *KERNELS, "--write-baseline", "b.json")
    whole = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(whole | damage))
    ran = hibercheck("i", *KERNELS, "--baseline", "b.json")
    assert (ran.status, ran.err.count("\n")) == (2, 1)


def at_level(report, level, verdict):
    findings = tuple(dataclasses.replace(finding, level=level) for finding in report.findings)
    return dataclasses.replace(report, findings=findings, verdict=verdict)


@pytest.mark.parametrize(
    ("before", "after", "status", "warned"),
    [
        ((Level.NOTE, Verdict.BENIGN), (Level.ERROR, Verdict.FATAL), 1, True),
        ((Level.NOTE, Verdict.RISK), (Level.WARNING, Verdict.RISK), 1, False),
        ((Level.WARNING, Verdict.RISK), (Level.ERROR, Verdict.RISK), 1, False),
        ((Level.WARNING, Verdict.RISK), (Level.ERROR, Verdict.FATAL), 1, True),
        ((Level.ERROR, Verdict.RISK), (Level.ERROR, Verdict.FATAL), 1, True),
        ((Level.ERROR, Verdict.FATAL), (Level.ERROR, Verdict.FATAL), 0, False),
        ((Level.ERROR, Verdict.FATAL), (Level.WARNING, Verdict.RISK), 0, False),
        ((Level.ERROR, Verdict.FATAL), (Level.NOTE, Verdict.BENIGN), 0, False),
        ((Level.ERROR, Verdict.FATAL), (Level.ERROR, Verdict.REFUSED), 1, True),
        ((Level.ERROR, Verdict.REFUSED), (Level.ERROR, Verdict.REFUSED), 0, False),
        ((Level.ERROR, Verdict.UNDETERMINED), (Level.ERROR, Verdict.FATAL), 1, True),
    ],
    ids=str,
)
def test_a_baseline_does_not_hide_what_is_worse(hibercheck, engine, before, after, status, warned):
    """A note of a harmless run is not a licence, nor is a warning for an error, nor a risk for what is fatal now."""
    engine.answer = at_level(SAMPLES["fatal"](), *before)
    hibercheck("i", *KERNELS, "--write-baseline", "b.json")
    engine.answer = at_level(SAMPLES["fatal"](), *after)
    ran = hibercheck("i", *KERNELS, "--baseline", "b.json")
    assert ran.status == status
    assert ("so that all findings count" in ran.err) == warned
    assert "warning: b.json: the verdict was" in ran.err or not warned


def test_a_baseline_knows_no_notes(hibercheck, engine, tmp_path):
    hibercheck("i", *KERNELS, "--write-baseline", "b.json")
    kept = json.loads((tmp_path / "b.json").read_text())["findings"]
    assert {(row["rule"], row["level"]) for row in kept} == {("HC201", "error"), ("HC202", "error")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"release": "7.0"}, "it was written for other kernels: resumer 6.12.94+deb13-cloud-amd64"),
        ({"build_id": "0" * 40}, "resumer 6.12.94+deb13-cloud-amd64 (another build)"),
    ],
)
def test_a_baseline_of_other_kernels_is_told(hibercheck, engine, changes, said):
    hibercheck("i", *KERNELS, "--write-baseline", "b.json")
    report = SAMPLES["fatal"]()
    engine.answer = dataclasses.replace(report, resumer=dataclasses.replace(report.resumer, **changes))
    ran = hibercheck("i", *KERNELS, "--baseline", "b.json", "--quiet")
    assert ran.err.startswith("hibercheck: warning: b.json: ")
    assert said in ran.err


def test_a_note_of_one_cpu_is_not_the_failure_of_another():
    report = SAMPLES["many-cpus"]()
    mixed = [
        dataclasses.replace(finding, level=Level.NOTE) if number % 2 else finding
        for number, finding in enumerate(report.findings)
    ]
    noted = {one for one, finding in zip(fingerprints(mixed), mixed, strict=True) if finding.level is Level.NOTE}
    assert len(set(fingerprints(mixed))) == len(mixed)
    assert not noted & set(fingerprints(report.findings))


@pytest.mark.parametrize("how", [[], ["--quiet"], *(["--format", form] for form in FORMATS)], ids=str)
def test_every_warning_goes_to_standard_error(hibercheck, engine, tmp_path, how):
    (tmp_path / "s.toml").write_text(
        BOTH.replace("2999", "1999") + '[[suppress]]\nrule = "HC101"\ncpu = 7\nreason = "x"\n'
    )
    engine.answer = dataclasses.replace(SAMPLES["fatal"](), warnings=("the image is old\x1b[31m",))
    assert hibercheck("i", *KERNELS, "--suppressions", "s.toml", *how).err.splitlines() == [
        "hibercheck: warning: the image is old\\x1b[31m",
        "hibercheck: warning: s.toml: entry 2: expired on 1999-01-31, HC202 counts again",
        "hibercheck: warning: s.toml: entry 3: suppresses nothing (HC101)",
    ]


def test_thousands_of_suppressions_take_seconds(hibercheck, engine, tmp_path):
    report = SAMPLES["fatal"]()
    engine.answer = dataclasses.replace(
        report, findings=tuple(dataclasses.replace(report.findings[1], cpu=cpu) for cpu in range(8192))
    )
    entry = '[[suppress]]\nrule = "HC201"\ncpu = "0-8191"\nreason = "x"\n'
    (tmp_path / "s.toml").write_text(entry * 20_000)
    with ends():
        assert hibercheck("i", *KERNELS, "--suppressions", "s.toml", "--quiet").status == 0
        (tmp_path / "s.toml").write_text(entry.replace("0-8191", "7").replace("HC201", "HC303") * 20_000)
        ran = hibercheck("i", *KERNELS, "--suppressions", "s.toml", "--quiet")
    assert (ran.status, ran.err.count("\n")) == (1, 101)
    assert "19,900 more entries suppress nothing" in ran.err
    (tmp_path / "s.toml").write_text(entry * 33_000)
    assert hibercheck("i", *KERNELS, "--suppressions", "s.toml").status == 2


def test_a_missing_fact_is_not_suppressed_away(hibercheck, engine, tmp_path):
    engine.answer = SAMPLES["undetermined"]()
    assert hibercheck("i", *KERNELS, "--write-baseline", "b.json").status == 4


def test_conditions_are_suppressed_by_their_names(tmp_path):
    """Of two that must come together either name will do; a name that there is not is an error."""
    report = SAMPLES["safe-unless"]()
    path = tmp_path / "s.toml"
    path.write_text('[[suppress]]\ncondition = "load-address"\nreason = "always where it is linked"\n')
    applied = suppressions.apply(report, suppressions.load(str(path)), datetime.date(2026, 1, 1))
    assert [mark is not None for mark in applied.condition_marks] == [True, True]
    assert applied.warnings == ()
    path.write_text('[[suppress]]\ncondition = "idle-driver"\nreason = "none"\nresumer = "no-such*"\n')
    applied = suppressions.apply(report, suppressions.load(str(path)), datetime.date(2026, 1, 1))
    assert [mark is not None for mark in applied.condition_marks] == [False, False]
    assert len(applied.warnings) == 1
    for wrong in ('condition = "x"', 'condition = "smt"\nrule = "HC101"', 'condition = "smt"\ncpu = "1"'):
        path.write_text(f'[[suppress]]\n{wrong}\nreason = "none"\n')
        with pytest.raises(UsageProblem):
            suppressions.load(str(path))


def test_a_baseline_knows_conditions_but_not_worse_ones(tmp_path):
    report = SAMPLES["safe-unless"]()
    path = tmp_path / "b.json"
    path.write_text(baseline.write(report))
    known = baseline.load(str(path))
    assert all(baseline.apply_to_conditions(report, known, (None, None), "b"))
    worse = dataclasses.replace(report.conditions[1], verdict=Verdict.FATAL)
    changed = dataclasses.replace(report, conditions=(report.conditions[0], worse))
    assert [mark is None for mark in baseline.apply_to_conditions(changed, known, (None, None), "b")] == [False, True]
