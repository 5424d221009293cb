"""``hibercheck check``: the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.designs import DESIGNS
from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.values import AddressType, CpuListType, Output, OutputType

if TYPE_CHECKING:
    from hibercheck.handoff.findings import Report
    from hibercheck.handoff.options import CheckOptions
    from hibercheck.report.gate import Judged

FORMATS = ("text", "json", "sarif", "junit", "ktap", "github", "gitlab", "markdown")
FAIL_ON = ("safe", "benign", "latent", "risk", "fatal", "never")
LOAD_ALIGNMENT = 0x200000
"""The least CONFIG_PHYSICAL_ALIGN of x86-64 (arch/x86/Kconfig)."""

EPILOG = """\b
Examples:
  hibercheck image.bin --resumer vmlinux-a --resumee vmlinux-b
  hibercheck /dev/sda2 --resumer vmlinux-a --resumee vmlinux-b --resumer-cmdline "nosmt"
  hibercheck image.bin --resumer vmlinux-a --resumee vmlinux-b --suppose nmi --fail-on latent
  hibercheck image.bin --resumer vmlinux-a --resumee vmlinux-b --format json=report.json --format text

Exit status: 0 fine, 1 a verdict at or above --fail-on, or the image is refused, 2 usage,
3 unreadable or mismatched input, 4 undetermined, 130 interrupted.
Every option can be set as HIBERCHECK_NAME in the environment."""

INPUTS, SCENARIO = "Inputs", "Scenario (default: as the image and the kernels have it)"
OUTPUT, GATE = "Output", "Gate"


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=click.Path())
@option(
    "--resumer", group=INPUTS, metavar="KERNEL", reads=True, required=True, help="The kernel that will load the image."
)
@option(
    "--resumee",
    group=INPUTS,
    metavar="KERNEL",
    reads=True,
    required=True,
    help="The kernel whose memory is in the image.",
)
@option(
    "--resume-offset", group=INPUTS, metavar="PAGES", type=click.IntRange(min=0), help="Where the image's header is."
)
@option(
    "--resumer-memory",
    group=INPUTS,
    metavar="FILE",
    reads=True,
    help="A dump of the resumer's memory, taken before the copy.",
)
@option(
    "--resumer-registers", group=INPUTS, metavar="FILE", reads=True, help="Its registers: QEMU's `info registers -a`."
)
@option(
    "--resumer-facts", group=INPUTS, metavar="FILE", reads=True, help="What `hibercheck collect` wrote on the resumer."
)
@option("--resumer-symbols", group=INPUTS, metavar="FILE", reads=True, help="System.map or kallsyms of the resumer.")
@option("--resumee-symbols", group=INPUTS, metavar="FILE", reads=True, help="The same of the resumee.")
@option("--resumer-cmdline", group=SCENARIO, metavar="STR", help="The resumer's kernel command line.")
@option("--resumer-offline", group=SCENARIO, type=CpuListType(), help="CPUs taken offline by hand in it: 2,3 or 1-3.")
@option(
    "--resumer-idle",
    group=SCENARIO,
    type=click.Choice(["mwait", "halt", "port", "none"]),
    help="How its cpuidle driver parks a dead CPU.",
)
@option(
    "--resumer-phys-base",
    group=SCENARIO,
    type=AddressType(LOAD_ALIGNMENT),
    help="Where it is loaded: 0x1000000 or 16M.",
)
@option("--spurious-mwait", group=SCENARIO, is_flag=True, help="Suppose that MWAIT may end at any time.")
@option(
    "--suppose",
    group=SCENARIO,
    multiple=True,
    type=click.Choice(["nmi", "mce", "smi"]),
    help="Suppose this event after the handoff; repeatable.",
)
@option(
    "--park",
    group=SCENARIO,
    type=click.Choice(DESIGNS),
    help="Judge as if the resumer parked CPUs by this design; see hibercheck designs.",
)
@option(
    "--format",
    "outputs",
    group=OUTPUT,
    multiple=True,
    type=OutputType(FORMATS),
    help=f"{', '.join(FORMATS)}; repeatable, each may go to a file.",
)
@option("-o", "--output", group=OUTPUT, metavar="FILE", help="Write to FILE instead of standard output.")
@option("--fail-on", group=GATE, type=click.Choice(FAIL_ON), default="risk", help="The least verdict that fails.")
@option(
    "--suppressions",
    group=GATE,
    metavar="FILE",
    multiple=True,
    reads=True,
    help="Findings that do not count, with reasons (TOML); repeatable.",
)
@option("--baseline", group=GATE, metavar="FILE", reads=True, help="Fail only on what this earlier run did not find.")
@option("--write-baseline", group=GATE, metavar="FILE", help="Write what this run found, for --baseline.")
@option("--timeline", group=OUTPUT, is_flag=True, help="Show what each CPU would do between any two copies.")
@option("--execute", group=OUTPUT, is_flag=True, help="Run each parked CPU in an emulator too (needs unicorn).")
@option("--width", group=OUTPUT, type=click.IntRange(40, 400), metavar="N", help="Columns of the text report.")
@option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print one sentence only.")
@option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Print every frame of every CPU, and the kernels' traits.")
@general_options
def command(**given: Any) -> int:
    """Predict what becomes of the machine when the resumer loads IMAGE.

    IMAGE is a hibernation image: a swap partition, a disk, or a copy of one.
    """
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
    from hibercheck.cli.output import FILE_WIDTH, make_console
    from hibercheck.report import text

    if output.path is None:
        console = make_console(sys.stdout, color=given["color"], width=given["width"])
    else:
        color = "always" if given["color"] == "always" else "never"
        console = make_console(sys.stdout, color=color, width=given["width"] or FILE_WIDTH)
    with console.capture() as captured:
        text.render(judged, console, text.Detail.choose(quiet=given["quiet"], verbose=given["verbose"]))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
