"""``hibercheck diff``: what changed in the handoff between two kernel builds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.check import FAIL_ON
from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.values import AddressType

if TYPE_CHECKING:
    from hibercheck.handoff.diff import Difference
    from hibercheck.report.gate import Exit

EPILOG = """\b
Examples:
  hibercheck diff vmlinux-6.12.93 vmlinux-6.12.94
  hibercheck diff released.facts.json vmlinux --against 6.1.facts.json --scenario nosmt
  hibercheck diff old new --format json -o diff.json --allow-refused

Exit status: 0 no pair became worse and reaches --fail-on, 1 one did, or is refused now,
2 usage, 3 unreadable input, 4 one became undetermined, 130 interrupted."""

SCENARIO, MACHINE, OUTPUT, GATE = "Scenario", "Machine", "Output", "Gate"


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@option("--against", group=SCENARIO, multiple=True, metavar="KERNEL", help="Must go on to work with it; repeatable.")
@option(
    "--scenario",
    "scenarios",
    group=SCENARIO,
    multiple=True,
    metavar="SCENARIO",
    help="As of hibercheck matrix; repeatable; default: default, nosmt and offline.",
)
@option("--spurious-mwait", group=SCENARIO, is_flag=True, help="Suppose that MWAIT may end at any time.")
@option(
    "--suppose",
    group=SCENARIO,
    multiple=True,
    type=click.Choice(["nmi", "mce", "smi"]),
    help="Suppose this event after the handoff; repeatable.",
)
@option("--image-share", group=SCENARIO, type=click.FloatRange(0, 1), help="What part of memory an image covers.")
@option("--cpus", group=MACHINE, type=click.IntRange(1, 8192), default=4, show_default=True, help="Its CPUs.")
@option("--threads", group=MACHINE, type=click.Choice(["1", "2"]), default="2", show_default=True, help="Of a core.")
@option("--vendor", group=MACHINE, type=click.Choice(["intel", "amd", "hygon"]), default="intel", show_default=True)
@option("--mwait/--no-mwait", group=MACHINE, default=True, help="Whether its CPUs have MWAIT.")
@option("--la57/--no-la57", group=MACHINE, default=False, help="Whether its CPUs have five-level paging.")
@option("--memory", group=MACHINE, type=AddressType(1 << 20), default="4G", show_default=True, help="Its RAM.")
@option("--format", "form", group=OUTPUT, type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("-o", "--output", group=OUTPUT, metavar="FILE", help="Write to FILE instead of standard output.")
@option("--width", group=OUTPUT, type=click.IntRange(40, 400), metavar="N", help="Columns of the text.")
@option("--fail-on", group=GATE, type=click.Choice(FAIL_ON), default="risk", help="The least verdict that fails.")
@option("--allow-refused", group=GATE, is_flag=True, help="A pair that is refused now does not fail.")
@general_options
def command(**given: Any) -> int:
    """Show what changed in the handoff from kernel OLD to kernel NEW, and whether a pair that worked is broken.

    OLD and NEW are kernels in any form, or facts files.  NEW is judged as resumer and as resumee, with itself, with
    OLD, and with every kernel of --against; each pair is compared with the one that has OLD in NEW's place.
    """
    from hibercheck.cli.matrix import settings_of
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.handoff.diff import compare_kernels
    from hibercheck.report.diff import status_of

    prepare_standard_streams()
    refuse_overwriting([given["output"]], [given["old"], given["new"], *given["against"]])
    scenarios = given["scenarios"] or (("default", "nosmt", "offline") if given["cpus"] > 1 else ("default",))
    settings = settings_of({**given, "scenarios": scenarios})
    difference = compare_kernels(given["old"], given["new"], given["against"], settings)
    status = status_of(difference, given["fail_on"], refused_fails=not given["allow_refused"])
    content = _json(difference, status) if given["form"] == "json" else _text(difference, status, given)
    if given["output"] is not None:
        write_file(given["output"], content)
    else:
        sys.stdout.write(content)
    return int(status)


def _json(difference: Difference, status: Exit) -> str:
    import json

    from hibercheck.report.diff import to_dict

    return json.dumps(to_dict(difference, status), indent=1) + "\n"


def _text(difference: Difference, status: Exit, given: dict[str, Any]) -> str:
    from hibercheck.cli.output import FILE_WIDTH, make_console
    from hibercheck.report import diff

    color, width = given["color"], given["width"]
    if given["output"] is not None:
        color, width = "always" if color == "always" else "never", width or FILE_WIDTH
    console = make_console(sys.stdout, color=color, width=width)
    with console.capture() as captured:
        diff.render(difference, console, status)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
