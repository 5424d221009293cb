"""A report as KTAP, version 1: what the kernel's own test tools read (Documentation/dev-tools/ktap.rst)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hibercheck import __version__
from hibercheck.report.cases import Case, Status, cases
from hibercheck.report.gate import Judged
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import taken_for_granted

DIRECTIVES = {Status.EXPECTED: " # XFAIL", Status.SKIPPED: " # SKIP", Status.ERROR: " # ERROR"}


def render(judged: Judged) -> str:
    """Return the whole document: the verdict, then one result for each rule."""
    warnings = [one_line(warning) for warning in (*judged.report.warnings, *judged.warnings)]
    return document(cases(judged), warnings, taken_for_granted(judged.report))


def document(results: Sequence[Case], warnings: Sequence[str] = (), note: str | None = None) -> str:
    """Return a document of cases, with what is said of them all."""
    lines = ["KTAP version 1", f"# hibercheck {__version__}"]
    lines += [f"# warning: {warning}" for warning in warnings]
    lines += [f"# {note}"] if note else []
    lines.append(f"1..{len(results)}")
    for number, case in enumerate(results, 1):
        lines += _result(number, case)
    return "\n".join(lines) + "\n"


def _result(number: int, case: Case) -> Iterator[str]:
    """Yield a case's diagnostic lines, then its result: diagnostics come before the result they belong to."""
    yield from (f"# {line}" for line in case.lines)
    word = "not ok" if case.status in (Status.FAILED, Status.ERROR) else "ok"
    directive = DIRECTIVES.get(case.status, "")
    reason = f" {_plain(case.reason)}" if directive and case.reason else ""
    yield f"{word} {number} {_plain(case.name)}{directive}{reason}"


def _plain(text: str) -> str:
    """Return a description as TAP has it: a ``#`` would begin a directive."""
    return text.replace("#", "")
