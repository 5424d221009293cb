"""A file system on the image's disk that was used since, and one that was not."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess

import pytest

from hibercheck.handoff.facts.used_since import used_since
from hibercheck.handoff.verdict.check import check
from hibercheck.swsusp.image import open_image
from tests.files.test_filesystems import made, mounted
from tests.support.cases import options_of
from tests.support.image_writer import ImageWriter
from tests.support.unpacked import write_sparse

MIB = 1 << 20
WRITTEN = 1_795_375_555
"""When the image of the case "fatal" was written: 2026-11-22 19:25:55 UTC."""


def disk_of(path, *parts):
    """Write a disk with an MBR and these partitions."""
    table, at = bytearray(512), 1
    table[510:] = b"\x55\xaa"
    with path.open("wb") as stream:
        for slot, content in enumerate(parts):
            size = -(-len(content) // MIB)
            struct.pack_into("<B3xB3xII", table, 446 + 16 * slot, 0, 0x83, at * 2048, size * 2048)
            stream.seek(at * MIB)
            write_sparse(io.BytesIO(content), stream)
            at += size
        stream.truncate(at * MIB)
        stream.seek(0)
        stream.write(table)
    return str(path)


def ext4(mounted=0, written=0):
    block = bytearray(MIB)
    struct.pack_into("<II", block, 1024 + 44, mounted, written)
    block[1024 + 56 : 1024 + 58] = b"\x53\xef"
    block[1024 + 104 : 1024 + 120] = bytes(range(16))
    block[1024 + 136 : 1024 + 141] = b"/home"
    return bytes(block)


@pytest.mark.parametrize(
    ("mounted", "written", "told"),
    [
        (WRITTEN - 5000, WRITTEN, None),
        (WRITTEN - 5000, 0, None),
        (
            WRITTEN + 1,
            WRITTEN + 2,
            "was mounted at 2026-11-22 19:25:56 UTC, after the image was written at 2026-11-22 19:25",
        ),
        (WRITTEN - 5000, WRITTEN + 2, "was written at 2026-11-22 19:25:57 UTC, after"),
    ],
)
def test_by_the_times_of_ext4(tmp_path, mounted, written, told):
    image = ImageWriter(frames={1: None}).encode()
    with open_image(disk_of(tmp_path / "disk", ext4(mounted, written), image)) as opened:
        found = used_since(opened, WRITTEN)
        assert [one.what.startswith(told) for one in found] == ([True] if told else [])
        assert used_since(opened, None) == ()  # not known when


def page_of(content):
    return content[:4096].ljust(4096, b"\0")


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_by_the_counts_of_those_that_keep_no_times(tmp_path, kind):
    """The kernel's own copy of the superblock is in its memory; then another system mounts the file system."""
    path = made(tmp_path / "fs", kind)
    mounted(path, tmp_path / "mnt")
    at = 0 if kind == "xfs" else 0x10000
    then = path.read_bytes()[: 2 * MIB]
    memory = {0x1000: bytes([1]) * 4096, 0x1001: page_of(then[at:]), 0x1002: bytes([2]) * 4096}
    image = ImageWriter(frames=memory, base=0).encode()
    with open_image(disk_of(tmp_path / "disk", then, image)) as opened:
        assert used_since(opened, None) == ()
    mounted(path, tmp_path / "mnt")
    now = path.read_bytes()[: 2 * MIB]
    with open_image(disk_of(tmp_path / "disk", now, image)) as opened:
        (found,) = used_since(opened, None)
        assert found.superblock.kind.lower() == kind
        assert "and in the image's memory" in found.what
    stranger = ImageWriter(frames={0x1000: bytes([1]) * 4096}).encode()
    with open_image(disk_of(tmp_path / "disk", now, stranger)) as opened:
        assert used_since(opened, None) == ()  # not a file system of this kernel


@pytest.fixture(scope="module")
def stale_disk(committed, tmp_path_factory):
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here")
    root = tmp_path_factory.mktemp("stale") / "root"
    with root.open("wb") as stream:
        stream.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", root], check=True)

    def make(name, moment):
        data = bytearray(root.read_bytes())
        struct.pack_into("<II", data, 1024 + 44, moment, moment)
        image = open(committed("fatal")["image"], "rb").read()  # noqa: PTH123, SIM115
        return disk_of(root.with_name(name), bytes(data), image)

    return make


def test_the_report_tells_it(committed, stale_disk):
    case = committed("safe")
    for moment, rules in ((WRITTEN - 1, []), (WRITTEN + 86400, ["HC405"])):
        report = check(stale_disk(f"disk-{moment}", moment), case["resumer"], None, options_of(case["args"]))
        assert [finding.rule for finding in report.findings if finding.rule == "HC405"] == rules
        assert report.verdict.value == "safe"
        assert (report.image.written, report.image.partition) == (WRITTEN, 2)
