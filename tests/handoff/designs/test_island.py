"""The self-contained places run: a CPU enters them from R's tables, waits, and takes every event, in unicorn."""

from __future__ import annotations

import struct

import pytest
from iced_x86 import Decoder

pytest.importorskip("unicorn")

from hibercheck.handoff.designs.island import (
    CHECK_STACK,
    CODE_SELECTOR,
    DATA_SELECTOR,
    FLAT_IDT_LIMIT,
    GATES,
    GDT,
    GDT_LIMIT,
    IDT_LIMIT,
    LOOP_STACK,
    NMI_STACK,
    build,
    frames_needed,
)
from hibercheck.x86.exceptions import DeliveryEnd, deliver
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import Access, PagingMode, walk
from tests.handoff.designs.emulated import MCG_STATUS, Machine

CPUS = (1, 2, 3, 5, 9)
FIRST = 0x5200
RESUMER_TABLES = 0x9000
NMI, GENERAL_PROTECTION, MACHINE_CHECK = 2, 13, 18


def place(levels: int):
    count = frames_needed(len(CPUS), levels)
    return build(CPUS, [FIRST + 3 * index for index in range(count)], levels)


def identity(levels: int) -> dict[int, bytes]:
    """R's own tables: the 2 MiB with the place at its physical address, as the temporary tables of a resume map it."""
    address = FIRST << 12
    tables = [RESUMER_TABLES + index for index in range(levels - 1)]
    frames = {}
    for depth, pfn in enumerate(tables):
        index = address >> 12 + 9 * (levels - 1 - depth) & 511
        entry = address & -(1 << 21) | 0xE3 if depth == levels - 2 else tables[depth + 1] << 12 | 0x63
        frames[pfn] = b"".join(struct.pack("<Q", entry if at == index else 0) for at in range(512))
    return frames


def entered(levels: int, cpu: int = 9) -> tuple[Machine, object]:
    """Return the emulator with a CPU parked in the place, and R's tables gone."""
    island, tables = place(levels), identity(levels or 4)
    machine = Machine({**island.frames, **tables})
    machine.long_mode(RESUMER_TABLES << 12, la57=levels == 5)
    machine.set("rsi", island.blocks[cpu])
    machine.set("rdi", island.cr3)
    assert machine.run(island.entry) is None
    assert machine.halts == [island.loop]
    for pfn in tables:
        machine.uc.mem_unmap(pfn << 12, 4096)
    return machine, island


def registers(island, cpu: int = 9):
    cr4 = 0x20 | 1 << 6 | (1 << 12 if island.levels == 5 else 0)
    return island.cpu(cpu, 0x80050033, cr4, 0xD01, 40)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_cpu_that_entered_waits_on_the_places_own_tables(levels):
    machine, island = entered(levels)
    assert machine.get("cr3") == island.cr3
    assert (machine.get("cs"), machine.get("ss")) == (CODE_SELECTOR, DATA_SELECTOR)
    assert machine.get("rsp") == island.blocks[9] + LOOP_STACK
    for _ in range(3):  # whatever ends a HLT without delivering anything: an SMI that does not restart it
        assert machine.run(island.loop + 1) is None
        assert machine.halts == [island.loop]
    assert machine.run(island.loop) is None  # an SMI that restarts it
    assert machine.halts == [island.loop]


def test_without_paging_a_cpu_leaves_long_mode_and_waits():
    machine, island = entered(0)
    assert machine.get("cr0") >> 31 == 0
    assert machine.uc.msr_read(0xC0000080) >> 8 & 5 == 0  # EFER.LME and LMA
    assert machine.run(island.loop + 1) is None
    assert machine.halts == [island.loop]


@pytest.mark.parametrize(("levels", "bits"), [(4, {32}), (0, {32, 17})])
def test_the_entry_clears_what_would_stand_in_its_way(levels, bits):
    """CR4.FRED, as events are to come through the IDT; CR4.PCIDE, with which CR0.PG cannot be cleared.

    The emulator has neither.
    """
    island = place(levels)
    page = island.frame(island.code >> 12)[island.entry & 0xFFF : island.loop & 0xFFF]
    texts = [str(one) for one in Decoder(64, page, ip=island.entry)]
    change = texts[texts.index("mov rax,cr4") + 1 : texts.index("mov cr4,rax")]
    assert {int(text.partition(",")[2].removesuffix("h"), 16) for text in change} == bits
    assert all(text.startswith("btr ") for text in change)


@pytest.mark.parametrize("vector", [NMI, MACHINE_CHECK])
@pytest.mark.parametrize("levels", [4, 5])
def test_events_return_to_the_loop(levels, vector):
    machine, island = entered(levels)
    machine.uc.msr_write(MCG_STATUS, 4)  # MCIP, as a machine check sets it
    state = registers(island)
    delivery = deliver(MappedFrames(island.frames), state, vector)
    assert delivery.end is DeliveryEnd.HANDLED
    assert {access.walk.physical is not None for access in delivery.accesses} == {True}
    stack = island.blocks[9] + (NMI_STACK if vector == NMI else CHECK_STACK)
    frame = [state.ss, state.rsp, state.rflags, state.cs, state.rip]
    assert machine.push64(stack, frame) == delivery.rsp
    machine.set("rsp", delivery.rsp)
    assert machine.run(delivery.rip) is None
    assert machine.halts == [island.loop]
    assert machine.get("rsp") == state.rsp
    assert machine.uc.msr_read(MCG_STATUS) == (4 if vector == NMI else 0)


@pytest.mark.parametrize("vector", [NMI, MACHINE_CHECK])
def test_without_paging_events_return_to_the_loop(vector):
    machine, island = entered(0)
    assert machine.get("gdtr")[1:3] == (island.blocks[9] + GDT, GDT_LIMIT)
    assert machine.get("idtr")[1:3] == (island.code, FLAT_IDT_LIMIT)
    gate = int.from_bytes(island.frame(island.code >> 12)[8 * vector :][:8], "little")
    assert (gate >> 16 & 0xFFFF, gate >> 40 & 0xFF) == (CODE_SELECTOR, 0x8E)
    handler = gate & 0xFFFF | gate >> 32 & 0xFFFF0000
    machine.uc.msr_write(MCG_STATUS, 4)
    esp = machine.push32(island.blocks[9] + LOOP_STACK, [0x46, CODE_SELECTOR, island.loop + 1])
    machine.set("rsp", esp)
    assert machine.run(handler) is None
    assert machine.halts == [island.loop]
    assert machine.get("rsp") == island.blocks[9] + LOOP_STACK
    assert machine.uc.msr_read(MCG_STATUS) == (4 if vector == NMI else 0)


@pytest.mark.parametrize("vector", [vector for vector in range(GATES) if vector not in {NMI, MACHINE_CHECK}])
def test_any_other_exception_ends_in_a_hlt(vector):
    machine, island = entered(4)
    delivery = deliver(MappedFrames(island.frames), registers(island), vector)
    assert delivery.end is DeliveryEnd.HANDLED
    machine.set("rsp", delivery.rsp)
    assert machine.run(delivery.rip) is None
    assert len(machine.halts) == 1
    assert machine.halts[0] >> 12 == island.code >> 12


def test_every_cpu_has_stacks_of_its_own():
    island = place(4)
    assert sorted(island.blocks) == list(CPUS)
    assert len(set(island.blocks.values())) == len(CPUS)
    for first in island.blocks.values():
        assert all(abs(first - other) >= 1024 for other in island.blocks.values() if other != first)
        assert (first >> 12) in island.frames


@pytest.mark.parametrize("levels", [0, 4, 5])
def test_the_place_takes_exactly_its_frames(levels):
    island = place(levels)
    assert len(island.frames) == frames_needed(len(CPUS), levels) == levels + 1 + 2
    assert set(island.roles) == set(island.frames)
    assert all(len(content) == 4096 for content in island.frames.values())


def test_the_code_page_is_read_only_and_the_blocks_are_not_executable():
    island = place(4)
    memory, mode = MappedFrames(island.frames), PagingMode()
    block = island.blocks[1]
    assert walk(memory, mode, island.cr3, island.loop, Access.FETCH).physical == island.loop
    assert walk(memory, mode, island.cr3, island.loop, Access.WRITE).fault is not None
    assert walk(memory, mode, island.cr3, block, Access.WRITE).physical == block
    assert walk(memory, mode, island.cr3, block, Access.FETCH).fault is not None
    assert walk(memory, mode, island.cr3, 0xFFFFFFFF81000000, Access.FETCH).fault is not None


def test_the_walk_sets_no_flag_in_the_tables():
    island = place(4)
    for address, access in ((island.loop, Access.FETCH), (island.blocks[1], Access.WRITE)):
        assert walk(MappedFrames(island.frames), PagingMode(), island.cr3, address, access).updates == ()


@pytest.mark.parametrize("lost", ["code and IDT", "GDT, TSS and stacks", "page table, level 1"])
def test_the_emulator_notices_a_lost_frame(lost):
    island = place(4)
    state = registers(island)
    damaged = {pfn: bytes(4096) if island.roles[pfn] == lost else content for pfn, content in island.frames.items()}
    outcomes = []
    for frames in (island.frames, damaged):
        machine = Machine(frames)
        machine.long_mode(island.cr3)
        machine.set("gdtr", (0, state.gdt_base, state.gdt_limit, 0))
        delivery = deliver(MappedFrames(island.frames), state, NMI)
        machine.push64(island.blocks[9] + NMI_STACK, [state.ss, state.rsp, state.rflags, state.cs, state.rip])
        machine.set("rsp", delivery.rsp)
        outcomes.append((machine.run(delivery.rip), machine.halts == [island.loop]))
    assert outcomes[0] == (None, True)
    assert outcomes[1] != (None, True)


def test_limits_fit_their_tables():
    assert IDT_LIMIT + 1 == 16 * GATES
