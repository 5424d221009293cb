"""``hibercheck image``: show what is in a hibernation image, and verify it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import OUTPUT, shared
from hibercheck.cli.terminal import say
from hibercheck.cli.values import PathType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hibercheck.handoff.acceptance.announced import Announced
    from hibercheck.report.image import ImageView
    from hibercheck.report.styled import Surface
    from hibercheck.swsusp.image import Image

EPILOG = """\b
Examples:
  hibercheck image /dev/nvme0n1p3
  hibercheck image disk.img.zst --resume-offset 34816 --verify
  hibercheck image image.bin --map --format json

Exit status: 0 fine, 1 --verify found damage, 2 usage, 3 unreadable input, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="FILE", type=PathType())
@shared("--verify", "--resume-offset", "--resume", "--root", "--resumer-facts")
@option("--map", "with_runs", group=OUTPUT, is_flag=True, help="List the memory map and the runs of frames.")
@shared("--format", "--output", "--width", "--progress")
@general_options
def command(**given: Any) -> int:
    """Show what is in the hibernation image FILE.

    FILE is a swap partition, a disk with a swap file on it, a copy of either (also as .gz, .xz, .zst or .lz4), or a
    raw /dev/snapshot stream.  It is only read.

    --verify reads and decodes all of it and compares the CRC-32 that the kernel made of everything after the info
    page.  The kernel refuses an image whose checksum is wrong.  Other commands read only what they need and do not
    compare it.  A CRC finds accidental damage, not tampering, and does not cover the header and the info page.  The
    frames are also compared with the resumee's own memory map, where that is in the image: a kernel refuses an image
    with a frame beyond memory.  An image without a checksum (not compressed, or a /dev/snapshot stream) can only be
    read through: neither hibercheck nor the kernel can tell whether a page of it was changed.

    systemd's EFI variable HibernateLocation is compared with FILE.  It is this machine's if FILE is a device, or
    that of --root or --resumer-facts.
    """
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.progress import meter
    from hibercheck.cli.waiting import waiting
    from hibercheck.errors import MalformedImage
    from hibercheck.report.image import PICTURE_COLUMNS, view
    from hibercheck.report.image_text import picture_columns
    from hibercheck.swsusp.image import open_image

    prepare_standard_streams()
    with ExitStack() as stack:
        outputs = stack.enter_context(opened_outputs([given["output"]], [given["image"], given["resumer_facts"]]))
        with waiting("looking for the image"):
            found = open_image(given["image"], resume_offset=given["resume_offset"], resume=given["resume"])
        image = stack.enter_context(found)
        verified = None
        if given["verify"]:
            with meter("verify", wanted=given["progress"]) as counter:
                verified = image.verify(counter)
        console = _console(given)
        columns = PICTURE_COLUMNS if console is None else picture_columns(console.width)
        try:
            shown = view(
                image,
                verified=verified,
                with_runs=given["with_runs"],
                columns=columns,
                announced=_announced(given, image),
            )
        except MalformedImage as problem:
            if image.header.consumed and image.swap_map is not None:
                from hibercheck.swsusp.remains import told

                raise told(problem, image.source, image.header_offset, image.swap_map.base) from problem
            if verified is None:
                raise
            _complain(verified.problems)
            return 1
        outputs.write(given["output"], [_render(shown, console)])
    lost = shown.held is not None and shown.held.refused is not None
    return 1 if lost or (verified is not None and not verified.ok) else 0


def _announced(given: dict[str, Any], image: Image) -> Announced | None:
    """Return what systemd says of where an image is: in a facts file, in a system, or on the machine of the device."""
    import stat
    from pathlib import Path

    from hibercheck.handoff.acceptance.announced import Announced, is_announced

    uuid, offset, kernel = None, 0, None
    if given["resumer_facts"] is not None:
        from hibercheck.handoff.facts.resumer_facts import read_facts

        uuid, offset = read_facts(given["resumer_facts"]).location or (None, 0)
    elif given["root"] is not None or stat.S_ISBLK(Path(given["image"]).stat().st_mode):
        from hibercheck.host.location import hibernate_location

        found = hibernate_location(Path(given["root"] or "/"))
        if found is not None:
            uuid, offset, kernel = found.uuid, found.offset, found.kernel
    return None if uuid is None else Announced(uuid, offset, kernel, is_announced(image, uuid, offset))


def _complain(problems: Iterable[str]) -> None:
    """Name everything that a verification found in an image that is too damaged to be shown."""
    from hibercheck.report.sanitise import one_line

    for problem in problems:
        say(f"hibercheck: {one_line(problem)}")


def _console(given: dict[str, Any]) -> Surface | None:
    """Return the console of the text; None for JSON."""
    if given["form"] == "json":
        return None
    from hibercheck.cli.output import plain_or_console

    return plain_or_console(given["output"], color=given["color"], width=given["width"])


def _render(shown: ImageView, console: Surface | None) -> str:
    if console is None:
        from hibercheck.report.image import render

        return render(shown)
    from hibercheck.cli.output import drawn
    from hibercheck.report import image_text

    return drawn(console, lambda to: image_text.render(shown, to))
