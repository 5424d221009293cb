"""A kernel's address space: what is remembered of its page tables answers as they would."""

from __future__ import annotations

import struct

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cpufacts import cpu_count
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import LARGE, PRESENT, WRITABLE, PagingMode, walk
from tests.support.made_inputs import Kernel, asking

DIRECT = 0xFFFF888000000000
ROOT, UPPER, MIDDLE, LOWER = 0x1000, 0x2000, 0x3000, 0x4000
GIB, LARGE_PAGE = 1 << 30, 2 << 20


class Counted:
    """Memory that counts the tables that are looked at."""

    def __init__(self, tables):
        self.frames = MappedFrames({base >> 12: self._table(entries) for base, entries in tables.items()})
        self.looked = 0

    def _table(self, entries):
        return b"".join(struct.pack("<Q", entries.get(index, 0)) for index in range(512))

    def frame(self, pfn):
        self.looked += 1
        return self.frames.frame(pfn)


def made():
    here = PRESENT | WRITABLE
    return Counted(
        {
            ROOT: {DIRECT >> 39 & 511: UPPER | here},
            UPPER: {0: MIDDLE | here, 1: 7 * GIB | here | LARGE},
            MIDDLE: {0: LOWER | here, 1: 0x40000000 | here | LARGE, 3: 0x00600000 | here | LARGE},
            LOWER: {0: 0x9000 | here, 2: 0x5000 | here},
        }
    )


def space_in(memory):
    inputs = asking().inputs
    return KernelSpace(inputs.resumer, memory, PagingMode(max_phys_bits=40), ROOT, 0, 0)


PLACES = {
    0x10: 0x9010,
    0x2FFF: 0x5FFF,
    LARGE_PAGE: 0x40000000,
    LARGE_PAGE + 0x1FFFFF: 0x401FFFFF,
    3 * LARGE_PAGE + 0x12345: 0x00612345,
    GIB + 5 * LARGE_PAGE + 3: 7 * GIB + 5 * LARGE_PAGE + 3,
    GIB + 5 * LARGE_PAGE + 0x1FF003: 7 * GIB + 5 * LARGE_PAGE + 0x1FF003,
}


@pytest.mark.parametrize("order", [1, -1])
def test_an_address_is_where_the_page_tables_have_it_however_often_it_is_asked_for(order):
    memory = made()
    space = space_in(memory)
    for _ in range(2):
        for offset, physical in list(PLACES.items())[::order]:
            assert space.physical(DIRECT + offset) == physical == space.walk(DIRECT + offset).physical


@pytest.mark.parametrize("offset", [0x1000, 2 * LARGE_PAGE, 4 * LARGE_PAGE, 2 * GIB])
def test_what_lies_beside_a_page_that_was_asked_for_is_still_not_mapped(offset):
    space = space_in(made())
    for known in PLACES:
        space.physical(DIRECT + known)
    with pytest.raises(MissingFact):
        space.physical(DIRECT + offset)


def test_a_walk_that_shares_tables_with_one_before_is_the_whole_walk():
    memory = made()
    space = space_in(memory)
    addresses = [DIRECT + offset for offset in (*PLACES, 0x1000, 2 * LARGE_PAGE, 0x3FF000, 1 << 50)]
    for address in addresses * 2:
        assert space.walk(address) == walk(memory, space.mode, ROOT, address)
    looked = memory.looked
    space.walk(DIRECT)
    assert memory.looked == looked + 1


def test_a_large_page_is_walked_to_once():
    memory = made()
    space = space_in(memory)
    space.physical(DIRECT + LARGE_PAGE + 0x5000)
    looked = memory.looked
    assert looked == 3
    for page in range(512):
        space.physical(DIRECT + LARGE_PAGE + (page << 12))
    assert memory.looked == looked


AREAS, MOVED = START_KERNEL_MAP + 0x2000, 0x1000


class Reads(KernelSpace):
    """A space of whose memory only the first word of the table of per-CPU areas is read."""

    __slots__ = ()

    def number(self, address, size=8):
        return {AREAS + MOVED: 0x7000}[address]


@pytest.mark.parametrize("others", ["start_secondary", "smp_init", "bringup_nonboot_cpus", "native_play_dead"])
def test_per_cpu_variables_of_a_kernel_for_one_cpu_are_variables_like_others(others):
    def space_of(**functions):
        kernel = Kernel(x86_cpu_to_apicid=0x100, __per_cpu_offset=AREAS, **functions)
        return Reads(kernel, MappedFrames({}), PagingMode(max_phys_bits=40), ROOT, MOVED, 0)

    alone, several, unknown = (
        space_of(up_late_init=1), space_of(start_kernel=1, **{others: 2}), space_of(start_kernel=1)
    )  # fmt: skip
    assert space_of(srcu_drive_gp=1).one_cpu
    assert (alone.one_cpu, several.one_cpu, unknown.one_cpu) == (True, False, False)
    assert alone.percpu_address("x86_cpu_to_apicid", 0) == 0x1100
    assert several.percpu_address("x86_cpu_to_apicid", 0) == unknown.percpu_address("x86_cpu_to_apicid", 0)
    assert cpu_count(alone) == 1
