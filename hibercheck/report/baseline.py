"""Baselines: the findings of an earlier run, so that only what is new fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hibercheck.errors import InputProblem, UsageProblem
from hibercheck.handoff.findings import Report
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import Mark

VERSION = 1
MAX_BYTES = 1 << 26


def write(report: Report) -> str:
    """Return the baseline that knows every finding of ``report``."""
    prints = fingerprints(report.findings)
    rows = [
        {"fingerprint": fingerprint, "rule": finding.rule, "role": finding.role, "symbol": finding.resumer.symbol}
        for finding, fingerprint in zip(report.findings, prints, strict=True)
    ]
    rows.sort(key=lambda row: str(row["fingerprint"]))
    return json.dumps({"hibercheck_baseline": VERSION, "findings": rows}, indent=2) + "\n"


def load(path: str) -> frozenset[str]:
    """Return the fingerprints that a baseline knows.

    Raises:
        InputProblem: It cannot be read.
        UsageProblem: It is no baseline of this version.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputProblem(f"cannot read: {error.strerror}", path=path) from error
    try:
        document = json.loads(content) if len(content) <= MAX_BYTES else {}
        known = frozenset(str(row["fingerprint"]) for row in document["findings"])
        version = document["hibercheck_baseline"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageProblem("not a baseline", path=path, advice="write one with --write-baseline") from error
    if version != VERSION:
        raise UsageProblem(f"a baseline of version {version!r}, not {VERSION}", path=path, advice="write it anew")
    return known


def apply(report: Report, known: frozenset[str], marks: Sequence[Mark | None], name: str) -> tuple[Mark | None, ...]:
    """Mark the findings that the baseline knows, unless they are marked already."""
    prints = fingerprints(report.findings)
    return tuple(
        mark or (Mark("baseline", f"known in {name}") if fingerprint in known else None)
        for mark, fingerprint in zip(marks, prints, strict=True)
    )
