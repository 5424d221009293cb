"""Filling a matrix on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from hibercheck.children import ChildEnded, mapped
from hibercheck.cpulist import cpu_phrase
from hibercheck.data import replace
from hibercheck.errors import HibercheckError, InputProblem, UsageProblem
from hibercheck.files.inputs import Identity, note, watching
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.matrix.collect import read_summary
from hibercheck.handoff.matrix.pair import Cell, Judge, image_share, outlook, overlap_of
from hibercheck.handoff.matrix.pairing import of_pair, options_of
from hibercheck.handoff.matrix.scenario import Scenario, Settings
from hibercheck.handoff.matrix.summary import Summary
from hibercheck.handoff.matrix.table import Matrix, Member
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Level, Outcome, Report, Verdict
from hibercheck.kernel.cache import KernelCache
from hibercheck.kernel.code.traits import Traits

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_CHUNK = 8
_FEW = 16
_KERNEL = 8
"""A kernel takes as long to read as many facts files: from two on it is worth a process."""


class _Shared:
    """What every worker process has: set before it is forked, as sending it with each task would cost more."""

    summaries: Sequence[Summary] = ()
    settings: Settings = Settings()
    images: Mapping[int, str] = {}
    outlooks: Sequence[int] = ()


def _start(summaries: Sequence[Summary], settings: Settings, images: Mapping[int, str]) -> None:
    _Shared.summaries, _Shared.settings, _Shared.images = summaries, settings, images
    seen: dict[tuple[object, ...], int] = {}
    _Shared.outlooks = [seen.setdefault(outlook(summary, settings), len(seen)) for summary in summaries]


def fill(
    paths: Sequence[str],
    settings: Settings,
    *,
    images: Mapping[str, str],
    cache: KernelCache | None,
    shard: tuple[int, int] = (1, 1),
    jobs: int | None = None,
    progress: Progress | None = None,
    unread: Callable[[str, HibercheckError], bool] = lambda _path, _error: False,
) -> Matrix:
    """Judge every pair.

    Args:
        paths: The kernels; one that is there twice (of the same build id, and alike) counts once.
        settings: The machine, the scenarios, what is supposed.
        images: Images by the path of the kernel that wrote them: cells of that resumee become exact.
        cache: Where facts are kept, or None to keep none.
        shard: (I, N): only every N-th resumer, from the I-th on.
        jobs: Processes; by default as many as there are CPUs to run on.
        progress: Called now and then.
        unread: Called for a kernel that cannot be read; whether the others are judged without it.

    Raises:
        HibercheckError: A kernel or an image cannot be read.
    """
    jobs = jobs or len(os.sched_getaffinity(0))
    tell = progress or (lambda _what, _done, _of: None)
    summaries = _distinct(_read(paths, settings, cache, jobs, tell, unread))
    known = {os.path.realpath(path): image for path, image in images.items()}
    attached = {
        number: known[os.path.realpath(summary.path)]
        for number, summary in enumerate(summaries)
        if os.path.realpath(summary.path) in known
    }
    if len(attached) < len(known):
        raise UsageProblem("--image names a kernel that is not in the matrix, or that is there under another path")
    members = tuple(
        Member(summary.release, summary.build_id, summary.path, attached.get(number))
        for number, summary in enumerate(summaries)
    )
    names = tuple(scenario.name for scenario in settings.scenarios)
    matrix = Matrix(members, names, assumptions(settings, summaries), () if shard == (1, 1) else (shard,))
    mine = range(shard[0] - 1, len(summaries), shard[1])
    wanted = sorted(mine, key=lambda number: summaries[number].kind)  # plans are kept for a few kinds of kernels
    with _workers(jobs, len(wanted) * len(summaries), summaries, settings, attached) as apply:
        for done, (resumer, cells, rows) in enumerate(apply(_row, wanted), 1):
            matrix.add(resumer, cells, rows)
            tell("pairs", done * len(summaries), len(wanted) * len(summaries))
    return matrix


def assumptions(settings: Settings, summaries: Sequence[Summary]) -> tuple[tuple[str, str], ...]:
    """Say what a matrix takes for granted, for its readers and for `table.merge`."""
    machine = settings.machine
    shares = sorted({image_share(summary, settings) for summary in summaries})
    share = f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} to {shares[-1]:.0%}" if shares else "-"
    cores = f"{machine.cpus} CPUs, {machine.threads} to a core"
    return (
        ("machine", f"{cores}, {machine.vendor}, {'with' if machine.mwait else 'without'} MWAIT"),
        ("paging", "five levels where kernels can" if machine.la57 else "four levels"),
        ("memory", f"{machine.memory >> 20} MiB"),
        ("place", "where it is linked, for a kernel without KASLR"),
        ("share of memory in an image", share),
        ("spurious MWAIT exits", "always" if settings.mwait_spins else "yes" if settings.spurious_mwait else "no"),
        ("events supposed after the handoff", ", ".join(sorted(settings.suppose)) or "none"),
        *((f"scenario {scenario.name}", _described(scenario)) for scenario in settings.scenarios),
    )


def _quoted(command_line: str) -> str:
    return f"'{command_line}'" if command_line else "an empty command line"


def _described(scenario: Scenario) -> str:
    parts = [f"R boots with {_quoted(scenario.resumer_cmdline)}"]
    if scenario.resumee_cmdline is not None:
        parts.append(f"E with {_quoted(scenario.resumee_cmdline)}")
    for cpus, what in (
        (scenario.resumer_offline, "offline in R"),
        (scenario.resumee_offline, "offline in E"),
        (scenario.resumee_online, "brought online again by E"),
    ):
        if cpus:
            parts.append(f"{cpu_phrase(cpus)} {what}")
    parts += [f"{name} is {value}" for name, value in scenario.facts]
    if scenario.idle is not None:
        parts.append(f"cpuidle parks by {scenario.idle}")
    return ", ".join(parts)


def _read(
    paths: Sequence[str],
    settings: Settings,
    cache: KernelCache | None,
    jobs: int,
    tell: Progress,
    unread: Callable[[str, HibercheckError], bool],
) -> list[Summary]:
    summaries, kinds = [], dict[str, Traits]()
    amount = sum(1 if path.endswith(".json") else _KERNEL for path in paths)
    with _workers(jobs, amount, (), settings, {}) as apply:
        for done, (path, (summary, opened)) in enumerate(zip(paths, apply(_Reader(cache), paths), strict=True), 1):
            note(opened)
            tell("kernels", done, len(paths))
            if isinstance(summary, HibercheckError):
                if not unread(path, summary):
                    raise summary
                continue
            # one record of traits for all kernels of a kind: their scenarios are the same
            summaries.append(replace(summary, traits=kinds.setdefault(summary.kind, summary.traits)))
    return summaries


class _Reader:
    """Reads one kernel in a worker, or says why not, and what was opened for that: no output may overwrite it."""

    def __init__(self, cache: KernelCache | None) -> None:
        self.cache = cache

    def __call__(self, path: str) -> tuple[Summary | HibercheckError, dict[Identity, str]]:
        with watching() as inputs:
            try:
                return read_summary(path, self.cache), inputs.opened
            except HibercheckError as error:
                return error, inputs.opened


def _distinct(summaries: list[Summary]) -> list[Summary]:
    """Drop kernels that are there already: of the same build id, and alike in all that counts.

    A build id alone says little: it is copied when a kernel is packed again, and a build may be told which to write.
    """
    kept: list[Summary] = []
    seen: dict[str | None, list[Summary]] = {}
    for summary in summaries:
        same = seen.setdefault(summary.build_id, [])
        if summary.build_id is None or not any(replace(one, path=summary.path) == summary for one in same):
            kept.append(summary)
            same.append(summary)
    return kept


@contextmanager
def _workers(
    jobs: int, amount: int, summaries: Sequence[Summary], settings: Settings, images: Mapping[int, str]
) -> Iterator[Callable[[Callable[[Any], T], Sequence[Any]], Iterator[T]]]:
    """Give a map that keeps order: over processes where there is enough to do, else in this one."""
    _start(summaries, settings, images)
    size = 1 if images else max(1, min(_CHUNK, amount // (jobs * _CHUNK)))
    try:
        with ExitStack() as stack:
            if jobs == 1 or (amount < _FEW and not images):
                yield map
            else:
                yield lambda function, items: stack.enter_context(mapped(function, items, jobs=jobs, chunk=size))
    except ChildEnded as error:
        raise InputProblem("a worker process died; is there enough memory?", advice="try --jobs 1") from error
    finally:
        _start((), Settings(), {})


def _row(resumer: int) -> tuple[int, list[Cell], list[bytes | list[int]]]:
    """Judge one resumer with every resumee; return its distinct cells, and numbers into them by scenario."""
    summaries, settings = _Shared.summaries, _Shared.settings
    numbers: dict[Cell, int] = {}
    asked: dict[int, tuple[tuple[int, int], ...]] = {}
    known: dict[tuple[object, ...], list[int]] = {}
    judged: list[list[int]] = []
    ours = summaries[resumer]
    for place, theirs in enumerate(summaries):
        image = _Shared.images.get(place)
        if image is not None:
            judged.append([numbers.setdefault(cell, len(numbers)) for cell in _exact(ours, theirs, image, settings)])
            continue
        alike = _Shared.outlooks[place]
        loops = asked.get(alike)
        if loops is None:
            judge = Judge(ours, theirs, settings)
            cells = judge.cells()
            loops = asked[alike] = tuple(judge.asked)
            key = (alike, *judge.asked.values())
            known[key] = [numbers.setdefault(cell, len(numbers)) for cell in cells]
        else:
            key = (alike, *(overlap_of(ours, ours.loops[loop], theirs, levels) for loop, levels in loops))
            if key not in known:
                cells = Judge(ours, theirs, settings).cells()
                known[key] = [numbers.setdefault(cell, len(numbers)) for cell in cells]
        judged.append(known[key])
    rows: list[list[int]] = [list(row) for row in zip(*judged, strict=True)]
    packed: list[bytes | list[int]] = [bytes(row) if len(numbers) <= 256 else row for row in rows]
    return resumer, list(numbers), packed


def _exact(resumer: Summary, resumee: Summary, image: str, settings: Settings) -> list[Cell]:
    """Replay a resumee's own image in every scenario."""
    return [_replayed(resumer, resumee, image, scenario, settings) for scenario in settings.scenarios]


def _replayed(resumer: Summary, resumee: Summary, image: str, scenario: Scenario, settings: Settings) -> Cell:
    options = of_pair(options_of(scenario, settings), resumer.traits, resumee.traits, scenario)
    try:
        report = check(image, resumer.path, resumee.path, options)
    except UsageProblem as problem:  # the scenario is not of this image's machine
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, problem.message, exact=True)
    except HibercheckError as problem:
        if problem.exit_status != 4:
            raise
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, problem.message, exact=True)
    reason = _of_another(report, scenario)
    if reason is not None:
        return Cell(Outcome.UNDETERMINED, Verdict.UNDETERMINED, reason, exact=True)
    share = None if report.share is None else round(report.share.failing / max(report.share.placements, 1), 2)
    rules = tuple(sorted({one.rule for one in report.findings if one.level >= Level.WARNING}))
    return Cell(
        report.outcome,
        report.verdict,
        report.headline,
        share,
        exact=True,
        conditions=report.conditions,
        rules=rules,
        warnings=report.warnings,
    )


def _of_another(report: Report, scenario: Scenario) -> str | None:
    """Say that a scenario's resumee hibernated with CPUs offline that the image's had online, or return None.

    One that runs with SMT off may start a CPU that was offline too (`reinitialised_by` of the plan).
    """
    line = parse_command_line(report.resumee.command_line or "")
    started = {one.cpu for one in report.cpus if one.fate is Fate.REINITIALISED}
    online = started & (scenario.resumee_offline - scenario.resumee_online)
    if not online or line.nosmt or line.nosmt_if_bugs:
        return None
    return f"the image's resumee had {cpu_phrase(online)} online when it hibernated, and the scenario has it otherwise"
