"""How fast symbols come out of kernel files, beside nm, pyelftools and vmlinux-to-elf on the same files.

Figures: ``HIBERCHECK_KERNELS=DIR pytest -s -m slow tests/bench/test_kernel.py``, where DIR was filled by
``tests/support/debian_kernels.py DIR --debug``.  Each measurement is a process of its own, in turns.
Times are asserted only on a machine that is otherwise idle; memory always.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bench.programs import NAMES

pytestmark = pytest.mark.slow

KERNELS = Path(os.environ.get("HIBERCHECK_KERNELS", Path.home() / ".cache" / "hibercheck-kernels"))
FULL = sorted(KERNELS.glob("*/usr/lib/debug/boot/vmlinux-*"), key=lambda path: path.stat().st_size)
COMPRESSED = sorted(path for path in KERNELS.glob("*/**/vmlinuz*") if path.is_file() and not path.is_symlink())
RUNS = 5
# Not ru_maxrss, which begins with what the parent had before exec.
PEAK = "next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line)"
OURS = f"""
import sys, time
from hibercheck.kernel.kernel import open_kernel
start = time.perf_counter()
with open_kernel(sys.argv[1]) as kernel:
    found = len(kernel.symbols({NAMES!r}.split()))
    address = kernel.require("native_play_dead").address
    kernel.nearest_many(range(address, address + 20))
print(time.perf_counter() - start, {PEAK})
"""
THEIRS = f"""
import sys, time
from elftools.elf.elffile import ELFFile
start = time.perf_counter()
table = ELFFile(open(sys.argv[1], "rb")).get_section_by_name(".symtab")
found = sum(bool(table.get_symbol_by_name(name)) for name in {NAMES!r}.split())
print(time.perf_counter() - start, {PEAK})
"""


class Run(NamedTuple):
    """One process: its time, and what it says of itself: the time of its work, its peak memory."""

    wall: float
    work: float | None
    mebibytes: float | None


def run(*command: object) -> Run:
    """Run a command and measure it."""
    start = time.perf_counter()
    out = subprocess.run([str(word) for word in command], capture_output=True, check=True, text=True).stdout
    wall = time.perf_counter() - start
    words = out.split()
    return Run(wall, float(words[0]), int(words[1]) / 1024) if len(words) == 2 else Run(wall, None, None)


def median(commands: dict[str, tuple[object, ...]], runs: int = RUNS) -> dict[str, Run]:
    """The median of each command's runs, the commands taking turns."""
    taken: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            taken[name].append(run(*command))
    return {name: sorted(every, key=lambda one: one.wall)[len(every) // 2] for name, every in taken.items()}


def show(path: Path, figures: dict[str, Run]) -> None:
    print(f"\n{path.name} ({path.stat().st_size >> 20} MiB)")
    for name, one in figures.items():
        own = f"{one.work:8.3f} s of work, {one.mebibytes:.0f} MiB" if one.work is not None else ""
        print(f"  {name:<16}{one.wall:8.3f} s {own}")


def busy() -> bool:
    return os.getloadavg()[0] > 0.4 * len(os.sched_getaffinity(0))


@pytest.mark.skipif(not FULL, reason="HIBERCHECK_KERNELS names no directory with Debian's kernels")
@pytest.mark.parametrize("path", FULL, ids=lambda path: path.name)
def test_thirty_names_of_a_full_vmlinux(path: Path) -> None:
    commands: dict[str, tuple[object, ...]] = {"hibercheck": (sys.executable, "-c", OURS, path)}
    if shutil.which("nm"):
        commands["nm"] = ("nm", path)
    figures = median(commands)
    if not busy():
        figures |= median({"pyelftools": (sys.executable, "-c", THEIRS, path)}, 1)
    show(path, figures)
    ours = figures["hibercheck"]
    assert ours.mebibytes is not None
    assert ours.mebibytes < 30


@pytest.mark.skipif(not COMPRESSED, reason="HIBERCHECK_KERNELS names no directory with Debian's kernels")
@pytest.mark.parametrize("path", COMPRESSED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_vmlinuz_opened_and_its_symbols_recovered(path: Path, tmp_path: Path) -> None:
    figures = median({"hibercheck": (sys.executable, "-c", OURS, path)})
    if shutil.which("vmlinux-to-elf") and not busy():
        figures |= median({"vmlinux-to-elf": ("vmlinux-to-elf", path, tmp_path / "elf")}, 1)
    show(path, figures)
    ours = figures["hibercheck"]
    assert ours.mebibytes is not None
    assert ours.mebibytes < 256
