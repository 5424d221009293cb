"""An image that waits on the disk of a mounted system, where loop devices are to be had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from hibercheck.cli.run import run
from hibercheck.handoff.preflight.waiting import waiting_image
from hibercheck.host.devices import disk_of
from tests.handoff.facts.test_used_since import MIB
from tests.handoff.facts.test_used_since import disk_of as disk_with
from tests.support import made_system as made
from tests.support.unpacked import copied, plain_path

WRITTEN = 1_795_375_555
"""When the image of the case "fatal" was written: 2026-11-22 19:25:55 UTC."""
SWAP = "2b3db82f-8f2e-41d7-87df-e48dc8054744"
"""Of that image."""
OTHER = "0a4d2f5e-0000-4f5c-9d1e-3a60c0de0001"
LINE = f"nokaslr resume=UUID={SWAP}"


@pytest.fixture(scope="module")
def written(tmp_path_factory, fixtures_dir):
    """A disk with a system on ext4, made before the image beside it was written."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    place = tmp_path_factory.mktemp("written")
    tree, part = place / "tree", place / "part"
    made.kernel(tree, fixtures_dir / "kernels/small-current.bzImage", "6.1-x")
    made.write(tree, "boot/initrd", made.cpio({"scripts/local-premount/resume": b""}))
    made.grub(tree, [("it", "/boot/vmlinuz-6.1-x", LINE, "/boot/initrd")])
    made.write(tree, "etc/fstab", f"UUID={SWAP} none swap sw 0 0\n")
    with part.open("wb") as file:
        file.truncate(16 * MIB)
    words = ["mkfs.ext4", "-q", "-F", "-d", tree, part]
    subprocess.run(words, check=True, env={**os.environ, "E2FSPROGS_FAKE_TIME": str(WRITTEN - 9000)})
    case = {one["name"]: one for one in json.loads((fixtures_dir / "cases.json").read_text())["cases"]}["fatal"]
    image = Path(plain_path(case["image"])).read_bytes()
    return disk_with(place / "disk", part.read_bytes(), image)


@pytest.fixture
def disk(written, tmp_path):
    """That disk, for one test to mount."""
    return str(copied(written, tmp_path / "disk"))


@contextmanager
def mounted(disk, point, how):
    """Mount the disk's first partition, or skip."""
    point.mkdir(exist_ok=True)
    options = f"loop,{how},offset={MIB},sizelimit={16 * MIB}"
    ran = subprocess.run(["mount", "-o", options, disk, point], capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"cannot mount here: {ran.stderr}")
    try:
        subprocess.run(["sync", "-f", point], check=True)
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def asked(root, capsys, *more):
    status = run(["preflight", "--root", str(root), "--no-cache", "--memory", "128M", "--cpus", "2", *more])
    return status, capsys.readouterr().out


def test_a_system_that_was_used_since(disk, tmp_path, capsys):
    with mounted(disk, tmp_path / "at", "ro,noload") as root:
        assert disk_of(root) == disk
        found = waiting_image(root, frozenset())
        assert (found.disk, found.partition, found.written, found.used_since) == (disk, 2, WRITTEN, ())
        status, out = asked(root, capsys, "--format", "json", "--strict")
        assert json.loads(out)["waiting"]["written"] == "2026-11-22T19:25:55Z"
        assert (status, json.loads(out)["entries"][0]["verdict"]) == (0, "safe")
    with mounted(disk, tmp_path / "at", "rw") as root:
        (used,) = waiting_image(root, frozenset()).used_since
        assert (used.place, used.superblock.kind) == ("partition 1", "ext4")
        assert asked(root, capsys)[0] == 0
        status, out = asked(root, capsys, "--strict")
        assert status == 1
        assert "An image waits on" in out
        assert "do not resume it, it would corrupt that file system (hibercheck explain HC405)" in out


def test_of_which_swap_it_is_is_asked(disk, tmp_path):
    with mounted(disk, tmp_path / "at", "ro,noload") as root:
        assert waiting_image(root, frozenset({OTHER})) is None


def test_a_directory_is_no_disk(tmp_path):
    assert waiting_image(tmp_path, frozenset()) is None


def test_an_image_in_a_swap_file(tmp_path, fixtures_dir):
    """The swap file is on the partition itself, at the page that is given."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    part = tmp_path / "part"
    with part.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", OTHER, part], check=True)
    case = {one["name"]: one for one in json.loads((fixtures_dir / "cases.json").read_text())["cases"]}["fatal"]
    content = Path(plain_path(case["image"])).read_bytes()
    whole = disk_with(tmp_path / "disk", part.read_bytes(), content)
    with mounted(whole, tmp_path / "at", "ro,noload") as root:
        assert waiting_image(root, frozenset(), frozenset({("/dev/sda2", 0)})).release.endswith("mid-current")
        assert waiting_image(root, frozenset({SWAP}), frozenset({(f"UUID={OTHER}", 77)})).partition == 2
