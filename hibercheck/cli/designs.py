"""``hibercheck designs``: replay one handoff under every parking design."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import DESIGNS, OUTPUT, SCENARIO, shared

if TYPE_CHECKING:
    from hibercheck.handoff.designs.compare import Comparison

EPILOG = """\b
Examples:
  hibercheck designs image.bin --resumer vmlinux-a --resumee vmlinux-b
  hibercheck designs image.bin --resumer a --resumee b --design init
  hibercheck designs image.bin --resumer a --resumee b --resumer-memory dump.elf

Exit status: 0 shown, 2 usage, 3 bad input, 4 a fact is missing; the verdicts
do not change it: `hibercheck IMAGE --park NAME` judges by one design."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=click.Path())
@shared(
    *("--resumer", "--resumee", "--resumer-memory", "--resumer-registers", "--resumer-facts"),
    *("--resumer-symbols", "--resumee-symbols", "--resume-offset"),
    *("--resumer-cmdline", "--resumer-offline", "--resumer-idle", "--resumer-phys-base"),
    *("--spurious-mwait", "--suppose"),
)
@option(
    "--bsp",
    group=SCENARIO,
    metavar="CPU",
    more=True,
    type=click.IntRange(min=0),
    help="The CPU with the BSP flag, if it is not the one that resumes (as after kexec).",
)
@option(
    "--design",
    "names",
    group=OUTPUT,
    metavar="NAME",
    multiple=True,
    type=click.Choice(DESIGNS),
    help=f"Only this one: {', '.join(DESIGNS[:-1])} or {DESIGNS[-1]}; repeatable.",
)
@shared("--format", "--output")
@option("--details/--no-details", group=OUTPUT, more=True, default=True, help="Say what each design asks and costs.")
@shared("--width")
@general_options
def command(**given: Any) -> int:
    """Replay the handoff of IMAGE under every way to park a CPU, side by side.

    Each is judged with a resumee that does not know the design and, if that makes a difference, with one that has it.
    """
    from hibercheck.cli.check import INPUT_FILES, check_options
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.designs.compare import compare_designs

    prepare_standard_streams()
    refuse_overwriting([given["output"]], [given[name] for name in given if name in INPUT_FILES])
    with waiting("replaying the handoff under every design"):
        comparison = compare_designs(
            given["image"],
            given["resumer"],
            given["resumee"],
            check_options(given),
            names=given["names"],
            bsp=given["bsp"],
        )
    content = _json(comparison) if given["form"] == "json" else _text(comparison, given)
    if given["output"] is not None:
        write_file(given["output"], content)
    else:
        sys.stdout.write(content)
    return 0


def _json(comparison: Comparison) -> str:
    import json

    from hibercheck.report.designs import to_dict

    return json.dumps(to_dict(comparison), indent=1) + "\n"


def _text(comparison: Comparison, given: dict[str, Any]) -> str:
    from hibercheck.cli.output import as_text
    from hibercheck.report import designs

    return as_text(
        lambda console: designs.render(comparison, console, details=given["details"]),
        color=given["color"],
        width=given["width"],
        path=given["output"],
    )
