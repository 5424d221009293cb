"""A bootconfig at the end of an initramfs, or in a kernel, and the parameters that it makes."""

from __future__ import annotations

import gzip
import lzma
import os
import struct

import pytest

from hibercheck.errors import InputProblem
from hibercheck.host.bootconfig import MAGIC, MOST, kernel_parameters, of_file, of_system, parse_tail


def tail(text, *, checksum=0, fill=b"", size=None):
    """Return what `bootconfig -a` appends (tools/bootconfig/main.c)."""
    data = text.encode()
    total = sum(data) + checksum & 0xFFFFFFFF
    return data + struct.pack("<2I", len(data) if size is None else size, total) + MAGIC + fill


@pytest.mark.parametrize(("end", "found"), [
    (tail("kernel.nosmt"), "kernel.nosmt"), (tail("a = b\0\0"), "a = b"),
    (tail("kernel.nosmt", fill=b"\0\0\0"), "kernel.nosmt"),
    (tail("kernel.nosmt", fill=b"\0\0\0\0"), None),  # a boot loader fills up to 4 bytes only
    (tail("kernel.nosmt", checksum=1), None), (tail("kernel.nosmt", size=MOST + 1), None),
    (tail("kernel.nosmt", size=4000), None), (b"", None), (MAGIC, None), (b"\0" * 4096, None),
])  # fmt: skip
def test_the_end_of_an_initramfs(end, found, tmp_path):
    assert parse_tail(end) == found
    place = tmp_path / "initrd.img"
    place.write_bytes(b"070701" + b"\0" * 70000 + end)
    want = None if found is None else parse_tail((b"070701" + b"\0" * 70000 + end)[-MOST:])
    assert of_file(str(place)) == (want or "")
    assert of_system(place, tmp_path.parent) is not None


def test_a_file_that_is_not_there(tmp_path):
    assert of_system(tmp_path / "none", tmp_path) is None
    with pytest.raises(InputProblem):
        of_file(str(tmp_path / "none"))


@pytest.mark.parametrize(("text", "line"), [
    ("", ""), ("kernel.nosmt\n", "nosmt"), ("kernel.hibernate = no", "hibernate=no"),
    ("kernel {\n  cpuidle.off = 1 # why\n  resume = /dev/sda2; quiet }\n", "cpuidle.off=1 resume=/dev/sda2 quiet"),
    ("kernel.console = ttyS0, tty0", "console=ttyS0 console=tty0"), ("init.x = 1\nother.nosmt", ""),
    ("kernel.a = 'two words', \"x\"", 'a="two words" a=x'), ("kernel { a { b = 1 } }", "a.b=1"),
    ("# nothing\nkernel.a = 1\nkernel.a += 2\nkernel.b := 3", "a=1 a=2 b=3"), ("kernel.a = 1\nkernel.a := 2", "a=2"),
    ("kernel.a = 1,\n   2 # more\nkernel.b", "a=1 a=2 b"), ("kernelx.a = 1", ""),
])  # fmt: skip
def test_the_parameters_that_it_makes(text, line):
    assert kernel_parameters(text) == line


@pytest.mark.parametrize("text", [
    "kernel.a = 1\nkernel.a = 2", "kernel {", "}", "kernel.a = 'x", "!", "kernel..a = 1", "a: 1", "= 1", "{",
])  # fmt: skip
def test_what_is_no_bootconfig(text):
    with pytest.raises(ValueError, match=r"."):
        kernel_parameters(text)


def test_hostile_text_takes_no_time():
    for text in ("a{" * 16000, "a=" + "," * 32000, "#" * 32000, "\n" * 32000, " " * 32000, "a+" * 16000, "a='" * 10000):
        try:
            kernel_parameters(text)
        except ValueError:
            continue


CPIO = b"070701" + b"0" * 104


def lz4_legacy(content):
    """Return content as ``lz4 -l`` packs it, in one block."""
    block = pytest.importorskip("lz4.block").compress(content, store_size=False)
    return struct.pack("<2I", 0x184C2102, len(block)) + block


@pytest.mark.parametrize(("made", "is_one"), [
    (lambda: CPIO, True), (lambda: b"\0" * 512 + CPIO, True), (lambda: gzip.compress(CPIO), True),
    (lambda: b"\0" * 512 + gzip.compress(CPIO), True), (lambda: lz4_legacy(CPIO + os.urandom(3 << 20)), True),
    (lambda: lzma.compress(CPIO), True),
    (lambda: b"", False), (lambda: b"S1SUSPEND" * 900, False), (lambda: gzip.compress(b"no archive"), False),
    (lambda: b"\x1f\x8b" + b"x" * 40, False), (lambda: b"MZ" + b"\0" * 600, False),
])  # fmt: skip
def test_what_is_no_initramfs_is_not_taken_for_one_without_a_bootconfig(made, is_one, tmp_path):
    """A wrong file would take the condition away."""
    place = tmp_path / "initrd"
    place.write_bytes(made())
    if is_one:
        assert of_file(str(place)) == ""
        return
    with pytest.raises(InputProblem, match="is not an initramfs"):
        of_file(str(place))
