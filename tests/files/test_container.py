"""Disks of virtual machines: qcow2 is read, the others are named with the command that makes a plain copy."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess

import pytest

from hibercheck.errors import HibercheckError, MalformedImage, Unsupported
from hibercheck.files.container import CONTAINERS
from hibercheck.swsusp.image import open_image
from tests.support.image_writer import ImageWriter
from tests.swsusp.strategies import page

FRAMES = {pfn: page(pfn) for pfn in range(100, 1300)}
PLAIN = {pfn: content or bytes(4096) for pfn, content in FRAMES.items()}
QEMU = shutil.which("qemu-img")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="no qemu-img here")


def convert(source, target, *options):
    run = subprocess.run(
        ["qemu-img", "convert", "-f", "raw", *options, source, target], capture_output=True, text=True, check=False
    )
    if run.returncode:
        pytest.skip(f"this qemu-img cannot: {run.stderr}")
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A disk of 64 MiB, mostly holes, with the image spread over it."""
    path = tmp_path_factory.mktemp("plain") / "disk.raw"
    ImageWriter(frames=FRAMES, shuffle=7, compressor="lz4").write(path)
    with path.open("r+b") as stream:
        stream.truncate(64 << 20)
    return path


QCOW2 = {
    "plain": [],
    "deflate": ["-c"],
    "zstd": ["-c", "-o", "compression_type=zstd"],
    "512": ["-o", "cluster_size=512"],
    "2M": ["-o", "cluster_size=2M"],
    "version 2": ["-o", "compat=0.10"],
    "preallocated": ["-o", "preallocation=metadata"],
}


@needs_qemu
@pytest.mark.parametrize("kind", QCOW2)
def test_every_frame_out_of_a_qcow2(tmp_path, plain, kind):
    path = convert(plain, tmp_path / "disk.qcow2", "-O", "qcow2", *QCOW2[kind])
    with open_image(str(path)) as image:
        assert all(image.frame(pfn) == content for pfn, content in PLAIN.items())
        assert image.verify().ok
        assert image.source.size == 64 << 20
        assert image.source.read(0, 64 << 20) == plain.read_bytes()
        assert image.source.next_data(60 << 20) >= 60 << 20


@needs_qemu
def test_clusters_out_of_order_are_read_in_order(tmp_path, plain):
    """Written backwards: byte by byte the file is not the disk, though parts of it would look right."""
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    if shutil.which("qemu-io") is None:
        pytest.skip("no qemu-io here")
    step = 1 << 16
    data = plain.read_bytes()
    commands = []
    for at in range((len(data) // step - 1) * step, -1, -step):
        piece = data[at : at + step]
        if any(piece):
            part = tmp_path / f"part-{at:x}"
            part.write_bytes(piece)
            commands += ["-c", f"write -s {part} {at} {step}"]
    subprocess.run(["qemu-io", *commands, path], check=True, capture_output=True)
    with open_image(str(path)) as image:
        assert image.verify().ok
        assert all(image.frame(pfn) == content for pfn, content in PLAIN.items())


@needs_qemu
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("-o", "extended_l2=on,cluster_size=64k"), "a qcow2 disk with subclusters"),
        (("-o", "data_file=DATA,data_file_raw=on"), "a qcow2 disk with an external data file"),
        (
            ("--object", "secret,id=s,data=abc", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
            "a qcow2 disk with encryption",
        ),
    ],
)
def test_a_qcow2_that_needs_more_is_named(tmp_path, plain, options, what):
    words = [word.replace("DATA", str(tmp_path / "data")) for word in options]
    path = convert(plain, tmp_path / "disk.qcow2", "-O", "qcow2", *words)
    with pytest.raises(Unsupported, match=rf"is {what}; make a plain copy: qemu-img convert -O raw"):
        open_image(str(path))


@needs_qemu
def test_a_backing_file_is_not_followed(tmp_path, plain):
    path = tmp_path / "over.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", plain, "-F", "raw", path], check=True)
    with pytest.raises(Unsupported, match="with a backing file"):
        open_image(str(path))


@needs_qemu
@pytest.mark.parametrize(
    ("form", "what"),
    [("vmdk", "VMDK"), ("vdi", "VDI"), ("vpc", "VHD"), ("vhdx", "VHDX"), ("qed", "QED"), ("parallels", "Parallels")],
)
def test_other_containers_are_named_with_the_command_that_converts(tmp_path, plain, form, what):
    path = convert(plain, tmp_path / "my disk", "-O", form)
    with pytest.raises(Unsupported, match=rf"is a {what} disk, .*: qemu-img convert -O raw '.*/my disk' disk.raw"):
        open_image(str(path))
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, tmp_path / "disk.raw"], check=True)
    with open_image(str(tmp_path / "disk.raw")) as image:
        assert image.verify().ok


@needs_qemu
def test_a_vhd_of_fixed_size_is_a_plain_copy(tmp_path, plain):
    path = convert(plain, tmp_path / "fixed.vhd", "-O", "vpc", "-o", "subformat=fixed")
    with open_image(str(path)) as image:
        assert image.verify().ok


@pytest.mark.parametrize("which", range(1, len(CONTAINERS)), ids=lambda which: CONTAINERS[which][2])
def test_each_by_its_magic_whatever_follows(tmp_path, which):
    """Also where an image lies behind the magic at its place: it is not read."""
    at, magic, what, _ = CONTAINERS[which]
    data = bytearray(ImageWriter(frames={1: page(1)}).encode())
    data[at : at + len(magic)] = magic
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(Unsupported, match="not a plain copy") as caught:
        open_image(str(path))
    assert what in str(caught.value)


def header(version=3, bits=16, size=1 << 26, l1_count=1, l1_at=0x10000, features=0):
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, bits, size, 0, l1_count, l1_at, 0, 0, 0, 0)
    return head + struct.pack(">QQQIIB", features, 0, 0, 4, 112, 0)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"QFI\xfb", MalformedImage, "cut short in its header"),
        (header(version=1), Unsupported, "version 1"),
        (header(bits=63), MalformedImage, r"clusters of 2\^63"),
        (header(size=1 << 60), MalformedImage, "a disk of"),
        (header(l1_count=1 << 31), MalformedImage, "claims"),
        (header(features=1 << 40), Unsupported, "not known"),
        (header(features=2), MalformedImage, "marked as corrupt"),
        (header().ljust(0x10000, b"\0") + struct.pack(">Q", 0x12345600), MalformedImage, "outside its clusters"),
        (header(l1_count=2).ljust(0x10000, b"\0") + struct.pack(">2Q", 0x20000, 0x20000), MalformedImage, "one table"),
        (
            header().ljust(0x10000, b"\0")
            + struct.pack(">Q", 0x20000).ljust(0x10000, b"\0")
            + struct.pack(">2Q", 0x30000, 0x30000).ljust(0x10000, b"\0"),
            MalformedImage,
            "one cluster",
        ),
        (
            header().ljust(0x10000, b"\0")
            + struct.pack(">Q", 0x20000).ljust(0x10000, b"\0")
            + struct.pack(">Q", 0x7000000).ljust(0x10000, b"\0"),
            MalformedImage,
            "ends before one of its clusters",
        ),
        (
            header().ljust(0x10000, b"\0")
            + struct.pack(">Q", 0x20000).ljust(0x10000, b"\0")
            + struct.pack(">Q", 1 << 62 | 0x20000).ljust(0x10000, b"\0"),
            MalformedImage,
            "does not decompress|compressed cluster",
        ),
    ],
)
def test_a_damaged_qcow2_is_one_line(tmp_path, data, kind, message):
    path = tmp_path / "disk.qcow2"
    path.write_bytes(data)
    with pytest.raises(kind, match=message) as caught:
        open_image(str(path))
    assert "\n" not in str(caught.value)


@needs_qemu
@pytest.mark.parametrize("seed", range(30))
def test_random_damage_of_a_qcow2(tmp_path, plain, seed):
    draw = random.Random(seed)
    path = convert(plain, tmp_path / "disk.qcow2", "-O", "qcow2", *draw.choice(list(QCOW2.values())))
    data = bytearray(path.read_bytes())
    for _ in range(draw.randrange(1, 20)):
        data[draw.choice([draw.randrange(112), draw.randrange(0x60000), draw.randrange(len(data))])] = draw.randrange(
            256
        )
    del data[draw.choice([len(data), draw.randrange(len(data))]) :]
    path.write_bytes(data)
    try:
        with open_image(str(path)) as image:
            image.verify()
    except HibercheckError as problem:
        assert "\n" not in str(problem)  # noqa: PT017 - no error at all is right as well
