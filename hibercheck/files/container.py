"""Files that hold a virtual machine's disk in clusters of their own order, or packed: never the disk byte by byte.

They are recognised before anything is read: clusters that happen to lie in order would make a wrong reading look right.
"""

from __future__ import annotations

import shlex

from hibercheck.errors import Unsupported
from hibercheck.files.disk import Readable

_QEMU = "qemu-img convert -O raw {path} disk.raw"

CONTAINERS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"QFI\xfb", "a qcow2 disk", _QEMU),
    (0, b"QED\0", "a QED disk", _QEMU),
    (0, b"KDMV", "a VMDK disk", _QEMU),
    (0, b"COWD", "a VMDK disk", _QEMU),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk", _QEMU),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk", _QEMU),
    (0, b"conectix", "a VHD disk", _QEMU),
    (0, b"vhdxfile", "a VHDX disk", _QEMU),
    (0, b"WithoutFreeSpace", "a Parallels disk", _QEMU),
    (0, b"WithouFreSpacExt", "a Parallels disk", _QEMU),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase (E01) image", "ewfexport -f raw -t disk {path}"),
    (0, b"partclone-image", "an image of Partclone", "partclone.restore -C -s {path} -O disk.raw"),
    (0, b"\x3a\xff\x26\xed", "an Android sparse image", "simg2img {path} disk.raw"),
)
"""(offset, magic, name, command that makes a plain copy).  A VHD of fixed size is plain: its mark is at its end."""

HEAD = 0x48


def recognise_container(file: Readable) -> Unsupported | None:
    """Name what kind of container a file is, with the command that makes a plain copy; None for anything else."""
    head = file.read(0, HEAD)
    for offset, magic, what, command in CONTAINERS:
        if head[offset : offset + len(magic)] == magic:
            advice = f"make a plain copy: {command.format(path=shlex.quote(file.path))}"
            return Unsupported(f"is {what}, not a plain copy of one", path=file.path, advice=advice)
    return None
