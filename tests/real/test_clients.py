"""What others read out of an exported core: drgn, crash and volatility3, each with what it needs of the kernel.

The image and its kernel are committed, and so are a few units of the kernel's DWARF with the BTF made of them
(`tests.lab.kernels.debug_units`), which become one vmlinux here.
"""

from __future__ import annotations

import csv
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hibercheck.swsusp.export import export
from hibercheck.swsusp.image import open_image
from tests.lab.kernels import debug_units
from tests.support import isf

IMAGE = "images/b65f345bef.bin.xz"
KERNEL = "small-current"
RELEASE = "6.1.192-lab-small-current"
LAST = "PM: hibernation: Need to copy 4518 pages"
TASKS = {1: "init", 2: "kthreadd", 9: "ksoftirqd/0", 18: "kworker/0:1", 24: "kswapd0"}


@pytest.fixture(scope="module")
def core(fixtures_dir, tmp_path_factory):
    """The image as a core."""
    path = tmp_path_factory.mktemp("core") / "core"
    with open_image(str(fixtures_dir / IMAGE)) as image:
        export(image, str(path))
    return path


@pytest.fixture(scope="module")
def vmlinux(fixtures_dir, tmp_path_factory):
    """The image's kernel with types."""
    if shutil.which("objcopy") is None:
        pytest.skip("needs objcopy")
    room = tmp_path_factory.mktemp("kernel")
    for name in ("vmlinux", "debug"):
        packed = fixtures_dir / "kernels" / f"{KERNEL}.{name}.xz"
        (room / name).write_bytes(lzma.decompress(packed.read_bytes()))
    debug_units.write(debug_units.read(room / "debug"), room / "vmlinux-debug", base=room / "vmlinux")
    return room / "vmlinux-debug"


def test_drgn_lists_the_tasks_and_the_log(core, vmlinux):
    drgn = pytest.importorskip("drgn")
    linux = pytest.importorskip("drgn.helpers.linux")
    program = drgn.Program()
    program.set_core_dump(str(core))
    program.load_debug_info([str(vmlinux)])
    assert program["UTS_RELEASE"].string_().decode() == RELEASE
    assert program["init_uts_ns"].name.release.string_().decode() == RELEASE
    tasks = {task.pid.value_(): task.comm.string_().decode() for task in linux.for_each_task(program)}
    assert len(tasks) == 32
    assert TASKS.items() <= tasks.items()
    assert LAST in linux.get_dmesg(program).decode().splitlines()[-1]


def test_crash_reaches_its_prompt_and_shows_the_log(core, vmlinux, tmp_path):
    if shutil.which("crash") is None:
        pytest.skip("needs crash")
    commands = tmp_path / "commands"
    commands.write_text("log\nps\nbt 1\nquit\n")
    # The kernel has SLOB, whose caches crash does not know; of tasks it lists the running ones of such a kernel only.
    done = subprocess.run(
        ["crash", "--no_kmem_cache", "-s", "-i", commands, vmlinux, core],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    lines = done.stdout.splitlines()
    assert any(f"Linux version {RELEASE} " in line for line in lines), said
    assert any(line.endswith(LAST) for line in lines), said
    assert any(line.split()[-1:] == ["[swapper/0]"] for line in lines), said
    assert any(line.split()[:2] == [">", "1"] and line.split()[-1] == "init" for line in lines), said


def test_volatility_lists_the_tasks(core, vmlinux, tmp_path):
    volatility = shutil.which("vol", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if volatility is None:
        pytest.skip("needs volatility3: pip install '.[clients]'")
    symbols, cache = tmp_path / "symbols", tmp_path / "cache"
    (symbols / "linux").mkdir(parents=True)
    cache.mkdir()
    (symbols / "linux" / "kernel.json").write_text(json.dumps(isf.make(str(vmlinux))))
    done = subprocess.run(
        [
            *(volatility, "--quiet", "--offline", "--cache-path", cache, "-s", symbols),
            *("-f", core, "-r", "csv", "linux.pslist"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    rows = list(csv.DictReader(done.stdout.splitlines()))
    tasks = {int(row["PID"]): row["COMM"] for row in rows}
    assert len(tasks) == 32, done.stdout + done.stderr
    assert TASKS.items() <= tasks.items()
