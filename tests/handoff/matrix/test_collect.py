"""Finding kernels, and reading each once."""

from __future__ import annotations

import json
import os
import zlib

import pytest

from hibercheck.errors import HibercheckError, InputProblem
from hibercheck.handoff.matrix import collect
from hibercheck.handoff.matrix.collect import kernels_named, read_summary
from hibercheck.kernel.cache import KernelCache
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel
from tests.conftest import ROOT

KERNEL = ROOT / "fixtures" / "kernels" / "small-hlt.bzImage"


@pytest.fixture
def opened(monkeypatch):
    """The kernels that were opened and not taken from the cache."""
    paths = []
    plain = collect.open_kernel
    monkeypatch.setattr(collect, "open_kernel", lambda path: paths.append(path) or plain(path))
    return paths


def test_a_kernel_is_read_once(opened, tmp_path):
    cache = KernelCache(tmp_path / "cache")
    first = read_summary(str(KERNEL), cache)
    second = read_summary(str(KERNEL), cache)
    assert opened == [str(KERNEL)]
    assert first == second
    assert len(cache.entries()) == 1


def test_another_kernel_in_its_place_is_read(opened, tmp_path):
    """Of the same name, size, times and build id, as a copy with ``cp -p`` of a build with SOURCE_DATE_EPOCH."""
    cache, place = KernelCache(tmp_path / "cache"), tmp_path / "vmlinuz"
    plain = KERNEL.read_bytes()
    place.write_bytes(plain)
    os.utime(place, (0, 0))
    first = read_summary(str(place), cache)
    # a byte of the real-mode setup that nothing reads, and the CRC-32 that ends a bzImage (arch/x86/boot/tools/build.c)
    other = bytes([plain[0] ^ 1]) + plain[1:-4]
    place.write_bytes(other + (zlib.crc32(other) ^ 0xFFFFFFFF).to_bytes(4, "little"))
    os.utime(place, (0, 0))
    assert read_summary(str(place), cache) == first
    assert len(opened) == 2


def test_a_copy_is_known(opened, tmp_path):
    cache = KernelCache(tmp_path / "cache")
    read_summary(str(KERNEL), cache)
    (tmp_path / "copy").write_bytes(KERNEL.read_bytes())
    read_summary(str(tmp_path / "copy"), cache)
    assert opened == [str(KERNEL)]


def test_a_kernel_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    cache, place = KernelCache(tmp_path / "cache"), tmp_path / "vmlinuz"
    place.write_bytes(KERNEL.read_bytes())
    plain = collect.open_kernel

    def changing(path):
        kernel = plain(path)
        place.write_bytes(KERNEL.read_bytes() + b"more")
        return kernel

    monkeypatch.setattr(collect, "open_kernel", changing)
    read_summary(str(place), cache)
    assert cache.entries() == {}


def test_a_cache_that_cannot_be_written_only_costs_time(opened, tmp_path):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert read_summary(str(KERNEL), KernelCache(tmp_path / "cache")).release.startswith("6.1")
    assert len(opened) == 2


def test_directories_and_lists(tmp_path):
    for name in ("vmlinuz-6.1", "a.facts.json", "System.map", "initrd.img", "b.deb"):
        (tmp_path / name).write_text("")
    (tmp_path / "modules").mkdir()
    names = [f"{tmp_path}/{name}" for name in ("a.facts.json", "b.deb", "vmlinuz-6.1")]
    assert list(kernels_named([str(tmp_path)])) == names
    listed = tmp_path / "list.txt"
    listed.write_text(f"# kernels\n{tmp_path}\n\nvmlinux\n")
    assert list(kernels_named([f"@{listed}", "x"])) == [*names, "vmlinux", "x"]


@pytest.mark.parametrize("what", ["empty", "@missing", "@binary"])
def test_nothing_to_find_is_an_error(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputProblem):
        list(kernels_named([what]))


def test_facts_without_symbols_say_so(tmp_path):
    first = read_summary(str(KERNEL), None)
    with open_kernel(str(KERNEL)) as kernel:
        document = json.loads(json.dumps(facts_of(kernel)))
    del document["symbols"]["init_top_pgt"]
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(document))
    with pytest.raises(HibercheckError, match="has no symbol init_top_pgt"):
        read_summary(str(facts), None)
    assert first.tables[0] is not None
