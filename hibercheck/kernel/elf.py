"""ELF64 headers of a vmlinux: sections, segments, notes, and bytes at a virtual address.

Only headers and what is asked for are touched: a vmlinux with debug information is hundreds of megabytes, nearly all of
it DWARF.  The headers are decoded with `struct` alone, because importing a general ELF library costs more than all of
this module's work (about 50 ms against 1 ms).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator

from hibercheck.data import dataclass
from hibercheck.errors import MalformedKernel, MissingFact, Unsupported
from hibercheck.files.binary import Bytes
from hibercheck.files.elf import (
    EHDR,
    EM_X86_64,
    ET_CORE,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    PHDR,
    PT_LOAD,
    SHDR,
    SHF_ALLOC,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
    Header,
    find_note,
    header,
    program_headers,
    section_headers,
)

_MACHINES = {
    3: "32-bit x86",
    8: "MIPS",
    20: "32-bit PowerPC",
    21: "PowerPC",
    22: "s390",
    40: "32-bit ARM",
    183: "arm64",
    243: "RISC-V",
    258: "LoongArch",
}
_NT_GNU_BUILD_ID = 3

MAX_SECTIONS = 1 << 16
"""More sections than any vmlinux has (a few dozen, a few thousand with ``-ffunction-sections``)."""
_MAX_SECTION_NAME = 256


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a kernel file.

    Attributes:
        name: Its name, such as ``.data..percpu``.
        address: Link-time virtual address; 0 for sections that are not loaded, and for the zero-based per-CPU area.
        size: Length in bytes.
        offset: Where its contents are in the file; meaningless with `nobits`.
        flags: ``sh_flags`` (`SHF_WRITE`, `SHF_ALLOC`, `SHF_EXECINSTR`, ...).
        kind: ``sh_type``.
        link: ``sh_link``: for a symbol table, the index of its string table.
    """

    name: str
    address: int
    size: int
    offset: int
    flags: int
    kind: int = SHT_PROGBITS
    link: int = 0

    @property
    def nobits(self) -> bool:
        """Whether the section has no contents in the file and starts as zeros, as .bss does."""
        return self.kind == SHT_NOBITS

    @property
    def allocated(self) -> bool:
        """Whether the section is part of the running kernel."""
        return bool(self.flags & SHF_ALLOC)

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + self.size


@dataclass(frozen=True, slots=True)
class _Span:
    """A loaded range: ``stored`` bytes at ``offset`` in the file, then zeros up to ``size``."""

    address: int
    size: int
    offset: int
    stored: int


class ElfFile:
    """The headers of an x86-64 vmlinux over its (mapped) contents.

    Args:
        data: The file's contents.
        path: What to call the file in messages.

    Raises:
        Unsupported: It is an ELF file of another machine or class, or a module.
        MalformedKernel: It is not an ELF file, or its headers contradict its length.
    """

    def __init__(self, data: Bytes, path: str) -> None:
        self.data = data
        self.path = path
        head = header(data[: EHDR.size])
        if head is None:
            raise MalformedKernel("is not an ELF file", path=path)
        self._check_identity(head)
        self.entry = head.entry
        self._kind = head.type
        self.sections = self._read_sections(head)
        self._by_name: dict[str, Section] = {}
        for section in self.sections:
            self._by_name.setdefault(section.name, section)
        self._spans = self._read_spans(head)
        self._starts = [span.address for span in self._spans]

    def _check_identity(self, head: Header) -> None:
        kind, machine = head.type, head.machine
        if head.ident[4] != 2:
            raise Unsupported("is a 32-bit ELF file", path=self.path, advice="give an x86-64 kernel")
        if head.ident[5] != 1 or machine != EM_X86_64:
            what = _MACHINES.get(machine, f"machine {machine}")
            raise Unsupported(f"is an ELF file for {what}", path=self.path, advice="give an x86-64 kernel")
        if kind == ET_REL:
            raise Unsupported(
                "is a kernel module or object file, not a kernel", path=self.path, advice="give a vmlinux or vmlinuz"
            )
        if kind == ET_CORE:
            raise Unsupported(
                "is a memory dump (ELF core), not a kernel", path=self.path, advice="give the vmlinux or vmlinuz itself"
            )
        if kind not in {ET_EXEC, ET_DYN}:
            raise MalformedKernel(f"has ELF type {kind}, which no kernel has", path=self.path)

    def _table(self, what: str, offset: int, entry: int, count: int, expected: struct.Struct) -> bytes:
        """Bytes of a header table, after checking that it is within the file."""
        if entry != expected.size:
            raise MalformedKernel(f"ELF {what} headers of {entry} bytes instead of {expected.size}", path=self.path)
        if offset + entry * count > len(self.data):
            raise MalformedKernel(f"ELF {what} headers lie past the end of the file", path=self.path, offset=offset)
        return self.data[offset : offset + entry * count]

    def _read_sections(self, head: Header) -> tuple[Section, ...]:
        if not head.shoff:
            return ()
        count, names_index = head.shnum, head.shstrndx
        if not count or names_index == 0xFFFF:
            # The first section holds what does not fit the header: sh_size the count, sh_link the index of the names.
            (first,) = section_headers(self._table("section", head.shoff, head.shentsize, 1, SHDR))
            count = count or first.size
            names_index = first.link if names_index == 0xFFFF else names_index
        if count > MAX_SECTIONS:
            raise MalformedKernel(f"claims {count} sections", path=self.path, advice="give a vmlinux or vmlinuz")
        raw = list(section_headers(self._table("section", head.shoff, head.shentsize, count, SHDR)))
        names = b""
        if names_index < len(raw) and raw[names_index].type == SHT_STRTAB:
            names = self._contents(raw[names_index].offset, raw[names_index].size)
        return tuple(
            Section(
                name=names[row.name : row.name + _MAX_SECTION_NAME].split(b"\0", 1)[0].decode("ascii", "replace"),
                address=row.addr,
                size=row.size,
                offset=row.offset,
                flags=row.flags,
                kind=row.type,
                link=row.link,
            )
            for row in raw
        )

    def _contents(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data):
            raise MalformedKernel("a section lies past the end of the file", path=self.path, offset=offset)
        return self.data[offset : offset + size]

    def _read_spans(self, head: Header) -> list[_Span]:
        """Return loaded ranges, by address: from the program headers, or from the sections of a file that has none."""
        spans = []
        if head.phoff and head.phnum:
            for row in program_headers(self._table("program", head.phoff, head.phentsize, head.phnum, PHDR)):
                if row.type == PT_LOAD and row.memsz:
                    spans.append(_Span(row.vaddr, row.memsz, row.offset, min(row.filesz, row.memsz)))
        if not spans:
            spans = [
                _Span(s.address, s.size, s.offset, 0 if s.nobits else s.size)
                for s in self.sections
                if s.allocated and s.size
            ]
        for span in spans:
            if span.offset + span.stored > len(self.data) or span.address + span.size > 1 << 64:
                raise MalformedKernel(
                    "is truncated: a loaded segment lies past the end of the file", path=self.path, offset=span.offset
                )
        return sorted(spans, key=lambda span: span.address)

    @property
    def is_library(self) -> bool:
        """Whether it is a shared library: one that moves, and names no interpreter to start it."""
        return self._kind == ET_DYN and self.section(".interp") is None

    def section(self, name: str) -> Section | None:
        """Return the first section of that name, or None."""
        return self._by_name.get(name)

    def section_bytes(self, section: Section) -> bytes:
        """Return a section's contents; zeros are not made up for a `Section.nobits` section, which gives ``b""``."""
        offset, size = self.place_of(section)
        return self._contents(offset, size)

    def place_of(self, section: Section) -> tuple[int, int]:
        """Where a section's contents are in the file: offset and bytes, none for a `Section.nobits` section.

        Raises:
            MalformedKernel: It claims to lie past the end of the file.
        """
        size = 0 if section.nobits else section.size
        if section.offset + size > len(self.data):
            raise MalformedKernel("a section lies past the end of the file", path=self.path, offset=section.offset)
        return section.offset, size

    def file_range(self, address: int, size: int) -> tuple[int, int] | None:
        """Where a range of addresses is in the file: offset, and bytes stored there (the rest is zeros); or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        span = self._spans[index]
        skip = address - span.address
        if skip + size > span.size:
            return None
        return span.offset + skip, max(0, min(size, span.stored - skip))

    def span_end(self, address: int) -> int | None:
        """End of the loaded segment that an address is in, or None."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._starts[index] + self._spans[index].size:
            return None
        return self._starts[index] + self._spans[index].size

    def read(self, address: int, size: int) -> bytes:
        """Read ``size`` bytes at a link-time virtual address; memory that starts as zeros reads as zeros.

        Raises:
            MissingFact: The range is not wholly inside one loaded segment.
        """
        place = self.file_range(address, size)
        if place is None:
            raise MissingFact(f"the kernel has nothing at {address:#x} (+{size} bytes)", path=self.path)
        offset, stored = place
        return self.data[offset : offset + stored].ljust(size, b"\0")

    def loaded(self) -> Iterator[tuple[int, int, int]]:
        """Yield each loaded range that the file has contents for, as (address, file offset, bytes)."""
        for span in self._spans:
            if span.stored:
                yield span.address, span.offset, span.stored

    def build_id(self) -> str | None:
        """Return the GNU build id in hexadecimal, from the note sections, or None."""
        for section in self.sections:
            if section.kind == SHT_NOTE and not section.nobits:
                found = find_build_id(self.section_bytes(section))
                if found:
                    return found
        return None


def find_build_id(notes: bytes) -> str | None:
    """Return the build id among ELF notes, in hexadecimal, or None; stops at the first note that makes no sense."""
    found = find_note(notes, b"GNU\0", _NT_GNU_BUILD_ID)
    return None if found is None else found.hex()
