"""Names of partitions on the disk of a mounted system, where loop devices are to be had."""

from __future__ import annotations

import pytest

from hibercheck.handoff.preflight.parts import same_partition
from tests.handoff.preflight.test_waiting import OTHER, SWAP, disk, mounted, written

__all__ = ["disk", "written"]


@pytest.mark.parametrize(("name", "same", "why"), [
    ("/dev/sda1", False, "which is a partition 1"), ("/dev/nvme0n1p1", False, "which is a partition 1"),
    ("/dev/sda2", None, "which disk that is only the running system shows"),
    (f"UUID={SWAP}", True, ""), (f"UUID={OTHER}", None, "does not run"),
    ("/dev/dm-1", None, "does not run"), ("/dev/mapper/vg-swap1", None, "does not run"), ("8:1", None, "does not run"),
])  # fmt: skip
def test_a_name_beside_the_swaps(disk, tmp_path, name, same, why):
    with mounted(disk, tmp_path / "at", "ro,noload") as root:
        found = same_partition(name, {f"UUID={SWAP}"}, root)
    assert found[0] is same
    assert why in found[1]


def test_a_directory_has_no_table(tmp_path):
    assert same_partition("/dev/sda1", {f"UUID={SWAP}"}, tmp_path) == (None, ": the system does not run")
