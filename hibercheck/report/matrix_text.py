"""The matrix as a heat map in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.handoff.matrix.table import missing_rows
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.report.matrix import groups, labels, reasons, said
from hibercheck.report.sanitise import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hibercheck.handoff.matrix.pair import Cell
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


def render(matrix: Matrix, console: Console, conclusion: tuple[str, bool] | None = None) -> None:
    """Print one table for each scenario: resumers down, resumees across, by number.

    Args:
        matrix: The matrix.
        console: Where to.
        conclusion: What it means for the gate, in a sentence, and whether it passes.
    """
    from hibercheck.report.lines import liner, put  # noqa: PLC0415 - JSON needs no rich

    line = liner(console)
    together = groups(matrix)
    names = labels(matrix)
    if (lacking := missing_rows(matrix)) is not None:
        line(f"incomplete: without {one_line(lacking)}", "bold")
    for what, value in matrix.assumptions:
        line(f"{one_line(what)}: {one_line(value)}", "dim")
    line("Rows are resumers (R), which load an image; columns are resumees (E), which wrote it.", "dim")
    line("")
    for number, members in enumerate(together, 1):
        line(f"{number:>{_CELL}}  {one_line(names[members[0]])}")
        for member in members[1:]:
            line(f"{'':>{_CELL}}  {one_line(names[member])} (the same verdicts)")
    for scenario, name in enumerate(matrix.scenarios):
        line("")
        line(f"{one_line(name)}: {_counted(matrix, scenario)}", "bold")
        _heat_map(matrix, scenario, [members[0] for members in together], console)
        _reasons(matrix, scenario, console)
    line("")
    put(console, _legend())
    if conclusion is not None:
        text, passes = conclusion
        line("")
        line(text, "bold" if passes else "bold red")


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
                text.append(f"{mark}{_signs(cell)}", style)
            console.print(text, soft_wrap=True)


def _signs(cell: Cell | None) -> str:
    """Return a sign for a verdict that holds but for conditions, or else for one by an image."""
    return " " if cell is None else "+" if cell.conditions else "*" if cell.exact else " "


def _reasons(matrix: Matrix, scenario: int, console: Console) -> None:
    """Print why, for what is not safe: the commonest reasons with an example."""
    from rich.text import Text  # noqa: PLC0415

    from hibercheck.report.lines import put  # noqa: PLC0415

    names = labels(matrix)
    shown = reasons(matrix, scenario)
    for cell, count, example in shown[:_REASONS]:
        mark, style = MARKS[cell.verdict]
        share = "" if cell.share is None else f", {cell.share:.0%}"
        ours, theirs = (one_line(names[kernel]) for kernel in example)
        text = Text.assemble(
            (mark, style), f" {count:,} x: {one_line(cell.reason)}{share}{_named(cell)}",
            (f"; e.g. {ours} resumes {theirs}", "dim"),
        )  # fmt: skip
        put(console, text, indent=2)
        for condition in cell.conditions:
            put(console, said(condition, cell), indent=6)
        for warning in cell.warnings:
            put(console, f"warning: {one_line(warning)}", indent=6)
    if len(shown) > _REASONS:
        put(console, f"and {len(shown) - _REASONS} more, see --format json", "dim", indent=2)


def _named(cell: Cell) -> str:
    """Return the rules that a cell's pairs break, for `hibercheck explain`."""
    return f" ({', '.join(map(one_line, cell.rules))})" if cell.rules else ""


def _legend() -> Text:
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    for verdict, (mark, style) in MARKS.items():
        text.append(f"{mark} ", style)
        text.append(f" {verdict}  ")
    text.append("+ another verdict if a condition holds  * judged with an image", "dim")
    return text
