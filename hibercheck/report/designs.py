"""The comparison of parking designs, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.cpulist import cpu_phrase
from hibercheck.report.conditions import settled
from hibercheck.report.grouped import numbered
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import condition_text, sentence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hibercheck.handoff.designs.compare import Comparison, Row

SCHEMA_VERSION = 4

COLOURS = {
    "safe": "green", "benign": "yellow", "latent": "yellow", "risk": "magenta", "fatal": "bold red", "refused": "cyan",
    "undetermined": "cyan", "survives": "green", "dies": "red", "depends": "magenta", "-": "dim",
}  # fmt: skip
EVENTS = {"spurious exit": "MWAIT", "NMI": "NMI", "SMI": "SMI", "machine check": "#MC"}

LEGEND = (
    "E: the resumee has the design too (new) or does not know it (old). "
    "Under each event: what it does to a CPU between the copy and the resumee's INIT / what it does later to a CPU "
    "that the resumee leaves in place (-: it has taken over every CPU by then). "
    "MWAIT: an exit without a cause, which the architecture allows. "
    "A verdict with + is another one if a condition holds.",
)
SHORT = {"survives": "ok", "depends": "may", "undetermined": "unknown"}
STRICT_LEGEND = "A verdict with ! is the one if the worst of its conditions holds (--strict)."
SHORT_LEGEND = "ok: survives; may: it depends on what is not known; a single word: the same in both."


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "hibercheck designs",
        "tool": {"name": "hibercheck", "version": __version__},
        "image": comparison.image,
        "resumer": comparison.resumer.release,
        "resumee": comparison.resumee.release,
        "resumer_cmdline": comparison.command_line,
        "refusal": comparison.refusal,
        "warnings": list(comparison.warnings),
        "own": {
            "outcome": str(comparison.own[0]),
            "verdict": str(comparison.own[1]),
            "strict": str(comparison.strict[1]),
            "conditions": _conditions(comparison),
        },
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
        "strict": str(row.strict[1]),
        "exposure": {
            EVENTS[exposure.event.value]: {"window": exposure.window, "after": exposure.after}
            for exposure in row.exposures
        },
        "cpus": numbered(
            (one.cpu, {"state": one.state, "why": one.why, "fate": str(one.fate), "sentence": one.sentence})
            for one in row.cpus
        ),
        "rest": numbered(
            (one.cpu, {"state": one.state and one.state.value, "by": one.whose, "why": one.why}) for one in row.rest
        ),
        "asks_resumer": design.asks_resumer,
        "asks_resumee": design.asks_resumee,
        "cost": design.cost,
        "frames": [{"pfn": hex(pfn), "role": role} for pfn, role in row.frames],
        "placement": row.placed,
        "notes": list(row.notes),
        "conditions": _conditions(row),
    }


def _conditions(of: Row | Comparison) -> list[dict[str, Any]]:
    """Return conditions as plain JSON values."""
    return [{**settled(one), "suppressed": one.id in of.spared} for one in of.conditions]


def _told_conditions(of: Row | Comparison) -> Iterator[str]:
    """Yield conditions in one line each."""
    for one in of.conditions:
        leads = f"{one.verdict}{' (suppressed)' if one.id in of.spared else ''}"
        yield f"  condition: {condition_text(f'{one.fact}: {one.value}', leads, one.arguments, one.id)}"


def render(comparison: Comparison, console: Console, *, details: bool = True, strict: bool = False) -> None:
    """Print the comparison to ``console``: the table, then what each design asks, costs and leaves open.

    Args:
        comparison: The designs.
        console: Where to.
        details: Whether to print more than the table.
        strict: Whether to show each verdict as if the worst of its conditions held.
    """
    from hibercheck.report.lines import liner  # noqa: PLC0415 - JSON needs no rich

    line = liner(console)

    resumer, resumee = one_line(comparison.resumer.release), one_line(comparison.resumee.release)
    line(f"{resumer} resumes {resumee} ({one_line(comparison.image)})", "bold")
    for warning in comparison.warnings:
        line(f"warning: {one_line(warning)}", "yellow")
    if comparison.refusal is not None:
        line(f"The resumer does not load the image, under any design: it {one_line(comparison.refusal)}")
        for text in _told_conditions(comparison):
            line(text)
        return
    outcome, verdict = comparison.strict if strict else comparison.own
    line(f"As the resumer parks them: {outcome} ({verdict})")
    for text in _told_conditions(comparison):
        line(text)
    line("")
    table = _table(comparison, narrow=False, strict=strict)
    narrow = console.measure(table, options=console.options.update(width=10**4)).maximum > console.width
    console.print(_table(comparison, narrow=True, strict=strict) if narrow else table)
    line("")
    for text in (*LEGEND, *((STRICT_LEGEND,) if strict else ()), *((SHORT_LEGEND,) if narrow else ())):
        line(text, "dim")
    for row in comparison.rows if details else ():
        for text, style in _details(row):
            line(text, style)


def _table(comparison: Comparison, *, narrow: bool, strict: bool) -> Table:
    """Return the table; a narrow one has short words and leaves out the outcome, which follows from the verdict."""
    from rich.table import Table  # noqa: PLC0415 - JSON needs no rich

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1) if not narrow else (0, 1, 0, 0))
    table.add_column("design", no_wrap=not narrow, overflow="fold")
    for title in ("E", *(() if narrow else ("outcome",)), "verdict", *EVENTS.values()):
        table.add_column(title, no_wrap=True)
    for row in comparison.rows:
        table.add_row(*_cells(row, narrow=narrow, strict=strict))
    return table


def _cells(row: Row, *, narrow: bool, strict: bool) -> Iterator[Any]:
    from rich.text import Text  # noqa: PLC0415

    outcome, verdict = row.strict if strict else (row.outcome, row.verdict)
    mark = "!" if verdict is not row.verdict else "+" if row.conditions else ""

    yield Text(row.design.name)
    yield Text("new" if row.known else "old", style="dim")
    if not narrow:
        yield Text(str(outcome))
    word = SHORT.get(verdict, verdict) if narrow else verdict
    yield Text(f"{word}{mark}", style=COLOURS[verdict])
    for exposure in row.exposures:
        window, after = (
            (SHORT.get(what, what) if narrow else what, COLOURS[what]) for what in (exposure.window, exposure.after)
        )
        yield Text(*window) if narrow and window == after else Text.assemble(window, ("/", "dim"), after)


def _details(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs under the table; what does not depend on E stands under the first of a design's rows."""
    design = row.design
    yield "", ""
    yield f"{design.name}, with a resumee that {'has it too' if row.known else 'does not know it'}", "bold"
    if not row.known:
        yield f"  {sentence(design.summary)}", ""
        yield f"  Origin: {design.origin}", "dim"
        yield f"  Requires of the resumer: {design.asks_resumer}", ""
        yield f"  Requires of the resumee: {design.asks_resumee}", ""
        yield f"  Costs: {design.cost}", ""
    alike: dict[tuple[str, str], list[int]] = {}
    for cpu in row.cpus:
        alike.setdefault((cpu.state, cpu.sentence), []).append(cpu.cpu)
    for (state, told), cpus in alike.items():
        yield f"  {cpu_phrase(cpus)} ({one_line(state.replace('_', ' '))}): {one_line(told)}", ""
    yield from ((f"  {text}", "") for text in _rests(row))
    for text in _told_conditions(row):
        yield text, ""
    if row.frames:
        yield f"  Its frames, PFN {', '.join(f'{pfn:#x} ({one_line(role)})' for pfn, role in row.frames)}", "dim"
    if row.placed:
        yield f"  {one_line(row.placed)}", "dim"
    for note in row.notes:
        yield f"  note: {one_line(note)}", "yellow"


def _rests(row: Row) -> Iterator[str]:
    """Say where CPUs spend their time that the resumee has offline in the end, those alike in one line."""
    alike: dict[tuple[str, str | None, str], list[int]] = {}
    for one in row.rest:
        alike.setdefault((one.state.value if one.state else "unknown", one.whose, one.why), []).append(one.cpu)
    for (state, whose, why), cpus in alike.items():
        where = f", where the {whose} {'left' if whose == 'resumer' else 'put'} it" if whose else ""
        yield f"In the end {cpu_phrase(cpus)}: {one_line(state.replace('_', ' '))}{where}, {one_line(why)}"
