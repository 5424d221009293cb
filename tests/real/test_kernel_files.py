"""Kernels of the measured cases, and Debian's own if they are there, against nm, objcopy and pahole.

``HIBERCHECK_KERNELS`` names a directory that ``tests/support/debian_kernels.py --debug`` filled.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.kernel.kallsyms import MemoryBytes, find
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image

CASES = ["debian-6.1.176", "debian-6.12.94", "debian-7.3.4", "park-mwait"]
TYPES = ("thread_info", "task_struct", "cpuinfo_x86", "smp_ops", "cpuidle_driver", "mwait_cpu_dead", "swsusp_info")
KERNELS = Path(os.environ.get("HIBERCHECK_KERNELS", Path.home() / ".cache" / "hibercheck-kernels"))
# What scripts/kallsyms.c and scripts/mksysmap leave out: absolute symbols, labels, what only loading modules needs.
LEFT_OUT = re.compile(r"\.L|__(crc|kstrtab|kstrtabns|ksymtab|flags)_|kallsyms_")
MEMBER = re.compile(r"^\t\S[^\n{}]*?\b(\w+)(?:\[[^\n]*\])?; +/\* +(\d+) +(\d+) \*/", re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("nm") is None, reason="binutils is not installed")


@cache
def nm(path: Path) -> frozenset[tuple[str, int, str]]:
    """(name, address, letter) of every symbol that nm lists."""
    rows = (line.split(" ", 2) for line in subprocess.check_output(["nm", path], text=True).splitlines())
    return frozenset((row[2], int(row[0], 16), row[1]) for row in rows if row[0])


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, unpacked: Callable[[str], Path]) -> Path:
    return unpacked(f"kernels/{request.param}.vmlinux.xz")


def test_every_symbol_as_nm_lists_it(case: Path) -> None:
    wanted = nm(case)
    with open_kernel(str(case)) as kernel:
        assert {(one.name, one.address) for one in kernel.source} == {(name, address) for name, address, _ in wanted}
        names = {name for name, _, _ in wanted}
        sample = random.Random(1).sample(sorted(names), 400)
        by_name: dict[str, set[int]] = {}
        for name, address, _ in wanted:
            by_name.setdefault(name, set()).add(address)
        found = kernel.source.lookup([*sample, "no_such_name", "o_such"])
        assert {name: {one.address for one in group} for name, group in found.items()} == {
            name: by_name[name] for name in sample
        }
        for name in sample[:30]:
            assert {one.address for one in kernel.source.lookup([name])[name]} == by_name[name]


def test_letters_as_nm_has_them(case: Path) -> None:
    letters: dict[tuple[str, int], set[str]] = {}
    for name, address, letter in nm(case):
        letters.setdefault((name, address), set()).add(letter)
    with open_kernel(str(case)) as kernel:
        symbols = list(kernel.source)
    wrong = [one for one in symbols if one.letter not in letters[one.name, one.address]]
    # A few odd sections (unwinding tables, notes) have letters of their own in nm.
    assert len(wrong) < len(symbols) / 100, wrong[:10]
    assert not [one for one in wrong if "t" in letters[one.name, one.address] or "T" in letters[one.name, one.address]]


def test_nearest_is_the_last_symbol_before(case: Path) -> None:
    values = sorted({address for _, address, letter in nm(case) if letter not in "aA"})
    rng = random.Random(2)
    with open_kernel(str(case)) as kernel:
        text = kernel.section(".text")
        assert text is not None
        asked = [text.address + rng.randrange(text.size) for _ in range(300)] + [0, 1, 0x6005]
        found = kernel.nearest_many(asked)
        inside = [address for address in asked if kernel.elf.file_range(address, 1)]
        assert {address: address - offset for address, (_, offset) in found.items()} == {
            address: values[bisect_right(values, address) - 1] for address in inside
        }


@pytest.mark.skipif(shutil.which("objcopy") is None, reason="binutils is not installed")
def test_stripped_kernels_give_the_same(case: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "vmlinux"
    subprocess.run(["objcopy", "-S", case, stripped], check=True)
    same_kernel(case, stripped)


def same_kernel(full: Path, stripped: Path) -> None:
    """Compare what a stripped kernel's kallsyms say with the full one's symbol table."""
    truth = {(name, address) for name, address, _ in nm(full)}
    with open_kernel(str(full)) as whole, open_kernel(str(stripped)) as kernel:
        assert kernel.source.origin == "kallsyms"
        found = {(one.name, one.address) for one in kernel.source}
        assert not found - truth
        listed = {(name, address) for name, address, letter in nm(full) if letter not in "aA"}
        inside = {(name, address) for name, address in listed if whole.elf.file_range(address, 1)}
        assert not {name for name, _ in inside - found if not LEFT_OUT.match(name)}
        assert kernel.banner == whole.banner
        assert kernel.build_id == whole.build_id
        assert kernel.percpu_start == whole.percpu_start
        for name in ("native_play_dead", "hibernate_resume_nonboot_cpu_disable", "smp_ops", "idt_table"):
            symbol = whole.symbol(name)
            if symbol is not None and symbol.letter in "tT":
                assert kernel.require(name).address == symbol.address
                assert kernel.extent(kernel.require(name)) >= whole.extent(symbol)


@pytest.mark.parametrize(
    ("name", "release"), [("b9e5b9779f", "debian-6.1.176"), ("66a25b5b9c", "debian-7.3.4")], ids=["6.1", "7.3"]
)
def test_symbols_out_of_an_images_own_pages(unpacked: Callable[[str], Path], name: str, release: str) -> None:
    kernel_file = unpacked(f"kernels/{release}.vmlinux.xz")
    with open_image(str(unpacked(f"images/{name}.bin.xz"))) as image, open_kernel(str(kernel_file)) as kernel:
        section = kernel.section(".rodata")
        assert section is not None
        slide = image.record.jump_address - kernel.require("restore_registers").address
        moved = image.record.jump_address_phys - image.record.jump_address

        def read(address: int, size: int) -> bytes:
            assert size % 4096 == 0
            return image.frames(address + moved >> 12, size >> 12)

        start = section.address + slide
        found = find(MemoryBytes(read, start, start + section.size), start)
        assert found is not None
        truth = {(one.name, one.address) for one in kernel.source}
        ours = {(one.name, one.address - (slide if one.address >= START_KERNEL_MAP else 0)) for one in found}
        assert len(ours) > 80_000
        assert not ours - truth


@pytest.mark.skipif(shutil.which("pahole") is None, reason="pahole is not installed")
@pytest.mark.parametrize("case", CASES[:3], indirect=True)
def test_layouts_as_pahole_has_them(case: Path) -> None:
    command = ["pahole", "-F", "btf", "-C", ",".join(TYPES), case]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    blocks = re.findall(r"^struct (\w+) \{\n(.*?)^\}", listing, re.MULTILINE | re.DOTALL)
    members = sizes = 0
    with open_kernel(str(case)) as kernel:
        for name, block in blocks:
            size = re.search(r"/\* size: (\d+)", block)
            assert size is not None
            assert kernel.size_of(name) == int(size[1])
            sizes += 1
            for member, offset, length in MEMBER.findall(block):
                assert (kernel.offset_of(name, member), kernel.size_of(name, member)) == (int(offset), int(length)), (
                    member
                )
                members += 1
    assert sizes >= 4
    assert members > 100


def debian_kernels() -> list[tuple[Path, Path]]:
    """Pairs of a full vmlinux and the vmlinuz of the same release."""
    compressed = {
        path.parent.name if path.name == "vmlinuz" else path.name[8:]: path for path in KERNELS.glob("*/**/vmlinuz*")
    }
    full = {path.name[8:]: path for path in KERNELS.glob("*/usr/lib/debug/boot/vmlinux-*")}
    return [(full[release], compressed[release]) for release in sorted(full.keys() & compressed.keys())]


@pytest.mark.slow
@pytest.mark.skipif(not debian_kernels(), reason="HIBERCHECK_KERNELS names no directory with Debian's kernels")
@pytest.mark.parametrize(("full", "compressed"), debian_kernels(), ids=lambda path: path.name)
def test_debians_vmlinuz_gives_what_its_debug_package_has(full: Path, compressed: Path) -> None:
    same_kernel(full, compressed)
