"""A report as GitLab code quality: a JSON array that merge requests show."""

from __future__ import annotations

import json

from hibercheck.handoff.findings import Finding, Level
from hibercheck.report.cases import describe
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.sanitise import one_line


def render(judged: Judged) -> str:
    """Return the whole array; findings that do not count are left out, as GitLab has no word for them."""
    prints = fingerprints(judged.report.findings)
    issues = [
        {
            "description": describe(finding),
            "check_name": finding.rule,
            "fingerprint": fingerprint,
            "severity": _severity(judged, finding, mark),
            "location": {"path": one_line(judged.report.resumer.path), "lines": {"begin": 1}},
        }
        for (finding, mark), fingerprint in zip(judged.marked, prints, strict=True)
        if mark is None
    ]
    return json.dumps(issues, indent=2, ensure_ascii=True) + "\n"


def _severity(judged: Judged, finding: Finding, mark: Mark | None) -> str:
    if judged.fails(finding, mark):
        return "blocker" if finding.level is Level.ERROR else "critical"
    return {Level.ERROR: "major", Level.WARNING: "minor", Level.NOTE: "info"}[finding.level]
