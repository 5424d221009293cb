"""Where swap files begin on their devices, on real file systems in a loop device; the device's own bytes tell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hibercheck.host.extents import swap_file_offset

SIZE = 320 << 20


@pytest.fixture
def mounted(tmp_path):
    """Return a function that makes a file system and mounts it: its place, and the file that stands for its device."""
    place, device = tmp_path / "mnt", tmp_path / "device"

    def make(*command):
        if os.geteuid() != 0 or shutil.which(command[0]) is None:
            pytest.skip(f"it takes root and {command[0]}")
        with device.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([*command, device], check=True, capture_output=True)
        place.mkdir()
        ran = subprocess.run(["mount", "-o", "loop", device, place], capture_output=True, text=True, check=False)
        if ran.returncode:
            pytest.skip(f"nothing can be mounted here: {ran.stderr.strip()}")
        return place, device

    yield make
    if place.exists():
        subprocess.run(["umount", place], capture_output=True, check=False)


def filled(place):
    """Write a swap file behind another file, as mkswap(8) wants it on btrfs: without copy on write."""
    (place / "before").write_bytes(os.urandom(3 << 20))
    file = place / "swapfile"
    file.touch()
    subprocess.run(["chattr", "+C", file], capture_output=True, check=False)
    content = os.urandom(8 << 20)
    file.write_bytes(content)
    subprocess.run(["sync"], check=True)
    return file, content


@pytest.mark.parametrize(
    "command", [("mkfs.ext4", "-q"), ("mkfs.xfs", "-q"), ("mkfs.btrfs", "-q")], ids=lambda one: one[0]
)
def test_the_device_has_the_file_there(mounted, command):
    place, device = mounted(*command)
    file, content = filled(place)
    found = swap_file_offset(file, Path("/"))
    with device.open("rb") as raw:
        raw.seek(found)
        assert raw.read(4096) == content[:4096]


def test_btrfs_itself_says_the_same(mounted):
    place, _ = mounted("mkfs.btrfs", "-q")
    file, _ = filled(place)
    file.chmod(0o600)
    subprocess.run(["mkswap", file], check=True, capture_output=True)
    ran = subprocess.run(
        ["btrfs", "inspect-internal", "map-swapfile", "-r", file], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        pytest.skip("this btrfs knows no map-swapfile")
    assert swap_file_offset(file, Path("/")) == int(ran.stdout) * 4096


def test_two_copies_are_no_place(mounted):
    place, _ = mounted("mkfs.btrfs", "-q", "-d", "dup")
    file, _ = filled(place)
    assert swap_file_offset(file, Path("/")) is None


def test_what_is_nowhere(tmp_path):
    assert swap_file_offset(tmp_path / "none", tmp_path) is None
    (tmp_path / "empty").touch()
    assert swap_file_offset(tmp_path / "empty", tmp_path) is None
    os.mkfifo(tmp_path / "fifo")
    assert swap_file_offset(tmp_path / "fifo", tmp_path) is None
