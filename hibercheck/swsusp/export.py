"""An image as an ELF64 core of the resumee's memory: every frame at its physical address."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.errors import InputProblem, MalformedImage
from hibercheck.files.elf import note
from hibercheck.files.outputs import Outputs
from hibercheck.files.places import FileOutput
from hibercheck.files.vmcoreinfo import HEADS, NAME
from hibercheck.files.vmcoreinfo import text_at as vmcoreinfo_at
from hibercheck.swsusp.bulk import BATCH_CHUNKS, Progress, batches
from hibercheck.swsusp.codec import BLOCK_PAGES, BLOCK_SIZE
from hibercheck.swsusp.reserve import reserve
from hibercheck.swsusp.vmcore import NOTE_ROOM, data_offset, head

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image
    from hibercheck.swsusp.stream import Batch

ZERO_PAGE = bytes(PAGE_SIZE)

SAMPLES = (0, 8, 2044, 4088)
"""Offsets in a page: one that is not zeros rarely has a zero at them all."""
LEAST_HOLE = 16
"""Pages of zeros in a row that are left out; fewer are written, which costs less than beginning anew behind them."""
SUSPECTS = re.compile(rb"\0{%d,}" % LEAST_HOLE)
MAX_CANDIDATES = 64
MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        frames: Frames in the core.
        runs: Its PT_LOAD segments.
        written: Bytes of page contents actually written; the rest is holes.
        vmcoreinfo: The VMCOREINFO text, out of the image or given; None when there is none.
        found: Whether it was found in the image's memory.
        lost: (first PFN, length) of frames that could not be read and are not in the core, ascending.
        problems: Why, a line each, in the order of the image; no more than a hundred.
    """

    frames: int
    runs: int
    written: int
    vmcoreinfo: str | None
    found: bool
    lost: tuple[tuple[int, int], ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a batch ends in the stream, what was written of it, found in it, and which data pages are lost, and why."""

    end: int
    written: int
    candidates: list[bytes]
    lost: list[tuple[int, int]]
    problems: list[str]


class _Writer:
    """Writes the data pages of batches to their places; all threads share it."""

    def __init__(self, image: Image, descriptor: int, start: int, *, keep_going: bool) -> None:
        self._keep_going = keep_going
        self._pfns = image.pfns
        self._meta = image.info.meta_pages
        self._descriptor = descriptor
        self._start = start

    def add(self, batch: Batch) -> _Part:
        """Write the data pages of a batch.

        Raises:
            MalformedImage: A chunk is damaged, and the writer is not to go on: the first that is.
        """
        for _, problem in () if self._keep_going else batch.damaged:
            raise problem
        first = batch.first * BLOCK_PAGES - self._meta
        plain = batch.plain
        gone = [_pages_of(batch, chunk) for chunk, _ in batch.damaged]
        holes = sorted([*_holes(batch), *gone])
        writes = []
        for part, stop, rank in self._pfns.places(max(first, 0), first + batch.pages):
            where = self._start + (rank - part + first) * PAGE_SIZE
            for low, high in _without(holes, part - first, stop - first):
                writes.append((plain[low * PAGE_SIZE : high * PAGE_SIZE], where + low * PAGE_SIZE))
        for data, offset in writes:
            reserve(self._descriptor, offset, len(data))
            self._write(data, offset)
        return _Part(
            end=batch.first * BLOCK_PAGES + batch.pages,
            written=sum(len(data) for data, _ in writes),
            candidates=_vmcoreinfos(batch, max(-first, 0)),
            lost=[(max(low + first, 0), high + first) for low, high in gone if high + first > 0],
            problems=[str(problem) for _, problem in batch.damaged],
        )

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            done = os.pwrite(self._descriptor, data, offset)
            data, offset = data[done:], offset + done


def _pages_of(batch: Batch, chunk: int) -> tuple[int, int]:
    """Return (first page, end) of a chunk in its batch."""
    first = (chunk - batch.first) * BLOCK_PAGES
    return first, min(first + BLOCK_PAGES, batch.pages)


def _holes(batch: Batch) -> Iterator[tuple[int, int]]:
    """Yield (first page, end) of the rows of at least `LEAST_HOLE` pages of zeros.

    Few pages get as far as being compared: the bytes at some offsets of all pages, which are slices, tell the others.
    """
    samples = 0
    for offset in SAMPLES:
        samples |= int.from_bytes(_each(batch, offset), "little")
    for row in SUSPECTS.finditer(samples.to_bytes(batch.pages, "little")):
        first = row.start()
        for page in range(first, row.end() + 1):
            if page < row.end() and batch.page(page) == ZERO_PAGE:
                continue
            if page - first >= LEAST_HOLE:
                yield first, page
            first = page + 1


def _each(batch: Batch, offset: int) -> bytes:
    """Return the byte at ``offset`` of each page."""
    return batch.buffer[offset : batch.pages * PAGE_SIZE : PAGE_SIZE]


def _vmcoreinfos(batch: Batch, first: int) -> list[bytes]:
    """Return the VMCOREINFO texts in the pages from ``first`` on."""
    found: list[bytes] = []
    heads = _each(batch, 0)
    for mark in HEADS:
        page = heads.find(mark, first)
        while page >= 0 and len(found) < MAX_CANDIDATES:
            text = vmcoreinfo_at(batch.page(page))
            found += [text] if text else []
            page = heads.find(mark, page + 1)
    return found


def _without(holes: list[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of [begin, end) that are not in holes, which ascend."""
    for first, after in holes:
        if begin < min(first, end):
            yield begin, min(first, end)
        begin = max(begin, after)
    if begin < end:
        yield begin, end


def phys_base(image: Image) -> int | None:
    """Return the resumee's ``phys_base``: physical minus link-map address of its code; None before 4.8."""
    record = image.record
    if record.jump_address_phys is None:
        return None
    return record.jump_address_phys - (record.jump_address - START_KERNEL_MAP)


def _choose(candidates: list[bytes], image: Image) -> bytes | None:
    """Choose the resumee's own text: pages of other kernels' may be in its memory too."""
    base = phys_base(image)
    if base is not None:
        # VMCOREINFO_NUMBER(phys_base), written with %ld
        line = f"NUMBER(phys_base)={base}\n".encode()
        own = [text for text in candidates if line in text]
        if own:
            return own[0]
    return candidates[0] if len(set(candidates)) == 1 else None


def export(
    image: Image,
    target: str,
    *,
    outputs: Outputs | None = None,
    notes: bytes = b"",
    vmcoreinfo: Callable[[], bytes | None] | None = None,
    progress: Progress | None = None,
    keep_going: bool = False,
) -> Exported:
    """Write the image as an ELF core.

    It is in its place when it is whole, and not before.  Memory is bounded by a few
    batches of `hibercheck.swsusp.bulk`.

    Args:
        image: The image.
        target: Path to write; replaced if it exists.
        outputs: The outputs of which it is one that is open already.
        notes: Further notes to put in.
        vmcoreinfo: Makes a VMCOREINFO text where the image's memory has none.
        progress: Called with (pages done, pages in all) now and then.
        keep_going: Whether to leave out what cannot be read instead of giving up.

    Raises:
        MalformedImage: Any part of the image is damaged; with ``keep_going`` only where its PFN list is.
        InputProblem: The target cannot be written, or is something else than a regular file.
        UsageProblem: It is a device or an input.
    """
    with ExitStack() as stack:
        if outputs is None:
            outputs = stack.enter_context(Outputs())
            outputs.open(target)
        place = outputs.opened[target]
        if not isinstance(place, FileOutput):
            raise InputProblem("is not a regular file, and only such a file can be a core", path=target)
        try:
            result = _export_to(image, place.descriptor, notes, vmcoreinfo, progress, keep_going)
            place.finish()
        except OSError as problem:
            raise InputProblem(f"cannot be written: {problem.strerror}", path=target) from problem
    return result


def _export_to(
    image: Image,
    descriptor: int,
    notes: bytes,
    vmcoreinfo: Callable[[], bytes | None] | None,
    progress: Progress | None,
    keep_going: bool,
) -> Exported:
    runs = list(image.pfns.runs())
    # Batches begin at multiples of their size: file systems with large folios take each as one.  Each chunk that is
    # lost splits at most one more run.
    start = data_offset(
        len(runs) + image.stream.chunks * keep_going, image.info.meta_pages * PAGE_SIZE, BATCH_CHUNKS * BLOCK_SIZE
    )
    os.ftruncate(descriptor, start + len(image.pfns) * PAGE_SIZE)
    writer = _Writer(image, descriptor, start, keep_going=keep_going)
    candidates: list[bytes] = []
    lost: list[tuple[int, int]] = []
    problems: list[str] = []
    written = done = 0
    image.source.expect_sequential()
    try:
        for part in batches(image.source, image.stream.storage, writer.add, progress):
            candidates += part.candidates[: MAX_CANDIDATES - len(candidates)]
            lost += part.lost
            problems += part.problems[: MAX_PROBLEMS - len(problems)]
            written += part.written
            done = part.end
    except MalformedImage as problem:
        if not keep_going:
            raise
        problems.append(f"{problem}; what follows it cannot be found")
        lost.append((max(done - image.info.meta_pages, 0), image.info.image_pages))
    own = _choose(candidates, image)
    text = own if own is not None or vmcoreinfo is None else vmcoreinfo()
    if text is not None:
        notes = note(NAME, 0, text) + notes
    ranks = sorted(_ranks(image, lost))
    segments = list(_segments(runs, ranks))
    os.pwrite(descriptor, head(segments, notes[:NOTE_ROOM], start), 0)
    return Exported(
        frames=sum(length for _, length, _ in segments),
        runs=len(segments),
        written=written,
        vmcoreinfo=None if text is None else text.decode("ascii", "replace"),
        found=own is not None,
        lost=tuple(_frames(runs, ranks)),
        problems=tuple(problems),
    )


def _ranks(image: Image, lost: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the places in the PFN list of the data pages that are lost."""
    for first, end in lost:
        for part, stop, rank in image.pfns.places(first, end):
            yield rank, rank + stop - part


def _segments(runs: list[tuple[int, int]], lost: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield (first PFN, length, place in the PFN list) of what of the runs is not lost."""
    place = 0
    for first, length in runs:
        for low, high in _without(lost, place, place + length):
            yield first + low - place, high - low, low
        place += length


def _frames(runs: list[tuple[int, int]], lost: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield (first PFN, length) of what of the runs is lost."""
    place = 0
    gone = iter(lost)
    low, high = next(gone, (0, 0))
    for first, length in runs:
        while low < high and low < place + length:
            end = min(high, place + length)
            yield first + low - place, end - low
            low, high = (end, high) if end < high else next(gone, (0, 0))
        place += length
