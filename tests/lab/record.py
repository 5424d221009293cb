"""Experiments with their truth, kept in the layout and format of ../shared/cases."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.experiment import Experiment
from tests.lab.truth import Truth

EMULATOR = "QEMU 7.2 TCG"
GRADED = ("resumes", "resets", "refused")


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
        "resumee_run": {"cmdline": experiment.resumee.cmdline, "offline": list(experiment.resumee.offline)},
        "truth": truth.to_dict(),
    }
    if with_memory:
        case["memory"] = f"memory/{experiment.name}.elf"
    return case


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
        case = case_of(experiment, truth, with_memory=with_memory)
        with self._lock, self.path.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # another lab may be at work in this directory
            data = self._load()
            for rows in data.values():
                rows[:] = [row for row in rows if row["name"] != experiment.name]
            data["cases" if truth.outcome in GRADED else "oddities"].append(case)
            part = self.path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(data, indent=1) + "\n")
            part.rename(self.path)

    def _load(self) -> dict[str, list[dict[str, Any]]]:
        if not self.path.exists():
            return {"cases": [], "oddities": []}
        data: dict[str, list[dict[str, Any]]] = json.loads(self.path.read_text())
        return {"cases": data.get("cases", []), "oddities": data.get("oddities", [])}
