"""``python -m tests.lab``: run experiments, predict them anew, make tables of the record, pack cases."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.lab import chance, records, standings
from tests.lab.agreement import rewrite_all
from tests.lab.bochs import chance as bochs_chance
from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.bochs.build import build
from tests.lab.bochs.run import BochsLab, groups
from tests.lab.compare import BAD, compare, summary, text
from tests.lab.corpus import corpus
from tests.lab.design_table import lacking
from tests.lab.designs import planned
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment
from tests.lab.families import FAMILIES, every
from tests.lab.kernels import Kernels, default_places
from tests.lab.pack import pack
from tests.lab.predict import predict
from tests.lab.predict import summary as summary_of
from tests.lab.predict import text as text_of
from tests.lab.record import EMULATOR, Record
from tests.lab.run import Lab
from tests.lab.sitting import Bench, commit, sit, tree

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("fatal", "safe", "benign", "no-overlap", "paging-mode", "latent")
"""What continuous integration runs: every verdict, about a minute."""
EMULATORS = ("qemu", "bochs")


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
    run = commands.add_parser("run", help="predict experiments, carry them out, and record both")
    run.add_argument("--emulator", choices=EMULATORS, default="qemu", help="the machine (default: %(default)s)")
    run.add_argument("--record", type=Path, help="where lines are added (default: records/EMULATOR.jsonl)")
    what = run.add_mutually_exclusive_group()
    what.add_argument("--small", action="store_true", help="a few, with the kernels of fixtures/ only, always afresh")
    what.add_argument("--all", action="store_true", help="every family (the default)")
    what.add_argument("--seed", type=int, help="random ones from this seed")
    run.add_argument("--count", type=int, default=20, help="how many random ones (default: %(default)s)")
    run.add_argument("--kernel", action="append", help="draw random ones from these kernels only")
    run.add_argument("--family", action="append", choices=[*FAMILIES, "standings"], help="standings: with --seed")
    run.add_argument("--name", action="append", help="only experiments whose name contains this")
    run.add_argument("--jobs", type=int, default=2, help="machines at a time (default: %(default)s)")
    run.set_defaults(action=command_run)
    foresee = commands.add_parser("predict", help="predict recorded experiments anew, those whose files are kept")
    foresee.add_argument("--records", type=Path, default=records.PLACE, help="a file or directory of records")
    foresee.add_argument("--name", action="append", default=[], help="only experiments whose name contains this")
    foresee.add_argument("--jobs", type=int, default=2)
    foresee.add_argument("--dump", action="store_true", help="also with the resumer's memory")
    foresee.add_argument("--keep", action="store_true", help="write them to records/later.json, for the tables")
    foresee.add_argument("--bad", action="store_true", help="print only those that disagree")
    foresee.set_defaults(action=command_predict)
    once_more = commands.add_parser("replay", help="carry a recorded experiment out again")
    once_more.add_argument("name")
    once_more.add_argument("--records", type=Path, default=records.PLACE)
    once_more.set_defaults(action=command_replay)
    table = commands.add_parser("table", help="write the tables of agreement anew from the record")
    table.set_defaults(action=command_table)
    repeat = commands.add_parser("repeat", help="run measured experiments in QEMU again, and count their outcomes")
    repeat.add_argument("--family", action="append", choices=FAMILIES)
    repeat.add_argument("--name", action="append", help="only experiments whose name contains this")
    repeat.add_argument("--jobs", type=int, default=2, help="machines at a time (default: %(default)s)")
    repeat.add_argument("--times", type=int, default=2, help="until each has been run so often")
    repeat.set_defaults(action=command_repeat)
    check = commands.add_parser("compare", help="run hibercheck on what has been measured")
    check.add_argument("--name", action="append", help="only cases whose name contains this")
    check.add_argument("--jobs", type=int, default=2)
    check.add_argument("--no-memory", action="store_true", help="leave out the runs with the resumer's memory")
    check.add_argument("--bad", action="store_true", help="print only the rows that disagree")
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
    if seed is None and "standings" in (options.family or ()):
        raise SystemExit("python -m tests.lab: the family standings is drawn: give --seed")
    if seed is not None:
        draw = drawing(options)
        found = [draw(seed, number) for number in range(options.count)]
    elif getattr(options, "small", False):
        found = [item for item in FAMILIES["committed"]() if item.name in SMALL]
    else:
        found = [item for name in options.family for item in FAMILIES[name]()] if options.family else every()
    if options.name:
        found = [item for item in found if any(part in item.name for part in options.name)]
    return found


def drawing(options: argparse.Namespace) -> Callable[[int, int], Experiment]:
    """How random experiments are drawn."""
    if options.emulator == "bochs":
        return bochs_chance.draw
    if options.family == ["standings"]:
        return standings.draw
    return lambda seed, number: chance.draw(seed, number, tuple(options.kernel or ()))


def kernels_of(work: Path) -> Kernels:
    """Where kernels are looked for."""
    return Kernels(default_places(work, ROOT), work / "kernels")


def bench_of(emulator: str, work: Path) -> Bench:
    """A machine to work on."""
    if emulator == "bochs":
        return BochsLab(work, kernels_of(work), build(work / "bochs"))
    return Lab(work, kernels_of(work))


def command_run(options: argparse.Namespace) -> int:
    """Predict, run and record what is not recorded yet."""
    if options.small:
        return run_small(options)
    record = options.record or records.PLACE / f"{options.emulator}.jsonl"
    machine = BOCHS if options.emulator == "bochs" else EMULATOR
    wanted = [one for one in chosen(options) if planned(one, machine)]
    shared = groups(wanted) if options.emulator == "bochs" else [[one] for one in wanted]
    failed = sit(bench_of(options.emulator, options.work), shared, record, options.jobs)
    print(f"{len(wanted) - failed} of {len(wanted)} experiments are recorded")
    return 1 if failed else 0


def run_small(options: argparse.Namespace) -> int:
    """Run the small set afresh, and compare; nothing is recorded."""
    lab, record = Lab(options.work, kernels_of(options.work)), Record(options.work)
    todo = chosen(options)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda experiment: measure(lab, record, experiment), todo))
    print(f"{sum(results)} of {len(todo)} experiments measured", flush=True)
    rows = compare(link_kernels(record, todo, lab.kernels), options.work, options.jobs)
    print(text(rows))
    return 0 if all(results) and not any(row.grade in BAD for row in rows) else 1


def command_repeat(options: argparse.Namespace) -> int:
    """Run measured experiments again."""
    lab, record = Lab(options.work, kernels_of(options.work)), Record(options.work)
    results: list[bool] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in range(options.times - 1):  # one of a name at a time
            todo = [one for one in chosen(options) if 0 < record.runs(one.name) < options.times and repeatable(one)]
            results += pool.map(lambda experiment: measure_again(lab, record, experiment), todo)
    return 0 if all(results) else 1


def command_predict(options: argparse.Namespace) -> int:
    """Predict what is kept; 1 when any disagrees, 2 when nothing is kept."""
    entries = list(records.named(records.load(options.records), options.name))
    found, before = [], tree()
    for one in predict(entries, options.work, kernels_of(options.work), options.jobs, dumps=options.dump):
        found.append(one)
        if one.grade in BAD or not options.bad:
            print(text_of(one), flush=True)
    print(f"{len(entries)} recorded; {summary_of(found)}")
    if options.keep and tree() != before:
        print("hibercheck changed meanwhile: not kept, since it is not of one version", file=sys.stderr)
        return 2
    if options.keep and found:
        plain = {one.entry.key: one.said for one in found if not one.dump}
        dumped = {one.entry.key: one.said for one in found if one.dump}
        records.save_later(records.Later(commit(), {name: (said, dumped.get(name)) for name, said in plain.items()}))
    return 2 if not found else 1 if any(one.grade in BAD for one in found) else 0


def command_replay(options: argparse.Namespace) -> int:
    """Carry one out again and hold it to its record; 1 where it differs."""
    entry = next((one for one in records.load(options.records) if one.name == options.name), None)
    if entry is None:
        print(f"no experiment {options.name} in {options.records}", file=sys.stderr)
        return 2
    bench = bench_of("bochs" if entry.machine == BOCHS else "qemu", options.work)
    bench.image(entry.experiment)
    _, found = next(iter(bench.outcomes([entry.experiment])))
    print(f"recorded {entry.outcome} {entry.events}\nnow      {found.outcome} {found.events}")
    return 0 if (found.outcome, records.in_copy(found.events)) == (entry.outcome, records.in_copy(entry.events)) else 1


def command_table(_: argparse.Namespace) -> int:
    """Write README's table, that of agreement.md and that of the designs; say what that lacks."""
    entries = records.load(records.PLACE)
    for path in rewrite_all(ROOT, entries):
        print(path)
    for machine in (EMULATOR, BOCHS):
        print(f"{machine} has {len(lacking(entries, machine))} experiments of the family designs still to run")
    return 0


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
