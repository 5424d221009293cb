"""``python -m tests.lab``: run experiments, compare with hibercheck, pack cases."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.experiment import Experiment
from tests.lab.families import FAMILIES, every
from tests.lab.kernels import Kernels, default_places
from tests.lab.record import Record
from tests.lab.run import Lab

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "tests" / "lab" / "work", help="images, cases and kernels")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="carry out experiments")
    run.add_argument("--family", action="append", choices=FAMILIES)
    run.add_argument("--name", action="append", help="only experiments whose name contains this")
    run.add_argument("--jobs", type=int, default=2, help="machines at a time (default: %(default)s)")
    run.add_argument("--again", action="store_true", help="also those measured already")
    run.set_defaults(action=command_run)
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    return int(options.action(options))


def chosen(options: argparse.Namespace) -> list[Experiment]:
    """The experiments that the command line asks for."""
    found = [item for name in options.family for item in FAMILIES[name]()] if options.family else every()
    if options.name:
        found = [item for item in found if any(part in item.name for part in options.name)]
    return found


def command_run(options: argparse.Namespace) -> int:
    """Run experiments; those measured before are left alone unless ``--again``."""
    kernels = Kernels(default_places(options.work, ROOT))
    lab, record = Lab(options.work, kernels), Record(options.work)
    todo = [item for item in chosen(options) if options.again or not record.has(item.name)]

    def one(experiment: Experiment) -> bool:
        start = time.monotonic()
        try:
            truth = lab.run(experiment)
        except LabError as error:
            print(f"{experiment.name:44} not run: {error}", flush=True)
            return False
        memory = experiment.dump and truth.boot_cpu is not None
        record.add(experiment, truth, with_memory=memory)
        detail = truth.when or (f"errno {truth.errno}" if truth.errno else "")
        took = time.monotonic() - start
        print(f"{experiment.name:44} {truth.outcome:9} {took:5.1f} s  {detail} {' | '.join(truth.remarks)}", flush=True)
        return True

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(one, todo))
    print(f"{sum(results)} of {len(todo)} experiments measured", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
