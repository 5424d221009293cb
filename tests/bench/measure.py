"""Measure processes side by side: every contender in turns, each run a child of this one, medians reported."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A process begins with the peak memory of the one that starts it, so the bench is not what starts it.
_WRAP = """
import os, sys, time
begun = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - begun
print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Used:
    """What a contender took: medians of its runs.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of processor time; what to compare on a machine that is not idle.
        mebibytes: Peak memory.
    """

    wall: float
    cpu: float
    mebibytes: float


def command(*words: object) -> tuple[str, ...]:
    """Return a command of hibercheck's, run by this interpreter."""
    return (sys.executable, "-m", "hibercheck", *map(str, words))


def python(program: str, *words: object) -> tuple[str, ...]:
    """Return a command that runs a program in this interpreter."""
    return (sys.executable, "-c", program, *map(str, words))


def measured(words: Sequence[str], statuses: Sequence[int] = (0, 1)) -> Used:
    """Run a command once.

    Raises:
        RuntimeError: It ended with a status that is not one of ``statuses``: what it took says nothing.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", _WRAP, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd="/",  # not in the checkout, whose pyproject.toml would be searched for a configuration
    )
    wall, cpu, peak, status = done.stdout.split()
    if int(status) not in statuses:
        raise RuntimeError(f"{' '.join(words)[:200]}: exit status {status}")
    return Used(float(wall), float(cpu), float(peak))


def in_turns(contenders: Mapping[str, Sequence[Sequence[str]]], runs: int) -> dict[str, Used]:
    """Run every contender's commands ``runs`` times, by turns; times of several commands add up, memory does not."""
    taken: dict[str, list[Used]] = {name: [] for name in contenders}
    for turn in range(runs + 1):
        for name, commands in contenders.items():
            every = [measured(one) for one in commands]
            total = Used(
                sum(one.wall for one in every), sum(one.cpu for one in every), max(one.mebibytes for one in every)
            )
            if turn:  # the first one brings files into memory
                taken[name].append(total)
    return {
        name: Used(*(statistics.median(getattr(one, what) for one in each) for what in ("wall", "cpu", "mebibytes")))
        for name, each in taken.items()
    }


def table(title: str, note: str, rows: Mapping[str, Used], against: str) -> str:
    """Render figures as a Markdown table, each with its ratio to one of them."""
    lines = [f"### {title}", "", note, "", "| | wall, s | processor, s | peak, MiB | ratio |", "|---|--:|--:|--:|--:|"]
    for name, one in rows.items():
        ratio = f"{one.cpu / rows[against].cpu:.2f}"
        lines.append(f"| {name} | {one.wall:.3f} | {one.cpu:.3f} | {one.mebibytes:.0f} | {ratio} |")
    return "\n".join([*lines, ""])
