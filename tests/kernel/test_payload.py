from __future__ import annotations

import random
import tempfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, MalformedKernel, Unsupported
from hibercheck.files import compression
from hibercheck.kernel.payload import unwrap
from tests.support.elf_writer import SYMBOLS, write_kernel
from tests.support.wrappers import COMPRESS, bzimage, cpio, deb, lz4_legacy, rpm, summed, tar, uki, zboot

KERNEL = write_kernel(SYMBOLS) + random.Random(4).randbytes(700_000)
FORMATS = sorted(COMPRESS)


def plain(data: bytes) -> bytes:
    return unwrap(data, "k").data[:]


@pytest.mark.parametrize("form", FORMATS)
def test_compressed_files(form: str) -> None:
    found = unwrap(COMPRESS[form](KERNEL), "k")
    assert found.data[:] == KERNEL
    assert found.wrappers == (form,)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [None, len(KERNEL)], ids=["bare", "size appended"])
def test_bzimages(form: str, size: int | None) -> None:
    found = unwrap(bzimage(COMPRESS[form](KERNEL), size=size), "k")
    assert found.data[:] == KERNEL
    assert found.wrappers == ("bzImage",)


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz"])
def test_old_bzimages_do_not_say_where_the_payload_is(form: str) -> None:
    assert plain(bzimage(COMPRESS[form](KERNEL), size=len(KERNEL), version=0x206)) == KERNEL


def test_files_of_several_members() -> None:
    half = len(KERNEL) // 2
    for form in ("gzip", "xz", "bzip2", "zstd"):
        assert plain(COMPRESS[form](KERNEL[:half]) + COMPRESS[form](KERNEL[half:])) == KERNEL


def test_wrappers_inside_one_another() -> None:
    found = unwrap(COMPRESS["xz"](uki({".osrel": b"NAME=made", ".linux": bzimage(COMPRESS["zstd"](KERNEL))})), "k")
    assert found.data[:] == KERNEL
    assert found.wrappers == ("xz", "UKI", "bzImage")
    assert found.alignment == 0x200000


def test_alignment_from_the_setup_header() -> None:
    image = bytearray(bzimage(COMPRESS["gzip"](KERNEL)))
    assert unwrap(bytes(image), "k").alignment == 0x200000
    assert unwrap(COMPRESS["gzip"](KERNEL), "k").alignment is None
    image[0x230:0x234] = (0x1000000 + 1).to_bytes(4, "little")
    assert unwrap(bytes(image), "k").alignment is None
    image[0x230:0x234], image[0x206:0x208] = (0x1000000).to_bytes(4, "little"), (0x204).to_bytes(2, "little")
    assert unwrap(bytes(image), "k").alignment is None


@pytest.mark.parametrize("signed", [False, True])
def test_a_damaged_bzimage_is_known_by_its_crc(signed: bool) -> None:
    """LZ4 has no check of its own: of eight flipped bits five once went unnoticed.  A signature changes two fields."""
    image = summed(bzimage(COMPRESS["lz4"](KERNEL), size=len(KERNEL)), signed=signed)
    assert plain(image) == KERNEL
    draw = random.Random(21)
    for _ in range(8):
        damaged = bytearray(image)
        damaged[draw.randrange(2560 + 777, len(KERNEL))] ^= 1 << draw.randrange(8)
        with pytest.raises(MalformedKernel, match=r"^k: is damaged: the bzImage's CRC-32 .*; fetch it again"):
            unwrap(bytes(damaged), "k")


def test_a_bzimage_without_crc() -> None:
    """Since v6.15 there is none: zeros where it was, or the header does not say how far it would go."""
    image = bytearray(summed(bzimage(COMPRESS["lz4"](KERNEL), size=len(KERNEL))))
    image[600] ^= 1
    with pytest.raises(MalformedKernel, match="CRC-32"):
        unwrap(bytes(image), "k")
    assert plain(bytes(image[:-4]) + bytes(4)) == KERNEL
    assert plain(bytes(image[:-16])) == KERNEL
    image[0x1F4:0x1F8] = bytes(4)
    assert plain(bytes(image)) == KERNEL


def test_too_many_wrappers() -> None:
    data = KERNEL[:4096]
    for _ in range(9):
        data = COMPRESS["gzip"](data)
    with pytest.raises(MalformedKernel, match="more than 8 wrappers"):
        unwrap(data, "k")


@pytest.mark.parametrize("kind", ["gzip", "xzkern", "zstd22", "lz4", "lzma", "lzo"])
def test_efi_zboot(kind: str) -> None:
    form = {"xzkern": "xz", "zstd22": "zstd"}.get(kind, kind)
    assert plain(zboot(COMPRESS[form](KERNEL), kind)) == KERNEL


FILES = {
    "boot/System.map-6.1": b"x" * 100_000,
    "lib/modules/6.1/kernel/fs/vmlinuz-tricks.ko": b"y" * 100_000,
    "usr/share/doc/vmlinuz": b"small",
}


@pytest.mark.parametrize("name", ["boot/vmlinuz-6.1", "usr/lib/modules/6.1/vmlinuz", "boot/vmlinux-6.1.xz", "bzImage"])
def test_packages(name: str) -> None:
    kernel = COMPRESS["xz"](KERNEL) if name.endswith("xz") else bzimage(COMPRESS["zstd"](KERNEL))
    files = {**FILES, name: kernel, "zz": b"z" * 70_000}
    for form in (None, "xz", "zstd", "gzip"):
        assert plain(deb(files, form)) == KERNEL
        assert plain(rpm(files, form)) == KERNEL
    for form in ("xz", "zstd", "gzip"):
        assert plain(COMPRESS[form](tar(files))) == KERNEL


def test_a_link_to_a_kernel_is_passed_over() -> None:
    files = {"vmlinuz@": b"boot/vmlinuz-6.1", "boot/vmlinuz-6.1": bzimage(COMPRESS["gzip"](KERNEL))}
    assert plain(deb(files)) == KERNEL


@pytest.mark.parametrize("package", [deb(FILES), rpm(FILES), COMPRESS["zstd"](tar(FILES))], ids=["deb", "rpm", "tar"])
def test_packages_without_a_kernel_say_which_has_it(package: bytes) -> None:
    with pytest.raises(Unsupported, match=r"package without a kernel.*linux-image") as caught:
        unwrap(package, "k")
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a kernel"),
        (b"\0" * 5000, "not a kernel"),
        (b"#!/bin/sh\n", "script"),
        (bytes(0x38) + b"ARM\x64" + bytes(64), "arm64 kernel"),
        (b"MZ".ljust(0x38, b"\0") + b"ARM\x64" + bytes(64), "is an arm64 kernel"),
        (b"ANDROID!" + bytes(64), "an Android boot image"),
        (cpio({"init": b"x"}), "initramfs"),
        (bytes(0xFF6) + b"S1SUSPEND\0", "hibernation image"),
        (bytes(0xFF6) + b"SWAPSPACE2", "swap space"),
        (bzimage(bytes(8192)), "no compressed kernel.*; give a vmlinux"),
        (b"0000000000000000 A fixed_percpu_data\n", "list of symbols"),
        (b"ffffffff81000000 T _text\n", "list of symbols"),
        (b"KDUMP   " + bytes(100), "memory dump"),
        (b"\x04\x22\x4d\x18" + bytes(100), "lz4 frame data is damaged"),
        (b"MZ" + bytes(200), "DOS program"),
        (uki({".text": b"x"}), "no .linux section"),
        (uki({".linux": KERNEL}, machine=0xAA64), "EFI program for arm64"),
        (bzimage(COMPRESS["gzip"](KERNEL), flags=0), "32-bit x86 kernel"),
        (zboot(b"", "brotli"), "brotli"),
        (b"!<arch>\n" + b"x.o/".ljust(48) + b"4".ljust(10) + b"`\nabcd", "not a Debian package"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_strangers_are_named(data: bytes, message: str) -> None:
    with pytest.raises((Unsupported, MalformedKernel), match=message) as caught:
        unwrap(data, "k")
    assert caught.value.exit_status == 3
    assert caught.value.advice


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_data(form: str) -> None:
    packed = COMPRESS[form](KERNEL)
    with pytest.raises(MalformedKernel, match=f"{form} data is damaged"):
        unwrap(packed[: len(packed) // 2], "k")


def test_truncated_bzimage() -> None:
    with pytest.raises(MalformedKernel, match="truncated"):
        unwrap(bzimage(COMPRESS["zstd"](KERNEL))[:400_000], "k")


@pytest.mark.parametrize("form", FORMATS)
def test_bombs_stop_at_the_limit(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = COMPRESS[form](bytes(32 << 20))
    with pytest.raises(MalformedKernel, match="more than 16 MiB"):
        compression.spool(
            compression.decoded(compression.recognise(bomb), compression.slices(bomb, 0, len(bomb))),
            "k",
            MalformedKernel,
            16 << 20,
        )


def test_a_huge_window_is_refused() -> None:
    bomb = bytearray(COMPRESS["lzma"](b"x" * 100))
    bomb[1:5] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(MalformedKernel, match="lzma data is damaged"):
        unwrap(bytes(bomb[:3] + bomb[3:]), "k")


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(HibercheckError, match=r"No space left on device.*TMPDIR"):
        unwrap(COMPRESS["gzip"](KERNEL), "k")


WRAPPED = [
    bzimage(COMPRESS["zstd"](KERNEL[:20000])),
    bzimage(COMPRESS["lz4"](KERNEL[:20000])),
    bzimage(COMPRESS["lzo"](KERNEL[:20000])),
    uki({".a": b"a", ".linux": KERNEL[:20000]}),
    deb({"boot/vmlinuz-1": KERNEL[:70000]}, None),
    deb({"boot/vmlinuz-1": KERNEL[:70000]}),
    rpm({"boot/vmlinuz-1": KERNEL[:70000]}),
    zboot(COMPRESS["gzip"](KERNEL[:20000]), "gzip"),
]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damage_raises_only_our_errors(data: st.DataObject) -> None:
    whole = bytearray(WRAPPED[data.draw(st.integers(0, len(WRAPPED) - 1))])
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for _ in range(data.draw(st.integers(0, 6))):
        if whole:
            whole[data.draw(st.one_of(st.integers(0, min(2600, len(whole)) - 1), st.integers(0, len(whole) - 1)))] = (
                data.draw(st.integers(0, 255))
            )
    message = ""
    try:
        unwrap(bytes(whole), "k")
    except HibercheckError as error:
        message = str(error)
    assert "\n" not in message


def test_lz4_block_of_exactly_eight_mebibytes() -> None:
    data = KERNEL[:4096] + zlib.compress(b"") + bytes((16 << 20) - 4096 - 8)
    assert plain(lz4_legacy(data)) == data
