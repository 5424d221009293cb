"""Every format, against its own rules, on every sample."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from hibercheck.cli.check import FORMATS
from hibercheck.cli.shared import FAIL_ON
from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.verdict.findings import NotExamined, Place
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import formats, gate, github
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import Mark, judge
from tests.report.samples import SAMPLES

SCHEMAS = Path(__file__).resolve().parent / "schemas"
SARIF = json.loads((SCHEMAS / "sarif-2.1.0.json").read_text(encoding="utf-8"))
SCHEMA = json.loads(files("hibercheck.report").joinpath("schema/report.json").read_text())
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\udc80-\udcff]")
XML_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ALL = pytest.mark.parametrize("name", SAMPLES)


def valid(document: object, form: str) -> None:
    """Hold a document to the schema of its form.

    Raises:
        jsonschema.ValidationError: It does not follow it.
    """
    checker(form).validate(document)


@functools.cache
def checker(form: str) -> jsonschema.Draft202012Validator:
    """Return what holds documents to a schema, itself held to its own."""
    schema = {"json": SCHEMA, "sarif": SARIF}[form]
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def rendered(name: str, form: str, **how: object) -> str:
    return formats.renderer(form)(judge(SAMPLES[name](), **how))


def test_the_command_offers_what_there_is():
    assert FORMATS == formats.NAMES
    assert FAIL_ON == gate.FAIL_ON


@pytest.mark.parametrize("form", formats.NAMES[1:])
@ALL
def test_the_same_report_gives_the_same_bytes(name, form):
    content = rendered(name, form)
    assert content == rendered(name, form)
    assert content.endswith("\n")
    assert not content.endswith("\n\n")
    assert not CONTROLS.search(content)


@ALL
def test_json_follows_its_schema(name):
    document = json.loads(rendered(name, "json"))
    valid(document, "json")


def test_the_schema_is_strict_enough_to_fail():
    document = json.loads(rendered("fatal", "json"))
    for damage in ({"outcome": "maybe"}, {"schema_version": 1}, {"cpus": [{}]}, {"image": None}):
        with pytest.raises(jsonschema.ValidationError):
            valid(document | damage, "json")


@ALL
def test_sarif_follows_the_standard(name):
    document = json.loads(rendered(name, "sarif", marks=[Mark("suppressed", "known")] * len(SAMPLES[name]().findings)))
    valid(document, "sarif")
    run = document["runs"][0]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert re.fullmatch(r"[!-~]+", place["artifactLocation"]["uri"])
        assert place["region"]["startLine"] == 1  # GitHub shows no result without one


@pytest.mark.parametrize(
    "damage",
    [
        {"version": "2.0.0"},
        {"runs": [{}]},
        {"runs": [{"tool": {"driver": {"name": "x", "rulez": []}}}]},
        {"runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"ruleId": "HC201"}]}]},
    ],
)
def test_the_sarif_schema_is_strict_enough_to_fail(damage):
    document = json.loads(rendered("fatal", "sarif")) | damage
    with pytest.raises(jsonschema.ValidationError):
        valid(document, "sarif")


@ALL
def test_sarif_multitool_finds_no_error(name, tmp_path):
    """As its makers check it; npm has it as @microsoft/sarif-multitool-linux."""
    tool = shutil.which("sarif-multitool") or shutil.which("sarif-multitool-linux")
    if tool is None:
        pytest.skip("sarif-multitool is not installed")
    (tmp_path / "report.sarif").write_text(rendered(name, "sarif"))
    command = [tool, "validate", "report.sarif", "--level", "Error"]
    environment = os.environ | {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}  # it needs no ICU
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "report.sarif(" not in ran.stdout, ran.stdout
    assert "1 files scanned" in ran.stdout


def test_what_was_not_examined_is_no_pass_in_any_format():
    name, why = "safe", "where the monitored line lies is not known"
    ktap = rendered(name, "ktap").splitlines()
    assert (
        sum(line.startswith("ok") and f"# SKIP CPUs 1-3: {why} (--resumer-memory DUMP)" in line for line in ktap) == 2
    )
    assert sum("HC404" in line and "# SKIP" in line for line in ktap) == 1
    suite = ET.fromstring(rendered(name, "junit"))[0]  # noqa: S314 - our own output
    skipped = {case.get("name")[:5]: case.find("skipped") for case in suite.findall("testcase")}
    assert all(why in skipped[rule].get("message") for rule in ("HC101", "HC102"))
    assert "--verify" in skipped["HC404"].get("message")
    assert skipped["HC201"] is None
    missing = json.loads(rendered(name, "json"))["missing"]
    assert [(one["rules"], one["cpus"]) for one in missing] == [(["HC101", "HC102"], [1, 2, 3]), (["HC404"], [])]
    invocation = json.loads(rendered(name, "sarif"))["runs"][0]["invocations"][0]
    told = [
        note["associatedRule"]["id"] for note in invocation["toolExecutionNotifications"] if note["level"] == "note"
    ]
    assert told == ["HC101", "HC102", "HC404"]
    assert "title=not examined%3A HC101%2C HC102%2C HC404::HC101, HC102: CPUs 1-3: where" in rendered(name, "github")
    assert "### Not examined" in rendered(name, "markdown")


def test_notes_of_one_cpu_do_not_hide_that_another_was_not_examined():
    report = SAMPLES["benign"]()
    note = NotExamined((report.findings[0].rule,), (3,), "its data is not known", "--x")
    judged = judge(dataclasses.replace(report, unexamined=(note,)))
    line = next(line for line in formats.renderer("ktap")(judged).splitlines() if " HC201 " in line and line[0] != "#")
    assert line.endswith("# SKIP CPU 3: its data is not known (--x)")
    failing = dataclasses.replace(SAMPLES["fatal"](), unexamined=(note,))
    assert "not ok 4 HC201" in formats.renderer("ktap")(judge(failing))


@pytest.mark.parametrize("form", sorted({*formats.NAMES} - {"text", "gitlab"}))  # GitLab has no place for it
def test_warnings_are_in_every_format_that_has_a_place(form):
    content = formats.renderer(form)(judge(SAMPLES["safe"](), warnings=("s.toml: entry 1: suppresses nothing",)))
    assert "lready consumed by a resume" in content
    assert "uppresses nothing" in content


@pytest.mark.parametrize("form", sorted({*formats.NAMES} - {"text", "gitlab"}))  # GitLab takes findings only
def test_the_margin_and_what_is_usual_are_in_every_format_that_has_a_place(form):
    content = re.sub(r"\s+", " ", rendered("asleep", form))
    assert "810 of 6230 copies later; a machine that wakes it in time resumes" in content


def test_the_usual_outcome_has_a_member_where_programs_read():
    for name, expected in (("asleep", "resumes"), ("fatal", None)):
        (run,) = json.loads(rendered(name, "sarif"))["runs"]
        found = ET.fromstring(rendered(name, "junit")).find(".//property[@name='usual_outcome']")  # noqa: S314
        assert run["properties"].get("usual_outcome") == expected
        assert (None if found is None else found.get("value")) == expected
        assert json.loads(rendered(name, "json"))["usual_outcome"] == expected


@pytest.mark.parametrize("form", sorted({*formats.NAMES} - {"text", "gitlab", "github"}))  # which take findings only
def test_what_is_taken_for_granted_is_in_every_format_that_has_a_place(form):
    content = re.sub(r"\s+", " ", rendered("safe", form))
    assert "the resumer runs on the machine that hibernated" in content
    assert "started by its boot loader and not by kexec" in content


def test_fingerprints_do_not_follow_addresses_frames_or_paths():
    report = SAMPLES["many-cpus"]()
    moved = [
        dataclasses.replace(finding, resumer=Place(1, 2, finding.resumer.symbol), message="other", evidence=())
        for finding in report.findings
    ]
    prints = fingerprints(report.findings)
    assert fingerprints(moved) == prints
    assert len(set(prints)) == len(prints)
    renamed = [dataclasses.replace(finding, role="monitored line") for finding in report.findings]
    assert not set(fingerprints(renamed)) & set(prints)


@pytest.fixture(scope="module")
def junit():
    """The schema of Jenkins."""
    return pytest.importorskip("xmlschema").XMLSchema10(SCHEMAS / "junit-10.xsd")


@ALL
def test_junit_follows_the_schema_of_jenkins(name, junit):
    marked = [Mark("suppressed", "known")] * len(SAMPLES[name]().findings)
    for content in (rendered(name, "junit"), rendered(name, "junit", marks=marked)):
        junit.validate(content)
        with pytest.raises(ValueError, match="colour"):
            junit.validate(content.replace("<testcase ", '<testcase colour="red" ', 1))


@ALL
def test_junit_counts_are_true(name):
    content = rendered(name, "junit")
    assert not XML_FORBIDDEN.search(content)
    suite = ET.fromstring(content)[0]  # noqa: S314 - our own output
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases) == len(RULES) + len(KINDS) + 1
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    passed = judge(SAMPLES[name]()).passed
    assert passed == (not suite.findall("testcase/failure") and not suite.findall("testcase/error"))


@ALL
def test_ktap_parses(name):
    lines = rendered(name, "ktap").splitlines()
    assert lines[0] == "KTAP version 1"
    results = []
    for line in lines[1:]:
        if line.startswith("# ") or line == f"1..{len(RULES) + len(KINDS) + 1}":
            continue
        match = re.fullmatch(r"(ok|not ok) (\d+) ([^#]+?)(?: # (XFAIL|ERROR|SKIP|TIMEOUT)( [^#]*)?)?", line)
        assert match, line
        results.append(match)
    assert [int(match[2]) for match in results] == list(range(1, len(RULES) + len(KINDS) + 2))
    assert judge(SAMPLES[name]()).passed == all(match[1] == "ok" for match in results)


def numberless(name: str, **how: object) -> str:
    """A sample as KTAP, with N for each number: a new rule moves those behind it."""
    return re.sub(r"^((?:not )?ok) \d+", r"\1 N", rendered(name, "ktap", **how), flags=re.MULTILINE)


def test_ktap_says_what_is_expected_and_what_is_open():
    marks = [Mark("suppressed", "ticket #7")] * len(SAMPLES["fatal"]().findings)
    content = numberless("fatal", marks=marks)
    assert "ok N HC201 park loop overwritten with other bytes # XFAIL suppressed: ticket 7" in content
    assert "not ok N verdict # ERROR the resumer has no symbols" in numberless("undetermined")


def test_what_was_not_looked_at_does_not_pass_for_an_answer():
    refused = numberless("refused")
    assert "not ok N HC402 image will be refused\n" in refused
    assert "ok N HC201 park loop overwritten with other bytes # SKIP the image is not loaded\n" in refused
    assert "ok N HC201 park loop overwritten with other bytes # SKIP a fact is missing\n" in numberless("undetermined")
    assert "ok N HC601 reserved park page is in the image # SKIP" in numberless("fatal")
    suite = ET.fromstring(rendered("refused", "junit"))[0]  # noqa: S314 - our own output
    assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped")) > 10


@ALL
def test_github_commands_are_one_line_each(name):
    for line in rendered(name, "github").splitlines():
        assert re.fullmatch(r"::(error|warning|notice) title=[^:,\r\n]+::[^\r\n]*", line)


def test_json_has_once_what_cpus_share():
    document = json.loads(rendered("many-cpus", "json"))
    groups = document["cpus"]
    assert [(one["cpu"], one["cpus"]) for one in groups] == [
        (0, [0]),
        (1, list(range(1, 48))),
        (48, list(range(48, 64))),
    ]
    assert [one["apic_ids"] for one in groups] == [one["cpus"] for one in groups]
    assert len(document["frames"]) == 6
    assert document["frames"][groups[-1]["footprint"][0]]["resumer"] == "native_play_dead+0x69"
    (finding,) = document["findings"]
    assert (finding["cpu"], finding["cpus"]) == (48, list(range(48, 64)))
    assert document["evidence"][finding["evidence"][0]]["before"].startswith("0faef048")


def test_json_does_not_grow_with_cpus_that_are_alike():
    report = SAMPLES["many-cpus"]()
    last = report.cpus[-1]
    told = [f"CPU {number} is woken before CPU 63 and CPU 1" for number in range(64, 1024)]
    more = [dataclasses.replace(last, cpu=n, sentence=text) for n, text in zip(range(64, 1024), told, strict=True)]
    grown = dataclasses.replace(report, cpus=(*report.cpus, *more))
    sizes = [len(formats.renderer("json")(judge(one))) for one in (report, grown)]
    assert sizes[1] < sizes[0] + 960 * 40  # the numbers


def test_what_is_said_of_another_cpu_keeps_cpus_apart():
    report = SAMPLES["many-cpus"]()
    told = ("CPU 63 follows CPU 1", "CPU 62 follows CPU 1", "CPU 61 follows CPU 10", "CPU 1 follows CPU 10")
    cpus = [dataclasses.replace(report.cpus[-1], cpu=63 - n, sentence=text) for n, text in enumerate(told)]
    document = json.loads(formats.renderer("json")(judge(dataclasses.replace(report, cpus=tuple(cpus)))))
    assert [one["cpus"] for one in document["cpus"]] == [[63, 62], [61], [60]]


@pytest.mark.parametrize("form", ["ktap", "junit"])
def test_a_case_has_one_line_for_the_same_of_many_cpus(form):
    lines = [line for line in rendered("many-cpus", form).splitlines() if "48-63" in line or "49-63" in line]
    assert sum("overwrit" in line and "The same on CPUs 49-63." in line for line in lines) >= 1
    assert rendered("many-cpus", form).count("49-63") <= 2  # the reason, and the list


def test_github_has_a_defect_once_and_no_notes():
    lines = rendered("many-cpus", "github").splitlines()
    assert len(lines) == 2
    assert "The same on CPUs 49-63." in lines[1]
    passing = judge(SAMPLES["benign"]())
    assert len(github.render(passing).splitlines()) == 1
    assert len(github.render(passing, notes=True).splitlines()) == 2


def test_github_messages_are_escaped():
    assert "x%250A" in rendered("hostile", "github")


@ALL
def test_gitlab_issues_are_complete(name):
    issues = json.loads(rendered(name, "gitlab"))
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"]["begin"] == 1


def test_markdown_says_what_to_do_and_puts_cpus_together():
    content = rendered("many-cpus", "markdown")
    assert content.count("### HC201 error, CPUs 48-63") == content.count("### ") - content.count("### Assumed")
    assert content.index("What to do") < content.index("| CPU |")


def test_markdown_cannot_be_left():
    content = rendered("hostile", "markdown")
    assert "<script>" not in re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", content)
    rows = [line for line in content.splitlines() if line.startswith("| 1 |")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5


FORMATS_OF_CONDITIONS = ("json", "sarif", "junit", "ktap", "github", "gitlab", "markdown")


@pytest.mark.parametrize("form", FORMATS_OF_CONDITIONS)
def test_a_condition_stands_in_every_format_with_what_proves_it(form):
    content = rendered("safe-unless", form).replace("\\", "")
    assert "load-address" in content or form == "markdown"
    assert "--resumer-phys-base" in content
    assert "0x1600000" in content


@pytest.mark.parametrize(
    ("strict", "marks", "status"),
    [(False, None, 0), (True, None, 1), (True, ("load-address",), 1), (True, ("load-address", "both"), 0)],
)
def test_strict_counts_the_worst_condition_that_is_not_suppressed(strict, marks, status):
    report = SAMPLES["safe-unless"]()
    spared = None
    if marks:
        mark = Mark("suppressed", "we know")
        spared = (mark, mark if "both" in marks else None)
    judged = judge(report, strict=strict, condition_marks=spared)
    assert int(judged.exit_status) == status
    assert ("--strict" in judged.reason) == bool(status)
    assert judge(report, strict=True, fail_on="never").passed
