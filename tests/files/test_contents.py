"""What lies on a disk is named: as the tools that make it do, and where those are not there, by its magic."""

from __future__ import annotations

import shutil
import subprocess
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.files.binary import uuid_text
from hibercheck.files.contents import contents_at
from tests.files.test_disk import File

UUID = "12345678-9abc-def0-1234-56789abcdef0"

MADE = {
    "an ext4 file system": ["mkfs.ext4", "-q", "-F", "-U", UUID, "-L", "root", "FILE"],
    "an ext2 file system": ["mkfs.ext2", "-q", "-F", "-U", UUID, "-L", "root", "FILE"],
    "an ext3 file system": ["mkfs.ext3", "-q", "-F", "-U", UUID, "-L", "root", "FILE"],
    "an XFS file system": ["mkfs.xfs", "-q", "-f", "-m", f"uuid={UUID}", "-L", "root", "FILE"],
    "a btrfs file system": ["mkfs.btrfs", "-q", "-f", "-U", UUID, "-L", "root", "FILE"],
    "swap space": ["mkswap", "-q", "-U", UUID, "-L", "root", "FILE"],
    "an encrypted (LUKS) device": [
        *("cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
        *("--uuid", UUID, "--label", "root", "FILE", "KEY"),
    ],
    "a FAT file system": ["mkfs.vfat", "-F", "32", "FILE"],
}


@pytest.mark.parametrize("kind", MADE)
def test_what_the_tools_make(tmp_path, kind):
    command = MADE[kind]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    path, key = tmp_path / "part", tmp_path / "key"
    with path.open("wb") as stream:
        stream.truncate(320 << 20)
    key.write_text("secret")
    run = subprocess.run(
        [{"FILE": path, "KEY": key}.get(word, word) for word in command], capture_output=True, text=True, check=False
    )
    if run.returncode:
        pytest.skip(f"{command[0]} fails: {run.stderr}")
    with path.open("rb") as stream:
        found = contents_at(File(stream.read(1 << 20)), 0)
    assert found.kind == kind
    if "FAT" not in kind:
        assert (found.uuid, found.label) == (UUID, "root")
    assert ("cryptsetup open" in found.advice) == ("LUKS" in kind)


@pytest.mark.parametrize(
    ("at", "magic", "kind", "advice"),
    [
        (536, b"LVM2 001", "a physical volume of LVM", "vgchange -ay"),
        (3, b"-FVE-FS-", "a BitLocker volume", ""),
        (4096, b"\xfc\x4e\x2b\xa9", "a member of an MD RAID", "mdadm"),
        (3, b"NTFS    ", "an NTFS file system", ""),
    ],
)
def test_what_is_known_by_its_magic(at, magic, kind, advice):
    data = bytearray(1 << 16)
    data[1000 + at : 1000 + at + len(magic)] = magic
    found = contents_at(File(bytes(data)), 1000)
    assert found.kind == kind
    assert advice in found.advice


def test_nothing_known():
    assert contents_at(File(bytes(1 << 17)), 0) is None
    assert contents_at(File(b""), 5) is None


@given(identity=st.binary(min_size=16, max_size=16))
def test_a_uuid_is_written_as_the_standard_library_writes_it(identity):
    assert uuid_text(identity) == str(uuid.UUID(bytes=identity))
