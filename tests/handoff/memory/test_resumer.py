"""The resumer as its file and its place tell: the page tables of its image, its text, and nothing else."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.handoff.memory.resumer import PlacedKernel, default_page_offset, space_of
from hibercheck.x86.paging import Access, PagingMode, walk

MIB = 1 << 20
TEXT, ETEXT, END = START_KERNEL_MAP + 16 * MIB, START_KERNEL_MAP + 24 * MIB + 0x800, START_KERNEL_MAP + 37 * MIB
SYMBOLS = {
    "_text": TEXT,
    "_etext": ETEXT,
    "_end": END,
    "init_top_pgt": START_KERNEL_MAP + 30 * MIB,
    "level4_kernel_pgt": START_KERNEL_MAP + 30 * MIB + 0x1000,
    "level3_kernel_pgt": START_KERNEL_MAP + 30 * MIB + 0x2000,
    "level2_kernel_pgt": START_KERNEL_MAP + 30 * MIB + 0x3000,
}


def content(address, size):
    """Return what the file has at a link address: of each 8 bytes their own address."""
    first = address & ~7
    words = b"".join(struct.pack("<Q", at) for at in range(first, address + size, 8))
    return words[address - first :][:size]


class Kernel:
    """A kernel's file, of which some pages are missing."""

    release = "6.1.0"

    def __init__(self, missing=()):
        self.missing = missing

    def require(self, name):
        return SimpleNamespace(address=SYMBOLS[name])

    def read(self, address, size):
        if address & ~0xFFF in self.missing or not TEXT - 0x2000 <= address < END:
            raise MissingFact("not in the file")
        return content(address, size)


def place(levels=4, offset=0, phys_base=0, kernel=None):
    return PlacedKernel(kernel or Kernel(), PagingMode(levels=levels), offset, phys_base)


PLACES = {
    "levels": st.sampled_from([4, 5]),
    "offset": st.integers(0, 400).map(lambda step: step << 21),
    "phys_base": st.integers(0, 1 << 20).map(lambda step: step << 21),
}


@given(**PLACES, link=st.integers(TEXT, END - 1))
def test_its_tables_map_its_image_where_it_lies(levels, offset, phys_base, link):
    """As head_64.S and __startup_64() leave them: the whole image by pages of 2 MiB, and all on the way is known."""
    placed = place(levels, offset, phys_base)
    found = walk(placed, placed.mode, placed.cr3, link + offset, Access.FETCH)
    assert found.physical == link - START_KERNEL_MAP + phys_base
    assert [step.level for step in found.steps] == list(range(levels, 1, -1))
    assert all(placed.knows_entry(step.table, step.index) for step in found.steps)
    assert space_of(placed).image_physical(link) == found.physical


@given(**PLACES, before=st.integers(1, 8), after=st.integers(0, 8))
def test_its_tables_map_nothing_else(levels, offset, phys_base, before, after):
    placed = place(levels, offset, phys_base)
    for link in (TEXT - (before << 21), (END + (2 * MIB - 1) & ~(2 * MIB - 1)) + (after << 21)):
        found = walk(placed, placed.mode, placed.cr3, link + offset)
        last = found.steps[-1]
        assert (found.physical, last.level) == (None, 2)
        assert not placed.knows_entry(last.table, last.index)


def test_the_pages_are_mapped_as_text_is_present_executable_and_not_for_users():
    placed = place()
    assert walk(placed, placed.mode, placed.cr3, TEXT, Access.FETCH).fault is None
    tables = [struct.unpack_from("<Q", placed.frame(place().cr3 >> 12), 8 * 511)[0]]
    assert tables[0] & 0xFFF == 0x067  # present, writable, user, accessed, dirty: _KERNPG_TABLE and what is set by use
    leaf = walk(placed, placed.mode, placed.cr3, TEXT).steps[-1].entry
    assert leaf & 0xFFF == 0x1E1  # present, accessed, dirty, 2 MiB, global; neither writable nor for users
    assert leaf >> 63 == 0  # executable
    assert not any(placed.frame(placed.cr3 >> 12)[: 8 * 511])  # what is not of the image


def test_an_image_that_begins_within_2_mib_is_mapped_from_there(monkeypatch):
    monkeypatch.setitem(SYMBOLS, "_text", TEXT + MIB)
    placed = place()
    for link in (TEXT, TEXT + MIB, TEXT + 2 * MIB, END - 1):
        assert walk(placed, placed.mode, placed.cr3, link).physical == link - START_KERNEL_MAP
    assert walk(placed, placed.mode, placed.cr3, TEXT - 1).physical is None


@pytest.mark.parametrize("phys_base", [0, 0x2000000, -0x1000000])
def test_of_its_other_memory_only_whole_pages_of_text_are_known(phys_base):
    placed = place(phys_base=phys_base)

    def frame(link):
        return placed.frame(link - START_KERNEL_MAP + phys_base >> 12)

    assert frame(TEXT) == content(TEXT, 4096)
    last = (ETEXT & ~0xFFF) - 0x1000
    assert frame(last) == content(last, 4096)
    assert frame(last + 0x1000) is None  # data begin on the page on which text ends
    assert frame(TEXT - 0x1000) is None
    assert frame(SYMBOLS["init_top_pgt"] + 0x8000) is None
    holed = place(phys_base=phys_base, kernel=Kernel(missing={TEXT + 0x1000}))
    assert holed.frame(TEXT + 0x1000 - START_KERNEL_MAP + phys_base >> 12) is None


def test_a_text_that_ends_with_a_page_is_known_to_its_end(monkeypatch):
    monkeypatch.setitem(SYMBOLS, "_etext", TEXT + 0x2000)
    placed = place()
    assert placed.frame(TEXT + 0x1000 - START_KERNEL_MAP >> 12) == content(TEXT + 0x1000, 4096)
    assert placed.frame(TEXT + 0x2000 - START_KERNEL_MAP >> 12) is None


@given(offset=PLACES["offset"], link=st.integers(TEXT, END - 16))
def test_its_bytes_are_those_of_the_file_at_the_link_address(offset, link):
    assert place(offset=offset).bytes_at(link + offset, 16) == content(link, 16)


def test_bytes_that_the_file_lacks_are_not_known():
    assert place().bytes_at(END, 16) is None
    high = place(offset=0x80000000)  # beyond the end of the address space: as the processor counts
    assert high.bytes_at(TEXT + 0x80000000 & (1 << 64) - 1, 8) == content(TEXT, 8)


@pytest.mark.parametrize("phys_base", [1 << 52, 1 << 60, -1 << 60, (1 << 52) + 1])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_place_is_a_physical_address_whatever_facts_claim(phys_base, levels):
    placed = place(levels, phys_base=phys_base)
    assert placed.cr3 == SYMBOLS["init_top_pgt"] - START_KERNEL_MAP
    found = walk(placed, placed.mode, placed.cr3, TEXT)
    assert found.physical == TEXT - START_KERNEL_MAP


def test_of_no_other_table_an_entry_is_known():
    placed = place()
    assert not placed.knows_entry(0x123000, 511)
    assert not placed.exact


def test_the_direct_map_without_kaslr():
    """Documentation/arch/x86/x86_64/mm.rst."""
    assert default_page_offset(4) == 0xFFFF888000000000
    assert default_page_offset(5) == 0xFF11000000000000
