"""Kernels inside packages and archives: .deb, .rpm, and tar archives such as Arch Linux's packages.

They are read as streams, from front to back and only to the kernel: a -dbg package unpacks to gigabytes.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from hibercheck.errors import MalformedKernel, Unsupported
from hibercheck.files.binary import Bytes
from hibercheck.files.compression import CHUNK, decompressed, slices, spool
from hibercheck.files.compression import recognise as recognise_compression
from hibercheck.numbers import hexadecimal

_KERNEL = re.compile(r"(?:^|/)(?:vmlinu[xz](?:[-.][^/]*)?|bzImage|kernel-[0-9][^/]*)$")
_NO_KERNEL = re.compile(r"\.(?:ko(?:\.[a-z]+)?|hmac|py|o|a|h|c|map|symvers|rpm|deb)$")
_SMALLEST_KERNEL = 1 << 16
_MAX_MEMBERS = 1 << 18
_MAX_NAME = 1 << 20
"""The longest name of a member: PATH_MAX is 4096 bytes."""
_TAR_BLOCK = 512
_TAR_FILES, _TAR_NAMES, _TAR_EMPTY = {b"0", b"\0", b"7"}, {b"L", b"K", b"x", b"g"}, {b"1", b"2", b"3", b"4", b"5", b"6"}
UNQUESTIONED, MAX_RATIO = 4 << 30, 100
"""Plain bytes up to which a package may expand whatever its size, and to a packed byte beyond that."""
_AR_MAGIC = b"!<arch>\n"
_RPM_MAGIC = b"\xed\xab\xee\xdb"
# struct ar_hdr { char ar_name[16], ar_date[12], ar_uid[6], ar_gid[6], ar_mode[8], ar_size[10], ar_fmag[2]; };   <ar.h>
_AR_HEADER = 60
# RPM: a lead of 96 bytes, then two headers: magic 8e ad e8 01, 4 reserved, be32 index entries, be32 bytes of data
_RPM_LEAD = 96
_RPM_HEADER = struct.Struct(">4s4xII")
# cpio "newc": "070701", then 13 fields of 8 hexadecimal digits: ino mode uid gid nlink mtime filesize devmajor devminor
# rdevmajor rdevminor namesize check; name and contents are padded to 4 bytes.
_CPIO_HEADER = 110


def recognise(head: bytes) -> str | None:
    """Return what kind of package or archive a file beginning with ``head`` is, or None."""
    if head.startswith(_AR_MAGIC):
        return "Debian package"
    if head.startswith(_RPM_MAGIC):
        return "RPM package"
    return "tar archive" if head[257:262] == b"ustar" else None


def kernel_in(data: Bytes, head: bytes, path: str) -> Bytes:
    """Return the first kernel in a package or archive: a vmlinux or vmlinuz, whatever it is wrapped in.

    Raises:
        MalformedKernel: The package is damaged.
        Unsupported: There is no kernel in it.
    """
    kind = recognise(head)
    if kind == "Debian package":
        return _from_tar(_Stream(_debian_data(data, path), path, len(data)), path)
    if kind == "RPM package":
        return _from_cpio(_Stream(_rpm_data(data, path), path, len(data)), path)
    return _from_tar(_Stream(slices(data, 0, len(data)), path, len(data)), path)


class _Stream(io.RawIOBase):
    """Chunks as a file that can be read forward.

    Args:
        chunks: The chunks.
        path: The package, for messages.
        packed: How many bytes it has.
    """

    def __init__(self, chunks: Iterator[bytes], path: str, packed: int) -> None:
        self._chunks = chunks
        self._held = memoryview(b"")
        self._path = path
        self._left = max(UNQUESTIONED, MAX_RATIO * packed)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        parts, wanted = [], CHUNK if size is None or size < 0 else size
        while wanted > 0:
            if not self._held:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._left -= len(chunk)
                if self._left < 0:
                    raise MalformedKernel(f"expands more than {MAX_RATIO}-fold without a kernel", path=self._path)
                self._held = memoryview(chunk)
            parts.append(self._held[:wanted])
            self._held = self._held[wanted:]
            wanted -= len(parts[-1])
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def pieces(self, size: int, path: str) -> Iterator[bytes]:
        """Yield the next ``size`` bytes in chunks."""
        while size > 0:
            piece = self.read(min(size, CHUNK))
            if not piece:
                raise MalformedKernel(
                    "is truncated: the package ends inside its kernel", path=path, advice="fetch it again"
                )
            size -= len(piece)
            yield piece


def _debian_data(data: Bytes, path: str) -> Iterator[bytes]:
    """Yield the decompressed ``data.tar`` of a Debian package (deb(5))."""
    at = len(_AR_MAGIC)
    while at + _AR_HEADER <= len(data):
        header = data[at : at + _AR_HEADER]
        name, field = header[:16].rstrip(b" /"), header[48:58].strip()
        if header[58:60] != b"`\n" or not field.isdigit():
            raise MalformedKernel("is a damaged archive: a member without a header", path=path, offset=at)
        start, size = at + _AR_HEADER, int(field)
        if start + size > len(data):
            advice = "fetch it again"
            raise MalformedKernel(
                "is truncated: an archive member ends past the file", path=path, offset=at, advice=advice
            )
        if name.startswith(b"data.tar"):
            form = recognise_compression(data[start : start + 16])
            chunks = slices(data, start, start + size)
            return decompressed(form, chunks, path, MalformedKernel) if form else chunks
        at = start + size + size % 2
    raise Unsupported("is an archive but not a Debian package (no data.tar)", path=path, advice="give a kernel package")


def _rpm_data(data: Bytes, path: str) -> Iterator[bytes]:
    """Yield the decompressed payload of an RPM package."""
    at = _RPM_LEAD
    for last in (False, True):
        header = data[at : at + _RPM_HEADER.size]
        if len(header) < _RPM_HEADER.size or header[:4] != b"\x8e\xad\xe8\x01":
            raise MalformedKernel("is a damaged RPM package: a header is missing", path=path, offset=at)
        _, entries, size = _RPM_HEADER.unpack(header)
        at += _RPM_HEADER.size + 16 * entries + size
        # The first header, the signature's, is padded to 8 bytes.
        at += 0 if last else -at % 8
    magic = data[at : at + 16]
    if magic[:5] == b"07070":  # cpio as it is: %_binary_payload w.ufdio
        return slices(data, at, len(data))
    form = recognise_compression(magic)
    if form is None:
        raise MalformedKernel("is a damaged RPM package: it has no payload", path=path, offset=at)
    return decompressed(form, slices(data, at, len(data)), path, MalformedKernel)


def _is_kernel(name: str, size: int) -> bool:
    return size >= _SMALLEST_KERNEL and bool(_KERNEL.search(name)) and not _NO_KERNEL.search(name)


def _from_tar(stream: _Stream, path: str) -> Bytes:
    """Read members until one is a kernel.

    `tarfile` is not used: a name it reads whole, of whatever length, and a member takes it 70 microseconds.
    """
    long_name, long_size = "", None
    for _ in range(_MAX_MEMBERS):
        header = stream.read(_TAR_BLOCK)
        if not header.strip(b"\0"):
            raise _without_kernel(path)
        try:
            size = _tar_size(header)
        except ValueError as error:
            raise MalformedKernel(f"its tar archive is damaged: {error}", path=path, advice="fetch it again") from error
        kind = header[156:157]
        if kind in _TAR_NAMES:
            if size > _MAX_NAME:
                raise MalformedKernel(f"its tar archive is damaged: a name of {size} bytes", path=path)
            content = b"".join(stream.pieces(size + -size % _TAR_BLOCK, path))[:size]
            if kind == b"L":
                long_name = content.rstrip(b"\0").decode("utf-8", "replace")
            elif kind == b"x":
                long_name, long_size = _pax(content, long_name)
            continue
        name, size = long_name or _tar_name(header), size if long_size is None else long_size
        long_name, long_size = "", None
        if kind in _TAR_FILES and _is_kernel(name, size):
            return spool(stream.pieces(size, path), path, MalformedKernel)
        if kind == b"S" and header[482]:  # struct oldgnu_header: isextended
            while stream.read(_TAR_BLOCK)[504:505] == b"\1":
                pass
        if kind not in _TAR_EMPTY:
            for _piece in stream.pieces(size + -size % _TAR_BLOCK, path):
                pass
    raise MalformedKernel(f"has more than {_MAX_MEMBERS} members", path=path)


def _tar_size(header: bytes) -> int:
    """Return a member's size, after a look at the header's checksum (struct posix_header, <tar.h>)."""
    if len(header) < _TAR_BLOCK:
        raise ValueError("it ends in a header")
    sums = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    if _tar_number(header[148:156]) != sums:
        raise ValueError("a header's checksum is wrong")
    return _tar_number(header[124:136])


def _tar_number(field: bytes) -> int:
    """Return a number in octal digits, or in GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ValueError("a number in a header is not valid")
    return int(digits or b"0", 8)


def _tar_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _pax(content: bytes, name: str) -> tuple[str, int | None]:
    """Return what records of the next member say: ``LENGTH path=NAME`` and ``LENGTH size=BYTES`` (pax(1))."""
    size = None
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or not 0 < int(length[:7]) <= len(content):
            break
        record, content = content[len(length) + 1 : int(length[:7])], content[int(length[:7]) :]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "replace")
        elif key == b"size" and value.isdigit():
            size = int(value[:20])
    return name, size


def _from_cpio(stream: _Stream, path: str) -> Bytes:
    for _ in range(_MAX_MEMBERS):
        header = stream.read(_CPIO_HEADER)
        if len(header) < _CPIO_HEADER or header[:6] not in {b"070701", b"070702"}:
            what = "a layout for files over 4 GiB" if header[:6] == b"07070X" else "not cpio"
            raise MalformedKernel(f"its RPM payload is damaged: {what}", path=path)
        try:
            fields = [hexadecimal(header[at : at + 8].decode("latin-1")) for at in range(6, _CPIO_HEADER, 8)]
        except ValueError as error:
            raise MalformedKernel("its RPM payload is damaged: a cpio header is not hexadecimal", path=path) from error
        mode, size, name_size = fields[1], fields[6], fields[11]
        if name_size > CHUNK:
            raise MalformedKernel("its RPM payload is damaged: a name of over a mebibyte", path=path)
        name = (
            stream.read(name_size + -(_CPIO_HEADER + name_size) % 4)[:name_size]
            .rstrip(b"\0")
            .decode("utf-8", "replace")
        )
        if name == "TRAILER!!!":
            raise _without_kernel(path)
        if mode >> 12 == 8 and _is_kernel(name, size):
            return spool(stream.pieces(size, path), path, MalformedKernel)
        for _piece in stream.pieces(size + -size % 4, path):
            pass
    raise MalformedKernel(f"has more than {_MAX_MEMBERS} members", path=path)


def _without_kernel(path: str) -> Unsupported:
    advice = "give the package that has /boot/vmlinuz or vmlinux, such as linux-image, linux-binary or kernel-core"
    return Unsupported("is a package without a kernel in it", path=path, advice=advice)
