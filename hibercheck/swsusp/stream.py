"""The stream of pages behind the info page: PFN list pages, then data pages; compressed in blocks, or plain.

Pages of a stream are numbered from 0, the first page of the PFN list.  Every stream comes in chunks of 32 pages, of
which the last may be shorter; in a compressed stream a chunk is one block.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from mmap import mmap
from typing import Protocol

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MalformedImage
from hibercheck.files.source import Ranges, Source
from hibercheck.swsusp.codec import (
    BLOCK_PAGES,
    BLOCK_SIZE,
    DECODERS,
    LENGTH_SIZE,
    MAX_COMPRESSED,
    CorruptBlock,
    address_of,
    check_length,
    decode,
    filler,
)
from hibercheck.swsusp.swapmap import SwapMap

CACHED_CHUNKS = 32
"""Chunks kept decoded: 4 MiB.  A page walk and the structures it leads to rarely need more."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive chunks of a stream, decoded.

    Attributes:
        first: Number of the first chunk.
        buffer: Starts with their bytes, one chunk after the other, until the next batch is read.
        pages: How many pages of it are theirs.
        damaged: Chunks that cannot be decoded, whose place in ``buffer`` holds anything, and why.
        lost: Bytes of these chunks.
    """

    first: int
    buffer: mmap
    pages: int
    damaged: tuple[tuple[int, MalformedImage], ...] = ()
    lost: int = 0

    @property
    def plain(self) -> memoryview:
        """The bytes of the chunks."""
        return memoryview(self.buffer)[: self.pages * PAGE_SIZE]

    def page(self, number: int) -> bytes:
        """Return one page of them."""
        return self.buffer[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


class Storage(Protocol):
    """Where the chunks of a stream come from."""

    pages: int

    def chunk(self, number: int) -> bytes:
        """Return the plain bytes of chunk ``number``."""
        ...

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the stored bytes of chunks ``first`` up to ``end``; raises `MalformedImage` if the way there is lost."""
        ...

    def unpack(self, first: int, end: int, raw: mmap, room: mmap) -> Batch:
        """Decode these chunks out of their stored bytes; in any thread, once `ranges` has found them.

        Args:
            first: The first chunk.
            end: The chunk after the last.
            raw: Starts with the stored bytes.
            room: Where plain bytes may be put: at least `BLOCK_SIZE` a chunk.
        """
        ...


def _pages_between(storage: Storage, first: int, end: int) -> int:
    """Return how many pages chunks ``first`` up to ``end`` have; only the last of the stream may have fewer than 32."""
    return min(end * BLOCK_PAGES, storage.pages) - first * BLOCK_PAGES


class _PlainPages:
    """What uncompressed streams have in common: a chunk is 32 pages as they are stored."""

    def __init__(self, source: Source, pages: int) -> None:
        self._source = source
        self.pages = pages

    def ranges(self, first: int, end: int) -> Ranges:
        raise NotImplementedError

    def chunk(self, number: int) -> bytes:
        """Return the bytes of 32 pages; raises `MalformedImage`."""
        return self._source.gather(self.ranges(number, number + 1))

    def unpack(self, first: int, end: int, raw: mmap, room: mmap) -> Batch:  # noqa: ARG002 - see `Storage`
        """Take the pages of chunks as they are; see `Storage.unpack`."""
        return Batch(first, raw, _pages_between(self, first, end))


class PlainStorage(_PlainPages):
    """An uncompressed stream whose pages the swap map lists, behind the info page.

    Args:
        source: The file.
        swap_map: Where its stored pages are; the first is the info page.
        pages: Pages of the stream.
    """

    def __init__(self, source: Source, swap_map: SwapMap, pages: int) -> None:
        super().__init__(source, pages)
        self.swap_map = swap_map

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the pages of chunks; raises `MalformedImage` if the swap map does not list them."""
        begin = first * BLOCK_PAGES
        return self.swap_map.ranges(1 + begin, min(end * BLOCK_PAGES, self.pages) - begin)


class RawStorage(_PlainPages):
    """The stream as /dev/snapshot gives it: page after page, behind the info page.

    Args:
        source: The file.
        pages: Pages of the stream.

    Raises:
        MalformedImage: The file is too short for them.
    """

    def __init__(self, source: Source, pages: int) -> None:
        super().__init__(source, pages)
        if not source.reaches((pages + 1) * PAGE_SIZE):
            message = f"the snapshot stream is cut short: {pages + 1} pages announced, {source.size // PAGE_SIZE} there"
            raise MalformedImage(message, path=source.path)

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the pages of chunks."""
        begin = first * BLOCK_PAGES
        return [((1 + begin) * PAGE_SIZE, (min(end * BLOCK_PAGES, self.pages) - begin) * PAGE_SIZE)]


class BlockStorage:
    """A compressed stream: blocks of a length and that many bytes, each starting on a new stored page.

    Only the lengths are read on the way to a block.

    Args:
        source: The file.
        swap_map: Where its stored pages are; the first is the info page.
        pages: Pages of the stream.
        compressor: ``lzo`` or ``lz4``.

    Attributes:
        swap_map: As given.
        pages: As given.
        starts: The first stored page of each block that was walked to, and of the one that follows.
    """

    def __init__(self, source: Source, swap_map: SwapMap, pages: int, compressor: str) -> None:
        self._source = source
        self.swap_map = swap_map
        self.pages = pages
        self._compressor = compressor
        self.starts = array("Q", [1])

    @property
    def stored_pages(self) -> int:
        """Stored pages that the blocks walked so far take, the info page included."""
        return self.starts[-1]

    def walk(self, number: int) -> None:
        """Walk the block lengths until the end of block ``number`` is known.

        Raises:
            MalformedImage: A length lies, or the swap map ends early.
        """
        starts = self.starts
        index = starts[-1]
        word = self._source.word
        while len(starts) <= number + 1:
            offset, run = self.swap_map.run_at(index)
            end = index + run
            while index < end and len(starts) <= number + 1:
                length = word(offset)
                if not 0 < length <= MAX_COMPRESSED:
                    raise self._bad_length(len(starts) - 1, length, offset)
                stored = (length + LENGTH_SIZE + PAGE_SIZE - 1) // PAGE_SIZE
                index += stored
                offset += stored * PAGE_SIZE
                starts.append(index)

    def _bad_length(self, number: int, length: int, offset: int) -> MalformedImage:
        if length == 0 and self._source.is_hole(offset):
            return self._corrupt(number, "lies in a hole of the sparse file", offset)
        try:
            check_length(length)
        except CorruptBlock as problem:
            return self._corrupt(number, str(problem), offset)
        raise AssertionError(length)

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the stored pages of blocks; raises like `walk`."""
        self.walk(end - 1)
        begin = self.starts[first]
        return self.swap_map.ranges(begin, self.starts[end] - begin)

    def unpack(self, first: int, end: int, raw: mmap, room: mmap) -> Batch:
        """Decode blocks; see `Storage.unpack`."""
        pages = _pages_between(self, first, end)
        stored = self._stored(first, end, raw)
        sizes = [min(pages - page, BLOCK_PAGES) * PAGE_SIZE for page in range(0, pages, BLOCK_PAGES)]
        damaged = []
        lost = 0
        # What the filler does not manage, the decoder does, or says why it cannot.
        for index in self._not_filled(raw, stored, room, sizes):
            at, length = stored[index]
            place, size = index * BLOCK_SIZE, sizes[index]
            try:
                room[place : place + size] = self.decode(first + index, None, memoryview(raw)[at : at + length])
            except MalformedImage as problem:
                damaged.append((first + index, problem))
                lost += size
        return Batch(first, room, pages, tuple(damaged), lost)

    def _stored(self, first: int, end: int, raw: mmap) -> list[tuple[int, int]]:
        """Return where in ``raw`` the compressed bytes of each block begin, and how many there are."""
        starts = self.starts[first : end + 1]
        stored = []
        for start, following in pairwise(starts):
            at, stop = (start - starts[0]) * PAGE_SIZE + LENGTH_SIZE, (following - starts[0]) * PAGE_SIZE
            # The file may have changed since the lengths were walked.
            stored.append((at, min(int.from_bytes(raw[at - LENGTH_SIZE : at], "little"), stop - at)))
        return stored

    def _not_filled(self, raw: mmap, stored: list[tuple[int, int]], room: mmap, sizes: list[int]) -> Iterable[int]:
        """Decode blocks to their places, and return which could not be."""
        fill = filler(self._compressor)
        if fill is None:
            return range(len(sizes))
        source, target = address_of(raw), address_of(room)
        blocks = [source + at for at, _ in stored]
        places = range(target, target + len(sizes) * BLOCK_SIZE, BLOCK_SIZE)
        # In one go: whenever two threads meet in the interpreter, one sleeps for longer than a block takes.
        filled = list(map(fill, blocks, places, [length for _, length in stored], sizes))
        return [index for index, size in enumerate(sizes) if filled[index] != size]

    def payload(self, number: int) -> tuple[int, bytes]:
        """Return the file offset of block ``number`` and its compressed bytes; raises like `walk`."""
        ranges = self.ranges(number, number + 1)
        data = self._source.gather(ranges)
        length = int.from_bytes(data[:LENGTH_SIZE], "little")
        return ranges[0][0], data[LENGTH_SIZE : LENGTH_SIZE + length]

    def chunk(self, number: int) -> bytes:
        """Decode block ``number``.

        Raises:
            MalformedImage: It does not decode to what it must, or cannot be found.
        """
        offset, data = self.payload(number)
        return self.decode(number, offset, data)

    def decode(self, number: int, offset: int | None, data: bytes | memoryview) -> bytes:
        """Decode what `payload` returned for block ``number``; safe to call from several threads at a time.

        Args:
            number: The block.
            offset: Where it is in the file, for a message; looked up if need be.
            data: Its compressed bytes.

        Raises:
            MalformedImage: It does not decode to what it must.
        """
        try:
            return decode(DECODERS[self._compressor], data, _pages_between(self, number, number + 1))
        except CorruptBlock as problem:
            hole = self._hole(number)
            if hole is not None:
                raise self._corrupt(number, "lies in a hole of the sparse file", hole) from problem
            where = self.swap_map.run_at(self.starts[number])[0] if offset is None else offset
            raise self._corrupt(number, str(problem), where) from problem

    def _hole(self, number: int) -> int | None:
        """Return the offset of a stored page of block ``number`` that was never written, if there is one."""
        first, end = self.starts[number], self.starts[number + 1]
        for offset, size in self.swap_map.ranges(first, end - first):
            for page in range(offset, offset + size, PAGE_SIZE):
                if self._source.is_hole(page):
                    return page
        return None

    def _corrupt(self, number: int, message: str, offset: int) -> MalformedImage:
        return MalformedImage(f"compressed block {number} {message}", path=self._source.path, offset=offset)


class Stream:
    """Pages of a stream on demand, with the chunks used last kept decoded.

    Args:
        storage: Where the chunks come from.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.pages = storage.pages
        self.chunks = -(-storage.pages // BLOCK_PAGES)
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def page(self, number: int) -> bytes:
        """Return page ``number`` of the stream.

        Raises:
            MalformedImage: It cannot be read or decoded.
        """
        return self.pages_from(number, 1)

    def pages_from(self, number: int, count: int) -> bytes:
        """Return page ``number`` and those that follow it, ``count`` in all, but none behind the chunk's end.

        Raises:
            MalformedImage: They cannot be read or decoded.
        """
        start = number % BLOCK_PAGES * PAGE_SIZE
        return self._chunk(number // BLOCK_PAGES)[start : start + count * PAGE_SIZE]

    def _chunk(self, number: int) -> bytes:
        cache = self._cache
        if number in cache:
            cache.move_to_end(number)
            return cache[number]
        chunk = cache[number] = self.storage.chunk(number)
        if len(cache) > CACHED_CHUNKS:
            cache.popitem(last=False)
        return chunk

    def close(self) -> None:
        """Drop the cached chunks."""
        self._cache.clear()
