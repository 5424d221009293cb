"""``hibercheck designs``: replay one handoff under every parking design."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.values import AddressType, CpuListType

if TYPE_CHECKING:
    from hibercheck.handoff.designs.compare import Comparison

EPILOG = """\b
Examples:
  hibercheck designs image.bin --resumer vmlinux-a --resumee vmlinux-b
  hibercheck designs image.bin --resumer a --resumee b --design hlt-rescued --design init
  hibercheck designs image.bin --resumer a --resumee b --resumer-memory dump.elf --format json

Exit status: 0 shown, 2 usage, 3 unreadable or mismatched input, 4 a fact is missing, 130 interrupted.
The verdicts do not change it: `hibercheck IMAGE --park NAME` judges by one design."""

INPUTS, SCENARIO, OUTPUT = "Inputs", "Scenario (default: as the image and the kernels have it)", "Output"
DESIGNS = (
    *("mwait-flags", "mwait-percpu", "cpuidle", "hlt", "hlt-rescued", "fixmap"),
    *("self-contained", "self-contained-nopaging", "init"),
)
"""The names in handoff.designs.catalogue, which is not imported for the help; a test compares them."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=click.Path())
@option("--resumer", group=INPUTS, metavar="KERNEL", reads=True, required=True, help="The kernel that loads the image.")
@option("--resumee", group=INPUTS, metavar="KERNEL", reads=True, required=True, help="The kernel that wrote it.")
@option("--resume-offset", group=INPUTS, metavar="PAGES", type=click.IntRange(min=0), help="Where its header is.")
@option("--resumer-memory", group=INPUTS, metavar="FILE", reads=True, help="A dump of R's memory before the copy.")
@option("--resumer-registers", group=INPUTS, metavar="FILE", reads=True, help="Its registers, as text.")
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
@option("--resumer-phys-base", group=SCENARIO, type=AddressType(0x200000), help="Where it is loaded.")
@option("--spurious-mwait", group=SCENARIO, is_flag=True, help="Suppose that MWAIT may end at any time.")
@option(
    "--suppose",
    group=SCENARIO,
    multiple=True,
    type=click.Choice(["nmi", "mce", "smi"]),
    help="Suppose this event after the handoff, in the outcome too; repeatable.",
)
@option(
    "--bsp",
    group=SCENARIO,
    metavar="CPU",
    type=click.IntRange(min=0),
    help="The CPU with the BSP flag, if it is not the one that resumes (as after kexec).",
)
@option("--design", "names", group=OUTPUT, multiple=True, type=click.Choice(DESIGNS), help="Only this one; repeatable.")
@option("--format", "form", group=OUTPUT, type=click.Choice(["text", "json"]), default="text", show_default=True)
@option("-o", "--output", group=OUTPUT, metavar="FILE", help="Write to FILE instead of standard output.")
@option("--details/--no-details", group=OUTPUT, default=True, help="Say what each design asks and costs.")
@option("--width", group=OUTPUT, type=click.IntRange(40, 400), metavar="N", help="Columns of the text.")
@general_options
def command(**given: Any) -> int:
    """Replay the handoff of IMAGE under every way to park a CPU, and print them side by side.

    Each is judged with an E that does not know the design and, where that makes a difference, with one that has it.
    """
    from hibercheck.cli.check import check_options
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.handoff.designs.compare import compare_designs

    prepare_standard_streams()
    inputs = ("image", "resumer", "resumee", "resumer_memory", "resumer_registers", "resumer_symbols")
    refuse_overwriting([given["output"]], [given[name] for name in (*inputs, "resumee_symbols")])
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
    from hibercheck.cli.output import FILE_WIDTH, make_console
    from hibercheck.report import designs

    color, width = given["color"], given["width"]
    if given["output"] is not None:
        color, width = "always" if color == "always" else "never", width or FILE_WIDTH
    console = make_console(sys.stdout, color=color, width=width)
    with console.capture() as captured:
        designs.render(comparison, console, details=given["details"])
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
