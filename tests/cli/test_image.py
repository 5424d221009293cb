"""hibercheck image and hibercheck export, as commands."""

import json
import re
import struct
import zlib

import pytest
from click.testing import CliRunner

from hibercheck.cli import export, image, waiting
from hibercheck.errors import InputProblem, MalformedImage
from tests.support.image_format import PAGE
from tests.support.image_writer import ImageWriter
from tests.swsusp.strategies import page

BANNER = b"Linux version 6.1.0-\x1b[2Jx (a@b.org) (gcc) #1 SMP Debian\n"
FRAMES = {pfn: page(4 * pfn + 3) for pfn in range(0x100, 0x200)} | {0x300: None, 0x1998: BANNER.ljust(PAGE, b"\0")}


@pytest.fixture
def path(tmp_path):
    return str(ImageWriter(frames=FRAMES, compressor="lz4", zero_flag=True, hw_sig=0x77).write(tmp_path / "image.bin"))


def run(command, *arguments, **more):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False, **more)


def test_text(path):
    result = run(image.command, path, "--map", "--verify", "--color", "never", "--width", 120)
    assert result.return_value == 0, result.output
    assert "258 in 3 runs up to PFN 0x1998, 1 of them zero and without data" in result.output
    assert "0x000000100000-0x0000001fffff  256" in result.output
    assert "restore_registers at 0xffffffff81997000, physical 0x1997000; CR3 0x3c6a000" in result.output
    assert "signature 0x00000077 (FACS)" in result.output
    assert "checksum is right" in result.output
    assert "\x1b" not in result.output


def test_picture_shows_every_frame_and_no_more(path):
    result = run(image.command, path, "--color", "never")
    rows = [line.split() for line in result.output.splitlines() if line.startswith(" 0x")]
    cells = "".join(cells for _, cells in rows)
    assert [address for address, _ in rows] == ["0x00000000", "0x00200000", "0x01800000"]
    assert cells.count("█") == 256 // 8
    assert cells.count("░") == 2


@pytest.mark.parametrize(("width", "cells"), [(40, 16), (79, 32), (80, 64), (120, 64), (144, 128), (400, 256)])
@pytest.mark.parametrize("top", [1 << 20, (1 << 40) - 2])
def test_the_text_fits_the_terminal(tmp_path, width, cells, top):
    frames = {0x1998: BANNER.replace(b"\x1b[2J", b"").ljust(PAGE, b"\0"), top: page(3)}
    path = ImageWriter(frames=frames, hw_sig=1).write(tmp_path / "i")
    result = run(image.command, path, "--color", "never", "--width", width)
    lines = result.output.splitlines()
    assert " ".join(result.output.partition("\n\n")[0].split()) == f"{path}: hibernation image of Linux 6.1.0-x"
    assert all(len(line) <= width for line in lines if " " in line.strip())
    rows = [match[1] for line in lines if (match := re.fullmatch(" ?0x[0-9a-f]{8,13} ([█▓░·]+)", line))]
    assert {len(row) for row in rows} == {cells}


@pytest.mark.parametrize("container", ["swap", "stream"])
def test_what_cannot_be_verified_is_not_called_verified(tmp_path, container):
    path = ImageWriter(frames=FRAMES, compressor="none", container=container).write(tmp_path / "i")
    result = run(image.command, path, "--verify", "--color", "never", "--width", 200)
    assert result.return_value == 0
    assert "no checksum: nobody can tell" in result.output
    assert "not verified: there is no checksum" in result.output
    assert "\nverified" not in result.output
    document = json.loads(run(image.command, path, "--verify", "--format", "json").output)
    assert document["header"]["crc32"] is None
    assert document["verification"]["crc_expected"] is None
    assert document["verification"]["ok"]


def test_a_checksum_that_was_not_compared_is_said_so(path):
    result = run(image.command, path, "--color", "never", "--width", 200)
    assert "(not compared: see --verify)" in result.output
    assert "not compared" not in run(image.command, path, "--color", "never", "--verify", "--width", 200).output


def test_json_is_the_same_each_time_and_complete(path, tmp_path):
    first = run(image.command, path, "--format", "json", "--verify", "--map").stdout
    document = json.loads(first)
    assert document["memory"] == {
        "frames": 258, "zero_frames": 1, "data_pages": 257, "runs": 3, "last_pfn": 0x1998, "share_of_ram": 0.0079,
    }  # fmt: skip
    assert document["runs"] == [[0x100, 0x100], [0x300, 1], [0x1998, 1]]
    assert document["memory_map"] is None  # nothing in its memory is a kernel
    assert document["header"]["flags"] == ["CRC32_MODE", "HW_SIG", "COMPRESSION_ALG_LZ4"]
    assert document["verification"]["ok"]
    run(image.command, path, "--format", "json", "--verify", "--map", "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == first


def test_damage_is_status_1_and_named(tmp_path):
    path = ImageWriter(frames=FRAMES, damage=["crc"]).write(tmp_path / "i")
    result = run(image.command, path, "--verify")
    assert result.return_value == 1
    assert "the checksum is" in result.output
    assert run(image.command, path).return_value == 0


def test_progress_goes_to_standard_error_only_if_wanted(path):
    assert run(image.command, path, "--verify").stderr == ""
    assert "MB/s" in run(image.command, path, "--verify", "--progress").stderr


def test_the_image_is_never_overwritten(path):
    assert run(image.command, path, "-o", path).exception is not None
    assert run(export.command, path, path).exception is not None


def test_export(path, tmp_path):
    result = run(export.command, path, tmp_path / "core")
    assert result.return_value == 0
    assert "no VMCOREINFO" in result.stderr
    assert (tmp_path / "core").read_bytes()[:4] == b"\x7fELF"


def test_symbols_need_a_kernel(path, tmp_path):
    result = run(export.command, path, tmp_path / "core", "--symbols", path)
    assert "--kernel" in str(result.exception)
    assert not (tmp_path / "core").exists()


@pytest.mark.parametrize("damage", ["pfn-twice", "length-zero"])
def test_an_image_too_damaged_to_show_is_still_verified(tmp_path, damage):
    path = ImageWriter(frames=FRAMES, damage=[damage], damaged_block=2).write(tmp_path / "i")
    result = run(image.command, path, "--verify")
    assert result.return_value == 1
    assert "names a frame twice" in result.stderr or "0 bytes long" in result.stderr
    assert isinstance(run(image.command, path).exception, MalformedImage)


def test_a_damaged_block_far_from_the_kernel_does_not_hide_the_rest(tmp_path):
    path = ImageWriter(frames=FRAMES, damage=["block-garbage"], damaged_block=2).write(tmp_path / "i")
    result = run(image.command, path, "--verify")
    assert result.return_value == 1
    assert "compressed block 2" in result.output
    assert "258 in 3 runs" in result.output


def test_an_image_of_nothing(tmp_path):
    path = ImageWriter(frames={}).write(tmp_path / "i")
    result = run(image.command, path, "--verify", "--map")
    assert result.return_value == 0, result.exception
    assert run(export.command, path, tmp_path / "core").return_value == 0


def test_a_core_is_written_to_regular_files_only(path, tmp_path):
    assert isinstance(run(export.command, path, "/dev/null").exception, InputProblem)
    assert isinstance(run(export.command, path, tmp_path).exception, InputProblem)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "core")
    assert run(export.command, path, link).return_value == 0
    assert link.is_symlink()
    assert (tmp_path / "core").stat().st_size


def test_export_keeps_going_and_lists_what_is_left_out(hibercheck, tmp_path):
    frames = {pfn: bytes([pfn % 250 + 1]) * 4096 for pfn in range(0x1000, 0x1100)}
    damaged = ImageWriter(frames=frames, damage=("block-garbage",), damaged_block=2).write(tmp_path / "image")
    stopped = hibercheck("export", damaged, tmp_path / "core")
    assert (stopped.status, (tmp_path / "core").exists()) == (3, False)
    ran = hibercheck("export", damaged, tmp_path / "core", "--keep-going")
    assert ran.status == 1
    assert "left out: 32 frames that cannot be read: PFN 0x103f-0x105e" in ran.err
    assert (tmp_path / "core").exists()


def test_an_image_that_swap_lies_over_is_no_damaged_disk(hibercheck, tmp_path):
    frames = {pfn: bytes([pfn % 250 + 1]) * 4096 for pfn in range(0x1000, 0x2000)}
    data = bytearray(ImageWriter(frames=frames, consumed=True).encode())
    data[7 * 4096 : 7 * 4096 + 100] = bytes(range(100))
    (tmp_path / "swap").write_bytes(data)
    ran = hibercheck("image", tmp_path / "swap", "--verify")
    assert ran.status == 1
    assert "swap lies over parts of the image: " in ran.out
    assert "4,072 of its 4,104 pages are still whole" in ran.out
    assert "damaged" not in ran.out
    data[2 * 4096 : 4 * 4096] = bytes(range(256)) * 32
    (tmp_path / "swap").write_bytes(data)
    ran = hibercheck("image", tmp_path / "swap")
    assert (ran.status, ran.out) == (3, "")
    assert "pages of it are still whole" in ran.err
    assert "boot with noresume" in ran.err


def test_the_memory_map_by_range(unpacked):
    path = unpacked("images/b9e5b9779f.bin.xz")
    document = json.loads(run(image.command, path, "--format", "json", "--map").stdout)
    ranges = [(int(one["start"], 16), int(one["end"], 16), one["type"]) for one in document["memory_map"]]
    packed = b"".join(struct.pack("<QQI", start, end - start, kind) for start, end, kind in ranges)
    assert len(ranges) == 8
    assert zlib.crc32(struct.pack("<I", 8) + packed) == int(document["record"]["e820_checksum"], 16)
    text = run(image.command, path, "--map", "--color", "never").output
    assert "0x000000100000-0x000007fd6fff  RAM" in text


def test_a_sparse_disk_with_data_everywhere_says_that_it_goes_on(hibercheck, tmp_path, monkeypatch):
    """Of eight tebibytes with a hundred thousand islands nothing was said for minutes; here a hundred islands do."""
    monkeypatch.setattr(waiting, "LONG", 0.05)
    apart = 16 << 20
    with (tmp_path / "disk").open("wb") as file:
        for number in range(100):
            file.seek(number * apart)
            file.write(b"data")
    for words in (("image", "disk"), ("export", "disk", "core")):
        ran = hibercheck(*words)
        assert ran.status == 3
        assert ran.err.startswith("hibercheck: still looking for the image (after ")
        assert "no hibernation image" in ran.err.splitlines()[-1]
