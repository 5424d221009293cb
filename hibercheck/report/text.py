"""The report as text for a terminal: one sentence first, then what proves it, then what was assumed."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import picture, text_short, words
from hibercheck.report.gate import Judged
from hibercheck.report.prose import explanation, next_step
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import PlainConsole, Text
from hibercheck.report.text_cpus import cpu_section, group
from hibercheck.report.text_findings import finding_section
from hibercheck.report.text_inputs import (
    assumption_section,
    condition_section,
    input_section,
    missing_section,
    unexamined_section,
)
from hibercheck.report.text_parts import headline, verdict_line, warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hibercheck.handoff.verdict.findings import Finding, Report
    from hibercheck.report.styled import Surface

MARK_STYLES = {"x": "bold red", "=": "green", "o": "dim", "?": "cyan"}
URGENCY = (Fate.DIES, Fate.UNKNOWN, Fate.STAYS_PARKED, Fate.PARKS_AGAIN, Fate.REINITIALISED, Fate.UNTOUCHED)
PICTURED = 3
"""CPUs whose frames are marked below the memory, those in danger first; of many that are alike, the first."""


class Detail(IntEnum):
    """How much is shown."""

    QUIET = 0
    """One sentence."""
    NORMAL = 1
    """What fits a screen (`hibercheck.report.text_short`)."""
    VERBOSE = 2
    """All that proves it."""

    @classmethod
    def choose(cls, *, quiet: bool, verbose: bool) -> Detail:
        """Return the detail that ``-q`` and ``-v`` ask for; both together cancel out."""
        return cls(1 - quiet + verbose)


def render(judged: Judged, console: Surface, detail: Detail = Detail.NORMAL, *, given: Sequence[str] = ()) -> None:
    """Print a judged report.

    Args:
        judged: The report.
        console: Where to; with ``soft_wrap`` no line is broken.
        detail: How much.
        given: The words of the command line that asked for it, to show the next one in full.
    """
    if detail is Detail.QUIET:
        # a file or a pipe gets one line
        console.print(headline(judged.report), soft_wrap=isinstance(console, PlainConsole) or not console.file.isatty())
        return
    sheet = Sheet(console)
    if detail is Detail.NORMAL:
        text_short.render(judged, sheet, given)
    else:
        _whole(judged, sheet)
    sheet.flush()


def _whole(judged: Judged, sheet: Sheet) -> None:
    report = judged.report
    sheet.print(headline(report), prose=True)
    sheet.print()
    sheet.print(Text(explanation(report)), prose=True)
    step = next_step(judged)
    _next_step(step, sheet)
    condition_section(judged, sheet)
    missing_section(report, sheet)
    cpu_section(report, sheet)
    finding_section(judged, sheet, given=step)
    unexamined_section(report, sheet)
    if report.share is not None:
        sheet.print(Text(f"\n{clean(words.share(report.share))}"), prose=True)
    _timeline(report, sheet)
    assumption_section(report, sheet)
    _memory(report, sheet)
    input_section(report, sheet)
    warnings(judged, sheet)
    sheet.print(verdict_line(judged), prose=True)


def _next_step(finding: Finding | None, sheet: Sheet) -> None:
    """Print what to do first, where a reader looks: before all that proves it."""
    if finding is None:
        return
    text = Text.assemble(("What to do: ", "bold"), words.sentence(clean(finding.advice or "")))
    if finding.rule in RULES:
        text.append(f" More: hibercheck explain {finding.rule}.", style="dim")
    sheet.print()
    sheet.print(text, prose=True)


def _timeline(report: Report, sheet: Sheet) -> None:
    if not report.timeline:
        return
    sheet.print(Text("\nTimeline", style="bold"))
    rows = Columns("Copy", "PFN", "What it does")
    for event in report.timeline:
        who = "" if event.cpu is None or f"CPU {event.cpu}" in event.text else f"CPU {event.cpu}: "
        rows.add_row(f"{event.copy:,}", f"{event.pfn:#x}", f"{who}{clean(event.text)}")
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
        sheet.print(Text(line, style="dim"), indent=2, prose=True)
