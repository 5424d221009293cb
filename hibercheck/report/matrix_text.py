"""The matrix as a heat map in the terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hibercheck.handoff.findings import Verdict
from hibercheck.report.matrix import groups, labels
from hibercheck.report.sanitise import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hibercheck.handoff.matrix.table import Matrix

MARKS = {
    Verdict.SAFE: ("S", "black on green"),
    Verdict.BENIGN: ("B", "black on bright_green"),
    Verdict.LATENT: ("L", "black on yellow"),
    Verdict.RISK: ("R", "white on magenta"),
    Verdict.FATAL: ("F", "bold white on red"),
    Verdict.REFUSED: ("-", "white on bright_black"),
    Verdict.UNDETERMINED: ("?", "black on cyan"),
}
_CELL = 4
_CORNER = "R \\ E"
_REASONS = 12


def render(matrix: Matrix, console: Console) -> None:
    """Print one table for each scenario: resumers down, resumees across, by number."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs no rich

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    together = groups(matrix)
    names = labels(matrix)
    for what, value in matrix.assumptions:
        line(f"{one_line(what)}: {one_line(value)}", "dim")
    line("")
    for number, members in enumerate(together, 1):
        more = f" and {len(members) - 1} with the same verdicts" if len(members) > 1 else ""
        line(f"{number:>{_CELL}}  {one_line(names[members[0]])}{more}")
    for scenario, name in enumerate(matrix.scenarios):
        line("")
        line(f"{one_line(name)}: {_counted(matrix, scenario)}", "bold")
        _heat_map(matrix, scenario, [members[0] for members in together], console)
        _reasons(matrix, scenario, console)
    line("")
    console.print(_legend(), soft_wrap=True)


def _counted(matrix: Matrix, scenario: int) -> str:
    counts = matrix.counts(scenario)
    parts = [f"{counts[verdict]:,} {verdict}" for verdict in Verdict if verdict in counts]
    return ", ".join(parts) or "no pairs"


def _heat_map(matrix: Matrix, scenario: int, kernels: list[int], console: Console) -> None:
    """Print the table, in bands of columns that fit the width."""
    from rich.text import Text  # noqa: PLC0415

    fit = max((console.width - _CELL - 2) // _CELL, 1)
    there = set(matrix.resumers())
    for first in range(0, len(kernels), fit):
        band = kernels[first : first + fit]
        heading = "".join(f"{first + place + 1:>{_CELL}}" for place in range(len(band)))
        console.print(Text(f"{_CORNER:>{_CELL + 2}}{heading}", style="dim"), soft_wrap=True)
        for row, resumer in enumerate(kernels, 1):
            if resumer not in there:
                continue
            text = Text(f"{row:>{_CELL}}  ")
            for resumee in band:
                cell = matrix.cell(scenario, resumer, resumee)
                mark, style = MARKS[cell.verdict] if cell is not None else (" ", "")
                text.append(" " * (_CELL - 2))
                text.append(f"{mark}{'*' if cell is not None and cell.exact else ' '}", style)
            console.print(text, soft_wrap=True)


def _reasons(matrix: Matrix, scenario: int, console: Console) -> None:
    """Print why, for what is not safe: the commonest reasons with an example."""
    from rich.text import Text  # noqa: PLC0415

    counts: Counter[int] = Counter()
    example: dict[int, tuple[int, int]] = {}
    for (number, resumer), row in sorted(matrix.rows.items()):
        if number == scenario:
            counts.update(row)
            for resumee, index in enumerate(row):
                example.setdefault(index, (resumer, resumee))
    names = labels(matrix)
    shown = [index for index, _ in counts.most_common() if matrix.cells[index].verdict is not Verdict.SAFE]
    for index in shown[:_REASONS]:
        cell = matrix.cells[index]
        mark, style = MARKS[cell.verdict]
        share = "" if cell.share is None else f", {cell.share:.0%}"
        ours, theirs = (one_line(names[kernel]) for kernel in example[index])
        text = Text.assemble(
            ("  ", ""), (mark, style), f" {counts[index]:,} x: {one_line(cell.reason)}{share}",
            (f"; e.g. {ours} resumes {theirs}", "dim"),
        )  # fmt: skip
        console.print(text, soft_wrap=True)
    if len(shown) > _REASONS:
        console.print(Text(f"  and {len(shown) - _REASONS} more, see --format json", style="dim"))


def _legend() -> Text:
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    for verdict, (mark, style) in MARKS.items():
        text.append(f"{mark} ", style)
        text.append(f" {verdict}  ")
    text.append("* by an image", "dim")
    return text
