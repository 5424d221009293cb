"""Whose a line is, in a made resumee: each thing that a line can lie in has a place of its own, to the byte."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.owner import Owners, Use, Writes
from hibercheck.x86.paging import PagingMode
from tests.support.made_memory import Memory

SHIFT, PLACE = 0x5000000, 0x2000000
"""The kernel's run-time less link-time virtual address, and its physical displacement."""
LINK = START_KERNEL_MAP + 0x1000000
SYMBOLS = {
    # name: (link address, size), in the order of addresses
    "_text": (LINK, 0x800),
    "read_me": (LINK + 0x2000, 0x40),
    "_etext": (LINK + 0x1000, 0),
    "__end_rodata": (LINK + 0x3000, 0),
    "_sdata": (LINK + 0x4000, 0),
    "saved_context": (LINK + 0x4000, 0x100),
    "timekeeping_suspended": (LINK + 0x4100, 4),
    "system_state": (LINK + 0x4140, 4),
    "cpu_hotplug_disabled": (LINK + 0x4180, 4),
    "__cpu_online_mask": (LINK + 0x41C0, 8),
    "__num_online_cpus": (LINK + 0x4200, 4),
    "plain": (LINK + 0x4240, 0x20),
    "beside": (LINK + 0x4260, 0x10),
    "third": (LINK + 0x4270, 0xC),
    "fourth": (LINK + 0x427C, 4),
    "nr_cpu_ids": (LINK + 0x4280, 4),
    "pcpu_unit_size": (LINK + 0x42C0, 4),
    "__per_cpu_offset": (LINK + 0x4300, 64),
    "vmemmap_base": (LINK + 0x4340, 8),
    "pageflag_names": (LINK + 0x4400, 0x100),
    "flag_words": (LINK + 0x4500, 0x100),
    "__init_begin": (LINK + 0x6000, 0),
    "once": (LINK + 0x6000, 0x40),
    "__init_end": (LINK + 0x8000, 0),
    "last": (LINK + 0x8000, 0x1000),
    "_end": (LINK + 0x9000, 0),
}
PERCPU = {
    "first_bytes": (0, 0x40),
    "cpuhp_state": (0x1020, 0x60),
    "mwait_cpu_dead": (0x1080, 0x40),
    "tail": (0x10C0, 8),
}
PERCPU_END, UNIT = 0x10D0, 0x3000
AREAS = {0: 0x9000000, 1: 0x8000000, 3: 0x8003000}
"""Where each CPU's area lies in physical memory; CPU 2 has none that is mapped."""
DIRECT = 0xFFFF888000000000
VMEMMAP = {4: 0xFFFFEA0000000000, 5: 0xFFD4000000000000}
FLAGS = {"locked": 1 << 0, "reserved": 1 << 13, "slab": 1 << 9}
PAGE = 0x7000
"""A frame, as PFN, that belongs to nobody but its struct page."""
HEAP = 0xFFFF888012345600
CACHE, NAME = DIRECT + 0xA000000, DIRECT + 0xA001000


class Kernel:
    """A kernel's file: its symbols, of which some are missing, and offsets of members."""

    release = "6.1.0"

    def __init__(self, without=(), zero_based=True, members=None):
        self.symbols = {name: place for name, place in SYMBOLS.items() if name not in without}
        self.percpu_zero_based = zero_based
        self.percpu_start = 0 if zero_based else LINK + 0x10000
        percpu = {name: (self.percpu_start + at, size) for name, (at, size) in PERCPU.items()}
        self.symbols |= percpu | {"__per_cpu_end": (self.percpu_start + PERCPU_END, 0)}
        self.symbols = {name: place for name, place in self.symbols.items() if name not in without}
        self.members = members or {}

    def symbol(self, name):
        return SimpleNamespace(name=name, address=self.symbols[name][0]) if name in self.symbols else None

    def require(self, name):
        found = self.symbol(name)
        if found is None:
            raise MissingFact(f"no {name}")
        return found

    def nearest(self, address):
        for name, (start, size) in self.symbols.items():
            if start <= address < start + size:
                return SimpleNamespace(name=name), address - start
        return None

    def offset_of(self, structure, member):
        if (structure, member) not in self.members:
            raise MissingFact("no types")
        return self.members[structure, member]


class Resumee:
    """A resumee, whose variables, CPUs and pages can be changed."""

    def __init__(self, levels=4, page_size=64, vmemmap=None, **kernel):
        self.kernel, self.memory = Kernel(**kernel), Memory(levels)
        mode = PagingMode(levels=levels)
        self.space = KernelSpace(self.kernel, self.memory, mode, self.memory.root << 12, SHIFT, PLACE)
        self.page_size, self.vmemmap = page_size, vmemmap or VMEMMAP[levels]
        self.covered = self
        self.lost = set()
        for page in range(LINK, LINK + 0x9000, 4096):
            self.memory.map(page + SHIFT, page - START_KERNEL_MAP + PLACE)
        for name, value in {"nr_cpu_ids": 4, "pcpu_unit_size": UNIT}.items():
            self.put(name, value.to_bytes(4, "little"))
        self.put("vmemmap_base", self.vmemmap.to_bytes(8, "little"))
        shift = 0 if self.kernel.percpu_zero_based else SHIFT
        for cpu in range(4):
            begin = DIRECT + AREAS.get(cpu, 0xFF000000)
            offset = begin - self.kernel.percpu_start - shift & (1 << 64) - 1
            self.put("__per_cpu_offset", offset.to_bytes(8, "little"), 8 * cpu)
            for page in range(0, UNIT, 4096) if cpu in AREAS else ():
                self.memory.map(begin + page, AREAS[cpu] + page)
        for number, (name, mask) in enumerate(FLAGS.items()):
            word = SYMBOLS["flag_words"][0] + SHIFT + 32 * number
            self.put("pageflag_names", struct.pack("<QQ", mask, word), 16 * number)
            self.put("flag_words", name.encode() + b"\0", 32 * number)
        self.stack(DIRECT + 0xB000800, 0xB000800)
        text = LINK - START_KERNEL_MAP + PLACE >> 12
        self.page(text, FLAGS["reserved"], list_at=self.vmemmap + text * page_size + 8)
        for pfn in (PAGE, PAGE - 1):
            self.page(pfn)

    def __contains__(self, pfn):
        return pfn not in self.lost

    def put(self, name, content, offset=0):
        if name in self.kernel.symbols:
            self.memory.put(SYMBOLS[name][0] - START_KERNEL_MAP + PLACE + offset, content)

    def stack(self, pointer, physical):
        self.put("saved_context", pointer.to_bytes(8, "little"), 152)
        self.memory.map(pointer, physical)

    def page(self, pfn, flags=0, *, list_at=0, mapping=0, kind=0xFFFFFFFF, count=1, cache=0):
        """Write a frame's struct page."""
        address = self.vmemmap + pfn * self.page_size
        content = struct.pack("<QQ", flags, list_at) + bytes(8) + struct.pack("<Q", mapping) + b"\xa5" * 16
        content += struct.pack("<II", kind, count) + b"\xa5" * 8  # what follows says nothing
        physical = 0xC000000 + (address & 0xFFFFFF)
        for page in {address & -4096, address + 55 & -4096}:
            self.memory.map(page, 0xC000000 + (page & 0xFFFFFF))
        self.memory.put(physical, content)

    def owners(self, frozen=(1, 2, 3), running=(0, 1, 2, 3), **more):
        return Owners(self.space, self.covered, frozenset(frozen), frozenset(running), **more)

    def of(self, physical, cpu=1, **more):
        return self.owners(**more).of_line(physical, cpu)


def physical(name, offset=0):
    return SYMBOLS[name][0] - START_KERNEL_MAP + PLACE + offset


def told(found):
    return found.use, found.names, found.cpu, found.writes, found.writer


# -- the line itself ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 45), st.sampled_from([16, 64, 128, 4096]))
def test_a_line_is_the_aligned_piece_in_which_an_address_lies(address, size):
    known = Owners(WHOLE.space, (), frozenset(), frozenset(), size)
    found = known.of_line(address, 1)
    assert (found.physical, found.size) == (address // size * size, size)


WHOLE = Resumee()


@pytest.mark.parametrize(("lost", "known"), [(0, False), (1, True), (-1, True)])
def test_only_its_own_frame_counts(lost, known):
    made = Resumee()
    made.lost.add((physical("plain") >> 12) + lost)
    assert (made.of(physical("plain")).use is Use.DATA) is known


@pytest.mark.parametrize(("description", "use", "writes"), [
    ({}, Use.SNAPSHOT, Writes.HANDED_OUT), ({"mapping": HEAP | 1}, Use.SNAPSHOT, Writes.HANDED_OUT),
    ({"count": 0}, Use.FREE, Writes.HANDED_OUT), ({"flags": FLAGS["reserved"]}, Use.RESERVED, Writes.UNKNOWN),
])  # fmt: skip
def test_a_frame_that_is_not_saved_was_free_set_aside_or_used_to_save(description, use, writes):
    made = Resumee()
    made.page(PAGE, **description)
    made.lost.add(PAGE)
    assert told(made.of(PAGE << 12)) == (use, (), None, writes, None)


@pytest.mark.parametrize(("description", "saved", "expected"), [
    ({"count": 0}, False, True), ({}, False, True), ({"flags": FLAGS["reserved"]}, False, False),
    ({"count": 0}, True, False), ({}, True, False),
])  # fmt: skip
def test_a_frame_may_be_handed_out_that_is_free_and_not_saved(description, saved, expected):
    made = Resumee()
    made.page(PAGE, **description)
    if not saved:
        made.lost.add(PAGE)
    known = made.owners()
    assert [known.handed_out(PAGE), known.handed_out(PAGE)] == [expected, expected]


def test_a_frame_that_nothing_describes_may_be_handed_out_where_it_is_not_known_what_is_memory():
    made = Resumee()
    made.lost.add(1 << 30)
    assert told(made.of(1 << 42)) == (Use.ABSENT, (), None, Writes.HANDED_OUT, None)
    made.lost.clear()
    assert made.of(1 << 42).use is Use.UNKNOWN


@pytest.mark.parametrize(("place", "use", "names", "writer"), [
    (0, Use.DATA, ("quiet",), None), (0x40, Use.DATA, ("in_suspend",), "restore_registers()"),
    (0x80, Use.DATA, (), None), (0xFC0, Use.DATA, (), None), (0x1000, Use.FREE, (), None), (-64, Use.FREE, (), None),
])  # fmt: skip
@pytest.mark.parametrize("within", [0, 8, 0x3C])
def test_data_that_are_never_saved_are_written_by_hibernation_alone(place, use, names, writer, within):
    """By the line in which each lies, at its beginning or its end."""
    made = Resumee()
    start = SYMBOLS["last"][0] - 0x1000
    more = {"__nosave_begin": 0, "quiet": 0, "in_suspend": 0x40 + within, "__nosave_end": 0x1000}
    made.kernel.symbols |= {name: (start + at, 4 if at or name == "quiet" else 0) for name, at in more.items()}
    line = start + place - START_KERNEL_MAP + PLACE
    made.page(line >> 12, count=0)
    made.lost.add(line >> 12)
    writes = Writes.BEFORE_INIT if writer else Writes.NEVER if use is Use.DATA else Writes.HANDED_OUT
    assert told(made.of(line)) == (use, names, None, writes, writer)


# -- the stack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("from_line", "use"), [(0, Use.STACK), (63, Use.STACK), (-1, Use.KERNEL), (64, Use.KERNEL)])
def test_the_stack_is_the_line_to_which_the_saved_pointer_points(from_line, use):
    """By what it maps to; the other lines of the page are the allocator's."""
    made = Resumee()
    line = PAGE << 12 | 0x400
    made.stack(0xFFFFC90000001400 + from_line, (line + from_line) & -4096)
    found = made.of(line)
    assert found.use is use
    if use is Use.STACK:
        assert told(found)[1:] == ((), None, Writes.BEFORE_INIT, "the first call after restore_registers()")
        assert (found.physical, found.size) == (line, 64)


def test_a_stack_in_the_kernel_s_image_is_a_stack():
    made = Resumee()
    made.stack(DIRECT + physical("plain"), physical("plain") & -4096)
    assert made.of(physical("plain")).use is Use.STACK


def test_without_a_saved_pointer_the_rest_is_known():
    assert Resumee(without=("saved_context",)).of(physical("plain")).use is Use.DATA


# -- the kernel's image ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "use", "names", "writes"), [
    (physical("_text"), Use.CODE, ("_text",), Writes.NEVER),
    (physical("read_me"), Use.CODE, ("read_me",), Writes.NEVER),
    (physical("__end_rodata", -64), Use.CODE, (), Writes.NEVER),
    (physical("plain"), Use.DATA, ("plain", "beside", "third"), Writes.ORDINARY),  # and not the fourth
    (physical("last", 0xFC0), Use.DATA, ("last",), Writes.ORDINARY),
])  # fmt: skip
def test_the_kernel_s_image(place, use, names, writes):
    assert told(Resumee().of(place)) == (use, names, None, writes, None)


@pytest.mark.parametrize("place", [physical("_text", -64), physical("_end")])
def test_what_lies_beside_the_image_is_none_of_it(place):
    assert Resumee().of(place).use not in {Use.CODE, Use.DATA}


@pytest.mark.parametrize(("place", "freed"), [
    (physical("__end_rodata"), True), (physical("__end_rodata", -64), False),
    (physical("_sdata", -64), True), (physical("_sdata"), False),
    (physical("__init_begin", -64), False), (physical("__init_begin"), True),
    (physical("__init_end", -64), True), (physical("__init_end"), False),
])  # fmt: skip
def test_what_the_kernel_gave_back_of_its_image_is_the_allocator_s(place, freed):
    made = Resumee()
    made.page(place >> 12)
    made.stack(DIRECT, PAGE << 12)
    assert (made.of(place).use is Use.KERNEL) is freed


def test_without_the_end_of_what_is_read_only_text_ends_it():
    made = Resumee(without=("__end_rodata",))
    assert made.of(physical("_etext", -64)).use is Use.CODE
    assert made.of(physical("_etext")).use is Use.DATA


@pytest.mark.parametrize("without", [("__init_begin",), ("__init_end",)])
def test_without_a_mark_nothing_was_given_back(without):
    assert Resumee(without=without).of(physical("once")).use is Use.DATA


# -- what is certainly written -----------------------------------------------------------------------------------------

SIGNS = [
    ("timekeeping_suspended", 0, None), ("timekeeping_suspended", 1, "timekeeping_resume()"),
    ("system_state", 4, None), ("system_state", 5, "create_image()"), ("system_state", 6, "create_image()"),
    ("cpu_hotplug_disabled", 0, None), ("cpu_hotplug_disabled", 2, "thaw_secondary_cpus()"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "writer"), SIGNS)
def test_a_variable_whose_value_shows_that_it_must_change(name, value, writer):
    made = Resumee()
    made.put(name, struct.pack("<I", value) + b"\xff" * 4)  # what follows it says nothing
    expected = (Use.DATA, (name,), None, Writes.BEFORE_INIT if writer else Writes.ORDINARY, writer)
    assert told(made.of(physical(name))) == expected


@pytest.mark.parametrize("name", ["__cpu_online_mask", "__num_online_cpus"])
@pytest.mark.parametrize(("frozen", "cpu", "certain"), [
    ((1, 2, 3), 1, False), ((1, 2, 3), 2, True), ((1, 3), 3, True), ((3,), 3, False), ((3,), 1, True),
    ((), 1, False), ((2, 3), 2, False),
])  # fmt: skip
def test_who_comes_up_before_a_cpu_is_counted_before_it(name, frozen, cpu, certain):
    found = Resumee().of(physical(name), cpu, frozen=frozen)
    writes = (Writes.BEFORE_INIT, "set_cpu_online()") if certain else (Writes.ORDINARY, None)
    assert told(found) == (Use.DATA, (name,), None, *writes)


# -- per-CPU areas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("cpu", AREAS)
@pytest.mark.parametrize(("offset", "use", "names"), [
    (0, Use.PERCPU, ("first_bytes",)),
    (0x1080, Use.OWN_LINE, ("mwait_cpu_dead",)),
    (0x10C0, Use.PERCPU, ("tail",)),
    (0x1100, Use.PERCPU, ()), (0x2FC0, Use.PERCPU, ()),  # dynamic: nothing names what lies there
])  # fmt: skip
def test_each_cpu_s_area(zero_based, cpu, offset, use, names):
    found = Resumee(zero_based=zero_based).of(AREAS[cpu] + offset)
    writes = Writes.NEVER if use is Use.OWN_LINE else Writes.ORDINARY
    assert told(found) == (use, names, cpu, writes, None)
    assert (found.physical, found.size) == (AREAS[cpu] + offset, 64)


def test_behind_the_variables_no_name_is_taken_from_what_follows_them():
    """Symbols behind __per_cpu_end are of something else, at the same numbers where per-CPU ones begin at zero."""
    made = Resumee()
    made.kernel.symbols |= {"other": (PERCPU_END, 0x2000)}
    assert made.of(AREAS[1] + 0x1100).names == ()
    assert made.of(AREAS[1] + 0x10C0).names == ("tail", "other")  # one line holds both


def test_variables_may_end_where_a_line_does():
    made = Resumee()
    made.kernel.symbols |= {"__per_cpu_end": (0x1100, 0), "other": (0x1100, 0x2000)}
    assert made.of(AREAS[1] + 0x1100).names == ()
    assert made.of(AREAS[1] + 0x10C0).names == ("tail",)


@pytest.mark.parametrize("place", [AREAS[1] - 64, AREAS[3] + UNIT, AREAS[0] - 64, AREAS[0] + UNIT])
def test_beside_the_areas_there_is_none(place):
    assert Resumee().of(place).use is not Use.PERCPU


def test_an_area_whose_pages_lie_apart_is_only_where_they_lie():
    made = Resumee()
    made.memory.map(DIRECT + AREAS[1] + 0x2000, 0xD000000)
    assert made.of(AREAS[1] + 0x1FC0).use is Use.PERCPU
    assert made.of(AREAS[1] + 0x2000).use is not Use.PERCPU


@pytest.mark.parametrize(("running", "writes"), [((0, 1), Writes.ORDINARY), ((0, 3), Writes.UNKNOWN)])
def test_per_cpu_data_are_written_by_their_cpu_if_it_runs(running, writes):
    assert Resumee().of(AREAS[1], running=running).writes is writes


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize(("offset", "frozen", "cpu", "certain"), [
    (0x1000, (1, 2, 3), 1, True), (0x1040, (1, 2, 3), 1, False),  # it begins in the one, and goes on in the other
    (0x1000, (1, 2, 3), 3, True), (0x1000, (2, 3), 3, False), (0x1000, (1,), 3, True),
])  # fmt: skip
def test_the_state_of_a_cpu_that_comes_up_no_later(zero_based, offset, frozen, cpu, certain):
    found = Resumee(zero_based=zero_based).of(AREAS[1] + offset, cpu, frozen=frozen)
    if certain:
        assert told(found) == (Use.PERCPU, ("cpuhp_state",), 1, Writes.BEFORE_INIT, "_cpu_up()")
    else:
        assert (found.names, found.writes) == (("cpuhp_state",), Writes.ORDINARY)


def test_of_several_variables_in_a_line_three_are_named():
    made = Resumee()
    made.kernel.symbols |= {f"one_{number}": (0x400 + 8 * number, 8) for number in range(8)}
    assert made.of(AREAS[1] + 0x400).names == ("one_0", "one_1", "one_2")


# -- pages -------------------------------------------------------------------------------------------------------------

PAGES = [
    ({}, Use.KERNEL), ({"mapping": HEAP}, Use.PAGE_CACHE), ({"mapping": HEAP | 1}, Use.ANONYMOUS),
    ({"mapping": HEAP | 2}, Use.KERNEL), ({"mapping": HEAP | 3}, Use.ANONYMOUS), ({"mapping": HEAP >> 8}, Use.KERNEL),
    ({"count": 0}, Use.FREE), ({"count": 0, "mapping": HEAP}, Use.FREE),
    *(({"kind": kind}, Use.FREE) for kind in (0xFFFFFF7F, 0xBFFFFFFF, 0xF0000000)),
    *(({"kind": kind}, Use.PAGE_TABLE) for kind in (0xFFFFFDFF, 0xFFFFFBFF, 0xEFFFFFFF, 0xF2000000)),
    *(({"kind": kind}, Use.SLAB) for kind in (0xFDFFFFFF, 0xF5000000)),
    *(({"kind": kind}, Use.RESERVED) for kind in (0xFFFFFEFF, 0xDFFFFFFF, 0xF1000000)),
    ({"kind": 0xFFFFFDFF, "count": 0, "mapping": HEAP | 1}, Use.PAGE_TABLE),
    ({"kind": 0xF5000000, "count": 0, "mapping": HEAP | 1}, Use.SLAB),
    ({"flags": FLAGS["slab"]}, Use.SLAB), ({"flags": FLAGS["slab"] | FLAGS["reserved"]}, Use.SLAB),
    ({"flags": FLAGS["reserved"]}, Use.RESERVED), ({"flags": FLAGS["reserved"], "count": 0}, Use.RESERVED),
    ({"flags": FLAGS["locked"]}, Use.KERNEL), ({"flags": FLAGS["slab"] << 4}, Use.RESERVED),
]  # fmt: skip


@pytest.mark.parametrize(("description", "use"), PAGES)
def test_what_a_struct_page_says(description, use):
    made = Resumee()
    made.page(PAGE, **description)
    found = made.of((PAGE << 12) + 0x123)
    writes = {Use.KERNEL: Writes.UNKNOWN, Use.RESERVED: Writes.UNKNOWN, Use.FREE: Writes.HANDED_OUT}
    assert told(found) == (use, (), None, writes.get(use, Writes.ORDINARY), None)
    assert (found.physical, found.size) == ((PAGE << 12) + 0x100, 64)


@pytest.mark.parametrize("page_size", [56, 64, 72, 80, 96])
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("told_base", [None, 0xFFFFEA8000000000])
def test_the_array_of_pages_is_found(page_size, levels, told_base):
    """Where the kernel says, or else where it always is; by the page of its own text, whatever a page's size is."""
    if told_base is None:
        made = Resumee(levels, page_size, without=("vmemmap_base",))
    else:
        made = Resumee(levels, page_size, told_base)
    made.page(PAGE, mapping=HEAP | 1)
    assert made.of(PAGE << 12).use is Use.ANONYMOUS
    assert made.of(PAGE - 1 << 12).use is Use.KERNEL


@pytest.mark.parametrize("description", [
    {"flags": FLAGS["reserved"], "list_at": 0}, {"flags": FLAGS["reserved"], "list_at": VMEMMAP[4] + 0x3000 * 64},
    {"flags": FLAGS["locked"], "list_at": VMEMMAP[4] + 0x3000 * 64 + 8},
])  # fmt: skip
def test_an_array_that_does_not_know_the_kernel_s_own_text_is_none(description):
    made = Resumee()
    made.page(LINK - START_KERNEL_MAP + PLACE >> 12, **description)
    assert made.of(PAGE << 12).use is Use.UNKNOWN


def test_without_names_of_flags_there_is_no_telling():
    assert Resumee(without=("pageflag_names",)).of(PAGE << 12).use is Use.UNKNOWN


def test_the_names_of_flags_end_with_an_empty_one():
    made = Resumee()
    made.put("pageflag_names", struct.pack("<QQ", 0, 0), 16)  # behind "locked"
    assert made.of(PAGE << 12).use is Use.UNKNOWN


@pytest.mark.parametrize("head", [
    VMEMMAP[4] + (PAGE - 1) * 64 + 1,  # compound_head: the first page's address, and a mark
    0xFFFF_FFFF_FFFF_FF80 | 1,  # 7.3: what a page's own address is masked with
])  # fmt: skip
def test_a_page_of_a_block_is_what_its_first_one_is(head):
    made = Resumee()
    odd = (VMEMMAP[4] + (PAGE - 1) * 64) % 128 == 0
    first, second = (PAGE - 1, PAGE) if odd else (PAGE, PAGE + 1)
    if head >> 32 != 0xFFFFFFFF:
        head = VMEMMAP[4] + first * 64 + 1
    made.page(first, mapping=HEAP | 1)
    made.page(second, list_at=head, mapping=HEAP)
    assert made.of(second << 12).use is Use.ANONYMOUS
    made.page(second, list_at=head - 1, mapping=HEAP)  # no mark: it stands for itself
    assert made.of(second << 12).use is Use.PAGE_CACHE


# -- caches ------------------------------------------------------------------------------------------------------------


def slab(made, *, at, cache=CACHE, name=b"dentry\0", name_at=0x60, pointer=NAME):
    """Let a page be a slab whose cache stands at that place of its struct page."""
    made.page(PAGE, kind=0xF5000000, **{{8: "list_at", 24: "mapping"}[at]: cache})
    for place in (CACHE, NAME):
        made.memory.map(place, place - DIRECT)
    made.memory.put(CACHE - DIRECT + name_at, pointer.to_bytes(8, "little"))
    made.memory.put(NAME - DIRECT, name)
    return made.of(PAGE << 12).names


@pytest.mark.parametrize("at", [8, 24])
@pytest.mark.parametrize("name_at", [0x38, 0x60, 0xA0])
def test_a_cache_is_named_by_the_first_name_that_its_description_points_to(at, name_at):
    assert slab(Resumee(), at=at, name_at=name_at) == ("dentry",)


@pytest.mark.parametrize("name_at", [0x30, 0xA8])
def test_no_name_is_looked_for_elsewhere(name_at):
    assert slab(Resumee(), at=24, name_at=name_at) == ()


@pytest.mark.parametrize("name_at", [0x30, 0x60])
def test_types_say_where_the_name_is(name_at):
    made = Resumee(members={("kmem_cache", "name"): 0x60})
    made.memory.map(CACHE, CACHE - DIRECT)
    made.memory.put(CACHE - DIRECT + 0x40, NAME.to_bytes(8, "little"))
    assert slab(made, at=24, name_at=name_at) == (("dentry",) if name_at == 0x60 else ())


@pytest.mark.parametrize(("name", "known"), [
    (b"abc\0", True), (b"ab\0", False), (b"\xc3\xa9\xc3\xa9\xc3\xa9\0", False), (b"a\nbc\0", False), (b"\0", False),
    (b"n" * 64, True), (b"n" * 63 + b"\0", True),
])  # fmt: skip
def test_what_may_be_a_name(name, known):
    assert slab(Resumee(), at=24, name=name) == ((name.decode().strip("\0"),) if known else ())


def test_a_pointer_that_leads_nowhere_is_passed_over():
    made = Resumee()
    made.memory.map(CACHE, CACHE - DIRECT)
    for place, pointer in ((0x38, 0xFFFF888FFFFF0000), (0x40, 0x1234), (0x48, 0)):
        made.memory.put(CACHE - DIRECT + place, pointer.to_bytes(8, "little"))
    assert slab(made, at=8) == ("dentry",)


@pytest.mark.parametrize("cache", [0, 0x00FF888000001000, 0xFFFF888FFFFF0000])
def test_a_slab_of_no_known_cache_has_no_name(cache):
    assert slab(Resumee(), at=24, cache=cache) == ()
