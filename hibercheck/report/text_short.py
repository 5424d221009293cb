"""The report that fits a screen: what happens, what to do, who and why, how sure, and the verdict again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

from hibercheck.cpulist import cpu_phrase
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.verdict.findings import Finding, Level, Place, Report, Verdict
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import settle, words
from hibercheck.report.gate import Judged
from hibercheck.report.prose import next_step
from hibercheck.report.sanitise import clean, one_line
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text
from hibercheck.report.text_cpus import FATES, alike, fate, state
from hibercheck.report.text_findings import STYLES, group, in_order, title
from hibercheck.report.text_parts import headline, verdict_line, warnings

INDENT = 2


def render(judged: Judged, sheet: Sheet, given: Sequence[str] = ()) -> None:
    """Put the short report on a sheet.

    Args:
        judged: The report.
        sheet: Where to.
        given: The words of the command line that asked for it, to show the next one in full.
    """
    report = judged.report
    sheet.print(headline(report), prose=True)
    _next(judged, sheet, given)
    _cpus(report, sheet)
    _findings(judged, sheet)
    _certainty(judged, sheet)
    if report.warnings or judged.warnings:
        sheet.print()
    warnings(judged, sheet)
    sheet.print()
    sheet.print(Text("-v shows the evidence.", style="dim"))
    sheet.print(verdict_line(judged), prose=True)


def _next(judged: Judged, sheet: Sheet, given: Sequence[str]) -> None:
    """Say what to do, and the command that would tell more."""
    report, finding, asked = judged.report, next_step(judged), settle.question(judged.report)
    for missing in report.missing:
        fact, supply = words.sentence(clean(missing.fact)), words.sentence(clean(missing.supply))
        _gap(sheet, Text.assemble(("Missing: ", "bold"), (fact, "cyan"), " ", supply))
    if finding is not None:
        _gap(sheet, Text.assemble(("What to do: ", "bold"), words.sentence(clean(finding.advice))))
        if finding.rule in RULES and asked is None:
            _command(f"hibercheck explain {finding.rule}", sheet)
    if asked is not None and not report.missing:
        _gap(sheet, Text.assemble(("To settle it: ", "bold"), words.sentence(clean(asked.why))))
    if asked is not None:
        _command(settle.command(given, asked.arguments), sheet)


def _gap(sheet: Sheet, text: Text) -> None:
    sheet.print()
    sheet.print(text, prose=True)


def _command(command: str, sheet: Sheet) -> None:
    """Print a command as it can be copied: broken only between words, with a backslash."""
    command = one_line(command)
    lines = [command] if sheet.whole else _broken(command, sheet.width - INDENT)
    for number, line in enumerate(lines):
        indent = INDENT if number == 0 else 2 * INDENT
        more = " \\" if number < len(lines) - 1 else ""
        sheet.verbatim(Text(f"{' ' * indent}{line}{more}", style="cyan"))


def _broken(command: str, width: int) -> list[str]:
    """Break a command between the shell's words: within quotes a backslash at the end of a line would count."""
    first, *others = map(shlex.quote, shlex.split(command))
    lines = [first]
    for word in others:
        if len(lines[-1]) + 1 + len(word) <= width - INDENT - 2:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _cpus(report: Report, sheet: Sheet) -> None:
    """Print one row for each CPU, or for those that are alike."""
    if not report.cpus:
        return
    sheet.print()
    rows = Columns(columns=3)
    for cpus in alike(report.cpus):
        cpu = cpus[0]
        where = state(cpu) if cpu.boot_cpu or not cpu.loop else f"{state(cpu)}, {clean(cpu.loop)}"
        rows.add_row((cpu_phrase([each.cpu for each in cpus]), "bold"), where, (fate(cpu), FATES[cpu.fate]))
    sheet.print(rows)


def _findings(judged: Judged, sheet: Sheet) -> None:
    """Print one row for each finding that is more than a note; what else there is in a line."""
    counted = in_order(judged)
    heavy = [finding for finding in counted if finding.level > Level.NOTE]
    rows = Columns(columns=3)
    rows.keep(2, max((len(_symbol(finding)) for finding in heavy), default=0))
    level = max((len(finding.level.name) for finding in heavy), default=0)
    for findings in group(heavy, together=True):
        rows.add_row(*_row(findings, level))
    if rows.row_count:
        sheet.print()
        sheet.print(rows)
    rest = list(_rest(judged, [finding for finding in counted if finding.level is Level.NOTE]))
    if rest:
        if not rows.row_count:
            sheet.print()
        sheet.print(Text(clean(" ".join(rest)), style="dim"), prose=True)


def _row(findings: Sequence[Finding], level: int) -> tuple[Text, str, str]:
    finding = findings[0]
    cpus = [each.cpu for each in findings if each.cpu is not None]
    head = (f"{finding.rule} {finding.level.name.lower().ljust(level)}", STYLES[finding.level])
    who = (f" {cpu_phrase(cpus)}" if cpus else "", "bold")
    return Text.assemble(head, who), clean(title(finding)), _symbol(finding)


def _symbol(finding: Finding) -> str:
    place = finding.resumer if finding.resumer != Place() else finding.resumee
    return clean(place.symbol or "")


def _rest(judged: Judged, notes: Sequence[Finding]) -> Iterable[str]:
    """Say what has no row: notes, what does not count, and what could not be looked at."""
    if notes:
        rules = ", ".join(sorted({finding.rule for finding in notes}))
        yield f"{words.count(len(notes), 'note')}, which {'does' if len(notes) == 1 else 'do'} not count ({rules})."
    ordered = sorted((mark.kind, finding.rule) for finding, mark in judged.marked if mark is not None)
    for kind, marked in groupby(ordered, key=lambda one: one[0]):
        yield f"{kind.capitalize()}: {', '.join(sorted({rule for _, rule in marked}))}."
    unexamined = [note for note in judged.report.unexamined if note.cpus]
    if unexamined:
        rules = ", ".join(sorted({rule for note in unexamined for rule in note.rules}))
        supplies = " or ".join(dict.fromkeys(clean(note.supply) for note in unexamined))
        yield f"Not examined: {rules} (needs {supplies})."


def _certainty(judged: Judged, sheet: Sheet) -> None:
    """Say how sure it is: what would change the verdict, and what was said of the run."""
    report = judged.report
    if report.share is not None:
        sheet.print()
        sheet.print(Text(clean(words.share(report.share))), prose=True)
    if report.conditions or report.verdict is not Verdict.UNDETERMINED:
        sheet.print()
        sheet.print(Text(clean(words.holds(report)), style="bold"), prose=True)
    for condition, mark in judged.conditions:
        spared = f" ({mark.kind}: {clean(mark.reason)})" if mark is not None else ""
        text = Text.assemble(
            f"{clean(condition.fact)}: {clean(condition.value)} -> ",
            (words.outcome(condition.outcome, condition.verdict), "bold"),
            "; to judge that case: ",
            (clean(condition.arguments), "cyan"),
            f" [{clean(condition.id)}]{spared}",
        )
        sheet.print(text, indent=INDENT, prose=True)
    for standing in (Standing.GIVEN, Standing.MEASURED):
        said = [one for one in report.assumptions if one.standing is standing and not one.detail]
        if said:
            facts = ", ".join(f"{clean(one.fact)} ({clean(one.value)})" for one in said)
            sheet.print(Text(f"{standing.capitalize()}: {facts}.", style="dim"), prose=True)
    if supposed := words.supposed(report):
        sheet.print(Text(supposed, style="dim"), prose=True)
    if granted := words.taken_for_granted(report):
        sheet.print(Text(granted, style="dim"), prose=True)
