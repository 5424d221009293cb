"""Images are found wherever they are, and what is no image is named."""

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess

import lz4.frame
import pytest

from hibercheck.errors import HibercheckError, InputProblem, MalformedImage, Unsupported, UsageProblem
from hibercheck.swsusp import spool
from hibercheck.swsusp.image import open_image
from tests.support import image_format as fmt
from tests.support.image_format import PAGE
from tests.support.image_writer import ImageWriter
from tests.swsusp.strategies import page

try:
    from compression import zstd
except ImportError:
    from backports import zstd

FRAMES = {pfn: page(pfn) for pfn in range(100, 300)}


def sound(path, **more):
    with open_image(str(path), **more) as image:
        assert image.frame(102) == FRAMES[102]
        assert image.verify().ok
        return image.warnings


def write(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


def swap_header(sig=b"SWAPSPACE2", image=0):
    return fmt.header_page(image=image, flags=0, sig=sig)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd.compress, lz4.frame.compress])
def test_compressed_copies(tmp_path, pack):
    plain = ImageWriter(frames=FRAMES).encode()
    sound(write(tmp_path, pack(plain)))
    sound(write(tmp_path, pack(plain[:PAGE]) + pack(plain[PAGE:])))
    with pytest.raises(MalformedImage, match=r"cut short after|damaged after|beyond the end"):
        sound(write(tmp_path, pack(plain)[:-2000]))
    broken = bytearray(pack(plain))
    broken[len(broken) // 3 : len(broken) // 3 + 64] = bytes(64)
    # zstd and lz4 keep what they cannot compress as it is, without a checksum: then it is the image's that differs.
    with pytest.raises((MalformedImage, AssertionError), match=r"damaged after|the checksum is"):
        sound(write(tmp_path, bytes(broken)))


def test_compressed_copy_is_decompressed_only_as_far_as_needed(tmp_path):
    plain = ImageWriter(frames=FRAMES).encode()
    path = write(tmp_path, gzip.compress(plain + bytes(64 << 20), 1))
    with open_image(str(path)) as image:
        assert image.frame(102) == FRAMES[102]
        assert image.source._size < len(plain) + (4 << 20)
        assert not image.source.is_hole(0)


@pytest.mark.parametrize("pack", [lzma.compress, zstd.compress])
def test_a_compressed_file_that_expands_as_no_device_does(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(spool, "UNQUESTIONED", 8 << 20)
    path = write(tmp_path, pack(b"\1" * (64 << 20)))
    with pytest.raises(MalformedImage, match=r"expands more than 500-fold, to \d+ bytes so far.*decompress it first"):
        open_image(str(path), resume_offset=16000)
    # Zeros take no room, whatever their number.
    path = write(tmp_path, pack(ImageWriter(frames=FRAMES).encode() + bytes(64 << 20)))
    with open_image(str(path)) as image:
        assert image.source.size > 64 << 20


def test_xz_that_asks_for_too_much_memory(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}]
    path = write(tmp_path, lzma.compress(ImageWriter(frames={1: None}).encode(), filters=filters))
    with pytest.raises(MalformedImage, match="xz data are damaged"):
        open_image(str(path))


def test_raw_snapshot_stream(tmp_path):
    writer = ImageWriter(frames=FRAMES, container="stream", compressor="none", zero_flag=True)
    path = writer.write(tmp_path / "i")
    assert sound(path) == ()
    path.write_bytes(path.read_bytes()[:-PAGE])
    with pytest.raises(MalformedImage, match=r"the snapshot stream is cut short: \d+ pages announced, \d+ there"):
        open_image(str(path))


@pytest.mark.parametrize("header_at", [1, 3, 5, 700, 3000])
def test_swap_file_on_a_device(tmp_path, header_at):
    path = ImageWriter(frames=FRAMES, header_at=header_at).write(tmp_path / "i")
    sound(path, resume_offset=header_at)
    sound(path)
    with pytest.raises(MalformedImage, match="no swap signature at resume offset 2"):
        open_image(str(path), resume_offset=2)
    with pytest.raises(UsageProblem):
        open_image(str(path), resume_offset=1 << 30)


@pytest.mark.parametrize("sector", [2048, 63])
@pytest.mark.parametrize("header_at", [0, 9])
def test_partition_of_a_disk(tmp_path, sector, header_at):
    base = sector * 512
    data = bytearray(ImageWriter(frames=FRAMES, base=base, header_at=header_at).encode())
    data[446 + 8 : 446 + 12] = struct.pack("<I", sector)
    data[510:512] = b"\x55\xaa"
    path = write(tmp_path, data)
    assert "was found at byte" in sound(path)[0]
    if header_at:
        sound(path, resume_offset=header_at)


def test_partition_in_a_gpt(tmp_path):
    data = bytearray(ImageWriter(frames=FRAMES, base=2048 * 512, header_at=9).encode())
    data[510:512] = b"\x55\xaa"
    data[512:520] = b"EFI PART"
    struct.pack_into("<QII", data, 512 + 72, 2, 128, 128)
    data[1024:1040] = b"type" * 4
    struct.pack_into("<Q", data, 1024 + 32, 2048)
    sound(write(tmp_path, data))
    sound(write(tmp_path, data), resume_offset=9)


def test_several_images(tmp_path):
    one = ImageWriter(frames=FRAMES).encode()
    path = write(tmp_path, bytes(PAGE * 16) + one + bytes(-len(one) % PAGE) + one)
    with pytest.raises(MalformedImage, match=r"2 images in it, at pages 16, .*choose one with --resume-offset"):
        open_image(str(path))


def test_a_fresh_image_wins_over_a_consumed_one(tmp_path):
    old = ImageWriter(frames={1: None}, consumed=True).encode()
    new = ImageWriter(frames=FRAMES).encode()
    sound(write(tmp_path, bytes(PAGE * 16) + old + new))


NAMED = [
    (swap_header(), MalformedImage, "plain swap space, no hibernation image"),
    (swap_header(b"SWAP-SPACE"), MalformedImage, "plain swap space, no hibernation image"),
    (swap_header(image=3) + bytes(PAGE * 9), MalformedImage, "plain swap space, no hibernation image"),
    (swap_header(b"ULSUSPEND\0"), Unsupported, "user-space hibernation"),
    (swap_header(b"S2SUSPEND\0"), Unsupported, "Software Suspend 2"),
    (swap_header(b"LINHIB0001"), Unsupported, "a kernel around 2.6.37"),
    (b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c" + bytes(PAGE), Unsupported, "TuxOnIce"),
    (b"\x7fELF" + bytes(PAGE), Unsupported, "an ELF file"),
    (b"LUKS\xba\xbe" + bytes(PAGE), Unsupported, "encrypted"),
    (bz2.compress(bytes(9)) + bytes(PAGE), Unsupported, "bzip2"),
    (bytes(PAGE * 3) + swap_header(b"S1SUSPEND\0"), Unsupported, "pages of 16 KiB"),
    (bytes(PAGE * 15) + swap_header(), MalformedImage, "plain swap space with pages of 64 KiB"),
    (b"", MalformedImage, "the file is empty"),
    (b"x", MalformedImage, "no hibernation image and no swap signature"),
    (bytes(3 * PAGE), MalformedImage, "no hibernation image and no swap signature"),
    (swap_header(b"S1SUSPEND\0", image=99), MalformedImage, "continues at page 99, beyond the end"),
    (swap_header(b"S1SUSPEND\0", image=0), MalformedImage, "names no swap map"),
]


@pytest.mark.parametrize(("data", "kind", "message"), NAMED, ids=[message for _, _, message in NAMED])
def test_what_is_no_image_is_named(tmp_path, data, kind, message):
    path = write(tmp_path, data)
    with pytest.raises(kind, match=message) as caught:
        open_image(str(path))
    assert str(caught.value).startswith(str(path))


def info(record):
    return fmt.info_page(record, num_physpages=9, image_pages=1, pages=3)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (struct.pack("<3QI", 1, 2, 3, 0x12345679)[:12] + struct.pack("<I", 0x12345679), "a 32-bit x86 kernel"),
        (b"Linux".ljust(260, b"\0") + b"i686", "a kernel for i686"),
        (b"Linux".ljust(260, b"\0") + b"ppc\x1b[2J64le", r"a kernel for ppc\[2J64le"),
        (b"#1 SMP PREEMPT Debian", "an arm64 kernel"),
    ],
)
@pytest.mark.parametrize("container", ["swap", "stream"])
def test_other_architectures_are_named(tmp_path, record, message, container):
    data = info(record) + bytes(2 * PAGE)
    if container == "swap":
        swap_map = struct.pack("<512Q", 2, *[0] * 511)
        data = swap_header(b"S1SUSPEND\0", image=1) + swap_map + data
    with pytest.raises(Unsupported, match=message):
        open_image(str(write(tmp_path, data)))


def test_unknown_record(tmp_path):
    swap_map = struct.pack("<512Q", 2, *[0] * 511)
    data = swap_header(b"S1SUSPEND\0", image=1) + swap_map + info(struct.pack("<4Q", 1, 2, 3, 0x23456789ABCDEF03))
    with pytest.raises(MalformedImage, match="no x86-64 arch record that is known \\(magic 0x23456789abcdef03\\)"):
        open_image(str(write(tmp_path, data)))


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/dev/null", "/", "a\0b"])
def test_what_cannot_be_read(path):
    with pytest.raises(InputProblem):
        open_image(path)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_is_an_error_of_ours_or_nothing(tmp_path, seed):
    draw = random.Random(seed)
    data = bytearray(
        ImageWriter(frames=FRAMES, compressor=draw.choice(["lzo", "lz4", "none"]), zero_flag=True).encode()
    )
    for _ in range(draw.randrange(1, 30)):
        place = draw.choice([draw.randrange(PAGE * 5), PAGE - draw.randrange(1, 40), draw.randrange(len(data))])
        data[place] = draw.randrange(256)
    del data[draw.choice([len(data), len(data), draw.randrange(len(data))]) :]
    path = write(tmp_path, bytes(data))
    try:
        with open_image(str(path)) as image:
            image.verify()
            image.find_banner(everywhere=True)
            list(image.pfns.runs())
    except HibercheckError as problem:
        assert "\n" not in str(problem)  # noqa: PT017 - no error at all is right as well


def test_block_device(tmp_path):
    if shutil.which("losetup") is None:
        pytest.skip("no losetup here")
    path = ImageWriter(frames=FRAMES).write(tmp_path / "i")
    with path.open("ab") as stream:
        stream.truncate((path.stat().st_size + 0xFFFF) & ~0xFFFF)
    made = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", path], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip("no loop devices here")
    try:
        assert sound(made.stdout.strip()) == ()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)
