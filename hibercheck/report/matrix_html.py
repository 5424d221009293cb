"""The matrix as one HTML page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape as escape_markup

from hibercheck import __version__
from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.matrix.table import Matrix
from hibercheck.report.matrix import groups, labels
from hibercheck.report.sanitise import one_line

EXPLAINED = 200
"""With more kernels than this the cells carry no reason of their own: the page would be too large to open."""

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
body{font:14px/1.45 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}
dl{display:grid;grid-template-columns:max-content auto;gap:.1em 1em}dt{color:#555}dd{margin:0}
.scroll{overflow:auto;max-height:90vh}
table{border-collapse:separate;border-spacing:1px}
td{width:1.9em;height:1.9em;text-align:center;font-weight:600}
th{font-weight:400;text-align:left;white-space:nowrap;background:#fff;padding:0 .4em}
thead th{position:sticky;top:0;z-index:2;writing-mode:vertical-rl;transform:rotate(180deg);padding:.4em 0}
tbody th,thead th:first-child{position:sticky;left:0;z-index:1}
thead th:first-child{writing-mode:horizontal-tb;transform:none;vertical-align:bottom;z-index:3}
.legend td{width:auto;padding:0 .6em}.x{outline:2px solid #000;outline-offset:-2px}
@media(prefers-color-scheme:dark){body,th{background:#161616;color:#ddd}dt{color:#aaa}.x{outline-color:#fff}}
"""


def escape(text: str) -> str:
    """Return untrusted text as the content of an element or of a quoted attribute."""
    return escape_markup(one_line(text))


def html_parts(matrix: Matrix) -> Iterator[str]:
    """Yield the page, in parts."""
    together = groups(matrix)
    names = _names(matrix, together)
    colours = "".join(f".{verdict}{{background:{back};color:{fore}}}" for verdict, (_, back, fore) in _MARKS.items())
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>hibercheck matrix</title>\n<style>{_STYLE}{colours}</style>\n</head>\n<body>\n"
        "<h1>Which kernel may resume which</h1>\n<p>Rows are resumers, the kernels that load an image; columns are "
        "resumees, those that wrote it.</p>\n"
    )
    yield _assumed(matrix)
    yield _legend()
    for scenario, name in enumerate(matrix.scenarios):
        yield from _table(matrix, scenario, name, together, names)
    yield f"<p><small>hibercheck {escape(__version__)}</small></p>\n</body>\n</html>\n"


def _names(matrix: Matrix, together: list[list[int]]) -> list[str]:
    own = labels(matrix)
    return [own[kernels[0]] + (f" (+{len(kernels) - 1})" if len(kernels) > 1 else "") for kernels in together]


def _assumed(matrix: Matrix) -> str:
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in matrix.assumptions)
    return f"<dl>{rows}</dl>\n"


def _legend() -> str:
    cells = "".join(f'<td class="{verdict}">{mark} {verdict}</td>' for verdict, (mark, _, _) in _MARKS.items())
    return f'<table class="legend"><tbody><tr>{cells}<td class="x">by an image</td></tr></tbody></table>\n'


def _table(matrix: Matrix, scenario: int, name: str, together: list[list[int]], names: list[str]) -> Iterator[str]:
    heading = "".join(f'<th scope="col">{escape(one)}</th>' for one in names)
    yield (
        f'<h2>{escape(name)}</h2>\n<p>{escape(_counted(matrix, scenario))}</p>\n<div class="scroll">'
        f'<table class="matrix" data-scenario="{escape(name)}">'
        f"<thead><tr><th>R \\ E</th>{heading}</tr></thead><tbody>\n"
    )
    there = set(matrix.resumers())
    explained = len(together) <= EXPLAINED
    for kernels, label in zip(together, names, strict=True):
        if kernels[0] not in there:
            continue
        cells = "".join(_cell(matrix, scenario, kernels[0], other[0], explained=explained) for other in together)
        yield f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>\n'
    yield "</tbody></table></div>\n"


def _cell(matrix: Matrix, scenario: int, resumer: int, resumee: int, *, explained: bool) -> str:
    cell = matrix.cell(scenario, resumer, resumee)
    if cell is None:
        return "<td></td>"
    mark = _MARKS[cell.verdict][0]
    classes = f"{cell.verdict} x" if cell.exact else str(cell.verdict)
    if not explained:
        return f'<td class="{classes}">{mark}</td>'
    share = "" if cell.share is None else f", {cell.share:.0%}"
    return f'<td class="{classes}" title="{escape(f"{cell.verdict}: {cell.reason}{share}")}">{mark}</td>'


def _counted(matrix: Matrix, scenario: int) -> str:
    counts = matrix.counts(scenario)
    return ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in Verdict if verdict in counts)
