"""Block devices to point outputs at: loop devices where root allows, made nodes where not, and all their names."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

UNUSED = os.makedev(240, 77)  # LOCAL/EXPERIMENTAL USE, Documentation/admin-guide/devices.txt


@contextlib.contextmanager
def loop_device(backing: Path) -> Iterator[Path | None]:
    """Make a loop device of a file; None where that is not allowed."""
    made = None
    if shutil.which("losetup") and os.geteuid() == 0:
        command = ["losetup", "--find", "--show", str(backing)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made is None or made.returncode:
        yield None
        return
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


def block_node(directory: Path) -> Path:
    """Return a block device's node, made or found; it need not lead to a device."""
    made = directory / "node"
    with contextlib.suppress(PermissionError):
        os.mknod(made, stat.S_IFBLK | 0o600, UNUSED)
        return made
    for node in sorted(Path("/dev").iterdir()):
        if stat.S_ISBLK(node.lstat().st_mode):
            return node
    pytest.skip("there is no block device here, and none may be made")


def names_of(device: Path, directory: Path) -> dict[str, str]:
    """Return fourteen names under which a block device can be named, by kind."""
    directory.mkdir()
    names = {
        "itself": str(device),
        "dots": f"/dev/../{str(device).lstrip('/')}",
        "slashes": f"/{device.parent}//./{device.name}",
    }
    (directory / "by-uuid").symlink_to(device)
    names["link"] = str(directory / "by-uuid")
    (directory / "chain").symlink_to("by-uuid")
    names["link to a link"] = str(directory / "chain")
    (directory / "mapper").symlink_to(os.path.relpath(device, directory))
    names["relative link"] = str(directory / "mapper")
    (directory / "dev").symlink_to(device.parent)
    names["linked directory"] = str(directory / "dev" / device.name)
    names["relative path"] = os.path.relpath(device)
    names["through /proc/self/root"] = f"/proc/self/root{device}"
    names["through /proc/self/cwd"] = f"/proc/self/cwd/{os.path.relpath(device)}"
    status = device.stat()
    with contextlib.suppress(OSError):
        os.mknod(directory / "second", stat.S_IFBLK | 0o600, status.st_rdev)
        names["second node"] = str(directory / "second")
        os.link(directory / "second", directory / "hard")
        names["hard link to a node"] = str(directory / "hard")
    udev = Path(f"/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    if udev.exists():
        names["by number"] = str(udev)
    with contextlib.suppress(OSError):
        descriptor = os.open(device, os.O_RDWR)
        names["descriptor"] = f"/dev/fd/{descriptor}"
        names["descriptor in /proc"] = f"/proc/self/fd/{descriptor}"
        (directory / "descriptor").symlink_to(f"/proc/self/fd/{descriptor}")
        names["link to a descriptor"] = str(directory / "descriptor")
    return names


def close_descriptors(names: dict[str, str]) -> None:
    """Close what `names_of` opened."""
    if "descriptor" in names:
        os.close(int(Path(names["descriptor"]).name))
