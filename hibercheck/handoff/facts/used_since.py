"""File systems on the image's own disk that were used after the image was written: resuming it would corrupt them.

The resumee has their tables in its memory as they were, and writes them back over what was changed since.
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import InputProblem
from hibercheck.files.disk import Partition, partitions
from hibercheck.files.filesystems import COPIES, Superblock, superblock_at
from hibercheck.handoff.facts.session import shown_time
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.image import Image


@dataclass(frozen=True, slots=True)
class UsedSince:
    """A file system that was used since.

    Attributes:
        place: Where it is: ``partition 2``.
        superblock: Its superblock as it is now.
        what: What shows it, in one clause with both times or counts.
    """

    place: str
    superblock: Superblock
    what: str


def used_since(image: Image, written: int | None) -> tuple[UsedSince, ...]:
    """Find them among the other partitions of the disk that the image was read from.

    Args:
        image: The image.
        written: When it was written, in seconds since 1970; None where that is not known.
    """
    others = [one for one in partitions(image.source) if one != image.partition]
    found = []
    counting: list[tuple[Partition, Superblock]] = []
    for one in others:
        try:
            block = superblock_at(image.source, one.start)
        except InputProblem:
            continue
        if block is None:
            continue
        if block.count is not None:
            counting.append((one, block))
        what = _by_time(block, written)
        if what is not None:
            found.append(UsedSince(f"partition {one.number}", block, what))
    return (*found, *_by_count(image, counting))


def _by_time(block: Superblock, written: int | None) -> str | None:
    for verb, moment in (("mounted", block.mounted), ("written", block.written)):
        if written is not None and moment is not None and moment > written:
            return f"was {verb} at {shown_time(moment)}, after the image was written at {shown_time(written)}"
    return None


def _by_count(image: Image, counting: list[tuple[Partition, Superblock]]) -> tuple[UsedSince, ...]:
    """Compare counts with the copies of the superblocks in the resumee's memory, all of which is gone through."""
    if not counting:
        return ()
    known = dict.fromkeys(((block.kind, block.identity) for _, block in counting), 0)
    for number in range(image.info.meta_pages // BLOCK_PAGES, image.stream.chunks):
        _note_copies(bytes(image.stream.storage.chunk(number)), known)
    found = []
    for one, block in counting:
        then = known[block.kind, block.identity]
        if then and block.count is not None and block.count > then:
            name = "log sequence number" if block.kind == "XFS" else "generation"
            what = f"has {name} {block.count:#x}, and in the image's memory {then:#x}"
            found.append(UsedSince(f"partition {one.number}", block, what))
    return tuple(found)


def _note_copies(memory: bytes, known: dict[tuple[str, bytes], int]) -> None:
    """Note the greatest count among the copies of superblocks in a piece of memory."""
    for kind, (magic, at, parse) in COPIES.items():
        place = memory.find(magic)
        while place >= 0:
            copy = parse(memory[place - at : place - at + PAGE_SIZE]) if place >= at else None
            if copy is not None and copy.count is not None and (kind, copy.identity) in known:
                known[kind, copy.identity] = max(known[kind, copy.identity], copy.count)
            place = memory.find(magic, place + 1)
