"""Writers of small dumps in every format, so that each field can be right or wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from lzallright import LZOCompressor

from tests.support.wrappers import zstd

PAGE = 4096


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    name = owner + b"\0"
    pad = lambda data: data + bytes(-len(data) % 4)  # noqa: E731
    return struct.pack("<III", len(name), len(content), kind) + pad(name) + pad(content)


def prstatus(**registers: int) -> bytes:
    order = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base"
    values = [registers.get(name, 0) for name in order.split()] + [0] * 4
    return bytes(112) + struct.pack("<27Q", *values) + bytes(8)


def qemu_state(*, kernel_gs: int | None = 0, version: int = 1, **registers: int) -> bytes:
    order = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"
    body = struct.pack("<18Q", *[registers.get(name, 0) for name in order.split()])
    for name in ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt"):
        selector, limit, base = (registers.get(f"{name}_{part}", 0) for part in ("selector", "limit", "base"))
        body += struct.pack("<IIIIQ", selector, limit, 0, 0, base)
    body += struct.pack("<5Q", *[registers.get(f"cr{number}", 0) for number in range(5)])
    if kernel_gs is not None:
        body += struct.pack("<Q", kernel_gs)
    return struct.pack("<II", version, 8 + len(body)) + body


def elf_core(
    segments: list[tuple[int, bytes]],
    notes: bytes = b"",
    *,
    machine: int = 62,
    kind: int = 4,
    ei_class: int = 2,
    extended: bool = False,
    memsz_extra: int = 0,
) -> bytes:
    count = len(segments) + 1
    header_size = 64 + 64 * extended
    offset = header_size + 56 * count
    programs = struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(notes), len(notes), 0)
    body = notes
    for address, content in segments:
        place = offset + len(body)
        programs += struct.pack("<IIQQQQQQ", 1, 0, place, 0, address, len(content), len(content) + memsz_extra, 0)
        body += content
    ident = b"\x7fELF" + bytes([ei_class, 1, 1]) + bytes(9)
    phnum, shoff = (0xFFFF, 64) if extended else (count, 0)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, 0, header_size, shoff, 0, 64, 56, phnum, 64, int(extended), 0
    )
    if extended:
        header += bytes(44) + struct.pack("<I", count) + bytes(16)
    return header + programs + body


def kdump(
    frames: Mapping[int, bytes],
    notes: bytes = b"",
    vmcoreinfo: bytes = b"",
    *,
    compression: str = "zlib",
    version: int = 6,
    max_pfn: int | None = None,
    split: int = 0,
    block_size: int = PAGE,
) -> bytes:
    top = max(frames) + 1 if max_pfn is None else max_pfn
    half = -(-top // (8 * PAGE))
    bitmap = bytearray(half * PAGE)
    for pfn in frames:
        bitmap[pfn >> 3] |= 1 << (pfn & 7)
    extra = notes + vmcoreinfo
    extra_offset = PAGE + 104
    sub_blocks = 1 + (len(extra) + 104) // PAGE
    header = (
        b"KDUMP   "
        + struct.pack("<i", version)
        + bytes(390 + 6 + 16)
        + struct.pack("<IiiIIIIIII", 0, block_size, sub_blocks, 2 * half, min(top, 0xFFFFFFFF), 0, 0, 0, 0, 1)
    )
    info = extra_offset + len(notes)
    sub = struct.pack(
        "<QiiQQQQQQQQQQQ", 0, 0, split, 0, 0, info, len(vmcoreinfo), extra_offset, len(notes), 0, 0, 0, top, top
    )
    head = header.ljust(PAGE, b"\0") + (sub + extra).ljust(sub_blocks * PAGE, b"\0") + bytes(bitmap) * 2
    place = len(head) + 24 * len(frames)
    descriptors, data = b"", b""
    for pfn in sorted(frames):
        content, flags = compress(frames[pfn], compression)
        descriptors += struct.pack("<QIIQ", place + len(data), len(content), flags, 0)
        data += content
    return head + descriptors + data


def compress(content: bytes, how: str) -> tuple[bytes, int]:
    if how == "zlib":
        return zlib.compress(content), 1
    if how == "lzo":
        return bytes(LZOCompressor().compress(content)), 2
    if how == "zstd":
        return zstd.compress(content), 0x20
    if how == "snappy":
        return content[:100], 4
    return content, 0


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes or text to a file and gives its path."""

    def writer(content, name="dump"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return writer


@pytest.fixture
def writers():
    """The writers above: test modules cannot import a conftest."""
    return SimpleNamespace(note=note, prstatus=prstatus, qemu_state=qemu_state, elf_core=elf_core, kdump=kdump)
