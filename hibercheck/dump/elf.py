"""ELF cores that hold physical memory: QEMU's ``dump-guest-memory`` and the kernel's ``/proc/vmcore``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.dump.notes import MAX_COUNT, Note, iter_notes
from hibercheck.dump.source import Readable
from hibercheck.errors import MalformedDump, Unsupported
from hibercheck.files.elf import (
    EHDR,
    EM_X86_64,
    ET_CORE,
    PHDR,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    Header,
    ProgramHeader,
    header,
    program_headers,
)

MAX_SEGMENTS = 1 << 18
"""More than any machine's memory map has; bounds the memory that a damaged header can make us use."""
MAX_NOTES = 64 << 20

_SECTION_INFO = 44
"""sh_info in Elf64_Shdr."""


class Segment(NamedTuple):
    """A run of physical memory in the file: ``size`` bytes of physical ``address`` at file ``offset``."""

    address: int
    size: int
    offset: int


class ElfCore:
    """The memory and notes of an ELF core.

    Bytes that a segment has in memory but not in the file (``p_memsz`` beyond ``p_filesz``) were left out of the
    dump: they are unknown, not zero.

    Attributes:
        notes: All notes of all PT_NOTE segments.
        segments: The memory that it holds, by ascending address.

    Raises:
        MalformedDump: The headers contradict the file.
        Unsupported: It is an ELF file of another kind.
    """

    kind = "ELF"

    def __init__(self, source: Readable) -> None:
        self._source = source
        # /proc/kcore gives ranges that are not memory of their own, such as vmalloc's, the physical address -1
        # (fs/proc/kcore.c): they end beyond 2^64, and are passed over.
        segments = []
        self.notes: list[Note] = []
        notes_size = 0
        for row in self._program_headers(_read_header(source)):
            kind, offset, address, size = row.type, row.offset, row.paddr, row.filesz
            if kind == PT_LOAD and size and address + size <= 1 << 64:
                if offset + size > source.size:
                    raise MalformedDump(
                        f"memory from {address:#x} on should have {size} bytes in the file, which ends before",
                        path=source.path,
                        offset=offset,
                        advice="the dump is cut, take it again",
                    )
                segments.append(Segment(address, size, offset))
            elif kind == PT_NOTE:
                notes_size += size
                if notes_size > MAX_NOTES:
                    raise MalformedDump(f"has more than {MAX_NOTES} bytes of notes", path=source.path)
                self.notes += iter_notes(source.read(offset, size, "note segment"), source.path)
                if len(self.notes) > MAX_COUNT:
                    raise MalformedDump(f"has more than {MAX_COUNT} notes", path=source.path)
        if not segments:
            raise MalformedDump("holds no memory (no PT_LOAD segment has contents)", path=source.path)
        self.segments = _disjoint(segments)
        held = sum(segment.size for segment in self.segments)
        if held > source.size:  # a small file would be read as any amount of memory, and searched
            what = f"holds {held} bytes of memory in {source.size} of its own: segments share them"
            raise MalformedDump(what, path=source.path, advice="take the dump again")
        self._starts = [segment.address for segment in self.segments]

    def _program_headers(self, head: Header) -> Iterator[ProgramHeader]:
        source = self._source
        count = head.phnum
        if count == PN_XNUM and head.shoff:
            count = int.from_bytes(source.read(head.shoff + _SECTION_INFO, 4, "section header 0"), "little")
        if count > MAX_SEGMENTS or head.phentsize != PHDR.size:
            raise MalformedDump(
                f"claims {count} program headers of {head.phentsize} bytes", path=source.path, offset=head.phoff
            )
        return program_headers(source.read(head.phoff, count * head.phentsize, "program headers"))

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's 4096 bytes, or None if the dump does not hold all of them."""
        address = pfn << PAGE_SHIFT
        content = self._piece(address, PAGE_SIZE)
        while content is not None and len(content) < PAGE_SIZE:
            # a frame may be shared by two segments: /proc/vmcore splits at the byte where a resource ends
            more = self._piece(address + len(content), PAGE_SIZE - len(content))
            content = None if more is None else content + more
        return content

    def _piece(self, address: int, size: int) -> bytes | None:
        position = bisect_right(self._starts, address) - 1
        if position < 0:
            return None
        segment = self.segments[position]
        start = address - segment.address
        if start >= segment.size:
            return None
        return self._source.read(segment.offset + start, min(size, segment.size - start), "memory")

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first PFN, number) of the frames that lie wholly in one segment, ascending."""
        for address, size, _offset in self.segments:
            first = (address + PAGE_SIZE - 1) >> PAGE_SHIFT
            number = ((address + size) >> PAGE_SHIFT) - first
            if number > 0:
                yield first, number


def _disjoint(segments: list[Segment]) -> list[Segment]:
    """Cut what of a segment an earlier one has already, and sort.

    /proc/kcore shows the kernel's image twice, by itself and within its RAM.
    """
    found: list[Segment] = []
    end = 0
    for address, size, offset in sorted(segments, key=lambda segment: (segment.address, -segment.size)):
        skip = max(0, end - address)
        if skip < size:
            found.append(Segment(address + skip, size - skip, offset + skip))
            end = address + size
    return found


def _read_header(source: Readable) -> Header:
    head = header(source.read(0, min(EHDR.size, source.size), "ELF header"))
    if head is None:
        raise MalformedDump("its ELF header is cut", path=source.path)
    if (head.ident[4], head.ident[5], head.machine) != (2, 1, EM_X86_64):
        raise Unsupported(
            "is an ELF file, but not one of a 64-bit x86 machine",
            path=source.path,
            advice="QEMU writes it with 32 bits while its first CPU is outside 64-bit mode: take raw memory by its "
            "`pmemsave`, and the registers (--resumer-registers)",
        )
    if head.type != ET_CORE:
        raise MalformedDump(
            "is an ELF file, but not a memory dump (its type is not CORE)",
            path=source.path,
            advice="give a file of QEMU's dump-guest-memory or a vmcore",
        )
    return head
