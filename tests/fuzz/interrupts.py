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

_BEFORE_MAIN = "in <module>\nKeyboardInterrupt\n"
"""What is said where the command's own code has not begun yet: one frame, of `_START`."""
COMMAND = [sys.executable, "-m", "hibercheck"]
STARTED = "hibercheck interrupts: started"
_START = (
    "import signal, sys, hibercheck.cli.main as m\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    f"sys.stderr.write({STARTED!r} + '\\n'); sys.stderr.flush()\n"
    "sys.argv[0] = 'hibercheck'; m.main()"
)
"""Before this the interpreter itself starts, and ends in its own way.  A shell's job in the background, and what nohup
starts, ignore SIGINT or SIGHUP, which is inherited: then nothing would be tried."""


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


def interrupted(
    arguments: list[str],
    after: float,
    how: signal.Signals,
    place: Path,
    again: tuple[float, signal.Signals] | None = None,
) -> tuple[int, str, list[str]]:
    """Run a command and send it a signal; return its status, what it said, and the files and processes it left.

    Args:
        arguments: The command line.
        after: Seconds until the signal.
        how: The signal; it goes to the whole process group, as a terminal sends it.
        place: Where it writes.
        again: Seconds until another signal, to the main process alone, and which.
    """
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
        if again is not None:
            time.sleep(again[0])
            process.send_signal(again[1])
        said = process.stderr.read()
        status = process.wait(120)
    left = sorted(str(one.relative_to(place)) for one in place.rglob("*"))
    return status, said, [*left, *_processes(process.pid)]


def _processes(group: int) -> list[str]:
    """Name the processes of a group that are still there a moment later."""
    for _ in range(100):
        found = [f"tmp process {entry.name}" for entry in Path("/proc").iterdir() if _in_group(entry, group)]
        if not found:
            break
        time.sleep(0.01)
    return found


def _in_group(entry: Path, group: int) -> bool:
    try:
        state, _, rest = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].strip().partition(" ")
    except (OSError, ValueError):
        return False
    return state not in {"Z", "X"} and int(rest.split()[1]) == group


def problem(status: int, said: str, left: list[str], how: signal.Signals) -> str | None:
    """Say what is wrong with how a command ended, or None."""
    ended = {0, 1, 3, 4}
    stopped = {128 + how, -how}  # the signal itself, while the interpreter takes itself down
    if said.endswith(_BEFORE_MAIN) and said.count("  File ") == 1:
        return None
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


def campaign(rounds: int, seed: int, place: Path, *, twice: bool = False, only: str | None = None) -> Iterator[str]:
    """Interrupt every command so many times; yield what was wrong, and at last what was seen.

    Args:
        rounds: How often each.
        seed: What times and signals are drawn with.
        place: An empty directory.
        twice: Whether another signal follows within 50 ms, SIGKILL among them.
        only: One command, instead of all.
    """
    random_, counts = random.Random(seed), Counter()
    times = {}
    for number in range(rounds):
        for name in [only] if only else commands(place):
            target = place / f"{name}{number}"
            target.mkdir()
            arguments = commands(target)[name]
            if name not in times:
                start = time.monotonic()
                subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
                times[name] = time.monotonic() - start
                shutil.rmtree(target)
                target.mkdir()
            how = first = random_.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            again = None
            if twice:
                kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
                again = (random_.random() * 0.05, random_.choice(kinds))
            after = random_.random() * times[name]
            status, said, left = interrupted(arguments, after, how, target, again)
            if again is not None and again[1] is signal.SIGKILL and status == -signal.SIGKILL:
                how = signal.SIGKILL  # also that leaves nothing: what is being written has no name
            elif again is not None and status in {128 + again[1], -again[1]}:
                how = again[1]
            counts[name, how.name, status] += 1
            wrong = problem(status, said, left, how)
            torn = [one for one in left if (target / one).is_file() and not complete(name, target / one)]
            if wrong or torn:
                sent = f"{after:.3f} s {first.name}" + (f", {again[0]:.3f} s {again[1].name}" if again else "")
                yield f"{name} after {how.name}: {wrong or f'half of {torn}'} (round {number}: {sent})"
            shutil.rmtree(target)
    yield from (f"{number:6} {' '.join(map(str, key))}" for key, number in sorted(counts.items(), key=str))
