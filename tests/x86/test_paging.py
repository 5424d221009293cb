from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from hibercheck.errors import Unsupported
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import Access, PagingMode, walk

MASK64 = (1 << 64) - 1
P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63


def tables(*entries: tuple[int, int, int]) -> MappedFrames:
    """Memory of the entries (table PFN, index, entry)."""
    frames: dict[int, bytearray] = {}
    for pfn, index, entry in entries:
        struct.pack_into("<Q", frames.setdefault(pfn, bytearray(4096)), 8 * index, entry)
    return MappedFrames({pfn: bytes(content) for pfn, content in frames.items()})


def test_four_level_walk_says_every_entry():
    memory = tables((1, 256, 0x2063), (2, 3, 0x3063), (3, 4, 0x4063), (4, 5, 0x123063))
    done = walk(memory, PagingMode(), 0x1000, 0xFFFF8000_C0805678)
    assert (done.physical, done.page_size, done.fault, done.unknown_pfn) == (0x123678, 4096, None, None)
    assert [(step.level, step.table, step.index) for step in done.steps] == [
        (4, 0x1000, 256),
        (3, 0x2000, 3),
        (2, 0x3000, 4),
        (1, 0x4000, 5),
    ]
    assert done.steps[1].physical == 0x2018
    assert done.table_pfns == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("entries", "address", "physical", "size"),
    [
        # a 2 MiB page with its PAT bit (12) set, which is no part of the address
        ([(1, 511, 0x2003), (2, 510, 0x3003), (3, 8, 0x200_1083)], 0xFFFFFFFF_81012345, 0x2012345, 1 << 21),
        # a 1 GiB page, likewise
        ([(1, 273, 0x2003), (2, 1, 0xC000_1083)], 0xFFFF8880_40000010 | 0x1234000, 0xC1234010, 1 << 30),
        # CR3 with PCID, entries with ignored bits 52 to 62 and 9 to 11
        ([(1, 0, 0x2003 | 0x7FF << 52), (2, 0, 0x3E03), (3, 0, 0x4003), (4, 0, 0x5003)], 0x7, 0x5007, 4096),
    ],
)
def test_large_pages_and_ignored_bits(entries, address, physical, size):
    done = walk(tables(*entries), PagingMode(), 0x1FFF if size == 4096 else 0x1000, address)
    assert (done.physical, done.page_size) == (physical, size)


def test_five_level_walk():
    memory = tables((9, 0x110, 0x1003), (1, 0, 0x2003), (2, 0, 0x3003), (3, 0, 0x4003), (4, 1, 0x7003))
    done = walk(memory, PagingMode(levels=5), 0x9000, 0xFF11000000000000 & MASK64 | 0x1FFF, Access.WRITE)
    assert done.fault is not None
    assert done.fault.reason.startswith("level 5")
    done = walk(memory, PagingMode(levels=5), 0x9000, 0xFF10000000001FFF)
    assert done.physical == 0x7FFF
    assert [step.level for step in done.steps] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("levels", "last", "first"),
    [(4, 0x00007FFFFFFFFFFF, 0xFFFF800000000000), (5, 0x00FFFFFFFFFFFFFF, 0xFF00000000000000)],
)
def test_canonical_edges(levels, last, first):
    mode = PagingMode(levels=levels)
    memory = tables((1, 0, 0))
    for address, vector in ((last, 14), (last + 1, 13), (first - 1, 13), (first, 14), (MASK64, 14), (0, 14)):
        done = walk(memory, mode, 0x1000, address)
        assert done.fault is not None
        assert done.fault.vector == vector, hex(address)
    through_stack = walk(memory, mode, 0x1000, last + 1, Access.WRITE, stack=True)
    assert through_stack.fault is not None
    assert (through_stack.fault.vector, through_stack.fault.error_code) == (12, 0)


def test_unknown_table_is_named_and_is_no_fault():
    done = walk(tables((1, 0, 0x77003)), PagingMode(), 0x1000, 0)
    assert (done.unknown_pfn, done.fault, done.physical) == (0x77, None, None)
    assert done.table_pfns == (1, 0x77)
    # the frame that the address translates to need not be known
    assert walk(tables((1, 0, P | PS << 20), (0x8000, 0, 0)), PagingMode(), 0x1000, 0).unknown_pfn is None


def test_encryption_bit_is_no_address_bit():
    c = 1 << 47
    memory = tables((1, 0, 0x2003 | c), (2, 0, 0x3003 | c), (3, 0, PS | 0x200003 | c))
    mode = PagingMode(encryption_mask=c, max_phys_bits=43)
    assert walk(memory, mode, 0x1000 | c, 0x123).physical == 0x200123
    plain = walk(memory, PagingMode(max_phys_bits=43), 0x1000, 0x123)
    assert plain.fault is not None
    assert plain.fault.error_code == 9


def test_a_present_entry_with_all_address_bits_is_reserved_only_beyond_maxphyaddr():
    memory = tables((1, 0, 1 << 45 | 3))
    assert walk(memory, PagingMode(max_phys_bits=46), 0x1000, 0).unknown_pfn == 1 << 33
    fault = walk(memory, PagingMode(max_phys_bits=45), 0x1000, 0).fault
    assert fault is not None
    assert "reserved bits 0x200000000000" in fault.reason


def test_large_1g_unsupported_is_reserved():
    memory = tables((1, 0, 0x2003), (2, 0, 0x40000083))
    assert walk(memory, PagingMode(), 0x1000, 0).physical == 0x40000000
    fault = walk(memory, PagingMode(large_1g=False), 0x1000, 0).fault
    assert fault is not None
    assert fault.error_code == 9


def test_updates_name_the_entries_that_the_cpu_writes():
    memory = tables((1, 0, 0x2003 | A), (2, 0, 0x3003), (3, 0, 0x4003 | A), (4, 0, 0x5003 | A))
    assert walk(memory, PagingMode(), 0x1000, 0).updates == ((0x2000, A),)
    assert walk(memory, PagingMode(), 0x1000, 0, Access.WRITE).updates == ((0x2000, A), (0x4000, D))


def test_mode_from_registers():
    mode = PagingMode.from_registers(0x80050033, 0x3506F0, 0xD01, max_phys_bits=39)
    assert mode == PagingMode(smep=True, smap=True, max_phys_bits=39)
    assert PagingMode.from_registers(0x80040033, 0x1020, 0x501) == PagingMode(levels=5, nxe=False, write_protect=False)
    with pytest.raises(Unsupported, match="not those of a CPU in long mode"):
        PagingMode.from_registers(0x10, 0, 0)


# ---- against unicorn ----

TABLE_PFNS = (*range(0x100, 0x106), 0xFFFFFE0)
bits = st.sampled_from


@st.composite
def entries(draw, level):
    """An entry: nearly always present, often with something wrong."""
    rarely = lambda values: draw(bits(values)) if draw(st.integers(0, 15)) == 7 else 0  # noqa: E731
    flags = P ^ rarely([P])
    flags |= draw(bits([U, 0])) | draw(bits([W, 0])) if draw(st.integers(0, 3)) == 3 else U | W
    flags |= draw(bits([0, A | D, G])) | draw(bits([0, 0x5A << 52, 0xE00]))
    flags |= rarely([NX]) | rarely([1 << 40, 1 << 45, 1 << 51])
    large = draw(bits([0, PS])) if level <= 3 else rarely([PS])
    if level in (2, 3) and large:
        size = 1 << (3 + 9 * level)
        base = draw(st.integers(0, (1 << 40) // size - 1)) * size
        junk = draw(bits([0, 1 << 12])) | rarely([1 << 13, 1 << 20])
        return flags | large | base | junk
    if level == 1:
        return flags | large | draw(st.integers(0x10000, 0xFFFFF)) << 12
    return flags | large | draw(bits(TABLE_PFNS)) << 12


@dataclass(frozen=True, repr=False)
class Situation:
    frames: dict[int, bytes]
    mode: PagingMode
    cr3: int
    address: int
    access: Access
    user: bool
    alignment_check: bool

    def __repr__(self):
        entries = {
            f"{pfn:#x}[{place}]": hex(entry)
            for pfn, content in self.frames.items()
            for place, (entry,) in enumerate(struct.iter_unpack("<Q", content))
            if entry
        }
        return f"{self.access} {self.address:#x} user={self.user} ac={self.alignment_check} {self.mode} {entries}"


@st.composite
def situations(draw):
    levels = draw(bits([4, 5]))
    mode = PagingMode(
        levels=levels,
        nxe=draw(st.booleans()),
        write_protect=draw(st.booleans()),
        smep=draw(st.booleans()),
        smap=draw(st.booleans()),
        max_phys_bits=40,
    )
    indices = [draw(st.integers(0, 509)), *(draw(st.integers(0, 511)) for _ in range(levels - 1))]
    address = draw(st.integers(0, 0xFFF))
    for level, index in zip(range(levels, 0, -1), indices, strict=True):
        address |= index << (3 + 9 * level)
    if address >> (mode.virtual_bits - 1):
        address |= MASK64 & -(1 << mode.virtual_bits)
    address ^= 1 << 60 if draw(st.integers(0, 31)) == 31 else 0
    frames: dict[int, bytearray] = {pfn: bytearray(4096) for pfn in TABLE_PFNS}
    table = root = draw(bits(TABLE_PFNS))
    for level, index in zip(range(levels, 0, -1), indices, strict=True):
        entry = draw(entries(level))
        struct.pack_into("<Q", frames[table], 8 * index, entry)
        table = entry >> 12 & 0xFFFFFFF
        if table not in frames:
            break
    access = draw(bits(list(Access)))
    user, alignment_check = draw(st.booleans()), draw(st.booleans())
    plain = {pfn: bytes(content) for pfn, content in frames.items()}
    return Situation(plain, mode, root << 12, address, access, user, alignment_check and not user)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situations())
def test_walk_equals_unicorn(unicorn_mmu, situation):
    mode, cr3, address, access = situation.mode, situation.cr3, situation.address, situation.access
    rights = {"user": situation.user, "alignment_check": situation.alignment_check}
    memory = MappedFrames(unicorn_mmu.with_code(situation.frames, mode, cr3, b""))
    ours = walk(memory, mode, cr3, address, access, **rights)
    assume(ours.unknown_pfn is None)
    theirs = unicorn_mmu.probe(situation.frames, mode, cr3, address, access, **rights)
    event(ours.fault.reason.split("0x")[0][-28:] if ours.fault else f"translated, {ours.page_size}")
    if ours.fault is None:
        assert theirs.vector is None
        assert theirs.physical in (ours.physical, -1)
    else:
        assert (theirs.vector, theirs.error_code) == (ours.fault.vector, ours.fault.error_code)
        assert theirs.cr2 in (None, address)
