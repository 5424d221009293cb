"""A report as GitLab code quality: a JSON array that merge requests show."""

from __future__ import annotations

import json

from hibercheck.handoff.verdict.findings import Finding, Level, Verdict
from hibercheck.report.cases import describe, describe_condition
from hibercheck.report.fingerprint import condition_fingerprint, name_fingerprint
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.grouped import defects
from hibercheck.report.sanitise import one_line


def render(judged: Judged) -> str:
    """Return the whole array; findings that do not count are left out, as GitLab has no word for them."""
    issues = [
        {
            "description": f"{describe(one.finding)}{one.more and f'.{one.more}'}",
            "check_name": one.finding.rule,
            "fingerprint": one.fingerprint,
            "severity": _severity(judged, one.finding, one.mark),
            "location": {"path": one_line(judged.report.resumer.path), "lines": {"begin": 1}},
        }
        for one in defects(judged)
        if one.mark is None
    ]
    issues += [
        {
            "description": one_line(describe_condition(condition)),
            "check_name": one_line(f"condition-{condition.id}"),
            "fingerprint": condition_fingerprint(condition),
            "severity": "critical" if judged.condition_fails(condition, mark) else "info",
            "location": {"path": one_line(judged.report.resumer.path), "lines": {"begin": 1}},
        }
        for condition, mark in judged.conditions
        if mark is None
    ]
    if judged.report.verdict is Verdict.UNDETERMINED:  # an empty array would say that all is well
        issues += [
            {
                "description": one_line(f"undetermined: {note.fact}; to supply it: {note.supply}"),
                "check_name": "undetermined",
                "fingerprint": name_fingerprint("missing", note.fact),
                "severity": "critical",
                "location": {"path": one_line(judged.report.resumer.path), "lines": {"begin": 1}},
            }
            for note in judged.report.missing
        ]
    return json.dumps(issues, indent=2, ensure_ascii=True) + "\n"


def _severity(judged: Judged, finding: Finding, mark: Mark | None) -> str:
    if judged.fails(finding, mark):
        return "blocker" if finding.level is Level.ERROR else "critical"
    return {Level.ERROR: "major", Level.WARNING: "minor", Level.NOTE: "info"}[finding.level]
