"""The swap map: where on the block device each stored page of the image lies."""

from __future__ import annotations

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage
from hibercheck.files.source import Source
from hibercheck.swsusp.runs import RunTable, counts_up

# kernel/power/swap.c:
#
#   #define MAP_PAGE_ENTRIES        (PAGE_SIZE / sizeof(sector_t) - 1)
#
#   struct swap_map_page {
#           sector_t entries[MAP_PAGE_ENTRIES];
#           sector_t next_swap;
#   };
#
# Entries and next_swap are page numbers on the block device; 0 ends the list.  Up to 7.2 a writer whose pages fill
# the last map page leaves a further, empty one behind; 7.3 does not.
ENTRIES = 511
_FIRST = 4
"""Entries that tell a map page from other contents."""


def is_map_page(page: bytes, number: int) -> bool:
    """Whether a page looks like the first map page of an image, and lies at page ``number`` of the device.

    The pages of an image are taken one after the other, the map page before those that it lists: the first entries
    follow its own number (``alloc_swapdev_block``, kernel/power/swap.c), unless swap was in use.
    """
    if len(page) < PAGE_SIZE:
        return False
    entries = memoryview(page).cast("Q")[:_FIRST].tolist()
    return entries == list(range(number + 1, number + 1 + _FIRST))


class SwapMap:
    """The chain of map pages, walked only as far as it is needed.

    Args:
        source: The file.
        first: Page number of the first map page, from the header.
        base: Byte offset of the block device in the file (a partition's start in a disk image).
        named_at: Byte offset in the file of that page number.

    Attributes:
        base: As given.
        seen: Page numbers of the map pages read so far.
    """

    def __init__(self, source: Source, first: int, *, base: int = 0, named_at: int = 0) -> None:
        self._source = source
        self._base = self.base = base
        self._next = first
        self._named_at = named_at
        self.seen: set[int] = set()
        self._table = RunTable()

    def stored_pages(self) -> int:
        """Walk the chain to its end and return how many stored pages it lists."""
        while self._next:
            self._read_next()
        return self._table.length

    def run_at(self, index: int) -> tuple[int, int]:
        """Return the byte offset in the file of stored page ``index``, and how many stored pages follow on from there.

        Raises:
            MalformedImage: The chain ends before, loops, or leads beyond the file.
        """
        while index >= self._table.length:
            if not self._next:
                message = f"the swap map ends after {self._table.length} stored pages, more are needed"
                raise self._malformed(message, self._named_at)
            self._read_next()
        page, length = self._table.run_at(index)
        return self._base + page * PAGE_SIZE, length

    def ranges(self, index: int, count: int) -> list[tuple[int, int]]:
        """Return the (byte offset, size) ranges of ``count`` stored pages from ``index`` on; raises like `run_at`."""
        ranges = []
        while count > 0:
            offset, length = self.run_at(index)
            length = min(length, count)
            ranges.append((offset, length * PAGE_SIZE))
            index += length
            count -= length
        return ranges

    def _read_next(self) -> None:
        number = self._next
        offset = self._base + number * PAGE_SIZE
        if number in self.seen:
            raise self._malformed(f"the swap map loops: map page {number} was already read", offset)
        if not self._within_file(number):
            advice = "it may be cut short, or a swap file's header without its map: give the whole device or disk"
            message = f"the swap map continues at page {number}, beyond the end of the file"
            raise self._malformed(message, self._named_at, advice)
        page = self._source.read(offset, PAGE_SIZE)
        self.seen.add(number)
        count = self._entries_used(page, offset)
        if count < ENTRIES and not self._table.length:
            self._require_entries(count, offset)
        try:
            self._table.append(page, count)
        except MalformedImage as problem:
            raise self._malformed(problem.message, offset) from problem
        self._next = int.from_bytes(page[-8:], "little") if count == ENTRIES else 0
        self._named_at = offset + PAGE_SIZE - 8

    def _entries_used(self, page: bytes, offset: int) -> int:
        """Count the entries up to the first zero, and see that they lie within the file."""
        if counts_up(page, ENTRIES):
            last = int.from_bytes(page[ENTRIES * 8 - 8 : ENTRIES * 8], "little")
            if last >= ENTRIES and self._within_file(last):
                return ENTRIES
        for index, entry in enumerate(memoryview(page).cast("Q")[:ENTRIES]):
            if entry == 0:
                return index
            if not self._within_file(entry):
                message = f"the swap map lists page {entry}, beyond the end of the file"
                raise self._malformed(message, offset + index * 8, "the file may be cut short")
        return ENTRIES

    def _within_file(self, page: int) -> bool:
        return self._base + page * PAGE_SIZE >= 0 and self._source.reaches(self._base + (page + 1) * PAGE_SIZE)

    def _require_entries(self, count: int, offset: int) -> None:
        if count == 0 and self._source.is_hole(offset):
            raise self._malformed("the first swap map page lies in a hole of the sparse file", offset)
        if count == 0:
            raise self._malformed("the first swap map page is empty", offset)

    def _malformed(self, message: str, offset: int | None, advice: str | None = None) -> MalformedImage:
        return MalformedImage(message, path=self._source.path, offset=offset, advice=advice)
