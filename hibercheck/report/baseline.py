"""Baselines: the findings of an earlier run, so that only what is new fails, and what is worse than it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hibercheck.data import dataclass
from hibercheck.errors import UsageProblem
from hibercheck.files.text import read_whole
from hibercheck.handoff.verdict.findings import KernelSummary, Level, Report, Verdict
from hibercheck.numbers import is_version
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import SEVERITY, Mark

VERSION = 2
MAX_BYTES = 1 << 26

Kernel = tuple[str, str | None]
"""Release and build id."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an earlier run found.

    Attributes:
        verdict: Its verdict.
        resumer: The kernel that it judged as resumer.
        resumee: The kernel that it judged as resumee.
        levels: The level of each finding, by fingerprint.  Notes are not among them: they do not fail a run.
        conditions: What each condition led to, by its name.
    """

    verdict: Verdict
    resumer: Kernel
    resumee: Kernel
    levels: dict[str, Level]
    conditions: dict[str, Verdict]


def of_report(report: Report) -> Baseline:
    """Return the baseline that knows what a report has."""
    levels = {
        fingerprint: finding.level
        for finding, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True)
        if finding.level > Level.NOTE
    }
    conditions = {condition.id: condition.verdict for condition in report.conditions}
    return Baseline(report.verdict, _identity(report.resumer), _identity(report.resumee), levels, conditions)


def _identity(kernel: KernelSummary) -> Kernel:
    return kernel.release, kernel.build_id


def write(report: Report) -> str:
    """Return the file of the baseline that knows every finding of ``report``."""
    known = of_report(report)
    rows = [
        {
            "fingerprint": fingerprint,
            "level": finding.level.name.lower(),
            "rule": finding.rule,
            "role": finding.role,
            "symbol": finding.resumer.symbol,
        }
        for finding, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True)
        if fingerprint in known.levels
    ]
    rows.sort(key=lambda row: str(row["fingerprint"]))
    document = {
        "hibercheck_baseline": VERSION,
        "verdict": str(known.verdict),
        "resumer": {"release": known.resumer[0], "build_id": known.resumer[1]},
        "resumee": {"release": known.resumee[0], "build_id": known.resumee[1]},
        "findings": rows,
        "conditions": {name: str(verdict) for name, verdict in sorted(known.conditions.items())},
    }
    return json.dumps(document, indent=2) + "\n"


def load(path: str) -> Baseline:
    """Read a baseline.

    Raises:
        InputProblem: It cannot be read.
        UsageProblem: It is not a baseline of this version.
    """
    content = read_whole(path, MAX_BYTES, "a baseline")
    try:
        document = json.loads(content)
        version = document["hibercheck_baseline"]
        found = _parsed(document) if is_version(version, VERSION) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageProblem("not a baseline", path=path, advice="write one with --write-baseline") from error
    if found is None:
        raise UsageProblem(f"a baseline of version {version!r}, not {VERSION}", path=path, advice="write it again")
    return found


def _parsed(document: dict[str, Any]) -> Baseline:
    levels = {_text(row["fingerprint"]): Level[_text(row["level"]).upper()] for row in document["findings"]}
    resumer, resumee = (
        (_text(kernel["release"]), None if kernel["build_id"] is None else _text(kernel["build_id"]))
        for kernel in (document["resumer"], document["resumee"])
    )
    # the first baselines of this version have none
    conditions = {_text(name): Verdict(verdict) for name, verdict in document.get("conditions", {}).items()}
    return Baseline(Verdict(document["verdict"]), resumer, resumee, levels, conditions)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def apply(
    report: Report, known: Baseline, marks: Sequence[Mark | None], name: str
) -> tuple[tuple[Mark | None, ...], tuple[str, ...]]:
    """Mark the findings that the baseline knows at their level or a higher one, unless they are marked already.

    If the verdict is worse than it was, no finding is taken for known: together they are not what they were.

    Args:
        report: What was found.
        known: The baseline.
        marks: Why findings do not count so far.
        name: What to call the baseline.

    Returns:
        One mark or None for each finding; and warnings: another kernel, or a worse verdict.
    """
    warnings = list(_others(report, known, name))
    worse = _is_worse(report.verdict, known.verdict)
    if worse:
        what = f"the verdict was {known.verdict} when it was written and is {report.verdict} now"
        warnings.append(f"{name}: {what}, so that all findings count")
    prints = fingerprints(report.findings)
    found = tuple(
        mark or (Mark("baseline", f"known in {name}") if _knows(known, fingerprint, finding.level, worse) else None)
        for mark, finding, fingerprint in zip(marks, report.findings, prints, strict=True)
    )
    return found, tuple(warnings)


def apply_to_conditions(
    report: Report, known: Baseline, marks: Sequence[Mark | None], name: str
) -> tuple[Mark | None, ...]:
    """Mark the conditions that the baseline knows and that lead to nothing worse, unless they are marked already."""
    return tuple(
        mark
        or (
            Mark("baseline", f"known in {name}")
            if condition.id in known.conditions and not _is_worse(condition.verdict, known.conditions[condition.id])
            else None
        )
        for condition, mark in zip(report.conditions, marks, strict=True)
    )


def _knows(known: Baseline, fingerprint: str, level: Level, worse: bool) -> bool:
    return not worse and level > Level.NOTE and known.levels.get(fingerprint, Level.NOTE) >= level


def _is_worse(now: Verdict, before: Verdict) -> bool:
    """Tell whether a verdict is worse than another; a refusal and what is not known are unlike any other."""
    if now in SEVERITY and before in SEVERITY:
        return SEVERITY.index(now) > SEVERITY.index(before)
    return now is not before and now not in {Verdict.SAFE, Verdict.BENIGN}


def _others(report: Report, known: Baseline, name: str) -> Sequence[str]:
    """Name the kernels that are others than those the baseline was written for."""
    changed = [
        f"{role} {before[0]}{' (another build)' if before[0] == now.release else ''}"
        for role, before, now in (
            ("resumer", known.resumer, report.resumer),
            ("resumee", known.resumee, report.resumee),
        )
        if before != _identity(now)
    ]
    return [f"{name}: it was written for other kernels: {', '.join(changed)}"] if changed else []
