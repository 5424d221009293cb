"""The preflight command's report as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.handoff.facts.session import shown_time
from hibercheck.handoff.preflight.answers import Answer, Preflight, Row, RowVerdict, Step
from hibercheck.handoff.preflight.waiting import Waiting
from hibercheck.handoff.verdict.stale import RULE as STALE_RULE
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import sentence

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    RowVerdict.NOT_FOUND: "bold red",
    RowVerdict.SAFE: "bold green",
    RowVerdict.BENIGN: "bold green",
    RowVerdict.LATENT: "bold yellow",
    RowVerdict.RISK: "bold magenta",
    RowVerdict.FATAL: "bold red",
    RowVerdict.REFUSED: "bold red",
    RowVerdict.UNDETERMINED: "bold cyan",
}
_ANSWERS = {Answer.YES: "green", Answer.NO: "red", Answer.PERHAPS: "magenta", Answer.UNKNOWN: "cyan"}
_INDENT = 4
_LABEL = 10
_ANSWER = 9


def render(shown: Preflight, console: Console, *, brief: bool = False) -> None:
    """Print the report to ``console``; ``brief`` is one sentence about the default entry."""
    from hibercheck.report.lines import liner  # noqa: PLC0415 - JSON needs no rich

    line = liner(console)
    if brief:
        row = shown.rows[0]
        line(f"{str(row.verdict).replace('-', ' ')}: {one_line(row.title)}: {one_line(row.deciding.text)}")
        return
    who = one_line(shown.resumee) if shown.resumee else "a kernel that is not known"
    tense = "would hibernate" if shown.running else "is taken to hibernate"
    line(f"{one_line(shown.root)}: Linux {who} {tense} to {one_line(shown.target)}", "bold")
    line(f"The image is taken to cover {shown.image_share:.0%} of memory; its kernel's own pages are certain.", "dim")
    for row in shown.rows:
        line("")
        _row(row, console)
    if shown.waiting is not None:
        line("")
        for text, style in _waiting(shown.waiting):
            line(text, style)
    for warning in shown.warnings:
        line("")
        line(f"Note: {sentence(one_line(warning))}")


def _waiting(found: Waiting) -> Iterator[tuple[str, str]]:
    """Yield the lines about an image that waits already."""
    when = "" if found.written is None else f", written at {shown_time(found.written)}"
    part = "" if found.partition is None else f", partition {found.partition}"
    who = one_line(found.release) if found.release else "a kernel that is not known"
    yield (
        f"An image waits on {one_line(found.disk)}{part}: of Linux {who}{when}. An entry that finds it resumes it.",
        "",
    )
    for one in found.used_since:
        what = f"the {one.superblock.kind} file system on {one.place} {one.what}"
        advice = f"do not resume it, it would corrupt that file system (hibercheck explain {STALE_RULE})"
        yield f"Warning: {what}: {advice}.", "yellow"


def _row(row: Row, console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    from hibercheck.report.lines import put  # noqa: PLC0415

    share = f" ({row.share:.0%})" if row.share is not None and row.verdict is RowVerdict.RISK else ""
    word = str(row.verdict).upper().replace("-", " ")
    default = " (started by default)" if row.default else ""
    put(console, Text.assemble((f"{word}{share}", STYLES[row.verdict]), f"  {one_line(row.title)}{default}"))
    release = f", Linux {one_line(row.release)}" if row.release else ""
    put(console, Text(f"{one_line(row.kernel)}{release}", style="dim"), indent=_INDENT)
    for label, step in (("finds it", row.find), ("loads it", row.load), ("survives", row.survive)):
        if step.answer is not Answer.NOT_ASKED:
            _step(label, step, console)
    deciding = row.deciding
    if deciding.advice:
        put(console, Text.assemble(("What to do: ", "bold"), sentence(one_line(deciding.advice))), indent=_INDENT)
    for condition in row.conditions:
        said = f"{one_line(condition.fact)}: {one_line(condition.value)}  -> "
        text = Text.assemble("Condition: ", said, (str(condition.verdict), "bold"), (f"  [{condition.id}]", "dim"))
        put(console, text, indent=_INDENT)
        put(console, Text(sentence(one_line(condition.reason))), indent=_INDENT + 2)


def _step(label: str, step: Step, console: Console) -> None:
    from rich.text import Text  # noqa: PLC0415

    from hibercheck.report.lines import put  # noqa: PLC0415

    beside = Text.assemble((label.ljust(_LABEL), "dim"), (str(step.answer).ljust(_ANSWER), _ANSWERS[step.answer]))
    room = max(console.width - _INDENT - len(beside), 1)
    lines = [one_line(step.text)] if console.soft_wrap else textwrap.wrap(one_line(step.text), room) or [""]
    for number, line in enumerate(lines):
        put(console, Text.assemble(beside if number == 0 else " " * len(beside), line), indent=_INDENT)
    for text in step.log:
        put(console, Text(f"its kernel will print: {one_line(text)}", style="dim"), indent=_INDENT + 2)
