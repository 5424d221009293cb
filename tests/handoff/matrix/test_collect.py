"""Finding kernels, and keeping their facts."""

from __future__ import annotations

import json
import os

import pytest

from hibercheck.errors import HibercheckError, InputProblem
from hibercheck.handoff.matrix import collect
from hibercheck.handoff.matrix.collect import kernels_named, read_brief
from hibercheck.handoff.matrix.scenario import Settings, parse_scenario
from tests.conftest import ROOT

KERNEL = ROOT / "fixtures" / "kernels" / "small-hlt.bzImage"


@pytest.fixture
def settings():
    plain = Settings()
    return Settings(scenarios=(parse_scenario("nosmt", plain.machine),))


@pytest.fixture
def opened(monkeypatch):
    """The kernels that were opened and not taken from the cache."""
    paths = []
    plain = collect.open_kernel
    monkeypatch.setattr(collect, "open_kernel", lambda path: paths.append(path) or plain(path))
    return paths


def test_a_kernel_is_read_once(settings, opened, tmp_path):
    first = read_brief(str(KERNEL), settings, tmp_path)
    second = read_brief(str(KERNEL), settings, tmp_path)
    assert opened == [str(KERNEL)]
    assert first == second
    assert [path.name for path in tmp_path.glob("*/*.json")] == [f"{first.build_id}.json"]


def test_a_changed_file_is_read_again(settings, opened, tmp_path):
    copy = tmp_path / "vmlinuz"
    copy.write_bytes(KERNEL.read_bytes())
    read_brief(str(copy), settings, tmp_path / "cache")
    os.utime(copy, ns=(1, 1))
    read_brief(str(copy), settings, tmp_path / "cache")
    assert len(opened) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"kind": 1', b"\xff\xfe"])
def test_a_damaged_cache_only_costs_time(damage, settings, opened, tmp_path):
    first = read_brief(str(KERNEL), settings, tmp_path)
    (kept,) = tmp_path.glob("*/*.json")
    kept.write_bytes(damage)
    assert read_brief(str(KERNEL), settings, tmp_path) == first
    assert read_brief(str(KERNEL), settings, tmp_path) == first
    assert len(opened) == 2  # the second time the cache had been mended


def test_a_cache_that_cannot_be_written_only_costs_time(settings, opened, tmp_path):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert read_brief(str(KERNEL), settings, tmp_path / "cache").release.startswith("6.1")
    assert len(opened) == 2


def test_a_link_that_leads_out_of_the_cache_is_not_followed(settings, opened, tmp_path):
    read_brief(str(KERNEL), settings, tmp_path)
    (link,) = tmp_path.glob("*/*.link")
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    link.write_text("../outside")
    read_brief(str(KERNEL), settings, tmp_path)
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


def test_facts_without_symbols_say_so(settings, tmp_path):
    first = read_brief(str(KERNEL), settings, tmp_path)
    (kept,) = tmp_path.glob("*/*.json")
    document = json.loads(kept.read_text())
    del document["symbols"]["init_top_pgt"]
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(document))
    with pytest.raises(HibercheckError, match="has no symbol init_top_pgt"):
        read_brief(str(facts), settings, None)
    assert first.tables[0] is not None
