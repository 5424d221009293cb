"""Every command, interrupted at any time: how it ends, what it says, and what it leaves behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.seeds import cases, unpack

COMMAND = [sys.executable, "-m", "hibercheck"]
STARTED = "hibercheck interrupts: started"
_START = (
    "import sys, hibercheck.cli.main as m\n"
    f"sys.stderr.write({STARTED!r} + '\\n'); sys.stderr.flush()\n"
    "sys.argv[0] = 'hibercheck'; m.main()"
)
"""Before this the interpreter itself starts, and ends in its own way."""


def commands(place: Path) -> dict[str, list[str]]:
    """A command line of each command that takes a while, writing into a directory."""
    case = next(case for case in cases() if case["name"] == "fatal")
    image, resumer, resumee = (str(unpack(case[key])) for key in ("image", "resumer", "resumee"))
    handoff = [image, "--resumer", resumer, "--resumee", resumee, *case["args"]]
    out = str(place / "out")
    return {
        "check": [*handoff, "--format", f"json={place / 'json'}", "--format", f"sarif={place / 'sarif'}"],
        "baseline": [*handoff, "--write-baseline", out, "--timeline", "-v"],
        "image": ["image", image, "--verify", "--map", "--format", "json", "-o", out],
        "export": ["export", image, out],
        "kernel": ["kernel", resumer, "--format", "json", "--all-symbols", "-o", out],
        "designs": ["designs", *handoff, "-o", out],
        "matrix": ["matrix", resumer, resumee, "--jobs", "2", "-o", out],
        "diff": ["diff", resumer, resumee, "-o", out],
        "collect": ["collect", "-o", out],
    }


def interrupted(arguments: list[str], after: float, how: signal.Signals, place: Path) -> tuple[int, str, list[str]]:
    """Run a command and send it a signal; return its status, what it said, and the files it left."""
    command = [sys.executable, "-c", _START, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert STARTED in first, first
        time.sleep(after)
        # As a terminal does: to all of the process group, so also to workers.
        os.killpg(process.pid, how)
        said = process.stderr.read()
        status = process.wait(120)
    return status, said, sorted(str(one.relative_to(place)) for one in place.rglob("*"))


def problem(status: int, said: str, left: list[str], how: signal.Signals) -> str | None:
    """Say what is wrong with how a command ended, or None."""
    ended = {0, 1, 3, 4}
    stopped = {128 + how, -how}  # the signal itself, while the interpreter takes itself down
    if status not in ended | stopped:
        return f"status {status}: {said[-300:]}"
    if "Traceback" in said or "Error" in said or "Exception" in said:
        return f"says {said[-600:]}"
    hidden = [one for one in left if Path(one).name.startswith(".") or "tmp" in one]
    if hidden:
        return f"leaves {hidden}"
    return None


def complete(name: str, path: Path) -> bool:
    """Whether a file that is there is whole."""
    content = path.read_bytes()
    if name in {"image", "kernel", "collect", "baseline"} or path.name in {"json", "sarif"}:
        try:
            json.loads(content)
        except ValueError:
            return False
    return bool(content)


def campaign(rounds: int, seed: int, place: Path) -> Iterator[str]:
    """Interrupt every command so many times; yield what was wrong, and at last what was seen."""
    random_, counts = random.Random(seed), Counter()
    times = {}
    for number in range(rounds):
        for name in commands(place):
            target = place / f"{name}{number}"
            target.mkdir()
            arguments = commands(target)[name]
            if name not in times:
                start = time.monotonic()
                subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
                times[name] = time.monotonic() - start
                shutil.rmtree(target)
                target.mkdir()
            how = random_.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            status, said, left = interrupted(arguments, random_.random() * times[name], how, target)
            counts[name, how.name, status] += 1
            wrong = problem(status, said, left, how)
            torn = [one for one in left if (target / one).is_file() and not complete(name, target / one)]
            if wrong or torn:
                yield f"{name} after {how.name}: {wrong or f'half of {torn}'}"
            shutil.rmtree(target)
    yield from (f"{number:6} {' '.join(map(str, key))}" for key, number in sorted(counts.items(), key=str))
