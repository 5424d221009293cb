"""Whose the line is that a parked CPU monitors: read out of real images, in which the answer is known otherwise."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.e820 import ram_runs, read_e820
from hibercheck.handoff.facts.resumee import read_resumee
from hibercheck.handoff.memory.owner import Owners, Use, Writes
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.support.unpacked import plain_path

FOUR = frozenset(range(4))
AWAKE = frozenset({1, 2, 3})


@pytest.fixture(scope="module")
def opened(fixtures_dir):
    """Return a function that gives an image's resumee, its frames, and addresses by name."""
    with ExitStack() as stack:

        def run(image, kernel):
            data = stack.enter_context(open_image(plain_path(f"images/{image}.bin.xz")))
            code = stack.enter_context(open_kernel(plain_path(f"kernels/{kernel}.vmlinux.xz")))
            space = read_resumee(data, code).space

            def variable(name):
                return space.image_physical(code.require(name).address)

            def percpu(name, cpu):
                return space.physical(space.percpu_address(name, cpu))

            return SimpleNamespace(space=space, covered=data.pfns, variable=variable, percpu=percpu)

        yield run


@pytest.fixture(scope="module")
def four(opened):
    """The image of a machine with four CPUs, all of which the resumee starts again."""
    return opened("41f2d2a4e60d", "small-current")


@pytest.fixture(scope="module")
def allocator(opened):
    """An image of a kernel that allocates by SLUB: 7.3, whose tail pages hold a mask instead of a pointer."""
    return opened("d03583001f", "v73-stock")


def owners(found, frozen=AWAKE, running=FOUR, **more):
    return Owners(found.space, found.covered, frozen, running, **more)


@pytest.mark.parametrize(("name", "writer"), [
    ("timekeeping_suspended", "timekeeping_resume()"),
    ("system_state", "create_image()"),
    ("cpu_hotplug_disabled", "thaw_secondary_cpus()"),
])  # fmt: skip
def test_what_the_image_itself_shows_to_change_before_a_cpu_is_started(four, name, writer):
    found = owners(four).of_line(four.variable(name), 1)
    assert (found.use, found.names, found.writes, found.writer) == (Use.DATA, (name,), Writes.BEFORE_INIT, writer)


def test_the_stack_on_which_the_resumee_goes_on(four):
    pointer = four.space.number(four.space.address("saved_context") + 152)
    found = owners(four).of_line(four.space.physical(pointer), 1)
    assert (found.use, found.writes) == (Use.STACK, Writes.BEFORE_INIT)
    assert owners(four).of_line(four.space.physical(pointer) + 64, 1).use is Use.KERNEL


@pytest.mark.parametrize(("frozen", "cpu", "writes"), [
    (AWAKE, 1, Writes.ORDINARY), (AWAKE, 2, Writes.BEFORE_INIT), (AWAKE, 3, Writes.BEFORE_INIT),
    (frozenset({1}), 3, Writes.BEFORE_INIT), (frozenset(), 3, Writes.ORDINARY),
])  # fmt: skip
def test_the_mask_of_online_cpus_is_written_before_all_but_the_first_come_up(four, frozen, cpu, writes):
    assert owners(four, frozen).of_line(four.variable("__cpu_online_mask"), cpu).writes is writes


@pytest.mark.parametrize(("frozen", "offset", "writes"), [
    ({1, 2}, 0, Writes.BEFORE_INIT), ({1, 2}, 8, Writes.ORDINARY), ({2, 64}, 8, Writes.ORDINARY),
    ({64, 65}, 8, Writes.BEFORE_INIT), ({64, 65}, 0, Writes.ORDINARY),
])  # fmt: skip
def test_of_a_mask_only_the_word_of_a_cpu_that_comes_up_is_written(four, frozen, offset, writes):
    """With 8192 CPUs it fills 16 lines; here a line is a word."""
    known = owners(four, frozenset(frozen), line_size=8)
    assert known.of_line(four.variable("__cpu_online_mask") + offset, max(frozen)).writes is writes


@pytest.mark.parametrize(("owner", "cpu", "writes"), [
    (1, 1, Writes.BEFORE_INIT), (1, 3, Writes.BEFORE_INIT), (2, 1, Writes.ORDINARY), (0, 1, Writes.ORDINARY),
])  # fmt: skip
def test_a_cpus_state_is_written_as_it_is_made_ready_in_the_order_of_numbers(four, owner, cpu, writes):
    found = owners(four).of_line(four.percpu("cpuhp_state", owner), cpu)
    assert (found.use, found.cpu, found.writes) == (Use.PERCPU, owner, writes)


def test_only_the_line_in_which_a_variable_begins_is_sure_to_be_written(four):
    behind = four.percpu("cpuhp_state", 1) + 64
    assert owners(four).of_line(behind, 1).writes is Writes.ORDINARY


@pytest.mark.parametrize("cpu", range(4))
def test_the_line_of_its_own_dead_cpus_is_quiet(four, cpu):
    found = owners(four).of_line(four.percpu("mwait_cpu_dead", cpu) + 4, 2)
    assert (found.use, found.cpu, found.writes) == (Use.OWN_LINE, cpu, Writes.NEVER)
    behind = owners(four, line_size=8).of_line(four.percpu("mwait_cpu_dead", cpu) + 8, 2)
    assert behind.use is Use.PERCPU


@pytest.mark.parametrize(("running", "writes"), [(FOUR, Writes.ORDINARY), (frozenset({0, 1}), Writes.UNKNOWN)])
def test_per_cpu_data_are_written_by_a_cpu_that_runs(four, running, writes):
    found = owners(four, frozenset({1}), running).of_line(four.percpu("runqueues", 2), 2)
    assert (found.use, found.names, found.cpu, found.writes) == (Use.PERCPU, ("runqueues",), 2, writes)


def test_code_is_not_written_and_data_are(four):
    assert owners(four).of_line(four.variable("_text"), 1).writes is Writes.NEVER
    found = owners(four).of_line(four.variable("jiffies_64"), 1)
    assert (found.use, found.names, found.writes) == (Use.DATA, ("jiffies_64",), Writes.ORDINARY)


def test_the_first_code_of_the_resumee_writes_a_variable_that_is_not_saved(four):
    """in_suspend lies in .data..nosave, which hibernation alone writes."""
    place = four.variable("in_suspend")
    assert place >> 12 not in four.covered
    found = owners(four).of_line(place, 1)
    assert (found.use, found.names, found.writes) == (Use.DATA, ("in_suspend",), Writes.BEFORE_INIT)
    assert found.writer == "restore_registers()"
    behind = owners(four).of_line(place + 64, 1)
    assert (behind.use, behind.writes) == (Use.DATA, Writes.NEVER)


@pytest.mark.parametrize(("image", "kernel"), [
    ("41f2d2a4e60d", "small-current"), ("d03583001f", "v73-stock"), ("9c031ac5a1", "mid-current"),
])  # fmt: skip
def test_memory_outside_the_image_was_free_or_held_the_copy_of_the_image(opened, image, kernel):
    """Both are free once the resumee is back, and its allocator hands them out."""
    found = opened(image, kernel)
    known, uses = owners(found), Counter()
    for first, end in ram_runs(read_e820(found.space, "e820_table")):
        outside = (pfn for pfn in range(first, end) if pfn not in found.covered)
        uses.update((one.use, one.writes) for one in (known.of_line(pfn << 12, 1) for pfn in outside))
    assert uses.pop((Use.DATA, Writes.BEFORE_INIT)) == 1  # the frame of in_suspend
    assert set(uses) == {(Use.FREE, Writes.HANDED_OUT), (Use.SNAPSHOT, Writes.HANDED_OUT)}
    copies, saved = uses[Use.SNAPSHOT, Writes.HANDED_OUT], len(found.covered)
    assert saved < copies < 1.1 * saved  # and what describes them


@pytest.mark.parametrize(("pfn", "use"), [
    (0xA0, Use.RESERVED), (0xF0, Use.RESERVED), (0x13FF0, Use.RESERVED), (0x100000, Use.ABSENT),
])  # fmt: skip
def test_what_is_no_memory_or_set_aside_is_handed_out_to_nobody(four, pfn, use):
    assert pfn not in four.covered
    found = owners(four).of_line(pfn << 12, 1)
    assert (found.use, found.writes) == (use, Writes.UNKNOWN)


@pytest.mark.parametrize("kind", [0xFFFF_FEFF, 0xDFFF_FFFF, 0xF100_0000])
def test_what_a_balloon_took_is_handed_out_to_nobody(four, kind):
    class Ballooned:
        """An address space in which a page that is in use was given away."""

        def __getattr__(self, name):
            return getattr(four.space, name)

        def read(self, address, size):
            data = four.space.read(address, size)
            entries = [0xFFFF_EA00_0000_0000 + 0x8000 * size for size in (56, 64)]
            return data if address not in entries else data[:48] + kind.to_bytes(4, "little") + b"\1" + data[53:]

    found = owners(SimpleNamespace(space=Ballooned(), covered=four.covered)).of_line(0x8000 << 12, 1)
    assert (found.use, found.writes) == (Use.RESERVED, Writes.UNKNOWN)


def test_a_line_has_the_size_that_it_is_told(four):
    place = four.percpu("mwait_cpu_dead", 1)
    assert (owners(four).of_line(place + 63, 1).physical, owners(four).of_line(place + 63, 1).size) == (place, 64)
    wide = owners(four, line_size=4096).of_line(place, 1)
    assert (wide.physical, wide.size, wide.use) == (place & -4096, 4096, Use.OWN_LINE)


def test_an_object_of_a_cache_is_named_by_it(allocator):
    """The cache of caches holds its own description (bootstrap(), mm/slub.c)."""
    cache = allocator.space.physical(allocator.space.variable("kmem_cache"))
    found = owners(allocator).of_line(cache, 1)
    assert (found.use, found.names, found.writes) == (Use.SLAB, ("kmem_cache",), Writes.ORDINARY)


def test_what_init_frees_is_not_taken_for_its_variables(allocator):
    assert owners(allocator).of_line(allocator.variable("__init_begin"), 1).use is not Use.DATA


def test_every_page_of_an_image_is_of_somebody(allocator):
    known = owners(allocator)
    uses = Counter(
        known.of_line(pfn << 12, 1).use
        for first, length in allocator.covered.runs()
        for pfn in range(first, first + length, 5)
    )
    assert uses[Use.UNKNOWN] == uses[Use.ABSENT] == uses[Use.SNAPSHOT] == 0
    assert {Use.SLAB, Use.KERNEL, Use.RESERVED, Use.PAGE_CACHE, Use.CODE, Use.DATA, Use.PERCPU} <= set(uses)


@pytest.fixture
def blind(four):
    """Return a function that gives the same, but the array of pages cannot be read, nor what else is named."""

    def run(*names):
        class Blind:
            def __getattr__(self, name):
                return getattr(four.space, name)

            def read(self, address, size):
                return bytes(size) if address >> 40 == 0xFFFFEA else four.space.read(address, size)

            def variable(self, symbol, size=8):
                if symbol in names:
                    raise MissingFact(symbol)
                return four.space.variable(symbol, size)

        return SimpleNamespace(space=Blind(), covered=four.covered)

    return run


def test_without_its_array_of_pages_it_is_not_known_whose_a_page_is(four, blind):
    place = four.space.physical(four.space.number(four.space.address("saved_context") + 152)) + 64
    found = owners(blind()).of_line(place, 1)
    assert (found.use, found.writes) == (Use.UNKNOWN, Writes.UNKNOWN)


@pytest.mark.parametrize(("pfn", "missing", "writes"), [
    (0x8000, (), Writes.HANDED_OUT), (0xA0, (), Writes.UNKNOWN), (0x100000, (), Writes.UNKNOWN),
    (0x8000, ("e820_table",), Writes.HANDED_OUT),
])  # fmt: skip
def test_without_it_all_memory_outside_the_image_may_be_handed_out(blind, pfn, missing, writes):
    """Where it is not known either what is memory, the resumer's line is in memory that it may take for its own."""
    found = owners(blind(*missing)).of_line(pfn << 12, 1)
    assert (found.use, found.writes) == (Use.ABSENT, writes)


@pytest.mark.parametrize("content", [0, 1, (1 << 64) - 1, 0xFFFF_FFFF_FFFF_F001, 0xFFFF_EA00_0000_0001])
def test_whatever_the_resumees_memory_holds_there_is_an_answer(allocator, content):
    """A damaged image: every page of the array of pages, of caches and of names is full of one word."""
    word = content.to_bytes(8, "little")

    class Damaged:
        """An address space in which all that is not the kernel's image reads as one word again and again."""

        def __getattr__(self, name):
            return getattr(allocator.space, name)

        def read(self, address, size):
            own = address >= 0xFFFF_FFFF_8000_0000
            return allocator.space.read(address, size) if own else (word * (size // 8 + 1))[:size]

        def number(self, address, size=8):
            return int.from_bytes(self.read(address, size), "little")

        def variable(self, symbol, size=8):
            return content & (1 << 8 * size) - 1 if symbol == "vmemmap_base" else allocator.space.variable(symbol, size)

    damaged = SimpleNamespace(space=Damaged(), covered=allocator.covered)
    known = owners(damaged)
    for first, length in list(allocator.covered.runs())[:400]:
        assert known.of_line(first + length // 2 << 12, 1).use in Use
        assert known.of_line(first + length << 12, 1).use in Use  # the first frame behind them, which the image lacks


def test_what_reports_call_whose_a_line_is():
    """Programs read these words in a report (``use`` and ``writes`` of a line's owner): they stay."""
    assert [*Use] == [
        "own line", "code", "data", "per-CPU data", "stack", "slab", "page table", "anonymous memory", "page cache",
        "free memory", "reserved memory", "kernel memory", "snapshot", "not in the image", "unknown",
    ]  # fmt: skip
    assert [*Writes] == ["never", "unknown", "once handed out", "ordinary", "before-init"]
