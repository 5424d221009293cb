"""``hibercheck cache``, and where a command keeps what it read of kernels."""

from __future__ import annotations

import json

import pytest

from hibercheck.cli.run import run
from hibercheck.kernel.cache import LIMIT
from tests.conftest import ROOT

KERNEL = str(ROOT / "fixtures" / "kernels" / "small-hlt.vmlinux.xz")


@pytest.fixture
def shown(monkeypatch, tmp_path, capsys):
    """Return a function that runs a command with a home of its own, and returns what it prints."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def show(*words, status=0):
        assert run(list(words)) == status
        return capsys.readouterr()

    return show


def test_what_is_kept_is_counted_and_removed(shown, tmp_path):
    place = tmp_path / "place"
    assert json.loads(shown("cache", "--cache-dir", str(place), "--format", "json").out)["kernels"] == 0
    shown("matrix", KERNEL, "--cache-dir", str(place), "--format", "json")
    kept = json.loads(shown("cache", "--cache-dir", str(place), "--format", "json").out)
    assert kept["bytes"] == sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert kept == {"directory": str(place), "problem": None, "kernels": 1, "limit": LIMIT, "removed": None} | {
        "bytes": kept["bytes"]
    }
    assert shown("cache", "--cache-dir", str(place)).out == f"{place}: 1 kernels, 0 of {LIMIT >> 20} MiB\n"
    assert shown("cache", "--cache-dir", str(place), "--clear").out == f"{place}: 1 files removed\n"
    assert json.loads(shown("cache", "--cache-dir", str(place), "--format", "json").out)["kernels"] == 0


def test_without_a_name_it_is_the_users_own(shown, tmp_path):
    shown("matrix", KERNEL, "--format", "json")
    assert json.loads(shown("cache", "--format", "json").out)["directory"] == str(tmp_path / "home" / "hibercheck")


def test_a_place_of_others_is_not_used_and_told(shown, tmp_path):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    told = shown("matrix", KERNEL, "--cache-dir", str(place), "--format", "json")
    assert told.err.startswith(f"hibercheck: {place}: ")
    assert list(place.iterdir()) == []


def test_a_place_and_none_contradict_one_another(shown, tmp_path):
    told = shown("matrix", KERNEL, "--cache-dir", str(tmp_path), "--no-cache", status=2)
    assert "contradict one another" in told.err
