"""``python -m tests.mutation``: which changes of the core no test notices."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.mutation.core import ROOT, parts_of, test_files
from tests.mutation.coverage_map import measured
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.record import (
    Results,
    gone,
    read,
    read_sample,
    reasons_of,
    sample,
    sampled,
    updated,
    wilson,
    write,
    write_sample,
)
from tests.mutation.run import Outcome, Runner
from tests.mutation.session import Failed, temporary_files


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="modules or folders; default all that core.py lists")
    parser.add_argument("--held", action="store_true", help="only those of which every survivor is to be listed")
    parser.add_argument("--sample", type=int, metavar="N", help="draw N mutants at random")
    parser.add_argument("--seed", default="1", help="of the sample and of the order (default 1)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="begin no mutant after that time")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--again", action="store_true", help="run the survivors that record.json lists, too")
    parser.add_argument(
        "--write", action="store_true", help="put the outcomes into record.json, of a sample into sample.json"
    )
    parser.add_argument("--quiet", action="store_true", help="do not print the survivors")
    return parser.parse_args()


def main() -> int:
    """Run; return 1 if a mutant survives that the record does not list, else 0."""
    options = arguments()
    parts = {path: part for path, part in parts_of(options.paths).items() if part.held or not options.held}
    if not parts:
        return 0
    sources = {path: (ROOT / path).read_bytes() for path in parts}
    every = {path: mutants_of(path, source) for path, source in sources.items()}
    record = read()
    listed = {path: {one.key for one in module.survivors} for path, module in record.items()}
    chosen = [mutant for mutants in every.values() for mutant in mutants]
    size = len(chosen) if options.budget and options.sample is None else options.sample
    chosen = sample(chosen, size, options.seed)
    with temporary_files():
        files = {path: test_files(part) for path, part in parts.items()}
        known = measured(sorted({file for own in files.values() for file in own}), options.jobs)
        results = Results(known, sources, files)
        if options.fresh:
            results.clear()
        unless = {} if options.again else listed
        for mutant in chosen:
            if mutant.key in unless.get(mutant.path, ()):
                results.keep(Outcome(mutant, killed=False, by="", how="listed"))
        earlier = [outcome for mutant in chosen if (outcome := results.of(mutant))]
        done = {(outcome.mutant.path, outcome.mutant.key) for outcome in earlier}
        left = [mutant for mutant in chosen if (mutant.path, mutant.key) not in done]
        progress = Progress(len(left))

        def finished(outcome: Outcome) -> None:
            results.add(outcome)
            progress.tell(outcome)

        runner = Runner(known, files, jobs=options.jobs)
        for outcome in earlier:
            runner.order.learn(outcome)
        print(f"{len(chosen)} mutants, {len(earlier)} of them known from earlier", file=sys.stderr, flush=True)
        until = time.monotonic() + (60 * options.budget if options.budget else 1e9)
        runner.run(left, finished, until=until)
    results.read()
    outcomes = [outcome for mutant in chosen if (outcome := results.of(mutant))]
    report(outcomes, every, sampled=size is not None)
    new = [one for one in outcomes if not one.killed and one.mutant.key not in listed.get(one.mutant.path, ())]
    if not options.quiet:
        show(new)
    if options.write and options.sample:
        reasons = reasons_of(record, read_sample())
        total = sum(map(len, every.values()))
        write_sample(sampled(chosen, outcomes, options.seed, total, reasons))
    elif options.write:
        record = updated(record, every, outcomes)
        write(record)
    for path, survivor in gone(read(), every) if not options.paths else ():
        if path in every:
            print(f"{path}: {survivor.scope}: listed, and gone from the code: {survivor.before}")
    return 1 if new and not options.write else 0


class Progress:
    """A line now and then."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.began = self.told = time.monotonic()
        self.counts: Counter[str] = Counter()

    def tell(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.counts[outcome.how] += 1
        now, done = time.monotonic(), sum(self.counts.values())
        if now - self.told > 10 or done == self.total:
            self.told = now
            ways = ", ".join(f"{count} {how}" for how, count in self.counts.most_common())
            print(f"{now - self.began:5.0f} s  {done}/{self.total}: {ways}", file=sys.stderr, flush=True)


def report(outcomes: Sequence[Outcome], every: dict[str, list[Mutant]], *, sampled: bool) -> None:
    """Print a line for each module, and one for all."""
    tried = Counter(outcome.mutant.path for outcome in outcomes)
    killed = Counter(outcome.mutant.path for outcome in outcomes if outcome.killed)
    width = max(map(len, every))
    for path, mutants in every.items():
        if tried[path]:
            share = 100 * killed[path] / tried[path]
            print(f"{path:{width}} {killed[path]:5} of {tried[path]:5} {share:6.1f} %   {len(mutants)} mutants")
    total, dead = sum(tried.values()), sum(killed.values())
    if total:
        low, high = wilson(dead, total)
        interval = f"   95 %: {100 * low:.1f} to {100 * high:.1f} %" if sampled else ""
        print(f"{'all':{width}} {dead:5} of {total:5} {100 * dead / total:6.1f} %{interval}")
        ways = Counter(outcome.how for outcome in outcomes).most_common()
        print(", ".join(f"{count} {how}" for how, count in ways))


def show(survivors: Iterable[Outcome]) -> None:
    """Print each survivor as the lines before and after."""
    for outcome in survivors:
        mutant = outcome.mutant
        print(f"\n{mutant.path}:{mutant.lines[0]} {mutant.scope} ({outcome.how})\n- {mutant.before}\n+ {mutant.after}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit(str(failed))
    except KeyboardInterrupt:
        sys.exit(130)
