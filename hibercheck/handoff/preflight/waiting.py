"""An image that waits already, on the disk that the system lies on: was a file system there used since?

Whoever starts an entry resumes that image; what was written since it was made would be corrupted.  A system that does
not run has to be mounted to be looked at, and its mount for writing is such a use.
"""

from __future__ import annotations

import os
from pathlib import Path

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError
from hibercheck.handoff.facts.embedded import own_space
from hibercheck.handoff.facts.session import session_in
from hibercheck.handoff.facts.used_since import UsedSince, used_since
from hibercheck.host.devices import disk_of
from hibercheck.swsusp.image import Image, open_image


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image that nobody has resumed yet.

    Attributes:
        disk: The disk, or the file of a virtual machine's disk.
        partition: Which partition it is in; None where the disk has none.
        release: The kernel that hibernated; None where that is not in it.
        written: When it was written, in seconds since 1970; None where that is not known.
        used_since: File systems on the disk that were used since then.
    """

    disk: str
    partition: int | None
    release: str | None
    written: int | None
    used_since: tuple[UsedSince, ...]


def waiting_image(root: Path, swaps: frozenset[str], files: frozenset[tuple[str, int]] = frozenset()) -> Waiting | None:
    """Look for an image on the disk that a system is on; None where there is none, or the disk cannot be read.

    Args:
        root: ``/``, or where the system is mounted.
        swaps: The UUIDs of its swap, as far as they are known: of several images on a disk only these are looked at.
        files: Of a swap file what ``resume=`` calls its device, and its page there.
    """
    disk = disk_of(root) if os.path.ismount(root) else None
    if disk is None:
        return None
    candidates: list[tuple[str | None, int | None]] = [(f"UUID={uuid}", None) for uuid in sorted(swaps)]
    for which, page in [*sorted(files), *candidates] or [(None, None)]:
        try:
            with open_image(disk, resume=which, resume_offset=page) as image:
                return None if image.header.consumed or image.swap_map is None else _told(image, disk)
        except HibercheckError:
            continue
    return None


def _told(image: Image, disk: str) -> Waiting:
    with own_space(image) as space:
        written = session_in(space).written
        banner = image.find_banner(everywhere=True) if space is None else space.kernel.banner
    return Waiting(
        disk,
        None if image.partition is None else image.partition.number,
        None if banner is None else banner.split(" ")[2],
        written,
        used_since(image, written),
    )
