from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from hibercheck.errors import Unsupported
from hibercheck.x86 import paging
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import Access, PagingMode, as_far_as_known, walk

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
        # a 2 MiB page with its PAT bit (12) set, which is not part of the address
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


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("first", [0x7063, 0x7061, 0x8000_0000_0000_0063, 0])
def test_steps_of_a_walk_before_are_not_read_again(levels, first):
    """What is below them is, for another address that shares them too.  The table of a level lies in frame LEVEL."""
    chain = [(level, level - 1) for level in range(levels, 0, -1)]
    entries = [(table, 1, below << 12 | 0x63) for table, below in chain[:-1]]
    memory = tables(*entries, (1, 1, first), (1, 2, 0x9063))
    mode = PagingMode(levels=levels)
    address = sum(1 << (3 + 9 * level) for level in range(1, levels + 1))
    whole = [walk(memory, mode, levels << 12, address + page, Access.WRITE) for page in (0, 4096)]
    assert whole[1].physical == 0x9000
    for count in range(levels):
        below = tables(*entries[count:], (1, 1, first), (1, 2, 0x9063))
        for one, page in zip(whole, (0, 4096), strict=True):
            upper = whole[0].steps[:count]
            assert walk(below, mode, levels << 12, address + page, Access.WRITE, upper=upper) == one


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


@pytest.mark.parametrize("missing", ["cr0", "cr4", "efer"])
def test_each_of_three_registers_can_tell_that_it_is_no_long_mode(missing):
    registers = {"cr0": 0x80050033, "cr4": 0x3506F0, "efer": 0xD01}
    bits = {"cr0": 1 << 31, "cr4": 1 << 5, "efer": 1 << 10}  # PG, PAE, LMA: SDM 3A 4.1.1
    assert PagingMode.from_registers(**registers).levels == 4
    with pytest.raises(Unsupported):
        PagingMode.from_registers(**registers | {missing: registers[missing] & ~bits[missing]})
    with pytest.raises(Unsupported):
        PagingMode.from_registers(**registers | {missing: 0})


def test_every_bit_of_the_registers_is_told_apart():
    def mode(cr0=1 << 31, cr4=1 << 5, efer=1 << 10, **more):
        return PagingMode.from_registers(cr0, cr4, efer, **more)

    plain = PagingMode(nxe=False, write_protect=False)
    assert mode() == plain
    assert mode(cr0=1 << 31 | 1 << 16) == replace(plain, write_protect=True)
    assert mode(cr4=1 << 5 | 1 << 12) == replace(plain, levels=5)
    assert mode(cr4=1 << 5 | 1 << 20) == replace(plain, smep=True)
    assert mode(cr4=1 << 5 | 1 << 21) == replace(plain, smap=True)
    assert mode(efer=1 << 10 | 1 << 11) == replace(plain, nxe=True)
    assert mode(max_phys_bits=39, encryption_mask=1 << 47) == replace(plain, max_phys_bits=39, encryption_mask=1 << 47)
    others = {bit for bit in range(64) if bit not in {5, 12, 20, 21}}
    assert mode(cr4=sum(1 << bit for bit in others) | 1 << 5) == plain


def test_masks():
    """SDM 3A table 4-12 and following: M is MAXPHYADDR, an address is in bits M-1 to 12, bits 51 to M are reserved."""
    mode = PagingMode(max_phys_bits=40)
    assert (mode.address_mask, mode.reserved_mask) == (0xFF_FFFF_F000, 0xF_FF00_0000_0000)
    encrypted = replace(mode, encryption_mask=1 << 47, nxe=False)
    assert (encrypted.address_mask, encrypted.reserved_mask) == (0xFF_FFFF_F000, 0x800F_7F00_0000_0000)
    # the C-bit may lie within the physical width that CPUID reports
    assert PagingMode(max_phys_bits=48, encryption_mask=1 << 47).address_mask == 0x7FFF_FFFF_F000
    assert (PagingMode().address_mask, PagingMode().reserved_mask) == (0xF_FFFF_FFFF_F000, 0)
    assert (PagingMode().virtual_bits, PagingMode(levels=5).virtual_bits) == (48, 57)


@pytest.mark.parametrize("level", [4, 5])
def test_page_size_is_reserved_at_the_upper_levels_wherever_the_table_lies(level):
    entries = [(1, 0, 1 << 49 | 0x83)] if level == 5 else [(1, 0, 0x2003), (2, 0, 1 << 49 | 0x83)]
    done = walk(tables(*entries), PagingMode(levels=5), 0x1000, 0)
    assert done.fault is not None
    assert (done.fault.vector, done.fault.error_code) == (14, 9)
    assert done.fault.reason == f"level {level} entry has reserved bits 0x80 set"


def test_a_cpu_without_1_gib_pages_has_2_mib_ones():
    memory = tables((1, 0, 0x2003), (2, 0, 0x3003), (3, 0, 0x200083))
    assert walk(memory, PagingMode(large_1g=False), 0x1000, 5).physical == 0x200005


def test_every_address_bit_of_a_large_page_is_one_of_its_place_or_reserved():
    for level, index in ((2, 21), (3, 30)):
        way = [(1, 0, 0x2003), (2, 0, 0x3003)] if level == 2 else [(1, 0, 0x2003)]
        for bit in range(13, 52):
            done = walk(tables(*way, (4 - level + 1, 0, 1 << bit | 0x83)), PagingMode(), 0x1000, 0)
            assert (done.physical == 1 << bit) == (bit >= index), (level, bit)
            assert (done.fault is None) == (bit >= index)


RIGHTS = tables((1, 0, 0x2007), (2, 0, 0x3007), (3, 0, 0x4007), (4, 0, 0x5001), (4, 1, 0x6005), (4, 2, 0x7007))


@pytest.mark.parametrize("write_protect", [False, True])
def test_a_user_never_writes_to_a_read_only_page_and_a_supervisor_if_cr0_allows(write_protect):
    mode = PagingMode(write_protect=write_protect)
    assert walk(RIGHTS, mode, 0x1000, 0x1000, Access.WRITE, user=True).fault.error_code == 7
    assert (walk(RIGHTS, mode, 0x1000, 0x1000, Access.WRITE).fault is None) is not write_protect
    assert walk(RIGHTS, mode, 0x1000, 0x2000, Access.WRITE, user=True).fault is None
    assert walk(RIGHTS, mode, 0x1000, 0x1000, Access.READ, user=True).fault is None
    assert walk(RIGHTS, mode, 0x1000, 0, Access.READ, user=True).fault.error_code == 5
    assert walk(RIGHTS, mode, 0x1000, 1 << 40, Access.READ, user=True).fault.error_code == 4


def test_smep_and_smap_keep_a_supervisor_from_user_pages_only():
    smep, smap = PagingMode(smep=True), PagingMode(smap=True)
    for page, is_user in ((0, False), (0x2000, True)):
        assert (walk(RIGHTS, smep, 0x1000, page, Access.FETCH).fault is not None) == is_user
        assert walk(RIGHTS, smep, 0x1000, page, Access.READ).fault is None
        assert (walk(RIGHTS, smap, 0x1000, page, Access.READ).fault is not None) == is_user
        assert walk(RIGHTS, smap, 0x1000, page, Access.FETCH).fault is None
        assert walk(RIGHTS, smap, 0x1000, page, Access.READ, alignment_check=True).fault is None
    assert walk(RIGHTS, smep, 0x1000, 0x2000, Access.FETCH, user=True).fault is None
    assert walk(RIGHTS, smap, 0x1000, 0x2000, Access.READ, user=True).fault is None
    # SDM 3A 4.7: the bit that says "fetch" is there if either feature is on
    for mode, code in ((PagingMode(nxe=False), 0), (PagingMode(nxe=False, smep=True), 16), (PagingMode(), 16)):
        assert walk(tables((1, 0, 0)), mode, 0x1000, 0, Access.FETCH).fault.error_code == code
        assert walk(tables((1, 0, 0)), mode, 0x1000, 0, Access.READ).fault.error_code == 0


def test_a_denied_access_says_what_it_would_have_reached():
    done = walk(RIGHTS, PagingMode(), 0x1000, 0, Access.READ, user=True)
    assert (done.physical, done.page_size, done.fault.reason) == (None, 4096, "user access to a supervisor page")
    large = tables((1, 0, 0x2003), (2, 0, 0x3003), (3, 0, 0x200081))
    done = walk(large, PagingMode(), 0x1000, 0, Access.WRITE)
    assert (done.page_size, done.fault.reason) == (1 << 21, "write to a read-only page")
    reasons = {
        walk(RIGHTS, mode, 0x1000, 0x2000, access).fault.reason
        for mode, access in ((PagingMode(smep=True), Access.FETCH), (PagingMode(smap=True), Access.READ))
    }
    assert reasons == {"supervisor fetch from a user page (SMEP)", "supervisor access to a user page (SMAP)"}
    fetch = tables((1, 0, 0x2003), (2, 0, 0x3003), (3, 0, NX | 0x200083))
    assert walk(fetch, PagingMode(), 0x1000, 0, Access.FETCH).fault.reason == "fetch from a page that is not executable"


def test_what_a_walk_says_of_itself():
    memory = tables((1, 0, 0x2003), (2, 0, 0x3003), (3, 0, 0x4003), (4, 0, 0x5003))
    done = walk(memory, PagingMode(), 0x1FFF, 0x123, Access.WRITE)
    assert (done.address, done.access, done.cr3) == (0x123, Access.WRITE, 0x1FFF)
    assert [(step.pfn, step.entry) for step in done.steps] == [(1, 0x2003), (2, 0x3003), (3, 0x4003), (4, 0x5003)]
    assert (done.table_pfns, done.pfns) == ((1, 2, 3, 4), (1, 2, 3, 4, 5))
    # of a table only the 8 bytes of the entry count
    assert [walk(RIGHTS, PagingMode(), 0x1000, page).steps[-1].entry for page in (0, 0x1000)] == [0x5001, 0x6005]
    failed = walk(memory, PagingMode(), 0x1000, 0x1000)
    assert (failed.table_pfns, failed.pfns, failed.updates) == ((1, 2, 3, 4), (1, 2, 3, 4), ())
    assert failed.fault.reason == "level 1 entry not present"
    unknown = walk(tables((1, 0, 0x2003)), PagingMode(), 0x1000, 0)
    assert (unknown.table_pfns, unknown.pfns, unknown.updates) == ((1, 2), (1, 2), ())
    nowhere = walk(memory, PagingMode(), 0x1000, 1 << 50)
    assert (nowhere.steps, nowhere.pfns, nowhere.fault.reason) == ((), (), "0x4000000000000 is not canonical")
    assert {access.value for access in Access} == {"read", "write", "fetch"}  # reports have these words


def test_a_walk_reads_by_default_and_as_a_supervisor():
    memory = tables((1, 0, 0x2001), (2, 0, 0x3001), (3, 0, 0x4001), (4, 0, NX | 0x5001))
    assert walk(memory, PagingMode(), 0x1000, 0).physical == 0x5000
    user = tables((1, 0, 0x2007), (2, 0, 0x3007), (3, 0, 0x4007), (4, 0, 0x5007))
    assert walk(user, PagingMode(smap=True), 0x1000, 0).fault.error_code == 1
    assert walk(user, PagingMode(), 0x1000, 1 << 47).fault.vector == 13


# ---- a memory known in part ----


@dataclass(frozen=True)
class InPart:
    """Frames of which some entries are not known: what `frame` gives for them means nothing."""

    frames: MappedFrames
    known: frozenset[tuple[int, int]]

    def frame(self, pfn):
        return self.frames.frame(pfn)

    def knows_entry(self, table, index):
        return (table, index) in self.known


def test_a_walk_ends_at_the_first_entry_that_is_not_known():
    memory = tables((1, 0, 0x2003), (2, 3, 0x3003), (3, 0, 0x4003), (4, 5, 0x5003))
    way = [(0x1000, 0), (0x2000, 3), (0x3000, 0), (0x4000, 5)]
    done = walk(memory, PagingMode(), 0x1000, 3 << 30 | 5 << 12)
    assert as_far_as_known(memory, done) is done  # all of such a memory is known
    assert as_far_as_known(InPart(memory, frozenset(way)), done) == done
    for number, place in enumerate(way):
        found = as_far_as_known(InPart(memory, frozenset(way) - {place}), done)
        assert (found.unknown_pfn, found.steps) == (number + 1, done.steps[:number])
        assert (found.physical, found.page_size, found.fault) == (None, None, None)
        assert (found.address, found.access, found.cr3) == (done.address, done.access, done.cr3)


def test_a_fault_at_an_entry_that_is_not_known_is_none():
    memory = tables((1, 0, 0x2003), (2, 0, 0))
    done = walk(memory, PagingMode(), 0x1000, 0)
    assert done.fault is not None
    found = as_far_as_known(InPart(memory, frozenset({(0x1000, 0)})), done)
    assert (found.fault, found.unknown_pfn) == (None, 2)


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


def test_bits_of_cr4_are_the_manuals() -> None:
    """SDM 3A 2.5: those that decide what a CPU does with events, beside those of the walk."""
    bits = {paging.CR4_PAE: 5, paging.CR4_MCE: 6, paging.CR4_LA57: 12, paging.CR4_FSGSBASE: 16, paging.CR4_FRED: 32}
    assert all(mask == 1 << bit for mask, bit in bits.items())
    assert len(bits) == 5
