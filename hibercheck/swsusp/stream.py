"""The stream of pages behind the info page: PFN list pages, then data pages; compressed in blocks, or plain.

Pages of a stream are numbered from 0, the first page of the PFN list.  Every stream comes in chunks of 32 pages, of
which the last may be shorter; in a compressed stream a chunk is one block.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage
from hibercheck.swsusp.codec import (
    BLOCK_PAGES,
    BLOCK_SIZE,
    DECODERS,
    LENGTH_SIZE,
    MAX_COMPRESSED,
    CorruptBlock,
    check_length,
    decode,
)
from hibercheck.swsusp.source import Ranges, Source
from hibercheck.swsusp.swapmap import SwapMap

CACHED_CHUNKS = 32
"""Chunks kept decoded: 4 MiB.  A page walk and the structures it leads to rarely need more."""


Chunk = bytes | memoryview | MalformedImage


class Storage(Protocol):
    """Where the chunks of a stream come from."""

    pages: int

    def chunk(self, number: int) -> bytes:
        """Return the plain bytes of chunk ``number``."""
        ...

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the stored bytes of chunks ``first`` up to ``end``; raises `MalformedImage` if the way there is lost."""
        ...

    def unpack(self, first: int, end: int, raw: memoryview) -> Iterator[Chunk]:
        """Yield these chunks in order out of their stored bytes; in any thread, once `ranges` has found them.

        A chunk is its plain bytes, which may lie in ``raw`` itself, or why it has none.
        """
        ...


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

    def unpack(self, first: int, end: int, raw: memoryview) -> Iterator[Chunk]:
        """Yield the pages of chunks; see `Storage.unpack`."""
        for start in range(0, (end - first) * BLOCK_SIZE, BLOCK_SIZE):
            yield raw[start : start + BLOCK_SIZE]


class PlainStorage(_PlainPages):
    """An uncompressed stream whose pages the swap map lists, behind the info page.

    Args:
        source: The file.
        swap_map: Where its stored pages are; the first is the info page.
        pages: Pages of the stream.
    """

    def __init__(self, source: Source, swap_map: SwapMap, pages: int) -> None:
        super().__init__(source, pages)
        self._map = swap_map

    def ranges(self, first: int, end: int) -> Ranges:
        """Find the pages of chunks; raises `MalformedImage` if the swap map does not list them."""
        begin = first * BLOCK_PAGES
        return self._map.ranges(1 + begin, min(end * BLOCK_PAGES, self.pages) - begin)


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
    """

    def __init__(self, source: Source, swap_map: SwapMap, pages: int, compressor: str) -> None:
        self._source = source
        self._map = swap_map
        self.pages = pages
        self._decoder = DECODERS[compressor]
        self._starts = array("Q", [1])

    @property
    def stored_pages(self) -> int:
        """Stored pages that the blocks walked so far take, the info page included."""
        return self._starts[-1]

    def walk(self, number: int) -> None:
        """Walk the block lengths until the end of block ``number`` is known.

        Raises:
            MalformedImage: A length lies, or the swap map ends early.
        """
        starts = self._starts
        index = starts[-1]
        word = self._source.word
        while len(starts) <= number + 1:
            offset, run = self._map.run_at(index)
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
        begin = self._starts[first]
        return self._map.ranges(begin, self._starts[end] - begin)

    def unpack(self, first: int, end: int, raw: memoryview) -> Iterator[Chunk]:
        """Decode blocks; see `Storage.unpack`."""
        at = 0
        for number in range(first, end):
            following = at + (self._starts[number + 1] - self._starts[number]) * PAGE_SIZE
            length = int.from_bytes(raw[at : at + LENGTH_SIZE], "little")
            data = raw[at + LENGTH_SIZE : min(at + LENGTH_SIZE + length, following)]
            # The block before stays referenced meanwhile: freeing 128 KiB at the top of the heap makes glibc give the
            # memory back and fault it in again, which costs a factor of three.
            try:
                plain: Chunk = self.decode(number, None, data)
            except MalformedImage as problem:
                plain = problem
            yield plain
            at = following

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
            return decode(self._decoder, data, min(BLOCK_PAGES, self.pages - number * BLOCK_PAGES))
        except CorruptBlock as problem:
            hole = self._hole(number)
            if hole is not None:
                raise self._corrupt(number, "lies in a hole of the sparse file", hole) from problem
            where = self._map.run_at(self._starts[number])[0] if offset is None else offset
            raise self._corrupt(number, str(problem), where) from problem

    def _hole(self, number: int) -> int | None:
        """Return the offset of a stored page of block ``number`` that was never written, if there is one."""
        first, end = self._starts[number], self._starts[number + 1]
        for offset, size in self._map.ranges(first, end - first):
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
        chunk = self._chunk(number // BLOCK_PAGES)
        start = number % BLOCK_PAGES * PAGE_SIZE
        return chunk[start : start + PAGE_SIZE]

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
