"""``hibercheck designs``: replay one handoff under every parking design."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import DESIGNS, HANDOFF, OUTPUT, SCENARIO, shared
from hibercheck.cli.values import PathType, WholeType

if TYPE_CHECKING:
    from hibercheck.handoff.designs.compare import Comparison

EPILOG = """\b
Examples:
  hibercheck designs image.bin --resumer vmlinux
  hibercheck designs image.bin --resumer vmlinux --design init

Exit status: 0 shown, 2 usage, 3 bad input, 4 a fact is missing; the verdicts
do not change it: `hibercheck IMAGE --park NAME` judges by one design."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=PathType())
@shared(*HANDOFF)
@option(
    "--bsp",
    group=SCENARIO,
    metavar="CPU",
    more=True,
    type=WholeType(min=0),
    help="The CPU with the BSP flag, if it is not the one that resumes (as after kexec).",
)
@option(
    "--design",
    "names",
    group=OUTPUT,
    metavar="NAME",
    multiple=True,
    type=click.Choice(DESIGNS),
    help=f"Judge only this design: {', '.join(DESIGNS[:-1])} or {DESIGNS[-1]}; repeatable.",
)
@shared("--format", "--output")
@option(
    "--details/--no-details", group=OUTPUT, more=True, default=True, help=("Say what each design requires and costs.")
)
@shared("--width", "--strict", "--suppressions", "--cache-dir", "--no-cache")
@general_options
def command(**given: Any) -> int:
    """Replay the handoff of IMAGE under every way to park a CPU: with a resumee that knows it, and without."""
    from hibercheck.cli.job import check_options, named_inputs
    from hibercheck.cli.matrix import suppressions_of, tell, today
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.resumer import resolve
    from hibercheck.cli.stored import cache_of, directory_of
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.designs.compare import compare_designs

    prepare_standard_streams()
    resolve(given)
    cache = cache_of(given)
    with opened_outputs([given["output"]], named_inputs(given), cache=directory_of(cache)) as outputs:
        entries = suppressions_of(given)
        with waiting("replaying the handoff under every design"):
            comparison = compare_designs(
                given["image"],
                given["resumer"],
                given["resumee"],
                check_options(given),
                names=given["names"],
                bsp=given["bsp"],
                cache=cache,
            )
        if entries:
            from hibercheck.report.spared import spare_in_designs

            comparison, warnings = spare_in_designs(comparison, entries, today())
            tell(warnings)
        if not (given["form"] == "text" and given["output"] is None and sys.stdout.isatty()):
            tell(comparison.warnings)
        content = _json(comparison) if given["form"] == "json" else _text(comparison, given)
        outputs.write(given["output"], [content])
    return 0


def _json(comparison: Comparison) -> str:
    import json

    from hibercheck.report.designs import to_dict

    return json.dumps(to_dict(comparison), indent=1) + "\n"


def _text(comparison: Comparison, given: dict[str, Any]) -> str:
    from hibercheck.cli.output import as_text
    from hibercheck.report import designs

    return as_text(
        lambda console: designs.render(comparison, console, details=given["details"], strict=given["strict"]),
        color=given["color"],
        width=given["width"],
        path=given["output"],
    )
