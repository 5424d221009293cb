"""A report as a row of test cases, one for each rule: what JUnit and KTAP have in common."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.verdict.findings import Condition, Finding, Outcome, Report, Verdict
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report.gate import Exit, Judged
from hibercheck.report.grouped import Defect, defects
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import condition_text, in_words, outcome, sentence


class Status(Enum):
    """How a case ended."""

    PASSED = auto()
    FAILED = auto()
    EXPECTED = auto()
    """It would fail, and a suppression or the baseline says that it may."""
    SKIPPED = auto()
    """It was not looked at: it does not apply, or what it would take is not known."""
    ERROR = auto()
    """It could not be decided."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: ``HC201 park loop overwritten with other bytes``; the first case is ``verdict``.
        status: How it ended.
        reason: For anything but a pass: why, in one line.
        lines: What was found, one line for each finding; the same of many CPUs is one.
    """

    name: str
    status: Status
    reason: str
    lines: tuple[str, ...]


def cases(judged: Judged) -> tuple[Case, ...]:
    """Return the verdict, every rule and every kind of condition as a case: as many whatever was found."""
    found: dict[str, list[Defect]] = {rule: [] for rule in RULES}
    for defect in defects(judged):
        found.setdefault(defect.finding.rule, []).append(defect)
    rules = (_rule(judged, rule, same) for rule, same in found.items())
    return (_verdict(judged), *rules, *(_condition(judged, kind) for kind in KINDS))


def _condition(judged: Judged, kind: str) -> Case:
    """Return a kind of condition as a case: it fails where ``--strict`` has a condition of that kind fail the run."""
    pairs = [(one, mark) for one, mark in judged.conditions if one.id.split("+")[0] == kind]
    lines = tuple(describe_condition(one) for one, _ in pairs)
    name = f"condition {kind}: {KINDS[kind].fact}"
    if any(judged.condition_fails(one, mark) for one, mark in pairs):
        return Case(name, Status.FAILED, lines[0], lines)
    marks = [mark for _, mark in pairs if mark is not None]
    if marks:
        return Case(name, Status.EXPECTED, one_line(f"{marks[0].kind}: {marks[0].reason}"), lines)
    return Case(name, Status.PASSED, "", lines)


def _verdict(judged: Judged) -> Case:
    report = judged.report
    headline = one_line(report.headline)
    if judged.exit_status is Exit.UNDETERMINED:
        missing = "; ".join(one_line(f"{note.fact}: {note.supply}") for note in report.missing)
        return Case("verdict", Status.ERROR, missing or headline, (f"{report.verdict}: {headline}",))
    failed = judged.exit_status is Exit.FAILED
    expected = not failed and judged.effective is not report.verdict and report.verdict is not Verdict.UNDETERMINED
    status = Status.FAILED if failed else Status.EXPECTED if expected else Status.PASSED
    return Case("verdict", status, judged.reason, (f"{report.verdict}: {headline}",))


def _rule(judged: Judged, rule: str, found: list[Defect]) -> Case:
    name = f"{rule} {RULES[rule].name}" if rule in RULES else rule
    lines = tuple(
        f"{sentence(describe(one.finding))}{one.more}" if one.more else describe(one.finding) for one in found
    )
    if any(judged.fails(one.finding, one.mark) for one in found):
        return Case(name, Status.FAILED, lines[0], lines)
    marks = [one.mark for one in found if one.mark is not None]
    if marks:
        return Case(name, Status.EXPECTED, one_line(f"{marks[0].kind}: {marks[0].reason}"), lines)
    skipped = _inapplicable(judged.report, rule) if not found else None
    skipped = skipped or unexamined(judged.report, rule)
    return Case(name, Status.SKIPPED if skipped else Status.PASSED, skipped or "", lines)


def _line(defect: Defect) -> str:
    told = describe(defect.finding)
    return f"{sentence(told)}{defect.more}" if defect.more else told


def _inapplicable(report: Report, rule: str) -> str | None:
    """Say why a rule without a finding was not looked at, if it was not: silence would pass for an answer."""
    if rule.startswith("HC6") and not any(fact.option == "--park" for fact in report.assumptions):
        return "the resumer reserves no pages to park in"
    if report.outcome is Outcome.REFUSED and not rule.startswith("HC4"):
        return "the image is not loaded"
    if report.outcome is Outcome.UNDETERMINED and not rule.startswith("HC4"):
        return "a fact is missing"
    return None


def unexamined(report: Report, rule: str) -> str | None:
    """Say in one line why a rule could not be looked at for some CPU, and what would let it be; None where it was."""
    notes = [one_line(f"{in_words(note)} ({note.supply})") for note in report.unexamined if rule in note.rules]
    return "; ".join(notes) or None


def describe_condition(condition: Condition) -> str:
    """Return a condition in one line: what it is about, what it leads to, why it may be so, how to judge so."""
    leads = outcome(condition.outcome, condition.verdict)
    about = f"{condition.fact}: {condition.value} ({condition.reason})"
    return condition_text(about, leads, condition.arguments, condition.id)


def describe(finding: Finding) -> str:
    """Return a finding in one line."""
    known = finding.cpu is None or f"CPU {finding.cpu}" in finding.message
    who = "" if known else f"CPU {finding.cpu}: "
    where = f" ({finding.resumer.symbol})" if finding.resumer.symbol else ""
    return one_line(f"{finding.level.name.lower()}: {who}{finding.message}{where}")
