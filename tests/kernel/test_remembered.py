"""A kernel that remembers says what the kernel says, and is opened only for what nobody asked before."""

from __future__ import annotations

import json
import shutil

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.kernels import open_resumee, open_resumer
from hibercheck.kernel import cache as module
from hibercheck.kernel.cache import KernelCache
from hibercheck.kernel.code.traits import DECLARED, read_traits, traits_on_demand
from hibercheck.kernel.kernel import open_kernel
from hibercheck.kernel.remembered import plain, revived
from tests.conftest import ROOT

KERNELS = ROOT / "fixtures" / "kernels"
CURRENT = str(KERNELS / "small-current.bzImage")
ROLES = ("resume", "native", "cpuidle")


@pytest.fixture
def cache(tmp_path):
    return KernelCache(tmp_path / "cache")


def no_kernel():
    raise AssertionError("the kernel was opened")


def told(kernel):
    """Answers to questions of every kind, among them some that have none."""

    def tried(question):
        try:
            return question()
        except MissingFact as missing:
            return missing.message, missing.path, missing.advice

    text = kernel.require("_text")
    traits = traits_on_demand(kernel)
    return [
        *(kernel.path, kernel.banner, kernel.release, kernel.build_id, kernel.alignment, kernel.supplemented),
        *(kernel.percpu_start, kernel.percpu_zero_based, kernel.banner_place),
        kernel.symbols(["_text", "no_such_symbol", "native_play_dead"]),
        kernel.symbol("no_such_symbol"),
        tried(lambda: kernel.require("no_such_symbol")),
        kernel.variants("native_play_dead"),
        kernel.nearest(text.address + 5),
        kernel.nearest(5),
        kernel.nearest_many([text.address, 7, text.address + 64]),
        kernel.extent(text),
        kernel.read(text.address, 64),
        tried(lambda: kernel.read(1 << 40, 8)),
        kernel.read_string(kernel.require("linux_banner").address, 13),
        kernel.section(".no.such.section"),
        tried(lambda: kernel.offset_of("smp_ops", "play_dead")),
        tried(lambda: kernel.size_of("cpuinfo_x86")),
        tried(lambda: kernel.has_member("smp_ops", "no_such_member")),
        [getattr(traits, one.name) for one in DECLARED],
        *(traits.loops(role) for role in ROLES),
        traits.park_loops,
        list(read_traits(kernel)),
        getattr(traits.replaced(resume_park=traits.play_dead_order), "resume_park"),  # noqa: B009 - as declared
    ]


@pytest.mark.parametrize(
    "name", ["small-current.bzImage", "kcore-hlt.bzImage", "v73-stock.vmlinux.xz", "mid-current.vmlinux.xz"]
)
def test_all_answers_are_the_kernels_and_the_second_time_it_is_not_opened(name, cache):
    path = str(KERNELS / name)
    with open_resumer(path, None) as kernel:
        expected = told(kernel)
    with open_resumer(path, None, cache) as first:
        assert told(first) == expected
    with cache.opened(path, no_kernel) as second:
        assert told(second) == expected


def test_an_answer_is_one_object_however_often_it_is_asked_for(cache):
    """CPUs are judged once where they wait in the same loop, and that is told by the object."""
    for _ in range(2):
        with open_resumer(CURRENT, None, cache) as kernel:
            traits = traits_on_demand(kernel)
            for role in ROLES:
                again = traits_on_demand(kernel).replaced().loops(role)
                assert all(one is other for one, other in zip(traits.loops(role), again, strict=True))


def test_what_is_new_opens_the_kernel_and_is_kept_too(cache):
    with open_resumee(CURRENT, None, cache) as kernel:
        text = kernel.require("_text").address
    opened = []

    def open_it():
        opened.append(1)
        return open_kernel(CURRENT)

    with cache.opened(CURRENT, open_it) as kernel:
        assert kernel.require("_text").address == text
        assert not opened
        found = kernel.read(text, 16)
        assert kernel.read(text, 16) == found
        assert opened == [1]
    with cache.opened(CURRENT, no_kernel) as kernel:
        assert kernel.read(text, 16) == found


def test_a_kernel_that_cannot_be_opened_is_told_as_without_a_cache(cache, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes((KERNELS / "small-current.bzImage").read_bytes()[:100_000])
    lines = []
    for kept in (None, cache, cache):
        with pytest.raises(Exception, match=str(broken)) as raised:
            open_resumer(str(broken), None, kept)
        lines.append(str(raised.value))
    assert len(set(lines)) == 1
    assert not cache.entries()


def test_answers_by_a_file_of_symbols_are_not_kept(cache, tmp_path):
    symbols = tmp_path / "System.map"
    with open_kernel(CURRENT) as kernel:
        symbols.write_text("".join(f"{one.address:x} {one.letter} {one.name}\n" for one in kernel.source))
    with open_resumer(CURRENT, str(symbols), cache) as kernel:
        assert kernel.require("_text")
    assert not cache.entries()


def test_a_kernel_that_changes_while_it_is_asked_is_not_kept(cache, tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes((KERNELS / "small-current.bzImage").read_bytes())
    with open_resumee(str(path), None, cache) as kernel:
        assert kernel.banner
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert not cache.entries()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"asked": 1}', b"nonsense"])
def test_answers_that_are_damaged_are_asked_again(cache, content):
    with open_resumee(CURRENT, None, cache) as kernel:
        banner = kernel.banner
    (name,) = cache.entries()
    (cache.directory / name).write_bytes(content)
    with open_resumee(CURRENT, None, cache) as kernel:
        assert kernel.banner == banner


def test_another_name_is_told_by_its_own(cache, tmp_path):
    with open_resumee(CURRENT, None, cache) as kernel, pytest.raises(MissingFact):
        kernel.read(1 << 40, 8)
    other = tmp_path / "other"
    shutil.copyfile(CURRENT, other)
    with cache.opened(str(other), no_kernel) as kernel, pytest.raises(MissingFact) as raised:
        kernel.read(1 << 40, 8)
    assert raised.value.path == str(other)


def test_no_more_is_kept_than_that(cache, monkeypatch):
    monkeypatch.setattr("hibercheck.kernel.remembered.MOST", 40)
    with open_resumee(CURRENT, None, cache) as kernel:
        text = kernel.require("_text").address
        expected = [kernel.read(text + at, 1) for at in range(200)]
    with open_resumee(CURRENT, None, cache) as kernel:
        assert [kernel.read(text + at, 1) for at in range(200)] == expected
    (status,) = cache.entries().values()
    assert status.st_size < 40_000


def test_every_answer_comes_back_as_it_was():
    for value in (None, True, 1 << 70, -1, "a\u2028", b"\0\xff", (), (1, (b"x", None)), frozenset({"a", "b"})):
        assert revived(json.loads(json.dumps(plain(value)))) == value
    with pytest.raises(TypeError):
        plain(object())


def test_the_program_that_reads_is_part_of_the_key(cache, monkeypatch):
    with open_resumee(CURRENT, None, cache) as kernel:
        banner = kernel.banner
    with cache.opened(CURRENT, no_kernel) as kernel:
        assert kernel.banner == banner
    monkeypatch.setattr(module, "reader_state", lambda: 0)
    with pytest.raises(AssertionError, match="opened"):
        cache.opened(CURRENT, no_kernel)
