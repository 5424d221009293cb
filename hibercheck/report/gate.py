"""From a report to a decision: what counts, and the exit status.

The report says what happens to the machine; nothing here changes that.  The gate says whether the run fails, which
also depends on ``--fail-on``, on suppressions and on a baseline; with ``--strict`` as if the worst condition held.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from hibercheck.data import dataclass
from hibercheck.handoff.verdict.findings import Condition, Finding, Level, Report, Verdict

SEVERITY = (Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.RISK, Verdict.FATAL)
"""The verdicts that ``--fail-on`` orders, from harmless to harmful."""

NEVER = "never"
FAIL_ON = (*(str(verdict) for verdict in SEVERITY), NEVER)


class Exit(IntEnum):
    """What the process says to its caller."""

    PASSED = 0
    FAILED = 1
    UNDETERMINED = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """Why a finding does not count.

    Attributes:
        kind: ``suppressed`` or ``baseline``.
        reason: The reason its author gave, or the baseline's name.
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A report with the decision about it.

    Attributes:
        report: What was found, untouched.
        marks: For each finding of the report in its order, why it does not count, or None.
        fail_on: The threshold that was asked for.
        effective: The verdict that the findings that count leave.
        exit_status: What the process returns.
        reason: The decision in one clause.
        warnings: Of the gate itself, such as a suppression that nothing used.
        strict: Whether conditions count.
        condition_marks: For each condition of the report in its order, why it does not count, or None.
    """

    report: Report
    marks: tuple[Mark | None, ...]
    fail_on: str
    effective: Verdict
    exit_status: Exit
    reason: str
    warnings: tuple[str, ...] = ()
    strict: bool = False
    condition_marks: tuple[Mark | None, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the run passes the gate."""
        return self.exit_status is Exit.PASSED

    def fails(self, finding: Finding, mark: Mark | None) -> bool:
        """Tell whether this finding is one of those that make the run fail."""
        if mark is not None or self.exit_status is not Exit.FAILED:
            return False
        strict = self.effective is Verdict.RISK or self.effective is Verdict.LATENT
        return finding.level >= (Level.WARNING if strict else Level.ERROR)

    def condition_fails(self, condition: Condition, mark: Mark | None) -> bool:
        """Tell whether this condition is one of those that make the run fail, or leave it open (``--strict``)."""
        return self.strict and mark is None and _status(condition.verdict, self.fail_on)[0] is not Exit.PASSED

    @property
    def marked(self) -> tuple[tuple[Finding, Mark | None], ...]:
        """Each finding with its mark."""
        return tuple(zip(self.report.findings, self.marks, strict=True))

    @property
    def conditions(self) -> tuple[tuple[Condition, Mark | None], ...]:
        """Each condition with its mark."""
        return tuple(zip(self.report.conditions, self.condition_marks, strict=True))


def judge(
    report: Report,
    *,
    fail_on: str = "risk",
    marks: Sequence[Mark | None] | None = None,
    warnings: Sequence[str] = (),
    strict: bool = False,
    condition_marks: Sequence[Mark | None] | None = None,
) -> Judged:
    """Decide whether ``report`` passes.

    ``refused`` and ``undetermined`` are outside the order of severity: an image that is not loaded loses the session
    whatever the threshold, and what is not known never passes.

    Args:
        report: What was found.
        fail_on: The least verdict that fails, out of `FAIL_ON`.
        marks: For each finding, why it does not count; None where it does.
        warnings: Of the gate itself.
        strict: Whether to judge as if the worst condition held.
        condition_marks: For each condition, why it does not count; None where it does.
    """
    marks = tuple(marks) if marks is not None else (None,) * len(report.findings)
    spared = tuple(condition_marks) if condition_marks is not None else (None,) * len(report.conditions)
    effective = _effective(report, marks)
    status, reason = _status(effective, fail_on)
    if effective is not report.verdict:
        marked = sum(mark is not None for mark in marks)
        which = "the finding that does" if marked == 1 else f"the {marked} findings that do"
        reason = f"without {which} not count, {reason}"
    if strict and status is Exit.PASSED and fail_on != NEVER:
        counted = [one for one, mark in zip(report.conditions, spared, strict=True) if mark is None]
        found = [(one, *_status(one.verdict, fail_on)) for one in counted]
        for worst in (Exit.FAILED, Exit.UNDETERMINED):
            first = next((each for each in found if each[1] is worst), None)
            if first is not None:
                status, reason = worst, f"if condition {first[0].id} holds, {first[2]} (--strict)"
                break
    return Judged(report, marks, fail_on, effective, status, reason, tuple(warnings), strict, spared)


def _status(verdict: Verdict, fail_on: str) -> tuple[Exit, str]:
    """Hold a verdict against the threshold."""
    if verdict is Verdict.UNDETERMINED:
        return Exit.UNDETERMINED, "a fact is missing"
    if fail_on == NEVER:
        return Exit.PASSED, "nothing fails with --fail-on never"
    if verdict is Verdict.REFUSED:
        return Exit.FAILED, "a refused image always fails"
    if SEVERITY.index(verdict) >= SEVERITY.index(Verdict(fail_on)):
        return Exit.FAILED, f"{verdict} is at or above --fail-on {fail_on}"
    return Exit.PASSED, f"{verdict} is below --fail-on {fail_on}"


def _effective(report: Report, marks: Sequence[Mark | None]) -> Verdict:
    """Return the verdict that is left when the marked findings do not count.

    A verdict rests on its findings; it falls only when those that carry it are all marked.
    """
    if report.verdict is Verdict.UNDETERMINED or not any(marks):
        return report.verdict
    counted = [finding.level for finding, mark in zip(report.findings, marks, strict=True) if mark is None]
    heaviest = max((finding.level for finding in report.findings), default=Level.NOTE)
    left = max(counted, default=Level.NOTE)
    if left >= heaviest:
        return report.verdict
    if left >= Level.WARNING:
        return Verdict.LATENT if report.verdict in {Verdict.RISK, Verdict.FATAL} else report.verdict
    return Verdict.SAFE
