"""A resumer at a known address: the registers that its kernel sets up, and a stand-in for what it allocates."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.memory.placed import owners, placed
from hibercheck.handoff.memory.resumer import PlacedKernel
from hibercheck.x86.cpu import FredState, ParkState
from hibercheck.x86.paging import CR4_FSGSBASE, PagingMode
from tests.support.made_inputs import INTEL, Kernel, made_plan, made_resumee
from tests.support.made_memory import Memory
from tests.support.made_states import park_loop

TABLES = {
    "_end": START_KERNEL_MAP + 0x3000000,
    "_etext": START_KERNEL_MAP + 0x1800000,
    "init_top_pgt": START_KERNEL_MAP + 0x2000000,
    "level4_kernel_pgt": START_KERNEL_MAP + 0x2001000,
    "level3_kernel_pgt": START_KERNEL_MAP + 0x2002000,
    "level2_kernel_pgt": START_KERNEL_MAP + 0x2003000,
    "__per_cpu_start": 0x40,
}
DIRECT, SIZE, SHIFT = 0xFFFF888000000000, 0x3B000, 0x5000000
AREA = 0xFFFFFE0000000000
"""CPU_ENTRY_AREA: the IDT's page, then for each CPU its GDT, a page of entry stack, and its TSS."""


class Space:
    """The resumee's address space, with a per-CPU area of each CPU in its direct map."""

    phys_base = kaslr_offset = 0
    mode = PagingMode()
    cr3 = 0x2000000

    def __init__(self, kernel, mapped=True):
        self.kernel, self.mapped = kernel, mapped
        self.memory = SimpleNamespace(frame=lambda _pfn: None)

    def variable(self, symbol, _size=8):
        raise MissingFact(f"no {symbol}")

    def percpu_base(self, cpu):
        return DIRECT + 0x100000 * cpu

    def percpu_address(self, name, cpu):
        return self.percpu_base(cpu) + {"gdt_page": 0x9123}[name]

    def physical(self, address):
        if not self.mapped:
            raise MissingFact("not in the image")
        return address - DIRECT


def cpus_of(*, symbols=(), mapped=True, levels=4, offset=0, features=INTEL, zero_based=True, traits=None, **given):
    """Return the CPUs of a resumer with these symbols besides, at a physical displacement of 32 MiB."""
    kernel = Kernel(**TABLES, **dict.fromkeys(symbols, 1))
    kernel.percpu_zero_based = zero_based
    resumee = made_resumee(Space(kernel, mapped), features=features)
    plan = made_plan(resumee=resumee, traits={"cea_size": SIZE, **(traits or {})}, **given)
    return placed(plan, levels, 0x2000000, offset)[1]


@pytest.mark.parametrize("levels", [4, 5])
def test_the_finished_copy_is_made_of_what_the_scenario_has(levels):
    resumee = made_resumee(Space(Kernel(**TABLES)))
    for collected in (None, {"frames": {}}, {"frames": None}):  # of which nothing is known more
        plan = made_plan(resumee=resumee, collected=collected)
        memory, cpus = placed(plan, levels, 0x2000000, SHIFT)
        assert (memory.image, memory.resumee) == (plan.image, resumee.space)
        assert memory.owners.line_size == 64
        assert (memory.resumer.mode.levels, memory.resumer.mode.max_phys_bits) == (levels, plan.physical_bits)
        assert plan.physical_bits != 52
        assert {one.entry.max_phys_bits for one in cpus} == {plan.physical_bits}
        assert type(memory.resumer) is PlacedKernel


def test_lines_are_as_long_as_where_cpus_sleep_they_were_measured_to_be():
    collected = {"monitor": MonitorLeaf(128, (0,) * 8, extended=True)}
    traits = {"resume_park": "mwait", "monitored": "percpu:mwait_cpu_dead"}
    for state, size in ((ParkState.MWAIT, 128), (ParkState.HLT, 64)):
        plan = made_plan(resumee=made_resumee(Space(Kernel(**TABLES))), collected=collected, traits=traits)
        plan = replace(plan, parked=tuple(replace(one, state=state) for one in plan.parked))
        assert owners(plan).line_size == size


@pytest.mark.parametrize("cpu", [1, 2, 3])
def test_the_descriptor_tables_are_where_cpu_entry_area_c_puts_them(cpu):
    found = cpus_of()[cpu - 1]
    own, entry = AREA + 0x1000 + cpu * SIZE, found.entry
    assert (found.number, found.tables_placed) == (cpu, True)
    assert (entry.idt_base, entry.idt_limit) == (AREA, 0xFFF)
    assert (entry.gdt_base, entry.gdt_limit) == (own, 0x7F)
    assert (entry.tr_base, entry.tr_limit) == (own + 0x2000, 0x206F)
    assert entry.cr3 == TABLES["init_top_pgt"] - START_KERNEL_MAP + 0x2000000 == found.context.cr3


@pytest.mark.parametrize(("symbols", "line", "traits", "known"), [
    ((), "", {}, True),
    (("_cea_offset",), "", {"randomize_base": True}, False),
    ((), "", {"randomize_base": True}, True),
    (("_cea_offset",), "nokaslr", {"randomize_base": True}, True),
    (("_cea_offset",), "", {"randomize_base": False}, True),
    ((), "", {"cea_size": None}, False),
])  # fmt: skip
def test_whether_their_place_is_known(symbols, line, traits, known):
    """They are at random places since 97e3d26b5e5f ("x86/mm: Randomize per-cpu entry area", in v6.2)."""
    found = cpus_of(symbols=symbols, resumer_cmdline=line, traits=traits)[0]
    assert found.tables_placed is known
    assert found.entry.gdt_base == AREA + 0x1000 + (SIZE if known else 0)


PAE, MCE, LA57, SMEP, SMAP = (1 << bit for bit in (5, 6, 12, 20, 21))


@pytest.mark.parametrize(("levels", "flags", "cr4"), [
    (4, set(), PAE | MCE), (5, set(), PAE | MCE | LA57),
    (4, {"smep"}, PAE | MCE | SMEP), (4, {"smap"}, PAE | MCE | SMAP),
    (5, {"smep", "smap"}, PAE | MCE | LA57 | SMEP | SMAP),
])  # fmt: skip
def test_control_registers_as_linux_sets_them(levels, flags, cr4):
    entry = cpus_of(levels=levels, features=replace(INTEL, flags=frozenset(flags)))[0].entry
    assert (entry.cr0, entry.cr4, entry.efer, entry.rflags) == (0x80050033, cr4, 0xD01, 0x46)
    assert cpus_of(features=None)[0].entry.cr4 == PAE | MCE


@pytest.mark.parametrize(("code", "flags", "line", "expected"), [
    (bytes.fromhex("eb25f3480faecb"), {"fsgsbase"}, "", True),
    (bytes.fromhex("eb25f3480faecb"), {"fsgsbase"}, "nofsgsbase", False),
    (bytes.fromhex("eb25f3480faecb"), set(), "", False),
    (bytes.fromhex("b9010100c00f32"), {"fsgsbase"}, "", False),  # before v5.9
    (None, {"fsgsbase"}, "", False), ("no such function", {"fsgsbase"}, "", False),
])  # fmt: skip
def test_fsgsbase_is_enabled_by_a_kernel_whose_entry_code_uses_it(code, flags, line, expected):
    named = {} if code == "no such function" else {"paranoid_entry": START_KERNEL_MAP + 0x1000}
    kernel = Kernel(**TABLES, **named)

    def read(address, size):
        if code is None:
            raise MissingFact("not in the file")
        assert (address, size) == (START_KERNEL_MAP + 0x1000, len(code))
        return code

    kernel.read, kernel.extent = read, lambda _symbol: len(code or b"")
    resumee = made_resumee(Space(kernel), features=replace(INTEL, flags=frozenset(flags)))
    plan = made_plan(resumee=resumee, traits={"cea_size": SIZE}, resumer_cmdline=line)
    entry = placed(plan, 4, 0x2000000, 0)[1][0].entry
    assert bool(entry.cr4 & CR4_FSGSBASE) is expected


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize(("symbols", "at"), [((), 0x200000), (("gdt_page",), 0x209000)])
@pytest.mark.parametrize(("levels", "direct"), [(4, DIRECT), (5, 0xFF11000000000000)])
def test_for_its_per_cpu_area_any_address_of_the_direct_map_stands_in(symbols, at, levels, direct, zero_based):
    found = cpus_of(symbols=symbols, levels=levels, offset=SHIFT, zero_based=zero_based)[1].context
    assert (found.placed, found.line) == (False, direct + at)
    assert found.gs_base == direct + at - 0x40 - (0 if zero_based else SHIFT)
    assert (found.registers, found.rip, found.gdt) == (None, None, None)


def test_without_the_resumees_areas_there_is_no_stand_in():
    found = cpus_of(mapped=False)[0].context
    assert (found.gs_base, found.line, found.placed) == (None, None, False)


@pytest.mark.parametrize(("symbols", "interrupts"), [((), False), (("mcheck_cpu_init",), False), ((), True)])
def test_how_it_takes_events_is_as_its_kernel_sets_it_up(symbols, interrupts):
    kernel = Kernel(**TABLES, **dict.fromkeys(symbols, 1))
    plan = made_plan(resumee=made_resumee(Space(kernel)), traits={"cea_size": SIZE})
    loop = replace(park_loop(), interrupts=interrupts)
    plan = replace(plan, parked=tuple(replace(one, loop=loop) for one in plan.parked))
    for found in placed(plan, 4, 0, SHIFT)[1]:
        assert found.facts.machine_checks_enabled is bool(symbols)
        assert found.facts.interrupts_enabled is interrupts
        assert found.entry.rip == loop.resume_at + SHIFT & (1 << 64) - 1


LINE_FRAME = 0x1234


@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT])
@pytest.mark.parametrize(("frames", "withheld"), [((LINE_FRAME, 7), True), ((), False), (None, None)])
def test_a_line_in_the_fixmap_is_where_the_kernel_says(state, frames, withheld):
    """Only a CPU in MWAIT monitors one; the first frame is that of the lines."""
    told = {"monitored": "fixmap:0xffffffffff578000", "monitored_frame": frames, "line_withheld": withheld}
    plan = made_plan(resumee=made_resumee(Space(Kernel(**TABLES))), traits={"cea_size": SIZE, **told})
    plan = replace(plan, parked=tuple(replace(one, state=state) for one in plan.parked))
    for cpu in placed(plan, 4, 0, SHIFT)[1]:
        found = cpu.context
        if state is ParkState.MWAIT:
            assert (found.line, found.line_frame) == (0xFFFFFFFFFF578000, LINE_FRAME if frames else None)
            assert found.line_withheld is (withheld is True)
        else:
            assert (found.line, found.line_frame, found.line_withheld) == (DIRECT + 0x100000 * cpu.number, None, False)


LEVELS = 2 << 2 * 18 | 3 << 2 * 8 | 2 << 2 * 2 | 1 << 2 * 1
FRED_ENTRY = START_KERNEL_MAP + 0x1200000
HAS_FRED = replace(INTEL, flags=frozenset({"fred", "lkgs"}))


@pytest.mark.parametrize(("built", "stacks", "entry", "uses", "known"), [
    (True, (LEVELS, 0x9000, 0x6000, 0x3000), True, True, True), (True, None, True, True, False),
    (True, (LEVELS, 0x9000, 0x6000, 0x3000), False, True, False),
    (False, (LEVELS, 0x9000, 0x6000, 0x3000), True, False, False),
    (None, (LEVELS, 0x9000, 0x6000, 0x3000), True, True, False),  # it may use it: in what way was not read
])  # fmt: skip
def test_fred_as_fred_c_sets_it_up(built, stacks, entry, uses, known):
    """Entry points and the red zone in IA32_FRED_CONFIG, and the stacks behind the tables of the CPU's entry area."""
    kernel = Kernel(**TABLES, **({"asm_fred_entrypoint_user": FRED_ENTRY} if entry else {}))
    told = {"cea_size": SIZE, "fred": built, "fred_default": True, "fred_stacks": stacks}
    plan = made_plan(resumee=made_resumee(Space(kernel), features=HAS_FRED), traits=told)
    for cpu in placed(plan, 4, 0, SHIFT)[1]:
        area = AREA + 0x1000 + cpu.number * SIZE
        ends = tuple(area + 0x5000 + end for end in (0x9000, 0x6000, 0x3000))
        assert cpu.entry.uses_fred is uses
        assert cpu.entry.fred == (FredState(FRED_ENTRY + SHIFT | 0x40, LEVELS, (0, *ends)) if known else None)


PERCPU, AT, MASK = 0xFFFF888008000000, 0x2000000, (1 << 64) - 1
NAMED = TABLES | {"__per_cpu_offset": START_KERNEL_MAP + 0x2100000, "mwait_cpu_dead": 0x1080}
LOOP = park_loop()


def collected_cpu(*, without=(), loop=LOOP, monitored="percpu:mwait_cpu_dead", random=None, **traits):
    """Return CPU 2 of a resumer that was asked for its tables, its text and its per-CPU areas, but for these."""
    kernel = Kernel(**NAMED, **({} if random is None else {"_cea_offset": 0x1100}))
    memory = Memory(root=NAMED["init_top_pgt"] - START_KERNEL_MAP + AT >> 12)
    memory.following = 0x8000
    for link in (kernel.require("_text").address, LOOP.start & ~0xFFF, NAMED["__per_cpu_offset"]):
        memory.map(link + SHIFT & MASK, link - START_KERNEL_MAP + AT)
    offsets = NAMED["__per_cpu_offset"] - START_KERNEL_MAP + AT
    areas = 0x9000000
    for cpu in range(4):
        memory.put(offsets + 8 * cpu, struct.pack("<Q", PERCPU + 0x10000 * cpu))
        memory.map(PERCPU + 0x10000 * cpu + 0x1000, areas + 0x1000 * cpu)
        memory.put(areas + 0x1000 * cpu + 0x100, struct.pack("<I", (random or 0) + cpu))
    frames = {pfn: bytes(content) for pfn, content in memory.items()}
    where = {"text": LOOP.start - START_KERNEL_MAP + AT, "offsets": offsets, "areas": areas + 0x2000}
    for name in without:
        del frames[where[name] >> 12]
    told = {"cea_size": SIZE, "monitored": monitored, "randomize_base": True, **traits}
    plan = made_plan(
        resumee=made_resumee(Space(kernel)), traits=told, collected={"frames": frames, "load_address": 0x6000000}
    )
    plan = replace(plan, parked=tuple(replace(one, state=ParkState.MWAIT, loop=loop) for one in plan.parked))
    found = placed(plan, 4, AT, SHIFT)[1][1]
    assert found.number == 2
    return found


OWN = PERCPU + 0x20000


def test_a_cpu_of_which_all_was_collected():
    found = collected_cpu()
    context, line = found.context, OWN + 0x1080
    assert (context.placed, context.gs_base, context.line) == (True, OWN, line)
    assert (context.rip, context.registers) == (LOOP.resume_at + SHIFT & MASK, {"rdi": line})
    assert context.cr3 == NAMED["init_top_pgt"] - START_KERNEL_MAP + AT
    assert context.gdt == (AREA + 0x1000 + 2 * SIZE, 0x7F)
    assert context.gdt == (found.entry.gdt_base, found.entry.gdt_limit)


@pytest.mark.parametrize(("loop", "monitored", "line", "registers"), [
    (LOOP, "percpu:mwait_cpu_dead", True, True), (replace(LOOP, line=None), "percpu:mwait_cpu_dead", True, False),
    (LOOP, None, False, False),
])  # fmt: skip
def test_the_line_is_in_the_register_that_the_loop_has_it_in(loop, monitored, line, registers):
    context = collected_cpu(loop=loop, monitored=monitored).context
    assert context.line == (OWN + 0x1080 if line else None)
    assert context.registers == ({"rdi": OWN + 0x1080} if registers else {})


def test_a_loop_in_two_pieces_of_which_one_was_collected_is_not_known():
    pieces = replace(LOOP, ranges=(*LOOP.ranges, (LOOP.start + 0x4000, LOOP.start + 0x4004)))
    context = collected_cpu(loop=pieces).context
    assert (context.placed, context.rip, context.registers) == (True, None, None)


@pytest.mark.parametrize("missing", ["its text", "its loop"])
def test_without_the_text_of_its_loop_nothing_is_said_of_its_registers(missing):
    """What the kernel has patched there is not known."""
    found = collected_cpu(without=("text",)) if missing == "its text" else collected_cpu(loop=None)
    context = found.context
    assert (context.placed, context.gs_base, context.line) == (True, OWN, OWN + 0x1080)
    assert (context.rip, context.registers, context.gdt) == (None, None, None)


def test_without_its_per_cpu_area_a_stand_in_is_taken():
    context = collected_cpu(without=("offsets",)).context
    assert (context.placed, context.rip, context.registers) == (False, None, None)
    assert context.line == DIRECT + 0x200000


@pytest.mark.parametrize(("random", "without", "index"), [
    (None, (), 2), (None, ("areas",), 2), (5, (), 7), (0x1FFF, (), 0x2001), (5, ("areas",), None),
])  # fmt: skip
def test_where_its_tables_are_random_their_place_was_collected_or_is_not_known(random, without, index):
    found = collected_cpu(random=random, without=without)
    assert found.tables_placed is (index is not None)
    assert found.entry.gdt_base == AREA + 0x1000 + (index or 0) * SIZE
    assert found.context.gdt == (None if index is None else (found.entry.gdt_base, 0x7F))
    unsized = collected_cpu(random=random, without=without, cea_size=None)
    assert (unsized.tables_placed, unsized.context.gdt) == (False, None)
