"""What is kept of kernels is found by their contents, believed only if it is the caller's, and bounded."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from hibercheck.errors import InputProblem
from hibercheck.kernel import cache as module
from hibercheck.kernel.cache import KernelCache, content_key, default_directory
from tests.conftest import ROOT
from tests.support import elf_writer
from tests.support.opened import opened

KERNEL = str(ROOT / "fixtures" / "kernels" / "small-hlt.bzImage")


@pytest.fixture
def cache(tmp_path):
    return KernelCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache with one kernel in it, and its key."""
    cache, key = KernelCache(tmp_path_factory.mktemp("made") / "cache"), content_key(KERNEL)
    cache.put(key, opened(KERNEL))
    return cache, key


@pytest.fixture
def kept(cache, made):
    """The same for one test."""
    shutil.copytree(made[0].directory, cache.directory)
    return cache, made[1]


def the_file(cache):
    (name,) = cache.entries()
    return cache.directory / name


def test_what_is_kept_is_the_kernel(kept):
    cache, key = kept
    kernel, found = opened(KERNEL), cache.get(key, "as named")
    assert (found.banner, found.build_id, found.path) == (kernel.banner, kernel.build_id, "as named")
    assert cache.get("0" * 64, KERNEL) is None


def large(path, monkeypatch):
    """A kernel above the size up to which all is hashed, changed a while ago."""
    monkeypatch.setattr(module, "WHOLE", 1 << 10)
    monkeypatch.setattr(module, "EDGE", 64)
    monkeypatch.setattr(module, "MARGIN", 0.02)
    path.write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    time.sleep(0.05)
    return path


def test_a_small_file_is_known_by_all_its_bytes(tmp_path):
    path = tmp_path / "vmlinux"
    content = bytearray(elf_writer.write_kernel(elf_writer.SYMBOLS))
    path.write_bytes(content)
    first = content_key(str(path))
    os.utime(path, (1, 1))
    assert content_key(str(path)) == first
    for place in (0x40, len(content) // 2, len(content) - 1):
        content[place] ^= 1
        path.write_bytes(content)
        assert content_key(str(path)) != first
        content[place] ^= 1
    path.write_bytes(content)
    assert content_key(str(path)) == first


def test_a_large_file_is_known_by_its_parts_and_its_state(tmp_path, monkeypatch):
    path = large(tmp_path / "vmlinux", monkeypatch)
    first = content_key(str(path))
    assert first is not None
    assert content_key(str(path)) == first
    content = path.read_bytes()
    os.utime(path, (1, 1))  # its ctime changes
    time.sleep(0.05)
    second = content_key(str(path))
    assert second not in {None, first}
    copy = tmp_path / "copy"
    copy.write_bytes(content)
    os.utime(copy, (1, 1))
    time.sleep(0.05)
    assert content_key(str(copy)) not in {None, first, second}


def test_a_large_files_symbols_count_even_if_its_state_is_forged(tmp_path, monkeypatch):
    path = large(tmp_path / "vmlinux", monkeypatch)
    content = path.read_bytes()
    place = content.index(b"native_play_dead")
    state = path.stat()
    first = content_key(str(path))
    path.write_bytes(content[:place] + b"N" + content[place + 1 :])
    monkeypatch.setattr(Path, "stat", lambda self, **_: state)
    assert content_key(str(path)) not in {None, first}


def test_a_large_file_that_was_changed_just_now_is_not_kept(tmp_path, monkeypatch):
    path = large(tmp_path / "vmlinux", monkeypatch)
    monkeypatch.setattr(module, "MARGIN", 60)
    assert content_key(str(path)) is None


@pytest.mark.parametrize("content", [b"", b'{"kind": 1}'])
def test_what_has_no_key(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert content_key(str(tmp_path / "file")) is None
    assert content_key(str(tmp_path / "absent")) is None


def test_another_program_finds_nothing(kept, monkeypatch):
    """In a checkout what reads kernels changes while the version does not."""
    _, key = kept
    module.reader_state.cache_clear()
    monkeypatch.setattr(module, "__version__", "another")
    try:
        assert content_key(KERNEL) != key
    finally:
        module.reader_state.cache_clear()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda all_: all_[:-1],
        lambda all_: all_.replace(b"6.1", b"6.2"),
        lambda _: b"{}",
        lambda a: b"0" + a,
    ],
)
def test_a_damaged_entry_is_none_and_is_mended(kept, damage):
    cache, key = kept
    file = the_file(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get(key, KERNEL) is None
    cache.put(key, opened(KERNEL))
    assert cache.get(key, KERNEL) is not None


def test_an_entry_under_another_name_is_none(kept):
    cache, key = kept
    other = "f" * 64
    the_file(cache).rename(cache.directory / f"{other}.facts")
    assert cache.get(other, KERNEL) is None
    assert cache.get(key, KERNEL) is None


def test_a_link_is_not_followed(kept, tmp_path):
    cache, key = kept
    file = the_file(cache)
    file.rename(tmp_path / "outside")
    file.symlink_to(tmp_path / "outside")
    assert cache.get(key, KERNEL) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_may_write_to_is_not_used(kept, mode):
    cache, key = kept
    cache.directory.chmod(mode)
    assert cache.get(key, KERNEL) is None
    assert "may be written to by others" in cache.problem()
    assert cache.entries() == {}
    with pytest.raises(InputProblem):
        cache.clear()


def test_a_file_that_others_may_write_to_is_not_believed(kept):
    cache, key = kept
    the_file(cache).chmod(0o622)
    assert cache.get(key, KERNEL) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["directory", "file"])
def test_another_users_cache_is_not_believed(kept, which):
    cache, key = kept
    os.chown(cache.directory if which == "directory" else the_file(cache), 12345, 12345)
    assert cache.get(key, KERNEL) is None
    if which == "directory":
        assert "belongs to another user" in cache.problem()
        before = set(cache.directory.iterdir())
        cache.put("a" * 64, opened(KERNEL))
        assert set(cache.directory.iterdir()) == before


@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "rename"])
def test_nothing_but_entries_is_left(cache, unnamed, monkeypatch):
    plain = os.open
    if not unnamed:

        def refuse(path, flags, *more, **named):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return plain(path, flags, *more, **named)

        monkeypatch.setattr(os, "open", refuse)
    for _ in range(2):
        cache.put("a" * 64, opened(KERNEL))
    assert [path.name for path in cache.directory.iterdir()] == ["a" * 64 + ".facts"]
    assert (the_file(cache).stat().st_mode & 0o777, cache.directory.stat().st_mode & 0o777) == (0o600, 0o700)


def test_it_is_bounded_and_the_longest_unused_goes(tmp_path):
    directory = tmp_path / "cache"
    KernelCache(directory).put("0" * 64, opened(KERNEL))
    size = sum(one.st_size for one in KernelCache(directory).entries().values())
    cache = KernelCache(directory, limit=int(3.5 * size))
    for number in range(1, 6):
        time.sleep(0.01)
        cache.put(str(number) * 64, opened(KERNEL))
        cache.get("1" * 64, KERNEL)  # used again and again
    assert {name[0] for name in cache.entries()} == {"1", "4", "5"}


def test_it_can_be_cleared_and_nothing_else_is(kept):
    cache, _ = kept
    (cache.directory / "mine.txt").write_text("x")
    assert cache.clear() == 1
    assert [path.name for path in cache.directory.iterdir()] == ["mine.txt"]
    assert KernelCache(cache.directory / "absent").clear() == 0


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "hibercheck"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_directory() == Path("/home/x/.cache/hibercheck")
