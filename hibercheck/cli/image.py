"""``hibercheck image``: show what is in a hibernation image, and verify it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import INPUTS, OUTPUT, shared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hibercheck.report.image import ImageView

EPILOG = """\b
Examples:
  hibercheck image /dev/nvme0n1p3
  hibercheck image disk.img.zst --resume-offset 34816 --verify
  hibercheck image image.bin --map --format json

Exit status: 0 fine, 1 --verify found damage, 2 usage, 3 unreadable input, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="FILE", type=click.Path())
@option("--verify", group=INPUTS, is_flag=True, help="Decode everything; check lengths, PFN list, checksum.")
@shared("--resume-offset")
@option("--map", "with_runs", group=OUTPUT, is_flag=True, help="List the runs of frames.")
@shared("--format", "--output", "--width", "--progress")
@general_options
def command(**given: Any) -> int:
    """Show what is in the hibernation image FILE.

    FILE is a swap partition, a disk with a swap file on it, a copy of either (also as .gz, .xz, .zst or .lz4), or a
    raw /dev/snapshot stream.  It is only read.
    """
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.cli.progress import meter
    from hibercheck.errors import MalformedImage
    from hibercheck.report.image import view
    from hibercheck.swsusp.image import open_image

    prepare_standard_streams()
    refuse_overwriting([given["output"]], [given["image"]])
    with open_image(given["image"], resume_offset=given["resume_offset"]) as image:
        verified = None
        if given["verify"]:
            with meter("verify", wanted=given["progress"]) as counter:
                verified = image.verify(counter)
        try:
            shown = view(image, verified=verified, with_runs=given["with_runs"])
        except MalformedImage:
            if verified is None:
                raise
            _complain(verified.problems)
            return 1
        content = _render(shown, given)
    if given["output"] is not None:
        write_file(given["output"], content)
    else:
        sys.stdout.write(content)
    return 0 if verified is None or verified.ok else 1


def _complain(problems: Iterable[str]) -> None:
    """Name everything that a verification found in an image that is too damaged to be shown."""
    from hibercheck.report.sanitise import one_line

    for problem in problems:
        click.echo(f"hibercheck: {one_line(problem)}", err=True)


def _render(shown: ImageView, given: dict[str, Any]) -> str:
    if given["form"] == "json":
        from hibercheck.report.image import render

        return render(shown)
    from hibercheck.cli.output import FILE_WIDTH, make_console
    from hibercheck.report import image_text

    color, width = given["color"], given["width"]
    if given["output"] is not None:
        color, width = "always" if color == "always" else "never", width or FILE_WIDTH
    console = make_console(sys.stdout, color=color, width=width)
    with console.capture() as captured:
        image_text.render(shown, console)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
