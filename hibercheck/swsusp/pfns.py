"""Which page frames an image holds, and which of its data pages belongs to which of them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import nlargest
from itertools import compress, count, islice, pairwise
from operator import add, sub

from hibercheck.errors import MalformedImage
from hibercheck.swsusp.runs import MAX_RUNS, WORD, counts_up

# kernel/power/snapshot.c: pack_pfns() writes page frame numbers in ascending order, 512 a page, and ends the list with
# ~0UL unless it fills the last page.  Since commit 005e8dddd497 ("PM: hibernate: don't store zero pages in the image
# file", in v6.6) bit 63 marks a frame that was all zeros, for which no data page is stored.
PER_PAGE = 512
END_OF_LIST = (1 << 64) - 1
ZERO_FLAG = 1 << 63
MAX_PFN = (1 << 40) - 1
"""x86-64 has at most 52 bits of physical address (SDM Vol. 3A, 4.1.4)."""


_DIGITS = sum(1 << 64 * place for place in range(PER_PAGE - 1))
_LOWER = (1 << 64 * (PER_PAGE - 1)) - 1
_TOP_BITS = _DIGITS << 63
_FLAGS = _TOP_BITS | 1 << 64 * PER_PAGE - 1
_PLACES = range(1, PER_PAGE)


def _cuts(page: bytes) -> list[int] | None:
    """Return where in a page of the list a PFN does not follow from the one before it, or its mark changes.

    None if the page is not in strictly ascending order, as no page with the end mark is.  A page is one large number
    here, whose digits are the entries: all differences are one subtraction, which the interpreter does at C's speed.
    """
    number = int.from_bytes(page, "little")
    flags = number & _FLAGS
    number ^= flags
    gaps = (number >> 64) - (number & _LOWER) - _DIGITS
    # An entry that is not above the one before it makes its digit negative: it borrows, which shows in its top bit.
    if gaps < 0 or gaps & _TOP_BITS:
        return None
    if flags:
        gaps |= (flags ^ flags >> 64) & _TOP_BITS
    return list(compress(_PLACES, array("Q", gaps.to_bytes(WORD * (PER_PAGE - 1), "little"))))


class PfnList:
    """The frames of an image, in ascending order.

    Kept as segments: consecutive frames that are all stored, or all zero.  Memory: 24 bytes a segment, and so
    no more than 768 MiB.
    The arrays `starts`, `ranks` and `data` have one element a segment; `ranks` and `data` have one more at the end.

    Attributes:
        starts: First PFN of each segment; sorted.
        ranks: Position of that PFN in the list.
        data: Number of data pages before the segment; a segment of zero pages adds none.
        has_zero_flag: Whether any frame is marked as all zeros by bit 63.
    """

    def __init__(self) -> None:
        self.starts = array("Q")
        self.ranks = array("Q", [0])
        self.data = array("Q", [0])
        self.has_zero_flag = False
        self._expected = 0
        self._zero = False
        self._ended = False

    def append_page(self, page: bytes) -> None:
        """Append one page of the list as it is in the image.

        Raises:
            MalformedImage: PFNs are not in strictly ascending order, or impossible, or follow the end mark.
        """
        if self._ended:
            raise MalformedImage("the PFN list has ended and yet pages of it follow", pfn=max(self.last, 0))
        if len(self.starts) >= MAX_RUNS:
            raise MalformedImage(f"the PFN list is in more than {MAX_RUNS} pieces")
        cuts = [] if counts_up(page, PER_PAGE) else _cuts(page)
        words = memoryview(page).cast("Q")
        if cuts is None or words[PER_PAGE - 1] & ~ZERO_FLAG > MAX_PFN:
            self._append_each(words)
        else:
            self._append_segments(words, cuts)

    def _append_segments(self, words: memoryview, cuts: list[int]) -> None:
        """Append a page of ascending PFNs whose segments begin at ``cuts`` and, it may be, at its start."""
        if words[0] != self._expected or not self.starts:
            self._open(words[0])
        opened = [words[cut] for cut in cuts]
        self._expected = words[PER_PAGE - 1] + 1
        rank = self.ranks.pop()
        self.ranks.extend([rank + cut for cut in cuts])
        self.ranks.append(rank + PER_PAGE)
        data = self.data.pop()
        if self._zero or max(opened, default=0) & ZERO_FLAG:
            self.has_zero_flag = True
            opened = self._count_data(data, cuts, opened)
        else:
            self.data.extend([data + cut for cut in cuts])
            self.data.append(data + PER_PAGE)
        self.starts.extend(opened)

    def _count_data(self, data: int, cuts: list[int], opened: list[int]) -> list[int]:
        """Count the data pages of segments some of which are zero, and return their first PFNs without the mark."""
        before = 0
        for cut, word in zip(cuts, opened, strict=True):
            data += 0 if self._zero else cut - before
            self.data.append(data)
            self._zero = bool(word & ZERO_FLAG)
            before = cut
        self.data.append(data + (0 if self._zero else PER_PAGE - before))
        return [word & ~ZERO_FLAG for word in opened]

    def _append_each(self, words: memoryview) -> None:
        expected = self._expected if self.starts else -1
        pending = 0
        for index, word in enumerate(words):
            if word != expected:
                if self.starts:
                    self._close(index - pending)
                pending = index
                self._expected = expected
                if word == END_OF_LIST:
                    self._ended = True
                    return
                self._open(word)
            expected = word + 1
        self._close(len(words) - pending)
        self._expected = expected

    def _open(self, word: int) -> None:
        """Start a segment whose first entry is ``word``."""
        pfn = word & ~ZERO_FLAG
        if pfn > MAX_PFN:
            raise MalformedImage("the PFN list has an impossible page frame number", pfn=pfn)
        if self.starts:
            before = (self._expected - 1) & ~ZERO_FLAG
            if pfn == before:
                raise MalformedImage("the PFN list names a frame twice", pfn=pfn)
            if pfn < before:
                raise MalformedImage(f"the PFN list is out of order: it follows PFN {before:#x}", pfn=pfn)
        self.ranks.append(self.ranks[-1])
        self.data.append(self.data[-1])
        self.starts.append(pfn)
        self._zero = bool(word & ZERO_FLAG)
        self.has_zero_flag = self.has_zero_flag or self._zero

    def _close(self, count: int) -> None:
        """Add ``count`` frames to the segment that is open."""
        self.ranks[-1] += count
        if not self._zero:
            self.data[-1] += count

    def __len__(self) -> int:
        return self.ranks[-1]

    @property
    def data_pages(self) -> int:
        """Frames that have a data page."""
        return self.data[-1]

    @property
    def zero_count(self) -> int:
        """Frames marked as all zeros, without a data page."""
        return self.ranks[-1] - self.data[-1]

    @property
    def last(self) -> int:
        """The highest PFN; -1 in an empty list."""
        return self.starts[-1] + self.ranks[-1] - self.ranks[-2] - 1 if self.starts else -1

    def _segment(self, pfn: int) -> int:
        """Return the segment that holds ``pfn``, or -1."""
        segment = bisect_right(self.starts, pfn) - 1
        if segment < 0 or pfn - self.starts[segment] >= self.ranks[segment + 1] - self.ranks[segment]:
            return -1
        return segment

    def __contains__(self, pfn: object) -> bool:
        return isinstance(pfn, int) and pfn >= 0 and self._segment(pfn) >= 0

    def is_zero(self, pfn: int) -> bool:
        """Whether the image says of ``pfn`` that it is all zeros (a stored page may hold zeros as well)."""
        segment = self._segment(pfn)
        return segment >= 0 and self.data[segment] == self.data[segment + 1]

    def data_index(self, pfn: int) -> int | None:
        """Return which data page is the frame's: its index; -1 for a zero frame; None for one that is not listed."""
        segment = self._segment(pfn)
        if segment < 0:
            return None
        if self.data[segment] == self.data[segment + 1]:
            return -1
        return self.data[segment] + pfn - self.starts[segment]

    def run_from(self, pfn: int) -> int:
        """Return how many frames from a listed one on have data pages that follow one another, or none of them any."""
        segment = self._segment(pfn)
        return self.starts[segment] + self.ranks[segment + 1] - self.ranks[segment] - pfn

    def pfn_of(self, data_index: int) -> int:
        """Return the frame to which the ``data_index``-th data page belongs; ``data_index`` is below `data_pages`."""
        segment = bisect_right(self.data, data_index) - 1
        return self.starts[segment] + data_index - self.data[segment]

    def places(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first data page, end, rank of its frame in the list) for the contiguous parts of [first, end).

        Data pages are contiguous in the list where no zero frame lies between their frames.
        """
        segment = bisect_right(self.data, first) - 1
        while first < end:
            zeros = self.ranks[segment] - self.data[segment]
            stop = first
            while stop < end and self.ranks[segment] - self.data[segment] == zeros:
                segment += 1
                stop = min(end, self.data[segment])
            if stop > first:
                yield first, stop, first + zeros
            first = stop

    def count_between(self, first: int, end: int) -> int:
        """Return how many listed frames have numbers from ``first`` up to, not including, ``end``."""
        return max(0, self.rank(end) - self.rank(first))

    def rank(self, pfn: int) -> int:
        """Return how many listed frames have a number below ``pfn``."""
        segment = bisect_right(self.starts, pfn) - 1
        if segment < 0:
            return 0
        return min(self.ranks[segment] + pfn - self.starts[segment], self.ranks[segment + 1])

    def between(self, first: int, end: int) -> Iterator[int]:
        """Yield the listed frames with numbers from ``first`` up to, not including, ``end``, ascending."""
        segment = max(0, bisect_right(self.starts, first) - 1)
        while segment < len(self.starts) and self.starts[segment] < end:
            start = self.starts[segment]
            stop = start + self.ranks[segment + 1] - self.ranks[segment]
            yield from range(max(first, start), min(end, stop))
            segment += 1

    def _lengths(self) -> Iterator[int]:
        return map(sub, islice(self.ranks, 1, None), self.ranks)

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first PFN, length, index of its first data page or -1 for zeros), ascending."""
        following = islice(self.data, 1, None)
        for start, length, data, after in zip(self.starts, self._lengths(), self.data, following, strict=False):
            yield start, length, -1 if data == after else data

    def runs(self) -> Iterator[tuple[int, int]]:
        """Return (first PFN, length) of the maximal runs of consecutive frames, zero frames included, ascending."""
        segments = zip(self.starts, self._lengths(), strict=True)
        return _joined(segments) if self.has_zero_flag else segments

    def coarse_runs(self, most: int) -> tuple[tuple[int, int], ...]:
        """Return no more than ``most`` runs (at least one) that cover all frames: the smallest gaps are closed.

        Memory does not grow with the number of runs.
        """
        if not self.starts:
            return ()
        cuts = [0, *self._before_widest_gaps(most - 1), len(self.starts)]
        runs = []
        for cut, after in pairwise(cuts):
            first, last = self.starts[cut], after - 1
            runs.append((first, self.starts[last] + self.ranks[after] - self.ranks[last] - first))
        return tuple(runs)

    def _gaps(self) -> Iterator[int]:
        """Frames left out before each segment but the first."""
        return map(sub, islice(self.starts, 1, None), map(add, self.starts, self._lengths()))

    def _before_widest_gaps(self, most: int) -> list[int]:
        """Segments that come after the widest gaps, ascending; of gaps of one width the last ones."""
        widest = nlargest(most, self._gaps())
        if not widest:
            return []
        # Widths alone are compared first: most are the same, and with their places every one would beat those before.
        least = widest[-1]
        wider = list(compress(count(1), map(least.__lt__, self._gaps())))
        as_wide = compress(count(1), map(least.__eq__, self._gaps())) if least else ()
        return sorted([*wider, *deque(as_wide, most - len(wider))])


def _joined(segments: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join segments that follow one another, of which one is stored and the other zero."""
    first, length = -1, 0
    for start, size in segments:
        if length and start == first + length:
            length += size
            continue
        if length:
            yield first, length
        first, length = start, size
    if length:
        yield first, length
