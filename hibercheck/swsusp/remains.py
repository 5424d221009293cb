"""What is left of an image that was resumed or given up, after swap was written over it: the usual state after a reset.

Swap takes any free page, so that parts of map, PFN list and data may be gone while the rest is as it was. Map pages are
recognised by what they are (page numbers that go up), blocks by decoding: each begins on a page of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MalformedImage
from hibercheck.files.source import Source
from hibercheck.swsusp.banner import BANNER, LONGEST
from hibercheck.swsusp.codec import (
    BLOCK_SIZE,
    DECODERS,
    LENGTH_SIZE,
    MAX_COMPRESSED,
    MAX_STORED_PAGES,
    CorruptBlock,
)
from hibercheck.swsusp.foreign import AGAIN, RESUMED, Overwritten
from hibercheck.swsusp.header import Flags, parse_header
from hibercheck.swsusp.swapmap import ENTRIES

_STEP = 4 << 20
_LAST_PAGE_AT = 1028
"""last_page in union swap_header (include/linux/swap.h)."""
_MOST_PAGES = (1 << 40) // PAGE_SIZE
_GAPS = 4
"""One entry in so many of a map page may be other than the one before plus one: free pages of a used swap have gaps."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of an image.

    Attributes:
        whole: Pages of its memory (and of its PFN list) that still decode; None where it is not compressed, so that
            nobody can tell a page of it from another.
        stored: Pages of swap that the map pages that are left list.
        banner: The kernel's ``Linux version`` line, or None where it is not among what is left.
    """

    whole: int | None
    stored: int
    banner: str | None


def told(problem: MalformedImage, source: Source, offset: int, base: int) -> MalformedImage:
    """Say of an image that swap lies over, besides what cannot be read, what is left.

    Args:
        problem: What could not be read.
        source: The file.
        offset: Byte offset of the header page.
        base: Byte offset of its block device in the file.
    """
    left = survey(source, offset, base)
    known = isinstance(problem, Overwritten) or problem.message.startswith(RESUMED)
    what = problem.message if known else f"{RESUMED}: {problem.message}"
    kernel = left.banner.split(" ")[2] if left.banner is not None else None
    written = f", which {kernel} wrote," if kernel is not None else ""
    if left.whole is None:
        rest = f"of {left.stored} pages{written} nobody can tell which are whole, for it is not compressed"
    elif left.whole:
        rest = f"{left.whole} pages of it{written} are still whole, and nothing can be judged from them"
    else:
        rest = "nothing of it is left"
    return MalformedImage(f"{what}; {rest}", path=source.path, offset=problem.offset, advice=AGAIN)


def survey(source: Source, offset: int, base: int) -> Remains:
    """Go through swap space for what is left of the image that its header page names.

    Args:
        source: The file.
        offset: Byte offset of the header page.
        base: Byte offset of its block device in the file.

    Raises:
        InputProblem: The file cannot be read.
    """
    page = source.read(offset, PAGE_SIZE)
    header = parse_header(page)
    compressor = None
    if Flags.NOCOMPRESS_MODE not in header.flags:
        compressor = "lz4" if Flags.COMPRESSION_ALG_LZ4 in header.flags else "lzo"
    last = int.from_bytes(page[_LAST_PAGE_AT : _LAST_PAGE_AT + 4], "little") or _MOST_PAGES
    chains = _chains(source, base, header.image, (offset - base) // PAGE_SIZE + last)
    whole, stored, banner = 0, 0, None
    for chain in chains:
        blocks = _Blocks(source, base, chain, compressor)
        for plain in blocks:
            whole += len(plain) // PAGE_SIZE
            banner = banner or _banner(plain)
        stored += blocks.listed
    return Remains(whole if compressor is not None else None, stored, banner)


def _banner(plain: bytes) -> str | None:
    found = BANNER.search(plain)
    return found.group().decode("ascii", "replace").rstrip("\n")[:LONGEST] if found is not None else None


def _chains(source: Source, base: int, first: int, last: int) -> list[list[tuple[int, ...]]]:
    """Return the map pages that are left, those that follow one another together, each as its entries."""
    pages = dict(_map_pages(source, base, first, last))
    followed = {words[ENTRIES] for words in pages.values()}
    heads = [number for number in pages if number not in followed or number == first]
    chains, seen = [], set()
    for head in heads:
        chain, number = [], head
        while number in pages and number not in seen:
            seen.add(number)
            chain.append(pages[number][:ENTRIES])
            number = pages[number][ENTRIES]
        chains.append(chain)
    return chains


def _map_pages(source: Source, base: int, first: int, last: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (page number, words) of what looks like a map page; the first of all is looked at by its number too."""
    step = source.next_data(max(base, 0))
    while source.reaches(step + PAGE_SIZE):
        data = source.read(step - (step - base) % PAGE_SIZE, _STEP)
        words = memoryview(data)[: len(data) // PAGE_SIZE * PAGE_SIZE].cast("Q")
        start = step - (step - base) % PAGE_SIZE
        for index, (one, two) in enumerate(zip(words[::512].tolist(), words[1::512].tolist(), strict=True)):
            number = (start - base) // PAGE_SIZE + index
            if number > last:
                return
            if one and (two == one + 1 or number == first) and one <= last:
                row = tuple(words[index * 512 : (index + 1) * 512].tolist())
                if _is_map(row, last):
                    yield number, row
        step = max(start + _STEP, source.next_data(start + _STEP))


def _is_map(words: tuple[int, ...], last: int) -> bool:
    """Whether the words of a page are entries that mostly count up, zeros behind them, and the next map page."""
    entries = words[:ENTRIES]
    used = next((index for index, word in enumerate(entries) if not word), ENTRIES)
    if not used or any(entries[used:]) or max(words) > last or (used < ENTRIES and words[ENTRIES]):
        return False
    steps = sum(after != before + 1 for before, after in pairwise(entries[:used]))
    return steps * _GAPS <= used


class _Blocks:
    """The blocks that decode among the stored pages of a chain of map pages.

    Attributes:
        listed: Stored pages that were listed so far.
    """

    def __init__(self, source: Source, base: int, chain: Iterable[tuple[int, ...]], compressor: str | None) -> None:
        self._source, self._base, self._chain, self._compressor = source, base, chain, compressor
        self.listed = 0

    def __iter__(self) -> Iterator[bytes]:
        ahead: deque[int] = deque()
        for entries in self._chain:
            used = [entry for entry in entries if entry]
            self.listed += len(used)
            ahead.extend(used)
            while len(ahead) >= MAX_STORED_PAGES:
                yield from self._step(ahead)
        while ahead:
            yield from self._step(ahead)

    def _step(self, ahead: deque[int]) -> Iterator[bytes]:
        """Take a block off, or one page that begins none."""
        plain, taken = self._block(ahead)
        for _ in range(taken):
            ahead.popleft()
        if plain:
            yield plain

    def _block(self, ahead: deque[int]) -> tuple[bytes, int]:
        where = self._base + ahead[0] * PAGE_SIZE
        if self._compressor is None or not self._source.reaches(where + PAGE_SIZE):
            return b"", 1
        length = int.from_bytes(self._source.read(where, LENGTH_SIZE), "little")
        pages = -(-(length + LENGTH_SIZE) // PAGE_SIZE)
        if not 0 < length <= MAX_COMPRESSED or pages > len(ahead):
            return b"", 1
        parts = [self._source.read(self._base + ahead[number] * PAGE_SIZE, PAGE_SIZE) for number in range(pages)]
        packed = b"".join(parts)[LENGTH_SIZE : LENGTH_SIZE + length]
        try:
            plain = DECODERS[self._compressor](packed)
        except CorruptBlock:
            return b"", 1
        fits = 0 < len(plain) <= BLOCK_SIZE and len(plain) % PAGE_SIZE == 0
        return (plain, pages) if fits else (b"", 1)
