"""The copies that the resumer has still to make when it jumps into them: its list ``restore_pblist``."""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import pairwise

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace

# struct pbe { void *address; void *orig_address; struct pbe *next; };    include/linux/suspend.h
_PBE = struct.Struct("<QQQ")


class PendingCopies:
    """The frames that are copied after parking, in their order.

    Frames of the image that the resumer had free were loaded in place (get_buffer(), kernel/power/snapshot.c) and are
    not among them.  The list is read when it is first asked for: it may have a hundred thousand elements.

    Args:
        space: The resumer's address space, out of a dump.
        most: How many there can be: the frames of the image.
    """

    def __init__(self, space: KernelSpace, most: int) -> None:
        self._space, self._most = space, most
        self._read: tuple[int, ...] | None = None
        self._known = True

    @property
    def frames(self) -> tuple[int, ...] | None:
        """PFNs in ascending order, so the last copied first; None where the list cannot be read or is no such list."""
        if self._read is None and self._known:
            try:
                found = _follow(self._space, self._most)
            except MissingFact:
                found = None
            # prepended while the PFNs ascend, so copied in descending order; anything else is damage
            self._known = found is not None and all(a > b for a, b in pairwise(found))
            self._read = tuple(reversed(found)) if found is not None and self._known else None
        return self._read

    def number(self, pfn: int) -> int | None:
        """Return how many copies have been made once every frame from ``pfn`` up has been; None if not known."""
        frames = self.frames
        return None if frames is None else len(frames) - bisect_left(frames, pfn)


def _follow(space: KernelSpace, most: int) -> list[int] | None:
    """Return the frames in the order of the list; None if it has more elements than there can be."""
    at = space.variable("restore_pblist")
    originals: list[int] = []
    while at:
        page = at & -PAGE_SIZE
        last = page + PAGE_SIZE - _PBE.size
        if at > last:
            raise MissingFact(f"restore_pblist has an element at {at:#x}, across two pages")
        content = space.read(page, PAGE_SIZE)
        while page <= at <= last:  # a page is read once, whatever the order of its elements
            if len(originals) >= most:
                return None
            _address, original, at = _PBE.unpack_from(content, at - page)
            originals.append(original)
    return _in_direct_map(space, originals)


def _in_direct_map(space: KernelSpace, addresses: list[int]) -> list[int] | None:
    """Return the frames of pages' addresses in the direct map (page_address()); None where they are not all in it.

    It maps all memory in one piece, so that the first and the last address tell what is between them: to walk to each
    of ten thousand took a fifth of a check with a dump.
    """
    if not addresses:
        return []
    shift = addresses[0] - space.physical(addresses[0])
    if addresses[-1] - space.physical(addresses[-1]) != shift:
        return None
    return [address - shift >> PAGE_SHIFT for address in addresses]
