"""Superblocks before and after the kernel mounts the file system, where loop devices are to be had."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from hibercheck.files.filesystems import superblock_at
from tests.files.test_disk import File

MAKERS = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}


def made(path, kind):
    """Make a file system, or skip."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"no mkfs.{kind} here")
    with path.open("wb") as stream:
        stream.truncate(320 << 20)
    subprocess.run([f"mkfs.{kind}", *MAKERS[kind], path], check=True, capture_output=True)
    return path


def mounted(path, directory):
    """Mount it, write a file into it, and unmount it; or skip."""
    directory.mkdir(exist_ok=True)
    loop = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if loop.returncode:
        pytest.skip(f"no loop device here: {loop.stderr}")
    device = loop.stdout.strip()
    try:
        run = subprocess.run(["mount", device, directory], capture_output=True, text=True, check=False)
        if run.returncode:
            pytest.skip(f"cannot mount here: {run.stderr}")
        (directory / "file").write_text("x")
        subprocess.run(["umount", directory], check=True)
        subprocess.run(["blockdev", "--flushbufs", device], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def read(path):
    with path.open("rb") as stream:
        return superblock_at(File(stream.read(1 << 20)), 0)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_mount_shows(tmp_path, kind):
    path = made(tmp_path / "fs", kind)
    before = read(path)
    assert before.kind.lower() == kind
    assert before.mounted is None
    start = int(time.time())
    mounted(path, tmp_path / "mnt")
    after = read(path)
    assert (after.kind, after.identity) == (before.kind, before.identity)
    if kind == "ext4":
        assert start - 1 <= after.mounted <= after.written <= time.time()  # the coarse clock lags behind
        place = str(tmp_path / "mnt")
        assert after.mounted_on == (place if len(place) < 64 else None)  # s_last_mounted has 64 bytes
    else:
        assert after.count > before.count


def test_times_beyond_2038():
    block = bytearray(2048)
    block[1024 + 56 : 1024 + 58] = b"\x53\xef"
    block[1024 + 44 : 1024 + 52] = bytes([5, 0, 0, 0, 6, 0, 0, 0])
    block[1024 + 0x274 : 1024 + 0x276] = bytes([1, 2])
    found = superblock_at(File(bytes(block)), 0)
    assert (found.mounted, found.written) == ((2 << 32) + 5, (1 << 32) + 6)


def test_nothing_and_a_cut_superblock():
    assert superblock_at(File(bytes(1 << 17)), 0) is None
    assert superblock_at(File(b"XFSB"), 0) is None
    assert superblock_at(File(b"XFSB".ljust(300, b"\0")), 0).count is None  # version 4 has no sequence number
