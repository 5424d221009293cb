"""A report as GitHub workflow commands: annotations of the job, one for each defect.

GitHub shows ten of a kind for a step, so that notes would hide findings: they are there on request.
"""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.handoff.verdict.findings import Finding, Level
from hibercheck.report.cases import Case, Status, describe, describe_condition
from hibercheck.report.gate import Exit, Judged, Mark
from hibercheck.report.grouped import defects
from hibercheck.report.sanitise import one_line
from hibercheck.report.text_findings import title
from hibercheck.report.words import in_words, sentence


def render(judged: Judged, *, notes: bool = False) -> str:
    """Return one command a line: the verdict first, then what counts; the same defect of many CPUs is one.

    Args:
        judged: The report.
        notes: Whether notes are there too.
    """
    headline = sentence(one_line(judged.report.headline))
    kind = "notice" if judged.exit_status is Exit.PASSED else "error"
    lines = [_command(kind, f"hibercheck: {judged.report.verdict}", f"{headline} ({judged.reason})")]
    for defect in defects(judged):
        finding, mark, more = defect.finding, defect.mark, defect.more
        if finding.level is Level.NOTE and not notes:
            continue
        advice = f"{more} {sentence(one_line(finding.advice))}" if finding.advice else more
        reason = "" if mark is None else f" [{mark.kind}: {one_line(mark.reason)}]"
        name = f"{finding.rule} {title(finding)}"
        lines.append(_command(_kind(judged, finding, mark), name, f"{sentence(describe(finding))}{advice}{reason}"))
    for condition, mark in judged.conditions:
        kind = "error" if judged.condition_fails(condition, mark) else "notice"
        reason = "" if mark is None else f" [{mark.kind}: {one_line(mark.reason)}]"
        name = f"{judged.report.verdict} unless {condition.id}"
        lines.append(_command(kind, name, f"{sentence(describe_condition(condition))}{reason}"))
    unexamined = judged.report.unexamined
    if unexamined:
        rules = dict.fromkeys(rule for note in unexamined for rule in note.rules)
        why = (
            f"{', '.join(note.rules)}: {sentence(one_line(in_words(note)))} To examine: {one_line(note.supply)}."
            for note in unexamined
        )
        lines.append(_command("notice", f"not examined: {', '.join(rules)}", " ".join(why)))
    for warning in (*judged.report.warnings, *judged.warnings):
        lines.append(_command("warning", "hibercheck", sentence(one_line(warning))))
    return "\n".join(lines) + "\n"


def of_cases(cases: Sequence[Case], conclusion: str, warnings: Sequence[str] = ()) -> str:
    """Return one command a line: the conclusion, each reason with the first case and how many there are, warnings."""
    failing = [case for case in cases if case.status is not Status.PASSED]
    lines = [_command("error" if failing else "notice", "hibercheck", conclusion)]
    alike: dict[tuple[Status, str], list[Case]] = {}
    for case in failing:
        alike.setdefault((case.status, case.reason), []).append(case)
    for (_, reason), group in alike.items():
        more = f" (the first of {len(group):,} pairs)" if len(group) > 1 else ""
        lines.append(_command("error", group[0].name, f"{sentence(reason)}{more}"))
    lines += [_command("warning", "hibercheck", sentence(warning)) for warning in warnings]
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
