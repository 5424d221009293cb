"""Experiments with their truth, kept in the layout and format of ../shared/cases."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.experiment import Experiment
from tests.lab.truth import Truth

EMULATOR = "QEMU 7.2 TCG"
GRADED = ("resumes", "resets", "refused")
WORST = ("resets", "hangs", "survives", "refused", "resumes")


def case_of(experiment: Experiment, truth: Truth, *, with_memory: bool) -> dict[str, Any]:
    """The case as it stands in cases.json."""
    machine: dict[str, Any] = {
        "smp": experiment.machine.smp,
        "memory_mib": experiment.machine.memory_mib,
        "cpu": experiment.machine.cpu,
        "emulator": EMULATOR,
    }
    if experiment.note:
        machine["note"] = experiment.note
    if other := experiment.resumer_machine:
        machine["resumer"] = {"smp": other.smp, "memory_mib": other.memory_mib, "cpu": other.cpu}
    case: dict[str, Any] = {
        "name": experiment.name,
        "image": f"images/{experiment.image_key()}.bin",
        "resumer": f"kernels/{experiment.resumer.kernel}.vmlinux",
        "resumee": f"kernels/{experiment.resumee.kernel}.vmlinux",
        "args": experiment.hibercheck_arguments(),
        "may_abstain": experiment.may_abstain,
        "machine": machine,
        "resumee_run": resumee_run(experiment),
        "truth": truth.to_dict(),
    }
    if with_memory:
        case["memory"] = f"memory/{experiment.name}.elf"
    if experiment.collect:
        case["facts"] = f"facts/{experiment.name}.json"
    return case


def resumee_run(experiment: Experiment) -> dict[str, Any]:
    """What was done before the image was written."""
    side = experiment.resumee
    out: dict[str, Any] = {"cmdline": side.cmdline, "offline": list(side.offline)}
    out |= {"online": list(side.online)} if side.online else {}
    out |= {"fill": [experiment.fill_mib, experiment.fill_byte]} if experiment.fill_mib else {}
    return out | ({"disk": experiment.machine.disk} if experiment.machine.disk != "nvme" else {})


def counts(case: dict[str, Any]) -> dict[str, int]:
    """Outcomes of all runs of a case."""
    runs: dict[str, int] = case.get("runs", {case["truth"]["outcome"]: 1})
    return runs


def sort(data: dict[str, list[dict[str, Any]]], case: dict[str, Any]) -> None:
    """Put a case where it belongs, in place of an older one of that name."""
    for rows in data.values():
        rows[:] = [row for row in rows if row["name"] != case["name"]]
    data["cases" if case["truth"]["outcome"] in GRADED else "oddities"].append(case)


@dataclass(slots=True)
class Record:
    """The cases measured so far, on disk.

    Args:
        work: The directory that holds cases.json.
    """

    work: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        """The file."""
        return self.work / "cases.json"

    def cases(self) -> list[dict[str, Any]]:
        """All cases with an outcome hibercheck can predict."""
        return self._load()["cases"]

    def everything(self) -> list[dict[str, Any]]:
        """All cases, those included in which chance decided."""
        return [case for rows in self._load().values() for case in rows]

    def has(self, name: str) -> bool:
        """Whether an experiment has been measured."""
        return any(case["name"] == name for case in self.everything())

    def add(self, experiment: Experiment, truth: Truth, *, with_memory: bool) -> None:
        """Write one down, in place of an older one of that name.

        Where a parked CPU ran away and yet the machine did not reset (``hangs``, ``survives``), chance decided: such
        cases are kept under ``oddities``.
        """
        with self._locked() as data:
            sort(data, case_of(experiment, truth, with_memory=with_memory))

    def runs(self, name: str) -> int:
        """How often an experiment has been run."""
        return sum(sum(counts(case).values()) for case in self.everything() if case["name"] == name)

    def count(self, experiment: Experiment, truth: Truth) -> dict[str, int]:
        """Add a further run of a measured experiment: its outcome counts, and is the truth unless it is better.

        A CPU that ran away once is at chance's mercy, however often the machine got by.
        """
        with self._locked() as data:
            case = next(case for rows in data.values() for case in rows if case["name"] == experiment.name)
            tally = Counter(counts(case))
            tally[truth.outcome] += 1
            case["runs"] = dict(tally)
            if WORST.index(truth.outcome) <= WORST.index(case["truth"]["outcome"]):
                case["truth"] = truth.to_dict()
                sort(data, case)
        return dict(tally)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        with self._lock, self.path.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # another lab may be at work in this directory
            data = self._load()
            yield data
            part = self.path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(data, indent=1) + "\n")
            part.rename(self.path)

    def _load(self) -> dict[str, list[dict[str, Any]]]:
        if not self.path.exists():
            return {"cases": [], "oddities": []}
        data: dict[str, list[dict[str, Any]]] = json.loads(self.path.read_text())
        return {"cases": data.get("cases", []), "oddities": data.get("oddities", [])}
