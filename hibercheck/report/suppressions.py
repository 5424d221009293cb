"""Suppressions: findings that somebody has judged, with a reason and perhaps a date.

A TOML file holds one ``[[suppress]]`` for each::

    [[suppress]]
    rule = "HC203"
    cpu = "2,3"                       # at least one selector: cpu, symbol, role, resumer, resumee
    resumer = "6.12.*"                # release (glob) or build id
    reason = "brought online by our resume hook, see ticket 4711"
    owner = "kernel team"             # optional
    expires = 2027-01-31              # optional; afterwards the finding counts again

What it does not say exactly it does not do: an unknown key, a missing reason or an entry without a selector is an
error, and an entry that nothing matches is a warning.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hibercheck.cpulist import parse_cpu_list
from hibercheck.errors import InputProblem, UsageProblem
from hibercheck.handoff.findings import Finding, KernelSummary, Report
from hibercheck.handoff.rules import RULES
from hibercheck.report.gate import Mark

SELECTORS = ("cpu", "symbol", "role", "resumer", "resumee")
KEYS = frozenset({"rule", *SELECTORS, "reason", "owner", "expires"})
MAX_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry.

    Attributes:
        where: File and number of the entry, for messages.
        rule: Identifier of the rule.
        cpus: CPUs it is limited to, or None.
        globs: Shell patterns for ``symbol``, ``role``, ``resumer`` and ``resumee``, as far as given.
        reason: Why the finding may stand.
        owner: Who said so, or None.
        expires: Last day on which it holds, or None.
    """

    where: str
    rule: str
    cpus: frozenset[int] | None
    globs: tuple[tuple[str, str], ...]
    reason: str
    owner: str | None
    expires: datetime.date | None

    def matches(self, finding: Finding, report: Report) -> bool:
        """Tell whether the entry is about this finding."""
        if finding.rule != self.rule or (self.cpus is not None and finding.cpu not in self.cpus):
            return False
        return all(_matches(name, pattern, finding, report) for name, pattern in self.globs)

    @property
    def mark(self) -> Mark:
        """What the finding is marked with."""
        by = f" ({self.owner})" if self.owner else ""
        return Mark("suppressed", f"{self.reason}{by}")


def _matches(name: str, pattern: str, finding: Finding, report: Report) -> bool:
    if name == "symbol":
        symbol = finding.resumer.symbol or ""
        return fnmatchcase(symbol, pattern) or fnmatchcase(symbol.partition("+")[0], pattern)
    if name == "role":
        return fnmatchcase(finding.role, pattern)
    kernel: KernelSummary = report.resumer if name == "resumer" else report.resumee
    return fnmatchcase(kernel.release, pattern) or (
        kernel.build_id is not None and fnmatchcase(kernel.build_id, pattern)
    )


def load(path: str) -> tuple[Suppression, ...]:
    """Read a file of suppressions.

    Raises:
        InputProblem: It cannot be read.
        UsageProblem: It is not TOML, or an entry is not complete and exact.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputProblem(f"cannot read: {error.strerror}", path=path) from error
    if len(content) > MAX_BYTES:
        raise UsageProblem(f"more than {MAX_BYTES} bytes for a list of suppressions", path=path)
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of thousands of digits
        raise UsageProblem(f"not TOML: {error}", path=path) from error
    for key in document:
        if key != "suppress":
            raise UsageProblem(f"unknown key {key!r}", path=path, advice="entries begin with [[suppress]]")
    entries = document.get("suppress", [])
    if not isinstance(entries, list):
        raise UsageProblem("suppress is not a list", path=path, advice="entries begin with [[suppress]]")
    return tuple(_entry(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1))


def _entry(where: str, entry: Any) -> Suppression:  # noqa: ANN401 - whatever TOML has there
    if not isinstance(entry, dict):
        raise UsageProblem("not a table", path=where, advice="entries begin with [[suppress]]")
    for key in entry:
        if key not in KEYS:
            raise UsageProblem(f"unknown key {key!r}", path=where, advice=f"known are {', '.join(sorted(KEYS))}")
    rule, reason = _required(where, entry, "rule"), _required(where, entry, "reason")
    if rule not in RULES:
        raise UsageProblem(f"there is no rule {rule!r}", path=where, advice="`hibercheck rules` lists all")
    if not any(selector in entry for selector in SELECTORS):
        raise UsageProblem("it has no selector", path=where, advice=f"say for which {', '.join(SELECTORS)}")
    globs = tuple((name, _required(where, entry, name)) for name in SELECTORS if name in entry and name != "cpu")
    owner = _required(where, entry, "owner") if "owner" in entry else None
    return Suppression(where, rule, _cpus(where, entry), globs, reason, owner, _date(where, entry))


def _required(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageProblem(f"{key} is missing or empty", path=where)
    return value.strip()


def _cpus(where: str, entry: dict[str, Any]) -> frozenset[int] | None:
    if "cpu" not in entry:
        return None
    try:
        cpus = parse_cpu_list(str(entry["cpu"]))
    except ValueError as error:
        raise UsageProblem(str(error), path=where) from error
    if not cpus:
        raise UsageProblem("cpu selects nothing", path=where)
    return cpus


def _date(where: str, entry: dict[str, Any]) -> datetime.date | None:
    value = entry.get("expires")
    if value is None:
        return None
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date | str):
        raise UsageProblem("expires is not a date such as 2027-01-31", path=where)
    try:
        return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(value)
    except ValueError as error:
        raise UsageProblem(f"expires is not a date such as 2027-01-31: {value!r}", path=where) from error


def apply(
    report: Report, entries: Sequence[Suppression], today: datetime.date
) -> tuple[tuple[Mark | None, ...], tuple[str, ...]]:
    """Mark the findings that entries are about.

    Returns:
        One mark or None for each finding of the report; and warnings: entries that expired, entries nothing used.
    """
    live = [entry for entry in entries if entry.expires is None or entry.expires >= today]
    marks: list[Mark | None] = []
    used: set[Suppression] = set()
    for finding in report.findings:
        hits = [entry for entry in live if entry.matches(finding, report)]
        used.update(hits)
        marks.append(hits[0].mark if hits else None)
    warnings = [
        f"{entry.where}: expired on {entry.expires}, {entry.rule} counts again"
        for entry in entries
        if entry not in live
    ]
    warnings += [f"{entry.where}: suppresses nothing ({entry.rule})" for entry in live if entry not in used]
    return tuple(marks), tuple(warnings)
