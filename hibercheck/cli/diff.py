"""``hibercheck diff``: what changed in the handoff between two kernel builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.matrix import CASES
from hibercheck.cli.options import GATE, GroupedCommand, general_options, option
from hibercheck.cli.shared import OUTPUT, SCENARIO, formats_option, shared
from hibercheck.cli.values import PathType

if TYPE_CHECKING:
    from hibercheck.cli.job import Output
    from hibercheck.handoff.diff import Difference
    from hibercheck.report.gate import Exit
    from hibercheck.report.pairs import PairCase

FORMATS = ("text", "json", *CASES)

EPILOG = """\b
Examples:
  hibercheck diff vmlinux-6.12.93 vmlinux-6.12.94
  hibercheck diff released.json vmlinux --against 6.1.json --scenario nosmt
  hibercheck diff old new --format json -o diff.json --allow-refused

Exit status: 0 fine, 1 a pair became worse and reaches --fail-on, or is refused
now, 2 usage, 3 bad input, 4 one became undetermined."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("old", metavar="OLD", type=PathType())
@click.argument("new", metavar="NEW", type=PathType())
@option(
    "--against",
    group=SCENARIO,
    multiple=True,
    metavar="KERNEL",
    help="Another kernel that NEW must work with; repeatable.",
)
@option(
    "--scenario",
    "scenarios",
    group=SCENARIO,
    multiple=True,
    metavar="SCENARIO",
    help="Scenario to judge, as in matrix; repeatable.",
)
@shared("--spurious-mwait", "--mwait-spins", "--suppose", "--image-share", "--cpus", "--threads", "--vendor")
@shared("--mwait", "--la57", "--memory")
@formats_option(FORMATS)
@shared("--output")
@option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print one sentence only.")
@option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show loops, layout and every pair too.")
@shared("--width", "--fail-on", "--strict", "--suppressions", "--baseline", "--write-baseline")
@shared("--cache-dir", "--no-cache")
@option("--allow-refused", group=GATE, is_flag=True, help="Do not fail on a pair that is refused now.")
@general_options
def command(**given: Any) -> int:
    """Show what changed in the handoff from kernel OLD to kernel NEW, and whether a pair that worked is broken.

    NEW is judged as resumer and as resumee: with itself, with OLD and with each kernel of --against.  Each verdict is
    compared with OLD's in that role.
    """
    from hibercheck.cli.job import resolve_outputs
    from hibercheck.cli.matrix import kept_in, settings_of, spared, suppressions_of, tell, today
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.stored import cache_of, directory_of
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.diff import compare_kernels
    from hibercheck.report import pairs
    from hibercheck.report.matrix import told

    prepare_standard_streams()
    scenarios = given["scenarios"] or (("default", "nosmt", "offline") if given["cpus"] > 1 else ("default",))
    settings = settings_of({**given, "scenarios": scenarios})
    reads = [given["old"], given["new"], *given["against"], *given["suppressions"], given["baseline"]]
    wanted = resolve_outputs(given["outputs"], given["output"])
    written = [*(output.path for output in wanted), *kept_in(given)]
    cache = cache_of(given)
    with opened_outputs(written, reads, cache=directory_of(cache)) as outputs:
        entries = suppressions_of(given)
        with waiting("reading the kernels and judging every pair"):
            difference = compare_kernels(given["old"], given["new"], given["against"], settings, cache)
        if entries:
            from hibercheck.report.spared import spare_in_difference

            difference, warnings = spare_in_difference(difference, entries, today())
            tell(warnings)
        tell(told((pair.scenario, pair.after) for pair in difference.pairs))
        gate = {"refused_fails": not given["allow_refused"], "strict": given["strict"]}
        cases = spared(pairs.of_difference(difference, given["fail_on"], **gate), given)
        status = pairs.status_of(cases)
        if given["write_baseline"] is not None:
            outputs.write(given["write_baseline"], [pairs.write_baseline(cases)])
        for output in wanted:
            outputs.write(output.path, [_rendered(difference, cases, status, output, given)])
    return int(status)


def _rendered(
    difference: Difference, cases: tuple[PairCase, ...], status: Exit, output: Output, given: dict[str, Any]
) -> str:
    if output.format == "json":
        return _json(difference, status)
    if output.format == "text" and not given["quiet"]:
        return _text(difference, status, given, output)
    from hibercheck.report import pairs

    if output.format == "text":
        return pairs.conclusion(cases) + "\n"
    return pairs.render(cases, output.format, f"from {difference.old} to {difference.new}")


def _json(difference: Difference, status: Exit) -> str:
    import json

    from hibercheck.report.diff import to_dict

    return json.dumps(to_dict(difference, status), indent=1) + "\n"


def _text(difference: Difference, status: Exit, given: dict[str, Any], output: Output) -> str:
    from hibercheck.cli.output import as_text
    from hibercheck.report import diff

    return as_text(
        lambda console: diff.render(difference, console, status, verbose=given["verbose"]),
        color=given["color"],
        width=given["width"],
        path=output.path,
    )
