"""The difference between two kernels as text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.handoff.diff import Change, Difference, Pair, Part
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.kernel.code.commits import short
from hibercheck.report.designs import COLOURS
from hibercheck.report.gate import Exit
from hibercheck.report.kernel import label, section, words
from hibercheck.report.matrix import conditions_of, said
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import count

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 3


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
        "resumer": pair.resumer.release,
        "resumee": pair.resumee.release,
        "replaces": {"resumer": pair.old_resumer.release, "resumee": pair.old_resumee.release},
        "before": _cell(pair.before),
        "after": _cell(pair.after),
        "worse": pair.worse,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "outcome": str(cell.outcome),
        "verdict": str(cell.verdict),
        "reason": cell.reason,
        "share": cell.share,
        "conditions": conditions_of(cell),
        "warnings": list(cell.warnings),
    }


def _words(value: Any) -> str:  # noqa: ANN401 - text, or a trait
    return value if isinstance(value, str) else words(value)


def render(difference: Difference, console: Console, status: Exit, *, verbose: bool = False) -> None:
    """Print the difference to ``console``: what it does to pairs first, then what has changed.

    Args:
        difference: The difference.
        console: Where to.
        status: The exit status.
        verbose: Whether to show the loops, the layout and the pairs that are as before, too.
    """
    from hibercheck.report.lines import liner  # noqa: PLC0415 - JSON needs no rich

    line = liner(console)

    line(f"From {one_line(difference.old)} to {one_line(difference.new)}", "bold")
    if difference.same_build:
        line("The two are the same build.")
    line("")
    line("Pairs", "bold")
    for group in _grouped(difference.pairs):
        if _moved(group[0]) or verbose:
            _print_group(group, console)
    if not verbose:
        _as_before([pair for pair in difference.pairs if not _moved(pair)], line)
    _print_changes(difference, line, verbose=verbose)
    line("")
    line(_conclusion(difference, status), "bold red" if status is Exit.FAILED else "bold")


def _grouped(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Put pairs together of which the same is said; those that are worse come first."""
    found: dict[tuple[Any, ...], list[Pair]] = {}
    for pair in pairs:
        after = pair.after
        told = tuple(said(one, after) for one in after.conditions)
        key = (pair.worse, pair.before.verdict, after.verdict, after.share, after.reason, told)
        found.setdefault(key, []).append(pair)
    return sorted(found.values(), key=lambda group: not group[0].worse)


def _moved(pair: Pair) -> bool:
    """Whether a pair is another than it was: by its verdict, or by the worst that a condition leads to."""
    return pair.changed or pair.worse or pair.before.strict is not pair.after.strict


def _print_group(group: Sequence[Pair], console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    from hibercheck.report.lines import put  # noqa: PLC0415

    first = group[0]
    text = Text()
    if first.changed:
        text.append(f"{first.before.verdict}", COLOURS[first.before.verdict])
        text.append(" -> ")
    text.append(f"{first.after.verdict}", COLOURS[first.after.verdict])
    if first.after.share is not None:
        text.append(f" ({first.after.share:.0%})")
    if first.worse:
        text.append(" WORSE", "bold red")
    if first.after.verdict is not Verdict.SAFE:
        text.append(f": {one_line(first.after.reason)}")
    put(console, text, indent=2)
    for condition in first.after.conditions:
        put(console, Text(said(condition, first.after), style="dim"), indent=4)
    for pair in group:
        name = f"{one_line(pair.scenario)}: {one_line(pair.resumer.release)} resumes {one_line(pair.resumee.release)}"
        put(console, Text(name, style="dim"), indent=4)


_UNLESS = ", another if a condition holds"


def _as_before(pairs: Sequence[Pair], line: Any) -> None:  # noqa: ANN401 - a function of render()
    if pairs:
        counts = Counter(f"{pair.after.verdict}{_UNLESS if pair.after.conditions else ''}" for pair in pairs)
        line(f"  {count(len(pairs), 'pair')} as before: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}")


def _print_changes(difference: Difference, line: Any, *, verbose: bool) -> None:  # noqa: ANN401 - a function of render()
    """Print a line for each change of behaviour; loops and layout are many lines, which only few read."""
    of_part = {part: [change for change in difference.changes if change.part is part] for part in Part}
    told = ""
    for change in of_part[Part.TRAIT]:
        if section(change.name) != told:
            told = section(change.name)
            line("")
            line(told, "bold")
        _change(label(change.name), change, line, verbose=verbose)
    if verbose:
        _print_code(of_part, line)
    elif of_part[Part.LOOP] or of_part[Part.LAYOUT]:
        loops, symbols = len(of_part[Part.LOOP]), len(of_part[Part.LAYOUT])
        counts = [count(number, what) for number, what in ((loops, "loop"), (symbols, "symbol")) if number]
        line("")
        line(f"{' and '.join(counts)} changed as well: -v shows them.", "dim")
    if not difference.changes:
        line("")
        line("Nothing that the handoff depends on has changed.")


def _print_code(of_part: Mapping[Part, Sequence[Change]], line: Any) -> None:  # noqa: ANN401 - a function of render()
    for title, part in (("Loops that CPUs are parked in", Part.LOOP), ("Addresses", Part.LAYOUT)):
        if of_part[part]:
            line("")
            line(title, "bold")
        for change in of_part[part]:
            if part is Part.LAYOUT:
                _change(change.name, change, line, verbose=True)
                continue
            line(f"  {one_line(change.name)}")
            line(f"    - {one_line(_words(change.before))}", "red")
            line(f"    + {one_line(_words(change.after))}", "green")


def _change(name: str, change: Change, line: Any, *, verbose: bool) -> None:  # noqa: ANN401 - a function of render()
    """Print a change in one line, with the commit behind it: its number and version, or all of it."""
    commit = change.commit or ""
    see = commit if verbose else short(commit)
    before, after = one_line(_words(change.before)), one_line(_words(change.after))
    line(f"  {one_line(name)}: {before} -> {after}{f'  [{one_line(see)}]' if see else ''}")


def _conclusion(difference: Difference, status: Exit) -> str:
    worse = len(difference.broken)
    if not worse:
        return "No pair is worse than it was."
    counted = f"{worse} of {len(difference.pairs)} pairs {'is' if worse == 1 else 'are'} worse than before"
    return f"{counted}: {'fails' if status is Exit.FAILED else 'undetermined' if status else 'passes'}."
