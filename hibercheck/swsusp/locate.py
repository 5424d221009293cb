"""Finding the image in a file: the header page, the first swap map page, the info page."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass, replace
from hibercheck.errors import HibercheckError, MalformedImage, Unsupported, UsageProblem
from hibercheck.files.contents import contents_at
from hibercheck.files.disk import Partition, holder, partitions
from hibercheck.files.source import Source
from hibercheck.swsusp.foreign import (
    OTHER_PAGE_SIZES,
    RESUME_ADVICE,
    Overwritten,
    other_page_size,
    plain_swap,
    recognise,
)
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
from hibercheck.swsusp.search import Marks, search
from hibercheck.swsusp.swapmap import SwapMap, is_map_page
from hibercheck.swsusp.which import choose_partition, described, numbers_of

CONSUMED_WARNING = (
    "the image is consumed: a resume has begun, or the hibernation was given up, and the swap signature is back; "
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
        partition: The partition of the file that the header lies in, if it is a disk's.
    """

    header: Header
    info: ImageInfo
    record: ArchRecord
    swap_map: SwapMap | None
    offset: int = 0
    warnings: tuple[str, ...] = ()
    partition: Partition | None = None


class SeveralImages(MalformedImage):
    """There are several, and none was chosen.

    Attributes:
        found: The images.
    """

    def __init__(self, path: str, found: tuple[Found, ...], message: str) -> None:
        super().__init__(message, path=path, advice="choose one with --resume and --resume-offset")
        self.found = found


def find_image(source: Source, resume_offset: int | None = None, resume: str | None = None) -> Found:
    """Find the image in ``source``.

    Args:
        source: The file.
        resume_offset: Page number of the header on its device, or None to look at page 0 and, if need be, everywhere.
        resume: Which partition of a disk, as the kernel's ``resume=`` or by its number; None for the disk or any.

    Raises:
        Unsupported: There is something else, which is named.
        MalformedImage: There is nothing, or a damaged image, or several (`SeveralImages`).
        UsageProblem: ``resume_offset`` lies outside the file, or it has no such partition.
    """
    found = _find(source, resume_offset, resume)
    return replace(found, partition=holder(partitions(source), found.offset))


def _find(source: Source, resume_offset: int | None, resume: str | None) -> Found:
    if resume is not None:
        return _in_partition(source, resume, resume_offset or 0)
    if resume_offset is not None:
        return _at_resume_offset(source, resume_offset)
    page = source.read(0, PAGE_SIZE)
    if _is_swap(page):
        return _at_start(source, page)
    if len(page) == PAGE_SIZE:
        stream = _snapshot_stream(page)
        if stream is not None:
            return stream
        other = recognise(source.path, page)
        if other is not None:
            raise other
    return _at_other_page_size(source) or _search(source)


def _in_partition(source: Source, resume: str, resume_offset: int) -> Found:
    """Open the image whose header is so many pages into a partition."""
    chosen = choose_partition(source, resume)
    offset = chosen.start + resume_offset * PAGE_SIZE
    page = source.read(offset, PAGE_SIZE) if source.reaches(offset + PAGE_SIZE) else b""
    if _is_swap(page):
        return open_at(source, offset, base=chosen.start)
    what = f"no swap signature at page {resume_offset} of partition {chosen.number}"
    contents = contents_at(source, chosen.start)
    if contents is not None:
        what = f"{what}, which holds {contents.kind}"
    advice = (contents.advice if contents is not None else "") or RESUME_ADVICE
    raise MalformedImage(what, path=source.path, offset=offset, advice=advice)


def _at_start(source: Source, page: bytes) -> Found:
    """Open the image of a swap device, or of a copy of a swap file alone, whose map counts pages of its device."""
    try:
        return open_at(source, 0)
    except MalformedImage:
        header = parse_header(page)
        if header.image > 1 and is_map_page(source.read(PAGE_SIZE, PAGE_SIZE), header.image):
            return _swap_file(source, header.image - 1)
        raise


def _swap_file(source: Source, first: int) -> Found:
    """Open the copy of a swap file that begins at page ``first`` of its device, as if it lay there in one piece."""
    advice = f"if it lies in several pieces (filefrag -v), give its disk with --resume-offset {first}"
    try:
        found = open_at(source, 0, base=-first * PAGE_SIZE)
    except MalformedImage as problem:
        problem.advice = advice
        raise
    what = f"read as the copy of a swap file in one piece from page {first} of its disk on; {advice}"
    return replace(found, warnings=(what, *found.warnings))


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
            if not header.image or base < 0:
                raise plain_swap(source.path, offset) from problem
            raise Overwritten(source.path, offset, base) from problem
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
    """Open the image whose header is so many pages into the file or a partition, or that of a copied swap file."""
    offset = resume_offset * PAGE_SIZE
    starts = [one.start for one in partitions(source)]
    reached = source.reaches(offset + PAGE_SIZE)
    for base in [0, *starts] if reached else ():
        if _is_swap(source.read(base + offset, PAGE_SIZE)):
            return open_at(source, base + offset, base=base)
    page = source.read(0, PAGE_SIZE)
    if resume_offset and _is_swap(page) and parse_header(page).image > resume_offset:
        return _swap_file(source, resume_offset)
    if not reached:
        raise UsageProblem(f"resume offset {resume_offset} lies outside the file", path=source.path)
    other = recognise(source.path, source.read(offset, PAGE_SIZE))
    if other is not None:
        raise other
    message = f"no swap signature at resume offset {resume_offset}"
    raise MalformedImage(message, path=source.path, offset=offset, advice="without --resume-offset it is searched for")


def _search(source: Source) -> Found:
    """Look for a header: where partitions begin, and if there is no fresh image, anywhere; one that opens wins."""
    table = partitions(source)
    starts = [one.start for one in table]
    found = [one for one in (_try_page(source, start, [start]) for start in starts) if isinstance(one, Found)]
    if any(not one.header.consumed for one in found):
        return _choose(source, found, table)
    found = []
    failed: HibercheckError | None = None
    swap_at: int | None = None
    marks = Marks()
    for offset in search(source, _is_swap, marks):
        result = _try_page(source, offset, _bases(table, offset))
        if isinstance(result, Found):
            found.append(result)
        elif source.read(offset + SIG_OFFSET, 10) == HIBERNATE_SIG:
            failed = failed or result
        else:
            swap_at = offset if swap_at is None else swap_at
    if found:
        return _choose(source, found, table)
    raise failed or _nothing(source, table, marks, swap_at)


def _bases(table: tuple[Partition, ...], offset: int) -> list[int]:
    """Return where the device of a header may begin: with the file, the header, or a partition that may hold it.

    That is the one that does by the table, and the last one that begins before, whatever the table says of its end:
    there may be thousands of headers, and a hundred partitions before each.
    """
    own = holder(table, offset)
    before = max((one.start for one in table if one.start < offset), default=0)
    return [0, offset, *([own.start] if own is not None else []), before]


def _nothing(source: Source, table: tuple[Partition, ...], marks: Marks, swap_at: int | None) -> HibercheckError:
    """Say that there is no image, and name what there is instead."""
    held, advice = described(source, table, marks)
    if swap_at is not None:
        problem = open_problem(source, swap_at)
        problem.message = f"{problem.message}; beside it {held}" if advice and held else problem.message
        problem.advice = advice or problem.advice
        return problem
    what = "no hibernation image and no swap signature in it"
    return MalformedImage(f"{what}: {held}" if held else what, path=source.path, advice=advice or RESUME_ADVICE)


def open_problem(source: Source, offset: int) -> HibercheckError:
    """Return why the swap space at ``offset`` does not open."""
    problem = _try(source, offset, offset)
    return problem if isinstance(problem, HibercheckError) else plain_swap(source.path, offset)


def _try_page(source: Source, offset: int, bases: list[int]) -> Found | HibercheckError | None:
    """Open a header page with the first device start that makes sense; None if it is not one."""
    if not _is_swap(source.read(offset, PAGE_SIZE)):
        return None
    results = [_try(source, offset, base) for base in dict.fromkeys(bases)]
    opened = next((result for result in results if isinstance(result, Found)), None)
    return opened or results[0]


def _try(source: Source, offset: int, base: int) -> Found | HibercheckError:
    try:
        return open_at(source, offset, base=base)
    except HibercheckError as problem:
        return problem


def _choose(source: Source, found: list[Found], table: tuple[Partition, ...]) -> Found:
    fresh = [each for each in found if not each.header.consumed] or found
    if len(fresh) > 1:
        places = ", ".join(numbers_of(each.offset, table) for each in fresh[:4])
        several = tuple(replace(each, partition=holder(table, each.offset)) for each in fresh)
        raise SeveralImages(source.path, several, f"{len(fresh)} images in it: {places}")
    where = f"the image's header was found at byte {fresh[0].offset:#x}"
    if table:
        where = f"{where} ({numbers_of(fresh[0].offset, table)})"
    return replace(fresh[0], warnings=(where, *fresh[0].warnings))
