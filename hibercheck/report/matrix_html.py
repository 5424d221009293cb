"""The matrix as one HTML page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from html import escape as escape_markup

from hibercheck import __version__
from hibercheck.handoff.matrix.table import Matrix, missing_rows
from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report.matrix import groups, labels, reasons, said
from hibercheck.report.pairs import MEANINGS
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import sentence

MOST_DIGITS = 12
"""Digits of a time in seconds that this program can outlive."""

_MARKS = {
    Verdict.SAFE: ("S", "#2e7d32", "#fff"),
    Verdict.BENIGN: ("B", "#9ccc65", "#000"),
    Verdict.LATENT: ("L", "#ffd54f", "#000"),
    Verdict.RISK: ("R", "#ab47bc", "#fff"),
    Verdict.FATAL: ("F", "#c62828", "#fff"),
    Verdict.REFUSED: ("-", "#757575", "#fff"),
    Verdict.UNDETERMINED: ("?", "#4dd0e1", "#000"),
}
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:0;color:#222;background:#fff}main,footer{padding:1em 2em}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}h3{font-size:1em;margin-bottom:.3em}
dl{display:grid;grid-template-columns:max-content auto;gap:.1em 1em}dt{color:#555}dd{margin:0;overflow-wrap:anywhere}
li{overflow-wrap:anywhere}.scroll{overflow:auto;max-height:90vh}
table{border-collapse:separate;border-spacing:1px}
td{width:1.9em;height:1.9em;text-align:center;font-weight:600}
th{font-weight:400;text-align:left;white-space:nowrap;background:#fff;padding:0 .4em}
thead th{position:sticky;top:0;z-index:2;writing-mode:vertical-rl;transform:rotate(180deg);padding:.4em 0}
tbody th,thead th:first-child{position:sticky;left:0;z-index:1}
thead th:first-child{writing-mode:horizontal-tb;transform:none;vertical-align:bottom;z-index:3}
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.3em}.legend li,.mark{padding:0 .6em;font-weight:600}
.x{outline:2px solid #000;outline-offset:-2px}footer{color:#555}
.c{text-decoration:underline dotted 2px}a{color:#0b57a4}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body,th{background:#161616;color:#ddd}dt,footer{color:#aaa}a{color:#8ab4f8}.x{outline-color:#fff}}
@media(max-width:40em){main,footer{padding:.6em}dl{grid-template-columns:1fr}dd{margin-bottom:.4em}
tbody th{white-space:normal;max-width:9em;min-width:9em;overflow-wrap:anywhere}thead th:first-child{min-width:9em}
thead th{white-space:normal;max-height:18em;overflow-wrap:anywhere}}
"""


def escape(text: str) -> str:
    """Return untrusted text as the content of an element or of a quoted attribute."""
    return escape_markup(one_line(text))


def _marked(text: str) -> str:
    """Return a text of the catalogues; what it has between backquotes is a command."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def html_parts(matrix: Matrix) -> Iterator[str]:
    """Yield the page, in parts."""
    together = groups(matrix)
    names = _names(matrix, together)
    colours = "".join(f".{verdict}{{background:{back};color:{fore}}}" for verdict, (_, back, fore) in _MARKS.items())
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>hibercheck matrix</title>\n<style>{_STYLE}{colours}</style>\n</head>\n<body>\n<main>\n"
        "<h1>Which kernel may resume which</h1>\n<p>Rows are resumers (R), the kernels that load an image; columns are "
        "resumees (E), those that wrote it.</p>\n"
    )
    if (lacking := missing_rows(matrix)) is not None:
        yield f"<p><strong>Incomplete: without {escape(lacking)}.</strong></p>\n"
    yield _assumed(matrix)
    yield _legend()
    for scenario, name in enumerate(matrix.scenarios):
        yield from _table(matrix, scenario, name, together, names)
        yield _reasons(matrix, scenario)
    yield _kernels(matrix, together)
    yield _meanings(matrix)
    yield (
        f"</main>\n<footer>hibercheck {escape(__version__)}, {_today()}. "
        '<a href="#rules">The rules</a>; <code>hibercheck explain RULE</code> says more of one.</footer>\n'
        "</body>\n</html>\n"
    )


def _today() -> str:
    """Return the day: that of SOURCE_DATE_EPOCH, where a build is to be repeated."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = int(said) if said.isascii() and said.isdigit() and len(said) < MOST_DIGITS else time.time()
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _kernels(matrix: Matrix, together: list[list[int]]) -> str:
    """Name every kernel: those that share a row too."""
    own = labels(matrix)
    items = []
    for kernels in together:
        named = []
        for kernel in kernels:
            member = matrix.members[kernel]
            image = f", with the image {escape(member.image)}" if member.image else ""
            built = f", build id {escape(member.build_id)}" if member.build_id else ""
            named.append(f"{escape(own[kernel])}: {escape(member.path)}{built}{image}")
        items.append(f"<li>{'<br>'.join(named)}</li>\n")
    return f"<h2>Kernels</h2>\n<p>Kernels in one entry have the same verdicts.</p>\n<ol>\n{''.join(items)}</ol>\n"


def _reasons(matrix: Matrix, scenario: int) -> str:
    """Say why, for what is not safe, with how many pairs and one of them."""
    own = labels(matrix)
    items = []
    for cell, count, (resumer, resumee) in reasons(matrix, scenario):
        share = "" if cell.share is None else f", {cell.share:.0%}"
        pair = f"{own[resumer]} resumes {own[resumee]}"
        unless = "".join(f"<br>{escape(said(one, cell))}{_explained(one.id)}" for one in cell.conditions)
        unless += "".join(f"<br>warning: {escape(one)}" for one in cell.warnings)
        items.append(
            f'<li><span class="mark {cell.verdict}">{_MARKS[cell.verdict][0]}</span> '
            f'<a href="#{cell.verdict}">{cell.verdict}</a>{share}: '
            f"{escape(cell.reason)} ({count:,}, such as {escape(pair)}){_broken(cell.rules)}{unless}</li>\n"
        )
    return f"<h3>Why</h3>\n<ul>\n{''.join(items)}</ul>\n" if items else ""


def _broken(rules: tuple[str, ...]) -> str:
    """Return links to what the page says of the rules that are broken."""
    links = (f'<a href="#{rule}">{rule} {escape(RULES[rule].name)}</a>' for rule in rules if rule in RULES)
    return "".join(f"{', ' if number else ': '}{link}" for number, link in enumerate(links))


def _explained(condition: str) -> str:
    """Return links to what the page says of a condition's kinds."""
    links = (f' <a href="#condition-{kind}">about {kind}</a>' for kind in condition.split("+") if kind in KINDS)
    return ",".join(links)


def _meanings(matrix: Matrix) -> str:
    """Explain the verdicts, the conditions that occur, and the rules that a check of one pair goes by."""
    occur = {kind for cell in matrix.cells for one in cell.conditions for kind in one.id.split("+")}
    verdicts = "".join(
        f'<dt id="{verdict}">{verdict}</dt><dd>{escape(text)}</dd>' for verdict, text in MEANINGS.items()
    )
    kinds = "".join(
        f'<dt id="condition-{kind.id}">{kind.id}</dt><dd>{_marked(kind.means)} {_marked(sentence(kind.settle))}</dd>'
        for kind in KINDS.values()
        if kind.id in occur
    )
    broken = {rule for cell in matrix.cells for rule in cell.rules}
    named, others = (_rules(there, broken) for there in (True, False))
    conditions = f"<h2>Conditions</h2>\n<dl>{kinds}</dl>\n" if kinds else ""
    return (
        f"<h2>Verdicts</h2>\n<dl>{verdicts}</dl>\n{conditions}"
        f'<h2 id="rules">Rules</h2>\n<p>A check of one pair with its image names what it finds by these.</p>\n'
        f"<dl>{named}</dl>\n<details><summary>The rules that no pair breaks</summary><dl>{others}</dl></details>\n"
    )


def _rules(there: bool, broken: set[str]) -> str:
    """Explain the rules that are broken, or the others."""
    return "".join(
        f'<dt id="{rule.id}">{rule.id} {escape(rule.name)}</dt><dd>{_marked(rule.meaning)} {_marked(rule.advice)}.</dd>'
        for rule in RULES.values()
        if (rule.id in broken) is there
    )


def _names(matrix: Matrix, together: list[list[int]]) -> list[str]:
    own = labels(matrix)
    return [own[kernels[0]] + (f" (+{len(kernels) - 1})" if len(kernels) > 1 else "") for kernels in together]


def _assumed(matrix: Matrix) -> str:
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in matrix.assumptions)
    return f"<dl>{rows}</dl>\n"


def _legend() -> str:
    cells = "".join(f'<li class="{verdict}">{mark} {verdict}</li>' for verdict, (mark, _, _) in _MARKS.items())
    cells += '<li class="x">judged with an image</li><li class="c">another verdict if a condition holds</li>'
    return f'<ul class="legend">{cells}</ul>\n'


def _table(matrix: Matrix, scenario: int, name: str, together: list[list[int]], names: list[str]) -> Iterator[str]:
    heading = "".join(f'<th scope="col">{escape(one)}</th>' for one in names)
    yield (
        f"<h2>{escape(name)}</h2>\n<p>{escape(_counted(matrix, scenario))}</p>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table class="matrix" data-scenario="{escape(name)}">'
        f"<thead><tr><th>R \\ E</th>{heading}</tr></thead><tbody>\n"
    )
    there = set(matrix.resumers())
    for kernels, label in zip(together, names, strict=True):
        if kernels[0] not in there:
            continue
        cells = "".join(_cell(matrix, scenario, kernels[0], other[0]) for other in together)
        yield f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>\n'
    yield "</tbody></table></div>\n"


def _cell(matrix: Matrix, scenario: int, resumer: int, resumee: int) -> str:
    cell = matrix.cell(scenario, resumer, resumee)
    if cell is None:
        return "<td></td>"
    mark = _MARKS[cell.verdict][0]
    classes = " ".join(filter(None, (cell.verdict, "x" if cell.exact else "", "c" if cell.conditions else "")))
    return f'<td class="{classes}">{mark}</td>'


def _counted(matrix: Matrix, scenario: int) -> str:
    counts = matrix.counts(scenario)
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in Verdict if verdict in counts)
