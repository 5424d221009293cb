"""A report as SARIF 2.1.0 (OASIS), the format of code-scanning services.

Frame numbers and addresses are properties; what identifies a result is its partial fingerprint.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from hibercheck import __version__
from hibercheck.handoff.findings import Finding, Level, Place
from hibercheck.handoff.rules import RULES, Rule
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "hibercheck/v1"
LEVELS = {Level.NOTE: "note", Level.WARNING: "warning", Level.ERROR: "error"}


def render(judged: Judged) -> str:
    """Return the whole log."""
    return json.dumps(to_dict(judged), indent=2, ensure_ascii=True) + "\n"


def to_dict(judged: Judged) -> dict[str, Any]:
    """Return the log as plain JSON values."""
    rules = list(RULES.values())
    prints = fingerprints(judged.report.findings)
    results = [
        _result(judged, finding, mark, fingerprint)
        for (finding, mark), fingerprint in zip(judged.marked, prints, strict=True)
    ]
    run = {
        "tool": {"driver": {"name": "hibercheck", "version": __version__, "rules": [_rule(rule) for rule in rules]}},
        "invocations": [{"executionSuccessful": True, "exitCode": int(judged.exit_status)}],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "outcome": str(judged.report.outcome),
            "verdict": str(judged.report.verdict),
            "headline": one_line(judged.report.headline),
            "passed": judged.passed,
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


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


def _result(judged: Judged, finding: Finding, mark: Mark | None, fingerprint: str) -> dict[str, Any]:
    advice = f" {sentence(one_line(finding.advice))}" if finding.advice else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": LEVELS[finding.level],
        "message": {"text": f"{sentence(one_line(finding.message))}{advice}"},
        "locations": [_location(judged, finding)],
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {
            "cpu": finding.cpu,
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


def _location(judged: Judged, finding: Finding) -> dict[str, Any]:
    """Name the resumer's file and symbol: they are what a fix would change."""
    path = PurePath(judged.report.resumer.path)
    uri = quote(path.as_posix(), errors="replace")
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": f"file://{uri}" if path.is_absolute() else uri},
            "region": {"startLine": 1},  # a binary has no lines, but GitHub shows no result without one
        }
    }
    if finding.resumer.symbol:
        location["logicalLocations"] = [{"fullyQualifiedName": one_line(finding.resumer.symbol), "kind": "function"}]
    return location


def _place(place: Place) -> dict[str, Any]:
    values = {"virtual": place.virtual, "physical": place.physical}
    shown: dict[str, Any] = {name: f"{value:#x}" for name, value in values.items() if value is not None}
    return shown | ({"symbol": one_line(place.symbol)} if place.symbol else {})
