"""Makedumpfile's flattened stream: a dump written as (offset, size, data) blocks, so that it could go through a pipe.

QEMU writes its kdump-compressed dumps in this form unless it is told otherwise (``-R``, since 8.2).  The blocks are
indexed once and read in place; the dump is never put together in memory.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from bisect import bisect_right
from typing import NamedTuple

from hibercheck.dump.source import Readable
from hibercheck.errors import MalformedDump

MAGIC = b"makedumpfile\0\0\0\0"

# struct makedumpfile_header { char signature[16]; int64_t type, version; };         makedumpfile.h; numbers big-endian,
_HEADER = struct.Struct(">16sqq")
_HEADER_SIZE = 4096  # MAX_SIZE_MDF_HEADER: the header is padded to it
# struct makedumpfile_data_header { int64_t offset, buf_size; };   the last has -1 in both
_BLOCK = struct.Struct(">qq")
_END = -1
MAX_OFFSET = 1 << 56


class _Piece(NamedTuple):
    start: int
    end: int
    place: int
    """Where the byte ``start`` of the dump lies in the stream."""


class Flattened:
    """A flattened stream read as the file that it would be rearranged into.

    What no block has written is zero, as in a file with holes.

    Attributes:
        path: The stream's path.
        size: Size of the rearranged file.

    Raises:
        MalformedDump: The stream is cut, or a block is out of bounds.
    """

    def __init__(self, stream: Readable) -> None:
        self.path = stream.path
        self._stream = stream
        _magic, kind, version = _HEADER.unpack(stream.read(0, _HEADER.size, "flattened header"))
        if (kind, version) != (1, 1):
            raise MalformedDump(f"is a flattened stream of unknown type {kind}.{version}", path=self.path)
        self._pieces = _lay_out(self._blocks())
        self._starts = [piece.start for piece in self._pieces]
        self.size = self._pieces[-1].end if self._pieces else 0

    def _blocks(self) -> list[_Piece]:
        """Read all block headers, in the order of writing."""
        blocks: list[_Piece] = []
        position = _HEADER_SIZE
        while True:
            offset, size = _BLOCK.unpack(self._stream.read(position, _BLOCK.size, "block header"))
            if offset == size == _END:
                return blocks
            position += _BLOCK.size
            if not (0 <= offset <= MAX_OFFSET and 0 <= size <= self._stream.size - position):
                raise MalformedDump(
                    f"has a block of {size} bytes for offset {offset:#x}",
                    path=self.path,
                    offset=position,
                    advice="the dump is cut or damaged, take it again",
                )
            if size:
                blocks.append(_Piece(offset, offset + size, position))
            position += size

    def read(self, offset: int, size: int, what: str = "data") -> bytes:
        """Return exactly ``size`` bytes at ``offset`` of the rearranged file.

        Raises:
            MalformedDump: The range is not all in that file; ``what`` names it.
            InputProblem: The stream cannot be read.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise MalformedDump(
                f"{what} of {size} bytes lies outside the dump of {self.size} bytes",
                path=self.path,
                offset=offset,
                advice="the dump is cut or damaged, take it again",
            )
        parts = []
        end = offset + size
        number = max(bisect_right(self._starts, offset) - 1, 0)
        while offset < end:
            start, stop, place = self._pieces[number] if number < len(self._pieces) else (end, end, 0)
            if offset < start:
                parts.append(bytes(min(start, end) - offset))
                offset = min(start, end)
            elif offset < stop:
                part = self._stream.read(place + offset - start, min(stop, end) - offset, what)
                parts.append(part)
                offset += len(part)
            if offset >= stop:
                number += 1
        return b"".join(parts)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def _lay_out(blocks: list[_Piece]) -> list[_Piece]:
    """Return disjoint pieces in ascending order; where blocks overlap the one written last counts."""
    order = sorted(range(len(blocks)), key=lambda number: blocks[number].start)
    if all(blocks[one].end <= blocks[two].start for one, two in itertools.pairwise(order)):
        return [blocks[number] for number in order]
    edges = sorted({edge for block in blocks for edge in (block.start, block.end)})
    pieces: list[_Piece] = []
    active: list[int] = []
    """Negated numbers of the blocks that have begun, so that the heap's first is the one written last."""
    waiting = iter(order)
    upcoming = next(waiting, None)
    for edge, following in itertools.pairwise(edges):
        while upcoming is not None and blocks[upcoming].start <= edge:
            heapq.heappush(active, -upcoming)
            upcoming = next(waiting, None)
        while active and blocks[-active[0]].end <= edge:
            heapq.heappop(active)
        if active:
            block = blocks[-active[0]]
            pieces.append(_Piece(edge, following, block.place + edge - block.start))
    return pieces
