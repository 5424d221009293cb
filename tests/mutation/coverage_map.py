"""Which test runs which line of the package, and for how long: measured once, kept, and renewed where tests changed.

A line that a fixture runs counts for every test that uses the fixture, whichever of them made it.  Where a module has
changed, its lines are found again by what stands in them: a changed one counts for the tests that ran those before it.
The map only says which tests to try, and in which order.
"""

from __future__ import annotations

import difflib
import functools
import gc
import hashlib
import json
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mutation.core import ROOT
from tests.mutation.session import Forked, run_pytest, silence

CACHE = ROOT / ".mutation"
MAP = CACHE / "coverage.json"
AT_ONCE = 30
"""Files of tests that are measured before what was found is kept."""
ONCE = "once:"
"""Begins the name of a fixture that several tests share."""

Lines = dict[str, int]
"""Lines of modules by path: bit n of the number is line n."""


@dataclass
class Test:
    """What is known of one test that passes.

    Attributes:
        seconds: Processor time that it took, with what it set up, and with processes that it started.
        lines: The lines it ran.
        shares: Fixtures that it shares with other tests.
    """

    seconds: float
    lines: Lines
    shares: list[str]


@dataclass
class Map:
    """What is known of all of them.

    Attributes:
        tests: By node id.
        shared: Lines that making a shared fixture ran, by its name.
        imported: Lines that run when a module is imported.
        preload: Modules of others that tests import.
        stamps: What each file of tests was.
        sources: The lines of each module.
    """

    tests: dict[str, Test] = field(default_factory=dict)
    shared: dict[str, Lines] = field(default_factory=dict)
    imported: Lines = field(default_factory=dict)
    preload: list[str] = field(default_factory=list)
    stamps: dict[str, str] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)

    def covering(self, path: str, lines: Iterable[int]) -> set[str]:
        """The tests that run any of these lines of a module."""
        wanted = _bits(lines)
        fixtures = {name for name, ran in self.shared.items() if ran.get(path, 0) & wanted}
        return {
            name
            for name, test in self.tests.items()
            if test.lines.get(path, 0) & wanted or not fixtures.isdisjoint(test.shares)
        }

    def at_import(self, path: str, lines: Iterable[int]) -> bool:
        """Whether any of these lines runs when modules are imported."""
        return bool(self.imported.get(path, 0) & _bits(lines))


def measured(files: list[str], jobs: int = 2) -> Map:
    """Measure these files of tests, but for those that are what they were when they were measured.

    What is measured is kept a few files at a time: a run that is ended has measured something.
    """
    known, hashes = _load(), {file: _hash(file) for file in files}
    _follow_sources(known)
    stale = [file for file in files if known.stamps.get(file) != hashes[file]]
    if not stale:
        return known
    print(f"which test runs which line: {len(stale)} files of tests", file=sys.stderr, flush=True)
    known.tests = {name: test for name, test in known.tests.items() if _file(name) not in stale}
    known.stamps = {file: stamp for file, stamp in known.stamps.items() if file not in stale}
    for first in range(0, len(stale), AT_ONCE):
        some = stale[first : first + AT_ONCE]
        for part in _measure(some, jobs):
            _add(known, part)
        known.stamps |= {file: hashes[file] for file in some}
        _store(known)
    return known


def _add(known: Map, part: dict) -> None:
    known.tests |= {
        name: Test(test["seconds"], _numbers(test["lines"]), test["shares"]) for name, test in part["tests"].items()
    }
    known.shared |= {name: _numbers(lines) for name, lines in part["shared"].items()}
    for path, lines in _numbers(part["imported"]).items():
        known.imported[path] = known.imported.get(path, 0) | lines
    known.preload = sorted({*known.preload, *part["preload"]})


def _hash(file: str) -> str:
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]


def _follow_sources(known: Map) -> None:
    """Find the lines of modules that have changed again."""
    now = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").splitlines()
        for path in sorted((ROOT / "hibercheck").rglob("*.py"))
    }
    moved = {path: moves(known.sources[path], lines) for path, lines in now.items() if path in known.sources}
    moved = {path: places for path, places in moved.items() if places is not None}
    ran = [test.lines for test in known.tests.values()] + [*known.shared.values(), known.imported]
    for lines in ran:
        for path, places in moved.items():
            if lines.get(path):
                lines[path] = _moved(lines[path], places)
    known.sources = now


def moves(before: list[str], after: list[str]) -> list[range] | None:
    """Return which lines stand now where each was, from line 1 on; None if nothing has changed."""
    if before == after:
        return None
    places = [range(0)] * (len(before) + 1)
    for _, start, end, first, last in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        same = end - start == last - first
        for number in range(start, end):
            places[number + 1] = (
                range(first + number - start + 1, first + number - start + 2) if same else range(first + 1, last + 1)
            )
        if start == end and start:  # new lines run, perhaps, where the one before them does
            places[start] = range(places[start].start, last + 1)
    return places


def _moved(bits: int, places: list[range]) -> int:
    return _bits(now for line in range(1, len(places)) if bits >> line & 1 for now in places[line])


def _file(name: str) -> str:
    return name.partition("::")[0]


def _bits(lines: Iterable[int]) -> int:
    return functools.reduce(lambda bits, line: bits | 1 << line, lines, 0)


# -- measuring ---------------------------------------------------------------------------------------------------------


def _measure(files: list[str], jobs: int) -> list[dict]:
    """Run these files of tests in so many processes and give what each measured."""
    parts = [files[number::jobs] for number in range(jobs)]
    running = [Forked(functools.partial(_measure_part, part)) for part in parts if part]
    return [json.loads(one.result()) for one in running]


def _measure_part(files: list[str], say: Callable[[str], None]) -> None:
    import coverage  # noqa: PLC0415 - not before the fork

    silence()
    before = set(sys.modules)
    cov = coverage.Coverage(data_file=None, include=[str(ROOT / "hibercheck/*")], config_file=False)
    plugin = _Measuring(cov)
    cov.start()
    run_pytest(files, plugin)
    cov.stop()
    found: dict[str, Lines] = defaultdict(lambda: defaultdict(int))
    data = cov.get_data()
    for path in data.measured_files():
        relative = str(Path(path).relative_to(ROOT))
        for line, contexts in data.contexts_by_lineno(path).items():
            for context in contexts:
                found[context][relative] |= 1 << line
    others = {name for name in set(sys.modules) - before if name.partition(".")[0] not in {"hibercheck", "tests"}}
    tests = {
        name: {"seconds": round(seconds, 4), "lines": _text(found[name]), "shares": plugin.shares[name]}
        for name, seconds in plugin.seconds.items()
        if name in plugin.passed
    }
    shared = {name: _text(lines) for name, lines in found.items() if name.startswith(ONCE)}
    imported = _text(found[""])
    say(json.dumps({"tests": tests, "shared": shared, "imported": imported, "preload": sorted(others)}))


class _Measuring:
    """Tells coverage which test or shared fixture runs."""

    def __init__(self, cov) -> None:
        self.cov = cov
        self.seconds: dict[str, float] = {}
        self.passed: set[str] = set()
        self.shares: dict[str, list[str]] = {}
        self.context = ""
        self.modules = 0
        self.caches: list = []

    def switch(self, context: str) -> None:
        self.context = context
        self.cov.switch_context(context)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self.forget()
        definitions = [item._fixtureinfo.name2fixturedefs.get(name, ())[-1:] for name in item.fixturenames]
        names = [shared_name(definition) for last in definitions for definition in last]
        self.shares[item.nodeid] = [name for name in names if name]
        began = processor_time()
        self.switch(item.nodeid)
        try:
            return (yield)
        finally:
            self.switch("")
            self.seconds[item.nodeid] = processor_time() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        name, before = shared_name(fixturedef), self.context
        if name:
            self.switch(name)
        try:
            return (yield)
        finally:
            self.switch(before)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.passed.discard(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def forget(self) -> None:
        """Clear what functions remember of earlier calls, so that each test runs all that it needs."""
        if len(sys.modules) != self.modules:
            self.modules = len(sys.modules)
            kind = type(functools.cache(id))
            ours = [one for one in gc.get_objects() if type(one) is kind]
            self.caches = [one for one in ours if str(one.__module__).partition(".")[0] in {"hibercheck", "tests"}]
        for one in self.caches:
            one.cache_clear()


def processor_time() -> float:
    """Seconds of it that this process took, and those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def shared_name(definition) -> str | None:
    """What a fixture that is made once for several tests is called, or None for one that each test makes."""
    return None if definition.scope == "function" else f"{ONCE}{definition.baseid}:{definition.argname}"


# -- keeping -----------------------------------------------------------------------------------------------------------


def _text(lines: Lines) -> dict[str, str]:
    return {path: f"{bits:x}" for path, bits in lines.items()}


def _numbers(lines: dict[str, str]) -> Lines:
    return {path: int(bits, 16) for path, bits in lines.items()}


def _store(known: Map) -> None:
    CACHE.mkdir(exist_ok=True)
    tests = {name: {**vars(test), "lines": _text(test.lines)} for name, test in known.tests.items()}
    shared = {name: _text(lines) for name, lines in known.shared.items()}
    MAP.write_text(json.dumps({**vars(known), "tests": tests, "shared": shared, "imported": _text(known.imported)}))


def _load() -> Map:
    try:
        plain = json.loads(MAP.read_text())
    except (OSError, ValueError):
        return Map()
    plain["tests"] = {name: Test(**{**test, "lines": _numbers(test["lines"])}) for name, test in plain["tests"].items()}
    plain["shared"] = {name: _numbers(lines) for name, lines in plain["shared"].items()}
    return Map(**{**plain, "imported": _numbers(plain["imported"])})
