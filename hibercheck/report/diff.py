"""The difference between two kernels as text and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.handoff.diff import Change, Difference, Pair, Part
from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.report.designs import COLOURS
from hibercheck.report.gate import Exit
from hibercheck.report.kernel import words
from hibercheck.report.matrix import exit_status, worst_status
from hibercheck.report.sanitise import one_line

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
_TITLES = {Part.TRAIT: "Behaviour", Part.LOOP: "Loops that CPUs are parked in", Part.LAYOUT: "Layout"}


def status_of(difference: Difference, fail_on: str, *, refused_fails: bool) -> Exit:
    """Return the exit status: only a pair that is worse than it was fails, and only at or above the threshold."""
    return worst_status(
        exit_status(pair.after.verdict, fail_on, refused_fails=refused_fails) for pair in difference.broken
    )


def to_dict(difference: Difference, status: Exit) -> dict[str, Any]:
    """Return the difference as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "hibercheck diff",
        "tool": {"name": "hibercheck", "version": __version__},
        "old": difference.old,
        "new": difference.new,
        "same_build": difference.same_build,
        "exit_status": int(status),
        "changes": [
            {
                "part": str(change.part),
                "name": change.name,
                "before": _words(change.before),
                "after": _words(change.after),
                "commit": change.commit,
            }
            for change in difference.changes
        ],
        "pairs": [_pair(pair) for pair in difference.pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "scenario": pair.scenario,
        "resumer": pair.resumer,
        "resumee": pair.resumee,
        "replaces": {"resumer": pair.old_resumer, "resumee": pair.old_resumee},
        "before": _cell(pair.before),
        "after": _cell(pair.after),
        "worse": pair.worse,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    share = cell.share
    return {"outcome": str(cell.outcome), "verdict": str(cell.verdict), "reason": cell.reason, "share": share}


def _words(value: Any) -> str:  # noqa: ANN401 - text, or a trait
    return value if isinstance(value, str) else words(value)


def render(difference: Difference, console: Console, status: Exit) -> None:
    """Print the difference to ``console``."""
    from hibercheck.report.lines import liner  # noqa: PLC0415 - JSON needs no rich

    line = liner(console)

    line(f"From {one_line(difference.old)} to {one_line(difference.new)}", "bold")
    if difference.same_build:
        line("The two are the same build.")
    for part, title in _TITLES.items():
        changes = [change for change in difference.changes if change.part is part]
        if changes:
            line("")
            line(title, "bold")
        for change in changes:
            _change(change, line)
    if not difference.changes:
        line("Nothing that the handoff depends on has changed.")
    line("")
    line("Pairs", "bold")
    for pair in difference.pairs:
        _print_pair(pair, console)
    line("")
    line(_conclusion(difference, status), "bold red" if status is Exit.FAILED else "bold")


def _change(change: Change, line: Any) -> None:  # noqa: ANN401 - a function of render()
    line(f"  {one_line(change.name)}")
    line(f"    - {one_line(_words(change.before))}", "red")
    line(f"    + {one_line(_words(change.after))}", "green")
    if change.commit:
        line(f"    see {one_line(change.commit)}", "dim")


def _print_pair(pair: Pair, console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    from hibercheck.report.lines import put  # noqa: PLC0415

    text = Text(f"{one_line(pair.scenario)}: {one_line(pair.resumer)} resumes {one_line(pair.resumee)}: ")
    if pair.changed:
        text.append(f"{pair.before.verdict}", COLOURS[pair.before.verdict])
        text.append(" -> ")
    text.append(f"{pair.after.verdict}", COLOURS[pair.after.verdict])
    if pair.after.share is not None:
        text.append(f" ({pair.after.share:.0%})")
    if pair.worse:
        text.append(" WORSE", "bold red")
    if pair.after.verdict is not Verdict.SAFE:
        text.append(f"; {one_line(pair.after.reason)}", "dim")
    put(console, text, indent=2)


def _conclusion(difference: Difference, status: Exit) -> str:
    worse = len(difference.broken)
    if not worse:
        return "No pair is worse than it was."
    counted = f"{worse} of {len(difference.pairs)} pairs {'is' if worse == 1 else 'are'} worse than before"
    return f"{counted}: {'fails' if status is Exit.FAILED else 'undetermined' if status else 'below --fail-on'}."
