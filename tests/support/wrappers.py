"""Wrap a kernel the way distributions do: compression, bzImage, UKI, EFI zboot, packages."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import lz4.frame
import lzallright

try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from backports import zstd


def lz4_legacy(data: bytes) -> bytes:
    """As ``lz4 -l`` writes it: 8 MiB blocks."""
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


def lzop(data: bytes) -> bytes:
    """As ``lzop -9`` writes it: 256 KiB blocks with the plain data's Adler-32."""
    out = b"\x89LZO\x00\r\n\x1a\n" + struct.pack(">HHHBBIIIIB", 0x1030, 0x20A0, 0x940, 3, 9, 1, 0, 0, 0, 0) + bytes(4)
    for at in range(0, len(data), 256 << 10):
        plain = data[at : at + (256 << 10)]
        packed = bytes(lzallright.LZOCompressor().compress(plain))
        packed = packed if len(packed) < len(plain) else plain
        out += struct.pack(">III", len(plain), len(packed), 0) + packed
    return out + bytes(4)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, preset=0),
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "lz4": lz4_legacy,
    "lz4 frame": lz4.frame.compress,
    "lzo": lzop,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
}


def bzimage(payload: bytes, *, size: int | None = 0, version: int = 0x20F, flags: int = 1) -> bytes:
    """A bzImage around a compressed payload; ``size`` is appended to it as the kernel's build does, unless None."""
    payload += struct.pack("<I", size) if size is not None else b""
    head = bytearray(512 * 5)
    head[:2] = b"MZ"
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<I", head, 0x230, 0x200000)
    struct.pack_into("<H", head, 0x236, flags)
    stub = b"\xcc" * 777
    if version >= 0x208:
        struct.pack_into("<II", head, 0x248, len(stub), len(payload))
    return bytes(head) + stub + payload + b"\xcc" * 300


def summed(image: bytes, *, signed: bool = False) -> bytes:
    """A bzImage as the build of v2.6.30 to v6.14 ends it, with a CRC-32; or that, and then signed as sbsign(1) does."""
    pe = 0x400
    head = bytearray(image)
    struct.pack_into("<I", head, 0x3C, pe)
    head[pe : pe + 26] = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, 240, 0x22) + b"\x0b\x02"
    head += bytes(-(len(head) + 4 - 2560) % 16)
    struct.pack_into("<I", head, 0x1F4, (len(head) + 4 - 2560) // 16)
    head += struct.pack("<I", zlib.crc32(head) ^ 0xFFFFFFFF)
    if signed:
        struct.pack_into("<I", head, pe + 24 + 64, 0x1234567)
        struct.pack_into("<II", head, pe + 24 + 144, len(head), 64)
        head += b"\xcc" * 64
    return bytes(head)


def uki(sections: dict[str, bytes], *, machine: int = 0x8664, more: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """A PE file with these sections, as a unified kernel image is; ``more`` may have the names of others again."""
    rows = [*sections.items(), *more]
    head = bytearray(b"MZ" + bytes(0x3A) + struct.pack("<I", 0x80))
    head += bytes(0x80 - len(head))
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(rows), 0, 0, 0, 240, 0x22) + bytes(240)
    at = len(head) + 40 * len(rows)
    at += -at % 512
    table, body = b"", b""
    for name, data in rows:
        stored = data + bytes(-len(data) % 512)
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0x1000 + at, len(stored), at + len(body))
        body += stored
    return (bytes(head) + table).ljust(at, b"\0") + body


def zboot(payload: bytes, kind: str) -> bytes:
    """An EFI zboot image."""
    head = b"MZ\0\0zimg" + struct.pack("<II8x32s", 0x400, len(payload), kind.encode())
    return head.ljust(0x400, b"\0") + payload


def tar(files: dict[str, bytes]) -> bytes:
    """A tar archive; a file whose name ends in ``@`` is a symbolic link to its contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.removesuffix("@"))
            member.size = 0 if name.endswith("@") else len(data)
            if name.endswith("@"):
                member.type, member.linkname = tarfile.SYMTYPE, data.decode()
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def deb(files: dict[str, bytes], form: str | None = "xz") -> bytes:
    """A Debian package."""
    data = tar({f"./{name}": content for name, content in files.items()})
    suffix = f".{form}" if form else ""
    members: list[tuple[str, bytes]] = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", COMPRESS["xz"](tar({"./control": b"Package: linux-image-made\n"}))),
        (f"data.tar{suffix}", COMPRESS[form](data) if form else data),
    ]
    out = b"!<arch>\n"
    for name, content in members:
        out += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    return out


def cpio(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the newc format."""
    out = b""
    for name, data in [*files.items(), ("TRAILER!!!", b"")]:
        fields: list[Any] = [1, 0o100644 if data else 0, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out


def rpm(files: dict[str, bytes], form: str | None = "zstd") -> bytes:
    """An RPM package: a lead, a signature header padded to 8 bytes, a header, a cpio archive, compressed or not."""
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 5) + bytes(16) + b"12345"
    out = b"\xed\xab\xee\xdb".ljust(96, b"\0") + header
    payload = cpio({f"./{k}": v for k, v in files.items()})
    return out + bytes(-len(header) % 8) + header + (COMPRESS[form](payload) if form else payload)
