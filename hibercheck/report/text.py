"""The report as text for a terminal: one sentence first, then what proves it, then what was assumed."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from rich.text import Text

from hibercheck.handoff.findings import Fate, Outcome, Verdict
from hibercheck.handoff.rules import RULES
from hibercheck.report import picture, words
from hibercheck.report.gate import Judged
from hibercheck.report.prose import explanation, next_step
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.text_cpus import cpu_section, group
from hibercheck.report.text_findings import finding_section
from hibercheck.report.text_inputs import assumption_section, input_section, missing_section

if TYPE_CHECKING:
    from rich.console import Console

    from hibercheck.handoff.findings import Finding, Report

STYLES = {
    Verdict.SAFE: "bold green",
    Verdict.BENIGN: "bold green",
    Verdict.LATENT: "bold yellow",
    Verdict.RISK: "bold magenta",
    Verdict.FATAL: "bold red",
    Verdict.REFUSED: "bold yellow",
    Verdict.UNDETERMINED: "bold cyan",
}
MARK_STYLES = {"x": "bold red", "=": "green", "o": "dim", "?": "cyan"}
URGENCY = (Fate.DIES, Fate.UNKNOWN, Fate.STAYS_PARKED, Fate.PARKS_AGAIN, Fate.REINITIALISED, Fate.UNTOUCHED)
PICTURED = 3
"""CPUs whose frames are marked below the memory, those in danger first; of many that are alike, the first."""
READABLE = 100
"""Columns beyond which prose is hard to read; tables use what there is."""


class Detail(IntEnum):
    """How much is shown."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2

    @classmethod
    def choose(cls, *, quiet: bool, verbose: bool) -> Detail:
        """Return the detail that ``-q`` and ``-v`` ask for; both together cancel out."""
        return cls(1 - quiet + verbose)


def render(judged: Judged, console: Console, detail: Detail = Detail.NORMAL) -> None:
    """Print a judged report on ``console``."""
    report = judged.report
    if detail is Detail.QUIET:
        console.print(_headline(report), soft_wrap=not console.file.isatty())  # a file or a pipe gets one line
        return
    sheet = Sheet(console)
    prose = min(sheet.width, READABLE)
    sheet.print(_headline(report), width=prose)
    sheet.print()
    sheet.print(Text(explanation(report)), width=prose)
    step = next_step(judged)
    _next_step(step, sheet)
    verbose = detail is Detail.VERBOSE
    missing_section(report, sheet)
    cpu_section(report, sheet, verbose=verbose)
    finding_section(judged, sheet, verbose=verbose, given=step)
    _share(report, sheet)
    _timeline(report, sheet)
    assumption_section(report, sheet)
    _memory(report, sheet)
    input_section(report, sheet, verbose=verbose)
    for warning in (*report.warnings, *judged.warnings):
        sheet.print(Text(f"warning: {clean(warning)}", style="yellow"), width=prose)
    sheet.print(Text(f"Exit status {int(judged.exit_status)}: {judged.reason}.", style="dim"), width=prose)
    sheet.flush()


def _headline(report: Report) -> Text:
    style = STYLES[report.verdict]
    word = "MAY RESET" if report.verdict is Verdict.RISK else str(report.outcome).upper()
    tag = f" ({report.verdict})" if report.outcome in (Outcome.RESETS, Outcome.RESUMES) else ""
    return Text.assemble((f"{word}{tag}", style), "  ", (words.sentence(clean(report.headline)), "bold"))


def _next_step(finding: Finding | None, sheet: Sheet) -> None:
    """Print what to do first, where a reader looks: before all that proves it."""
    if finding is None:
        return
    text = Text.assemble(("What to do: ", "bold"), words.sentence(clean(finding.advice or "")))
    if finding.rule in RULES:
        text.append(f" More: hibercheck explain {finding.rule}.", style="dim")
    sheet.print()
    sheet.print(text, width=min(sheet.width, READABLE))


def _share(report: Report, sheet: Sheet) -> None:
    if report.share is None:
        return
    share = report.share
    part = words.percent(share.failing, share.placements)
    sheet.print(
        Text(f"\n{share.failing:,} of {share.placements:,} fail ({part}): {words.sentence(clean(share.of))}"),
        width=min(sheet.width, READABLE),
    )


def _timeline(report: Report, sheet: Sheet) -> None:
    if not report.timeline:
        return
    sheet.print(Text("\nTimeline", style="bold"))
    rows = Columns("Copy", "PFN", "What it does")
    for event in report.timeline:
        who = "" if event.cpu is None or f"CPU {event.cpu}" in event.text else f"CPU {event.cpu}: "
        rows.add_row(Text(f"{event.copy:,}"), Text(f"{event.pfn:#x}"), Text(f"{who}{clean(event.text)}"))
    sheet.print(rows, indent=2)


def _memory(report: Report, sheet: Sheet) -> None:
    glyphs = picture.UNICODE if "utf" in (sheet.console.encoding or "").lower() else picture.ASCII
    firsts = (cpus[0] for cpus in group(report.cpus))
    shown = sorted((cpu for cpu in firsts if cpu.footprint), key=lambda cpu: URGENCY.index(cpu.fate))[:PICTURED]
    label = max([3, *(len(f"CPU {cpu.cpu}") for cpu in shown)])
    drawn = picture.draw(report.image, shown, max(sheet.width - label - 4, 16), glyphs)
    sheet.print(Text("\nPhysical memory", style="bold"))
    sheet.crop(Text.assemble(" " * (2 + label), "  ", drawn.strip))
    for row in drawn.rows:
        marks = Text(row.marks)
        for index, mark in enumerate(row.marks):
            if mark in MARK_STYLES:
                marks.stylize(MARK_STYLES[mark], index, index + 1)
        sheet.crop(Text.assemble("  ", row.label.ljust(label), "  ", marks))
    full, most, some, none = (glyphs.cells[level] for level in (picture.FULL, picture.MOST, picture.SOME, picture.NONE))
    legend = [
        f"{full} in the image, {most} mostly, {some} partly, {none} not; a character is {words.size(drawn.frames)}"
    ]
    if drawn.rows:
        legend.append("x frames of this CPU that are replaced, = by the same, o left alone, ? unknown")
    for line in legend:
        sheet.print(Text(line, style="dim"), indent=2, width=min(sheet.width, READABLE))
