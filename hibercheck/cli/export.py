"""``hibercheck export``: an image as an ELF core of the resumee's memory."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import INPUTS, shared
from hibercheck.cli.terminal import say
from hibercheck.cli.values import PathType

if TYPE_CHECKING:
    from collections.abc import Callable

    from hibercheck.swsusp.export import Exported
    from hibercheck.swsusp.image import Image

EPILOG = """\b
Examples:
  hibercheck export /dev/nvme0n1p3 vmcore
  hibercheck export image.bin vmcore --kernel vmlinux-6.1
  crash vmlinux-6.1 vmcore
  drgn -c vmcore -s vmlinux-6.1

Exit status: 0 fine, 1 --keep-going left something out, 2 usage, 3 unreadable
input or output, 130 interrupted."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("image", metavar="FILE", type=PathType())
@click.argument("out", metavar="OUT", type=PathType())
@option("--kernel", group=INPUTS, metavar="KERNEL", help="The kernel that hibernated: adds its boot CPU's registers.")
@option("--symbols", group=INPUTS, metavar="FILE", help="System.map or a copy of /proc/kallsyms for KERNEL.")
@option("--keep-going", group=INPUTS, is_flag=True, help="Leave out what cannot be read, and list it.")
@shared("--resume-offset", "--resume", "--progress")
@general_options
def command(**given: Any) -> int:
    """Write the hibernation image FILE as the vmcore OUT.

    OUT is a sparse ELF64 core with every page at its physical address and the kernel's own VMCOREINFO, which crash
    and drgn open.  It is written under a temporary name and renamed when it is whole.  Every block must decode;
    with --keep-going those that do not are left out and listed.  The image's checksum is not compared: hibercheck image
    --verify does that.
    """
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.progress import meter
    from hibercheck.cli.waiting import waiting
    from hibercheck.swsusp.export import export
    from hibercheck.swsusp.image import open_image

    prepare_standard_streams()
    if given["symbols"] and not given["kernel"]:
        raise click.UsageError("--symbols belong to a kernel: give --kernel too")
    with ExitStack() as stack:
        outputs = stack.enter_context(
            opened_outputs([given["out"]], [given["image"], given["kernel"], given["symbols"]])
        )
        with waiting("looking for the image"):
            found = open_image(given["image"], resume_offset=given["resume_offset"], resume=given["resume"])
        image = stack.enter_context(found)
        notes, spare, remarks = _from_kernel(stack, image, given)
        with meter("export", wanted=given["progress"]) as counter:
            result = export(
                image,
                given["out"],
                outputs=outputs,
                notes=notes,
                vmcoreinfo=spare,
                progress=counter,
                keep_going=given["keep_going"],
            )
    _say(image, result, remarks, given["out"])
    return 1 if result.lost else 0


def _from_kernel(
    stack: ExitStack, image: Image, given: dict[str, Any]
) -> tuple[bytes, Callable[[], bytes | None] | None, list[str]]:
    """Return the notes that the kernel's symbols give, what makes VMCOREINFO of them, and what could not be had."""
    if given["kernel"] is None:
        return b"", None, []
    from hibercheck.cli.saved_cpu import saved_cpu, vmcoreinfo
    from hibercheck.errors import MissingFact
    from hibercheck.handoff.facts.resumee import read_resumee
    from hibercheck.kernel.kernel import open_kernel

    kernel = stack.enter_context(open_kernel(given["kernel"], symbols=given["symbols"]))
    space = read_resumee(image, kernel).space
    try:
        return saved_cpu(space), lambda: vmcoreinfo(space), []
    except MissingFact as problem:
        return b"", lambda: vmcoreinfo(space), [f"without registers: {problem}"]


def _left_out(result: Exported) -> list[str]:
    """List the frames that are not in the core."""
    from hibercheck.report.words import count

    if not result.lost:
        return []
    runs = [f"{first:#x}-{first + length - 1:#x}" if length > 1 else f"{first:#x}" for first, length in result.lost]
    gone = count(sum(length for _, length in result.lost), "frame")
    return [f"left out: {gone} that cannot be read: PFN {', '.join(runs)}"]


def _say(image: Image, result: Exported, remarks: list[str], out: str) -> None:
    """Say on standard error what a user should know of the core; a plain success is silent but for a terminal."""
    from hibercheck.report.sanitise import one_line
    from hibercheck.report.words import count

    if result.vmcoreinfo is None:
        remarks = [*remarks, "no VMCOREINFO in the image's memory; give --kernel to have it made"]
    for line in (*image.warnings, *remarks, *result.problems, *_left_out(result)):
        say(f"hibercheck: {one_line(line)}")
    if sys.stderr.isatty():
        say(f"{one_line(out)}: {count(result.frames, 'frame')} in {count(result.runs, 'segment')}")
