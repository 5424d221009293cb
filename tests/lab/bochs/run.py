"""Carry experiments out in Bochs; those that differ only in what happens after parking share one resumer."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.bochs import events, guest
from tests.lab.bochs.build import VERSION, Bochs
from tests.lab.bochs.machine import Run
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.guest import CONSOLE, copy_sparse, cpu_list, trim
from tests.lab.kernels import Kernels
from tests.lab.once import held
from tests.lab.outcome import Outcome
from tests.lab.truth import errno_of

SIGNATURE = slice(4086, 4095)
MIB = 1 << 20


@dataclass(slots=True)
class Found:
    """What became of the machine in one experiment.

    Args:
        outcome: ``resumes``, ``resets``, ``refused``, ``hangs`` or ``survives``, as the lab uses the words.
        when: ``in the handoff`` or ``after the handoff``, for a machine that did not come through.
        errno: Of a refused image.
        course: The events.
        said: Lines of the guest for the reader.
        dump: Memory and registers, without their suffixes, if they were kept.
        offline: CPUs that the guest has offline in the end.
    """

    outcome: str
    when: str | None
    errno: int | None
    course: events.Course
    said: list[str] = field(default_factory=list)
    dump: Path | None = None
    offline: frozenset[int] = frozenset()


@dataclass(slots=True)
class BochsLab:
    """The place where experiments run.

    Args:
        work: The lab's work directory; images, dumps and runs lie below ``bochs`` in it.
        kernels: Where the kernels are.
        bochs: The program.
    """

    work: Path
    kernels: Kernels
    bochs: Bochs
    emulator: str = VERSION

    @property
    def place(self) -> Path:
        """Where everything is kept."""
        return self.work / "bochs"

    def image(self, experiment: Experiment) -> Path:
        """The image this experiment resumes, made if it is not there yet.

        Raises:
            LabError: The resumee did not hibernate.
        """
        path = image_path(self.work, experiment)
        with held(path):
            if not path.exists():
                self._hibernate(experiment, path)
        return path

    def _hibernate(self, experiment: Experiment, path: Path) -> None:
        """Make an image."""
        place = self._fresh(f"e-{path.stem}")
        disk = place / "disk"
        with disk.open("wb") as file:
            file.truncate((2 * experiment.machine.memory_mib + 128) * MIB)
        self._boot(experiment, "resumee", place, disk, keep=True).go()
        with disk.open("rb") as file:
            if file.read(4096)[SIGNATURE] != b"S1SUSPEND":
                tail = (place / "serial").read_text(errors="replace")[-300:].replace("\n", " | ")
                raise LabError(f"it did not hibernate: {tail}")
        trim(disk, path)
        disk.unlink()

    def run(self, group: list[Experiment]) -> Iterator[tuple[Experiment, Found]]:
        """Carry out experiments that share one resumer (:func:`groups`).

        Raises:
            LabError: The resumer did not come as far as ``restore_image``, and did not refuse the image either.
        """
        first = group[0]
        image = self.image(first)
        with held(self.place / "run" / f"r-{key(handoff_facts(first))}"):
            yield from self._resume(group, image)

    def _resume(self, group: list[Experiment], image: Path) -> Iterator[tuple[Experiment, Found]]:
        """Boot the resumer in a directory that is ours alone."""
        first = group[0]
        place = self._fresh(f"r-{key(handoff_facts(first))}")
        disk = place / "disk"
        copy_sparse(image, disk)
        with disk.open("r+b") as file:
            file.truncate((2 * first.machine.memory_mib + 128) * MIB)
        run = self._boot(first, "resumer", place, disk)
        run.variants = [variant(number, one) for number, one in enumerate(group)]
        if any(one.dump for one in group):
            run.dump = dump_path(self.work, first)
            run.dump.parent.mkdir(parents=True, exist_ok=True)
        run.go()
        disk.unlink()
        before = (place / "serial").read_text(errors="replace")
        for number, one in enumerate(group):
            found = self._found(place, number, before, run.dump)
            serial = place / f"{number}.serial"
            found.offline = offline_of(serial.read_text(errors="replace") if serial.exists() else "", one.machine.cpus)
            yield one, found

    def outcomes(self, group: list[Experiment]) -> Iterator[tuple[Experiment, Outcome]]:
        """The same, as far as a record keeps it.

        Raises:
            LabError: As `run`.
        """
        for experiment, found in self.run(group):
            rest = found.course.resting(found.offline)
            events = found.course.reduced() | ({"rest": rest} if rest else {})
            yield experiment, Outcome(found.outcome, found.when, found.errno, events)

    def _found(self, place: Path, number: int, before: str, dump: Path | None) -> Found:
        said = re.findall(r"^LAB (?:kernel|idle|cpus|code) .*", before, re.MULTILINE)
        if "LAB resume returned" in before:
            return Found("refused", None, errno_of(before), events.course([]), said)
        serial = place / f"{number}.serial"
        if not serial.exists():
            tail = before[-300:].replace("\n", " | ")
            raise LabError(f"the resumer did not reach restore_image: {tail}")
        text = serial.read_text(errors="replace")
        course = events.read(place / f"{number}.events")
        when = "after the handoff" if "LAB back" in text else "in the handoff"
        if course.reset is not None:
            return Found("resets", when, None, course, said, dump)
        if "LAB alive" not in text:
            return Found("hangs", when, None, course, said, dump)
        outcome = "survives" if course.strayed else "resumes"
        said += re.findall(r"^LAB alive .*(?:\n(?!LAB).*)*", text, re.MULTILINE)
        return Found(outcome, None, None, course, said, dump)

    def _boot(self, experiment: Experiment, role: str, place: Path, disk: Path, *, keep: bool = False) -> Run:
        side: Side = getattr(experiment, role)
        unfit(experiment)
        guest.initramfs(place / "initrd", experiment, role)
        kernel = self.kernels.boot_file(side.kernel)
        line = f"{CONSOLE} {side.cmdline}".strip()
        return Run(
            self.bochs, experiment.machine, place, kernel, place / "initrd", line, disk, keep, side.load, side.initrd_at
        )

    def _fresh(self, name: str) -> Path:
        place = self.place / "run" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place


def offline_of(serial: str, cpus: int) -> frozenset[int]:
    """The CPUs that a guest says are not online when it has come back; none where it says nothing."""
    found = re.search(r"^LAB alive online (\S+)", serial, re.MULTILINE)
    return frozenset(range(1, cpus)) - cpu_list(found[1]) if found else frozenset()


def image_path(work: Path, experiment: Experiment) -> Path:
    """Where the image is or will be."""
    return work / "bochs" / "images" / f"{key(image_facts(experiment))}.bin"


def dump_path(work: Path, experiment: Experiment) -> Path:
    """Where memory and registers are or will be, without suffix; experiments that share a resumer share them."""
    return work / "bochs" / "dumps" / key(handoff_facts(experiment))


def unfit(experiment: Experiment) -> None:
    """Refuse what Bochs cannot do.

    Raises:
        LabError: The experiment wants it.
    """
    machine = experiment.machine
    wants = {
        "other hardware under the resumer": experiment.resumer_machine is not None,
        "a swap file": experiment.swap_file,
        "collect": experiment.collect,
        "a virtio disk": machine.disk != "nvme",
        "idle states by an SSDT": machine.acpi_table is not None,
        "UEFI": machine.firmware == "ovmf",
        "memory that is plugged in": machine.hotplug_mib > 0,
        "kexec": bool(experiment.resumee.kexec_from or experiment.resumer.kexec_from),
        "modules": bool(experiment.resumer.modules),
    }
    if asked := [what for what, wanted in wants.items() if wanted]:
        raise LabError(f"not on Bochs: {', '.join(asked)}")


def variant(number: int, experiment: Experiment) -> str:
    """A line of the file of variants: the event goes to the CPUs that the resumee leaves offline, else to all.

    A machine check goes to those that it left offline alone.  A CPU that the resumee runs takes it in the resumee's
    handler, which finds no bank that explains it, and panics: that says nothing of parked CPUs.
    """
    left = [cpu for cpu in experiment.resumee.offline if cpu not in experiment.resumee.online]
    targets = left or ([] if experiment.event == "mce" else list(range(1, experiment.machine.cpus)))
    event = f"{experiment.event}:{','.join(map(str, targets))}" if experiment.event != "none" and targets else "none"
    return f"{number} {experiment.latency} {experiment.tlb} {event}"


def image_facts(experiment: Experiment) -> dict[str, Any]:
    """What decides the image."""
    return {
        "resumee": experiment.resumee.facts(),
        "machine": experiment.machine.facts(),
        "orders": guest.orders(experiment, "resumee"),
        "init": guest.INIT,
    }


def handoff_facts(experiment: Experiment) -> dict[str, Any]:
    """What decides the machine at ``restore_image``."""
    return image_facts(experiment) | {"resumer": experiment.resumer.facts()}


def key(facts: dict[str, Any]) -> str:
    """A short name for facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def groups(experiments: Iterable[Experiment], most: int = 8) -> list[list[Experiment]]:
    """Put experiments together that share a resumer."""
    found: dict[str, list[Experiment]] = {}
    for one in experiments:
        found.setdefault(key(handoff_facts(one)), []).append(one)
    return [group[at : at + most] for group in found.values() for at in range(0, len(group), most)]
