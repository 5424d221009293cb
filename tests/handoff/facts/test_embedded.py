"""The resumee's kernel out of its image: what is the same as in its file, and what is done where it is not enough."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hibercheck.errors import HibercheckError, Mismatch, MissingFact
from hibercheck.handoff.facts.embedded import WRAPPER, find_resumee
from hibercheck.handoff.facts.resumee import read_resumee
from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.code.needed import SYMBOLS
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.support.cases import options_of

NAMELESS = "refused"
"""The case whose resumee was built without CONFIG_KALLSYMS_ALL."""
RELEASE = "7.3.4-lab-v73-stock"


@pytest.mark.parametrize("name", ["fatal", "same-build", "paging-mode", "latent"])
def test_it_is_the_kernel_that_its_file_holds(committed, tmp_path, name):
    case = committed(name)
    with open_image(case["image"]) as image, open_kernel(case["resumee"]) as file:
        found = find_resumee(image, None, tmp_path)
        own = found.kernel
        assert (own.banner, own.build_id, own.wrappers) == (file.banner, file.build_id, (WRAPPER,))
        assert found.remarks == ()
        ours, theirs = own.symbols(SYMBOLS), file.symbols(SYMBOLS)
        assert {each: ours[each].address for each in ours} == {each: theirs[each].address for each in theirs}
        entry = theirs["restore_registers"].address
        assert own.read(entry, 32) == file.read(entry, 32)
        with pytest.raises(MissingFact):  # freed after boot: what lies there is not the kernel's
            own.read(file.require("__init_begin").address, 8)
        assert own.elf.data.find(b"Linux version ") > 0


@pytest.mark.parametrize("name", ["fatal", "latent"])
def test_it_names_per_cpu_variables_of_which_it_holds_no_bytes(committed, tmp_path, name):
    with open_image(committed(name)["image"]) as image, open_kernel(committed(name)["resumee"]) as file:
        own = find_resumee(image, None, tmp_path).kernel
        assert own.percpu_zero_based
        line = own.require("mwait_cpu_dead").address
        for kernel in (own, file):
            symbol, offset = kernel.nearest(line + 4)
            assert (symbol.name, offset) == ("mwait_cpu_dead", 4)
        assert own.nearest(own.require("__per_cpu_end").address + 0x1000) is None


@pytest.mark.parametrize("name", ["fatal", "safe", "benign", "no-overlap", "paging-mode", "latent"])
def test_the_image_alone_says_what_the_kernels_file_says(committed, name):
    case = committed(name)
    options = options_of(case["args"])
    given = check(case["image"], case["resumer"], case["resumee"], options)
    own = check(case["image"], case["resumer"], None, options)
    assert (own.outcome, own.verdict, own.headline, own.findings) == (
        given.outcome, given.verdict, given.headline, given.findings
    )  # fmt: skip
    assert own.resumee.path == case["image"]


def test_a_kernel_that_keeps_no_names_of_data_is_asked_for(committed, tmp_path):
    case = committed(NAMELESS)
    with (
        open_image(case["image"]) as image,
        pytest.raises(MissingFact, match=rf"CONFIG_KALLSYMS_ALL.*{RELEASE} is not installed; .*--resumee"),
    ):
        find_resumee(image, None, tmp_path)


def test_then_the_installed_kernel_of_its_release_is_taken_and_said(committed, tmp_path):
    case = committed(NAMELESS)
    installed = tmp_path / "usr/lib/debug/boot" / f"vmlinux-{RELEASE}"
    installed.parent.mkdir(parents=True)
    shutil.copy(case["resumee"], installed)
    with open_image(case["image"]) as image:
        found = find_resumee(image, None, tmp_path)
        assert found.kernel.path == str(installed)
        assert "CONFIG_KALLSYMS_ALL" in found.remarks[0]
        assert str(installed) in found.remarks[0]
        assert read_resumee(image, found.kernel).present


def test_an_installed_kernel_of_another_build_is_not(committed, tmp_path):
    case = committed(NAMELESS)
    installed = tmp_path / "boot" / f"vmlinux-{RELEASE}"
    installed.parent.mkdir()
    shutil.copy(committed("fatal")["resumee"], installed)
    with open_image(case["image"]) as image, pytest.raises(MissingFact, match="CONFIG_KALLSYMS_ALL"):
        find_resumee(image, None, tmp_path)


def system_map(kernel: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_kernel(kernel) as file:
        lines = (f"{one.address:016x} {one.letter if one.letter != '?' else 'T'} {one.name}\n" for one in file.source)
        target.write_text("".join(lines))
    return target


def test_or_its_list_of_symbols_with_the_images_own_pages(committed, tmp_path):
    case = committed(NAMELESS)
    listed = system_map(case["resumee"], tmp_path / "boot" / f"System.map-{RELEASE}")
    with open_image(case["image"]) as image:
        found = find_resumee(image, None, tmp_path)
        assert (found.kernel.path, found.kernel.source.origin) == (case["image"], str(listed))
        assert str(listed) in found.remarks[0]
        assert read_resumee(image, found.kernel).missing == {}


def test_symbols_that_are_given_replace_its_own(committed, tmp_path):
    case = committed("fatal")
    listed = system_map(case["resumee"], tmp_path / "System.map")
    options = options_of(case["args"], resumee_symbols=str(listed))
    assert check(case["image"], case["resumer"], None, options).verdict.value == "fatal"
    other = system_map(committed("safe")["resumer"], tmp_path / "other.map")
    with pytest.raises(Mismatch, match="belongs to another kernel"):
        check(case["image"], case["resumer"], None, options_of(case["args"], resumee_symbols=str(other)))


def damaged(kernel: str, target: Path, change) -> str:
    data = bytearray(Path(kernel).read_bytes())
    with open_kernel(kernel) as file:
        change(data, file)
    target.write_bytes(data)
    return str(target)


def test_a_file_of_the_same_banner_and_another_build_id_is_refused(committed, tmp_path):
    case = committed("fatal")

    def change(data, file):
        at = data.index(bytes.fromhex(file.build_id))
        data[at] ^= 1

    other = damaged(case["resumee"], tmp_path / "vmlinux", change)
    with pytest.raises(Mismatch, match="banner of the image's kernel, but build id"):
        check(case["image"], case["resumer"], other, options_of(case["args"]))


def test_a_file_of_the_same_banner_whose_functions_lie_elsewhere_is_refused(committed, tmp_path):
    case = committed("fatal")

    def change(data, file):
        text = file.section(".text")
        start, size = file.elf.place_of(text)
        moved = data[start : start + size]
        data[start : start + size] = moved[-32:] + moved[:-32]

    other = damaged(case["resumee"], tmp_path / "vmlinux", change)
    with pytest.raises(Mismatch, match=r"other code: \d+ of \d+ pieces of its text differ") as raised:
        check(case["image"], case["resumer"], other, options_of(case["args"]))
    differ, compared = map(int, re.findall(r"\d+", raised.value.message)[:2])
    assert differ > 0.9 * compared


def test_damage_on_the_way_is_an_error_of_ours(committed, tmp_path):
    """Zeros over a part of the kernel's read-only data: no symbols then, and no traceback."""
    case = committed("same-build")
    data = bytearray(Path(case["image"]).read_bytes())
    for at in range(1 << 20, len(data), 1 << 20):
        data[at : at + 4096] = bytes(4096)
    broken = tmp_path / "image.bin"
    broken.write_bytes(data)
    with pytest.raises(HibercheckError):
        check(str(broken), case["resumer"], None, options_of(case["args"]))
