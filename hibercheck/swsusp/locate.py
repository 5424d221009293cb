"""Finding the image in a file: the header page, the first swap map page, the info page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError, MalformedImage, Unsupported, UsageProblem
from hibercheck.swsusp.foreign import OTHER_PAGE_SIZES, RESUME_ADVICE, other_page_size, plain_swap, recognise
from hibercheck.swsusp.header import (
    HIBERNATE_SIG,
    IMAGE_OFFSET,
    KNOWN_FLAGS,
    SIG_OFFSET,
    SWAP_SIGS,
    ArchRecord,
    Flags,
    Header,
    ImageInfo,
    parse_header,
    parse_info,
    parse_record,
)
from hibercheck.swsusp.partitions import partition_starts
from hibercheck.swsusp.source import Source
from hibercheck.swsusp.swapmap import SwapMap

SECTOR = 512
SEARCH_STEP = 4 << 20
CONSUMED_WARNING = (
    "the image is consumed: a resume has begun and the swap signature is back; "
    "what was swapped out since may lie over parts of it"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Where an image is and what its first pages say.

    Attributes:
        header: The header page.
        info: The info page.
        record: The arch record.
        swap_map: The swap map; None for a snapshot stream, which has none.
        offset: Byte offset of the header page in the file.
        warnings: What the user should know, a line each.
    """

    header: Header
    info: ImageInfo
    record: ArchRecord
    swap_map: SwapMap | None
    offset: int = 0
    warnings: tuple[str, ...] = ()


def find_image(source: Source, resume_offset: int | None) -> Found:
    """Find the image in ``source``.

    Args:
        source: The file.
        resume_offset: Page number of the header on its device, or None to look at page 0 and, if need be, everywhere.

    Raises:
        Unsupported: There is something else, which is named.
        MalformedImage: There is nothing, or a damaged image.
        UsageProblem: ``resume_offset`` lies outside the file.
    """
    if resume_offset is not None:
        return _at_resume_offset(source, resume_offset)
    page = source.read(0, PAGE_SIZE)
    if _is_swap(page):
        return open_at(source, 0)
    if len(page) == PAGE_SIZE:
        stream = _snapshot_stream(page)
        if stream is not None:
            return stream
        other = recognise(source.path, page)
        if other is not None:
            raise other
    return _at_other_page_size(source) or _search(source)


def _at_other_page_size(source: Source) -> Found | None:
    """Look where kernels with larger pages put their signature; a swap file's header may be there as well."""
    for size in OTHER_PAGE_SIZES:
        page = source.read(size - PAGE_SIZE, PAGE_SIZE)
        if _is_swap(page):
            found = _try(source, size - PAGE_SIZE, 0)
            if isinstance(found, Found):
                return found
            raise other_page_size(source.path, size, page[SIG_OFFSET:])
    return None


def open_at(source: Source, offset: int, *, base: int = 0) -> Found:
    """Follow the header page at byte ``offset`` to the info page.

    Args:
        source: The file.
        offset: Where the header page is.
        base: Byte offset of its block device in the file.

    Raises:
        Unsupported: The image is of another architecture.
        MalformedImage: The header leads nowhere, or there is plain swap space.
    """
    header = parse_header(source.read(offset, PAGE_SIZE))
    try:
        return _follow(source, header, offset, base)
    except MalformedImage as problem:
        if header.consumed:
            raise plain_swap(source.path, offset) from problem
        raise _named(problem, source) from problem
    except HibercheckError as problem:
        raise _named(problem, source) from problem


def _follow(source: Source, header: Header, offset: int, base: int) -> Found:
    if header.image == 0:
        raise MalformedImage("the header names no swap map", path=source.path, offset=offset)
    swap_map = SwapMap(source, header.image, base=base, named_at=offset + IMAGE_OFFSET)
    where, _ = swap_map.run_at(0)
    page = source.read(where, PAGE_SIZE)
    if not any(page) and source.is_hole(where):
        raise MalformedImage("the info page lies in a hole of the sparse file", path=source.path, offset=where)
    # The record first: it tells an image of another architecture, whose numbers would look merely damaged.
    try:
        record, info = parse_record(page), parse_info(page)
    except HibercheckError as problem:
        problem.offset = where
        raise
    return Found(header, info, record, swap_map, offset, tuple(_warnings(header)))


def _warnings(header: Header) -> Iterator[str]:
    if header.consumed:
        yield CONSUMED_WARNING
    unknown = header.flags & ~KNOWN_FLAGS
    if unknown:
        yield f"the header has flags that are not known ({int(unknown):#x}): a newer kernel may have written the image"


def _named(problem: HibercheckError, source: Source) -> HibercheckError:
    problem.path = source.path
    return problem


def _is_swap(page: bytes) -> bool:
    return page[SIG_OFFSET:] == HIBERNATE_SIG or page[SIG_OFFSET:] in SWAP_SIGS


def _snapshot_stream(page: bytes) -> Found | None:
    """Recognise the info page of a /dev/snapshot stream: an arch record and numbers that agree."""
    try:
        record, info = parse_record(page), parse_info(page)
    except MalformedImage:
        return None
    except Unsupported:
        try:
            parse_info(page)
        except MalformedImage:
            return None
        raise
    header = Header(0, Flags.NOCOMPRESS_MODE, 0, None, b"", b"", consumed=False)
    return Found(header, info, record, None)


def _at_resume_offset(source: Source, resume_offset: int) -> Found:
    """Open the image whose header is ``resume_offset`` pages into the file, or into a partition of it."""
    offset = resume_offset * PAGE_SIZE
    if resume_offset < 0 or not source.reaches(offset + PAGE_SIZE):
        raise UsageProblem(f"resume offset {resume_offset} lies outside the file", path=source.path)
    for base in [0, *partition_starts(source)]:
        if _is_swap(source.read(base + offset, PAGE_SIZE)):
            return open_at(source, base + offset, base=base)
    page = source.read(offset, PAGE_SIZE)
    other = recognise(source.path, page)
    if other is not None:
        raise other
    message = f"no swap signature at resume offset {resume_offset}"
    raise MalformedImage(message, path=source.path, offset=offset, advice="leave --resume-offset out to search for it")


def _search(source: Source) -> Found:
    """Look for a header anywhere in the file; one that leads to an info page wins."""
    found: list[Found] = []
    failed: HibercheckError | None = None
    swap_at: int | None = None
    starts = partition_starts(source)
    for offset in _signatures(source):
        bases = [0, offset, *(start for start in starts if start < offset)]
        results = [_try(source, offset, base) for base in dict.fromkeys(bases)]
        opened = next((result for result in results if isinstance(result, Found)), None)
        if opened is not None:
            found.append(opened)
        elif source.read(offset + SIG_OFFSET, 10) == HIBERNATE_SIG:
            failed = failed or next(result for result in results if isinstance(result, HibercheckError))
        else:
            swap_at = offset if swap_at is None else swap_at
    if found:
        return _choose(source, found)
    if failed is not None:
        raise failed
    if swap_at is not None:
        raise plain_swap(source.path, swap_at)
    raise MalformedImage("no hibernation image and no swap signature in it", path=source.path, advice=RESUME_ADVICE)


def _try(source: Source, offset: int, base: int) -> Found | HibercheckError:
    try:
        return open_at(source, offset, base=base)
    except HibercheckError as problem:
        return problem


def _choose(source: Source, found: list[Found]) -> Found:
    fresh = [each for each in found if not each.header.consumed] or found
    if len(fresh) > 1:
        places = ", ".join(str(each.offset // PAGE_SIZE) for each in fresh[:4])
        advice = "choose one with --resume-offset"
        raise MalformedImage(f"{len(fresh)} images in it, at pages {places}", path=source.path, advice=advice)
    where = f"the image's header was found at byte {fresh[0].offset:#x}"
    return replace(fresh[0], warnings=(where, *fresh[0].warnings))


def _signatures(source: Source) -> Iterator[int]:
    """Yield the offsets of pages, on any sector, that end with a signature of swap space or of an image."""
    offset = source.next_data(0) // SEARCH_STEP * SEARCH_STEP
    while True:
        # Overlapping by a page: a header may begin in one step and end in the next.
        data = source.read(offset, SEARCH_STEP + PAGE_SIZE - SECTOR)
        if len(data) < PAGE_SIZE:
            return
        # The byte where a signature would start, of every sector, in one slice; all signatures start with an S.
        firsts = data[SIG_OFFSET::SECTOR]
        sector = firsts.find(b"S")
        while sector >= 0:
            start = sector * SECTOR
            if _is_swap(data[start : start + PAGE_SIZE]):
                yield offset + start
            sector = firsts.find(b"S", sector + 1)
        ahead = source.next_data(offset + SEARCH_STEP)
        offset = max(offset + SEARCH_STEP, ahead // SEARCH_STEP * SEARCH_STEP)
