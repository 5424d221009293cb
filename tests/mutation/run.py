"""Runs the tests against mutants: each in a process forked from one that has imported everything.

A change within a function is made by exchanging the function's code.  One to a table, a default or whatever else runs
when a module is imported is made in a process that has imported nothing of this package yet.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.abc
import importlib.util
import os
import resource
import selectors
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from tests.mutation.core import ROOT, holders, name_of
from tests.mutation.coverage_map import Map
from tests.mutation.mutants import Mutant
from tests.mutation.session import FAILED, FAULT, Failed, Forked, Place, run_pytest, silence

PER_MUTANT = 8
"""Seconds of processor time of tests that a mutant is tried with first: nearly all that are killed die in these."""
LONGER = 40
"""Seconds of those that run its line and were not chosen at first."""
ELSEWHERE = 20
"""Seconds of those of other modules that run its line: what none kills in these either survives."""
FOR_WHOLE = 2
"""Seconds of these that are kept for tests that compare whole texts."""
WHOLE = "test_told.py"
"""What a file of such tests is called."""
COLLECT = 0.4
"""Seconds that a file of tests takes to be imported and collected, where that is not done before."""
SLOWER = 10
"""Times as long as usual in which a test ends, or does not end."""
LEAST = 5
"""Seconds of processor time that a test has in any case."""
FIRST = 60
"""Seconds of processor time until the first test begins."""
STUCK = 120
"""Seconds without a word, and without any processor time, after which a process waits for what will not come."""
MEMORY = 2 << 30
"""Bytes that a mutant may fill."""
ADDRESSES = 16 << 30
"""Bytes that it may reserve beyond what it starts with: unicorn reserves much and fills little."""

Say = Callable[[str], None]
Work = Callable[[Say], None]
"""What a process does; it is given something to say how far it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        mutant: The mutant.
        killed: Whether a test failed, or did not end.
        by: The test, or an empty text for a mutant that survives.
        how: ``fails``, ``does not end``, ``crashes``; ``survives``, ``no test`` where none runs its line, ``listed``
            for a survivor that the record lists and that was not run.
        ran: The tests that were run, in order; the last is the one that killed it.
    """

    mutant: Mutant
    killed: bool
    by: str
    how: str
    ran: tuple[str, ...] = ()


class Order:
    """Which tests to run first: those that are quick, of the files that hold a module, and have killed neighbours."""

    def __init__(self, known: Map, paths: dict[str, list[str]]) -> None:
        self.known = known
        self.paths = paths
        self.kills: dict[str, Counter[str]] = defaultdict(Counter)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests of a mutant, best first, as many as `PER_MUTANT` allows.

        A part of the time is kept for tests that compare whole texts, which see what nobody has thought of.
        """
        ranked = self._by_worth(mutant)
        whole = [name for name in ranked if Path(_file(name)).name == WHOLE]
        if not self.at_import(mutant):
            chosen = set(self._some(whole, FOR_WHOLE))
            others = [name for name in ranked if name not in set(whole)]
            chosen.update(self._some(others, PER_MUTANT - self._seconds(chosen)))
            return [name for name in ranked if name in chosen]
        result: list[str] = []
        for own in self._by_file(mutant, ranked):
            left = PER_MUTANT - self._seconds(result) - COLLECT * len({_file(name) for name in result})
            if left > COLLECT:
                result += self._some(own, min(left, PER_MUTANT / 3) - COLLECT)
        return result

    def others(self, mutant: Mutant, tried: Iterable[str]) -> list[str]:
        """Those that a mutant meets if these have not killed it.

        The rest of its module's, as many as `LONGER` allows, then those of other modules that run its line, as many as
        `ELSEWHERE` does.
        """
        before = set(tried)
        own = self._within(mutant, [name for name in self._by_worth(mutant) if name not in before], LONGER)
        before.update(own)
        elsewhere = {file for files in self.paths.values() for file in files}.difference(self.paths[mutant.path])
        every = self._by_worth(mutant, elsewhere) if elsewhere else []
        return own + self._within(mutant, [name for name in every if name not in before], ELSEWHERE)

    def _within(self, mutant: Mutant, ranked: Sequence[str], seconds: float) -> list[str]:
        """As many of these tests as fit into so long."""
        if not self.at_import(mutant):
            return self._some(ranked, seconds, least=0)
        result: list[str] = []
        for own in self._by_file(mutant, ranked):
            left = seconds - self._seconds(result) - COLLECT * len({_file(name) for name in result})
            if left > COLLECT:
                result += self._some(own, left - COLLECT, least=0)
        return result

    def _by_worth(self, mutant: Mutant, files: Collection[str] = ()) -> list[str]:
        """All tests that may notice a mutant, best first; of its module's files, or of these."""
        known, files = self.known, set(files or self.paths[mutant.path])
        if self.at_import(mutant):
            covering = {name for name, test in known.tests.items() if test.lines.get(mutant.path)}
            # a test that reads a table runs no line of the module
            beside = {name for name in known.tests if _file(name) in files}
        else:
            covering = known.covering(mutant.path, mutant.lines)
            beside = self._beside(covering)
        holding = holders(mutant.path)
        in_scope, in_module = self.kills[f"{mutant.path}:{mutant.scope}"], self.kills[mutant.path]

        def worth(name: str) -> float:
            chance = in_scope[name] + 0.2 * in_module[name] + (0.5 if _file(name) in holding else 0.1)
            return chance * (1 if name in covering else 0.01) / (known.tests[name].seconds + 0.01)

        return _ranked([name for name in covering | beside if _file(name) in files], worth)

    def _by_file(self, mutant: Mutant, ranked: Sequence[str]) -> list[list[str]]:
        """Tests by their files: first those that hold the module, then those that compare whole texts."""
        by_file: dict[str, list[str]] = {}
        for name in ranked:
            by_file.setdefault(_file(name), []).append(name)
        holding = holders(mutant.path)
        first = [file for file in by_file if file in holding]
        first += [file for file in by_file if Path(file).name == WHOLE and file not in holding]
        return [by_file[file] for file in (*first, *(file for file in by_file if file not in first))]

    def _seconds(self, names: Iterable[str]) -> float:
        return sum(self.known.tests[name].seconds for name in names)

    def _some(self, names: Sequence[str], seconds: float, *, least: int = 1) -> list[str]:
        """As many of these tests, in order, as fit into so long; the first also if it alone takes longer."""
        result: list[str] = []
        for name in names:
            if (own := self.known.tests[name].seconds) <= seconds or len(result) < least:
                seconds -= own
                result.append(name)
        return result

    def _beside(self, covering: set[str]) -> set[str]:
        """Tests that share a fixture with these in a file, and so may see what it remembers."""
        places = {(name.partition("::")[0], share) for name in covering for share in self.known.tests[name].shares}
        return {
            name
            for name, test in self.known.tests.items()
            if any((name.partition("::")[0], share) in places for share in test.shares)
        }

    def at_import(self, mutant: Mutant) -> bool:
        """Whether a change takes effect when its module is imported, and not later."""
        return not mutant.function or self.known.at_import(mutant.path, mutant.lines)

    def learn(self, outcome: Outcome) -> None:
        """Note which test killed a mutant."""
        if outcome.by:
            self.kills[f"{outcome.mutant.path}:{outcome.mutant.scope}"][outcome.by] += 1
            self.kills[outcome.mutant.path][outcome.by] += 1


def _file(name: str) -> str:
    return name.partition("::")[0]


def _ranked(names: Sequence[str], worth: Callable[[str], float]) -> list[str]:
    """Tests by their worth, where one more case of a test that comes before shows less than another test."""
    cases: Counter[str] = Counter()
    discounted = {}
    for name in sorted(names, key=lambda name: (-worth(name), name)):
        cases[name.partition("[")[0]] += 1
        discounted[name] = worth(name) / cases[name.partition("[")[0]]
    return sorted(names, key=lambda name: (-discounted[name], name))


# -- in a mutant's process ---------------------------------------------------------------------------------------------


class _Judge:
    """Runs chosen tests in order until one fails, and ends the process then, or if none does and no others follow."""

    def __init__(self, chosen: Sequence[str], seconds: dict[str, float], say: Say, *, last: bool = True) -> None:
        self.chosen = chosen
        self.last = last
        self.seconds = seconds
        self.say = say
        self.failed = False

    def pytest_runtest_logreport(self, report):
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session):
        self.judge({item.nodeid: item for item in session.items})
        if self.last:
            os._exit(0)
        return True

    def judge(self, items: dict[str, pytest.Item]) -> None:
        wanted = [items[name] for name in self.chosen if name in items]
        for number, item in enumerate(wanted):
            self.say(item.nodeid)
            _allow_processor_time(max(LEAST, SLOWER * self.seconds[item.nodeid]))
            try:
                following = wanted[number + 1] if number + 1 < len(wanted) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            except BaseException:  # noqa: BLE001 - whatever it is, the change did it
                self.failed = True
            if self.failed:
                os._exit(1)
        if not wanted:
            os._exit(1)  # they are not collected any more: the change did that


def _allow_processor_time(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _confine() -> None:
    silence()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, resource.RLIM_INFINITY))


def exchange_of(module: ModuleType, mutant: Mutant, source: bytes) -> tuple[FunctionType, CodeType] | None:
    """Return the function that a change is in and its new code, or None where that is not to be had."""
    old = _codes_of(source, str(module.__file__))
    new = _codes(compile(mutant.apply(source), str(module.__file__), "exec", dont_inherit=True))
    if len(old) != len(new):
        return None
    for before, after in zip(old, new, strict=True):
        last = max(line or 0 for _, _, line in before.co_lines())
        if f"{mutant.scope}.".startswith(f"{before.co_qualname}.") and before.co_firstlineno <= mutant.lines[0] <= last:
            function = _function(module, before)
            # without its super() a method closes over nothing: such code cannot take the other's place
            same = function is not None and after.co_freevars == before.co_freevars
            return (function, after) if function is not None and same else None
    return None


@functools.lru_cache(maxsize=8)
def _codes_of(source: bytes, path: str) -> list[CodeType]:
    return _codes(compile(source, path, "exec", dont_inherit=True))


def _codes(module: CodeType) -> list[CodeType]:
    """The code of all functions and methods that a module defines, in the order of the source."""
    found = []
    for one in module.co_consts:
        if isinstance(one, CodeType):
            is_class = not one.co_flags & 2  # CO_NEWLOCALS: a class has none
            found += _codes(one) if is_class else [one]
    return found


def _function(module: ModuleType, code: CodeType) -> FunctionType | None:
    holder: object = module
    *path, name = code.co_qualname.split(".")
    for part in path:
        holder = vars(holder).get(part)
        if holder is None:
            return None
    place = code.co_firstlineno, code.co_qualname, code.co_freevars
    return next(
        (
            function
            for function in _functions(vars(holder).get(name))
            if (function.__code__.co_firstlineno, function.__code__.co_qualname, function.__code__.co_freevars) == place
        ),
        None,
    )


def _functions(found: object) -> Iterator[FunctionType]:
    """The functions behind a name: itself, of a property or other decorator."""
    if isinstance(found, FunctionType):
        yield found
    for name in ("__wrapped__", "__func__", "func", "fget", "fset", "fdel"):
        inner = getattr(found, name, None)
        if inner is not None and inner is not found:
            yield from _functions(inner)


class MutatedImport(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives the module with the change in place of the one that is there."""

    def __init__(self, mutant: Mutant, source: bytes) -> None:
        self.name = name_of(mutant.path)
        self.path = str(ROOT / mutant.path)
        self.changed = mutant.apply(source)

    def find_spec(self, fullname, _path, _target=None):
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_filename(self, _fullname):
        return self.path

    def get_data(self, path):
        return self.changed if path == self.path else b""

    def path_stats(self, path):
        raise OSError(path)  # no compiled file is to be read or written


# -- in the process that starts them -----------------------------------------------------------------------------------


class _Running:
    def __init__(self, mutant: Mutant, work: Work) -> None:
        self.mutant = mutant
        self.heard = time.monotonic()
        self.worked = ""
        self.said = ""
        self.endless = False
        self.place = Place()
        self.forked = Forked(lambda say: self._in_place(work, say))

    def _in_place(self, work: Work, say: Say) -> None:
        self.place.enter()
        work(say)

    def hear(self) -> bool:
        """Read what it says; return whether it has ended."""
        text = os.read(self.forked.reads, 1 << 16).decode(errors="replace")
        self.heard = time.monotonic()
        self.said += text
        return not text

    def end_endless(self) -> None:
        """End it if it waits for what will not come, or fills memory without end."""
        try:
            with open(f"/proc/{self.forked.pid}/statm", encoding="ascii") as statm:  # noqa: PTH123
                filled = int(statm.read().split()[1]) * resource.getpagesize()
            with open(f"/proc/{self.forked.pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
                worked = " ".join(stat.read().rpartition(")")[2].split()[11:13])  # utime, stime
        except (OSError, IndexError):
            return
        if worked != self.worked:  # on a busy machine it has come on, if slowly
            self.worked, self.heard = worked, time.monotonic()
        if filled > MEMORY or time.monotonic() - self.heard > STUCK:
            self.endless = True
            self.forked.kill()

    def outcome(self) -> Outcome:
        status = os.waitstatus_to_exitcode(os.waitpid(self.forked.pid, 0)[1])
        self.forked.kill()
        self.place.remove()
        os.close(self.forked.reads)
        if status == FAULT:
            raise Failed(f"{self.mutant}: {self.said.partition(FAILED)[2]}")
        how = {0: "survives", 1: "fails", -signal.SIGXCPU: "does not end"}.get(status, "crashes")
        how = "does not end" if self.endless else how
        ran = tuple(self.said.splitlines())
        by = ran[-1] if ran and how != "survives" else ""
        return Outcome(self.mutant, how != "survives", by, how, ran)


def crowd(
    mutants: Sequence[Mutant],
    start: Callable[[Mutant], Work | None],
    done: Callable[[Outcome], bool],
    *,
    jobs: int,
    until: float,
) -> None:
    """Run mutants, ``jobs`` at a time, until all are done or the time is.

    Args:
        mutants: The mutants.
        start: Gives what is to be run in a mutant's process, or None where no test runs its line.
        done: Is told of each outcome, and says whether the mutant is to be tried again.
        jobs: How many at a time.
        until: A time of the monotonic clock, after which none is started.
    """
    waiting, running = list(reversed(mutants)), selectors.DefaultSelector()
    try:
        while waiting or running.get_map():
            while waiting and len(running.get_map()) < jobs:
                mutant = waiting.pop()
                if time.monotonic() > until:
                    waiting.clear()
                    break
                work = start(mutant)
                if work is None:
                    done(Outcome(mutant, killed=False, by="", how="no test"))
                    continue
                one = _Running(mutant, work)
                running.register(one.forked.reads, selectors.EVENT_READ, one)
            for key, _ in running.select(timeout=0.5):
                if key.data.hear():
                    running.unregister(key.fd)
                    if done(key.data.outcome()):
                        waiting.append(key.data.mutant)
            for key in list(running.get_map().values()):
                key.data.end_endless()
    finally:
        for key in list(running.get_map().values()):
            key.data.forked.kill()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(key.data.forked.pid, 0)
            key.data.place.remove()


class _Session:
    """Collects the tests once, for processes to be forked from there."""

    def __init__(self, work: Callable[[dict[str, pytest.Item]], None]) -> None:
        self.work = work
        self.judge: _Judge | None = None
        self.error: Exception | None = None

    def pytest_runtest_logreport(self, report):
        if self.judge is not None:
            self.judge.pytest_runtest_logreport(report)

    def pytest_runtestloop(self, session):
        try:
            self.work({item.nodeid: item for item in session.items})
        except Exception as error:  # noqa: BLE001 - pytest would make it an error of its own
            self.error = error
        return True


class Runner:
    """Runs mutants of modules.

    Args:
        known: Which test runs which line.
        paths: For each module, the files of the tests that are to kill its mutants.
        jobs: How many mutants at a time.
    """

    def __init__(self, known: Map, paths: dict[str, list[str]], *, jobs: int) -> None:
        self.known = known
        self.order = Order(known, paths)
        self.seconds = {name: test.seconds for name, test in known.tests.items()}
        self.sources = {path: (ROOT / path).read_bytes() for path in paths}
        self.jobs = jobs

    def run(self, mutants: Sequence[Mutant], done: Callable[[Outcome], None], *, until: float) -> None:
        """Try mutants and tell ``done`` of each outcome, which may happen in another process.

        Args:
            mutants: The mutants.
            done: Is told of each outcome.
            until: A time of the monotonic clock, after which none is started.
        """
        for name in self.known.preload:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        late = [mutant for mutant in mutants if not self.order.at_import(mutant)]
        early = [mutant for mutant in mutants if self.order.at_import(mutant)]
        if late:
            share = until - (until - time.monotonic()) * len(early) / len(mutants)
            files = sorted(
                {_file(name) for one in late for name in (*self.order.tests(one), *self.order.others(one, ()))}
            )
            not_found = Forked(lambda say: self._late(files, late, done, share, say)).result()
            early += [late[int(number)] for number in not_found.split()]

        self._crowd(early, self._early, done, until)

    def _crowd(
        self,
        mutants: Sequence[Mutant],
        attempt: Callable[[Mutant, Sequence[str], Say], None],
        done: Callable[[Outcome], None],
        until: float,
    ) -> None:
        """Try mutants with the best tests, and those that survive these with the others.

        Before the first that a test kills is counted, the same tests are run without any change: they must pass.
        """
        confirmed: set[str] = set()
        survived: dict[Mutant, tuple[str, ...]] = {}

        def tests_for(mutant: Mutant) -> list[str]:
            first = self.order.tests(mutant) if mutant not in survived else []
            return first or self.order.others(mutant, survived.get(mutant, ()))

        def start(mutant: Mutant) -> Work | None:
            tests = tests_for(mutant)
            return functools.partial(attempt, mutant, tests) if tests else None

        def finished(outcome: Outcome) -> bool:
            mutant, by = outcome.mutant, outcome.by
            if outcome.killed and by not in confirmed:
                unchanged = replace(mutant, text=self.sources[mutant.path][mutant.start : mutant.end].decode())
                control = _Running(
                    unchanged, functools.partial(attempt, unchanged, outcome.ran or tests_for(mutant)[:1])
                )
                while not control.hear():
                    pass
                if (end := control.outcome()).killed:
                    self._leave_out(mutant, end)
                    return True
                confirmed.add(by)
            if outcome.how == "survives" and mutant not in survived:
                survived[mutant] = outcome.ran
                if self.order.others(mutant, outcome.ran):
                    return True
            self.order.learn(outcome)
            done(outcome)
            return False

        crowd(mutants, start, finished, jobs=self.jobs, until=until)

    def _leave_out(self, mutant: Mutant, end: Outcome) -> None:
        """Try mutants without a test that failed though nothing was changed: one that measures time, perhaps.

        Raises:
            Failed: No test was run.
        """
        if not end.by:
            raise Failed(f"{mutant.path} {end.how} without any change")
        if self.known.tests.pop(end.by, None):  # another mutant may have met it at the same time
            print(f"left out: {end.by} {end.how} without any change", file=sys.stderr, flush=True)

    def _late(
        self, files: list[str], mutants: Sequence[Mutant], done: Callable[[Outcome], None], until: float, say: Say
    ) -> None:
        """Try changes within functions, from a process that has collected all tests; say which cannot be made there."""

        def each(items: dict[str, pytest.Item]) -> None:
            made = {}
            for number, mutant in sorted(enumerate(mutants), key=lambda one: one[1].path):
                module = importlib.import_module(name_of(mutant.path))
                found = exchange_of(module, mutant, self.sources[mutant.path])
                if found is not None:
                    made[mutant] = found
                else:
                    say(str(number))
            # what is here already is not garbage: a collection in a child would only copy all pages
            gc.collect()
            gc.freeze()
            can = [mutant for mutant in mutants if mutant in made]
            self._crowd(can, functools.partial(self._exchanged, session, items, made), done, until)

        silence(errors=False)
        session = _Session(each)
        run_pytest(files, session)
        if session.error is not None:
            raise session.error

    def _exchanged(
        self,
        session: _Session,
        items: dict[str, pytest.Item],
        made: dict[Mutant, tuple[FunctionType, CodeType]],
        mutant: Mutant,
        tests: Sequence[str],
        say: Say,
    ) -> None:
        _confine()
        if mutant in made:  # else it is the code as it is, run to see that its tests pass
            function, code = made[mutant]
            function.__code__ = code
        session.judge = _Judge(tests, self.seconds, say)
        session.judge.judge(items)

    def _early(self, mutant: Mutant, tests: Sequence[str], say: Say) -> None:
        """Try a change that takes effect at import, in a process that has imported nothing of the package."""
        _confine()
        _allow_processor_time(FIRST)
        sys.meta_path.insert(0, MutatedImport(mutant, self.sources[mutant.path]))
        by_file: dict[str, list[str]] = {}
        for name in tests:
            by_file.setdefault(name.partition("::")[0], []).append(name)
        with contextlib.suppress(Failed):
            for file, own in by_file.items():  # one after the other: the first kills most
                _allow_processor_time(FIRST)
                run_pytest([file], _Judge(own, self.seconds, say, last=file == list(by_file)[-1]))
        os._exit(1)  # the tests could not even be collected
