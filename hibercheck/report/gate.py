"""From a report to a decision: what counts, and the exit status.

The report says what happens to the machine; nothing here changes that.  The gate says whether the run fails, which
also depends on ``--fail-on``, on suppressions and on a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from hibercheck.data import dataclass
from hibercheck.handoff.findings import Finding, Level, Report, Verdict

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
    """

    report: Report
    marks: tuple[Mark | None, ...]
    fail_on: str
    effective: Verdict
    exit_status: Exit
    reason: str
    warnings: tuple[str, ...] = ()

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

    @property
    def marked(self) -> tuple[tuple[Finding, Mark | None], ...]:
        """Each finding with its mark."""
        return tuple(zip(self.report.findings, self.marks, strict=True))


def judge(
    report: Report,
    *,
    fail_on: str = "risk",
    marks: Sequence[Mark | None] | None = None,
    warnings: Sequence[str] = (),
) -> Judged:
    """Decide whether ``report`` passes.

    ``refused`` and ``undetermined`` are outside the order of severity: an image that is not loaded loses the session
    whatever the threshold, and what is not known never passes.

    Args:
        report: What was found.
        fail_on: The least verdict that fails, out of `FAIL_ON`.
        marks: For each finding, why it does not count; None where it does.
        warnings: Of the gate itself.
    """
    marks = tuple(marks) if marks is not None else (None,) * len(report.findings)
    effective = _effective(report, marks)
    if effective is Verdict.UNDETERMINED:
        status, reason = Exit.UNDETERMINED, "a fact is missing"
    elif fail_on == NEVER:
        status, reason = Exit.PASSED, "nothing fails with --fail-on never"
    elif effective is Verdict.REFUSED:
        status, reason = Exit.FAILED, "a refused image always fails"
    elif SEVERITY.index(effective) >= SEVERITY.index(Verdict(fail_on)):
        status, reason = Exit.FAILED, f"{effective} is at or above --fail-on {fail_on}"
    else:
        status, reason = Exit.PASSED, f"{effective} is below --fail-on {fail_on}"
    if effective is not report.verdict:
        marked = sum(mark is not None for mark in marks)
        which = "the finding that does" if marked == 1 else f"the {marked} findings that do"
        reason = f"without {which} not count, {reason}"
    return Judged(report, marks, fail_on, effective, status, reason, tuple(warnings))


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
