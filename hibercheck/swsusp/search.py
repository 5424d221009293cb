"""Going through a whole file for what may be a header page, and for what encloses one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hibercheck.addresses import PAGE_SIZE
from hibercheck.files.source import Source
from hibercheck.swsusp.header import SIG_OFFSET

SECTOR = 512
SEARCH_STEP = 4 << 20
ENCLOSING = (b"LUKS\xba\xbe", b"LABELONE")
"""What a LUKS device begins with, and the label in the second sector of a physical volume of LVM."""
_MOST = 16


class Marks:
    """Where `ENCLOSING` was found on the way: byte offsets, at most a few."""

    __slots__ = ("offsets",)

    def __init__(self) -> None:
        self.offsets: list[int] = []


def search(source: Source, is_swap: Callable[[bytes], bool], marks: Marks) -> Iterator[int]:
    """Yield the offsets of pages, on any sector, that end with a signature of swap space or of an image.

    Args:
        source: The file.
        is_swap: Tells whether a page ends with such a signature; each begins with an S.
        marks: Takes what else was found.

    Raises:
        InputProblem: The file cannot be read.
    """
    offset = source.next_data(0) // SEARCH_STEP * SEARCH_STEP
    while True:
        # Overlapping by a page: a header may begin in one step and end in the next.
        data = source.read(offset, SEARCH_STEP + PAGE_SIZE - SECTOR)
        _note(data, offset, marks)
        if len(data) < PAGE_SIZE:
            return
        # The byte where a signature would start, of every sector, in one slice.
        firsts = data[SIG_OFFSET::SECTOR]
        sector = firsts.find(b"S")
        while sector >= 0:
            start = sector * SECTOR
            if is_swap(data[start : start + PAGE_SIZE]):
                yield offset + start
            sector = firsts.find(b"S", sector + 1)
        ahead = source.next_data(offset + SEARCH_STEP)
        offset = max(offset + SEARCH_STEP, ahead // SEARCH_STEP * SEARCH_STEP)


def _note(data: bytes, offset: int, marks: Marks) -> None:
    for mark in ENCLOSING:
        at = data.find(mark)
        while at >= 0 and len(marks.offsets) < _MOST:
            if at % SECTOR == 0:
                marks.offsets.append(offset + at - (SECTOR if mark == b"LABELONE" else 0))
            at = data.find(mark, at + 1)
