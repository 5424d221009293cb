"""A report as Markdown, for a job's summary or a mail."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hibercheck.cpulist import cpu_phrase, format_cpu_list
from hibercheck.handoff.verdict.findings import CpuReport, Finding, Level, Place, Verdict
from hibercheck.report import walks, words
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.prose import explanation, next_step
from hibercheck.report.sanitise import one_line
from hibercheck.report.text_cpus import SINGLY, STATES, fate, group
from hibercheck.report.text_findings import group as together
from hibercheck.report.text_findings import in_order, title

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&$@])")


def render(judged: Judged) -> str:
    """Return the whole document."""
    return "\n".join(_lines(judged)) + "\n"


def _lines(judged: Judged) -> Iterator[str]:
    report = judged.report
    yield f"## hibercheck: {report.outcome} ({report.verdict})"
    yield f"\n**{_text(words.sentence(report.headline))}**"
    yield f"\n{_text(explanation(report))}"
    step = next_step(judged)
    if step is not None and step.advice:
        yield f"\n**What to do:** {_text(words.sentence(step.advice))}"
    yield from _conditions(judged)
    yield f"\n{_text(f'Exit status {int(judged.exit_status)}: {judged.reason}.')}"
    if report.cpus:
        yield "\n| CPU | Parked in | Woken by | What becomes of it |\n|---|---|---|---|"
        yield from map(_cpu, group(report.cpus))
    counted = in_order(judged)
    for findings in together(counted, together=len(counted) > SINGLY):
        yield from _finding(findings, None, advise=findings[0].advice != (step and step.advice))
    for finding, mark in judged.marked:
        if mark is not None:
            yield from _finding([finding], mark)
    if report.missing:
        yield "\n### Missing\n"
        yield from (
            f"- {_text(words.sentence(note.fact))} {_text(words.sentence(note.supply))}" for note in report.missing
        )
    if report.unexamined:
        yield "\n### Not examined\n"
        for note in report.unexamined:
            which = f"{', '.join(note.rules)}: {words.sentence(words.in_words(note))}"
            yield f"- {_text(which)} To examine: {_code(note.supply)}"
    if report.assumptions:
        yield "\n### Assumed\n\n| What | Is | Because of | To change it |\n|---|---|---|---|"
        for fact in (one for one in report.assumptions if not one.detail):
            cells = (_text(fact.fact), _code(fact.value), _text(fact.source), _code(fact.option or ""))
            yield f"| {' | '.join(cells)} |"
    yield from (f"\n> {_text(warning)}" for warning in (*report.warnings, *judged.warnings))


def _conditions(judged: Judged) -> Iterator[str]:
    """Say how far the verdict holds."""
    report = judged.report
    if report.verdict is Verdict.UNDETERMINED and not report.conditions:
        return
    rests = " ".join(filter(None, (words.supposed(report), words.taken_for_granted(report))))
    yield f"\n**{_text(words.holds(report))}**"
    if report.conditions:
        yield "\n| What | If it is | Then | Because | To judge that case |\n|---|---|---|---|---|"
    for condition, mark in judged.conditions:
        then = f"{words.outcome(condition.outcome, condition.verdict)}{f' ({mark.kind})' if mark else ''}"
        cells = (condition.fact, condition.value, then, condition.reason)
        yield f"| {' | '.join(map(_text, cells))} | {_code(condition.arguments)} |"
    if rests:
        yield f"\n{_text(rests)}"


def _cpu(cpus: list[CpuReport]) -> str:
    cpu = cpus[0]
    state = "copies the image" if cpu.boot_cpu else _text(STATES.get(cpu.state, cpu.state))
    loop = f" {_code(cpu.loop)}" if cpu.loop else ""
    wakes = "" if cpu.boot_cpu else _text(", ".join(cpu.wakes) or "nothing")
    return f"| {format_cpu_list(each.cpu for each in cpus)} | {state}{loop} | {wakes} | {_text(fate(cpu))} |"


def _finding(findings: list[Finding], mark: Mark | None, *, advise: bool = True) -> Iterator[str]:
    finding = findings[0]
    cpus = [each.cpu for each in findings if each.cpu is not None]
    who = f", {cpu_phrase(cpus)}" if cpus else ""
    which = f" (CPU {finding.cpu} is shown)" if len(set(cpus)) > 1 else ""
    yield f"\n### {finding.rule} {finding.level.name.lower()}{who}: {_text(title(finding))}{which}"
    if mark is not None:
        yield f"\nDoes not count ({mark.kind}): {_text(words.sentence(mark.reason))}"
    yield f"\n{_text(words.sentence(finding.message))}"
    if finding.level is Level.NOTE:
        return
    places = [
        (side, place)
        for side, place in (("resumer", finding.resumer), ("resumee", finding.resumee))
        if place != Place()
    ]
    if places:
        yield ""
        yield from (f"- {side}: {_place(place)}" for side, place in places)
    shown = [line for evidence in finding.evidence for line in walks.evidence_lines(evidence)]
    if shown:
        fence = _fence(shown)
        yield f"\n{fence}text"
        yield from shown
        yield fence
    if finding.advice and advise:
        yield f"\n**What to do:** {_text(words.sentence(finding.advice))}"


def _place(place: Place) -> str:
    parts = [_code(f"{place.virtual:#x}")] if place.virtual is not None else []
    parts += [f"physical {_code(f'{place.physical:#x}')}"] if place.physical is not None else []
    return ", ".join(parts + ([_code(place.symbol)] if place.symbol else []))


def cell(text: str) -> str:
    """Return untrusted text as plain Markdown of one line, which a table can hold."""
    return _text(text)


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", one_line(text))


def _code(text: str) -> str:
    """Return ``text`` as a code span that it cannot leave, also inside a table."""
    if not text:
        return ""
    text = one_line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _fence(lines: list[str]) -> str:
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    return "`" * max(3, longest + 1)
