"""The resumer's list of copies: read as the kernel follows it, and not believed where it is not one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.pending import PendingCopies

DIRECT, PER_PAGE = 0xFFFF888000000000, 4096 // 24
"""Where the direct map begins; elements of struct pbe, three pointers each, in a page (alloc_image_page's)."""


class Space:
    """Memory with a list of these frames in it, in this order."""

    def __init__(self, pfns, *, ends_at=0, gap=0):
        self.reads = 0
        places = [0x10000 + 0x1000 * (number // PER_PAGE) + 24 * (number % PER_PAGE) for number in range(len(pfns))]
        places = [DIRECT + place + gap for place in places]
        self.memory = bytearray(0x2000 + 0x1000 * (len(pfns) // PER_PAGE + 1))
        for number, (place, pfn) in enumerate(zip(places, pfns, strict=True)):
            following = places[number + 1] if number + 1 < len(places) else ends_at
            element = struct.pack("<QQQ", DIRECT + 0xABC000, DIRECT + (pfn << 12), following)
            start = place - DIRECT - 0x10000
            self.memory[start : start + 24] = element
        self.head = places[0] if places else 0

    def variable(self, name):
        assert name == "restore_pblist"
        return self.head

    def read(self, address, size):
        self.reads += 1
        start = address - DIRECT - 0x10000
        if not start >= 0 or start + size > len(self.memory):
            raise MissingFact("not mapped")
        return bytes(self.memory[start : start + size])

    def physical(self, address):
        return address - DIRECT


def pending(pfns, most=None, **how):
    return PendingCopies(Space(pfns, **how), len(pfns) if most is None else most)


@given(st.sets(st.integers(0, 1 << 20), max_size=400))
def test_the_list_is_in_the_order_of_copying_and_is_numbered_so(pfns):
    found = pending(sorted(pfns, reverse=True))
    assert found.frames == tuple(sorted(pfns))
    for number, pfn in enumerate(sorted(pfns, reverse=True), 1):
        assert found.number(pfn) == number
        between = found.number(pfn + 1)
        assert between == number - 1


def test_once_every_frame_from_zero_up_is_copied_all_are():
    found = pending([7, 5, 2])
    assert (found.number(0), found.number(3), found.number(8)) == (3, 2, 0)


@pytest.mark.parametrize("pfns", [[1, 2, 3], [3, 3], [9, 4, 6]])
def test_frames_that_do_not_descend_are_no_such_list(pfns):
    found = pending(pfns)
    assert (found.frames, found.number(3)) == (None, None)


def test_a_list_with_more_elements_than_the_image_has_frames_is_none():
    assert pending([3, 2, 1], most=3).frames == (1, 2, 3)
    assert pending([3, 2, 1], most=2).frames is None


@pytest.mark.parametrize("how", [{"ends_at": 0xDEAD0000DEAD0000}, {"ends_at": DIRECT + 0x11000 - 16}])
def test_an_element_that_is_not_there_or_lies_across_pages_ends_it(how):
    assert pending([3, 2], most=9, **how).frames is None


def test_a_ring_ends():
    assert pending([3, 2], most=9, ends_at=DIRECT + 0x10000).frames is None


def test_an_empty_list_has_no_copies():
    assert (pending([]).frames, pending([]).number(5)) == ((), 0)


def test_it_is_read_once_and_a_page_at_a_time():
    for pfns in ([5, 4, 3], [3, 4, 5]):
        space = Space(pfns)
        found = PendingCopies(space, 3)
        assert space.reads == 0
        assert found.frames == found.frames
        assert found.number(4) == found.number(4)
        assert space.reads == 1
    long = Space(list(range(3 * PER_PAGE, 0, -1)))
    assert len(PendingCopies(long, 3 * PER_PAGE).frames) == 3 * PER_PAGE
    assert long.reads == 3


def test_an_element_may_end_with_its_page():
    assert pending([9, 8], gap=4096 - 48).frames == (8, 9)


def test_pages_outside_of_the_direct_map_are_no_such_list():
    space = Space([9, 4, 2])
    space.physical = lambda address: address - DIRECT - (0x1000 if address == DIRECT + 0x2000 else 0)
    assert PendingCopies(space, 3).frames is None
