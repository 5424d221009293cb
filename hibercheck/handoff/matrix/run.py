"""Filling a matrix on all cores."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hibercheck.errors import HibercheckError, InputProblem, UsageProblem
from hibercheck.handoff.check import check
from hibercheck.handoff.findings import Outcome, Verdict
from hibercheck.handoff.matrix.brief import Brief
from hibercheck.handoff.matrix.collect import read_brief
from hibercheck.handoff.matrix.pair import Cell, Turn, compare_loops, image_share, judge_pair, outlook
from hibercheck.handoff.matrix.scenario import Scenario, Settings
from hibercheck.handoff.matrix.table import Matrix, Member
from hibercheck.handoff.options import CheckOptions

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_CHUNK = 8
_FEW = 16
_KERNEL = 8
"""A kernel takes as long to read as many facts files: from two on it is worth a process."""


class _Shared:
    """What every worker process has: set once, when it starts, as sending it with each task would cost more."""

    briefs: Sequence[Brief] = ()
    settings: Settings = Settings()
    images: Mapping[int, str] = {}
    outlooks: Sequence[int] = ()


def _start(briefs: Sequence[Brief], settings: Settings, images: Mapping[int, str]) -> None:
    _Shared.briefs, _Shared.settings, _Shared.images = briefs, settings, images
    seen: dict[tuple[object, ...], int] = {}
    _Shared.outlooks = [seen.setdefault(outlook(brief, settings), len(seen)) for brief in briefs]


def fill(
    paths: Sequence[str],
    settings: Settings,
    *,
    images: Mapping[str, str],
    cache: Path | None,
    shard: tuple[int, int] = (1, 1),
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Matrix:
    """Judge every pair.

    Args:
        paths: The kernels; one that is there twice (by build id) counts once.
        settings: The machine, the scenarios, what is supposed.
        images: Images by the path of the kernel that wrote them: cells of that resumee become exact.
        cache: Where facts are kept, or None to keep none.
        shard: (I, N): only every N-th resumer, from the I-th on.
        jobs: Processes; by default as many as there are CPUs to run on.
        progress: Called now and then.

    Raises:
        HibercheckError: A kernel or an image cannot be read.
    """
    jobs = jobs or len(os.sched_getaffinity(0))
    tell = progress or (lambda _what, _done, _of: None)
    briefs = _distinct(_read(paths, settings, cache, jobs, tell))
    known = {os.path.realpath(path): image for path, image in images.items()}
    attached = {
        number: known[os.path.realpath(brief.path)]
        for number, brief in enumerate(briefs)
        if os.path.realpath(brief.path) in known
    }
    if len(attached) < len(known):
        raise UsageProblem("--image names a kernel that is not in the matrix, or that is there under another path")
    members = tuple(
        Member(brief.release, brief.build_id, brief.path, attached.get(number)) for number, brief in enumerate(briefs)
    )
    names = tuple(scenario.name for scenario in settings.scenarios)
    matrix = Matrix(members, names, assumptions(settings, briefs))
    wanted = range(shard[0] - 1, len(briefs), shard[1])
    with _workers(jobs, len(wanted) * len(briefs), briefs, settings, attached) as apply:
        for done, (resumer, cells, rows) in enumerate(apply(_row, wanted), 1):
            matrix.add(resumer, cells, rows)
            tell("pairs", done * len(briefs), len(wanted) * len(briefs))
    return matrix


def assumptions(settings: Settings, briefs: Sequence[Brief]) -> tuple[tuple[str, str], ...]:
    """Say what a matrix takes for granted, for its readers and for `table.merge`."""
    machine = settings.machine
    shares = sorted({image_share(brief, settings) for brief in briefs})
    share = f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} to {shares[-1]:.0%}" if shares else "-"
    cores = f"{machine.cpus} CPUs, {machine.threads} to a core"
    return (
        ("machine", f"{cores}, {machine.vendor}, {'with' if machine.mwait else 'without'} MWAIT"),
        ("paging", "five levels where kernels can" if machine.la57 else "four levels"),
        ("memory", f"{machine.memory >> 20} MiB"),
        ("share of memory in an image", share),
        ("spurious MWAIT exits", "yes" if settings.spurious_mwait else "no"),
        ("events supposed after the handoff", ", ".join(sorted(settings.suppose)) or "none"),
        *((f"scenario {scenario.name}", _described(scenario)) for scenario in settings.scenarios),
    )


def _described(scenario: Scenario) -> str:
    parts = [f"R boots with '{scenario.resumer_cmdline}'"]
    if scenario.resumee_cmdline is not None:
        parts.append(f"E with '{scenario.resumee_cmdline}'")
    for cpus, who in ((scenario.resumer_offline, "R"), (scenario.resumee_offline, "E")):
        if cpus:
            parts.append(f"CPU {','.join(map(str, sorted(cpus)))} offline in {who}")
    if scenario.idle is not None:
        parts.append(f"cpuidle parks by {scenario.idle}")
    return ", ".join(parts)


def _read(paths: Sequence[str], settings: Settings, cache: Path | None, jobs: int, tell: Progress) -> list[Brief]:
    briefs = []
    amount = sum(1 if path.endswith(".json") else _KERNEL for path in paths)
    with _workers(jobs, amount, (), settings, {}) as apply:
        for done, brief in enumerate(apply(_Reader(cache), paths), 1):
            briefs.append(brief)
            tell("kernels", done, len(paths))
    return briefs


class _Reader:
    """Reads one kernel in a worker."""

    def __init__(self, cache: Path | None) -> None:
        self.cache = cache

    def __call__(self, path: str) -> Brief:
        return read_brief(path, _Shared.settings, self.cache)


def _distinct(briefs: list[Brief]) -> list[Brief]:
    """Drop kernels that are there already."""
    seen: set[str] = set()
    kept = []
    for brief in briefs:
        if brief.build_id is None or brief.build_id not in seen:
            kept.append(brief)
        if brief.build_id is not None:
            seen.add(brief.build_id)
    return kept


@contextmanager
def _workers(
    jobs: int, amount: int, briefs: Sequence[Brief], settings: Settings, images: Mapping[int, str]
) -> Iterator[Callable[[Callable[[Any], T], Sequence[Any]], Iterator[T]]]:
    """Give a map that keeps order: over processes where there is enough to do, else in this one."""
    if jobs == 1 or (amount < _FEW and not images):
        _start(briefs, settings, images)
        yield map
        _start((), Settings(), {})
        return
    size = max(1, min(_CHUNK, amount // (jobs * _CHUNK)))
    with ProcessPoolExecutor(jobs, initializer=_start_worker, initargs=(briefs, settings, images)) as pool:
        try:
            yield lambda function, items: pool.map(function, items, chunksize=1 if images else size)
        except BrokenProcessPool as error:
            raise InputProblem("a worker process died; is there enough memory?", advice="try --jobs 1") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(briefs: Sequence[Brief], settings: Settings, images: Mapping[int, str]) -> None:
    """Set up a worker; an interrupt is for the main process, which then ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _start(briefs, settings, images)


def _row(resumer: int) -> tuple[int, list[Cell], list[bytes | list[int]]]:
    """Judge one resumer with every resumee; return its distinct cells, and numbers into them by scenario."""
    briefs, settings = _Shared.briefs, _Shared.settings
    numbers: dict[Cell, int] = {}
    known: dict[tuple[int, tuple[Turn, ...]], list[int]] = {}
    judged: list[list[int]] = []
    ours = briefs[resumer]
    for place, theirs in enumerate(briefs):
        image = _Shared.images.get(place)
        if image is not None:
            judged.append([numbers.setdefault(cell, len(numbers)) for cell in _exact(ours, theirs, image, settings)])
            continue
        turns = compare_loops(ours, theirs)
        key = (_Shared.outlooks[place], turns)
        if key not in known:
            cells = judge_pair(ours, theirs, settings, turns)
            known[key] = [numbers.setdefault(cell, len(numbers)) for cell in cells]
        judged.append(known[key])
    rows: list[list[int]] = [list(row) for row in zip(*judged, strict=True)]
    packed: list[bytes | list[int]] = [bytes(row) if len(numbers) <= 256 else row for row in rows]
    return resumer, list(numbers), packed


def _exact(resumer: Brief, resumee: Brief, image: str, settings: Settings) -> list[Cell]:
    """Replay a resumee's own image in every scenario."""
    return [_replayed(resumer, resumee, image, scenario, settings) for scenario in settings.scenarios]


def _replayed(resumer: Brief, resumee: Brief, image: str, scenario: Scenario, settings: Settings) -> Cell:
    options = CheckOptions(
        resumer_cmdline=scenario.resumer_cmdline,
        resumer_offline=scenario.resumer_offline,
        resumer_idle=scenario.idle,
        spurious_mwait=settings.spurious_mwait,
        suppose=settings.suppose,
    )
    try:
        report = check(image, resumer.path, resumee.path, options)
    except UsageProblem as problem:  # the scenario is not of this image's machine
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, problem.message, exact=True)
    except HibercheckError as problem:
        if problem.exit_status != 4:
            raise
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, problem.message, exact=True)
    share = None if report.share is None else round(report.share.failing / max(report.share.placements, 1), 2)
    return Cell(report.outcome, report.verdict, report.headline, share, exact=True)
