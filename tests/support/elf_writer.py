"""Make small x86-64 kernels: ELF files with sections, segments, symbols, and deliberate damage."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PROGBITS, SYMTAB, STRTAB, NOTE, NOBITS = 1, 2, 3, 7, 8
WRITE, ALLOC, EXEC = 1, 2, 4
ABS = 0xFFF1
TEXT = 0xFFFFFFFF81000000
RODATA = 0xFFFFFFFF82000000
BANNER = b"Linux version 6.1.0-made (a@b) (gcc) #1 SMP Thu Jan 1 00:00:00 UTC 1970\n\0"
BUILD_ID = "0123456789abcdef0123456789abcdef01234567"


class Section(NamedTuple):
    name: str
    address: int
    data: bytes = b""
    flags: int = ALLOC
    kind: int = PROGBITS
    size: int | None = None
    link: int = 0


class Sym(NamedTuple):
    name: str
    value: int
    size: int = 0
    kind: int = 2
    """STT_: 0 untyped, 1 object, 2 function, 3 section, 4 file."""
    bind: int = 0
    """STB_: 0 local, 1 global, 2 weak."""
    section: int = 1
    """Index of the section, from 1; 0 undefined, `ABS` absolute."""


def string_table(names: Iterable[str], *, tails: bool, merge: bool) -> tuple[bytes, list[int]]:
    """A string table and each name's offset: with shared tails as GNU ld makes it, or unmerged as LLD does."""
    names = list(names)
    table, offsets = bytearray(b"\0"), {}
    if not merge:
        found = []
        for name in names:
            found.append(len(table) if name else 0)
            table += name.encode() + b"\0" if name else b""
        return bytes(table), found
    for name in sorted(set(names), key=len, reverse=True):
        key = name.encode() + b"\0"
        at = table.find(key) if tails or not name else -1
        if at < 0:
            at = len(table)
            table += key
        offsets[name] = at
    return bytes(table), [offsets[name] for name in names]


def build_id_note(build_id: str = BUILD_ID) -> bytes:
    """Contents of .notes: a note of another owner, then the build id."""
    other = struct.pack("<III", 6, 4, 1) + b"Linux\0\0\0" + bytes(4)
    return other + struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes.fromhex(build_id)


def write_elf(
    sections: Sequence[Section],
    symbols: Sequence[Sym] = (),
    *,
    tails: bool = True,
    merge: bool = True,
    segments: bool = True,
    machine: int = 62,
    kind: int = 2,
    elf_class: int = 2,
    byte_order: int = 1,
) -> bytes:
    """The file.  Each allocated section is a segment of its own."""
    every = [Section("", 0, kind=0, flags=0), *sections]
    if symbols:
        strings, offsets = string_table([one.name for one in symbols], tails=tails, merge=merge)
        table = bytes(24) + b"".join(
            struct.pack("<IBBHQQ", at, one.bind << 4 | one.kind, 0, one.section, one.value, one.size)
            for one, at in zip(symbols, offsets, strict=True)
        )
        every.append(Section(".symtab", 0, table, 0, SYMTAB, link=len(every) + 1))
        every.append(Section(".strtab", 0, strings, 0, STRTAB))
    names, name_offsets = string_table([one.name for one in every] + [".shstrtab"], tails=False, merge=True)
    every.append(Section(".shstrtab", 0, names, 0, STRTAB))
    loaded = [one for one in every if one.flags & ALLOC] if segments else []
    body = bytearray(64 + 56 * len(loaded))
    places = []
    for one in every:
        body += bytes(-len(body) % 16)
        places.append(len(body))
        body += one.data
    body += bytes(-len(body) % 16)
    section_headers = len(body)
    for one, name, place in zip(every, name_offsets, places, strict=True):
        size = len(one.data) if one.size is None else one.size
        body += struct.pack("<IIQQQQIIQQ", name, one.kind, one.flags, one.address, place, size, one.link, 0, 16, 0)
    for number, one in enumerate(loaded):
        size = len(one.data) if one.size is None else one.size
        row = struct.pack(
            "<IIQQQQQQ",
            1,
            5,
            places[every.index(one)],
            one.address,
            one.address & 0x7FFFFFFF,
            len(one.data),
            size,
            4096,
        )
        body[64 + 56 * number : 64 + 56 * (number + 1)] = row
    ident = b"\x7fELF" + bytes([elf_class, byte_order, 1]) + bytes(9)
    phoff = 64 if loaded else 0
    body[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH",
        ident, kind, machine, 1, 0x1000000, phoff, section_headers, 0,
        64, 56, len(loaded), 64, len(every), len(every) - 1,
    )  # fmt: skip
    return bytes(body)


def write_kernel(
    symbols: Sequence[Sym] = (), *, extra: Sequence[Section] = (), rodata: bytes = b"", **options: object
) -> bytes:
    """A kernel of the usual shape: .text, .rodata with the banner, .notes, a zero-based per-CPU area, .bss.

    Section numbers for `Sym.section`: 1 .text, 2 .rodata, 3 .notes, 4 .data, 5 .data..percpu, 6 .bss, then ``extra``.
    """
    sections = [
        Section(".text", TEXT, b"\x90" * 4096, ALLOC | EXEC),
        Section(".rodata", RODATA, BANNER + rodata, ALLOC),
        Section(".notes", RODATA + 0x1000000, build_id_note(), ALLOC, NOTE),
        Section(".data", TEXT + 0x3000000, bytes(range(256)) * 16, ALLOC | WRITE),
        Section(".data..percpu", 0, b"percpu data".ljust(4096, b"\0"), ALLOC | WRITE),
        Section(".bss", TEXT + 0x4000000, b"", ALLOC | WRITE, NOBITS, 0x3000),
        *extra,
    ]
    return write_elf(sections, symbols, **options)  # type: ignore[arg-type]


SYMBOLS = (
    Sym("_text", TEXT, 0, 0, 1),
    Sym("linux_banner", RODATA, len(BANNER), 1, 1, 2),
    Sym("idt_table", TEXT + 0x4000000, 4096, 1, 0, 6),
    Sym("__per_cpu_start", 0, 0, 0, 1, 5),
    Sym("native_play_dead", TEXT + 0x100, 0x20, 2, 1),
)
"""Symbols that go with `write_kernel`."""
