"""The record: every experiment that hibercheck is held to, one line of JSON each, in ``records/``.

A line is written when the experiment has been carried out: what was done (enough to make it again), what hibercheck
said first, before anything was changed for it, and what the machine did.  Nothing of the line is changed afterwards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.experiment import Experiment, Side
from tests.lab.machine import Machine

PLACE = Path(__file__).resolve().parent / "records"
LATER = "later.json"
EVENTS = {
    "copies": "pages copied",
    "parked": "CPU, state, frame of its line",
    "wakes": "CPU, by what, page that was being copied, phase, whether it parked again",
    "differs": "CPU, fetch or walk, page, phase",
    "init": "CPUs that the resumee re-initialised while parked",
    "reset": "CPU, its last exceptions, page, phase",
    "rest": "CPU offline in the resumee in the end, state in which it spends its time, who put it there",
}
"""What the reduced events of a record hold, in this order."""


@dataclass(frozen=True, slots=True)
class Said:
    """What hibercheck said of one experiment.

    Args:
        exit: Its exit status.
        outcome: Of the report, None where there was no report.
        verdict: Of the report.
        usual: Usual outcome, where survival rests on timing.
        conditions: Identifiers of the conditions.
        note: The error, where there was no report.
        wakes: CPUs that a store of the copy wakes, each with the number of that copy (0 where it is not said) and
            whether it passes its loop and parks again; older records lack the latter.  None where this was not kept.
        doubts: Why it is chance what becomes of some CPU, by name.
    """

    exit: int
    outcome: str | None = None
    verdict: str | None = None
    usual: str | None = None
    conditions: tuple[str, ...] = ()
    note: str | None = None
    wakes: tuple[tuple[int, ...], ...] | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Args:
        experiment: What was done.
        machine: The emulator and its version.
        date: The day.
        commit: Of hibercheck, when it said the following.
        first: Without a dump.
        dump: With the dump of that very run, None if none was taken.
        outcome: What the machine did.
        when: ``in the handoff`` or ``after the handoff``, if it did not come through.
        errno: Of a refused image.
        events: See :data:`EVENTS`; on QEMU the last alone.
    """

    experiment: Experiment
    machine: str
    date: str
    commit: str
    first: Said
    dump: Said | None
    outcome: str
    when: str | None = None
    errno: int | None = None
    events: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.experiment.name

    @property
    def key(self) -> str:
        """Name and machine: the same may be done on both."""
        return f"{self.name}, {self.machine}"


@dataclass(frozen=True, slots=True)
class Later:
    """What a later hibercheck says of recorded experiments whose files were kept.

    Args:
        commit: Of that hibercheck.
        said: By key of the entry: without a dump, and with it.
    """

    commit: str
    said: dict[str, tuple[Said, Said | None]]

    def of(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those entries that it has, with what it says in place of what was said first."""
        return [
            replace(entry, first=self.said[entry.key][0], dump=self.said[entry.key][1])
            for entry in entries
            if entry.key in self.said
        ]


def in_copy(events: dict[str, Any]) -> dict[str, Any]:
    """Reduced events without what came after the copy: page numbers mean nothing there, and older records have no rest.

    The hooks count on in the resumee, whose own copying of pages differs from run to run by a few.
    """

    def rows(found: list[list[Any]]) -> list[list[Any]]:
        return [[word if at != 2 or "resumee" not in row else None for at, word in enumerate(row)] for row in found]

    listed = {name: rows(events[name]) for name in ("wakes", "differs") if name in events}
    found = events | listed | ({"reset": rows([events["reset"]])[0]} if "reset" in events else {})
    return {name: item for name, item in found.items() if name != "rest"}


T = TypeVar("T", Side, Machine, Said)


def changed(value: Any, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """A dataclass as a dictionary, without what has its default."""
    blank = {one.name: one.default for one in fields(value)}
    return {key: item for key, item in asdict(value).items() if key in also or item != blank[key]}


def described(experiment: Experiment) -> dict[str, Any]:
    """An experiment as a dictionary, without what has its default."""
    plain = changed(experiment, also=("name",))
    for role in ("resumee", "resumer"):
        plain[role] = changed(getattr(experiment, role), also=("kernel",))
    for role in ("machine", "resumer_machine"):
        machine = getattr(experiment, role)
        plain.pop(role, None)
        if machine is not None and (found := changed(machine)):
            plain[role] = found
        elif role == "resumer_machine" and machine is not None:
            plain[role] = {}
    return plain


def experiment_of(plain: dict[str, Any]) -> Experiment:
    """Undo :func:`described`."""
    row = dict(plain)
    for role in ("resumee", "resumer"):
        row[role] = made(Side, row[role])
    row["machine"] = made(Machine, row.get("machine", {}))
    if "resumer_machine" in row:
        row["resumer_machine"] = made(Machine, row["resumer_machine"])
    if "arguments" in row:
        row["arguments"] = tuple(row["arguments"])
    return Experiment(**row)


def made(kind: type[T], row: dict[str, Any]) -> T:
    """A dataclass of a dictionary that came from JSON, whose lists are tuples."""
    return kind(**{key: tupled(item) for key, item in row.items()})


def tupled(value: Any) -> Any:
    """Lists as tuples, those in them too."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def line_of(entry: Entry) -> str:
    """The line of an entry."""
    row: dict[str, Any] = {"experiment": described(entry.experiment)}
    row |= {"machine": entry.machine, "date": entry.date, "commit": entry.commit}
    row["first"] = changed(entry.first, also=("exit",))
    row |= {"dump": changed(entry.dump, also=("exit",))} if entry.dump else {}
    row["outcome"] = entry.outcome
    more = {"when": entry.when, "errno": entry.errno, "events": entry.events}
    row |= {key: item for key, item in more.items() if item}
    return json.dumps(row, separators=(",", ":"))


def entry_of(line: str) -> Entry:
    """The entry of a line.

    Raises:
        ValueError: It is none.
    """
    row = json.loads(line)
    row["experiment"] = experiment_of(row["experiment"])
    row["first"] = made(Said, row["first"])
    row["dump"] = made(Said, row["dump"]) if "dump" in row else None
    return Entry(**row)


def load(path: Path) -> list[Entry]:
    """All entries of a file, or of all files of a directory."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.exists() else []
    return [entry_of(line) for file in files for line in file.read_text().splitlines() if line]


def add(path: Path, entries: Iterable[Entry]) -> None:
    """Write lines at the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for entry in entries:
            file.write(line_of(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def named(entries: Iterable[Entry], parts: Iterable[str]) -> Iterator[Entry]:
    """Those whose name contains one of some parts, all without any."""
    wanted = list(parts)
    return (entry for entry in entries if not wanted or any(part in entry.name for part in wanted))


def save_later(later: Later, path: Path = PLACE / LATER) -> None:
    """Write down what a later hibercheck says."""
    rows = {
        name: [changed(one, also=("exit",)) for one in pair if one is not None]
        for name, pair in sorted(later.said.items())
    }
    lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in rows.items())
    path.write_text(f'{{"commit":{json.dumps(later.commit)},"said":{{\n{lines}\n}}}}\n')


def load_later(path: Path = PLACE / LATER) -> Later | None:
    """Read it again; None where there is none."""
    if not path.exists():
        return None
    row = json.loads(path.read_text())
    said = {name: [made(Said, one) for one in pair] for name, pair in row["said"].items()}
    return Later(row["commit"], {name: (pair[0], pair[1] if len(pair) > 1 else None) for name, pair in said.items()})
