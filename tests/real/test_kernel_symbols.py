"""Symbols recovered from a vmlinuz: the committed comparison with System.map and vmlinux-to-elf, and a live one."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support.kernel_symbols import against_map, beside, recovered

TABLE = Path(__file__).resolve().parent.parent.parent / "fixtures" / "kernel-symbols.json"
SERIES = ("5.10.", "6.1.", "6.12.", "7.3.")


@pytest.fixture(scope="module")
def table():
    return json.loads(TABLE.read_text())


@pytest.mark.parametrize("series", SERIES)
def test_every_series_was_held_against_its_system_map(table, series):
    compared = [row for row in table if row["release"].startswith(series) and row["system_map"]]
    assert compared
    for row in compared:
        found = row["system_map"]
        assert (found["missing"], found["wrong"]) == (0, 0)
        assert found["same"] + found["unlisted"] == row["kallsyms"]
        assert found["left_out"] < 20


def test_the_distribution_kernel_of_debian_12_too(table):
    releases = {row["release"] for row in table if row["system_map"]}
    assert any(release.startswith("6.1.") and "cloud" not in release for release in releases)


def test_vmlinux_to_elf_finds_the_same(table):
    second = [row["vmlinux_to_elf"] for row in table if isinstance(row["vmlinux_to_elf"], dict)]
    assert len(second) >= len(SERIES)
    # It writes one as undefined: __end_rodata in 5.10.
    assert all(one["only_there"] == 0 and one["only_here"] <= 1 for one in second)


def test_a_difference_is_seen(tmp_path):
    listed = tmp_path / "System.map"
    listed.write_text("ffffffff81000000 T _text\nffffffff81000010 t moved\n0000000000000004 A size\n")
    ours = Counter({(0xFFFFFFFF81000000, "_text"): 1, (0xFFFFFFFF81000020, "moved"): 1})
    assert against_map(ours, listed, None) == {"same": 1, "left_out": 1, "unlisted": 0, "missing": 1, "wrong": 1}


def test_symbols_equal_system_map():
    """Every kernel with its -dbg package in $HIBERCHECK_KERNELS, which tests/support/debian_kernels.py fills."""
    directory = os.environ.get("HIBERCHECK_KERNELS")
    if not directory:
        pytest.skip("HIBERCHECK_KERNELS does not name a directory that tests/support/debian_kernels.py filled")
    compared = 0
    for path in sorted(Path(directory).glob("linux-*/**/vmlinuz*")):
        if not path.is_file() or path.is_symlink():
            continue
        release, ours, _ = recovered(path)
        listed = beside(Path(directory), release, "System.map")
        if listed is not None:
            found = against_map(ours, listed, beside(Path(directory), release, "vmlinux"))
            assert (found["missing"], found["wrong"]) == (0, 0), release
            compared += 1
    assert compared
