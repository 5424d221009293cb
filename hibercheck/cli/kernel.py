"""``hibercheck kernel``: show what a kernel does when it resumes, with evidence, or keep it as a facts file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import INPUTS, OUTPUT, shared
from hibercheck.cli.values import PathType

if TYPE_CHECKING:
    from hibercheck.kernel.kernel import Kernel

EPILOG = """\b
Examples:
  hibercheck kernel /boot/vmlinuz-6.12.94+deb13-cloud-amd64
  hibercheck kernel vmlinux --format json -o vmlinux.facts.json
  hibercheck image.bin --resumer vmlinux.facts.json

Exit status: 0 fine, 2 usage, 3 unreadable input, 4 no banner, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("kernel", metavar="KERNEL", type=PathType())
@option("--symbols", group=INPUTS, metavar="FILE", help="A System.map or a copy of /proc/kallsyms for the kernel.")
@option("--evidence/--no-evidence", group=OUTPUT, default=True, help="Show what each statement was read from.")
@option("--all-symbols", group=OUTPUT, is_flag=True, help="Keep every symbol in the JSON, to name any address.")
@shared("--format", "--output", "--width")
@general_options
def command(**given: Any) -> int:
    """Show how a kernel parks CPUs, which ones it brings back before a resume, and which images it accepts.

    KERNEL is a vmlinux, a vmlinuz, a package with one, the release of an installed kernel, or a facts file.  With
    --format json the output is a facts file: other commands take it in place of the kernel.
    """
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.waiting import waiting
    from hibercheck.kernel.kernel import open_kernel

    prepare_standard_streams()
    with opened_outputs([given["output"]], [given["kernel"], given["symbols"]]) as outputs:
        with (
            waiting("reading the kernel's code"),
            open_kernel(given["kernel"], symbols=given["symbols"]) as kernel,
        ):
            content = _json(kernel, given) if given["form"] == "json" else _text(kernel, given)
        outputs.write(given["output"], [content])
    return 0


def _json(kernel: Kernel, given: dict[str, Any]) -> str:
    import json

    from hibercheck.kernel.code.facts import FactsKernel, facts_of

    if isinstance(kernel, FactsKernel):
        return json.dumps(kernel.document, indent=1) + "\n"
    return json.dumps(facts_of(kernel, all_symbols=given["all_symbols"]), indent=1) + "\n"


def _text(kernel: Kernel, given: dict[str, Any]) -> str:
    from hibercheck.cli.output import as_text
    from hibercheck.report import kernel_text
    from hibercheck.report.kernel import view

    return as_text(
        lambda console: kernel_text.render(view(kernel), console, evidence=given["evidence"]),
        color=given["color"],
        width=given["width"],
        path=given["output"],
    )
