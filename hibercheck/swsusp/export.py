"""An image as an ELF64 core of the resumee's memory: every frame at its physical address."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.errors import InputProblem, MalformedImage
from hibercheck.swsusp.bulk import Progress, batches
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.vmcore import NOTE_ROOM, data_offset, head, note

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image
    from hibercheck.swsusp.stream import Chunk

ZERO_PAGE = bytes(PAGE_SIZE)

# kernel/vmcore_info.c (kernel/crash_core.c before 6.9): the text starts with VMCOREINFO_OSRELEASE, in a page of its own
# or, where it was allocated so, behind the head of the finished note.
TEXT_START = b"OSRELEASE="
NOTE_START = b"\x0b\0\0\0"
NOTE_NAME = b"VMCOREINFO\0"
NOTE_HEAD = 24
HEADS = (TEXT_START[:1], NOTE_START[:1])
SAMPLES = (8, 2044, 4088)
"""Offsets in a page, beside its start: one that is not zeros rarely has a zero at them all."""
LEAST_HOLE = 4
"""Pages of zeros in a row that are left out; fewer are written, which is cheaper than beginning anew behind them."""
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


@dataclass(slots=True)
class _Batch:
    """What one batch of chunks wrote and found."""

    written: int = 0
    candidates: list[bytes] = field(default_factory=list)


class _Writer:
    """Writes the data pages of batches to their places; all threads share it."""

    def __init__(self, image: Image, descriptor: int, start: int) -> None:
        self._pfns = image.pfns
        self._meta = image.info.meta_pages
        self._descriptor = descriptor
        self._start = start
        self._writing = Lock()

    def add(self, number: int, chunks: Iterator[Chunk]) -> _Batch:
        """Write the data pages of a batch whose first chunk is ``number``.

        Raises:
            MalformedImage: A chunk is damaged: the first that is.
        """
        batch = _Batch()
        held, zeros, pages = [], [], number * BLOCK_PAGES - self._meta
        first = pages
        for plain in chunks:
            if isinstance(plain, MalformedImage):
                raise plain
            held.append(memoryview(plain))
            zeros += [pages + page for page in _look(plain, batch.candidates, max(0, -pages))]
            pages += len(plain) // PAGE_SIZE
        begin = max(first, 0)
        if pages > begin:
            for part, stop, rank in self._pfns.places(begin, pages):
                where = self._start + (rank - part) * PAGE_SIZE
                for low, high in _without(zeros, part, stop):
                    self._write(_between(held, low - first, high - first), where + low * PAGE_SIZE)
                    batch.written += (high - low) * PAGE_SIZE
        return batch

    def _write(self, pieces: list[memoryview], offset: int) -> None:
        # One at a time: the kernel lets one writer into a file, and others would spin where a decoder could run.
        with self._writing:
            while pieces:
                done = os.pwritev(self._descriptor, pieces, offset)
                offset += done
                while pieces and done >= len(pieces[0]):
                    done -= len(pieces.pop(0))
                if done:
                    pieces[0] = pieces[0][done:]


def _between(chunks: list[memoryview], first: int, end: int) -> list[memoryview]:
    """Return pages ``first`` up to ``end`` of consecutive chunks, all of which but the last have `BLOCK_PAGES`."""
    pieces = []
    for number in range(first // BLOCK_PAGES, -(-end // BLOCK_PAGES)):
        base = number * BLOCK_PAGES
        low, high = max(first - base, 0), min(end - base, BLOCK_PAGES)
        pieces.append(chunks[number][low * PAGE_SIZE : high * PAGE_SIZE])
    return pieces


def _look(plain: bytes | memoryview, candidates: list[bytes], begin: int) -> list[int]:
    """Return which pages of a chunk are zeros, and keep those from ``begin`` on that may hold the VMCOREINFO text.

    Few pages get as far as being compared: the bytes at some offsets of all pages, which are slices, tell the others.
    """
    heads = bytes(plain[::PAGE_SIZE])
    for mark in HEADS:
        page = heads.find(mark, begin)
        while page >= 0 and len(candidates) < MAX_CANDIDATES:
            text = _vmcoreinfo(bytes(plain[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]))
            candidates += [text] if text else []
            page = heads.find(mark, page + 1)
    if 0 not in heads:
        return []
    number = int.from_bytes(heads, "little")
    for offset in SAMPLES:
        number |= int.from_bytes(bytes(plain[offset::PAGE_SIZE]), "little")
    samples = number.to_bytes(len(heads), "little")
    if 0 not in samples:
        return []
    suspects = (page for page, sample in enumerate(samples) if not sample)
    return [page for page in suspects if bytes(plain[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]) == ZERO_PAGE]


def _without(holes: list[int], begin: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of [begin, end) between rows of at least `LEAST_HOLE` of the holes, which ascend."""
    parts = []
    inside = holes[bisect_left(holes, begin) : bisect_left(holes, end)]
    first = 0
    while first + LEAST_HOLE <= len(inside):
        last = first
        while last + 1 < len(inside) and inside[last + 1] == inside[last] + 1:
            last += 1
        if last - first + 1 >= LEAST_HOLE:
            if inside[first] > begin:
                parts.append((begin, inside[first]))
            begin = inside[last] + 1
        first = last + 1
    if end > begin:
        parts.append((begin, end))
    return parts


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
    start = data_offset(len(runs))
    os.ftruncate(descriptor, start + len(image.pfns) * PAGE_SIZE)
    writer = _Writer(image, descriptor, start)
    candidates: list[bytes] = []
    written = 0
    image.source.expect_sequential()
    for batch in batches(image.source, image.stream.storage, writer.add, progress):
        candidates += batch.candidates[: MAX_CANDIDATES - len(candidates)]
        written += batch.written
    own = _choose(candidates, image)
    text = own if own is not None or vmcoreinfo is None else vmcoreinfo()
    if text is not None:
        notes = note(b"VMCOREINFO", 0, text) + notes
    os.pwrite(descriptor, head(runs, notes[:NOTE_ROOM]), 0)
    return Exported(
        frames=len(image.pfns),
        runs=len(runs),
        written=written,
        vmcoreinfo=None if text is None else text.decode("ascii", "replace"),
        found=own is not None,
    )
