"""The guest: a static busybox and an init that takes its orders from the serial line."""

from __future__ import annotations

import gzip
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from tests.lab.errors import LabError

INIT = """#!/bin/sh
# Mounts what is needed, then runs one shell line after the other from the serial console.
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
dmesg -n 1
while [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done
echo "LAB ready"
while read -r line; do
    eval "$line"
    echo "LAB done $?"
done
"""
"""What the guest runs.  ``LAB`` marks the lines that the harness reads."""


def newc(entries: list[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """Write a cpio archive as the kernel takes it (Documentation/driver-api/early-userspace/buffer-format.rst).

    Args:
        entries: Name, mode, content, and the device number (major, minor) of a node.
    """
    out = bytearray()
    for number, (name, mode, data, (major, minor)) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(encoded), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def plain(name: str, content: bytes) -> tuple[str, int, bytes, tuple[int, int]]:
    """An entry for a file that is only read."""
    return name, stat.S_IFREG | 0o644, content, (0, 0)


def static_busybox(given: Path | None = None) -> Path:
    """The busybox that the guest gets: the one given, or the machine's.

    Raises:
        LabError: There is none.
    """
    found = given or (Path(name) if (name := shutil.which("busybox")) else None)
    if found is None or not found.exists():
        raise LabError("no busybox here (Debian: busybox-static)")
    return found


def build(
    path: Path,
    busybox: Path | None = None,
    disk: str = "nvme0n1",
    modules: Sequence[Path] = (),
    more: Sequence[tuple[str, int, bytes, tuple[int, int]]] = (),
) -> Path:
    """Write the initramfs, the same bytes every time.

    Args:
        path: The file.
        busybox: A static one, instead of the machine's.
        disk: The block device to wait for.
        modules: Kernel modules that make it appear, in the order in which they are loaded.
        more: Further entries, as `newc` takes them.

    Raises:
        LabError: There is no static busybox.
    """
    found = static_busybox(busybox)
    insert = "".join(f"insmod /modules/{module.name}\n" for module in modules)
    init = INIT.replace("while [", f"{insert}while [", 1).replace("nvme0n1", disk)
    extra = [("modules", stat.S_IFDIR | 0o755, b"", (0, 0))] if modules else []
    extra += [(f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes(), (0, 0)) for module in modules]
    parents = {parent.as_posix() for name, *_ in more for parent in Path(name).parents} - {".", "bin"}
    known = {name for name, *_ in more}
    extra += [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in sorted(parents - known)]
    archive = newc(
        [
            ("bin", stat.S_IFDIR | 0o755, b"", (0, 0)),
            ("dev", stat.S_IFDIR | 0o755, b"", (0, 0)),
            ("bin/busybox", stat.S_IFREG | 0o755, found.read_bytes(), (0, 0)),
            ("bin/sh", stat.S_IFLNK | 0o777, b"busybox", (0, 0)),
            ("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)),
            *extra,
            *more,
            ("init", stat.S_IFREG | 0o755, init.encode(), (0, 0)),
        ]
    )
    path.write_bytes(gzip.compress(archive, 6, mtime=0))
    return path
