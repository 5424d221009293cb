"""What is kept of runs: all outcomes in a file of this checkout, survivors and why they do in a committed one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from tests.mutation.coverage_map import CACHE, Map
from tests.mutation.mutants import Mutant
from tests.mutation.run import ELSEWHERE, LONGER, PER_MUTANT, Outcome

RECORD = Path(__file__).with_name("record.json")
SAMPLE = Path(__file__).with_name("sample.json")
RESULTS = CACHE / "results.jsonl"

Key = tuple[str, str, str, int]
Reasons = dict[tuple[str, Key], str]


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test kills.

    Attributes:
        scope: The function or class; empty at the level of the module.
        before, after: The lines before and after the change, blanks collapsed.
        number: Tells apart changes that are alike in this, from 1.
        reason: Why no test kills it, as one sentence, or empty where nobody has looked yet.
    """

    scope: str
    before: str
    after: str
    number: int
    reason: str

    @property
    def key(self) -> Key:
        return self.scope, self.before, self.after, self.number


@dataclass(frozen=True)
class Module:
    """What is recorded of one module.

    Attributes:
        total: Its mutants, when it was recorded.
        tried: How many of them were run: all, or a random sample.
        killed: How many of those some test killed.
        survivors: The others.
    """

    total: int
    tried: int
    killed: int
    survivors: tuple[Survivor, ...]


def read(path: Path = RECORD) -> dict[str, Module]:
    """Read the committed record, by module."""
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        name: Module(**{**module, "survivors": tuple(Survivor(**one) for one in module["survivors"])})
        for name, module in document.items()
    }


def write(record: dict[str, Module], path: Path = RECORD) -> None:
    """Write it, modules by name and survivors in the order of their source."""
    document = {name: asdict(module) for name, module in sorted(record.items())}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def wilson(killed: int, tried: int, z: float = 1.96) -> tuple[float, float]:
    """The interval that holds the share of killed mutants with a confidence of 95 %, by Wilson's score.

    Args:
        killed: Mutants killed.
        tried: Mutants drawn at random and run.
        z: Quantile of the normal distribution.
    """
    if not tried:
        return 0.0, 1.0
    share, spread = killed / tried, z * z / tried
    middle = share + spread / 2
    reach = z * math.sqrt(share * (1 - share) / tried + spread / (4 * tried))
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


def sample(mutants: Sequence[Mutant], size: int | None, seed: str) -> list[Mutant]:
    """Draw mutants at random, in random order: the same for the same seed; all of them without a size.

    A change of the code changes the sample by little: what is drawn is decided by each mutant's name and the seed.
    """
    if size is None:
        return list(mutants)
    return sorted(mutants, key=lambda one: hashlib.sha256(repr((seed, one.path, one.key)).encode()).digest())[:size]


@dataclass(frozen=True)
class Sample:
    """What became of mutants that were drawn at random from all of the core.

    Attributes:
        what: What was drawn.
        seed: Of the draw.
        total: Mutants of the core, when they were drawn.
        tried: How many were drawn and run.
        killed: How many of those some test killed.
        low, high: The interval that holds the share of all that are killed with a confidence of 95 %.
        modules: (tried, killed) of each module.
        survivors: The others, by module.
    """

    what: str
    seed: str
    total: int
    tried: int
    killed: int
    low: float
    high: float
    modules: dict[str, tuple[int, int]]
    survivors: dict[str, tuple[Survivor, ...]]


def read_sample(path: Path = SAMPLE) -> Sample | None:
    """Read the committed sample; None if there is none yet."""
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    survivors = {name: tuple(Survivor(**one) for one in own) for name, own in document["survivors"].items()}
    modules = {name: tuple(counts) for name, counts in document["modules"].items()}
    return Sample(**{**document, "survivors": survivors, "modules": modules})


def write_sample(found: Sample, path: Path = SAMPLE) -> None:
    """Write it."""
    path.write_text(json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sampled(drawn: Sequence[Mutant], outcomes: Iterable[Outcome], seed: str, total: int, reasons: Reasons) -> Sample:
    """Put together what became of a sample: of a run that ended early those before the first that was not run.

    Args:
        drawn: The sample, in the order in which it was drawn.
        outcomes: What became of those that were run.
        seed: Of the draw.
        total: Mutants of which they were drawn.
        reasons: Why a survivor survives, by module and name, where that is known.
    """
    by_mutant = {outcome.mutant: outcome for outcome in outcomes}
    run = [by_mutant[mutant] for mutant in takewhile(by_mutant.__contains__, drawn)]
    killed = sum(outcome.killed for outcome in run)
    low, high = wilson(killed, len(run))
    modules: dict[str, tuple[int, int]] = {}
    survivors: dict[str, tuple[Survivor, ...]] = {}
    for outcome in sorted(run, key=lambda one: (one.mutant.path, one.mutant.start)):
        mutant = outcome.mutant
        tried, dead = modules.get(mutant.path, (0, 0))
        modules[mutant.path] = tried + 1, dead + outcome.killed
        if not outcome.killed:
            one = Survivor(*mutant.key, reasons.get((mutant.path, mutant.key), ""))
            survivors[mutant.path] = (*survivors.get(mutant.path, ()), one)
    return Sample(
        "all mutants of the core", seed, total, len(run), killed, round(low, 4), round(high, 4), modules, survivors
    )


def reasons_of(record: dict[str, Module], found: Sample | None) -> Reasons:
    """Return why survivors survive, as both files say."""
    every = [(path, one) for path, module in record.items() for one in module.survivors]
    every += [(path, one) for path, own in (found.survivors if found else {}).items() for one in own]
    return {(path, one.key): one.reason for path, one in every if one.reason}


class Results:
    """Outcomes of earlier runs in this checkout: a run goes on where the last one stopped.

    One holds while its function is what it was, and that of a survivor while its module's tests and the time for them
    are, too.

    Args:
        known: Which test runs which line.
        sources: Each module.
        files: For each module, the files of the tests that are to kill its mutants.
        path: Where outcomes are kept.
    """

    def __init__(
        self, known: Map, sources: dict[str, bytes], files: dict[str, list[str]], path: Path = RESULTS
    ) -> None:
        self.path = path
        self.known = known
        self.sources = sources
        chosen = PER_MUTANT, LONGER, ELSEWHERE
        self.tests = {path: _digest([chosen, [known.stamps.get(file) for file in own]]) for path, own in files.items()}
        self.listed: dict[tuple[str, Key], Outcome] = {}
        self.found: dict[tuple[str, Key], dict] = {}
        self.read()

    def read(self) -> None:
        """Read what other processes have added."""
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            one = json.loads(line)
            self.found[one["path"], tuple(one["key"])] = one

    def clear(self) -> None:
        """Forget all of it."""
        self.found.clear()
        self.path.unlink(missing_ok=True)

    def keep(self, outcome: Outcome) -> None:
        """Take this for an outcome, in this process only."""
        self.listed[outcome.mutant.path, outcome.mutant.key] = outcome

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; safe in several processes."""
        mutant = outcome.mutant
        one = {
            "path": mutant.path,
            "key": mutant.key,
            "how": outcome.how,
            "by": outcome.by,
            "code": self._code(mutant),
            "tests": self.tests[mutant.path],
        }
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")

    def of(self, mutant: Mutant) -> Outcome | None:
        """What became of a mutant earlier, if that still holds."""
        place = mutant.path, mutant.key
        if place in self.listed:
            return self.listed[place]
        one = self.found.get(place)
        if one is None or one["code"] != self._code(mutant):
            return None
        killed = one["how"] not in {"survives", "no test"}
        # one that lets no test be collected is killed by none of them
        if (one["by"] and one["by"] not in self.known.tests) if killed else (one["tests"] != self.tests[mutant.path]):
            return None
        return Outcome(mutant, killed, one["by"], one["how"])

    def _code(self, mutant: Mutant) -> str:
        """A digest of what the change is in: the function, or else the module."""
        source = self.sources[mutant.path]
        lines = source.splitlines()[slice(*mutant.within)] if mutant.function else source.splitlines()
        return hashlib.sha256(b"\n".join(lines)).hexdigest()[:16]


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def updated(
    record: dict[str, Module], every: dict[str, list[Mutant]], outcomes: Iterable[Outcome]
) -> dict[str, Module]:
    """The record with these outcomes in the place of the modules' earlier ones; reasons are kept."""
    result = dict(record)
    by_path: dict[str, list[Outcome]] = {path: [] for path in every}
    for outcome in outcomes:
        by_path[outcome.mutant.path].append(outcome)
    for path, own in by_path.items():
        if not own:
            continue
        reasons = {one.key: one.reason for one in record[path].survivors} if path in record else {}
        own.sort(key=lambda outcome: outcome.mutant.start)
        survivors = tuple(
            Survivor(*outcome.mutant.key, reasons.get(outcome.mutant.key, "")) for outcome in own if not outcome.killed
        )
        result[path] = Module(len(every[path]), len(own), len(own) - len(survivors), survivors)
    return result


def gone(record: dict[str, Module], every: dict[str, list[Mutant]]) -> Iterator[tuple[str, Survivor]]:
    """Survivors in the record that the code has no more."""
    for path, module in record.items():
        keys = {mutant.key for mutant in every.get(path, ())}
        yield from ((path, one) for one in module.survivors if one.key not in keys)
