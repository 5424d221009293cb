from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import HibercheckError, MissingFact, Unsupported
from hibercheck.kernel.kernel import Kernel, open_kernel
from tests.support.btf_writer import INT, STRUCT, Type, write_btf
from tests.support.elf_writer import (
    ALLOC,
    BANNER,
    BUILD_ID,
    RODATA,
    SYMBOLS,
    TEXT,
    Section,
    Sym,
    write_elf,
    write_kernel,
)
from tests.support.wrappers import COMPRESS, bzimage

CONFIG = b'# made\nCONFIG_SMP=y\nCONFIG_HZ=250\nCONFIG_LOCALVERSION="-made"\n# CONFIG_KEXEC is not set\n'


def opened(tmp_path: Path, data: bytes) -> Kernel:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    return open_kernel(str(path))


def test_what_a_kernel_says_of_itself(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel:
        assert kernel.banner == BANNER.rstrip(b"\n\0").decode()
        assert kernel.release == "6.1.0-made"
        assert kernel.build_id == BUILD_ID
        assert kernel.percpu_zero_based
        assert kernel.config is None
        assert kernel.wrappers == ()
    assert START_KERNEL_MAP == 0xFFFFFFFF80000000


def test_a_kernel_in_wrappers(tmp_path: Path) -> None:
    with opened(tmp_path, COMPRESS["xz"](bzimage(COMPRESS["zstd"](write_kernel(SYMBOLS))))) as kernel:
        assert kernel.wrappers == ("xz", "bzImage")
        assert kernel.require("idt_table").address == TEXT + 0x4000000


def test_bytes_by_address(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel:
        assert kernel.read(TEXT + 0x3000000, 8) == bytes(range(8))
        assert kernel.read_string(0) == b"percpu data"
        assert kernel.read_string(TEXT + 0x3000FFF, 100) == b"\xff"
        assert kernel.read(kernel.require("idt_table").address, 16) == bytes(16)
        with pytest.raises(MissingFact):
            kernel.read_string(1 << 62)


def test_symbols_are_remembered(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel:
        first = kernel.symbols(["idt_table", "absent", "native_play_dead"])
        assert sorted(first) == ["idt_table", "native_play_dead"]
        kernel.source.lookup = None  # type: ignore[method-assign, assignment]
        assert kernel.symbol("absent") is None
        assert kernel.require("idt_table") == first["idt_table"]
        with pytest.raises(MissingFact, match=r"no symbol absent in its \.symtab \(\d+ symbols\)"):
            kernel.require("absent")


def test_several_of_one_name(tmp_path: Path) -> None:
    symbols = [*SYMBOLS, Sym("init", TEXT + 8, 1), Sym("init", TEXT + 16, 1), Sym("init.cold", TEXT + 32, 1)]
    with opened(tmp_path, write_kernel(symbols)) as kernel:
        assert [one.address - TEXT for one in kernel.variants("init")] == [8, 16, 32]
        assert kernel.require("init").address == TEXT + 8


def test_naming_addresses(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel:
        named = kernel.nearest_many([TEXT + 0x105, 7, TEXT + 0x2000, 1 << 40])
        assert {address: (one.name, offset) for address, (one, offset) in named.items()} == {
            TEXT + 0x105: ("native_play_dead", 5),
            7: ("__per_cpu_start", 7),
        }
        assert kernel.nearest(TEXT - 1) is None


def test_extents(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel:
        assert kernel.extent(kernel.require("native_play_dead")) == 0x20
        assert kernel.extent(kernel.require("_text")) == 0x100
        assert kernel.extent(kernel.require("__per_cpu_start")) == 4096


def test_percpu_area_with_addresses(tmp_path: Path) -> None:
    at = TEXT + 0x5000000
    data = write_elf([Section(".text", TEXT, b"x" * 16), Section(".data..percpu", at, bytes(64))])
    with opened(tmp_path, data) as kernel:
        assert kernel.percpu_start == at
    with (
        opened(tmp_path, write_elf([Section(".text", TEXT, b"x")])) as kernel,
        pytest.raises(MissingFact, match="per-CPU"),
    ):
        assert kernel.percpu_start
    with opened(tmp_path, write_kernel([*SYMBOLS[:3], Sym("__per_cpu_start", at, 0, 0, 1, 5)])) as kernel:
        assert kernel.percpu_start == at
        assert not kernel.percpu_zero_based


def test_types(tmp_path: Path) -> None:
    types = write_btf([Type(INT, "long", 8), Type(STRUCT, "thread_info", 16, (("flags", 1, 0), ("work", 1, 64)))])
    with opened(tmp_path, write_kernel(SYMBOLS, extra=[Section(".BTF", RODATA + 0x800000, types)])) as kernel:
        assert kernel.offset_of("thread_info", "work") == 8
        assert kernel.size_of("thread_info") == 16
        assert kernel.has_member("thread_info", "flags")
        assert not kernel.has_member("thread_info", "absent")


def test_without_types(tmp_path: Path) -> None:
    with opened(tmp_path, write_kernel(SYMBOLS)) as kernel, pytest.raises(MissingFact, match=r"no \.BTF section"):
        kernel.has_member("thread_info", "flags")


@pytest.mark.parametrize("damaged", [False, True])
def test_embedded_configuration(tmp_path: Path, damaged: bool) -> None:
    packed = bytearray(gzip.compress(CONFIG))
    if damaged:
        packed[12] ^= 0xFF
        packed[20] ^= 0xFF
    rodata = b"IKCFG_ST" + bytes(packed) + b"IKCFG_ED"
    with opened(tmp_path, write_kernel(SYMBOLS, rodata=rodata)) as kernel:
        if not damaged:
            assert kernel.config == {"CONFIG_SMP": "y", "CONFIG_HZ": "250", "CONFIG_LOCALVERSION": "-made"}
        else:
            assert kernel.config is None


def test_no_banner(tmp_path: Path) -> None:
    kernel = opened(tmp_path, write_elf([Section(".text", TEXT, b"x" * 64, ALLOC)]))
    with pytest.raises(MissingFact, match="Linux version"):
        assert kernel.banner


WEAK = b"Linux version 6.1.0-made (a@b) (gcc) # SMP \n\0"
STRONG = b"Linux version 6.1.0-made (a@b) (gcc) #7 SMP Thu Jan 1 00:00:00 UTC 1970\n\0"


@pytest.mark.parametrize(
    ("copies", "number"), [((WEAK, STRONG), 1), ((STRONG, WEAK), 0), ((STRONG, STRONG), 1), ((WEAK,), 0)]
)
def test_the_banner_among_its_copies(tmp_path: Path, copies: tuple[bytes, ...], number: int) -> None:
    """A kernel since 6.1 holds the banner twice, first as it was before its build number was known."""
    rodata = b"".join(one.ljust(128, b"\0") for one in copies)
    data = write_elf([Section(".text", TEXT, b"x" * 64, ALLOC), Section(".rodata", RODATA, rodata, ALLOC)])
    with opened(tmp_path, data) as kernel:
        assert kernel.banner == copies[number].rstrip(b"\0\n").decode()
        assert kernel.banner_place == RODATA + 128 * number


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"x" * 64, "is a program or a library, not a Linux kernel"),
        (STRONG, r"is a Linux kernel that runs as a program \(user-mode Linux\)"),
    ],
)
def test_what_lies_where_no_kernel_does(tmp_path: Path, contents: bytes, what: str) -> None:
    data = write_elf([Section(".text", 0x401000, b"x" * 64, ALLOC), Section(".rodata", 0x402000, contents, ALLOC)])
    with pytest.raises(Unsupported, match=rf"vmlinux: {what}.*; give a vmlinux or vmlinuz"):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    ("kind", "sections", "what"),
    [
        (3, (), r"is a library with a Linux kernel .*\(libkrunfw\).*; give the vmlinux that it was made of"),
        (3, (".interp",), r"is a Linux kernel that runs as a program \(user-mode Linux\)"),
        (2, (), r"is a Linux kernel that runs as a program \(user-mode Linux\)"),
    ],
)
def test_a_kernel_inside_a_library(tmp_path: Path, kind: int, sections: tuple[str, ...], what: str) -> None:
    more = [Section(name, 0x1000, b"/lib/ld.so\0", ALLOC) for name in sections]
    data = write_elf([*more, Section(".data", 0x10000, b"x" * 64 + STRONG, ALLOC)], kind=kind)
    with pytest.raises(Unsupported, match=f"vmlinux: {what}"):
        opened(tmp_path, data)


def test_another_systems_kernel(tmp_path: Path) -> None:
    kernel = opened(tmp_path, write_elf([Section(".text", TEXT, b"x" * 64, ALLOC)]))
    with pytest.raises(MissingFact, match="'Linux version'; is it a Linux kernel"):
        kernel.symbols(["_text"])


def test_a_file_without_an_end() -> None:
    if not Path("/proc/kallsyms").exists():
        pytest.skip("there is no /proc/kallsyms")
    with pytest.raises(HibercheckError, match=r"/proc/kallsyms: (is a list of symbols .*, not a kernel|is empty)"):
        open_kernel("/proc/kallsyms")


def test_through_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(write_kernel(SYMBOLS)))
    writer.start()
    with open_kernel(str(tmp_path / "fifo")) as kernel:
        assert kernel.release == "6.1.0-made"
    writer.join()


def test_symbols_through_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(write_kernel(SYMBOLS))
    os.mkfifo(tmp_path / "fifo")
    lines = "".join(f"{one.value:016x} T {one.name}\n" for one in SYMBOLS if one.name)
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_text(lines))
    writer.start()
    with open_kernel(str(tmp_path / "vmlinux"), symbols=str(tmp_path / "fifo")) as kernel:
        assert kernel.source.origin == str(tmp_path / "fifo")
    writer.join()
