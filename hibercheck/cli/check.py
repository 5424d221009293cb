"""``hibercheck check``: the options of the main job."""

from __future__ import annotations

from typing import Any

import click

from hibercheck.cli.job import FORMATS, predict
from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import DESIGNS, HANDOFF, OUTPUT, SCENARIO, formats_option, shared
from hibercheck.cli.values import PathType

KERNELS = ("--resumer", "--resumee")
EPILOG = """\b
Examples:
  hibercheck /dev/sda2 --resumer 6.12.94-amd64 --format sarif=a.sarif

Exit status: 0 fine, 1 fails or refused, 2 usage, 3 bad input, 4 undetermined."""


class CheckCommand(GroupedCommand):
    """``check``, which knows what files without options in front of them were meant to be."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; say of a second and a third file which options they need."""
        given = list(args)  # the parser takes them away
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            more = [] if ctx.resilient_parsing else self._left_over(ctx, given)
            if not 1 <= len(more) <= len(KERNELS):
                raise
            import shlex

            meant = " ".join(f"{option} {shlex.quote(file)}" for option, file in zip(KERNELS, more, strict=False))
            raise click.UsageError(f"only IMAGE is given without an option; did you mean {meant}?", ctx) from error

    def _left_over(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments that follow the one that the command takes."""
        try:
            return self.make_parser(ctx).parse_args(args=args)[1]
        except click.UsageError:
            return []


@click.command(cls=CheckCommand, epilog=EPILOG)
@click.argument("image", metavar="IMAGE", type=PathType())
@shared(*HANDOFF, "--verify")
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
@shared("--output", "--quiet")
@option("-v", "--verbose", group=OUTPUT, is_flag=True, help=("Show the evidence: frames, walks, bytes, traits."))
@option(
    "--timeline",
    group=OUTPUT,
    is_flag=True,
    more=True,
    help="Show step by step what each CPU would do during the copy.",
)
@option(
    "--execute",
    group=OUTPUT,
    is_flag=True,
    more=True,
    help="Run each parked CPU's code in an emulator as well (needs unicorn).",
)
@shared("--width", "--fail-on", "--strict", "--suppressions", "--baseline", "--write-baseline")
@shared("--cache-dir", "--no-cache")
@general_options
def command(**given: Any) -> int:
    """Predict what becomes of the machine when the resumer loads IMAGE (a partition, disk or copy).
    KERNEL is a vmlinux, vmlinuz, package or release.
    """  # noqa: D205 - one paragraph: the help has to fit a screen
    return predict(given)
