"""What a kernel keeps of its CPUs: masks in place or behind a pointer, features with types or without."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.cpufacts import read_features, read_mask_variable

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


class WithoutTypes:
    """A kernel whose boot_cpu_data is known byte by byte, and no more."""

    def __init__(self, data):
        def offset_of(_structure, member):
            raise MissingFact(f"no {member}")

        self.data = data
        self.kernel = SimpleNamespace(symbol=lambda _name: None, offset_of=offset_of)

    def address(self, _symbol):
        return AT

    def read(self, _address, size):
        return self.data.ljust(size, b"\0")


# The start of struct cpuinfo_x86 as it was in memory: 7.3 on a Skylake-Server with LA57, booted with no5lvl, where
# padding stands before x86_capability[], and the same without it, as in 6.1.
SKYLAKE = (
    bytes.fromhex(
        "550600000400000000000000000000000000000000000000000000000000000039280000080000800d00000000000000fdfb8b170008102c"
        "00000000008075020b32d8fe0000000021000000002808a000000000a9039801050000002050000800000000000000000400000000000000"
        "18000000000000000000000000000000040000000021000000c0af4aa8000000"
    )
    + b"GenuineIntel\0\0\0\0"
)
LEVELS = 0x20


FOLLOWING = SKYLAKE[LEVELS : LEVELS + 12] + SKYLAKE[LEVELS + 16 :]
"""From x86_virt_bits on, without padding."""


@pytest.mark.parametrize(
    "data", [SKYLAKE, SKYLAKE[4:LEVELS] + FOLLOWING, SKYLAKE[:8] + FOLLOWING], ids=["padded", "6.1", "4.19"]
)
def test_features_of_a_kernel_without_types(data):
    features = read_features(WithoutTypes(data))
    assert (features.vendor, features.cpuid_level) == ("intel", 0xD)
    assert (features.virtual_bits, features.physical_bits) == (57, 40)
    assert {"mwait", "clflush", "nx", "hypervisor"} <= features.flags
    assert "la57" not in features.flags  # the kernel cleared it; the width of addresses tells
