"""``hibercheck diff``: what changed in the handoff between two kernel builds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import GATE, SCENARIO, shared

if TYPE_CHECKING:
    from hibercheck.handoff.diff import Difference
    from hibercheck.report.gate import Exit

EPILOG = """\b
Examples:
  hibercheck diff vmlinux-6.12.93 vmlinux-6.12.94
  hibercheck diff released.json vmlinux --against 6.1.json --scenario nosmt
  hibercheck diff old new --format json -o diff.json --allow-refused

Exit status: 0 no pair became worse and reaches --fail-on, 1 one did, or is refused now,
2 usage, 3 unreadable input, 4 one became undetermined, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("old", metavar="OLD", type=click.Path())
@click.argument("new", metavar="NEW", type=click.Path())
@option("--against", group=SCENARIO, multiple=True, metavar="KERNEL", help="Must go on to work with it; repeatable.")
@option(
    "--scenario",
    "scenarios",
    group=SCENARIO,
    multiple=True,
    metavar="SCENARIO",
    help="As for hibercheck matrix; default, nosmt and offline if none is given; repeatable.",
)
@shared("--spurious-mwait", "--suppose", "--image-share", "--cpus", "--threads", "--vendor", "--mwait", "--la57")
@shared("--memory", "--format", "--output", "--width", "--fail-on")
@option("--allow-refused", group=GATE, is_flag=True, help="A pair that is refused now does not fail.")
@general_options
def command(**given: Any) -> int:
    """Show what changed in the handoff from kernel OLD to kernel NEW, and whether a pair that worked is broken.

    OLD and NEW are kernels in any form, or facts files.  NEW is judged as resumer and as resumee, with itself, with
    OLD, and with every kernel of --against; each pair is compared with the one that has OLD in NEW's place.
    """
    from hibercheck.cli.matrix import settings_of
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.diff import compare_kernels
    from hibercheck.report.diff import status_of

    prepare_standard_streams()
    refuse_overwriting([given["output"]], [given["old"], given["new"], *given["against"]])
    scenarios = given["scenarios"] or (("default", "nosmt", "offline") if given["cpus"] > 1 else ("default",))
    settings = settings_of({**given, "scenarios": scenarios})
    with waiting("reading the kernels and judging every pair"):
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
    from hibercheck.cli.output import as_text
    from hibercheck.report import diff

    return as_text(
        lambda console: diff.render(difference, console, status),
        color=given["color"],
        width=given["width"],
        path=given["output"],
    )
