"""ELF cores that hold physical memory: QEMU's ``dump-guest-memory`` and the kernel's ``/proc/vmcore``."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from construct import Bytes, Const, ConstructError, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.dump.notes import MAX_COUNT, Note, iter_notes
from hibercheck.dump.source import Readable
from hibercheck.errors import MalformedDump, Unsupported

MAGIC = b"\x7fELF"
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE, PN_XNUM = 4, 62, 1, 4, 0xFFFF
MAX_SEGMENTS = 1 << 18
"""More than any machine's memory map has; bounds the memory that a damaged header can make us use."""
MAX_NOTES = 64 << 20

# typedef struct { unsigned char e_ident[16]; Elf64_Half e_type, e_machine; Elf64_Word e_version; Elf64_Addr e_entry;
#     Elf64_Off e_phoff, e_shoff; Elf64_Word e_flags; Elf64_Half e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum,
#     e_shstrndx; } Elf64_Ehdr;                                                          include/uapi/linux/elf.h
_HEADER = Struct(
    "magic" / Const(MAGIC),
    "class_" / Int8ul,
    "data" / Int8ul,
    "ident" / Bytes(10),
    "type" / Int16ul,
    "machine" / Int16ul,
    "version" / Int32ul,
    "entry" / Int64ul,
    "phoff" / Int64ul,
    "shoff" / Int64ul,
    "flags" / Int32ul,
    "ehsize" / Int16ul,
    "phentsize" / Int16ul,
    "phnum" / Int16ul,
    "shentsize" / Int16ul,
    "shnum" / Int16ul,
    "shstrndx" / Int16ul,
)
# typedef struct { Elf64_Word p_type, p_flags; Elf64_Off p_offset; Elf64_Addr p_vaddr, p_paddr;
#     Elf64_Xword p_filesz, p_memsz, p_align; } Elf64_Phdr;
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
# sh_info of section 0 holds the number of program headers where e_phnum is PN_XNUM; it is at byte 44 of Elf64_Shdr.
_SECTION_INFO = 44


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

    Raises:
        MalformedDump: The headers contradict the file.
        Unsupported: It is an ELF file of another kind.
    """

    kind = "ELF"

    def __init__(self, source: Readable) -> None:
        self._source = source
        # /proc/kcore gives ranges that are no memory of their own, such as vmalloc's, the physical address -1
        # (fs/proc/kcore.c): they end beyond 2^64, and are passed over.
        segments = []
        self.notes: list[Note] = []
        notes_size = 0
        for kind, _flags, offset, _va, address, size, _memsz, _align in self._program_headers(_read_header(source)):
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
        self._segments = _disjoint(segments)
        self._starts = [segment.address for segment in self._segments]

    def _program_headers(self, header: Any) -> Iterator[tuple[int, ...]]:  # noqa: ANN401 - construct's container
        source = self._source
        count = header.phnum
        if count == PN_XNUM and header.shoff:
            count = int.from_bytes(source.read(header.shoff + _SECTION_INFO, 4, "section header 0"), "little")
        if count > MAX_SEGMENTS or header.phentsize != _PROGRAM_HEADER.size:
            raise MalformedDump(
                f"claims {count} program headers of {header.phentsize} bytes", path=source.path, offset=header.phoff
            )
        return _PROGRAM_HEADER.iter_unpack(source.read(header.phoff, count * header.phentsize, "program headers"))

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
        segment = self._segments[position]
        start = address - segment.address
        if start >= segment.size:
            return None
        return self._source.read(segment.offset + start, min(size, segment.size - start), "memory")

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first PFN, number) of the frames that lie wholly in one segment, ascending."""
        for address, size, _offset in self._segments:
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


def _read_header(source: Readable) -> Any:  # noqa: ANN401 - construct's containers are untyped
    try:
        header = _HEADER.parse(source.read(0, min(64, source.size), "ELF header"))
    except ConstructError as error:
        raise MalformedDump("its ELF header is cut", path=source.path) from error
    if (header.class_, header.data, header.machine) != (2, 1, EM_X86_64):
        raise Unsupported("is an ELF file, but not one of a 64-bit x86 machine", path=source.path)
    if header.type != ET_CORE:
        raise MalformedDump(
            "is an ELF file, but not a memory dump (its type is not CORE)",
            path=source.path,
            advice="give a file of QEMU's dump-guest-memory or a vmcore",
        )
    return header
