"""Finding the image in a file: the header page, the first swap map page, the info page."""

from __future__ import annotations

from dataclasses import dataclass

from hibercheck.errors import HibercheckError, MalformedImage, Unsupported, UsageProblem
from hibercheck.swsusp.header import (
    FOREIGN_SIGS,
    HIBERNATE_SIG,
    SIG_OFFSET,
    SWAP_SIGS,
    TUXONICE_MAGIC,
    ArchRecord,
    Header,
    ImageInfo,
    parse_header,
    parse_info,
    parse_record,
)
from hibercheck.swsusp.source import Source
from hibercheck.swsusp.swapmap import SwapMap

PAGE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """Where an image is and what its first pages say.

    Attributes:
        header: The header page.
        info: The info page.
        record: The arch record.
        swap_map: The swap map; None for a snapshot stream, which has none.
        warnings: What the user should know, a line each.
    """

    header: Header
    info: ImageInfo
    record: ArchRecord
    swap_map: SwapMap | None
    warnings: tuple[str, ...] = ()


def find_image(source: Source, resume_offset: int | None) -> Found:
    """Find the image in ``source``.

    Raises:
        Unsupported: There is something else, which is named.
        MalformedImage: There is nothing, or a damaged image.
        UsageProblem: ``resume_offset`` lies outside the file.
    """
    offset = (resume_offset or 0) * PAGE_SIZE
    if offset < 0 or offset + PAGE_SIZE > source.size:
        if resume_offset is not None:
            raise UsageProblem(f"the resume offset {resume_offset} lies beyond the end of the file", path=source.path)
        raise MalformedImage("is too short to hold anything", path=source.path)
    page = source.read(offset, PAGE_SIZE)
    sig = page[SIG_OFFSET:]
    if sig == HIBERNATE_SIG or sig in SWAP_SIGS:
        return open_at(source, page)
    raise MalformedImage("no hibernation image here", path=source.path, offset=offset)


def open_at(source: Source, page: bytes, *, base: int = 0) -> Found:
    """Follow a header page to the info page.

    Raises:
        Unsupported: The image is of another architecture.
        MalformedImage: The header leads nowhere.
    """
    header = parse_header(page)
    swap_map = SwapMap(source, header.image, base=base)
    offset, _ = swap_map.run_at(0)
    first = source.read(offset, PAGE_SIZE)
    return Found(header, parse_info(first), parse_record(first), swap_map)
