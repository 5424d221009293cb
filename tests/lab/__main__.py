"""``python -m tests.lab``: run experiments, compare with hibercheck, pack cases."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.lab.agreement import First, block, rewrite, version
from tests.lab.chance import draw
from tests.lab.compare import BAD, compare, summary, text
from tests.lab.corpus import corpus
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment
from tests.lab.families import FAMILIES, every
from tests.lab.kernels import Kernels, default_places
from tests.lab.pack import pack
from tests.lab.record import Record
from tests.lab.run import Lab

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("fatal", "safe", "benign", "no-overlap", "paging-mode", "latent")
"""What continuous integration runs: every verdict, about a minute."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    options = parser().parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    return int(options.action(options))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    top.add_argument("--work", type=Path, default=ROOT / "tests" / "lab" / "work", help="images, cases and kernels")
    commands = top.add_subparsers(required=True)
    run = commands.add_parser(
        "run", help="carry out experiments, and set hibercheck's predictions beside what happened"
    )
    what = run.add_mutually_exclusive_group()
    what.add_argument("--small", action="store_true", help="a few, with the kernels of fixtures/ only, always afresh")
    what.add_argument("--all", action="store_true", help="every family (the default)")
    what.add_argument("--seed", type=int, help="random ones from this seed")
    run.add_argument("--count", type=int, default=20, help="how many random ones (default: %(default)s)")
    run.add_argument("--kernel", action="append", help="draw random ones from these kernels only")
    run.add_argument("--family", action="append", choices=FAMILIES)
    run.add_argument("--name", action="append", help="only experiments whose name contains this")
    run.add_argument("--jobs", type=int, default=2, help="machines at a time (default: %(default)s)")
    run.add_argument("--again", action="store_true", help="also those measured already")
    run.add_argument("--times", type=int, default=1, help="run each so often, and keep count of the outcomes")
    run.add_argument("--no-compare", action="store_true", help="only measure")
    run.set_defaults(action=command_run)
    check = commands.add_parser("compare", help="run hibercheck on what has been measured")
    check.add_argument("--name", action="append", help="only cases whose name contains this")
    check.add_argument("--jobs", type=int, default=2)
    check.add_argument("--no-memory", action="store_true", help="leave out the runs with the resumer's memory")
    check.add_argument("--bad", action="store_true", help="print only the rows that disagree")
    check.add_argument("--readme", type=Path, help="put the table of agreement between the markers of this file")
    check.set_defaults(action=command_compare)
    box = commands.add_parser("pack", help="write measured cases, compressed and described, into a directory")
    box.add_argument("target", type=Path)
    box.add_argument("--family", action="append", choices=FAMILIES)
    box.add_argument("--name", action="append")
    box.add_argument(
        "--corpus", action="store_true", help="a directory for each case, Debian's kernels by name and hash"
    )
    box.set_defaults(action=command_pack)
    return top


def chosen(options: argparse.Namespace) -> list[Experiment]:
    """The experiments that the command line asks for."""
    seed = getattr(options, "seed", None)
    if seed is not None:
        found = [draw(seed, number, tuple(options.kernel or ())) for number in range(options.count)]
    elif getattr(options, "small", False):
        found = [item for item in FAMILIES["committed"]() if item.name in SMALL]
    else:
        found = [item for name in options.family for item in FAMILIES[name]()] if options.family else every()
    if options.name:
        found = [item for item in found if any(part in item.name for part in options.name)]
    return found


def command_run(options: argparse.Namespace) -> int:
    """Run experiments; those measured before are left alone unless ``--again``."""
    kernels = Kernels(default_places(options.work, ROOT), options.work / "kernels")
    lab, record = Lab(options.work, kernels), Record(options.work)
    wanted = chosen(options)
    todo = [item for item in wanted if options.again or options.small or not record.has(item.name)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda experiment: measure(lab, record, experiment), todo))
        print(f"{sum(results)} of {len(todo)} experiments measured", flush=True)
        for _ in range(options.times - 1):  # one of a name at a time
            repeat = [item for item in wanted if 0 < record.runs(item.name) < options.times and repeatable(item)]
            results += pool.map(lambda experiment: measure_again(lab, record, experiment), repeat)
    if options.no_compare:
        return 0 if all(results) else 1
    rows = compare(link_kernels(record, wanted, kernels), options.work, options.jobs)
    print(text(rows))
    if options.seed is not None:
        fresh = {experiment.name for experiment in todo}
        First(options.work).remember((row for row in rows if row.name in fresh), version())
    return 0 if all(results) and not any(row.grade in BAD for row in rows) else 1


def measure(lab: Lab, record: Record, experiment: Experiment) -> bool:
    """Carry one experiment out and write it down; False when that failed."""
    start = time.monotonic()
    try:
        truth = lab.run(experiment)
    except (LabError, OSError) as error:
        print(f"{experiment.name:44} not run: {error}", flush=True)
        return False
    record.add(experiment, truth, with_memory=experiment.dump and truth.boot_cpu is not None)
    detail = truth.when or (f"errno {truth.errno}" if truth.errno else "")
    took = time.monotonic() - start
    print(f"{experiment.name:44} {truth.outcome:9} {took:5.1f} s  {detail} {' | '.join(truth.remarks)}", flush=True)
    return True


def repeatable(experiment: Experiment) -> bool:
    """Whether another run is the same experiment: not where the resumer falls elsewhere each time."""
    return not experiment.may_abstain


def measure_again(lab: Lab, record: Record, experiment: Experiment) -> bool:
    """Run a measured experiment once more, for the count of outcomes; False when that failed."""
    try:
        truth = lab.run(replace(experiment, dump=False))
    except (LabError, OSError) as error:
        print(f"{experiment.name:44} not run: {error}", flush=True)
        return False
    count = record.count(experiment, truth)
    print(f"{experiment.name:44} {truth.outcome:9} {count}", flush=True)
    return True


def link_kernels(record: Record, wanted: list[Experiment], kernels: Kernels) -> list[dict[str, Any]]:
    """The measured cases of these experiments, their kernels' vmlinux made present in the work directory."""
    names = {experiment.name for experiment in wanted}
    cases = [case for case in record.everything() if case["name"] in names]
    for name in {Path(case[key]).stem for case in cases for key in ("resumer", "resumee")}:
        place = record.work / "kernels" / f"{name}.vmlinux"
        place.parent.mkdir(exist_ok=True)
        found = kernels.vmlinux(name).resolve()  # which may unpack it to that very place
        if not place.exists():
            place.symlink_to(found)
    return cases


def command_compare(options: argparse.Namespace) -> int:
    """Run hibercheck on the measured cases; 1 when any disagrees."""
    cases = Record(options.work).everything()
    if options.name:
        cases = [case for case in cases if any(part in case["name"] for part in options.name)]
    rows = compare(cases, options.work, options.jobs, dumps=not options.no_memory)
    print(text([row for row in rows if row.grade in BAD] if options.bad else rows))
    if options.bad:
        print(summary(rows))
    if options.readme:
        rewrite(options.readme, block(rows, cases, First(options.work).load()))
    return 1 if any(row.grade in BAD for row in rows) else 0


def command_pack(options: argparse.Namespace) -> int:
    """Pack the chosen experiments, as far as they have been measured."""
    names = {experiment.name for experiment in chosen(options)}
    cases = [case for case in Record(options.work).cases() if case["name"] in names]
    if options.corpus:
        work = options.work
        if not Record(work).path.exists():
            work, cases = ROOT / "fixtures", Record(ROOT / "fixtures").cases()
            print("nothing has been measured here (python -m tests.lab run): these are the cases of fixtures/")
        kept, left = corpus(cases, work, options.target)
        print(f"{len(kept)} cases written to {options.target}; left out as too large: {', '.join(left) or 'none'}")
        return 0
    pack(cases, options.work, options.target)
    print(f"{len(cases)} of {len(names)} cases packed into {options.target}")
    return 0 if len(cases) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
