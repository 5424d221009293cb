"""Partition tables: as sfdisk writes them where it is there, and by hand."""

from __future__ import annotations

import shutil
import struct
import subprocess
from io import BytesIO

import pytest

from hibercheck.files.disk import holder, number_in, partitions


class File:
    """Bytes as a file."""

    path = "disk"

    def __init__(self, data):
        self._file = BytesIO(data)

    def read(self, offset, size):
        if offset > len(self._file.getbuffer()):
            return b""
        self._file.seek(offset)
        return self._file.read(size)


def sfdisk(path, script, size=64 << 20, sector=512):
    if shutil.which("sfdisk") is None:
        pytest.skip("no sfdisk here")
    with path.open("wb") as stream:
        stream.truncate(size)
    subprocess.run(
        ["sfdisk", "-q", *(["--sector-size", str(sector)] if sector != 512 else []), path],
        input=script, text=True, check=True, capture_output=True,
    )  # fmt: skip
    return File(path.read_bytes())


GPT = """label: gpt
label-id: 11111111-2222-3333-4444-555555555555
start=2048, size=8192, name="EFI system", uuid=AAAAAAAA-0000-1111-2222-BBBBBBBBBBBB
start=16384, size=32768, name=swap, type=S
"""


def test_gpt(tmp_path):
    found = partitions(sfdisk(tmp_path / "d", GPT))
    assert [(one.number, one.start, one.size, one.label) for one in found] == [
        (1, 2048 * 512, 8192 * 512, "EFI system"),
        (2, 16384 * 512, 32768 * 512, "swap"),
    ]
    assert found[0].uuid == "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb"


def test_mbr_with_logical_drives(tmp_path):
    script = "label: dos\nlabel-id: 0x1234abcd\nstart=2048,size=4096\nstart=8192,size=65536,type=5\n"
    script += "start=10240,size=4096\nstart=20480,size=8192,type=82\n"
    found = partitions(sfdisk(tmp_path / "d", script))
    assert [(one.number, one.start // 512, one.size // 512, one.uuid) for one in found] == [
        (1, 2048, 4096, "1234abcd-01"),
        (5, 10240, 4096, "1234abcd-05"),
        (6, 20480, 8192, "1234abcd-06"),
    ]


def test_sectors_of_4_kib(tmp_path):
    data = bytearray(1 << 20)
    data[510:512] = b"\x55\xaa"
    data[4096:4104] = b"EFI PART"
    struct.pack_into("<QII", data, 4096 + 72, 2, 4, 128)
    data[8192:8208] = b"type" * 4
    struct.pack_into("<QQ", data, 8192 + 32, 64, 127)
    (one,) = partitions(File(bytes(data)))
    assert (one.start, one.size) == (64 * 4096, 64 * 4096)


def test_no_table_and_tables_that_lie():
    assert partitions(File(b"")) == ()
    assert partitions(File(bytes(1 << 16))) == ()
    data = bytearray(4096)
    data[510:512] = b"\x55\xaa"
    # an extended partition whose links form a ring
    data[446 + 4] = 5
    data[446 + 8 : 446 + 12] = struct.pack("<I", 1)
    data[1022:1024] = b"\x55\xaa"
    data[512 + 446 + 8 : 512 + 446 + 12] = struct.pack("<I", 1)
    data[512 + 446 + 16 + 4] = 5
    data[512 + 446 + 16 + 8 : 512 + 446 + 16 + 12] = struct.pack("<I", 2)
    data[1534 + 0 : 1536] = b"\x55\xaa"
    assert len(partitions(File(bytes(data)))) <= 128
    data[512:520] = b"EFI PART"
    struct.pack_into("<QII", data, 512 + 72, 1 << 60, 0xFFFFFFFF, 128)
    assert partitions(File(bytes(data))) == ()


def test_which_partition_a_byte_lies_in(tmp_path):
    table = partitions(sfdisk(tmp_path / "d", GPT))
    assert holder(table, 2048 * 512) is table[0]
    assert holder(table, 16384 * 512 + 5) is table[1]
    assert holder(table, 12000 * 512) is None
    assert holder((), 0) is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("2", 2),
        ("/dev/sda2", 2),
        ("/dev/nvme0n1p12", 12),
        ("/dev/disk/by-id/ata-X-part3", 3),
        ("/dev/mapper/swap", None),
        ("/dev/vg/swap1", None),
        ("swap", None),
        ("", None),
        ("²", None),
    ],
)
def test_partition_numbers_in_names(name, number):
    assert number_in(name) == number
