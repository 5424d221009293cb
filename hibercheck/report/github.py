"""A report as GitHub workflow commands: annotations of the job, one for each finding."""

from __future__ import annotations

from hibercheck.handoff.findings import Finding, Level
from hibercheck.report.cases import describe
from hibercheck.report.gate import Exit, Judged, Mark
from hibercheck.report.sanitise import one_line
from hibercheck.report.text_findings import title
from hibercheck.report.words import sentence


def render(judged: Judged) -> str:
    """Return one command a line: the verdict first."""
    headline = sentence(one_line(judged.report.headline))
    kind = "notice" if judged.exit_status is Exit.PASSED else "error"
    lines = [_command(kind, f"hibercheck: {judged.report.verdict}", f"{headline} ({judged.reason})")]
    for finding, mark in judged.marked:
        advice = f" {sentence(one_line(finding.advice))}" if finding.advice else ""
        reason = "" if mark is None else f" [{mark.kind}: {one_line(mark.reason)}]"
        name = f"{finding.rule} {title(finding)}"
        lines.append(_command(_kind(judged, finding, mark), name, f"{sentence(describe(finding))}{advice}{reason}"))
    return "\n".join(lines) + "\n"


def _kind(judged: Judged, finding: Finding, mark: Mark | None) -> str:
    if judged.fails(finding, mark):
        return "error"
    return "warning" if mark is None and finding.level >= Level.WARNING else "notice"


def _command(kind: str, name: str, message: str) -> str:
    return f"::{kind} title={_property(name)}::{_data(message)}"


def _data(text: str) -> str:
    """Escape as the runner's toolkit does for a message."""
    return one_line(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
