"""The table of hibercheck-designs(7): every way to park that was run, beside what was foretold of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.designs import ALL, EVENTS, ON_7, designs, designs_7, planned
from tests.lab.experiment import Event, Experiment
from tests.lab.predict import grade
from tests.lab.records import Entry

PLACE = Path("man") / "examples" / "designs.txt"
IN_SHORT = PLACE.with_name("designs-in-short.txt")
PAIRS = ("new-old", "old-new", "both", "same")
OTHERS = {
    "hand-in-r": "hand-R",
    "hand-in-both": "hand-RE",
    "nosmt-r": "nosmt-R",
    "nosmt-e": "nosmt-E",
    "nosmt-both": "nosmt-RE",
    "kaslr": "kaslr",
    "levels-5": "la57",
    "levels-4": "no57",
    "boot-none": "ap",
    "boot-nmi": "apN",
}
"""Experiments of one kind each, by the heads of their columns."""
LEGEND = """\
+ resumes; X reset, hung, or a CPU ran away; - the image was refused;
! where the first prediction was another, ? where it did not commit
itself; . not run; / not to be run on this emulator, as "What ran
where" of tests/lab/designs.md says.
Events: none, NMI, SMI, machine check, to a CPU that the resumee leaves
offline.
new-old: the resumer has the design, the resumee is today's; old-new:
the other way round; both: two builds that have it; same: one build on
both sides.
hand: a CPU was taken offline by hand; R: in the resumer, E: in the
resumee; la57, no57: 5 and 4 levels of page tables; ap, apN (NMI): both
copy on an AP after kexec, and the BSP is their CPU 1."""


REST = """\
Where CPU 1 spends its time in the end: the state, E where the resumee
put it there, R where the resumer left it, and the hint of MWAIT;
- where the machine was reset, ? where it was not recorded."""
SHORT = """\
Machines lost, of those run.  "In the copy": by what the copy does to a
parked CPU, over all experiments.  The rest: by an NMI, an SMI or a
machine check to a CPU that the resumee leaves offline, where the
resumer has the design and the resumee is today's (new-old), the other
way round (old-new), where both have it, and where both are the same
build."""
FORETOLD = """\
Of {} experiments hibercheck foretold {} as they came, from image
and kernels alone, without a dump; {} it left open, and {} came
otherwise."""
WIDE, NARROW = 15, 13
SETTLED: tuple[Event, ...] = ("nmi", "smi", "none")
"""The runs that show it, the best first: an INIT that QEMU keeps pending in HLT is taken with the next event."""
VERSIONS = {"design-": "6.1", ON_7: "7.3"}
"""Of the resumer's source, by how names of experiments begin."""


@dataclass(frozen=True, slots=True)
class Block:
    """One emulator, and one version of the source.

    Args:
        machine: The emulator.
        head: How the names of its experiments begin.
        found: What is recorded.
        wanted: What is designed, by name.
    """

    machine: str
    head: str
    found: dict[str, Entry]
    wanted: dict[str, Experiment]

    def cell(self, name: str) -> str:
        """What a machine did, and whether it was foretold."""
        entry = self.found.get(self.head + name)
        if entry is not None:
            return {"resumes": "+", "refused": "-"}.get(entry.outcome, "X") + _mark(entry)
        wanted = self.wanted.get(self.head + name)
        return "" if wanted is None else "." if planned(wanted, self.machine) else "/"

    def events(self) -> tuple[Event, ...]:
        """The events that any design meets in pairs of builds."""
        return tuple(event for event in EVENTS if f"{self.head}{ALL[0]}-{PAIRS[0]}-{event}" in self.wanted)

    def others(self) -> dict[str, str]:
        """The columns of the rest."""
        return {one: head for one, head in OTHERS.items() if f"{self.head}{ALL[0]}-{one}" in self.wanted}

    def lines(self) -> list[str]:
        """All of it."""
        events, others = self.events(), self.others()
        heading = " " * 9 + "  ".join(pair.ljust(3 * len(events)) for pair in PAIRS).rstrip()
        out = ["", f"{self.machine}, linux-source-{VERSIONS[self.head]}, {len(self.found)} experiments", heading]
        out += [self._row(design, events) for design in ALL]
        out += ["", " " * 9 + " ".join(others.values())]
        for design in ALL:
            cells = (self.cell(f"{design}-{one}").ljust(len(head)) for one, head in others.items())
            out.append(f"{design:9}{' '.join(cells)}".rstrip())
        out += ["", REST, " " * 9 + "".join(pair.ljust(WIDE) for pair in PAIRS).rstrip()]
        return out + [
            f"{design:9}{''.join(self._rest(design, pair).ljust(WIDE) for pair in PAIRS)}".rstrip() for design in ALL
        ]

    def _row(self, design: str, events: Collection[Event]) -> str:
        cells = ("".join(self.cell(f"{design}-{pair}-{event}").ljust(3) for event in events) for pair in PAIRS)
        return f"{design:9}{'  '.join(cells)}".rstrip()

    def _rest(self, design: str, pair: str) -> str:
        """Where the CPU spends its time that the resumee has offline, by the first run that tells."""
        runs = [self.found.get(f"{self.head}{design}-{pair}-{event}") for event in SETTLED]
        lived = [run for run in runs if run is not None and run.outcome == "resumes"]
        rows = next((rows for run in lived if (rows := run.events.get("rest"))), None)
        if not rows:
            return "?" if lived else "-" if any(runs) else self.cell(f"{design}-{pair}-none")
        _, state, *more = rows[0]
        who = {"resumee": " E", "resumer": " R"}[more[0]] if more else ""
        return f"{state}{who}{f' {more[1]:#x}' if len(more) > 1 else ''}"


def _mark(entry: Entry) -> str:
    """How the first prediction differs from what happened."""
    mark = {"right": "", "abstained": "?"}.get(grade(entry, entry.first, dump=False), "!")
    return "?" if mark and entry.first.verdict in ("risk", "undetermined") and not entry.first.usual else mark


def table(entries: Sequence[Entry]) -> str:
    """The outcome of every design, a block for each machine and source on which one was run."""
    lines = [LEGEND]
    for one in blocks(entries):
        lines += one.lines()
    return "\n".join([*lines, *([] if len(lines) > 1 else ["", "Nothing has been run yet."])]) + "\n"


def in_short(entries: Sequence[Entry]) -> str:
    """What became of the machines of each design, over all blocks."""
    found = blocks(entries)
    out = [SHORT, " " * 9 + "".join(head.ljust(NARROW) for head in ("in the copy", *PAIRS)).rstrip()]
    for design in ALL:
        runs = {
            name.removeprefix(f"{one.head}{design}-") + one.head + one.machine: run
            for one in found
            for name, run in one.found.items()
            if name.startswith(f"{one.head}{design}-")
        }
        cells = [_share(list(runs.values()), in_copy=True)]
        for pair in PAIRS:
            after = [
                run for name, run in runs.items() if name.startswith(f"{pair}-") and run.experiment.event != "none"
            ]
            cells.append(_share(after, in_copy=False))
        out.append(f"{design:9}{''.join(cell.ljust(NARROW) for cell in cells)}".rstrip())
    marks = [_mark(run) for one in found for run in one.found.values()]
    right, left_open, wrong = (marks.count(mark) for mark in ("", "?", "!"))
    return "\n".join([*out, "", FORETOLD.format(len(marks), right, left_open, wrong)]) + "\n"


def _strayed(run: Entry) -> bool:
    """Whether a CPU was in foreign code or tables while the copy went on; Bochs alone tells."""
    return any(phase == "copy" for _, _, _, phase in run.events.get("differs", ()))


def _share(runs: Sequence[Entry], *, in_copy: bool) -> str:
    """How many were lost of how many."""
    ran = [run for run in runs if run.outcome != "refused"]
    lost = [run for run in ran if run.outcome != "resumes"]
    early = [run for run in lost if run.experiment.event == "none" or run.when == "in the handoff" or _strayed(run)]
    return f"{len(early) if in_copy else len(lost) - len(early)}/{len(ran)}" if ran else "."


def blocks(entries: Sequence[Entry]) -> list[Block]:
    """What there is a table of."""
    wanted = {one.name: one for one in (*designs(), *designs_7())}
    own = [entry for entry in entries if entry.name in wanted]
    out = []
    for head in VERSIONS:
        theirs = {name: one for name, one in wanted.items() if name.startswith(head)}
        for machine in sorted({entry.machine for entry in own if entry.name in theirs}):
            found = {entry.name: entry for entry in own if entry.machine == machine and entry.name in theirs}
            out.append(Block(machine, head, found, theirs))
    return out


def lacking(entries: Sequence[Entry], machine: str) -> list[str]:
    """The experiments that an emulator can show and that the record has not."""
    done = {entry.name for entry in entries if entry.machine == machine}
    return [one.name for one in (*designs(), *designs_7()) if planned(one, machine) and one.name not in done]
