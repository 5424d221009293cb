"""``hibercheck check``: the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import DESIGNS, GATE, OUTPUT, SCENARIO, formats_option, shared
from hibercheck.cli.values import Output

if TYPE_CHECKING:
    from hibercheck.handoff.findings import Report
    from hibercheck.handoff.options import CheckOptions
    from hibercheck.report.gate import Judged

FORMATS = ("text", "json", "sarif", "junit", "ktap", "github", "gitlab", "markdown")
EPILOG = """\b
Examples:
  hibercheck image.bin --resumer vmlinux-a --resumee vmlinux-b
  hibercheck /dev/sda2 --resumer 6.12.94-amd64 --resumee 6.1.0-50-amd64
  hibercheck image.bin --resumer a --resumee b --format sarif=a.sarif

Exit status: 0 fine, 1 fails or refused, 2 usage, 3 bad input, 4 undetermined."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=click.Path())
@shared(
    *("--resumer", "--resumee", "--resumer-memory", "--resumer-registers", "--resumer-facts"),
    *("--resumer-symbols", "--resumee-symbols", "--resume-offset", "--verify"),
    *("--resumer-cmdline", "--resumer-offline", "--resumer-idle", "--resumer-phys-base"),
    *("--spurious-mwait", "--suppose"),
)
@option(
    "--park",
    group=SCENARIO,
    metavar="DESIGN",
    more=True,
    type=click.Choice(DESIGNS),
    help=f"Judge as if the resumer parked CPUs by this design: {', '.join(DESIGNS[:-1])} or {DESIGNS[-1]}; "
    "see hibercheck designs.",
)
@formats_option(FORMATS)
@shared("--output")
@option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print one sentence only.")
@option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Show every frame a CPU uses, and kernels' traits.")
@option(
    "--timeline",
    group=OUTPUT,
    is_flag=True,
    more=True,
    help="Show what each CPU would do between any two copies.",
)
@option(
    "--execute",
    group=OUTPUT,
    is_flag=True,
    more=True,
    help="Run each parked CPU in an emulator too (needs unicorn).",
)
@shared("--width", "--fail-on")
@option(
    "--suppressions",
    group=GATE,
    metavar="FILE",
    multiple=True,
    reads=True,
    help="Findings that do not count, and why (TOML).",
)
@option("--baseline", group=GATE, metavar="FILE", reads=True, help="Fail only on what this earlier run did not find.")
@option("--write-baseline", group=GATE, metavar="FILE", more=True, help="Write what this run found, for --baseline.")
@general_options
def command(**given: Any) -> int:
    """Predict what becomes of the machine when the resumer loads IMAGE (a partition, disk or copy).
    KERNEL is a vmlinux, vmlinuz, package or release.
    """  # noqa: D205 - one paragraph: the help has to fit a screen
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.api import check

    prepare_standard_streams()
    outputs = resolve_outputs(given["outputs"], given["output"])
    inputs = [given[name] for name in given if name in INPUT_FILES]
    refuse_overwriting(
        [*(output.path for output in outputs), given["write_baseline"]], [*inputs, *given["suppressions"]]
    )
    with waiting("reading the image and both kernels, and replaying the handoff", wanted=not given["quiet"]):
        report = check(given["image"], given["resumer"], given["resumee"], options=check_options(given))
    judged = decide(report, given)
    emit(judged, outputs, given)
    return int(judged.exit_status)


INPUT_FILES = frozenset(
    {
        "image",
        "resumer",
        "resumee",
        "resumer_memory",
        "resumer_registers",
        "resumer_facts",
        "resumer_symbols",
        "resumee_symbols",
    }
)


def decide(report: Report, given: dict[str, Any]) -> Judged:
    """Apply suppressions, baseline and threshold to a report; write the new baseline if one is wanted."""
    from hibercheck.report.gate import Mark, judge

    marks: tuple[Mark | None, ...] = (None,) * len(report.findings)
    warnings: tuple[str, ...] = ()
    if given["suppressions"]:
        import datetime

        from hibercheck.report import suppressions

        entries = [entry for path in given["suppressions"] for entry in suppressions.load(path)]
        marks, warnings = suppressions.apply(report, entries, datetime.datetime.now(tz=datetime.UTC).date())
    if given["baseline"] is not None or given["write_baseline"] is not None:
        from hibercheck.report import baseline
    if given["baseline"] is not None:
        marks = baseline.apply(report, baseline.load(given["baseline"]), marks, given["baseline"])
    if given["write_baseline"] is not None:
        from hibercheck.cli.output import write_file

        write_file(given["write_baseline"], baseline.write(report))
        marks = baseline.apply(report, baseline.load(given["write_baseline"]), marks, given["write_baseline"])
    return judge(report, fail_on=given["fail_on"], marks=marks, warnings=warnings)


def check_options(given: dict[str, Any]) -> CheckOptions:
    """Build the engine's options from the command's parameters of the same names."""
    from dataclasses import fields

    from hibercheck.handoff.options import CheckOptions

    values = {field.name: given[field.name] for field in fields(CheckOptions) if field.name in given}
    values["resumer_offline"] = values["resumer_offline"] or frozenset()
    values["suppose"] = frozenset(values["suppose"])
    return CheckOptions(**values)


def resolve_outputs(outputs: Sequence[Output], path: str | None) -> tuple[Output, ...]:
    """Say where each wanted format goes; files come first and standard output last.

    Raises:
        click.UsageError: Two formats want standard output (or the file of ``-o``), or ``-o`` has none left.
    """
    wanted = tuple(outputs) or (Output("text"),)
    loose = [output for output in wanted if output.path is None]
    if len(loose) > 1:
        raise click.UsageError(f"{loose[0].format} and {loose[1].format} both go to one place; write FORMAT=FILE")
    if path is not None and not loose:
        raise click.UsageError("-o has nothing to write: every format has a file of its own")
    placed = [Output(output.format, output.path or path) for output in wanted]
    return tuple(sorted(placed, key=lambda output: output.path is None))


def emit(judged: Judged, outputs: Sequence[Output], given: dict[str, Any]) -> None:
    """Write every output; a reader that closes the pipe early does not change the verdict."""
    from hibercheck.cli.output import discard_standard_output, write_file

    for output in outputs:
        content = render(judged, output, given)
        if output.path is not None:
            write_file(output.path, content)
            continue
        try:
            sys.stdout.write(content)
            sys.stdout.flush()
        except BrokenPipeError:
            discard_standard_output()


def render(judged: Judged, output: Output, given: dict[str, Any]) -> str:
    """Render one output as text for where it goes."""
    from hibercheck.report import formats

    if output.format != formats.TEXT:
        return formats.renderer(output.format)(judged)
    from hibercheck.cli.output import console_for, drawn
    from hibercheck.report import text

    detail = text.Detail.choose(quiet=given["quiet"], verbose=given["verbose"])
    console = console_for(output.path, color=given["color"], width=given["width"])
    return drawn(console, lambda to: text.render(judged, to, detail))
