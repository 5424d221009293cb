"""``hibercheck image``: show what is in a hibernation image, and verify it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import OUTPUT, shared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from hibercheck.report.image import ImageView

EPILOG = """\b
Examples:
  hibercheck image /dev/nvme0n1p3
  hibercheck image disk.img.zst --resume-offset 34816 --verify
  hibercheck image image.bin --map --format json

Exit status: 0 fine, 1 --verify found damage, 2 usage, 3 unreadable input, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="FILE", type=click.Path())
@shared("--verify", "--resume-offset")
@option("--map", "with_runs", group=OUTPUT, is_flag=True, help="List the runs of frames.")
@shared("--format", "--output", "--width", "--progress")
@general_options
def command(**given: Any) -> int:
    """Show what is in the hibernation image FILE.

    FILE is a swap partition, a disk with a swap file on it, a copy of either (also as .gz, .xz, .zst or .lz4), or a
    raw /dev/snapshot stream.  It is only read.

    --verify reads and decodes all of it and compares the CRC-32 that the kernel made of everything behind the info
    page.  The kernel refuses to load an image that fails it; other commands read only what they need, and do not
    compare it.  It tells accidents, not forgery, and nothing of the header and the info page, of which only the
    plausibility is checked.  An image without a checksum (not compressed, or a /dev/snapshot stream) can only be read
    through: neither hibercheck nor the kernel can tell whether a page of it was changed.
    """
    from hibercheck.cli.output import prepare_standard_streams, refuse_overwriting, write_file
    from hibercheck.cli.progress import meter
    from hibercheck.errors import MalformedImage
    from hibercheck.report.image import PICTURE_COLUMNS, view
    from hibercheck.report.image_text import picture_columns
    from hibercheck.swsusp.image import open_image

    prepare_standard_streams()
    refuse_overwriting([given["output"]], [given["image"]])
    with open_image(given["image"], resume_offset=given["resume_offset"]) as image:
        verified = None
        if given["verify"]:
            with meter("verify", wanted=given["progress"]) as counter:
                verified = image.verify(counter)
        console = _console(given)
        columns = PICTURE_COLUMNS if console is None else picture_columns(console.width)
        try:
            shown = view(image, verified=verified, with_runs=given["with_runs"], columns=columns)
        except MalformedImage:
            if verified is None:
                raise
            _complain(verified.problems)
            return 1
        content = _render(shown, console)
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


def _console(given: dict[str, Any]) -> Console | None:
    """Return the console of the text; None for JSON."""
    if given["form"] == "json":
        return None
    from hibercheck.cli.output import console_for

    return console_for(given["output"], color=given["color"], width=given["width"])


def _render(shown: ImageView, console: Console | None) -> str:
    if console is None:
        from hibercheck.report.image import render

        return render(shown)
    from hibercheck.cli.output import drawn
    from hibercheck.report import image_text

    return drawn(console, lambda to: image_text.render(shown, to))
