"""A report as SARIF 2.1.0 (OASIS), the format of code-scanning services.

Frame numbers and addresses are properties; what identifies a result is its partial fingerprint.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from hibercheck import __version__
from hibercheck.handoff.scenario.alternatives import KINDS, Kind
from hibercheck.handoff.verdict.findings import Condition, Finding, Level, Place
from hibercheck.handoff.verdict.rules import RULES, Rule
from hibercheck.report.cases import describe_condition
from hibercheck.report.fingerprint import condition_fingerprint
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.grouped import Defect, defects
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import in_words, sentence, taken_for_granted

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "hibercheck/v1"
LEVELS = {Level.NOTE: "note", Level.WARNING: "warning", Level.ERROR: "error"}


def render(judged: Judged) -> str:
    """Return the whole log."""
    return json.dumps(to_dict(judged), indent=2, ensure_ascii=True) + "\n"


def to_dict(judged: Judged) -> dict[str, Any]:
    """Return the log as plain JSON values."""
    rules = list(RULES.values())
    results = [_result(judged, defect) for defect in defects(judged)]
    results += [_condition(judged, condition, mark, len(rules)) for condition, mark in judged.conditions]
    declared = [*(_rule(rule) for rule in rules), *(_kind(kind) for kind in KINDS.values())]
    properties = {
        "outcome": str(judged.report.outcome),
        "verdict": str(judged.report.verdict),
        **_properties(judged),
        "headline": one_line(judged.report.headline),
        "passed": judged.passed,
    }
    return log(declared, results, int(judged.exit_status), _notifications(judged), properties)


def log(
    rules: list[dict[str, Any]],
    results: list[dict[str, Any]],
    status: int,
    notifications: list[dict[str, Any]],
    properties: dict[str, Any],
) -> dict[str, Any]:
    """Return a log of one run.

    Args:
        rules: What results may be of.
        results: What was found.
        status: The exit status.
        notifications: What else there is to say.
        properties: Of the run.
    """
    run = {
        "tool": {"driver": {"name": "hibercheck", "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "exitCode": status, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": properties,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _properties(judged: Judged) -> dict[str, str]:
    """Return the usual outcome of a machine that may reset, and what leaves no sign in the inputs."""
    usual, granted = judged.report.usual_outcome, taken_for_granted(judged.report)
    found = {} if usual is None else {"usual_outcome": str(usual)}
    return found | ({} if granted is None else {"taken_for_granted": granted})


def _notifications(judged: Judged) -> list[dict[str, Any]]:
    """Return what was not examined, one notification for each rule, and the warnings."""
    rules = list(RULES)
    notes = [
        {
            "level": "note",
            "message": {
                "text": f"Not examined: {sentence(one_line(in_words(note)))} To examine: {one_line(note.supply)}"
            },
            "associatedRule": {"id": rule, "index": rules.index(rule)} if rule in RULES else {"id": one_line(rule)},
        }
        for note in judged.report.unexamined
        for rule in note.rules
    ]
    warnings = (*judged.report.warnings, *judged.warnings)
    return [*notes, *({"level": "warning", "message": {"text": sentence(one_line(text))}} for text in warnings)]


def _rule(rule: Rule) -> dict[str, Any]:
    name = "".join(word.capitalize() for word in rule.name.replace("-", " ").split())
    help_text = f"{rule.why} {rule.remedy}"
    return {
        "id": rule.id,
        "name": name,
        "shortDescription": {"text": sentence(rule.name)},
        "fullDescription": {"text": rule.meaning},
        "help": {"text": help_text, "markdown": help_text},
        "defaultConfiguration": {"level": LEVELS[rule.level]},
    }


def _kind(kind: Kind) -> dict[str, Any]:
    """Return a kind of condition as a rule."""
    return {
        "id": f"condition-{kind.id}",
        "name": "Condition" + "".join(word.capitalize() for word in kind.id.split("-")),
        "shortDescription": {"text": sentence(kind.fact)},
        "fullDescription": {"text": kind.means},
        "help": {"text": sentence(kind.settle), "markdown": sentence(kind.settle)},
        "defaultConfiguration": {"level": "note"},
    }


def _condition(judged: Judged, condition: Condition, mark: Mark | None, rules: int) -> dict[str, Any]:
    """Return a condition as a result; of two that must come together it is the first one's."""
    name = condition.id.split("+")[0]
    result: dict[str, Any] = {
        "ruleId": one_line(f"condition-{name}"),
        "level": "error" if judged.condition_fails(condition, mark) else "note",
        "message": {"text": sentence(one_line(describe_condition(condition)))},
        "locations": [_resumer(judged)],
        "partialFingerprints": {FINGERPRINT: condition_fingerprint(condition)},
        "properties": {
            "condition": one_line(condition.id),
            "outcome": str(condition.outcome),
            "verdict": str(condition.verdict),
            "arguments": one_line(condition.arguments),
        },
    }
    if name in KINDS:
        result["ruleIndex"] = rules + list(KINDS).index(name)
    if mark is not None:
        result["suppressions"] = [{"kind": "external", "justification": one_line(f"{mark.kind}: {mark.reason}")}]
    return result


def _result(judged: Judged, defect: Defect) -> dict[str, Any]:
    """Return a defect; the same of many CPUs is one result, with all of them in its properties."""
    finding, mark = defect.finding, defect.mark
    advice = f" {sentence(one_line(finding.advice))}" if finding.advice else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": LEVELS[finding.level],
        "message": {"text": f"{sentence(one_line(finding.message))}{defect.more}{advice}"},
        "locations": [_location(judged, finding)],
        "partialFingerprints": {FINGERPRINT: defect.fingerprint},
        "properties": {
            "cpu": finding.cpu,
            "cpus": list(defect.cpus),
            "role": one_line(finding.role),
            "resumer": _place(finding.resumer),
            "resumee": _place(finding.resumee),
        },
    }
    if finding.rule in RULES:
        result["ruleIndex"] = list(RULES).index(finding.rule)
    if mark is not None:
        result["suppressions"] = [{"kind": "external", "justification": one_line(f"{mark.kind}: {mark.reason}")}]
    return result


def _resumer(judged: Judged) -> dict[str, Any]:
    """Name the resumer's file."""
    return file_location(judged.report.resumer.path)


def file_location(name: str) -> dict[str, Any]:
    """Return a location that is a whole file, by its path."""
    path = PurePath(name)
    uri = quote(path.as_posix(), errors="replace")
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": f"file://{uri}" if path.is_absolute() else uri},
            "region": {"startLine": 1},  # a binary has no lines, but GitHub shows no result without one
        }
    }


def _location(judged: Judged, finding: Finding) -> dict[str, Any]:
    """Name the resumer's file and symbol: they are what a fix would change."""
    location = _resumer(judged)
    if finding.resumer.symbol:
        location["logicalLocations"] = [{"fullyQualifiedName": one_line(finding.resumer.symbol), "kind": "function"}]
    return location


def _place(place: Place) -> dict[str, Any]:
    values = {"virtual": place.virtual, "physical": place.physical}
    shown: dict[str, Any] = {name: f"{value:#x}" for name, value in values.items() if value is not None}
    return shown | ({"symbol": one_line(place.symbol)} if place.symbol else {})
