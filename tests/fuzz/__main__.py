"""``python -m tests.fuzz``: run targets, repeat a round, or sample the soundness of checks."""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hibercheck.errors import HibercheckError, UsageProblem
from tests.fuzz import (
    hostile,
    interrupts,
    targets_check,
    targets_combined,
    targets_commands,
    targets_dump,
    targets_image,
    targets_kernel,
    targets_text,
)
from tests.fuzz.draw import Draw
from tests.fuzz.sandbox import Sandbox, Violation
from tests.fuzz.seeds import FIXTURES
from tests.fuzz.soundness import survey

TARGETS: dict[str, Callable[[Path], Callable[[Draw], None]]] = {
    "image": targets_image.real_images,
    "image-made": targets_image.made_images,
    "image-packed": targets_image.packed_images,
    "vmlinux": targets_kernel.real_kernels,
    "vmlinux-made": targets_kernel.small_kernels,
    "bzimage": targets_kernel.real_bzimages,
    "wrappers": targets_kernel.wrapped_kernels,
    "kallsyms": targets_kernel.own_symbols,
    "btf": targets_kernel.types,
    "system-map": targets_kernel.symbol_files,
    "kernel-facts": targets_kernel.kernel_facts,
    "dump": targets_dump.real_dumps,
    "dump-made": targets_dump.made_dumps,
    "registers": targets_dump.listings,
    "suppressions": targets_text.suppression_files,
    "baseline": targets_text.baseline_files,
    "kernel-cmdline": targets_text.kernel_command_lines,
    "command-line": targets_text.command_lines,
    "collected-facts": targets_check.collected_facts,
    "check": targets_check.whole_checks,
    "contradictions": targets_combined.contradictions,
    "environment": targets_combined.environments,
    "matrix": targets_commands.matrices,
    "diff": targets_commands.differences,
    "designs": targets_commands.parking_designs,
    "configuration": targets_commands.configurations,
    "export": targets_commands.exports,
    "collect": targets_commands.collections,
}
WITHOUT_PLACE = {"btf", "kernel-cmdline"}
"""Targets that get bytes or text and no file, so that their errors name none."""

STARTS_PROCESSES = {"collect"}
"""Targets that start a shell on purpose."""


def choices(target: str, seed: int, number: int) -> bytes:
    """The choices of one round."""
    generator = random.Random(f"{target} {seed} {number}")
    return generator.randbytes(generator.choice((32, 96, 400)))


def one_round(name: str, run: Callable[[Draw], None], sandbox: Sandbox, data: bytes) -> str:
    """Run a target once and say how it ended; anything but an answer or an error of ours is an AssertionError."""
    try:
        with sandbox.watch():
            run(Draw(data))
    except HibercheckError as error:
        line = str(error)
        if "\n" in line or not error.message:
            raise AssertionError(f"not one line: {line!r}") from error
        placed = error.path is not None or error.offset is not None or error.pfn is not None
        names_option = isinstance(error, UsageProblem) and "--" in line
        if name not in WITHOUT_PLACE and not placed and not names_option:
            raise AssertionError(f"says not where: {line!r}") from error
        return type(error).__name__
    return "answered"


def campaign(
    name: str, seconds: float, seed: int, directory: Path, replay: int | None = None, most: float = math.inf
) -> int:
    """Run one target for a time or so many rounds and print what became of them; return the number of failures."""
    run = TARGETS[name](directory)
    sandbox, counts, failures = Sandbox(directory, children=name in STARTS_PROCESSES), Counter(), {}
    end, number, slowest = time.monotonic() + seconds, 0, (0.0, 0)
    while number == 0 or (replay is None and time.monotonic() < end and number < most):
        round_number = number if replay is None else replay
        start = time.process_time()
        try:
            counts[one_round(name, run, sandbox, choices(name, seed, round_number))] += 1
        except (Exception, Violation) as error:  # noqa: BLE001 - the point of it all
            counts["FAILED"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            if key not in failures:
                failures[key] = round_number
                print(f"{name} --seed {seed} --replay {round_number}: {key}: {str(error)[:300]}", flush=True)
                if replay is not None:
                    traceback.print_exc()
        slowest = max(slowest, (time.process_time() - start, round_number))
        number += 1
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{name}: {number} rounds: {told}; slowest {slowest[0]:.2f} s (round {slowest[1]})", flush=True)
    return len(failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="time for each target")
    parser.add_argument("--rounds", type=int, default=math.inf, metavar="N", help="no more of each target than so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int, metavar="ROUND", help="one round again, with its traceback")
    parser.add_argument("--soundness", type=int, metavar="N", help="damage the measured cases so many times")
    parser.add_argument("--interrupts", type=int, metavar="N", help="interrupt each command so many times")
    parser.add_argument("--hostile", action="store_true", help="what inputs made to be expensive cost")
    parser.add_argument("--twice", action="store_true", help="with --interrupts: send another signal within 50 ms")
    parser.add_argument("--cases", action="append", metavar="DIR", help="where a cases.json is; fixtures by default")
    parser.add_argument("--only", type=int, metavar="N", help="of each DIR, so many cases, drawn by --seed")
    given = parser.parse_args(arguments)
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="hibercheck-fuzz-") as name:
        directory = Path(name)
        if given.interrupts:
            told = interrupts.campaign(given.interrupts, given.seed, directory, twice=given.twice)
            wrong = [line for line in told if not print(line)]
            return min(sum(" after " in line for line in wrong), 1)
        if given.hostile:
            lines = [line for line in hostile.campaign(directory) if not print(line, flush=True)]
            return min(len(lines) - 1 - len(hostile.INPUTS), 1)
        if given.soundness:
            tally = survey(given.soundness, given.seed, directory, given.cases or [str(FIXTURES)], given.only)
            print(tally)
            return min(len(tally.misled), 1)
        failed = 0
        for target in given.targets or TARGETS:
            place = directory / target
            place.mkdir()
            failed += campaign(target, given.seconds, given.seed, place, given.replay, given.rounds)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
