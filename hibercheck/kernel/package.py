"""Kernels inside packages and archives: .deb, .rpm, and tar archives such as Arch Linux's packages.

They are read as streams, from front to back and only to the kernel: a -dbg package unpacks to gigabytes.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
from collections.abc import Iterator
from functools import partial

from hibercheck.errors import MalformedKernel, Unsupported
from hibercheck.kernel.binary import Bytes
from hibercheck.kernel.compression import CHUNK, decompressed, slices, spool
from hibercheck.kernel.compression import recognise as recognise_compression

_KERNEL = re.compile(r"(?:^|/)(?:vmlinu[xz](?:[-.][^/]*)?|bzImage|kernel-[0-9][^/]*)$")
_NO_KERNEL = re.compile(r"\.(?:ko(?:\.[a-z]+)?|hmac|py|o|a|h|c|map|symvers|rpm|deb)$")
_SMALLEST_KERNEL = 1 << 16
_MAX_MEMBERS = 1 << 20
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
    """What kind of package or archive a file beginning with ``head`` is, or None."""
    if head.startswith(_AR_MAGIC):
        return "Debian package"
    if head.startswith(_RPM_MAGIC):
        return "RPM package"
    return "tar archive" if head[257:262] == b"ustar" else None


def kernel_in(data: Bytes, head: bytes, path: str) -> Bytes:
    """The first kernel in a package or archive: a vmlinux or vmlinuz, whatever it is wrapped in.

    Raises:
        MalformedKernel: The package is damaged.
        Unsupported: There is no kernel in it.
    """
    kind = recognise(head)
    if kind == "Debian package":
        return _from_tar(_Stream(_debian_data(data, path)), path)
    if kind == "RPM package":
        return _from_cpio(_Stream(_rpm_data(data, path)), path)
    return _from_tar(_Stream(slices(data, 0, len(data))), path)


class _Stream(io.RawIOBase):
    """Chunks as a file that can be read forward."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        parts, wanted = [], CHUNK if size is None or size < 0 else size
        while wanted > 0:
            if not self._held:
                self._held = next(self._chunks, b"\0END")
                if self._held == b"\0END":
                    self._held = b""
                    break
            parts.append(self._held[:wanted])
            self._held = self._held[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)

    def pieces(self, size: int, path: str) -> Iterator[bytes]:
        """The next ``size`` bytes in chunks."""
        while size > 0:
            piece = self.read(min(size, CHUNK))
            if not piece:
                raise MalformedKernel(
                    "is truncated: the package ends inside its kernel", path=path, advice="fetch it again"
                )
            size -= len(piece)
            yield piece


def _debian_data(data: Bytes, path: str) -> Iterator[bytes]:
    """The decompressed ``data.tar`` of a Debian package (deb(5))."""
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
            return decompressed(form, chunks, path) if form else chunks
        at = start + size + size % 2
    raise Unsupported("is an archive but not a Debian package (no data.tar)", path=path, advice="give a kernel package")


def _rpm_data(data: Bytes, path: str) -> Iterator[bytes]:
    """The decompressed payload of an RPM package."""
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
    return decompressed(form, slices(data, at, len(data)), path)


def _is_kernel(name: str, size: int) -> bool:
    return size >= _SMALLEST_KERNEL and bool(_KERNEL.search(name)) and not _NO_KERNEL.search(name)


def _from_tar(stream: _Stream, path: str) -> Bytes:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
            for count, member in enumerate(archive):
                # tarfile keeps what it has seen, for random access that a stream does not have.
                archive.members.clear()  # type: ignore[attr-defined]
                if count > _MAX_MEMBERS:
                    raise MalformedKernel(f"has more than {_MAX_MEMBERS} members", path=path)
                file = archive.extractfile(member) if member.isreg() and _is_kernel(member.name, member.size) else None
                if file is not None:
                    return spool(iter(partial(file.read, CHUNK), b""), path)
    except tarfile.TarError as error:
        raise MalformedKernel(f"its tar archive is damaged: {error}", path=path, advice="fetch it again") from error
    raise _without_kernel(path)


def _from_cpio(stream: _Stream, path: str) -> Bytes:
    for _ in range(_MAX_MEMBERS):
        header = stream.read(_CPIO_HEADER)
        if len(header) < _CPIO_HEADER or header[:6] not in {b"070701", b"070702"}:
            what = "a layout for files over 4 GiB" if header[:6] == b"07070X" else "not cpio"
            raise MalformedKernel(f"its RPM payload is damaged: {what}", path=path)
        try:
            fields = [int(header[at : at + 8], 16) for at in range(6, _CPIO_HEADER, 8)]
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
            return spool(stream.pieces(size, path), path)
        for _piece in stream.pieces(size + -size % 4, path):
            pass
    raise MalformedKernel(f"has more than {_MAX_MEMBERS} members", path=path)


def _without_kernel(path: str) -> Unsupported:
    advice = "give the package that has /boot/vmlinuz or vmlinux, such as linux-image, linux-binary or kernel-core"
    return Unsupported("is a package without a kernel in it", path=path, advice=advice)
