"""The options that more than one command has, each declared once.

A command names those it wants, in the order of its help: ``@shared("--resumer", "--resumee")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import click

from hibercheck.addresses import LOAD_ALIGNMENT
from hibercheck.cli.options import GATE, Decorated, option
from hibercheck.cli.terminal import LEAST, MOST
from hibercheck.cli.values import AddressType, CpuListType, FactType, OutputType, PartType, WholeType, one_value_each

INPUTS, SCENARIO, MACHINE, OUTPUT, WORK = "Inputs", "Scenario", "Machine", "Output", "Work"

HANDOFF = (
    *("--resumer", "--root", "--resumee", "--resumer-memory", "--resumer-registers", "--resumer-facts"),
    *("--resumer-log", "--resumer-initramfs", "--resumer-symbols", "--resumee-symbols", "--resume-offset", "--resume"),
    *("--resumer-cmdline", "--resumer-cmdline-add", "--resumer-offline", "--resumer-idle", "--resumer-phys-base"),
    *("--fact", "--what-if", "--resumee-online", "--resumee-offline", "--spurious-mwait", "--suppose"),
    *("--mwait-spins", "--wake-latency", "--tlb"),
)
"""The options by which a command that judges a handoff is told what it is of."""
FAIL_ON = ("safe", "benign", "latent", "risk", "fatal", "never")
DESIGNS = (
    *("mwait-flags", "mwait-percpu", "cpuidle", "hlt", "hlt-rescued", "fixmap"),
    *("self-contained", "self-contained-nopaging", "init"),
)
"""The names in handoff.designs.catalogue, which is not imported for the help; a test compares them."""
MEMORY_UNIT = 1 << 20

_DECLARED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "--resumer": option(
            "--resumer",
            group=INPUTS,
            metavar="KERNEL",
            reads=True,
            help="Kernel that loads the image (else what would boot).",
        ),
        "--root": option(
            "--root",
            group=INPUTS,
            metavar="DIR",
            more=True,
            help="Root directory of the system whose kernels and boot entries are read; default: /.",
        ),
        "--resumee": option(
            "--resumee",
            group=INPUTS,
            metavar="KERNEL",
            reads=True,
            help="Kernel that hibernated (else the one that is found).",
        ),
        "--resume-offset": option(
            "--resume-offset",
            group=INPUTS,
            metavar="PAGES",
            more=True,
            type=WholeType(min=0),
            help=(
                "Page at which the image's header lies, as in the kernel's resume_offset=; by default it is "
                "searched for."
            ),
        ),
        "--resume": option(
            "--resume",
            group=INPUTS,
            metavar="WHICH",
            more=True,
            help=(
                "Partition of a disk that holds the image: its number, or as in the kernel's resume= (UUID=, "
                "PARTUUID=)."
            ),
        ),
        "--verify": option(
            "--verify",
            group=INPUTS,
            is_flag=True,
            help="Decode all pages; check lengths, PFNs, checksum.",
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
            help="The resumer's registers, as QEMU's `info registers -a` prints them, for a dump without any.",
        ),
        "--resumer-facts": option(
            "--resumer-facts",
            group=INPUTS,
            metavar="FILE",
            reads=True,
            help="What `hibercheck collect` wrote on the resumer.",
        ),
        "--resumer-log": option(
            "--resumer-log",
            group=INPUTS,
            metavar="FILE",
            more=True,
            reads=True,
            help="Kernel log of the boot that should have resumed, from its start (dmesg, journalctl -k).",
        ),
        "--resumer-initramfs": option(
            "--resumer-initramfs",
            group=INPUTS,
            metavar="FILE",
            more=True,
            reads=True,
            help="The resumer's initramfs (of several the last), which may end with a bootconfig.",
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
            "--resumee-symbols",
            group=INPUTS,
            metavar="FILE",
            more=True,
            reads=True,
            help="System.map or a copy of /proc/kallsyms for the resumee.",
        ),
        "--resumer-cmdline": option(
            "--resumer-cmdline", group=SCENARIO, metavar="STR", help="The resumer's kernel command line."
        ),
        "--resumer-cmdline-add": option(
            "--resumer-cmdline-add",
            group=SCENARIO,
            metavar="STR",
            more=True,
            help="Parameters to append to the resumer's command line, wherever it comes from.",
        ),
        "--resumer-offline": option(
            "--resumer-offline",
            group=SCENARIO,
            type=CpuListType(),
            help="CPUs taken offline in the resumer, as 2,3 or 1-3.",
        ),
        "--resumer-idle": option(
            "--resumer-idle",
            group=SCENARIO,
            metavar="HOW",
            more=True,
            type=click.Choice(["mwait", "halt", "port", "none"]),
            help=(
                "How the resumer's cpuidle driver parks a CPU that goes offline: mwait, halt, port (a port read); "
                "none: it has no driver."
            ),
        ),
        "--resumer-phys-base": option(
            "--resumer-phys-base",
            group=SCENARIO,
            more=True,
            type=AddressType(LOAD_ALIGNMENT),
            help="Physical address at which the resumer is loaded, as 0x1000000 or 16M.",
        ),
        "--fact": option(
            "--fact",
            "facts",
            group=SCENARIO,
            metavar="NAME=VALUE",
            multiple=True,
            more=True,
            type=FactType(),
            callback=one_value_each,
            help="A fact of the resumer's run, such as cpus=0-3; repeatable; hibercheck-check(1) lists all.",
        ),
        "--what-if": option(
            "--what-if",
            group=SCENARIO,
            is_flag=True,
            more=True,
            help="Judge the run that the options describe, on the machine that the dump or the facts show.",
        ),
        "--resumee-online": option(
            "--resumee-online",
            group=SCENARIO,
            more=True,
            type=CpuListType(),
            help="CPUs that the resumee brings online after it has resumed, before the events of --suppose.",
        ),
        "--resumee-offline": option(
            "--resumee-offline",
            group=SCENARIO,
            more=True,
            type=CpuListType(),
            help="CPUs that the resumee takes offline after it has resumed, before the events of --suppose.",
        ),
        "--spurious-mwait": option(
            "--spurious-mwait",
            group=SCENARIO,
            is_flag=True,
            help="Suppose MWAIT ends by itself once, before a store.",
        ),
        "--mwait-spins": option(
            "--mwait-spins",
            group=SCENARIO,
            more=True,
            is_flag=True,
            help="Suppose that every MWAIT ends at once, so that a CPU parked in it never sleeps (as in QEMU's TCG).",
        ),
        "--suppose": option(
            "--suppose",
            group=SCENARIO,
            metavar="EVENT",
            multiple=True,
            type=click.Choice(["nmi", "mce", "smi", "store"]),
            help="Suppose nmi, mce, smi or store after the handoff.",
        ),
        "--wake-latency": option(
            "--wake-latency",
            group=SCENARIO,
            metavar="COPIES",
            more=True,
            type=WholeType(min=0),
            help=(
                "Pages that are copied between a store to a monitored line and the first instruction of the CPU "
                "that it wakes."
            ),
        ),
        "--tlb": option(
            "--tlb",
            group=SCENARIO,
            metavar="STATE",
            more=True,
            type=click.Choice(["warm", "cold"]),
            help="Whether a CPU that wakes still has its translations: warm, or cold as after C6.",
        ),
        "--image-share": option(
            "--image-share",
            group=SCENARIO,
            metavar="PART",
            more=True,
            type=PartType(),
            help="Part of memory that an image covers, 0 to 1; default: 0.4, or more for a large resumee.",
        ),
        "--cpus": option(
            "--cpus",
            group=MACHINE,
            metavar="N",
            type=WholeType(1, 8192),
            default=4,
            show_default=True,
            help="How many CPUs the machine has.",
        ),
        "--threads": option(
            "--threads",
            group=MACHINE,
            type=click.Choice(["1", "2"]),
            more=True,
            default="2",
            show_default=True,
            help="How many CPUs share a core.",
        ),
        "--vendor": option(
            "--vendor",
            group=MACHINE,
            metavar="NAME",
            more=True,
            type=click.Choice(["intel", "amd", "hygon"]),
            default="intel",
            help="Who made the CPUs: intel (the default), amd or hygon.",
        ),
        "--mwait": option(
            "--mwait/--no-mwait",
            group=MACHINE,
            more=True,
            default=True,
            help="Whether the CPUs have MWAIT; by default they do.",
        ),
        "--la57": option(
            "--la57/--no-la57",
            group=MACHINE,
            more=True,
            default=False,
            help="Whether the CPUs have five-level paging; by default they do not.",
        ),
        "--memory": option(
            "--memory",
            group=MACHINE,
            metavar="SIZE",
            more=True,
            type=AddressType(MEMORY_UNIT),
            default="4G",
            show_default=True,
            help="How much memory the machine has.",
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
        "--quiet": option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print one sentence only."),
        "--cache-dir": option(
            "--cache-dir",
            group=WORK,
            metavar="DIR",
            more=True,
            help="Directory that keeps what was read of kernels; default: hibercheck in XDG_CACHE_HOME.",
        ),
        "--no-cache": option(
            "--no-cache",
            group=WORK,
            more=True,
            is_flag=True,
            help="Neither keep what is read of kernels nor use what was kept.",
        ),
        "--width": option(
            "--width",
            group=OUTPUT,
            metavar="N",
            more=True,
            type=WholeType(LEAST, MOST),
            help="Columns of the text; default: the terminal's, or 100.",
        ),
        "--progress": option(
            "--progress/--no-progress",
            group=OUTPUT,
            more=True,
            default=None,
            help="Show a progress bar; default: on a terminal.",
        ),
        "--strict": option(
            "--strict",
            group=GATE,
            is_flag=True,
            help="Judge as if the worst condition held.",
        ),
        "--suppressions": option(
            "--suppressions",
            group=GATE,
            metavar="FILE",
            multiple=True,
            more=True,
            reads=True,
            help="A TOML file of findings that do not count, with reasons.",
        ),
        "--baseline": option(
            "--baseline",
            group=GATE,
            metavar="FILE",
            more=True,
            reads=True,
            help="Fail only on what is not in FILE, which --write-baseline wrote.",
        ),
        "--write-baseline": option(
            "--write-baseline", group=GATE, metavar="FILE", more=True, help="Write what this run found, for --baseline."
        ),
        "--fail-on": option(
            "--fail-on",
            group=GATE,
            metavar="VERDICT",
            type=click.Choice(FAIL_ON),
            default="risk",
            help="Fail from this verdict on (default: risk), or never.",
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
        help=f"{', '.join(formats)}.",  # with blanks, at which a line may end
    )
