"""A check as one HTML page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hibercheck import __version__
from hibercheck.cpulist import cpu_phrase
from hibercheck.handoff.facts.session import shown_time
from hibercheck.handoff.verdict.findings import Finding, Place, Report, Verdict
from hibercheck.report import walks, words
from hibercheck.report.drawing import COLOURS, KINDS, LENGTH, Bar, copy_line, escape, memory, memory_top, rectangles
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.prose import explanation, next_step
from hibercheck.report.sanitise import one_line
from hibercheck.report.text_cpus import alike, fate, state
from hibercheck.report.text_findings import group, in_order, title

_BAND = {
    Verdict.SAFE: "good",
    Verdict.BENIGN: "good",
    Verdict.LATENT: "doubt",
    Verdict.RISK: "doubt",
    Verdict.FATAL: "bad",
    Verdict.REFUSED: "doubt",
    Verdict.UNDETERMINED: "open",
}
_STYLE = """
:root{color-scheme:light dark;--back:#fff;--fore:#1c1e21;--soft:#52565c;--line:#c9ced6;--code:#f2f4f7;--link:#0b57a4}
@media(prefers-color-scheme:dark){:root{--back:#15171a;--fore:#e3e5e8;--soft:#abb1b9;--line:#3c424b;--code:#22262c;
--link:#8ab8ee}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;margin:0;color:var(--fore);background:var(--back)}
main,footer{max-width:60rem;margin:0 auto;padding:1rem}a{color:var(--link)}
h1{font-size:1.35rem;line-height:1.3;margin:0;padding:.8rem 1rem;border-left:.5rem solid;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}p{margin:.5rem 0;overflow-wrap:anywhere}
.good{border-color:#2e7d32}.doubt{border-color:#b26a00}.bad{border-color:#c62828}.open{border-color:#00707e}
.soft,footer{color:var(--soft);font-size:.9rem}code,pre{font:.85rem/1.4 ui-monospace,monospace;background:var(--code)}
code{padding:.05rem .25rem;overflow-wrap:anywhere}pre{padding:.6rem;overflow:auto;margin:.4rem 0}
.scroll{overflow:auto}table{border-collapse:collapse;font-size:.9rem;min-width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}dl.bars{display:grid;grid-template-columns:8rem 1fr;gap:.4rem .8rem;margin:0}
dl.bars dt{font-weight:600}dl.bars dd{margin:0}.bars svg{display:block;width:100%;height:1.4rem}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.8rem}
.option{white-space:nowrap}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;font-size:.9rem}
.legend svg{width:1rem;height:1rem;vertical-align:-.15rem;margin-right:.35rem}
td code{overflow-wrap:normal}summary{cursor:pointer;font-weight:600;padding:.4rem 0}
@media(max-width:40rem){dl.bars{grid-template-columns:1fr;gap:.1rem}dl.bars dd{margin-bottom:.6rem}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
tbody tr{display:block;border-bottom:1px solid var(--line);padding:.3rem 0}
td{display:block;border:0;padding:.05rem 0;overflow-wrap:anywhere}td:empty{display:none}
td::before{content:attr(data-label) ": ";color:var(--soft)}}
"""


def render(judged: Judged) -> str:
    """Return the page."""
    return "".join(_parts(judged))


def _parts(judged: Judged) -> Iterator[str]:
    report = judged.report
    told = words.outcome(report.outcome, report.verdict)
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(told)}: hibercheck</title>\n<style>{_STYLE}{COLOURS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 class="{_BAND[report.verdict]}">{escape(told)}: {escape(words.sentence(report.headline))}</h1>\n'
    )
    yield f'<p class="soft">{escape(f"Exit status {int(judged.exit_status)}: {judged.reason}.")}</p>\n'
    yield from _steps(judged)
    yield from _conditions(judged)
    yield from _cpus(report)
    yield from _drawing(report)
    yield from _findings(judged)
    yield from _assumptions(report)
    yield from _inputs(report)
    warnings = (*report.warnings, *judged.warnings)
    yield _list("Warnings", (escape(words.sentence(one_line(one))) for one in warnings))
    yield (
        f"<h2>What a handoff is</h2>\n<p>{escape(explanation(report))}</p>\n</main>\n"
        f"<footer>hibercheck {escape(__version__)}</footer>\n</body>\n</html>\n"
    )


def _steps(judged: Judged) -> Iterator[str]:
    step = next_step(judged)
    missing = [
        f"{words.sentence(one_line(one.fact))} {words.sentence(one_line(one.supply))}" for one in judged.report.missing
    ]
    yield _list("Missing", map(escape, missing))
    if step is not None and step.advice:
        more = f" <code>hibercheck explain {escape(step.rule)}</code> tells more."
        yield f"<h2>What to do</h2>\n<p>{escape(words.sentence(step.advice))}{more}</p>\n"


def _list(heading: str, items: Iterable[str]) -> str:
    shown = "".join(f"<li>{item}</li>\n" for item in items)
    return f"<h2>{heading}</h2>\n<ul>\n{shown}</ul>\n" if shown else ""


def _conditions(judged: Judged) -> Iterator[str]:
    report = judged.report
    if report.verdict is Verdict.UNDETERMINED and not report.conditions:
        return
    yield f"<h2>How sure it is</h2>\n<p>{escape(words.holds(report))}</p>\n"
    rows = []
    for condition, mark in judged.conditions:
        then = f"{words.outcome(condition.outcome, condition.verdict)}{f' ({mark.kind})' if mark else ''}"
        cells = (f"{condition.fact}: {condition.value}", then, condition.reason)
        rows.append([*map(escape, cells), f"<code>{escape(condition.arguments)}</code>"])
    yield _table("Conditions", ("If", "Then", "Because", "To judge that case"), rows)
    for told in filter(None, (words.supposed(report), words.taken_for_granted(report))):
        yield f'<p class="soft">{escape(told)}</p>\n'


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are markup already; nothing where there is no row."""
    if not rows:
        return ""
    above = "".join(f'<th scope="col">{head}</th>' for head in heads)
    named = [
        [f'<td data-label="{escape(head)}">{cell}</td>' for head, cell in zip(heads, row, strict=True)] for row in rows
    ]
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in named)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{above}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def _cpus(report: Report) -> Iterator[str]:
    rows = []
    for cpus in alike(report.cpus):
        cpu = cpus[0]
        where = state(cpu) + (f", {cpu.loop}" if cpu.loop and not cpu.boot_cpu else "")
        wakes = "" if cpu.boot_cpu else ", ".join(cpu.wakes) or "nothing"
        why = words.sentence(one_line(cpu.sentence))
        rows.append([*map(escape, (cpu_phrase([one.cpu for one in cpus]), where, wakes, fate(cpu), why))])
    if rows:
        yield "<h2>CPUs</h2>\n"
        yield _table("CPUs", ("Which", "Parked in", "Woken by", "What becomes of it", "Why"), rows)


def _drawing(report: Report) -> Iterator[str]:
    bars = memory(report)
    size = memory_top(report)
    yield "<h2>Physical memory</h2>\n"
    yield from _bars(bars, "0", words.size(size))
    used = {mark.kind for bar in (*bars, *copy_line(report)) for mark in bar.marks}
    keys = (
        f'<li><svg viewBox="0 0 20 20" aria-hidden="true">'
        f'<rect class="{kind}" x="2" width="16" y="2" height="16"/></svg>{escape(what)}</li>'
        for kind, what in KINDS.items()
        if kind in used
    )
    yield f'<ul class="legend">{"".join(keys)}</ul>\n'
    yield _marks_table("Marks in memory", "Address", bars)
    steps = copy_line(report)
    if steps:
        yield (
            "<h2>The copy, from the highest frame down</h2>\n<p>What each CPU loses first, and when. Copies are "
            "counted by what the image covers; the resumer may make fewer.</p>\n"
        )
        yield from _bars(steps, "first page", "last page")
        yield _marks_table("Marks in the copy", "When", steps)


def _bars(bars: Sequence[Bar], left: str, right: str) -> Iterator[str]:
    yield '<dl class="bars">\n'
    for bar in bars:
        marks = "".join(rectangles(bar))
        yield (
            f'<dt>{escape(bar.label)}</dt><dd><svg viewBox="0 0 {LENGTH} 20" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(bar.told)}"><rect class="bar" width="{LENGTH}" height="20"/>{marks}</svg>'
            f'<span class="axis"><span>{escape(left)}</span><span>{escape(right)}</span></span></dd>\n'
        )
    yield "</dl>\n"
    for bar in bars:
        yield f'<p class="soft">{escape(bar.told)}</p>\n'


def _marks_table(caption: str, where: str, bars: Sequence[Bar]) -> str:
    rows = [
        [escape(bar.label), f"<code>{escape(mark.where)}</code>", escape(mark.what), escape(KINDS[mark.kind])]
        for bar in bars
        if bar.listed
        for mark in bar.marks
    ]
    if not rows:
        return ""
    table = _table(caption, ("Row", where, "What lies there", "After the copy"), rows)
    return f"<details><summary>{escape(caption)} as a table ({len(rows)})</summary>\n{table}</details>\n"


def _findings(judged: Judged) -> Iterator[str]:
    groups: list[tuple[list[Finding], Mark | None]] = [(one, None) for one in group(in_order(judged), together=True)]
    groups += [([finding], mark) for finding, mark in judged.marked if mark is not None]
    if groups:
        yield "<h2>Findings</h2>\n"
    for findings, mark in groups:
        finding = findings[0]
        cpus = [one.cpu for one in findings if one.cpu is not None]
        who = f", {cpu_phrase(cpus)}" if cpus else ""
        spared = f" ({mark.kind}: {mark.reason})" if mark is not None else ""
        head = f"{finding.rule} {finding.level.name.lower()}{who}: {title(finding)}{spared}"
        yield f"<h3>{escape(head)}</h3>\n<p>{escape(words.sentence(finding.message))}</p>\n"
        yield from _proof(finding)


def _proof(finding: Finding) -> Iterator[str]:
    rows = [
        [side, *(f"<code>{escape(part)}</code>" if part else "" for part in _place(place))]
        for side, place in (("resumer", finding.resumer), ("resumee", finding.resumee))
        if place != Place()
    ]
    lines = [line for evidence in finding.evidence for line in walks.evidence_lines(evidence)]
    if rows or lines:
        yield "<details><summary>What proves it</summary>\n"
        yield _table(f"Places of {finding.rule}", ("In the", "Virtual", "Physical", "Symbol"), rows)
        if lines:
            shown = "\n".join(map(escape, lines))
            yield f'<pre tabindex="0" role="region" aria-label="Evidence of {escape(finding.rule)}">{shown}</pre>\n'
        yield "</details>\n"


def _place(place: Place) -> tuple[str, str, str]:
    virtual = "" if place.virtual is None else f"{place.virtual:#x}"
    physical = "" if place.physical is None else f"{place.physical:#x}"
    return virtual, physical, place.symbol or ""


def _assumptions(report: Report) -> Iterator[str]:
    rows = [
        [
            escape(one.fact),
            f"<code>{escape(one.value)}</code>",
            escape(f"{one.standing or 'not known'}: {one.source}"),
            f'<code class="option">{escape(one.option)}</code>' if one.option else "",
        ]
        for one in report.assumptions
        if not one.detail
    ]
    if rows:
        yield "<h2>What it rests on</h2>\n"
        yield _table("Assumptions", ("What", "Is", "How it is known", "To change it"), rows)


def _inputs(report: Report) -> Iterator[str]:
    image = report.image
    when = f", written at {shown_time(image.written)}" if image.written is not None else ""
    rows = [["image", escape(f"{image.path}: {words.count(image.pages, 'page')}, {image.compressor}{when}")]]
    for role, kernel in (("resumer", report.resumer), ("resumee", report.resumee)):
        line = f"; command line: {kernel.command_line or '(empty)'}" if kernel.command_line is not None else ""
        rows.append([role, escape(f"{kernel.path}: {kernel.release}{line}")])
    yield "<h2>What was read</h2>\n"
    yield _table("Inputs", ("Input", "What it is"), rows)
