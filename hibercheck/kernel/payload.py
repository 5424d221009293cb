"""From what users have to the vmlinux inside: bzImage, UKI, EFI zboot, compressed files, packages, archives.

Each wrapper is recognised by what it contains, never by its name, and taken off until an ELF file is left.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import islice

from hibercheck.errors import HibercheckError, MalformedKernel, Unsupported
from hibercheck.files.binary import Bytes, occurrences
from hibercheck.files.compression import FORMATS, Format, decompressed, recognise, slices, spool

_MAX_WRAPPERS = 8
_ELF = b"\x7fELF"

# struct setup_header, from byte 0x1f1 of a bzImage (Documentation/arch/x86/boot.rst):
#   0x1f1 __u8 setup_sects; 0x202 __u32 header ("HdrS"); 0x206 __u16 version; 0x236 __u16 xloadflags;
#   0x230 __u32 kernel_alignment (since protocol 2.05);
#   0x248 __le32 payload_offset; 0x24c __le32 payload_length  (since protocol 2.08)
_HDRS_AT = 0x202
_SETUP_SECTORS_AT = 0x1F1
_ALIGNMENT_AT = 0x230
_LOAD_FLAGS_AT = 0x236
_PAYLOAD_AT = 0x248
_XLF_KERNEL_64 = 1
_HEAD = 0x1000

# drivers/firmware/efi/libstub/zboot-header.S: .long MZ_MAGIC; .ascii "zimg"; .long payload offset, payload size;
#   .long 0, 0; .asciz compression type, up to 0x38
_ZBOOT = struct.Struct("<8xII8x32s")

# COFF file header after "PE\0\0": u16 machine, sections; u32 time, symbols, count; u16 size_of_optional_header, flags
_COFF = struct.Struct("<HHIIIHH")
# IMAGE_SECTION_HEADER: char name[8]; u32 virtual_size, virtual_address, raw_size, raw_offset; ...
_PE_SECTION = struct.Struct("<8sIIII16x")
_PE_MACHINES = {0x14C: "32-bit x86", 0xAA64: "arm64", 0x5064: "RISC-V", 0x6264: "LoongArch"}
_PE_X86_64 = 0x8664


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
        alignment = _alignment(data[:_HEAD]) or alignment
        name, data = _take_off(data, path)
        wrappers.append(name)
    return Unwrapped(data, tuple(wrappers), alignment)


def _alignment(head: bytes) -> int | None:
    """``kernel_alignment`` of a bzImage's setup header, or None where there is none that makes sense."""
    if head[_HDRS_AT : _HDRS_AT + 4] != b"HdrS" or int.from_bytes(head[0x206:0x208], "little") < 0x205:
        return None
    value = int.from_bytes(head[_ALIGNMENT_AT : _ALIGNMENT_AT + 4], "little")
    return value if value and not value & value - 1 else None


def _take_off(data: Bytes, path: str) -> tuple[str, Bytes]:
    """Name of the outermost wrapper and what is inside it."""
    head = data[:_HEAD].ljust(_HEAD, b"\0")
    if head[_HDRS_AT : _HDRS_AT + 4] == b"HdrS":
        return "bzImage", _bzimage(data, head, path)
    if head[:8] == b"MZ\0\0zimg":
        return "EFI zboot", _zboot(data, head, path)
    if head[0x38:0x3C] == b"ARM\x64" or head[0x30:0x38] == b"RISCV\0\0\0":  # with an EFI stub they are MZ as well
        raise _stranger(head, path)
    if head[:2] == b"MZ":
        return "UKI", _pe_section(data, head, path)
    form = recognise(head)
    if form is not None:
        return form.name, _payload(form, data, 0, len(data), path)
    from hibercheck.kernel import package  # noqa: PLC0415 - only who gives a package needs tarfile

    name = package.recognise(head)
    if name is not None:
        return name, package.kernel_in(data, head, path)
    raise _stranger(head, path)


def _stranger(head: bytes, path: str) -> HibercheckError:
    """Return the error for a file that is no kernel, naming what it is where that shows."""
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
    advice = "give a vmlinux, a vmlinuz, a kernel package, an unpacked tree or an installed kernel's release"
    return MalformedKernel("is not a kernel: neither ELF, bzImage, UKI nor a package", path=path, advice=advice)


def _payload(form: Format, data: Bytes, start: int, end: int, path: str) -> Bytes:
    return spool(decompressed(form, slices(data, start, end), path, MalformedKernel), path, MalformedKernel)


def _bzimage(data: Bytes, head: bytes, path: str) -> Bytes:
    """Return the decompressed payload of a bzImage."""
    version, flags = head[0x206] | head[0x207] << 8, head[_LOAD_FLAGS_AT]
    if version >= 0x20C and not flags & _XLF_KERNEL_64:
        raise Unsupported("is a 32-bit x86 kernel", path=path, advice="give an x86-64 kernel")
    setup = 512 * ((head[_SETUP_SECTORS_AT] or 4) + 1)
    offset, length = struct.unpack_from("<II", head, _PAYLOAD_AT) if version >= 0x208 else (0, 0)
    start, end = setup + offset, setup + offset + length
    if length and end > len(data):
        advice = "fetch it again"
        raise MalformedKernel(
            "is truncated: the bzImage's payload ends past the file", path=path, offset=start, advice=advice
        )
    form = next((one for one in FORMATS if data[start : start + 16].startswith(one.magic)), None) if length else None
    if form is not None:
        return _payload(form, data, start, end, path)
    return _search(data, setup, path)


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
    raise MalformedKernel("is a bzImage without a payload that could be found", path=path)


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


def _pe_section(data: Bytes, head: bytes, path: str) -> Bytes:
    """Return the kernel in a unified kernel image: its ``.linux`` section (UAPI group specification UKI)."""
    (at,) = struct.unpack_from("<I", head, 0x3C)
    coff = data[at : at + 4 + _COFF.size]
    if len(coff) < 4 + _COFF.size or coff[:4] != b"PE\0\0":
        raise MalformedKernel(
            "begins like a DOS program and is no kernel", path=path, advice="give a vmlinux or vmlinuz"
        )
    machine, count, *_, optional, _ = _COFF.unpack_from(coff, 4)
    if machine != _PE_X86_64:
        what = _PE_MACHINES.get(machine, f"machine {machine:#x}")
        raise Unsupported(f"is an EFI program for {what}", path=path, advice="give an x86-64 kernel")
    table = at + 4 + _COFF.size + optional
    for row in range(count):
        header = data[table + row * _PE_SECTION.size : table + (row + 1) * _PE_SECTION.size]
        if len(header) < _PE_SECTION.size:
            raise MalformedKernel("its PE section headers lie past the end of the file", path=path, offset=table)
        name, size, _, stored, offset = _PE_SECTION.unpack(header)
        if name.rstrip(b"\0") == b".linux":
            size = min(size or stored, stored)
            if offset + size > len(data) or not size:
                raise MalformedKernel("is truncated: its .linux section ends past the file", path=path, offset=offset)
            return spool(slices(data, offset, offset + size), path, MalformedKernel)
    raise Unsupported(
        "is an EFI program without a kernel in it (no .linux section)", path=path, advice="give the vmlinuz"
    )
