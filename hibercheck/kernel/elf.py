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
from hibercheck.kernel.binary import Bytes

# typedef struct elf64_hdr {                    include/uapi/linux/elf.h
#   unsigned char e_ident[EI_NIDENT];           16 bytes
#   Elf64_Half e_type; Elf64_Half e_machine; Elf64_Word e_version;
#   Elf64_Addr e_entry; Elf64_Off e_phoff; Elf64_Off e_shoff; Elf64_Word e_flags;
#   Elf64_Half e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx;
# } Elf64_Ehdr;
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
# typedef struct elf64_phdr { Elf64_Word p_type, p_flags; Elf64_Off p_offset; Elf64_Addr p_vaddr, p_paddr;
#   Elf64_Xword p_filesz, p_memsz, p_align; } Elf64_Phdr;
_PHDR = struct.Struct("<IIQQQQQQ")
# typedef struct elf64_shdr { Elf64_Word sh_name, sh_type; Elf64_Xword sh_flags; Elf64_Addr sh_addr;
#   Elf64_Off sh_offset; Elf64_Xword sh_size; Elf64_Word sh_link, sh_info; Elf64_Xword sh_addralign, sh_entsize;
# } Elf64_Shdr;
_SHDR = struct.Struct("<IIQQQQIIQQ")
# typedef struct elf64_note { Elf64_Word n_namesz, n_descsz, n_type; } Elf64_Nhdr;
_NHDR = struct.Struct("<III")

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
_EM_X86_64 = 62
_ET_REL, _ET_EXEC, _ET_DYN, _ET_CORE = 1, 2, 3, 4
_PT_LOAD = 1
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 7, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
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
        MalformedKernel: It is no ELF file, or its headers contradict its length.
    """

    def __init__(self, data: Bytes, path: str) -> None:
        self.data = data
        self.path = path
        head = data[: _EHDR.size]
        if len(head) < _EHDR.size or head[:4] != b"\x7fELF":
            raise MalformedKernel("is not an ELF file", path=path)
        fields = _EHDR.unpack(head)
        self._check_identity(fields[0], fields[1], fields[2])
        self.entry: int = fields[4]
        self.sections = self._read_sections(fields[6], fields[11], fields[12], fields[13])
        self._by_name: dict[str, Section] = {}
        for section in self.sections:
            self._by_name.setdefault(section.name, section)
        self._spans = self._read_spans(fields[5], fields[9], fields[10])
        self._starts = [span.address for span in self._spans]
        self._nobits = sorted(
            (s.address, s.address + s.size) for s in self.sections if s.nobits and s.allocated and s.size
        )

    def _check_identity(self, ident: bytes, kind: int, machine: int) -> None:
        if ident[4] != 2:
            raise Unsupported("is a 32-bit ELF file", path=self.path, advice="give an x86-64 kernel")
        if ident[5] != 1 or machine != _EM_X86_64:
            what = _MACHINES.get(machine, f"machine {machine}")
            raise Unsupported(f"is an ELF file for {what}", path=self.path, advice="give an x86-64 kernel")
        if kind == _ET_REL:
            raise Unsupported(
                "is a kernel module or object file, not a kernel", path=self.path, advice="give a vmlinux or vmlinuz"
            )
        if kind == _ET_CORE:
            raise Unsupported(
                "is a memory dump (ELF core), not a kernel", path=self.path, advice="give the vmlinux or vmlinuz itself"
            )
        if kind not in {_ET_EXEC, _ET_DYN}:
            raise MalformedKernel(f"has ELF type {kind}, which no kernel has", path=self.path)

    def _table(self, what: str, offset: int, entry: int, count: int, expected: struct.Struct) -> bytes:
        """Bytes of a header table, after checking that it is within the file."""
        if entry != expected.size:
            raise MalformedKernel(f"ELF {what} headers of {entry} bytes instead of {expected.size}", path=self.path)
        if offset + entry * count > len(self.data):
            raise MalformedKernel(f"ELF {what} headers lie past the end of the file", path=self.path, offset=offset)
        return self.data[offset : offset + entry * count]

    def _read_sections(self, offset: int, entry: int, count: int, names_index: int) -> tuple[Section, ...]:
        if not offset:
            return ()
        if not count or names_index == 0xFFFF:
            # The first section holds what does not fit the header: sh_size the count, sh_link the index of the names.
            first = _SHDR.unpack(self._table("section", offset, entry, 1, _SHDR))
            count = count or first[5]
            names_index = first[6] if names_index == 0xFFFF else names_index
        if count > MAX_SECTIONS:
            raise MalformedKernel(f"claims {count} sections", path=self.path, advice="give a vmlinux or vmlinuz")
        raw = list(_SHDR.iter_unpack(self._table("section", offset, entry, count, _SHDR)))
        names = b""
        if names_index < len(raw) and raw[names_index][1] == SHT_STRTAB:
            names = self._contents(raw[names_index][4], raw[names_index][5])
        return tuple(
            Section(
                name=names[row[0] : row[0] + _MAX_SECTION_NAME].split(b"\0", 1)[0].decode("ascii", "replace"),
                address=row[3],
                size=row[5],
                offset=row[4],
                flags=row[2],
                kind=row[1],
                link=row[6],
            )
            for row in raw
        )

    def _contents(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data):
            raise MalformedKernel("a section lies past the end of the file", path=self.path, offset=offset)
        return self.data[offset : offset + size]

    def _read_spans(self, offset: int, entry: int, count: int) -> list[_Span]:
        """Loaded ranges, by address: from the program headers, or from the sections of a file that has none."""
        spans = []
        if offset and count:
            for row in _PHDR.iter_unpack(self._table("program", offset, entry, count, _PHDR)):
                if row[0] == _PT_LOAD and row[6]:
                    spans.append(_Span(row[3], row[6], row[2], min(row[5], row[6])))
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

    def is_bss(self, address: int) -> bool:
        """Whether the file has no contents for the address (.bss, .brk): zeros until the kernel runs."""
        index = bisect_right(self._nobits, (address, 1 << 64)) - 1
        if index >= 0 and address < self._nobits[index][1]:
            return True
        place = self.file_range(address, 1)
        return place is not None and place[1] == 0

    def loaded(self) -> Iterator[tuple[int, int, int]]:
        """Yield each loaded range that the file has contents for, as (address, file offset, bytes)."""
        for span in self._spans:
            if span.stored:
                yield span.address, span.offset, span.stored

    def build_id(self) -> str | None:
        """The GNU build id in hexadecimal, from the note sections, or None."""
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


def find_note(notes: bytes, owner: bytes, wanted: int) -> bytes | None:
    """Return the contents of a note by its owner (with the NUL) and kind, or None; stops as `find_build_id` does."""
    position = 0
    while position + _NHDR.size <= len(notes):
        name_size, size, kind = _NHDR.unpack_from(notes, position)
        name_at = position + _NHDR.size
        content_at = name_at + (name_size + 3 & ~3)
        if content_at + size > len(notes):
            return None
        if kind == wanted and notes[name_at : name_at + name_size] == owner:
            return notes[content_at : content_at + size]
        position = content_at + (size + 3 & ~3)
    return None
