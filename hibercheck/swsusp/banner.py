"""Which kernel an image holds, read out of its memory without that kernel's file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE
from hibercheck.swsusp.codec import BLOCK_PAGES

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image

NEAR_PAGES = (96 << 20) // PAGE_SIZE
"""How far from its own code a kernel's read-only data can be: its image is no larger than this."""
LONGEST = 1024

# init/version-timestamp.c (init/version.c before 6.1), linux_banner:
#   "Linux version " UTS_RELEASE " (" LINUX_COMPILE_BY "@" LINUX_COMPILE_HOST ") (" LINUX_COMPILER ") " UTS_VERSION "\n"
# A second constant of the same shape without a build number ("# SMP") is what is left of the weak definition of
# init/version.c, beside which 6.1 and later link the one that counts.
BANNER = re.compile(rb"Linux version (\d[\w.+~-]*) \([^\0\n]{3,700}\) #\d[^\0\n]{0,200}\n")


def find_banner(image: Image, *, everywhere: bool = False) -> str | None:
    """Return the resumee's banner, without its line end, or None where it is not found.

    The banner is a constant of the kernel, so it lies in the physical neighbourhood of its ``restore_registers``, whose
    address the arch record gives: only frames around that are decoded, unless ``everywhere`` is set.

    Args:
        image: The image.
        everywhere: Decode the whole image if need be.  What is found then may be the banner of another kernel that
            lay in the page cache.

    Raises:
        MalformedImage: A page cannot be decoded.
    """
    if image.record.jump_address_phys is not None:
        centre = image.record.jump_address_phys // PAGE_SIZE
        for first, end in ((centre, centre + NEAR_PAGES), (max(0, centre - NEAR_PAGES), centre)):
            found = _search(_runs_between(image, first, end))
            if found is not None:
                return found
    return _search(_all(image)) if everywhere else None


def _search(pieces: Iterator[bytes | None]) -> str | None:
    """Look for the banner in pieces of memory; None between two of them says that they are not neighbours."""
    tail = b""
    for piece in pieces:
        if piece is None:
            tail = b""
            continue
        data = tail + piece
        found = BANNER.search(data)
        if found is not None:
            return found.group().decode("ascii", "replace").rstrip("\n")
        tail = data[-LONGEST:]
    return None


def _runs_between(image: Image, first: int, end: int) -> Iterator[bytes | None]:
    """Yield the frames of the image from ``first`` up to ``end``, ascending."""
    expected = -1
    for pfn in image.pfns.between(first, end):
        if pfn != expected:
            yield None
        yield image.frame(pfn)
        expected = pfn + 1


def _all(image: Image) -> Iterator[bytes | None]:
    """Yield all data pages in chunks, pretending that they are neighbours: nearly all are."""
    for number in range(image.info.meta_pages // BLOCK_PAGES, image.stream.chunks):
        yield bytes(image.stream.storage.chunk(number))
