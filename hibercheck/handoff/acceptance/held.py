"""Whether the frames that an image holds are memory by the map that the resumee had, read out of the image alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError
from hibercheck.handoff.facts.e820 import ram_runs, read_e820
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.swsusp.image import Image

MOST = 100
"""Runs that are named."""
_SECTION = 15
"""Frames of a section are 2^15: SECTION_SIZE_BITS is 27 (arch/x86/include/asm/sparsemem.h)."""


@dataclass(frozen=True, slots=True)
class Held:
    """What of an image is not memory.

    Attributes:
        outside: (first frame, length) of what the map does not give as RAM, ascending; at most `MOST` runs.
        refused: The first frame because of which a kernel with this map refuses the image (-14), or None.
    """

    outside: tuple[tuple[int, int], ...]
    refused: int | None


def held_outside(image: Image, space: KernelSpace | None) -> Held | None:
    """Compare an image's frames with the resumee's e820_table; None where that cannot be read out of the image.

    Nor is there an answer where memory was added while the resumee ran: no map has it.

    Args:
        image: The image.
        space: The resumee's address space; None where it cannot be read.
    """
    if space is None:
        return None
    try:
        ram = ram_runs(read_e820(space, "e820_table"))
        runs = image.pfns.runs()
        if not ram or sum(end - first for first, end in ram) < image.info.num_physpages:
            return None
        outside = tuple(islice(not_in(runs, ram), MOST))
        return Held(outside, unloadable(image.pfns.runs(), ram))
    except HibercheckError:
        return None


def not_in(held: Iterable[tuple[int, int]], ram: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Yield (first frame, length) of what is held and is not RAM.

    Args:
        held: (first frame, length), ascending.
        ram: [first, end), ascending.
    """
    place = 0
    for first, length in held:
        here, end = first, first + length
        while here < end:
            while place < len(ram) and ram[place][1] <= here:
                place += 1
            start = ram[place][0] if place < len(ram) else end
            if here < start:
                stop = min(start, end)
                yield here, stop - here
                here = stop
            else:
                here = min(ram[place][1], end)


def unloadable(held: Iterable[tuple[int, int]], ram: Sequence[tuple[int, int]]) -> int | None:
    """Return the first frame that a kernel with this RAM refuses to load, or None.

    Args:
        held: (first frame, length) of what an image holds, ascending.
        ram: [first, end) of the frames that are RAM, ascending.
    """
    if not ram:
        return None
    sections = {number for first, end in ram for number in range(first >> _SECTION, (end - 1 >> _SECTION) + 1)}
    lowest, highest = ram[0][0], ram[-1][1]
    for first, length in held:
        if first < lowest:
            return first
        if first + length > highest:
            return max(first, highest)
        for number in range(first >> _SECTION, (first + length - 1 >> _SECTION) + 1):
            if number not in sections:
                return max(first, number << _SECTION)
    return None
