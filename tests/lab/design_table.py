"""The table of hibercheck-designs(7): every way to park that was run, beside what was foretold of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.lab.designs import ALL, EVENTS
from tests.lab.experiment import Event
from tests.lab.predict import grade
from tests.lab.records import Entry

PLACE = Path("man") / "examples" / "designs.txt"
PAIRS = ("new-old", "old-new", "both", "same")
OTHERS = {
    "hand-in-r": "hand-R",
    "hand-in-both": "hand-RE",
    "nosmt-r": "nosmt-R",
    "nosmt-e": "nosmt-E",
    "nosmt-both": "nosmt-RE",
    "kaslr": "kaslr",
    "levels-5": "5-level",
    "levels-4": "4-level",
}
"""Experiments of one kind each, by the heads of their columns."""
LEGEND = """\
+ resumes; X reset, hung, or a CPU ran away; ! where the first prediction was
another, ? where it did not commit itself; . not run.  Events: none, NMI, SMI,
machine check, to a CPU that the resumee leaves offline.
new-old: the resumer has the design, the resumee is today's; old-new: the other
way round; both: two builds that have it; same: one build on both sides.
hand: a CPU was taken offline by hand; R: in the resumer, E: in the resumee."""


REST = """\
Where CPU 1 spends its time in the end: the state, E where the resumee put it
there, R where the resumer left it, and the hint of MWAIT; - where the machine
was reset, ? where it was not recorded."""
WIDE = 16
SETTLED: tuple[Event, ...] = ("nmi", "smi", "none")
"""The runs that show it, the best first: an INIT that QEMU keeps pending in HLT is taken with the next event."""


def table(entries: Sequence[Entry]) -> str:
    """The outcome of every design, a block for each machine on which one was run."""
    own = [entry for entry in entries if entry.name.startswith("design-")]
    machines = sorted({entry.machine for entry in own})
    lines = [LEGEND]
    for machine in machines:
        found = {entry.name: entry for entry in own if entry.machine == machine}
        lines += ["", f"{machine}, {len(found)} experiments", _heading(), *(_row(found, design) for design in ALL)]
        lines += ["", " " * 9 + " ".join(OTHERS.values()), *(_other(found, design) for design in ALL)]
        lines += ["", REST, " " * 9 + "".join(pair.ljust(WIDE) for pair in PAIRS).rstrip()]
        lines += [_rest_row(found, design) for design in ALL]
    return "\n".join([*lines, *([] if machines else ["", "Nothing has been run yet."])]) + "\n"


def _heading() -> str:
    return " " * 9 + "  ".join(pair.ljust(3 * len(EVENTS)) for pair in PAIRS).rstrip()


def _row(found: dict[str, Entry], design: str) -> str:
    cells = (
        "".join(_cell(found.get(f"design-{design}-{pair}-{event}")).ljust(3) for event in EVENTS) for pair in PAIRS
    )
    return f"{design:9}" + "  ".join(cells).rstrip()


def _other(found: dict[str, Entry], design: str) -> str:
    cells = (_cell(found.get(f"design-{design}-{one}")).ljust(len(head)) for one, head in OTHERS.items())
    return f"{design:9}" + " ".join(cells).rstrip()


def _rest_row(found: dict[str, Entry], design: str) -> str:
    return f"{design:9}{''.join(_rest(found, design, pair).ljust(WIDE) for pair in PAIRS)}".rstrip()


def _rest(found: dict[str, Entry], design: str, pair: str) -> str:
    """Where the CPU spends its time that the resumee has offline, by the first run that tells."""
    runs = [found.get(f"design-{design}-{pair}-{event}") for event in SETTLED]
    lived = [run for run in runs if run is not None and run.outcome == "resumes"]
    rows = next((rows for run in lived if (rows := run.events.get("rest"))), None)
    if not rows:
        return "?" if lived else "-" if any(runs) else "."
    _, state, *more = rows[0]
    who = {"resumee": " E", "resumer": " R"}[more[0]] if more else ""
    return f"{state}{who}{f' {more[1]:#x}' if len(more) > 1 else ''}"


def _cell(entry: Entry | None) -> str:
    """What a machine did, and whether it was foretold."""
    if entry is None:
        return "."
    mark = {"right": "", "abstained": "?"}.get(grade(entry, entry.first, dump=False), "!")
    return {"resumes": "+", "refused": "-"}.get(entry.outcome, "X") + mark
