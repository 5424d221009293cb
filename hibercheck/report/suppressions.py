"""Suppressions: findings and conditions that somebody has judged, with a reason and perhaps a date.

A TOML file holds one ``[[suppress]]`` for each::

    [[suppress]]
    rule = "HC203"
    cpu = "2,3"                       # at least one selector: cpu, symbol, role, resumer, resumee
    resumer = "6.12.*"                # release (glob) or build id
    reason = "brought online by our resume hook, see ticket 4711"
    owner = "kernel team"             # optional
    expires = 2027-01-31              # optional; afterwards the finding counts again

    [[suppress]]
    condition = "idle-driver"         # instead of a rule; resumer and resumee are its only selectors, and optional
    reason = "our machines have no cpuidle driver, see inventory"

What it does not say exactly it does not do: an unknown key, a missing reason or an entry without a selector is an
error, and an entry that nothing matches is a warning.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

from hibercheck.cpulist import parse_cpu_mask
from hibercheck.errors import UsageProblem
from hibercheck.files.text import read_whole
from hibercheck.files.toml import parse_toml
from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.verdict.findings import Condition, Finding, Report
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report.gate import Mark

SELECTORS = ("cpu", "symbol", "role", "resumer", "resumee")
OF_CONDITIONS = ("resumer", "resumee")
KEYS = frozenset({"rule", "condition", *SELECTORS, "reason", "owner", "expires"})
MAX_BYTES = 1 << 22
MAX_ENTRIES = 1 << 15
"""More than a list that somebody has judged one by one."""
MAX_WARNINGS = 100
"""Warnings of one kind that are told one by one."""


class Named(Protocol):
    """A kernel by which an entry may be limited."""

    @property
    def release(self) -> str:
        """Its release."""
        ...

    @property
    def build_id(self) -> str | None:
        """Its build id."""
        ...


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry.

    Attributes:
        where: File and number of the entry, for messages.
        rule: Identifier of the rule; of an entry about a condition, that of its kind.
        cpus: CPUs it is limited to, as a mask, or None.
        globs: Shell patterns for ``symbol``, ``role``, ``resumer`` and ``resumee``, as far as given.
        reason: Why the finding may stand.
        owner: Who said so, or None.
        expires: Last day on which it holds, or None.
        of_condition: Whether it is about a condition.
    """

    where: str
    rule: str
    cpus: int | None
    globs: tuple[tuple[str, str], ...]
    reason: str
    owner: str | None
    expires: datetime.date | None
    of_condition: bool = False

    def concerns(self, condition: Condition, resumer: Named, resumee: Named) -> bool:
        """Tell whether the entry is about this condition; of two that must come together it may be about either."""
        if not self.of_condition or self.rule not in condition.id.split("+"):
            return False
        return self.is_of(resumer, resumee)

    def is_of(self, resumer: Named, resumee: Named) -> bool:
        """Tell whether an entry about a condition is about these two kernels."""
        kernels = {"resumer": resumer, "resumee": resumee}
        return all(_is_of(pattern, kernels[name]) for name, pattern in self.globs)

    def holds(self, today: datetime.date) -> bool:
        """Tell whether it has not expired."""
        return self.expires is None or self.expires >= today

    def is_about(self, finding: Finding, report: Report) -> bool:
        """Tell whether the entry is about this finding, whichever CPU it is of."""
        if self.of_condition or finding.rule != self.rule:
            return False
        return all(_matches(name, pattern, finding, report) for name, pattern in self.globs)

    def has(self, cpu: int | None) -> bool:
        """Tell whether the entry is for this CPU."""
        return self.cpus is None or (cpu is not None and bool(self.cpus >> cpu & 1))

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
    return _is_of(pattern, report.resumer if name == "resumer" else report.resumee)


def _is_of(pattern: str, kernel: Named) -> bool:
    return fnmatchcase(kernel.release, pattern) or (
        kernel.build_id is not None and fnmatchcase(kernel.build_id, pattern)
    )


def load(path: str) -> tuple[Suppression, ...]:
    """Read a file of suppressions.

    Raises:
        InputProblem: It cannot be read.
        UsageProblem: It is not TOML, or an entry is not complete and exact.
    """
    content = read_whole(path, MAX_BYTES, "a list of suppressions")
    try:
        document = parse_toml(content)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of thousands of digits
        raise UsageProblem(f"not TOML: {error}", path=path) from error
    for key in document:
        if key != "suppress":
            raise UsageProblem(f"unknown key {key!r}", path=path, advice="entries begin with [[suppress]]")
    entries = document.get("suppress", [])
    if not isinstance(entries, list):
        raise UsageProblem("suppress is not a list", path=path, advice="entries begin with [[suppress]]")
    if len(entries) > MAX_ENTRIES:
        raise UsageProblem(f"has {len(entries):,} entries, more than {MAX_ENTRIES:,}", path=path)
    return tuple(_entry(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1))


def _entry(where: str, entry: Any) -> Suppression:  # noqa: ANN401 - whatever TOML has there
    if not isinstance(entry, dict):
        raise UsageProblem("not a table", path=where, advice="entries begin with [[suppress]]")
    for key in entry:
        if key not in KEYS:
            raise UsageProblem(f"unknown key {key!r}", path=where, advice=f"known are {', '.join(sorted(KEYS))}")
    of_condition = "condition" in entry
    if of_condition and "rule" in entry:
        raise UsageProblem("it names both a rule and a condition", path=where, advice="write two entries")
    rule, reason = _required(where, entry, "condition" if of_condition else "rule"), _required(where, entry, "reason")
    if of_condition:
        _check_condition(where, entry, rule)
    elif rule not in RULES:
        raise UsageProblem(f"there is no rule {rule!r}", path=where, advice="`hibercheck rules` lists all")
    elif not any(selector in entry for selector in SELECTORS):
        raise UsageProblem("it has no selector", path=where, advice=f"say for which {', '.join(SELECTORS)}")
    globs = tuple((name, _required(where, entry, name)) for name in SELECTORS if name in entry and name != "cpu")
    owner = _required(where, entry, "owner") if "owner" in entry else None
    return Suppression(where, rule, _cpus(where, entry), globs, reason, owner, _date(where, entry), of_condition)


def _check_condition(where: str, entry: dict[str, Any], name: str) -> None:
    """Refuse a condition that there is not, or a selector that means nothing to one.

    Raises:
        UsageProblem: It is one of these.
    """
    if name not in KINDS:
        raise UsageProblem(f"there is no condition {name!r}", path=where, advice=f"there are {', '.join(KINDS)}")
    wrong = next((key for key in SELECTORS if key in entry and key not in OF_CONDITIONS), None)
    if wrong is not None:
        raise UsageProblem(
            f"{wrong} does not select conditions", path=where, advice=f"use {' or '.join(OF_CONDITIONS)}"
        )


def _required(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageProblem(f"{key} is missing or empty", path=where)
    return value.strip()


def _cpus(where: str, entry: dict[str, Any]) -> int | None:
    if "cpu" not in entry:
        return None
    try:
        cpus = parse_cpu_mask(str(entry["cpu"]))
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


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of suppressions.

    Attributes:
        marks: For each finding of the report, its mark or None.
        condition_marks: For each condition, the same.
        warnings: Entries that expired, entries that nothing used.
    """

    marks: tuple[Mark | None, ...]
    condition_marks: tuple[Mark | None, ...]
    warnings: tuple[str, ...]


def apply(report: Report, entries: Sequence[Suppression], today: datetime.date) -> Applied:
    """Mark the findings and the conditions that entries are about."""
    live = [entry.holds(today) for entry in entries]
    marks: list[Mark | None] = [None] * len(report.findings)
    used = [False] * len(entries)
    for alike in _alike(report.findings):
        left = {number: report.findings[number].cpu for number in alike}
        there = sum({1 << cpu for cpu in left.values() if cpu is not None})
        for place, entry in enumerate(entries):
            # Thousands of entries and of CPUs: an entry is held against all alike findings at once.
            if not live[place] or not entry.is_about(report.findings[alike[0]], report):
                continue
            if entry.cpus is not None and not entry.cpus & there:
                continue
            used[place] = True
            hit = [number for number, cpu in left.items() if entry.has(cpu)]
            for number in hit:
                marks[number] = entry.mark
                del left[number]
    condition_marks = []
    for condition in report.conditions:
        pair = report.resumer, report.resumee
        about = [place for place, entry in enumerate(entries) if live[place] and entry.concerns(condition, *pair)]
        for place in about:
            used[place] = True
        condition_marks.append(entries[about[0]].mark if about else None)
    warnings = told(entries, live, used)
    return Applied(tuple(marks), tuple(condition_marks), warnings)


def told(entries: Sequence[Suppression], live: Sequence[bool], used: Sequence[bool]) -> tuple[str, ...]:
    """Say which entries have expired, and which nothing has used."""
    rows = list(zip(entries, live, used, strict=True))
    expired = [
        f"{entry.where}: expired on {entry.expires}, {entry.rule} counts again" for entry, holds, _ in rows if not holds
    ]
    unused = [
        f"{entry.where}: suppresses nothing ({entry.rule})" for entry, holds, was_used in rows if holds and not was_used
    ]
    return (*_some(expired, "entries expired"), *_some(unused, "entries suppress nothing"))


def _some(warnings: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the first warnings, and how many more there are."""
    left = len(warnings) - MAX_WARNINGS
    return (*warnings[:MAX_WARNINGS], *([f"{left:,} more {what}"] if left > 0 else []))


def _alike(findings: Sequence[Finding]) -> Iterator[list[int]]:
    """Yield the numbers of findings that differ in nothing that an entry can ask for but the CPU."""
    groups: dict[tuple[str, str, str | None], list[int]] = {}
    for number, finding in enumerate(findings):
        groups.setdefault((finding.rule, finding.role, finding.resumer.symbol), []).append(number)
    yield from groups.values()
