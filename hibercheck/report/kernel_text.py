"""The kernel command's report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hibercheck.report.kernel import KernelView, touched, words
from hibercheck.report.sanitise import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from hibercheck.kernel.code.model import Evidence, ParkLoop, Trait

LABEL = 52
INDENT = "      "
NARROW = 20
"""Columns in which a value still can be read."""

_STYLES = {"yes": "green", "no": "yellow", "unknown": "red"}


def render(shown: KernelView, console: Console, *, evidence: bool = True) -> None:
    """Print the report to ``console``; ``evidence`` adds what each statement was read from."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs no rich

    from hibercheck.report.lines import liner, put  # noqa: PLC0415

    line = liner(console)

    line(f"{one_line(shown.path)}: Linux {one_line(shown.release)}", "bold")
    for text in _identity(shown):
        line(f"  {text}")
    for title, rows in shown.sections():
        line("")
        line(title, "bold")
        for label, trait in rows:
            value = one_line(words(trait))
            for name, part in _in_columns(label, value, None if console.soft_wrap else console.width - 2):
                put(console, Text.assemble((name, "cyan"), (part, _STYLES.get(value, ""))), indent=2)
            for text in _grounds(trait, evidence=evidence):
                line(f"{INDENT}{one_line(text)}", "dim")
    line("")
    line("Loops that CPUs are parked in", "bold")
    for loop, who in shown.loops():
        for text in _loop(loop, who):
            line(text)
    if not shown.traits.park_loops:
        line("  none found")


def _in_columns(label: str, value: str, width: int | None) -> Iterator[tuple[str, str]]:
    """Yield the lines of a trait: what it is called, and beside it what it is; below it where there is no room."""
    room = None if width is None else width - LABEL - 2
    if room is None or len(value) <= room:
        yield f"{label.ljust(LABEL)}  ", value
        return
    import textwrap  # noqa: PLC0415 - only a terminal needs it

    if room < NARROW:
        yield label, ""
        indent, room = INDENT, max(width or 0, NARROW) - len(INDENT)
    else:
        indent = " " * (LABEL + 2)
    for number, line in enumerate(textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False)):
        first = number == 0 and indent is not INDENT
        yield f"{label.ljust(LABEL)}  " if first else indent, line


def _identity(shown: KernelView) -> Iterator[str]:
    yield one_line(shown.banner)
    if shown.build_id:
        yield f"build id {shown.build_id}"
    if shown.symbols is not None:
        origin, number = shown.symbols
        yield f"{number:,} symbols from {one_line(origin)}"


def _grounds(trait: Trait[Any], *, evidence: bool) -> Iterator[str]:
    """Why the value is what it is: the remark always, the rest on request."""
    if trait.reason:
        yield trait.reason
    if not evidence:
        return
    for one in trait.evidence:
        yield _evidence(one)
    if trait.commit and trait.evidence:
        yield f"see {trait.commit}"


def _evidence(one: Evidence) -> str:
    where = f"{one.address:016x}  " if one.address is not None else ""
    return f"{where}{one.symbol}: {one.text}"


def _loop(loop: ParkLoop, who: list[str]) -> Iterator[str]:
    places = ", ".join(f"{start:#x}-{end - 1:#x}" for start, end in loop.ranges)
    yield f"  {loop.kind} in {one_line(loop.symbol)}, {places}"
    yield f"{INDENT}parks {'; '.join(dict.fromkeys(who))}"
    yield f"{INDENT}by {' -> '.join(map(one_line, loop.via))}" + (", with interrupts on" if loop.interrupts else "")
    yield f"{INDENT}{one_line('; '.join(touched(loop)))}"
    for patch in loop.patchable:
        yield f"{INDENT}{patch.start:#x}-{patch.end - 1:#x} may be rewritten ({patch.why})"
    if loop.incomplete:
        yield f"{INDENT}incomplete: {loop.incomplete}"
    for one in loop.instructions:
        mark = ">" if one.address == loop.wait else " "
        yield f"{INDENT}{mark} {one.address:016x}  {one_line(one.text)}"
