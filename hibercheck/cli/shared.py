"""The options that more than one command has, each declared once.

A command names those it wants, in the order of its help: ``@shared("--resumer", "--resumee")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import click

from hibercheck.cli.options import Decorated, option
from hibercheck.cli.values import AddressType, CpuListType, OutputType

INPUTS, SCENARIO, MACHINE, OUTPUT, GATE = "Inputs", "Scenario", "Machine", "Output", "Gate"

FAIL_ON = ("safe", "benign", "latent", "risk", "fatal", "never")
DESIGNS = (
    *("mwait-flags", "mwait-percpu", "cpuidle", "hlt", "hlt-rescued", "fixmap"),
    *("self-contained", "self-contained-nopaging", "init"),
)
"""The names in handoff.designs.catalogue, which is not imported for the help; a test compares them."""
LOAD_ALIGNMENT = 0x200000
"""The least CONFIG_PHYSICAL_ALIGN of x86-64 (arch/x86/Kconfig)."""
MEMORY_UNIT = 1 << 20

_DECLARED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "--resumer": option(
            "--resumer",
            group=INPUTS,
            metavar="KERNEL",
            reads=True,
            required=True,
            help="The kernel that will load the image.",
        ),
        "--resumee": option(
            "--resumee",
            group=INPUTS,
            metavar="KERNEL",
            reads=True,
            required=True,
            help="The kernel that hibernated, and is in the image.",
        ),
        "--resume-offset": option(
            "--resume-offset",
            group=INPUTS,
            metavar="PAGES",
            more=True,
            type=click.IntRange(min=0),
            help="Page of the image's header, as the kernel's resume_offset=; searched for by default.",
        ),
        "--verify": option(
            "--verify",
            group=INPUTS,
            is_flag=True,
            help="Decode all of it; check lengths, PFNs and checksum.",
        ),
        "--resumer-memory": option(
            "--resumer-memory",
            group=INPUTS,
            metavar="FILE",
            reads=True,
            help="A dump of the resumer's memory before the copy.",
        ),
        "--resumer-registers": option(
            "--resumer-registers",
            group=INPUTS,
            metavar="FILE",
            more=True,
            reads=True,
            help="Its registers, as QEMU's `info registers -a` prints them, for a dump that has none.",
        ),
        "--resumer-facts": option(
            "--resumer-facts",
            group=INPUTS,
            metavar="FILE",
            reads=True,
            help="What `hibercheck collect` wrote on the resumer.",
        ),
        "--resumer-symbols": option(
            "--resumer-symbols",
            group=INPUTS,
            metavar="FILE",
            more=True,
            reads=True,
            help="System.map or a copy of /proc/kallsyms for the resumer.",
        ),
        "--resumee-symbols": option(
            "--resumee-symbols", group=INPUTS, metavar="FILE", more=True, reads=True, help="The same for the resumee."
        ),
        "--resumer-cmdline": option(
            "--resumer-cmdline", group=SCENARIO, metavar="STR", help="The resumer's kernel command line."
        ),
        "--resumer-offline": option(
            "--resumer-offline",
            group=SCENARIO,
            type=CpuListType(),
            help="CPUs taken offline by hand in it, as 2,3 or 1-3.",
        ),
        "--resumer-idle": option(
            "--resumer-idle",
            group=SCENARIO,
            metavar="HOW",
            more=True,
            type=click.Choice(["mwait", "halt", "port", "none"]),
            help="How its cpuidle driver parks a dead CPU: mwait, halt, port, or none where there is no driver.",
        ),
        "--resumer-phys-base": option(
            "--resumer-phys-base",
            group=SCENARIO,
            more=True,
            type=AddressType(LOAD_ALIGNMENT),
            help="Where it is loaded, as 0x1000000 or 16M.",
        ),
        "--spurious-mwait": option(
            "--spurious-mwait", group=SCENARIO, is_flag=True, help="Suppose that MWAIT may end at any time."
        ),
        "--suppose": option(
            "--suppose",
            group=SCENARIO,
            metavar="EVENT",
            multiple=True,
            type=click.Choice(["nmi", "mce", "smi"]),
            help="Suppose nmi, mce or smi afterwards; repeatable.",
        ),
        "--image-share": option(
            "--image-share",
            group=SCENARIO,
            metavar="PART",
            more=True,
            type=click.FloatRange(0, 1),
            help="What part of memory an image covers, 0 to 1; default 0.4, or more for a large resumee.",
        ),
        "--cpus": option(
            "--cpus",
            group=MACHINE,
            metavar="N",
            type=click.IntRange(1, 8192),
            default=4,
            show_default=True,
            help="How many CPUs it has.",
        ),
        "--threads": option(
            "--threads",
            group=MACHINE,
            type=click.Choice(["1", "2"]),
            more=True,
            default="2",
            show_default=True,
            help="How many of them share a core.",
        ),
        "--vendor": option(
            "--vendor",
            group=MACHINE,
            metavar="NAME",
            more=True,
            type=click.Choice(["intel", "amd", "hygon"]),
            default="intel",
            help="Who made them: intel (the default), amd or hygon.",
        ),
        "--mwait": option(
            "--mwait/--no-mwait", group=MACHINE, more=True, default=True, help="Whether they have MWAIT; they do."
        ),
        "--la57": option(
            "--la57/--no-la57",
            group=MACHINE,
            more=True,
            default=False,
            help="Whether they have five-level paging; they do not.",
        ),
        "--memory": option(
            "--memory",
            group=MACHINE,
            metavar="SIZE",
            more=True,
            type=AddressType(MEMORY_UNIT),
            default="4G",
            show_default=True,
            help="How much memory it has.",
        ),
        "--format": option(
            "--format",
            "form",
            group=OUTPUT,
            metavar="FORMAT",
            type=click.Choice(["text", "json"]),
            default="text",
            help="text (the default) or json.",
        ),
        "--output": option(
            "-o", "--output", group=OUTPUT, metavar="FILE", more=True, help="Write to FILE instead of standard output."
        ),
        "--width": option(
            "--width",
            group=OUTPUT,
            metavar="N",
            more=True,
            type=click.IntRange(40, 1000),
            help="Columns of the text; default: the terminal's, or 100.",
        ),
        "--progress": option(
            "--progress/--no-progress",
            group=OUTPUT,
            more=True,
            default=None,
            help="Show a progress bar; default: on a terminal.",
        ),
        "--fail-on": option(
            "--fail-on",
            group=GATE,
            metavar="VERDICT",
            type=click.Choice(FAIL_ON),
            default="risk",
            help="safe|benign|latent|risk|fatal|never; risk by default.",
        ),
    }
)


def shared(*names: str) -> Callable[[Decorated], Decorated]:
    """Add the shared options of these names, in this order.

    Raises:
        KeyError: No shared option has such a name.
    """

    def decorate(function: Decorated) -> Decorated:
        for name in reversed(names):
            function = _DECLARED[name](function)
        return function

    return decorate


def formats_option(formats: tuple[str, ...]) -> Callable[[Decorated], Decorated]:
    """Declare ``--format`` of a command that can write several formats at once."""
    return option(
        "--format",
        "outputs",
        group=OUTPUT,
        multiple=True,
        type=OutputType(formats),
        help=f"{'|'.join(formats)}.",
    )
