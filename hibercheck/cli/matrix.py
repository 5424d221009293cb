"""``hibercheck matrix``: every resumer with every resumee; ``hibercheck matrix merge``: put shards together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import SCENARIO, formats_option, shared
from hibercheck.cli.values import Output

if TYPE_CHECKING:
    from hibercheck.handoff.matrix.run import Progress
    from hibercheck.handoff.matrix.scenario import Settings
    from hibercheck.handoff.matrix.table import Matrix

FORMATS = ("text", "json", "csv", "html")
MERGE = "merge"

EPILOG = """\b
Examples:
  hibercheck matrix /boot --scenario default --scenario nosmt --cpus 8
  hibercheck matrix @kernels.txt --shard 1/4 --format json=part1.json
  hibercheck matrix merge part*.json --format html=matrix.html
  hibercheck matrix a b --image b=b.bin --scenario "live=nokaslr;idle=mwait"

A scenario is default, nosmt, offline, offline-core, offline-primary or
resumee-offline, or NAME=CMDLINE with any of ;resumee=CMDLINE ;offline=CPUS
;resumee-offline=CPUS ;idle=mwait|halt|port|none.

Exit status: 0 fine, 1 one fails, 2 usage, 3 bad input, 4 one is undetermined."""

WORK = "Work"


class ShardType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``I/N``, with I from 1 to N."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Split and check."""
        if isinstance(value, tuple):
            return value
        part, _, whole = str(value).partition("/")
        if not (part.isdigit() and whole.isdigit() and 1 <= int(part) <= int(whole)):
            self.fail(f"{value!r} is not a shard such as 1/4", param, ctx)
        return int(part), int(whole)


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
@click.argument("kernels", metavar="KERNEL...", type=click.Path(), nargs=-1, required=True)
@option(
    "--scenario", "scenarios", group=SCENARIO, multiple=True, metavar="SCENARIO", help="What is assumed; repeatable."
)
@shared("--spurious-mwait", "--suppose")
@option("--image", "images", group=SCENARIO, multiple=True, type=ImageType(), help="An image that KERNEL wrote.")
@shared("--image-share", "--cpus", "--threads", "--vendor", "--mwait", "--la57", "--memory")
@option("--shard", group=WORK, type=ShardType(), default="1/1", help="Only the I-th of N parts of the resumers.")
@option(
    "--jobs", group=WORK, more=True, type=click.IntRange(1), metavar="N", help="Processes; default: one for each CPU."
)
@option(
    "--cache-dir", group=WORK, metavar="DIR", more=True, help="Where to keep what was read; default in XDG_CACHE_HOME."
)
@option("--no-cache", group=WORK, more=True, is_flag=True, help="Keep nothing.")
@formats_option(FORMATS)
@shared("--output", "--width", "--progress", "--fail-on")
@general_options
def command(**given: Any) -> int:
    """Judge every pair of kernels: may this one resume what that one hibernated?

    KERNEL is a kernel, a facts file, a directory of these, or @LIST (a file).
    """
    from hibercheck.cli.check import resolve_outputs
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting

    prepare_standard_streams()
    outputs = resolve_outputs(given["outputs"], given["output"])
    refuse_overwriting([output.path for output in outputs], [*given["kernels"], *(path for _, path in given["images"])])
    matrix = _merged(given["kernels"][1:]) if given["kernels"][0] == MERGE else _filled(given)
    for output in outputs:
        _emit(matrix, output, given)
    return _status(matrix, given["fail_on"])


def _merged(paths: Sequence[str]) -> Matrix:
    from hibercheck.handoff.matrix.table import merge
    from hibercheck.report.matrix import read_json

    return merge([(path, read_json(path)) for path in paths])


def _filled(given: dict[str, Any]) -> Matrix:
    from pathlib import Path

    from hibercheck.handoff.matrix.collect import default_cache, kernels_named
    from hibercheck.handoff.matrix.run import fill

    cache = None if given["no_cache"] else Path(given["cache_dir"]) if given["cache_dir"] else default_cache()
    with _bar(given["progress"]) as progress:
        return fill(
            list(kernels_named(given["kernels"])),
            settings_of(given),
            images=dict(given["images"]),
            cache=cache,
            shard=given["shard"],
            jobs=given["jobs"],
            progress=progress,
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
    return Settings(machine, scenarios, given["spurious_mwait"], frozenset(given["suppose"]), given.get("image_share"))


@contextmanager
def _bar(wanted: bool | None) -> Iterator[Progress | None]:
    """Show on standard error how far it is."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, whole: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=whole)
            bar.update(tasks[what], completed=done)

        yield show


def _emit(matrix: Matrix, output: Output, given: dict[str, Any]) -> None:
    """Write one format, in parts: a matrix may be large."""
    from hibercheck.cli.output import write_file

    parts = _writers(given)[output.format](matrix, output)
    if output.path is not None:
        write_file(output.path, "".join(parts))
        return
    for part in parts:
        sys.stdout.write(part)
    sys.stdout.flush()


def _writers(given: dict[str, Any]) -> dict[str, Callable[[Matrix, Output], Iterator[str]]]:
    from hibercheck.report.matrix import csv_parts, json_parts
    from hibercheck.report.matrix_html import html_parts

    return {
        "json": lambda matrix, _output: json_parts(matrix),
        "csv": lambda matrix, _output: csv_parts(matrix),
        "html": lambda matrix, _output: html_parts(matrix),
        "text": lambda matrix, output: _text(matrix, output, given),
    }


def _text(matrix: Matrix, output: Output, given: dict[str, Any]) -> Iterator[str]:
    from hibercheck.cli.output import as_text
    from hibercheck.report import matrix_text

    yield as_text(
        lambda console: matrix_text.render(matrix, console),
        color=given["color"],
        width=given["width"],
        path=output.path,
    )


def _status(matrix: Matrix, fail_on: str) -> int:
    """Return the exit status of the worst cell; a refusal between two kernels is no failure."""
    from hibercheck.report.matrix import exit_status, worst_status

    return int(worst_status(exit_status(verdict, fail_on, refused_fails=False) for verdict in matrix.verdicts()))
