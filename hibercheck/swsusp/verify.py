"""Decode a whole image and check whatever can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage
from hibercheck.swsusp.bulk import BATCH_CHUNKS, Progress, batches
from hibercheck.swsusp.codec import BLOCK_PAGES, BLOCK_SIZE
from hibercheck.swsusp.crc import apply, crc32_le, shift_matrix
from hibercheck.swsusp.header import CRC_OFFSET
from hibercheck.swsusp.stream import Batch, BlockStorage

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image

MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a verification found.

    Attributes:
        pages: Pages of the stream that were decoded.
        stored_pages: Pages of the device that hold them and the info page; None for a snapshot stream.
        crc_expected: Checksum in the header; None where the writer gave none.
        crc_computed: Checksum of what was decoded; None where not all of it could be.
        problems: Whatever is wrong, a line each; no more than a hundred.
    """

    pages: int
    stored_pages: int | None
    crc_expected: int | None
    crc_computed: int | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Checked:
    """What one batch comes to: its checksum, which is of use if none is damaged, and how much of it is sound."""

    crc: int
    sound: int
    damaged: tuple[tuple[int, MalformedImage], ...]


def _check(batch: Batch) -> _Checked:
    return _Checked(crc32_le(batch.plain), len(batch.plain) - batch.lost, batch.damaged)


def verify(image: Image, progress: Progress | None = None) -> VerifyResult:
    """Decode every block, check every length, the PFN list, the counts and the checksum.

    Args:
        image: The image.
        progress: Called with (pages done, pages in all) now and then.

    Returns:
        What was found; damage is reported in it, not raised.
    """
    problems: list[str] = []
    damaged: list[tuple[int, MalformedImage]] = []
    crc, size = 0, 0
    full = shift_matrix(BATCH_CHUNKS * BLOCK_SIZE)
    image.source.expect_sequential()
    try:
        for batch in batches(image.source, image.stream.storage, _check, progress):
            matrix = full if batch.sound == BATCH_CHUNKS * BLOCK_SIZE else shift_matrix(batch.sound)
            crc = apply(matrix, crc) ^ batch.crc
            size += batch.sound
            damaged += batch.damaged[: MAX_PROBLEMS - len(damaged)]
    except MalformedImage as problem:
        problems.append(str(problem))
    # In the order of the stream: nothing behind a block that cannot be found was looked at.
    problems = [_lost(image, number, why) for number, why in damaged] + problems
    complete = size == image.stream.pages * PAGE_SIZE
    problems += _contradictions(image)
    expected = image.crc32
    if expected is not None and complete and crc != expected:
        where = image.header_offset + CRC_OFFSET
        problems.append(
            f"{image.path}: the checksum is {crc:#010x}, the header says {expected:#010x} (at byte {where:#x})"
        )
    return VerifyResult(
        pages=size // PAGE_SIZE,
        stored_pages=None if image.swap_map is None else image.swap_map.stored_pages(),
        crc_expected=expected,
        crc_computed=crc if complete else None,
        problems=tuple(dict.fromkeys(problems))[:MAX_PROBLEMS],
    )


def _contradictions(image: Image) -> list[str]:
    """Check the PFN list and, if its blocks are sound, that the swap map lists what the stream takes and no more."""
    try:
        len(image.pfns)
        storage = image.stream.storage
        if isinstance(storage, BlockStorage) and image.swap_map is not None:
            storage.walk(image.stream.chunks - 1)
            extra = image.swap_map.stored_pages() - storage.stored_pages
            if extra:
                where, _ = image.swap_map.run_at(storage.stored_pages)
                more = f"the swap map lists {extra} stored pages more than the image takes, from here on"
                return [f"{image.path}: {more} (at byte {where:#x})"]
    except MalformedImage as problem:
        return [str(problem)]
    return []


def _lost(image: Image, number: int, why: MalformedImage) -> str:
    """Say which frames a damaged chunk takes with it."""
    try:
        first = max(0, number * BLOCK_PAGES - image.info.meta_pages)
        last = min((number + 1) * BLOCK_PAGES, image.stream.pages) - image.info.meta_pages - 1
        if last < 0:
            return str(why)
        return f"{why}: frames {image.pfns.pfn_of(first):#x} to {image.pfns.pfn_of(last):#x} are lost"
    except MalformedImage:
        return str(why)
