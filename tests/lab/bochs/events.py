"""The file of events as typed records, and what it says of a run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.truth import WAITING

WHAT = {"fetches": "fetch", "walks": "walk"}
HARMLESS = (2, 18)
"""NMI and #MC come from outside: taking one is not running away."""


@dataclass(frozen=True, slots=True)
class Asleep:
    """A CPU as the resumer parked it.

    Args:
        cpu: Its number.
        state: ``mwait``, ``hlt``, ``active``, ``wait-for-sipi`` or ``shutdown``.
        rip: Its instruction pointer.
        cr3: Its page tables.
        line: Physical address of the line that it monitors, None without one.
        hint: What it gave MWAIT in EAX; it means nothing in another state.
    """

    cpu: int
    state: str
    rip: int
    cr3: int
    line: int | None
    hint: int


@dataclass(frozen=True, slots=True)
class Wake:
    """A parked CPU that left MWAIT or HLT.

    Args:
        cpu: Its number.
        by: ``store``, ``delay`` (a store so many copies before), ``nmi``, ``smi``, ``init``, ``mce``, ``interrupt`` or
            ``flush``.
        copy: The page that was being copied, from 1; what it would be after the copy.
        phase: ``parked``, ``copy`` or ``resumee``.
        address: Where the store went, 0 for other events.
        storer: The CPU that stored, -1 for a device or no store.
        again: Whether it parked again before anything else became of it.
    """

    cpu: int
    by: str
    copy: int
    phase: str
    address: int
    storer: int
    again: bool


@dataclass(frozen=True, slots=True)
class Differs:
    """The first instruction or page-table entry of a woken CPU that was not the resumer's; what follows is chance."""

    cpu: int
    what: str
    copy: int
    phase: str
    address: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The end of the machine: the CPU, its exceptions until then (vectors), and when."""

    cpu: int
    vectors: tuple[int, ...]
    copy: int
    phase: str


@dataclass(frozen=True, slots=True)
class Course:
    """All that a file of events says.

    Args:
        copies: Pages copied; 0 where the copy did not end.
        parked: The CPUs beside the boot CPU, as the resumer left them.
        wakes: Who left MWAIT or HLT, in order.
        differs: First foreign fetches and walks.
        inits: CPUs that the resumee re-initialised while they were parked.
        strayed: CPUs that took an exception of their own, or ran foreign code and did not park again.
        reset: The end, None where there was none.
        rest: The CPUs beside the boot CPU as the guest left them in the end, each with who put it there.
        end: Why the file ends: ``quit``, ``reset``, ``limit``, or empty where the process was killed.
    """

    copies: int
    parked: tuple[Asleep, ...]
    wakes: tuple[Wake, ...]
    differs: tuple[Differs, ...]
    inits: tuple[int, ...]
    strayed: tuple[int, ...]
    reset: Reset | None
    rest: tuple[tuple[Asleep, str], ...]
    end: str

    def resting(self, offline: Collection[int]) -> list[list[Any]]:
        """What a record keeps of CPUs that the resumee has offline in the end."""
        rows: list[list[Any]] = []
        for one, who in self.rest:
            if one.cpu in offline:
                rows.append([one.cpu, one.state, *([] if one.state == WAITING else [who])])
                rows[-1] += [one.hint] if one.state == "mwait" else []
        return rows

    def reduced(self) -> dict[str, Any]:
        """What a record keeps, in lists: see :data:`tests.lab.records.EVENTS`."""
        out: dict[str, Any] = {"copies": self.copies}
        out["parked"] = [
            [one.cpu, one.state, *([one.line >> 12] if one.line is not None else [])] for one in self.parked
        ]
        own = [one for one in self.wakes if one.by != "init"]
        out["wakes"] = [[one.cpu, one.by, one.copy, one.phase, one.again] for one in own[:12]]
        out["differs"] = [[one.cpu, one.what, one.copy, one.phase] for one in self.differs]
        out["init"] = list(self.inits)
        if self.reset:
            out["reset"] = [self.reset.cpu, list(self.reset.vectors[-4:]), self.reset.copy, self.reset.phase]
        return {key: value for key, value in out.items() if value}


def read(path: Path) -> Course:
    """Read a file of events; a last line that was cut off is left out."""
    return course(parsed(path.read_text().splitlines()) if path.exists() else [])


def parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of the file."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def course(events: Iterable[dict[str, Any]]) -> Course:
    """Make records of the objects."""
    rows = list(events)
    phases = [row for row in rows if row["event"] == "phase"]
    copied = [row["copies"] for row in phases if row["phase"] == "resumee"]
    return Course(
        copied[0] if copied else 0,
        tuple(asleep(rows)),
        tuple(wakes(rows)),
        tuple(differs(rows)),
        tuple(dict.fromkeys(row["cpu"] for row in rows if row["event"] == "init" and row["parked"])),
        tuple(strayed(rows)),
        end_of(rows),
        tuple(rest(rows)),
        next((row["why"] for row in rows if row["event"] == "end"), ""),
    )


def end_of(rows: list[dict[str, Any]]) -> Reset | None:
    """The reset, with the CPU whose triple fault it was, if it was one."""
    reset = next((row for row in rows if row["event"] == "reset"), None)
    if reset is None:
        return None
    faults = [row for row in rows if row["event"] == "exception"]
    cpu = next((row["cpu"] for row in reversed(faults) if row["third"]), reset["cpu"])
    vectors = tuple(row["vector"] for row in faults if row["cpu"] == cpu)
    return Reset(cpu, vectors, reset["copy"], reset["phase"])


def asleep(rows: list[dict[str, Any]]) -> Iterator[Asleep]:
    """The states that are written at the call of restore_image."""
    seen: set[int] = {0}
    for row in rows:
        if row["event"] == "state" and row["cpu"] not in seen:
            seen.add(row["cpu"])
            yield state_of(row)


def state_of(row: dict[str, Any]) -> Asleep:
    """A CPU as it is at one moment."""
    line = None if row["line"] < 0 or row["state"] != "mwait" else row["line"]
    return Asleep(row["cpu"], row["state"], row["rip"], row["cr3"], line, row.get("hint", 0))


def rest(rows: list[dict[str, Any]]) -> Iterator[tuple[Asleep, str]]:
    """The states that are written when the guest has done what it was told."""
    if not any(row["event"] == "end" and row["why"] == "quit" for row in rows):
        return
    last = {row["cpu"]: row for row in rows if row["event"] == "state" and row["cpu"]}
    started = {row["cpu"] for row in rows if row["event"] == "sipi"}
    for cpu, row in sorted(last.items()):
        yield state_of(row), "resumee" if cpu in started else "resumer"


def wakes(rows: list[dict[str, Any]]) -> Iterator[Wake]:
    """Each wake, with what its CPU did next; a store that only starts a delay is told by the end of the delay."""
    for number, row in enumerate(rows):
        if row["event"] != "wakes":
            continue
        later = next((one for one in rows[number + 1 :] if concerns(one, row["cpu"])), None)
        if row["by"] == "store" and later and later["event"] == "wakes" and later["by"] == "delay":
            continue
        again = bool(later) and later is not None and later["event"] == "parks"
        yield Wake(row["cpu"], row["by"], row["copy"], row["phase"], row["address"], row["storer"], again)


def concerns(row: dict[str, Any], cpu: int) -> bool:
    """Whether something became of a CPU: states are only looked at."""
    return row.get("cpu") == cpu and row["event"] not in ("state", "fetches", "walks", "order")


def differs(rows: list[dict[str, Any]]) -> Iterator[Differs]:
    """First foreign fetches and walks, in order."""
    for row in rows:
        if row["event"] in WHAT:
            yield Differs(
                row["cpu"], row["event"].removesuffix("es").removesuffix("s"), row["copy"], row["phase"], row["address"]
            )


def strayed(rows: list[dict[str, Any]]) -> list[int]:
    """CPUs that did not stay where they were parked."""
    out = []
    for cpu in sorted({row["cpu"] for row in rows if row["event"] == "state"} - {0}):
        own = [row for row in rows if concerns(row, cpu) or (row["event"] == "fetches" and row["cpu"] == cpu)]
        until = next((number for number, row in enumerate(own) if row["event"] in ("init", "sipi")), len(own))
        own = own[:until]
        faults = any(row["event"] == "exception" and row["vector"] not in HARMLESS for row in own)
        foreign = next((number for number, row in enumerate(own) if row["event"] == "fetches"), None)
        wild = foreign is not None and not any(row["event"] == "parks" for row in own[foreign:])
        if faults or wild:
            out.append(cpu)
    return out
