"""A sitting: experiments are predicted, carried out and recorded one by one; what is recorded is left alone."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import hibercheck
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment
from tests.lab.kernels import Kernels
from tests.lab.outcome import Outcome
from tests.lab.predict import ask, inputs
from tests.lab.records import Entry, Said, add, load

WRITING = threading.Lock()


class Bench(Protocol):
    """A machine on which experiments are carried out."""

    work: Path
    kernels: Kernels

    @property
    def emulator(self) -> str:
        """Its name in the record."""

    def image(self, experiment: Experiment) -> Path:
        """Make the image unless it is there."""

    def outcomes(self, group: list[Experiment]) -> Iterator[tuple[Experiment, Outcome]]:
        """Carry out experiments that share a resumer."""


def sit(bench: Bench, groups: Iterable[list[Experiment]], record: Path, jobs: int = 1) -> int:
    """Carry out what is not in the record yet, and write it there; the number of experiments that failed."""
    done = {entry.name for entry in load(record)}
    todo = [[one for one in group if one.name not in done] for group in groups]
    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(lambda group: one_group(bench, group, record) if group else 0, todo))


def one_group(bench: Bench, group: list[Experiment], record: Path) -> int:
    """Carry out experiments that share a resumer, each recorded at once; how many failed."""
    start, left = time.monotonic(), len(group)
    try:
        for entry in carry_out(bench, group):
            with WRITING:
                add(record, [entry])
            left -= 1
            print(line(entry), flush=True)
    except (LabError, OSError) as error:
        print(f"{group[0].name:34} not run: {error}", flush=True)
    print(f"{'':34} {time.monotonic() - start:.0f} s for {len(group)}", flush=True)
    return left


def carry_out(bench: Bench, group: list[Experiment]) -> Iterator[Entry]:
    """Predict, run, predict with the dump: by one version, which must not change meanwhile.

    Raises:
        LabError: An experiment could not be carried out, or hibercheck changed on the way.
    """
    before, code = commit(), tree()
    bench.image(group[0])
    first = {one.name: said(bench, one, dump=False) for one in group}
    for experiment, found in bench.outcomes(group):
        with_dump = said(bench, experiment, dump=True) if experiment.dump and found.outcome != "refused" else None
        if tree() != code:
            raise LabError("hibercheck changed while the machine ran: its predictions are not of one version")
        today = datetime.now(UTC).date().isoformat()
        yield Entry(
            experiment,
            bench.emulator,
            today,
            before,
            first[experiment.name],
            with_dump,
            found.outcome,
            found.when,
            found.errno,
            found.events,
        )


def said(bench: Bench, experiment: Experiment, *, dump: bool) -> Said:
    """What hibercheck says of an experiment whose image is there."""
    files = inputs(experiment, bench.emulator, bench.work, bench.kernels)
    return ask(experiment, bench.emulator, files, dump=dump)


def line(entry: Entry) -> str:
    """One line for whoever watches."""
    first, dump = entry.first, entry.dump
    words = [f"{first.verdict or first.note}"[:40], f"{dump.verdict or dump.note}"[:40] if dump else "-"]
    return f"{entry.name:34} {entry.outcome:9} {entry.when or '':18} {' / '.join(words):22} {entry.events}"


def commit() -> str:
    """The commit that changed hibercheck last, with a ``+`` if its files differ from it.

    Not that of the checkout, which may be of a branch that is rebased: nobody finds it again.
    """
    root = Path(hibercheck.__file__).parent
    last = git(root, "log", "-1", "--format=%h", "--abbrev=10", "--", ".")
    return last + ("+" if git(root, "status", "--porcelain", "--", ".") else "")


def tree() -> str:
    """What hibercheck's files are, whatever else of the repository changes."""
    root = Path(hibercheck.__file__).parent
    return git(root, "rev-parse", "HEAD:./") + git(root, "status", "--porcelain", "--", ".")


def git(place: Path, *words: str) -> str:
    """What git says there."""
    run = subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True, check=False)
    return run.stdout.strip()
