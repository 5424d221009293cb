"""``hibercheck matrix``: every resumer with every resumee; ``hibercheck matrix merge``: put shards together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GATE, GENERAL, GroupedCommand, general_options, given_by_hand, option
from hibercheck.cli.shared import OUTPUT, SCENARIO, WORK, formats_option, shared
from hibercheck.cli.terminal import say
from hibercheck.cli.values import PathType, WholeType
from hibercheck.numbers import decimal

if TYPE_CHECKING:
    import datetime

    from hibercheck.cli.job import Output
    from hibercheck.errors import HibercheckError
    from hibercheck.handoff.matrix.run import Progress
    from hibercheck.handoff.matrix.scenario import Settings
    from hibercheck.handoff.matrix.table import Matrix
    from hibercheck.kernel.cache import KernelCache
    from hibercheck.report.gate import Exit
    from hibercheck.report.pairs import PairCase
    from hibercheck.report.suppressions import Suppression

CASES = ("junit", "ktap", "github", "markdown", "sarif", "gitlab")
"""The formats in which each pair is a case; they are those of report.pairs, which is not imported for the help."""
FORMATS = ("text", "json", "csv", "html", *CASES)
MERGE = "merge"

EPILOG = """\b
Examples:
  hibercheck matrix /boot --scenario nosmt --scenario "nosmt;idle=mwait"
  hibercheck matrix merge part*.json --format html=matrix.html

A scenario is default, nosmt, offline, offline-core, offline-primary,
resumee-offline or NAME=CMDLINE, with ;resumee=CMDLINE ;offline=CPUS ;idle=HOW
;resumee-offline=CPUS ;resumee-online=CPUS ;fact=NAME=VALUE if wanted.

Exit status: 0 fine, 1 one fails, 2 usage, 3 bad input, 4 not all is known."""

MAX_SHARDS = 1 << 16
OF_MERGE = frozenset(
    {
        *("kernels", "outputs", "output", "width", "progress", "quiet", "color"),
        *("fail_on", "fail_on_refused", "strict", "suppressions", "baseline", "write_baseline"),
    }
)
"""The parameters that mean something for ``matrix merge``: all else was settled when its files were judged."""


class ShardType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``I/N``, with I from 1 to N."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Split and check."""
        if isinstance(value, tuple):
            return value
        part, _, whole = str(value).partition("/")
        try:
            number, count = decimal(part), decimal(whole, MAX_SHARDS)
        except ValueError:
            number = count = 0
        if not 1 <= number <= count:
            self.fail(f"{value!r} is not a shard such as 1/4", param, ctx)
        return number, count


class ImageType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``KERNEL=IMAGE``."""

    name = "KERNEL=IMAGE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split."""
        if isinstance(value, tuple):
            return value
        kernel, _, image = str(value).partition("=")
        if not kernel or not image:
            self.fail(f"{value!r} is not KERNEL=IMAGE", param, ctx)
        return kernel, image


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("kernels", metavar="KERNEL...", type=PathType(), nargs=-1, required=True)
@option(
    "--scenario",
    "scenarios",
    group=SCENARIO,
    multiple=True,
    metavar="SCENARIO",
    help="A scenario to judge, such as nosmt; repeatable.",
)
@shared("--spurious-mwait", "--mwait-spins", "--suppose")
@option("--image", "images", group=SCENARIO, multiple=True, type=ImageType(), help="An image that KERNEL wrote.")
@shared("--image-share", "--cpus", "--threads", "--vendor", "--mwait", "--la57", "--memory")
@option("--shard", group=WORK, type=ShardType(), default="1/1", help="Judge only the I-th of N parts of the resumers.")
@option(
    "--jobs",
    group=WORK,
    more=True,
    type=WholeType(1),
    metavar="N",
    help=("Number of processes; default: one for each CPU."),
)
@shared("--cache-dir", "--no-cache")
@formats_option(FORMATS)
@shared("--output")
@option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print one sentence only.")
@shared("--width", "--progress")
@shared("--fail-on", "--strict", "--suppressions", "--baseline", "--write-baseline")
@option("--fail-on-refused", group=GATE, more=True, is_flag=True, help="Fail on a pair that is refused, too.")
@general_options
def command(**given: Any) -> int:
    """Judge every pair of KERNELs (also facts files, directories, or @LIST)."""
    from hibercheck.cli.job import resolve_outputs
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.stored import cache_of, directory_of

    prepare_standard_streams()
    outputs = resolve_outputs(given["outputs"], given["output"])
    reads = [*given["kernels"], *(path for _, path in given["images"]), *given["suppressions"], given["baseline"]]
    written = [*(output.path for output in outputs), *kept_in(given)]
    merging = given["kernels"][0] == MERGE
    cache = None if merging else cache_of(given)
    with opened_outputs(written, reads, cache=directory_of(cache)) as opened:
        entries = suppressions_of(given)
        unread: list[HibercheckError] = []
        matrix = _merged(given["kernels"][1:]) if merging else _filled(given, cache, unread)
        if entries:
            from hibercheck.report.spared import spare_in_matrix

            matrix, warnings = spare_in_matrix(matrix, entries, today())
            tell(warnings)
        _tell_of_cells(matrix)
        cases = _Cases(matrix, given)
        if given["write_baseline"] is not None:
            from hibercheck.report.pairs import write_baseline

            opened.write(given["write_baseline"], [write_baseline(cases())])
        for output in outputs:
            opened.write(output.path, _writers(given, cases)[output.format](matrix, output))
    incomplete = _complain_of_missing(matrix) if merging else bool(unread)
    if given["baseline"] is not None or given["write_baseline"] is not None:
        return _worst(cases.status(), incomplete)
    return _status(matrix, incomplete, **_gate(given))


class _Cases:
    """The pairs as cases, made when they are asked for: a matrix may have a million.

    Args:
        matrix: The matrix.
        given: The command's parameters.
    """

    def __init__(self, matrix: Matrix, given: dict[str, Any]) -> None:
        self._matrix, self._given = matrix, given
        self._made: tuple[PairCase, ...] | None = None

    def __call__(self) -> tuple[PairCase, ...]:
        """Return them; those that the baseline knows, or that are written to one, are expected."""
        if self._made is None:
            from hibercheck.report import pairs

            self._made = spared(pairs.of_matrix(self._matrix, **_gate(self._given)), self._given)
        return self._made

    def status(self) -> Exit:
        """Return the exit status."""
        from hibercheck.report.pairs import status_of

        return status_of(self())


def kept_in(given: dict[str, Any]) -> list[str]:
    """Return the file that a baseline is to be written to, if any."""
    return [] if given["write_baseline"] is None else [given["write_baseline"]]


def spared(cases: tuple[PairCase, ...], given: dict[str, Any]) -> tuple[PairCase, ...]:
    """Apply the baseline that was given, and the one that is written: that one knows every pair."""
    from hibercheck.report import pairs

    if given["baseline"] is not None:
        cases = pairs.with_baseline(cases, pairs.load_baseline(given["baseline"]), given["baseline"])
    if given["write_baseline"] is not None:
        known = {one.case.name: one.verdict for one in cases}
        cases = pairs.with_baseline(cases, known, given["write_baseline"])
    return cases


def _merged(paths: Sequence[str]) -> Matrix:
    from hibercheck.handoff.matrix.table import merge
    from hibercheck.report.matrix import read_json

    context = click.get_current_context()
    for parameter in context.command.params:
        general = getattr(parameter, "group", GENERAL) == GENERAL
        if not general and parameter.name not in OF_MERGE and given_by_hand(context, str(parameter.name)):
            name = parameter.opts[0]
            raise click.UsageError(f"matrix merge takes no {name}: its files were judged already, and say how")
    return merge([(path, read_json(path)) for path in paths])


def _complain_of_missing(matrix: Matrix) -> bool:
    """Name the rows that a merged matrix lacks, and tell whether there are any: they may be the ones that fail."""
    from hibercheck.handoff.matrix.table import missing_rows
    from hibercheck.report.sanitise import one_line

    lacking = missing_rows(matrix)
    if lacking is not None:
        say(f"hibercheck: the matrix is incomplete: it lacks {one_line(lacking)}")
    return lacking is not None


def _filled(given: dict[str, Any], cache: KernelCache | None, unread: list[HibercheckError]) -> Matrix:
    """Judge every pair; what is in a directory that was named and cannot be read is told, and left out."""
    from hibercheck.handoff.matrix.collect import kernels_named
    from hibercheck.handoff.matrix.run import fill
    from hibercheck.report.sanitise import one_line

    found: set[str] = set()
    paths = list(kernels_named(given["kernels"], found))

    def left_out(path: str, error: HibercheckError) -> bool:
        if path not in found or len(unread) + 1 == len(paths):
            return False
        unread.append(error)
        say(f"hibercheck: left out: {one_line(str(error))}")
        return True

    with _bar(given["progress"]) as progress:
        return fill(
            paths,
            settings_of(given),
            images=dict(given["images"]),
            cache=cache,
            shard=given["shard"],
            jobs=given["jobs"],
            progress=progress,
            unread=left_out,
        )


def settings_of(given: dict[str, Any]) -> Settings:
    """Build the settings from the command's parameters."""
    from hibercheck.handoff.matrix.scenario import Machine, Settings, parse_scenario

    threads = int(given["threads"])
    machine = Machine(given["cpus"], threads, given["vendor"], given["mwait"], given["la57"], given["memory"])
    wanted = given["scenarios"] or ("default",)
    scenarios = tuple(parse_scenario(text, machine) for text in wanted)
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise click.UsageError("two scenarios have the same name")
    return Settings(
        machine,
        scenarios,
        given["spurious_mwait"],
        frozenset(given["suppose"]),
        given.get("image_share"),
        given["mwait_spins"],
    )


@contextmanager
def _bar(wanted: bool | None) -> Iterator[Progress | None]:
    """Show on standard error how far it is."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hibercheck.cli.terminal import HEIGHT, columns

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, width=columns(sys.stderr), height=HEIGHT)
    with Progress(*parts, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, whole: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=whole)
            bar.update(tasks[what], completed=done)

        yield show


def _writers(given: dict[str, Any], cases: _Cases) -> dict[str, Callable[[Matrix, Output], Iterator[str]]]:
    from hibercheck.report.matrix import csv_parts, json_parts
    from hibercheck.report.matrix_html import html_parts

    return {
        "json": lambda matrix, _output: json_parts(matrix),
        "csv": lambda matrix, _output: csv_parts(matrix),
        "html": lambda matrix, _output: html_parts(matrix),
        "text": lambda matrix, output: _text(matrix, output, given, cases),
        **{form: lambda _matrix, output: _rendered(cases, output) for form in CASES},
    }


def _rendered(cases: _Cases, output: Output) -> Iterator[str]:
    from hibercheck.report import pairs

    yield pairs.render(cases(), output.format, "which kernel may resume which")


def _text(matrix: Matrix, output: Output, given: dict[str, Any], cases: _Cases) -> Iterator[str]:
    from hibercheck.cli.output import as_text
    from hibercheck.report import matrix_text, pairs

    if given["quiet"]:
        yield pairs.conclusion(cases()) + "\n"
        return
    yield as_text(
        lambda console: matrix_text.render(matrix, console, _concluded(matrix, given, cases)),
        color=given["color"],
        width=given["width"],
        path=output.path,
    )


def _concluded(matrix: Matrix, given: dict[str, Any], cases: _Cases) -> tuple[str, bool]:
    """Say how many pairs fail, and whether all pass; of a matrix without a baseline by counting its cells."""
    from collections import Counter

    from hibercheck.report import pairs
    from hibercheck.report.matrix import exit_status

    if given["baseline"] is not None or given["write_baseline"] is not None:
        return pairs.counted(Counter(pairs.exit_of(one) for one in cases()), len(cases()))
    gate = _gate(given)
    strict = gate.pop("strict")
    status = [exit_status(cell.strict if strict else cell.verdict, **gate) for cell in matrix.cells]
    found: Counter[Exit] = Counter()
    for row in matrix.rows.values():
        for index, number in Counter(row).items():
            found[status[index]] += number
    return pairs.counted(found, found.total())


def suppressions_of(given: dict[str, Any]) -> list[Suppression]:
    """Read the lists of suppressions that were given."""
    if not given["suppressions"]:
        return []
    from hibercheck.report.suppressions import load

    return [entry for path in given["suppressions"] for entry in load(path)]


def today() -> datetime.date:
    """Return the day by which a suppression may have expired."""
    import datetime

    return datetime.datetime.now(tz=datetime.UTC).date()


def tell(warnings: Sequence[str]) -> None:
    """Say on standard error what there is to say of what was given."""
    from hibercheck.report.sanitise import one_line

    for warning in warnings:
        say(f"hibercheck: warning: {one_line(warning)}")


def _tell_of_cells(matrix: Matrix) -> None:
    """Say what there is to say of how pairs were judged; a large matrix is gone through only if there is."""
    if any(cell.warnings for cell in matrix.cells):
        from hibercheck.report.matrix import told

        tell(told((matrix.scenarios[scenario], cell) for scenario, _, _, cell in matrix.pairs()))


def _gate(given: dict[str, Any]) -> dict[str, Any]:
    return {"fail_on": given["fail_on"], "refused_fails": given["fail_on_refused"], "strict": given["strict"]}


def _status(matrix: Matrix, incomplete: bool, *, fail_on: str, refused_fails: bool, strict: bool) -> int:
    """Return the exit status of the worst cell; a refusal between two kernels passes, and a missing row does not."""
    from hibercheck.report.matrix import exit_status, worst_status

    verdicts = matrix.verdicts(strict=strict)
    found = worst_status(exit_status(verdict, fail_on, refused_fails=refused_fails) for verdict in verdicts)
    return _worst(found, incomplete)


def _worst(found: Exit, incomplete: bool) -> int:
    from hibercheck.report.gate import Exit
    from hibercheck.report.matrix import worst_status

    return int(worst_status([found, Exit.UNDETERMINED] if incomplete else [found]))
