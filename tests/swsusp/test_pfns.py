"""The PFN list and the run tables against plain lists."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import MalformedImage
from hibercheck.swsusp.pfns import MAX_PFN, ZERO_FLAG, PfnList
from hibercheck.swsusp.runs import RunTable, counts_up
from tests.support.image_format import pack_pfns


@st.composite
def flagged(draw):
    """Draw a sorted list of (pfn, zero) with runs around every boundary that the fast paths care about."""
    result = {}
    for start in draw(
        st.lists(st.sampled_from([0, 500, 0xFFF0, 0x1FE00, 1 << 32]) | st.integers(0, 1 << 39), min_size=1, max_size=4)
    ):
        zero = draw(st.booleans())
        for pfn in range(start, start + draw(st.integers(1, 1200))):
            result[pfn] = zero ^ (draw(st.integers(0, 40)) == 0) if len(result) < 400 else zero
    return sorted(result.items())


def listed(entries):
    pfns = PfnList()
    for page in pack_pfns([pfn | ZERO_FLAG if zero else pfn for pfn, zero in entries]):
        pfns.append_page(page)
    return pfns


@given(flagged())
def test_against_a_plain_list(entries):
    pfns = listed(entries)
    data = [pfn for pfn, zero in entries if not zero]
    assert (len(pfns), pfns.data_pages, pfns.zero_count) == (len(entries), len(data), len(entries) - len(data))
    assert pfns.last == entries[-1][0]
    assert pfns.has_zero_flag == (len(data) < len(entries))
    index = {pfn: place for place, pfn in enumerate(data)}
    everything = dict(entries)
    some = [pfn for pfn, _ in entries[:: max(1, len(entries) // 50)]]
    for pfn in {near for each in some for near in (each - 1, each, each + 1)}:
        assert (pfn in pfns) == (pfn in everything)
        assert pfns.is_zero(pfn) == everything.get(pfn, False)
        assert pfns.data_index(pfn) == (index.get(pfn, -1) if pfn in everything else None)
        assert pfns.count_between(pfn, pfn + 700) == sum(pfn <= other < pfn + 700 for other in everything)
        assert list(pfns.between(pfn, pfn + 700)) == [other for other, _ in entries if pfn <= other < pfn + 700]
    assert [pfn for first, length in pfns.runs() for pfn in range(first, first + length)] == [pfn for pfn, _ in entries]
    for place in range(0, len(data), max(1, len(data) // 50)):
        assert pfns.pfn_of(place) == data[place]


@given(flagged(), st.integers(1, 12))
def test_coarse_runs_close_the_smallest_gaps(entries, most):
    pfns = listed(entries)
    runs = list(pfns.runs())
    coarse = pfns.coarse_runs(most)
    assert len(coarse) == min(most, len(runs))
    assert {first for first, _ in coarse} <= {first for first, _ in runs}
    assert {first + length for first, length in coarse} <= {first + length for first, length in runs}
    gaps = sorted(after - first - length for (first, length), (after, _) in pairwise(runs))
    left = sorted(after - first - length for (first, length), (after, _) in pairwise(coarse))
    assert left == gaps[len(gaps) - len(left) :]


@given(flagged(), st.data())
def test_places_of_data_pages(entries, draw):
    pfns = listed(entries)
    if not pfns.data_pages:
        return
    first = draw.draw(st.integers(0, pfns.data_pages - 1))
    end = draw.draw(st.integers(first + 1, pfns.data_pages))
    ranks = [rank for rank, (_, zero) in enumerate(entries) if not zero]
    expected = ranks[first:end]
    assert [rank + i for begin, stop, rank in pfns.places(first, end) for i in range(stop - begin)] == expected


@pytest.mark.parametrize("words", [[5, 5], [5, 4], [5, 6, 5], [5 | ZERO_FLAG, 5], [MAX_PFN + 1], [0, 1 << 60]])
def test_what_no_kernel_writes(words):
    (page,) = pack_pfns(words)
    with pytest.raises(MalformedImage):
        PfnList().append_page(page)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=512))
def test_counts_up_is_never_wrong(words):
    data = struct.pack(f"<{len(words)}Q", *words)
    assert not counts_up(data, len(words)) or words == list(range(words[0], words[0] + len(words)))


@given(st.integers(0, (1 << 52)), st.integers(1, 512), st.integers(0, 511), st.integers(0, 63))
def test_counts_up_sees_any_changed_bit(first, count, place, bit):
    words = list(range(first, first + count))
    expected = first % 0x10000 + count <= 0x10000
    assert counts_up(struct.pack(f"<{count}Q", *words), count) == expected
    words[place % count] ^= 1 << bit
    assert count == 1 or not counts_up(struct.pack(f"<{count}Q", *words), count)


@given(st.lists(st.lists(st.integers(1, 40) | st.integers(1, 1 << 50), min_size=1, max_size=511), max_size=4))
def test_run_table_against_a_plain_list(pages):
    table = RunTable()
    for page in pages:
        table.append(struct.pack(f"<{len(page)}Q", *page).ljust(4096, b"\0"), len(page))
    numbers = [number for page in pages for number in page]
    assert table.length == len(numbers)
    for index in range(0, len(numbers), 7):
        value, length = table.run_at(index)
        assert list(range(value, value + length)) == numbers[index : index + length]
        assert value + length != [*numbers, 0][index + length]


def test_counts_up_is_not_fooled_by_a_carry_that_is_missing():
    assert not counts_up(struct.pack("<4Q", 0x1FFFE, 0x1FFFF, 0x10000, 0x10001), 4)
