"""The comparison of parking designs, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import cpu_phrase, sentence

if TYPE_CHECKING:
    from rich.console import Console

    from hibercheck.handoff.designs.compare import Comparison, Row

SCHEMA_VERSION = 1

COLOURS = {
    "safe": "green", "benign": "yellow", "latent": "yellow", "risk": "magenta", "fatal": "bold red", "refused": "cyan",
    "undetermined": "cyan", "survives": "green", "dies": "red", "depends": "magenta", "-": "dim",
}  # fmt: skip
EVENTS = {"spurious exit": "MWAIT", "NMI": "NMI", "SMI": "SMI", "machine check": "#MC"}

LEGEND = (
    "E: whether the resumee has the design too (new) or does not know it (old). "
    "Each event: what it does between the copy and the resumee's INIT / what it does later, to CPUs that the resumee "
    "leaves in place; - where it has taken over every CPU by then. "
    "MWAIT is an exit for no reason, which the architecture allows.",
)
WIDE = 100
"""Columns from which the words of the table fit."""
SHORT = {"survives": "ok", "depends": "may"}
SHORT_LEGEND = "ok: survives; may: it depends on what is not known."


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "hibercheck designs",
        "tool": {"name": "hibercheck", "version": __version__},
        "image": comparison.image,
        "resumer": comparison.resumer,
        "resumee": comparison.resumee,
        "resumer_cmdline": comparison.command_line,
        "refusal": comparison.refusal,
        "own": {"outcome": str(comparison.own[0]), "verdict": str(comparison.own[1])},
        "designs": [_row(row) for row in comparison.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    design = row.design
    return {
        "name": design.name,
        "summary": design.summary,
        "origin": design.origin,
        "resumee_knows_design": row.known,
        "outcome": str(row.outcome),
        "verdict": str(row.verdict),
        "exposure": {
            EVENTS[exposure.event.value]: {"window": exposure.window, "after": exposure.after}
            for exposure in row.exposures
        },
        "cpus": [
            {"cpu": one.cpu, "state": one.state, "why": one.why, "fate": str(one.fate), "sentence": one.sentence}
            for one in row.cpus
        ],
        "asks_resumer": design.asks_resumer,
        "asks_resumee": design.asks_resumee,
        "cost": design.cost,
        "frames": [{"pfn": hex(pfn), "role": role} for pfn, role in row.frames],
        "placement": row.placed,
        "notes": list(row.notes),
    }


def render(comparison: Comparison, console: Console, *, details: bool = True) -> None:
    """Print the comparison to ``console``: the table, then what each design asks, costs and leaves open."""
    from rich.table import Table  # noqa: PLC0415 - JSON needs no rich

    from hibercheck.report.lines import liner  # noqa: PLC0415

    line = liner(console)

    resumer, resumee = one_line(comparison.resumer), one_line(comparison.resumee)
    line(f"{resumer} resumes {resumee} ({one_line(comparison.image)})", "bold")
    if comparison.refusal is not None:
        line(f"The resumer does not load the image, under any design: it {one_line(comparison.refusal)}")
        return
    line(f"As the resumer parks them: {comparison.own[0]} ({comparison.own[1]})")
    line("")
    table = Table(box=None, pad_edge=False, header_style="bold")
    narrow = console.width < WIDE
    for title in ("design", "E", *(() if narrow else ("outcome",)), "verdict", *EVENTS.values()):
        table.add_column(title, no_wrap=True)
    for row in comparison.rows:
        table.add_row(*_cells(row, narrow=narrow))
    console.print(table)
    line("")
    for text in (*LEGEND, *((SHORT_LEGEND,) if narrow else ())):
        line(text, "dim")
    for row in comparison.rows if details else ():
        for text, style in _details(row):
            line(text, style)


def _cells(row: Row, *, narrow: bool) -> Iterator[Any]:
    from rich.text import Text  # noqa: PLC0415

    yield Text(row.design.name)
    yield Text("new" if row.known else "old", style="dim")
    if not narrow:
        yield Text(str(row.outcome))
    yield Text(str(row.verdict), style=COLOURS[row.verdict])
    for exposure in row.exposures:
        window, after = (
            (SHORT.get(what, what) if narrow else what, COLOURS[what]) for what in (exposure.window, exposure.after)
        )
        yield Text.assemble(window, ("/", "dim"), after)


def _details(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs under the table; what does not depend on E stands under the first of a design's rows."""
    design = row.design
    yield "", ""
    yield f"{design.name}, with a resumee that {'has it too' if row.known else 'does not know it'}", "bold"
    if not row.known:
        yield f"  {sentence(design.summary)}", ""
        yield f"  Origin: {design.origin}", "dim"
        yield f"  Asks of the resumer: {design.asks_resumer}", ""
        yield f"  Asks of the resumee: {design.asks_resumee}", ""
        yield f"  Costs: {design.cost}", ""
    alike: dict[tuple[str, str], list[int]] = {}
    for cpu in row.cpus:
        alike.setdefault((cpu.state, cpu.sentence), []).append(cpu.cpu)
    for (state, told), cpus in alike.items():
        yield f"  {cpu_phrase(cpus)} ({one_line(state.replace('_', ' '))}): {one_line(told)}", ""
    if row.frames:
        yield f"  Its frames, PFN {', '.join(f'{pfn:#x} ({one_line(role)})' for pfn, role in row.frames)}", "dim"
    if row.placed:
        yield f"  {one_line(row.placed)}", "dim"
    for note in row.notes:
        yield f"  note: {one_line(note)}", "yellow"
