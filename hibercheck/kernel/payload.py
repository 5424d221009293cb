"""From what users have to the vmlinux inside: bzImage, UKI, EFI zboot, compressed files, packages, archives.

Each wrapper is recognised by what it contains, never by its name, and taken off until an ELF file is left.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import islice

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError, MalformedKernel, Unsupported
from hibercheck.files.binary import Bytes, occurrences
from hibercheck.files.compression import FORMATS, Format, decompressed, recognise, slices, spool
from hibercheck.files.pe import SETUP_SIZE, SetupHeader, read_program, read_setup_header, signed_fields
from hibercheck.patterns import pattern

_MAX_WRAPPERS = 8
_ELF = b"\x7fELF"

_HEAD = 0x1000

_CRC, _CRC_OF_WHOLE = 4, 0xFFFF_FFFF
"""Bytes of a bzImage's CRC-32, and what zlib gives for contents that end with it: boot.rst's lacks the last NOT."""

# drivers/firmware/efi/libstub/zboot-header.S: .long MZ_MAGIC; .ascii "zimg"; .long payload offset, payload size;
#   .long 0, 0; .asciz compression type, up to 0x38
_ZBOOT = struct.Struct("<8xII8x32s")

_PE_MACHINES = {0x14C: "32-bit x86", 0xAA64: "arm64", 0x5064: "RISC-V", 0x6264: "LoongArch"}
_PE_X86_64 = 0x8664

_LISTED = pattern(rb"[0-9a-f]{8,16} [A-Za-z?-] [!-~]+")
"""A line of nm(1), as System.map and /proc/kallsyms have it."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A vmlinux and the wrappers that were taken off it.

    Attributes:
        data: The vmlinux.
        wrappers: What it was in, outermost first.
        alignment: CONFIG_PHYSICAL_ALIGN in bytes, which only a bzImage's setup header states; else None.
    """

    data: Bytes
    wrappers: tuple[str, ...]
    alignment: int | None = None


def unwrap(data: Bytes, path: str) -> Unwrapped:
    """Take the vmlinux out of a file.

    Args:
        data: The file's contents.
        path: What to call it in messages.

    Raises:
        Unsupported: It is something else, which the message names.
        MalformedKernel: A wrapper is damaged.
    """
    wrappers: list[str] = []
    alignment = None
    while data[:4] != _ELF:
        if len(wrappers) == _MAX_WRAPPERS:
            raise MalformedKernel(f"has more than {_MAX_WRAPPERS} wrappers inside one another", path=path)
        header = read_setup_header(data[:SETUP_SIZE])
        alignment = (header.alignment if header else None) or alignment
        name, data = _take_off(data, path)
        wrappers.append(name)
    return Unwrapped(data, tuple(wrappers), alignment)


def _take_off(data: Bytes, path: str) -> tuple[str, Bytes]:
    """Name of the outermost wrapper and what is inside it."""
    head = data[:_HEAD].ljust(_HEAD, b"\0")
    header = read_setup_header(head)
    if header is not None:
        return "bzImage", _bzimage(data, header, path)
    if head[:8] == b"MZ\0\0zimg":
        return "EFI zboot", _zboot(data, head, path)
    if head[0x38:0x3C] == b"ARM\x64" or head[0x30:0x38] == b"RISCV\0\0\0":  # with an EFI stub they are MZ as well
        raise _stranger(head, path)
    if head[:2] == b"MZ":
        return "UKI", _kernel_section(data, path)
    form = recognise(head)
    if form is not None:
        return form.name, _payload(form, data, 0, len(data), path)
    from hibercheck.kernel import package  # noqa: PLC0415 - only who gives a package needs tarfile

    name = package.recognise(head)
    if name is not None:
        return name, package.kernel_in(data, head, path)
    raise _stranger(head, path)


def _stranger(head: bytes, path: str) -> HibercheckError:
    """Return the error for a file that is not a kernel, naming what it is where that shows."""
    known = (
        (0x38, b"ARM\x64", "is an arm64 kernel"),
        (0x30, b"RISCV\0\0\0", "is a RISC-V kernel"),
        (0, b"070701", "is a cpio archive, perhaps an initramfs"),
        (0xFF6, b"S1SUSPEND", "is a hibernation image"),
        (0xFF6, b"LINHIB0001", "is a hibernation image"),
        (0xFF6, b"SWAPSPACE2", "is swap space"),
        (0, b"KDUMP   ", "is a memory dump (kdump)"),
        (0, b"ANDROID!", "is an Android boot image"),
        (0, b"#!", "is a script"),
    )
    for at, magic, what in known:
        if head[at : at + len(magic)] == magic:
            return Unsupported(f"{what}, not an x86-64 kernel", path=path, advice="give a vmlinux or vmlinuz")
    if _LISTED.match(head):
        advice = "give a vmlinux or vmlinuz, and this as its symbols"
        return Unsupported("is a list of symbols (System.map, /proc/kallsyms), not a kernel", path=path, advice=advice)
    advice = "give a vmlinux, a vmlinuz, a kernel package, an unpacked tree or an installed kernel's release"
    return MalformedKernel("is not a kernel: neither ELF, bzImage, UKI nor a package", path=path, advice=advice)


def _payload(form: Format, data: Bytes, start: int, end: int, path: str) -> Bytes:
    return spool(decompressed(form, slices(data, start, end), path, MalformedKernel), path, MalformedKernel)


def _bzimage(data: Bytes, header: SetupHeader, path: str) -> Bytes:
    """Return the decompressed payload of a bzImage."""
    if not header.long_mode:
        raise Unsupported("is a 32-bit x86 kernel", path=path, advice="give an x86-64 kernel")
    if header.payload is None:
        return _search(data, header.setup, path)
    start, length = header.payload
    if start + length > len(data):
        advice = "fetch it again"
        raise MalformedKernel(
            "is truncated: the bzImage's payload ends past the file", path=path, offset=start, advice=advice
        )
    if not _whole(data, header.summed):
        advice = "fetch it again, or give its vmlinux"
        raise MalformedKernel("is damaged: the bzImage's CRC-32 is not that of its contents", path=path, advice=advice)
    form = recognise(data[start : start + 16])
    return _search(data, header.setup, path) if form is None else _payload(form, data, start, start + length, path)


def _whole(data: Bytes, end: int | None) -> bool:
    """Whether the contents of a bzImage give its CRC-32, if it has one; LZ4 has no check of its own.

    The last four bytes make that of all up to them come out the same; the build wrote them until 9c54baab4401
    ("x86/boot: Drop CRC-32 checksum and the build tool that generates it", in v6.15), since when they are zeros.
    """
    if end is None or end > len(data) or data[end - _CRC : end] == bytes(_CRC):
        return True
    checksum = 0
    for piece in _unsigned(data, end):
        checksum = zlib.crc32(piece, checksum)
    return checksum == _CRC_OF_WHOLE


def _unsigned(data: Bytes, end: int) -> Iterator[bytes]:
    """Yield a file up to some place as it was before somebody signed it, which changes two fields of its PE header."""
    at = 0
    for offset, size in signed_fields(lambda offset, size: data[offset : offset + size]):
        if offset + size > end:
            break
        yield from slices(data, at, offset)
        yield bytes(size)
        at = offset + size
    yield from slices(data, at, end)


_MAX_ATTEMPTS = 16


def _search(data: Bytes, start: int, path: str) -> Bytes:
    """Find the payload of a bzImage whose header does not say where, by trying (as scripts/extract-vmlinux does)."""
    for form in FORMATS[:-1]:
        for at in islice(occurrences(data, form.magic, start), _MAX_ATTEMPTS):
            try:
                found = _payload(form, data, at, len(data), path)
            except MalformedKernel:
                continue
            if found[:4] == _ELF:
                return found
    raise MalformedKernel(
        "begins like a bzImage and holds no compressed kernel: a program that boots like one (memtest86+), or damage",
        path=path,
        advice="give a vmlinux or vmlinuz",
    )


def _zboot(data: Bytes, head: bytes, path: str) -> Bytes:
    """Return the decompressed payload of an EFI zboot image."""
    offset, size, kind = _ZBOOT.unpack_from(head)
    name = kind.split(b"\0", 1)[0].decode("ascii", "replace")
    form = next((one for one in FORMATS if one.name == {"zstd22": "zstd", "xzkern": "xz"}.get(name, name)), None)
    if form is None:
        raise Unsupported(
            f"is an EFI zboot image with {name!r} compression", path=path, advice="give the vmlinux itself"
        )
    if offset + size > len(data):
        raise MalformedKernel("is truncated: the EFI zboot payload ends past the file", path=path, offset=offset)
    return _payload(form, data, offset, offset + size, path)


def _kernel_section(data: Bytes, path: str) -> Bytes:
    """Return the kernel in a unified kernel image: its ``.linux`` section (UAPI group specification UKI)."""
    program = read_program(lambda offset, size: data[offset : offset + size])
    if program is None:
        raise MalformedKernel(
            "begins like a DOS program and is not a kernel", path=path, advice="give a vmlinux or vmlinuz"
        )
    if program.machine != _PE_X86_64:
        what = _PE_MACHINES.get(program.machine, f"machine {program.machine:#x}")
        raise Unsupported(f"is an EFI program for {what}", path=path, advice="give an x86-64 kernel")
    found = program.sections.get(".linux")
    if found is not None:
        end = found.offset + found.size
        if end > len(data) or not found.size:
            raise MalformedKernel("is truncated: its .linux section ends past the file", path=path, offset=found.offset)
        return spool(slices(data, found.offset, end), path, MalformedKernel)
    if program.cut:
        raise MalformedKernel("its PE section headers lie past the end of the file", path=path, offset=program.table)
    raise Unsupported(
        "is an EFI program without a kernel in it (no .linux section)", path=path, advice="give the vmlinuz"
    )
