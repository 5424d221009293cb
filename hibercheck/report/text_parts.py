"""The lines that the short report and the long one share."""

from __future__ import annotations

from hibercheck.handoff.verdict.findings import Report, Verdict
from hibercheck.report import words
from hibercheck.report.gate import Judged
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Sheet
from hibercheck.report.styled import Text

STYLES = {
    Verdict.SAFE: "bold green",
    Verdict.BENIGN: "bold green",
    Verdict.LATENT: "bold yellow",
    Verdict.RISK: "bold magenta",
    Verdict.FATAL: "bold red",
    Verdict.REFUSED: "bold yellow",
    Verdict.UNDETERMINED: "bold cyan",
}


def headline(report: Report) -> Text:
    """Return the first line: the verdict, and in one sentence what happens and why."""
    return Text.assemble(_told(report), "  ", (words.headline(report)[1], "bold"))


def verdict_line(judged: Judged) -> Text:
    """Return the last line: the verdict again, and what the process returns."""
    return Text.assemble(_told(judged.report), f"  Exit status {int(judged.exit_status)}: {judged.reason}.")


def _told(report: Report) -> tuple[str, str]:
    return words.outcome(report.outcome, report.verdict), STYLES[report.verdict]


def warnings(judged: Judged, sheet: Sheet) -> None:
    """Print each warning on a line."""
    for warning in (*judged.report.warnings, *judged.warnings):
        sheet.print(Text(f"warning: {clean(warning)}", style="yellow"), prose=True)
