"""Findings with what proves them: places on both sides, bytes before and after, walks entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.cpulist import cpu_phrase
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.verdict.findings import Evidence, Finding, Level, Place
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import walks, words
from hibercheck.report.fingerprint import identity
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text
from hibercheck.report.text_cpus import SINGLY

STYLES = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "bold blue"}
INDENT = 4


def finding_section(judged: Judged, sheet: Sheet, *, given: Finding | None = None) -> None:
    """Print all findings, the heaviest first; those that do not count are short and last.

    Args:
        judged: The report.
        sheet: Where to.
        given: The finding whose advice has been given already.
    """
    legend = False
    ordered = in_order(judged)
    advised: set[str] = {given.advice} if given and given.advice else set()
    if ordered:
        sheet.print(Text("\nFindings", style="bold"))
    for findings in group(ordered, together=len(ordered) > SINGLY):
        _finding(findings, sheet)
        _advice(findings[0], advised, sheet)
        legend |= any(evidence.walk is not None for evidence in findings[0].evidence)
    if legend:
        _indented(Text(f"\nFlags: {walks.FLAGS_LEGEND}.", style="dim"), sheet, prose=True)
    if any(judged.marks):
        sheet.print(Text("\nNot counted", style="bold"))
    for finding, mark in judged.marked:
        if mark is not None:
            _marked(finding, mark, sheet)


def in_order(judged: Judged) -> list[Finding]:
    """Return the findings that count: by weight, and of those the ones first whose CPU dies."""
    dying = {cpu.cpu for cpu in judged.report.cpus if cpu.fate is Fate.DIES}
    counted = [finding for finding, mark in judged.marked if mark is None]
    return sorted(counted, key=lambda finding: (-finding.level, finding.cpu is not None and finding.cpu not in dying))


def group(findings: Sequence[Finding], *, together: bool) -> list[list[Finding]]:
    """Put findings of one defect on many CPUs together."""
    if not together:
        return [[finding] for finding in findings]
    groups: dict[tuple[str, Level], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((identity(finding), finding.level), []).append(finding)
    return list(groups.values())


def title(finding: Finding) -> str:
    """Return the rule's name; a note that a heavier rule made is only about its role, as is one without a rule."""
    rule = RULES.get(finding.rule)
    return rule.name if rule is not None and (finding.level > Level.NOTE or rule.level is Level.NOTE) else finding.role


def _head(findings: Sequence[Finding], sheet: Sheet) -> None:
    finding = findings[0]
    cpus = sorted({each.cpu for each in findings if each.cpu is not None})
    who = f"  {cpu_phrase(cpus)}" if cpus else ""
    which = f" (CPU {finding.cpu} is shown; JSON has all)" if len(cpus) > 1 else ""
    head = (f"{finding.rule} {finding.level.name.lower()}", STYLES[finding.level])
    sheet.print(Text.assemble("\n", head, (who, "bold"), f"  {clean(title(finding))}{which}"), indent=2)


def _finding(findings: Sequence[Finding], sheet: Sheet) -> None:
    finding = findings[0]
    _head(findings, sheet)
    _indented(Text(words.sentence(clean(finding.message))), sheet, prose=True)
    places = Columns(columns=4)
    for side, place in (("resumer", finding.resumer), ("resumee", finding.resumee)):
        if place != Place():
            places.add_row((side, "dim"), *_place(place))
    if places.row_count:
        sheet.print(places, indent=INDENT)
    for evidence in finding.evidence:
        _evidence(evidence, sheet)


def _advice(finding: Finding, given: set[str], sheet: Sheet) -> None:
    """Print the advice, unless an earlier finding gave the same."""
    if finding.advice and finding.advice not in given:
        advice = Text.assemble(("What to do: ", "bold"), words.sentence(clean(finding.advice)))
        _indented(advice, sheet, prose=True)
        given.add(finding.advice)


def _place(place: Place) -> tuple[str, str, str]:
    virtual = "" if place.virtual is None else f"{place.virtual:#x}"
    physical = "" if place.physical is None else f"physical {place.physical:#x}"
    return virtual, physical, clean(place.symbol or "")


def _evidence(evidence: Evidence, sheet: Sheet) -> None:
    _indented(Text(words.sentence(f"{clean(evidence.title).rstrip('.:')}:")), sheet, prose=True)
    if evidence.before is not None or evidence.after is not None:
        _bytes(evidence, sheet)
    if evidence.walk is not None:
        rows = Columns("Table", "at", "index", "entry", "flags")
        for row in walks.rows(evidence.walk):
            rows.add_row(*row)
        walk = evidence.walk
        start = f"{walk.access} {walk.address:#x} through CR3 {walk.cr3:#x}"
        _indented(Text(start), sheet, extra=2)
        if walk.steps:
            sheet.print(rows, indent=INDENT + 2)
        style = "red" if walk.fault is not None else "cyan" if walk.physical is None else ""
        _indented(Text(f"-> {clean(walks.ending(walk))}", style=style), sheet, extra=2)
    for line in evidence.lines:
        _indented(Text(clean(line)), sheet, extra=2)


def _bytes(evidence: Evidence, sheet: Sheet) -> None:
    rows = Columns(columns=3)
    for offset, before, after, marks in walks.byte_rows(evidence.before, evidence.after):
        where = "" if evidence.address is None else f"{evidence.address + offset:#x}"
        if evidence.before is not None:
            rows.add_row((where, "dim"), ("before", "dim"), before)
        if evidence.after is not None:
            rows.add_row(("" if evidence.before is not None else where, "dim"), ("after", "dim"), after)
        if marks:
            rows.add_row("", "", (marks, "red"))
    sheet.print(rows, indent=INDENT + 2)
    length = max(len(evidence.before or b""), len(evidence.after or b""))
    if length > walks.MAX_BYTES:
        _indented(Text(f"({length - walks.MAX_BYTES} more bytes)", style="dim"), sheet, extra=2)


def _marked(finding: Finding, mark: Mark, sheet: Sheet) -> None:
    who = "" if finding.cpu is None else f"  CPU {finding.cpu}"
    line = f"{finding.rule} {finding.level.name.lower()}{who}  {title(finding)}  ({mark.kind}: {clean(mark.reason)})"
    sheet.print(Text(f"\n{line}", style="dim"), indent=2)


def _indented(text: Text, sheet: Sheet, *, extra: int = 0, prose: bool = False) -> None:
    sheet.print(text, indent=INDENT + extra, prose=prose)
