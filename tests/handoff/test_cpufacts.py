"""Masks of CPUs as a kernel keeps them: in place, or behind a pointer."""

from __future__ import annotations

import pytest

from hibercheck.handoff.cpufacts import read_mask_variable

AT = 0xFFFF_FFFF_8200_0000


class Space:
    """Memory by address."""

    def __init__(self, words):
        self.words = words

    def address(self, _symbol):
        return AT

    def variable(self, _symbol):
        return self.words[AT]

    def number(self, address, size):
        assert size == 8
        return self.words[address]


@pytest.mark.parametrize(
    "pointer",
    [0xFFFF_8880_0134_A3A0, 0xFFFF_FFFF_81B0_0000, 0xFF11_0000_0478_56C0, 0xFF47_7AFC_C134_A3A0],
    ids=["direct map", "image", "direct map, 5 levels", "direct map, 5 levels, random"],
)
def test_a_mask_behind_a_pointer(pointer):
    assert read_mask_variable(Space({AT: pointer, pointer: 0b1110}), "frozen_cpus", 4, frozenset(range(4))) == {1, 2, 3}


@pytest.mark.parametrize("cpus", [4, 64])
def test_a_mask_in_place(cpus):
    everyone = frozenset(range(cpus))
    bits = sum(1 << cpu for cpu in everyone)
    assert read_mask_variable(Space({AT: bits}), "frozen_cpus", cpus, everyone) == everyone
