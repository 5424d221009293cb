"""An image as an ELF64 core of the resumee's memory: every frame at its physical address."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.errors import InputProblem
from hibercheck.swsusp.bulk import BATCH_CHUNKS, Progress, batches
from hibercheck.swsusp.codec import BLOCK_PAGES, BLOCK_SIZE
from hibercheck.swsusp.reserve import reserve
from hibercheck.swsusp.vmcore import NOTE_ROOM, data_offset, head, note

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image
    from hibercheck.swsusp.stream import Batch

ZERO_PAGE = bytes(PAGE_SIZE)

# kernel/vmcore_info.c (kernel/crash_core.c before 6.9): the text starts with VMCOREINFO_OSRELEASE, in a page of its own
# or, where it was allocated so, behind the head of the finished note.
TEXT_START = b"OSRELEASE="
NOTE_START = b"\x0b\0\0\0"
NOTE_NAME = b"VMCOREINFO\0"
NOTE_HEAD = 24
HEADS = (TEXT_START[:1], NOTE_START[:1])
SAMPLES = (0, 8, 2044, 4088)
"""Offsets in a page: one that is not zeros rarely has a zero at them all."""
LEAST_HOLE = 16
"""Pages of zeros in a row that are left out; fewer are written, which costs less than beginning anew behind them."""
SUSPECTS = re.compile(rb"\0{%d,}" % LEAST_HOLE)
MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        frames: Frames in the core.
        runs: Its PT_LOAD segments.
        written: Bytes of page contents actually written; the rest is holes.
        vmcoreinfo: The VMCOREINFO text, out of the image or given; None when there is none.
        found: Whether it was found in the image's memory.
    """

    frames: int
    runs: int
    written: int
    vmcoreinfo: str | None
    found: bool


@dataclass(frozen=True, slots=True)
class _Part:
    """What was written of a batch, in bytes, and found in it."""

    written: int
    candidates: list[bytes]


class _Writer:
    """Writes the data pages of batches to their places; all threads share it."""

    def __init__(self, image: Image, descriptor: int, start: int) -> None:
        self._pfns = image.pfns
        self._meta = image.info.meta_pages
        self._descriptor = descriptor
        self._start = start

    def add(self, batch: Batch) -> _Part:
        """Write the data pages of a batch.

        Raises:
            MalformedImage: A chunk is damaged: the first that is.
        """
        for _, problem in batch.damaged:
            raise problem
        first = batch.first * BLOCK_PAGES - self._meta
        plain = batch.plain
        holes = list(_holes(batch))
        writes = []
        for part, stop, rank in self._pfns.places(max(first, 0), first + batch.pages):
            where = self._start + (rank - part + first) * PAGE_SIZE
            for low, high in _without(holes, part - first, stop - first):
                writes.append((plain[low * PAGE_SIZE : high * PAGE_SIZE], where + low * PAGE_SIZE))
        for data, offset in writes:
            reserve(self._descriptor, offset, len(data))
            self._write(data, offset)
        return _Part(sum(len(data) for data, _ in writes), _vmcoreinfos(batch, max(-first, 0)))

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            done = os.pwrite(self._descriptor, data, offset)
            data, offset = data[done:], offset + done


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
            text = _vmcoreinfo(batch.page(page))
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


def _vmcoreinfo(page: bytes) -> bytes:
    """Return the VMCOREINFO text at the start of a page, bare or in a note; nothing if there is none."""
    if page.startswith(NOTE_START):
        if page[12:23] != NOTE_NAME:
            return b""
        size = int.from_bytes(page[4:8], "little")
        page = page[NOTE_HEAD : NOTE_HEAD + size]
    text = page.split(b"\0", 1)[0]
    return text if text.startswith(TEXT_START) and b"\nPAGESIZE=" in text else b""


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
    notes: bytes = b"",
    vmcoreinfo: Callable[[], bytes | None] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write the image as an ELF core.

    It is written under a temporary name beside ``target`` and renamed when it is whole.  Memory is bounded by a few
    batches of `hibercheck.swsusp.bulk`.

    Args:
        image: The image.
        target: Path to write; replaced if it exists.
        notes: Further notes to put in.
        vmcoreinfo: Makes a VMCOREINFO text where the image's memory has none.
        progress: Called with (pages done, pages in all) now and then.

    Raises:
        MalformedImage: Any part of the image is damaged.
        InputProblem: The target cannot be written.
    """
    final = Path(os.path.realpath(target))
    if final.exists() and not final.is_file():
        raise InputProblem("is not a regular file, and only such a file can be a core", path=target)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise InputProblem(f"cannot be written: {problem.strerror}", path=target) from problem
    try:
        result = _export_to(image, descriptor, notes, vmcoreinfo, progress)
        os.fchmod(descriptor, 0o666 & ~_umask())
        part.replace(final)
    except OSError as problem:
        raise InputProblem(f"cannot be written: {problem.strerror}", path=target) from problem
    finally:
        os.close(descriptor)
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return result


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _export_to(
    image: Image,
    descriptor: int,
    notes: bytes,
    vmcoreinfo: Callable[[], bytes | None] | None,
    progress: Progress | None,
) -> Exported:
    runs = list(image.pfns.runs())
    # Batches begin at multiples of their size: file systems with large folios take each as one.
    start = data_offset(len(runs), image.info.meta_pages * PAGE_SIZE, BATCH_CHUNKS * BLOCK_SIZE)
    os.ftruncate(descriptor, start + len(image.pfns) * PAGE_SIZE)
    writer = _Writer(image, descriptor, start)
    candidates: list[bytes] = []
    written = 0
    image.source.expect_sequential()
    for part in batches(image.source, image.stream.storage, writer.add, progress):
        candidates += part.candidates[: MAX_CANDIDATES - len(candidates)]
        written += part.written
    own = _choose(candidates, image)
    text = own if own is not None or vmcoreinfo is None else vmcoreinfo()
    if text is not None:
        notes = note(b"VMCOREINFO", 0, text) + notes
    os.pwrite(descriptor, head(runs, notes[:NOTE_ROOM], start), 0)
    return Exported(
        frames=len(image.pfns),
        runs=len(runs),
        written=written,
        vmcoreinfo=None if text is None else text.decode("ascii", "replace"),
        found=own is not None,
    )
