"""The resumer that nobody named: what the machine's boot loader would start by default."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hibercheck.cli.terminal import say

if TYPE_CHECKING:
    from hibercheck.host.entries import BootEntry


def resolve(given: dict[str, Any]) -> None:
    """Fill in ``resumer``, and its command line, from the default boot entry where they were not given.

    Raises:
        UsageProblem: There is no entry, or the image is not known to be of this machine.
        InputProblem: There is no such image.
    """
    if given["resumer"] is not None:
        return
    from hibercheck.errors import UsageProblem
    from hibercheck.host.entries import boot_entries
    from hibercheck.host.tree import inside
    from hibercheck.report.sanitise import one_line
    from hibercheck.swsusp.image import open_image

    root = Path(given["root"] or "/")
    entries = boot_entries(root)
    if not entries:
        with open_image(given["image"], resume_offset=given["resume_offset"], resume=given["resume"]):
            pass  # a name that is mistyped is what to tell first
        raise UsageProblem(
            f"no boot entries found in {root}", advice="name the kernel that will load the image: --resumer"
        )
    if given["root"] is None and not _of_this_machine(given, root, entries):
        raise UsageProblem(
            "the image is not known to be this machine's",
            path=given["image"],
            advice="name the kernel that will load it (--resumer), or where its system is mounted (--root DIR)",
        )
    entry = entries[0]
    given["resumer"] = str(entry.kernel)
    if given["resumer_cmdline"] is None:
        given["resumer_cmdline"] = entry.command_line
    last = entry.initramfs[-1] if entry.initramfs else None
    if last is not None and given["resumer_initramfs"] is None and os.access(inside(last, root), os.R_OK):
        given["resumer_initramfs"] = str(inside(last, root))
    if not given.get("quiet"):
        what = f"the resumer is {entry.kernel}, the default boot entry '{entry.title}' ({entry.source})"
        say(f"hibercheck: {one_line(what)}")


def _of_this_machine(given: dict[str, Any], root: Path, entries: tuple[BootEntry, ...]) -> bool:
    """Whether the image is on a device of this machine, or on the swap that it uses and by its name."""
    from hibercheck.handoff.facts.session import session_of
    from hibercheck.host.swap import host_name, swap_uuids
    from hibercheck.swsusp.image import open_image

    try:
        if stat.S_ISBLK(Path(given["image"]).stat().st_mode):
            return True
    except (OSError, ValueError):
        pass
    with open_image(given["image"], resume_offset=given["resume_offset"], resume=given["resume"]) as image:
        if image.swap_uuid is None or image.swap_uuid not in swap_uuids(root, entries):
            return False
        name = session_of(image).node
        return name is not None and name == host_name(root)
