"""Run hibercheck on recorded experiments, as a user would with what is known of the resumer's run."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hibercheck.handoff.replay.fate import Doubt
from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.bochs.run import dump_path, image_path
from tests.lab.compare import BAD, default_command
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment
from tests.lab.kernels import Kernels
from tests.lab.records import Entry, Said

LONGEST = 900
"""Seconds that an answer may take on a busy machine."""
_DIRECTORIES = re.compile(r"(?<![^\s'\"(=])/(?:[^\s/:]+/)+")
"""The directories of an absolute path."""
OUTCOMES = {"hangs": "resets", "survives": "resets"}
"""Where a parked CPU ran away, chance decides what becomes of the machine: ``resets`` is right."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of one experiment.

    Args:
        image: The image.
        resumer: The kernel that loads it.
        resumee: The kernel in it.
        memory: The resumer's memory at ``restore_image``, None if it is not there.
        registers: Its registers, where they are not in the dump.
    """

    image: Path
    resumer: Path
    resumee: Path
    memory: Path | None
    registers: Path | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One prediction beside its truth."""

    entry: Entry
    dump: bool
    said: Said
    grade: str


def inputs(experiment: Experiment, machine: str, work: Path, kernels: Kernels) -> Inputs:
    """The files of an experiment in the work directory.

    Raises:
        LabError: One is missing that a prediction needs.
    """
    if machine == BOCHS:
        image, dump = image_path(work, experiment), dump_path(work, experiment)
        memory, registers = dump.with_suffix(".memory"), dump.with_suffix(".registers")
    else:
        image, memory = work / "images" / f"{experiment.image_key()}.bin", work / "memory" / f"{experiment.name}.elf"
        registers = None
    if not image.exists():
        raise LabError(f"its image is not here ({image.name}): replay it")
    return Inputs(
        image,
        kernels.vmlinux(experiment.resumer.kernel),
        kernels.vmlinux(experiment.resumee.kernel),
        memory if memory.exists() else None,
        registers,
    )


@lru_cache(maxsize=1)
def known_options() -> str:
    """The help of hibercheck, which tells what options it has."""
    run = subprocess.run([*default_command(), "check", "--help-all"], capture_output=True, text=True, check=False)
    return run.stdout


def arguments(experiment: Experiment, machine: str) -> list[str]:
    """What hibercheck is told of a run on that machine.

    MWAIT ends at once in QEMU; Bochs ends it by a store, so many copies later, and the TLB is as the experiment says.
    """
    line = experiment.hibercheck_arguments(mwait_spins=machine != BOCHS)
    if machine != BOCHS:
        spins = "--mwait-spins" if "--mwait-spins" in known_options() else "--spurious-mwait"
        return [spins if word == "--spurious-mwait" else word for word in line]
    if "--wake-latency" in known_options():
        line += ["--wake-latency", str(experiment.latency)]
    if "--tlb" in known_options():
        line += ["--tlb", experiment.tlb]
    return line


def ask(experiment: Experiment, machine: str, files: Inputs, *, dump: bool) -> Said:
    """Run hibercheck once."""
    command = [*default_command(), str(files.image), "--resumer", str(files.resumer), "--resumee", str(files.resumee)]
    command += ["--format", "json", *arguments(experiment, machine)]
    if dump and files.memory:
        command += ["--resumer-memory", str(files.memory)]
        command += ["--resumer-registers", str(files.registers)] if files.registers else []
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return Said(-1, note=f"no answer in {LONGEST} s")
    found = answer(run.returncode, run.stdout, run.stderr, experiment)
    return found if machine == BOCHS else replace(found, wakes=None)


def answer(status: int, out: str, errors: str, experiment: Experiment) -> Said:
    """What a run of hibercheck said of an experiment."""
    try:
        report = json.loads(out)
        conditions = tuple(one["id"] for one in report.get("conditions", ()))
        usual = report.get("usual_outcome")
        wakes = tuple(sorted(woken(report, experiment)))
        doubts = tuple(sorted({cpu["doubt"] for cpu in report.get("cpus", ()) if cpu.get("doubt")}))
        return Said(status, report["outcome"], report["verdict"], usual, conditions, wakes=wakes, doubts=doubts)
    except (ValueError, KeyError, TypeError):
        # a record is read elsewhere: of a file it keeps the name
        return Said(status, note=_DIRECTORIES.sub("", errors.strip())[-160:])


def woken(report: dict[str, Any], experiment: Experiment) -> Iterator[tuple[int, int, bool]]:
    """The CPUs that the copy wakes, as a report says it: the copy, and whether the CPU then finds its loop.

    A CPU of which nothing is replaced has no moments: the finding of its line tells that it is woken, and it passes.
    """
    timed = set()
    for cpu in report.get("cpus", ()):
        timing = cpu.get("timing")
        if not timing:
            continue
        lost = [timing["code"], timing["tables"] if experiment.tlb == "cold" else None]
        runs = timing["store"] + experiment.latency
        passes = all(copy is None or runs < copy for copy in lost)
        timed.update(cpu.get("cpus", [cpu["cpu"]]))
        yield from ((number, timing["store"], passes) for number in cpu.get("cpus", [cpu["cpu"]]))
    lines = (one["cpus"] for one in report.get("findings", ()) if one["rule"] == "HC101")
    yield from ((cpu, 0, True) for cpu in sorted({cpu for cpus in lines for cpu in cpus} - timed))


def grade(entry: Entry, said: Said, *, dump: bool) -> str:
    """Grade a prediction.

    Without a dump a condition is an abstention, and so is ``undetermined``, which names the fact that is missing.  A
    pass on a machine that reset is a MISS whatever else was said, unless a condition was named.  Where survival rests
    on the moment of a wake (``risk``), the usual outcome counts: hibercheck is told the latency and the TLB.  Without a
    dump it does not know where the lines are; `risk` is an abstention then where a CPU was woken in the copy.  No input
    tells whether a resumee has reused frames of which it knows nothing, or came to write free memory that a CPU
    monitors: what is usual is said of one that did not.
    """
    want = OUTCOMES.get(entry.outcome, entry.outcome)
    got = said.usual if said.verdict == "risk" and said.usual else said.outcome
    if got == want:
        return "right"
    if got is None:
        return "WRONG"
    if (not dump and said.conditions) or (said.verdict == "undetermined" and (not dump or entry.experiment.unread)):
        return "abstained"
    reused = {Doubt.STORE, Doubt.HANDED_OUT} & {*said.doubts}
    late = bool(reused) and entry.when == "after the handoff" and said.usual == "resumes"
    if said.verdict == "risk" and (said.doubts == (Doubt.REUSED,) or late):
        return "abstained"
    if said.verdict in ("risk", "undetermined") and not said.usual:
        woken = any(phase == "copy" for _, _, _, phase, _ in entry.events.get("wakes", ()))
        return "abstained" if not dump and (entry.experiment.may_abstain or woken) else "WRONG"
    return {("resets", "resumes"): "MISS", ("resumes", "resets"): "FALSE ALARM"}.get((want, got), "WRONG")


def woken_right(entry: Entry, said: Said) -> bool | None:
    """Whether CPUs leave MWAIT in the copy as predicted; None where none does and none was to, or nothing tells.

    Held to the events one by one: which CPU a store wakes, in which copy it then runs, and whether it passes its loop
    and parks again.  What was to come after the last copy, or after a reset in the copy, need not have been seen.
    """
    events, late = entry.events, entry.experiment.latency
    ran: dict[int, tuple[int, bool]] = {}
    for cpu, by, copy, phase, again in events.get("wakes", ()):
        if phase == "copy" and by == ("delay" if late else "store"):  # before a delay a store makes nothing run
            ran.setdefault(cpu, (copy, again))
    if entry.machine != BOCHS or said.wakes is None or not (said.wakes or ran):
        return None
    whole = events.get("copies", 0)  # 0 where the copy did not end
    last = whole or events.get("reset", (0, (), 1))[2] - 1
    foretold = {cpu: (copy and copy + late, *passes) for cpu, copy, *passes in said.wakes}
    due = {cpu for cpu, (copy, *_) in foretold.items() if copy <= last and (copy or not late)}
    return due <= ran.keys() <= foretold.keys() and all(
        foretold[cpu][0] in (0, found[0]) and foretold[cpu][1:] in ((), found[1:]) for cpu, found in ran.items()
    )


def predict(
    entries: Iterable[Entry], work: Path, kernels: Kernels, jobs: int = 2, *, dumps: bool = True
) -> Iterator[Verdict]:
    """Predict recorded experiments anew, those whose files are here."""

    def one(entry: Entry) -> list[Verdict]:
        try:
            files = inputs(entry.experiment, entry.machine, work, kernels)
        except LabError:
            return []
        out = []
        for dump in (False, True) if dumps and files.memory and entry.experiment.dump else (False,):
            said = ask(entry.experiment, entry.machine, files, dump=dump)
            out.append(Verdict(entry, dump, said, grade(entry, said, dump=dump)))
        return out

    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(one, entries):
            yield from found


def text(verdict: Verdict) -> str:
    """One line of the list."""
    said, entry = verdict.said, verdict.entry
    name = entry.name + (" +memory" if verdict.dump else "")
    copies = {True: "copies right", False: "COPIES WRONG", None: ""}[woken_right(entry, said) if verdict.dump else None]
    usual = f"usual {said.usual}" if said.usual else ""
    more = " ".join(part for part in (usual, ",".join(said.conditions), copies, said.note or "") if part)
    return f"{name:34} {entry.outcome:9} {said.outcome!s:13} {said.verdict!s:10} {verdict.grade:11} {more}".rstrip()


def summary(verdicts: Iterable[Verdict]) -> str:
    """The counts in one line."""
    count = Counter(one.grade for one in verdicts)
    return ", ".join(f"{count[name]} {name}" for name in ("right", "abstained", *BAD))
