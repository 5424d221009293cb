"""Images are found wherever they are, and what is not an image is named."""

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess
from functools import partial

import lz4.frame
import pytest

from hibercheck.errors import HibercheckError, InputProblem, MalformedImage, Unsupported, UsageProblem
from hibercheck.files import spool
from hibercheck.swsusp.image import open_image
from tests.support import image_format as fmt
from tests.support.effort import ends
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


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd.compress, lz4.frame.compress, bz2.compress])
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
    packed = gzip.compress(ImageWriter(frames=FRAMES).encode() + bytes(64 << 20), 1)
    path = write(tmp_path, packed[: -len(packed) // 4])  # whoever decompresses it all is told that it is cut short
    with open_image(str(path)) as image:
        assert image.frame(102) == FRAMES[102]
        assert not image.source.is_hole(0)
        with pytest.raises(MalformedImage, match="cut short after"):
            assert image.source.size


@pytest.mark.parametrize("pack", [partial(lzma.compress, preset=0), zstd.compress])
def test_a_compressed_file_that_expands_as_no_device_does(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(spool, "UNQUESTIONED", 8 << 20)
    path = write(tmp_path, pack(b"\1" * (64 << 20)))
    with pytest.raises(MalformedImage, match=r"expands more than 500-fold, to \d+ bytes so far.*decompress it first"):
        open_image(str(path), resume_offset=16000)
    # Zeros take no room, whatever their number.
    path = write(tmp_path, pack(ImageWriter(frames=FRAMES).encode() + bytes(64 << 20)))
    with open_image(str(path)) as image:
        assert image.source.size > 64 << 20


def test_an_image_behind_zeros_of_a_compressed_disk(tmp_path):
    """What follows the image counts too: the search must not go on from the end of what was unpacked."""
    plain = ImageWriter(frames=FRAMES).encode()
    for gap in (1 << 20, 8 << 20, 33 << 20):
        sound(write(tmp_path, zstd.compress(b"x" * PAGE + bytes(gap) + plain + b"z" * (30 << 20))))


@pytest.mark.parametrize("pack", [bz2.compress, zstd.compress])
def test_a_compressed_file_of_hardly_more_than_zeros(tmp_path, monkeypatch, pack):
    """Eight megabytes of zstd are 250 gigabytes of zeros, and of bzip2 ten terabytes, which take hours."""
    if pack is bz2.compress:
        monkeypatch.setattr(spool, "UNQUESTIONED_ZEROS", 1 << 28)
    path = write(tmp_path, pack(bytes(1 << 26)) * 1024)
    with (
        ends(),
        pytest.raises(MalformedImage, match=r"is hardly more than zeros, \d+ bytes so far.*decompress it first"),
    ):
        open_image(str(path))


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
    with pytest.raises(
        MalformedImage, match=r"2 images in it: --resume-offset 16, --resume-offset \d+; choose one with"
    ):
        open_image(str(path))


def disk_of(parts, table="gpt"):
    """Return a disk with the given contents in its partitions, each on a MiB."""
    places, data = [], bytearray(1 << 20)
    for content in parts:
        places.append((len(data), len(content)))
        data += content + bytes(-len(content) % (1 << 20))
    data[510:512] = b"\x55\xaa"
    if table == "mbr":
        for slot, (start, size) in enumerate(places):
            struct.pack_into("<B3xB3xII", data, 446 + 16 * slot, 0, 0x82, start // 512, -(-size // 512))
        return data
    data[512:520] = b"EFI PART"
    struct.pack_into("<QII", data, 512 + 72, 2, 128, 128)
    for slot, (start, size) in enumerate(places):
        entry = 1024 + 128 * slot
        data[entry : entry + 16] = b"type" * 4
        data[entry + 16 : entry + 32] = bytes([slot + 1]) * 16
        struct.pack_into("<QQ", data, entry + 32, start // 512, (start + size - 1) // 512)
        name = f"part {slot + 1}".encode("utf-16-le")
        data[entry + 56 : entry + 56 + len(name)] = name
    return data


def with_uuid(image, number, label=b""):
    data = bytearray(image)
    data[1036:1052] = bytes([0xA0 + number]) * 16
    data[1052 : 1052 + len(label)] = label
    return bytes(data)


ONE = with_uuid(ImageWriter(frames={7: page(1)}).encode(), 1, b"first")
TWO = with_uuid(ImageWriter(frames=FRAMES).encode(), 2, b"second")


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_of_several_partitions_one_is_chosen_by_the_numbers_that_are_printed(tmp_path, table):
    path = write(tmp_path, disk_of([bytes(4096), ONE, TWO], table))
    with pytest.raises(MalformedImage, match="2 images in it: --resume 2, --resume 3; choose one with --resume"):
        open_image(str(path))
    sound(path, resume="3")
    with open_image(str(path), resume="2") as image:
        assert image.frame(7) == page(1)
        assert image.partition.number == 2


@pytest.mark.parametrize(
    "resume",
    [
        "/dev/nvme0n1p3",
        "/dev/sda3",
        "/dev/disk/by-id/ata-DISK-part3",
        "UUID=a2a2a2a2-a2a2-a2a2-a2a2-a2a2a2a2a2a2",
        'UUID="A2A2A2A2-A2A2-A2A2-A2A2-A2A2A2A2A2A2"',
        "LABEL=second",
        "PARTUUID=03030303-0303-0303-0303-030303030303",
        "PARTLABEL=part 3",
    ],
)
def test_or_as_the_kernels_resume_parameter_names_it(tmp_path, resume):
    sound(write(tmp_path, disk_of([bytes(4096), ONE, TWO])), resume=resume)


def test_what_is_no_partition_of_it_is_answered_with_those_that_are(tmp_path):
    path = write(tmp_path, disk_of([b"LUKS\xba\xbe".ljust(4096, b"\0"), ONE]))
    with pytest.raises(
        UsageProblem,
        match=r"7 is not one of its partitions; there is 1 \(an encrypted .*\), 2 \(swap space, UUID=a1a1.*LABEL",
    ):
        open_image(str(path), resume="7")
    with pytest.raises(MalformedImage, match="no swap signature at page 0 of partition 1, which holds an encrypted"):
        open_image(str(path), resume="1")
    with pytest.raises(UsageProblem, match="there is no partition"):
        open_image(str(write(tmp_path, ONE)), resume="1")
    with open_image(str(write(tmp_path, ONE)), resume="UUID=a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1") as image:
        assert image.partition is None


def test_a_swap_file_in_a_partition_by_the_offset_within_it(tmp_path):
    holding = ImageWriter(frames=FRAMES, header_at=33).encode()
    path = write(tmp_path, disk_of([ONE[:4096].replace(b"S1SUSPEND", b"\0" * 9), holding]))
    sound(path, resume="2", resume_offset=33)
    assert any("--resume 2 --resume-offset 33" in line for line in sound(path))


def test_enclosed_swap_is_named_wherever_it_lies(tmp_path):
    luks, lvm = (
        b"LUKS\xba\xbe".ljust(PAGE, b"\0"),
        bytes(512) + b"LABELONE".ljust(24, b"\0") + b"LVM2 001".ljust(PAGE, b"\0"),
    )
    path = write(tmp_path, disk_of([bytes(PAGE), luks]))
    with pytest.raises(MalformedImage, match=r"partition 2 is an encrypted \(LUKS\) device; open it \(cryptsetup open"):
        open_image(str(path))
    path = write(tmp_path, disk_of([swap_header(), lvm + bytes(PAGE)]))
    with pytest.raises(
        MalformedImage, match=r"plain swap space.*beside it.*partition 2 is a physical volume.*vgchange"
    ):
        open_image(str(path))
    path = write(tmp_path, bytes(5 << 20) + luks)
    with pytest.raises(MalformedImage, match="at byte 0x500000 there is an encrypted"):
        open_image(str(path))


def swap_file(first, **more):
    """Return a swap file that begins at page ``first`` of its disk, in one piece: its map counts pages of the disk."""
    data = bytearray(ImageWriter(frames=FRAMES, **more).encode())
    (number,) = struct.unpack_from("<Q", data, PAGE - 32)
    struct.pack_into("<Q", data, PAGE - 32, number + first)
    while number:
        words = struct.unpack_from("<512Q", data, number * PAGE)
        struct.pack_into("<512Q", data, number * PAGE, *(word + first if word else 0 for word in words))
        number = words[511]
    return bytes(data)


@pytest.mark.parametrize("compressor", ["lzo", "none"])
@pytest.mark.parametrize("given", [True, False])
def test_a_copy_of_a_swap_file_alone(tmp_path, compressor, given):
    first = 34816
    path = write(tmp_path, swap_file(first, compressor=compressor))
    warnings = sound(path, resume_offset=first) if given else sound(path)
    assert f"from page {first} of its disk" in warnings[0]
    assert f"--resume-offset {first}" in warnings[0]
    on_its_disk = bytes(300 * PAGE) + swap_file(300)
    assert sound(write(tmp_path, on_its_disk), resume_offset=300) == ()


@pytest.mark.parametrize("given", [True, False])
def test_a_copy_of_a_swap_file_in_several_pieces(tmp_path, given):
    first = 34816
    data = bytearray(swap_file(first))
    words = struct.unpack_from("<512Q", data, PAGE)
    moved = [word + (1 << 20) if word and place > 40 else word for place, word in enumerate(words)]
    struct.pack_into("<512Q", data, PAGE, *moved)
    with pytest.raises(
        MalformedImage, match=f"beyond the end.*several pieces.*give its disk with --resume-offset {first}"
    ):
        open_image(str(write(tmp_path, data)), resume_offset=first if given else None)


def test_a_header_cut_from_its_map(tmp_path):
    data = swap_file(700, shuffle=3)[:PAGE]
    with pytest.raises(MalformedImage, match=r"beyond the end of the file.*a swap file's header without its map"):
        open_image(str(write(tmp_path, data + bytes(5 * PAGE))))


def test_a_fresh_image_wins_over_a_consumed_one(tmp_path):
    old = ImageWriter(frames={1: None}, consumed=True).encode()
    new = ImageWriter(frames=FRAMES).encode()
    sound(write(tmp_path, bytes(PAGE * 16) + old + new))


NAMED = [
    (swap_header(), MalformedImage, "plain swap space, no hibernation image"),
    (swap_header(b"SWAP-SPACE"), MalformedImage, "plain swap space, no hibernation image"),
    (swap_header(image=3) + bytes(PAGE * 9), MalformedImage, "an image that was resumed or given up: its first pages"),
    (swap_header(b"ULSUSPEND\0"), Unsupported, "user-space hibernation"),
    (swap_header(b"S2SUSPEND\0"), Unsupported, "Software Suspend 2"),
    (swap_header(b"LINHIB0001"), Unsupported, "a kernel around 2.6.37"),
    (b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c" + bytes(PAGE), Unsupported, "TuxOnIce"),
    (b"\x7fELF" + bytes(PAGE), Unsupported, "an ELF file"),
    (b"LUKS\xba\xbe" + bytes(PAGE), Unsupported, "encrypted"),
    (b"hibr" + bytes(PAGE), Unsupported, "the hibernation file of Windows"),
    (b"ANDROID!" + bytes(PAGE), Unsupported, "an Android boot image"),
    (bytes(0x38) + b"ARM\x64" + bytes(PAGE), Unsupported, "an arm64 kernel"),
    (bytes(0x202) + b"HdrS" + bytes(PAGE), Unsupported, "a kernel .*kernels are given with --resumer"),
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
    with pytest.raises(
        Unsupported, match=r"newer than this hibercheck \(magic 0x23456789abcdef03\).*; update hibercheck"
    ):
        open_image(str(write(tmp_path, data)))
    swap_map += info(struct.pack("<4Q", 1, 2, 3, 0x33456789ABCDEF03))
    with pytest.raises(MalformedImage, match="no x86-64 arch record that is known \\(magic 0x33456789abcdef03\\)"):
        open_image(str(write(tmp_path, swap_header(b"S1SUSPEND\0", image=1) + swap_map)))


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


def test_thousands_of_headers_on_a_disk_of_many_partitions(tmp_path):
    """Each header is tried with the partition that it is in, and not with all that begin before it."""
    header = bytearray(PAGE)
    header[-10:] = b"S1SUSPEND\0"
    struct.pack_into("<Q", header, PAGE - 10 - 10 - 4 - 8 - 4, 5)
    data = bytearray(PAGE * 16) + header * 8000
    data[510:512] = b"\x55\xaa"
    data[512:520] = b"EFI PART"
    struct.pack_into("<QII", data, 512 + 72, 2, 128, 128)
    for slot in range(120):
        entry = 1024 + 128 * slot
        data[entry : entry + 16] = b"type" * 4
        struct.pack_into("<QQ", data, entry + 32, 128 + 8 * slot, 128 + 8 * slot + 7)
    path = write(tmp_path, bytes(data))
    with ends(), pytest.raises(HibercheckError):
        open_image(str(path))
