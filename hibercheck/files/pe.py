"""What a file that firmware or a boot loader starts begins with: a PE program's sections, Linux's setup header.

Sources: the PE format (Microsoft), the UAPI group's specification of unified kernel images (UKI), and
Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hibercheck.data import dataclass

Read = Callable[[int, int], bytes]
"""Called with an offset and a size, returns what is there: less at the end of the file."""

# At 0x3c of a DOS program: u32 offset of "PE\0\0"
_PE_AT = struct.Struct("<60xI")
# COFF file header after "PE\0\0": u16 machine, sections; u32 time, symbols, count; u16 size_of_optional_header, flags
_COFF = struct.Struct("<4sHHIIIHH")
# IMAGE_SECTION_HEADER: char name[8]; u32 virtual_size, virtual_address, raw_size, raw_offset; ...
_SECTION = struct.Struct("<8sIIII16x")

# struct setup_header, at 0x1f1 of a bzImage, and of struct boot_params in memory, where the boot loader copies it:
#   0x1f1 __u8 setup_sects; 0x1f4 __u32 syssize, in 16 bytes; 0x202 __u32 header ("HdrS"); 0x206 __u16 version;
#   0x230 __u32 kernel_alignment (since protocol 2.05); 0x236 __u16 xloadflags (since 2.12);
#   0x248 __u32 payload_offset; 0x24c __u32 payload_length (since 2.08); 0x258 __u64 pref_address (since 2.10)
_SETUP = struct.Struct("<497xB2xI10x4sH40xI2xH16xII8xQ")
SETUP_SIZE = _SETUP.size
_XLF_KERNEL_64 = 1

_PE32_PLUS, _CHECKSUM, _CERTIFICATES = 0x20B, 64, 144
"""Of an optional header with 64-bit addresses: its magic, and where CheckSum and the certificate table's entry are."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section of a PE program lies in its file.

    Attributes:
        offset: Its first byte.
        size: Its bytes, without what fills it up.
    """

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Program:
    """A PE program.

    Attributes:
        machine: What it runs on, as in the COFF header.
        sections: By name; of a UKI with several profiles those of its first, which is the one that starts by itself.
        table: Where the section headers lie.
        cut: Whether they go past the end of the file.
    """

    machine: int
    sections: dict[str, Section]
    table: int
    cut: bool


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """What a bzImage says of itself.

    Attributes:
        long_mode: Whether it may be a 64-bit kernel: only protocol 2.12 and later tell.
        alignment: CONFIG_PHYSICAL_ALIGN in bytes; None where it is not said, or makes no sense.
        payload: (offset in the file, bytes) of the compressed kernel; None where it is not said.
        setup: Bytes before the part that runs in protected mode.
        summed: Bytes from its start that its CRC-32 is of, which ends them, or zeros instead of it; None where that
            is not said.
        preferred: Where it likes to be loaded (LOAD_PHYSICAL_ADDR); None where it is not said.
    """

    long_mode: bool
    alignment: int | None
    payload: tuple[int, int] | None
    setup: int
    summed: int | None
    preferred: int | None


def read_program(read: Read) -> Program | None:
    """Read the headers of a PE program; None where a file is not one."""
    dos = read(0, _PE_AT.size)
    if len(dos) < _PE_AT.size or dos[:2] != b"MZ":
        return None
    (at,) = _PE_AT.unpack(dos)
    coff = read(at, _COFF.size)
    if len(coff) < _COFF.size or coff[:4] != b"PE\0\0":
        return None
    _, machine, count, *_, optional, _ = _COFF.unpack(coff)
    table = at + _COFF.size + optional
    raw = read(table, count * _SECTION.size)
    sections: dict[str, Section] = {}
    profiles = 0
    for name, size, _, stored, offset in _SECTION.iter_unpack(raw[: len(raw) // _SECTION.size * _SECTION.size]):
        title = name.rstrip(b"\0").decode("ascii", "replace")
        profiles += title == ".profile"
        if profiles > 1:
            break
        # what stands before the first .profile is for all of them, and a profile's own section comes before it
        sections[title] = Section(offset, min(size or stored, stored))
    return Program(machine, sections, table, len(raw) < count * _SECTION.size)


def signed_fields(read: Read) -> tuple[tuple[int, int], ...]:
    """Where in a PE program for 64 bits are the fields, zero before, that whoever signs it writes: (offset, bytes)."""
    dos = read(0, _PE_AT.size)
    if len(dos) < _PE_AT.size or dos[:2] != b"MZ":
        return ()
    (at,) = _PE_AT.unpack(dos)
    head = read(at, _COFF.size + 2)
    if head[:4] != b"PE\0\0" or head[_COFF.size :] != _PE32_PLUS.to_bytes(2, "little"):
        return ()
    return (at + _COFF.size + _CHECKSUM, 4), (at + _COFF.size + _CERTIFICATES, 8)


def read_setup_header(head: bytes) -> SetupHeader | None:
    """Read the setup header in the first bytes of a bzImage or of ``boot_params``; None where there is none."""
    if len(head) < SETUP_SIZE:
        return None
    sectors, size, magic, version, alignment, flags, offset, length, preferred = _SETUP.unpack_from(head)
    if magic != b"HdrS":
        return None
    setup = 512 * ((sectors or 4) + 1)
    sensible = version >= 0x205 and alignment and not alignment & alignment - 1
    return SetupHeader(
        long_mode=version < 0x20C or bool(flags & _XLF_KERNEL_64),
        alignment=alignment if sensible else None,
        payload=(setup + offset, length) if version >= 0x208 and length else None,
        setup=setup,
        summed=setup + size * 16 if version >= 0x208 and size else None,
        preferred=preferred if version >= 0x20A else None,
    )
