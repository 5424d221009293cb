"""What a woken CPU does, access by access, in made memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.context import ApContext
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.touch import Change, pages_of
from hibercheck.handoff.replay.trace import DATA, DESCRIPTOR, LINE, PARK_LOOP, PERCPU, RODATA, STACK, trace
from hibercheck.kernel.code.model import Patch, Touch
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Effect, Event, Facts
from hibercheck.x86.paging import Access
from tests.support.made_states import (
    CODE,
    ENTRY_FRAME,
    GDT,
    GDT_FRAME,
    GS,
    GS_FRAME,
    IDT_FRAME,
    LINE_AT,
    LINE_FRAME,
    OTHER,
    ROOT,
    STACK_AT,
    STACK_FRAME,
    TEXT,
    TEXT_FRAME,
    TSS_FRAME,
    entry_frames,
    entry_state,
    made,
    own_frames,
    page,
)

OWN, _ = own_frames()
KEPT = {OTHER: bytes(4096)}


def delivered(image, event=Event.NMI, state=ParkState.HLT, **more):
    memory, cpu = made(image, state, **more)
    return trace(memory, replace(cpu, entry=entry_state()), event)


@pytest.mark.parametrize("event", [Event.NMI, Event.MACHINE_CHECK])
@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO])
def test_an_event_that_is_delivered_returns_to_the_loop(event, state):
    found = delivered(KEPT, event, state)
    assert (found.difference, found.effect, found.event) == (Difference.INTACT, Effect.DELIVERS, event)
    assert found.iterates
    assert found.delivery is not None
    assert (found.reason, found.granted) == ("it parks again", False)


@pytest.mark.parametrize("frame", [IDT_FRAME, GDT_FRAME, ENTRY_FRAME, TSS_FRAME])
def test_what_an_event_needs_and_does_not_find_is_the_end(frame):
    found = delivered({frame: bytes(4096)})
    assert found.difference is Difference.FOREIGN
    assert found.iterates is (found.touched != ())
    if frame in {IDT_FRAME, GDT_FRAME}:
        assert not found.iterates


@pytest.mark.parametrize("frame", [IDT_FRAME, GDT_FRAME, TSS_FRAME])
def test_the_same_tables_in_replaced_memory_lead_to_data_that_are_not_its_own(frame):
    found = delivered({frame: entry_frames()[frame]})
    assert found.difference is Difference.FOREIGN
    assert found.reason == "its own handler runs on per-CPU data that have been replaced"


def test_a_stack_that_has_been_replaced_serves_as_well():
    found = delivered({STACK_FRAME: bytes(4096)})
    assert found.difference is Difference.SAME
    assert found.reason == "it parks again"


def test_code_of_the_resumee_in_another_place_is_no_handler():
    """A walk through the resumee's tables ends in its code, and not where its entry code is."""
    memory, cpu = made({ENTRY_FRAME: b"\xcc" * 4096, IDT_FRAME: entry_frames()[IDT_FRAME]}, ParkState.HLT)
    space = KernelSpace(memory.resumer.kernel, memory, memory.resumer.mode, ROOT << 12, 0, 0x200000)
    other = trace(replace(memory, resumee=space), replace(cpu, entry=entry_state()), Event.NMI)
    assert other.difference is Difference.FOREIGN
    assert "not a handler any more" in other.reason


def test_where_the_places_of_its_tables_are_not_known_a_failure_there_is_open():
    memory, cpu = made({GDT_FRAME: bytes(4096)}, ParkState.HLT)
    cpu = replace(cpu, entry=entry_state(), tables_placed=False)
    found = trace(memory, cpu, Event.NMI)
    assert found.difference is Difference.UNKNOWN
    assert "GDT and TSS" in found.reason
    gone, cpu = made({IDT_FRAME: bytes(4096)}, ParkState.HLT)
    assert (
        trace(gone, replace(cpu, entry=entry_state(), tables_placed=False), Event.NMI).difference is Difference.FOREIGN
    )


def test_without_registers_a_delivery_is_not_known():
    memory, cpu = made(KEPT, ParkState.HLT)
    found = trace(memory, cpu, Event.NMI)
    assert (found.difference, found.delivery) == (Difference.UNKNOWN, None)
    assert "not known" in found.reason


def test_tables_that_the_resumer_allocated_are_taken_to_be_gone_and_that_is_said():
    memory, cpu = made(KEPT, ParkState.HLT)
    memory.resumer.knows_entry = lambda table, _index: table >> 12 != ROOT
    found = trace(memory, replace(cpu, entry=entry_state()), Event.NMI)
    assert (found.difference, found.granted) == (Difference.FOREIGN, True)
    assert "taken for granted" in found.reason


def test_tables_of_which_nothing_is_known_leave_it_open():
    memory, cpu = made(KEPT, ParkState.HLT)
    frame = memory.resumer.frame
    memory.resumer.frame = lambda pfn: None if pfn == ROOT else frame(pfn)
    found = trace(memory, replace(cpu, entry=entry_state()), Event.NMI)
    assert (found.difference, found.granted) == (Difference.UNKNOWN, False)


def test_an_entry_of_the_resumee_that_leads_to_an_unknown_frame_is_no_way_back():
    """The resumee's own tables are all in the image: what its bytes lead to outside is not a table of the resumer's."""
    wild = (0x7777 << 12 | 0x67).to_bytes(8, "little") * 512
    for event, state in ((None, ParkState.MWAIT), (Event.NMI, ParkState.HLT)):
        memory, cpu = made({ROOT: wild}, state)
        found = trace(memory, replace(cpu, entry=entry_state()), event, cached=True)
        assert found.difference is (Difference.STALE if event is None else Difference.FOREIGN)
        assert not found.granted


@pytest.mark.parametrize(("state", "event", "effect"), [
    (ParkState.MWAIT, Event.STORE, Effect.CONTINUES), (ParkState.MWAIT, Event.SMI, Effect.CONTINUES),
    (ParkState.HLT, Event.SMI, Effect.RESTARTS), (ParkState.PORT_IO, Event.SPURIOUS, Effect.CONTINUES),
])  # fmt: skip
def test_what_is_not_delivered_goes_on_in_the_loop(state, event, effect):
    memory, cpu = made({TEXT_FRAME: bytes(4096)}, state)
    found = trace(memory, cpu, event)
    assert (found.effect, found.difference, found.delivery) == (effect, Difference.FOREIGN, None)
    assert found.reason == "it does not find its loop again"


def test_what_does_nothing_touches_nothing_and_what_ends_the_machine_needs_no_memory():
    memory, cpu = made({TEXT_FRAME: bytes(4096)}, ParkState.HLT)
    found = trace(memory, cpu, Event.STORE)
    assert (found.difference, found.touched, found.reason) == (Difference.INTACT, (), "it touches nothing")
    shut = trace(memory, replace(cpu, facts=Facts(machine_checks_enabled=False)), Event.MACHINE_CHECK)
    assert (shut.difference, shut.touched) == (Difference.FOREIGN, ())
    assert shut.effect.ends_machine
    assert "shuts down" in shut.reason
    nowhere, waiting = made(KEPT, ParkState.WAIT_FOR_SIPI)
    assert trace(nowhere, waiting, None).difference is Difference.INTACT


@pytest.mark.parametrize(("cached", "expected"), [(True, Difference.STALE), (False, Difference.FOREIGN)])
def test_only_a_warm_tlb_survives_other_tables(cached, expected):
    memory, cpu = made({ROOT: bytes(4096)})
    found = trace(memory, cpu, None, cached=cached)
    assert found.difference is expected
    assert found.decisive.change is Change.FAULT
    assert found.decisive.tables_only
    assert ROOT in found.decisive.tables_overwritten


def test_tables_elsewhere_that_map_other_bytes_there_are_as_bad_as_none():
    away, _ = own_frames(text_frame=0x150)
    image = {pfn: content for pfn, content in away.items() if pfn < 0x20} | {0x150: b"\xcc" * 4096}
    memory, cpu = made(image)
    found = trace(memory, cpu, None, cached=True)
    assert found.difference is Difference.STALE
    loop = next(item for item in found.touched if item.role == PARK_LOOP)
    assert (loop.change, loop.tables_only, loop.leaf) == (Change.CONTENT, True, TEXT_FRAME)


def test_bytes_that_the_kernel_patches_do_not_count():
    other = bytearray(OWN[TEXT_FRAME])
    other[0x100 + 0x15] ^= 0xFF
    memory, cpu = made({TEXT_FRAME: bytes(other)})
    assert trace(memory, cpu, None).difference is Difference.FOREIGN
    loop = replace(cpu.parked.loop, patchable=(Patch(TEXT + 0x15, TEXT + 0x16, "alternative"),))
    patched = replace(cpu, parked=replace(cpu.parked, loop=loop), context=replace(cpu.context, registers=None))
    assert trace(memory, patched, None).difference is Difference.SAME


def test_each_access_of_the_loop_is_made_where_the_cpu_makes_it():
    memory, cpu = made(KEPT)
    loop = replace(
        cpu.parked.loop,
        touches=(
            *cpu.parked.loop.touches,
            Touch("rodata", "read", TEXT + 0x800, "ds.0", None, 0, 2, TEXT),
            Touch("stack", "write", None, None, "rsp", 0, 8, TEXT),
            Touch("io", "read", None, None, None, 0, 1, TEXT),
        ),
    )
    context = replace(cpu.context, registers=None, stack=STACK_AT + 0x800)
    found = trace(memory, replace(cpu, parked=replace(cpu.parked, loop=loop), context=context), None)
    places = {item.role: (item.address, item.size, item.leaf) for item in found.touched}
    assert places == {
        PARK_LOOP: (TEXT, 0x20, TEXT_FRAME),
        LINE: (LINE_AT, 4, LINE_FRAME),
        PERCPU: (GS + 0x40, 4, GS_FRAME),
        RODATA: (TEXT + 0x800, 2, TEXT_FRAME),
        STACK: (STACK_AT + 0x800, 8, STACK_FRAME),
    }
    unplaced = trace(
        memory, replace(cpu, parked=replace(cpu.parked, loop=loop), context=replace(context, placed=False)), None
    )
    assert {item.role: item.leaf for item in unplaced.touched} == {
        PARK_LOOP: TEXT_FRAME, LINE: None, PERCPU: None, RODATA: TEXT_FRAME, STACK: None,
    }  # fmt: skip


def test_a_loop_of_several_parts_is_fetched_from_each():
    memory, cpu = made(KEPT)
    loop = replace(cpu.parked.loop, ranges=((TEXT, TEXT + 0x10), (TEXT + 0x10, TEXT + 0x20)))
    found = trace(memory, replace(cpu, parked=replace(cpu.parked, loop=loop)), None)
    fetched = [(item.address, item.size) for item in found.touched if item.role == PARK_LOOP]
    assert fetched == [(TEXT, 0x10), (TEXT + 0x10, 0x10)]


def test_contents_that_are_not_known_are_unknown_only_where_they_decide():
    memory, cpu = made(KEPT)
    frame = memory.resumer.frame
    memory.resumer.frame = lambda pfn: None if pfn == GS_FRAME else frame(pfn)
    cpu = replace(cpu, context=replace(cpu.context, registers=None))
    assert trace(memory, cpu, None).difference is Difference.INTACT  # reached as before, whatever it holds
    memory = memory.at(memory.floor)  # answers go with the memory of which they were worked out
    memory.resumer.frame = lambda pfn: None if pfn == ROOT else frame(pfn)
    found = trace(memory, cpu, None)
    assert found.difference is Difference.UNKNOWN
    assert found.fetch_unknown


def test_what_was_worked_out_goes_with_the_memory_and_is_worked_out_once():
    memory, cpu = made(KEPT)
    once, again = (trace(memory, cpu, None).touched for _ in range(2))
    assert once is again
    changed = replace(memory, floor=memory.floor)
    assert memory.answers
    assert not changed.answers
    assert trace(changed, cpu, None).touched is not once


def test_the_line_may_hold_anything():
    found = trace(*made({LINE_FRAME: page(0x40, b"\x55" * 64)}), None)
    assert found.difference is Difference.SAME


def test_under_kaslr_the_loop_is_where_the_kernel_is_now():
    """Link addresses move with the kernel; per-CPU symbols that do not count from zero move too."""
    shift = 0x2000000
    memory, cpu = made(KEPT)
    loop = cpu.parked.loop
    memory.resumer.kaslr_offset = shift
    memory.resumer.kernel.percpu_zero_based = False
    linked = replace(
        loop,
        ranges=tuple((start - shift, end - shift) for start, end in loop.ranges),
        touches=(
            loop.touches[0],
            replace(loop.touches[1], address=loop.touches[1].address - shift),
            Touch("data", "write", TEXT + 0x900 - shift, "counter", None, 0, 8, TEXT),
        ),
        patchable=(Patch(TEXT + 0x15 - shift, TEXT + 0x16 - shift, "alternative"),),
    )
    cpu = replace(cpu, parked=replace(cpu.parked, loop=linked), context=replace(cpu.context, registers=None))
    found = trace(memory, cpu, None)
    assert {(item.role, item.address, item.access) for item in found.touched} == {
        (PARK_LOOP, TEXT, Access.FETCH), (LINE, LINE_AT, Access.READ), (PERCPU, GS + 0x40, Access.READ),
        (DATA, TEXT + 0x900, Access.WRITE),
    }  # fmt: skip
    memory.resumer.kernel.percpu_zero_based = True
    moved = replace(linked, touches=(linked.touches[0], loop.touches[1]))
    found = trace(memory, replace(cpu, parked=replace(cpu.parked, loop=moved)), None)
    assert {(item.role, item.address) for item in found.touched} == {
        (PARK_LOOP, TEXT), (LINE, LINE_AT), (PERCPU, GS + 0x40),
    }  # fmt: skip
    other = bytearray(OWN[TEXT_FRAME])
    other[0x100 + 0x15] ^= 0xFF
    memory, _ = made({TEXT_FRAME: bytes(other)})
    memory.resumer.kaslr_offset = shift
    assert trace(memory, replace(cpu, context=replace(cpu.context, gs_base=None)), None).difference is Difference.SAME


def test_an_address_that_cannot_be_named_is_no_access():
    memory, cpu = made(KEPT)
    loop = replace(
        cpu.parked.loop,
        touches=(
            Touch("data", "read", None, None, "rax", 0, 8, TEXT),
            Touch("percpu", "read", None, None, "rax", 0, 8, TEXT),
            Touch("text", "fetch", TEXT, None, None, 0, 1, TEXT),
        ),
    )
    context = replace(cpu.context, registers=None)
    found = trace(memory, replace(cpu, parked=replace(cpu.parked, loop=loop), context=context), None)
    assert [item.role for item in found.touched] == [PARK_LOOP]


def test_what_an_address_is_to_a_cpu_that_is_followed():
    """By the registers alone: the line, its GDT, its stack, else data."""
    at = {"line": LINE_AT + 0x3C, "gdt": GDT + 0x18, "stack": STACK_AT + 0x800, "data": GS + 0x200}
    roles = {"line": LINE, "gdt": DESCRIPTOR, "stack": STACK, "data": DATA}
    for name, address in at.items():
        code = bytes.fromhex("488b1f").ljust(0x18, b"\x90") + CODE[0x18:]  # mov (%rdi),%rbx
        memory, cpu = made({OTHER: bytes(4096)}, code=code, registers={"rdi": address, "rax": LINE_AT}, gdt=(GDT, 0x1F))
        loop = replace(cpu.parked.loop, touches=())
        context = replace(cpu.context, stack=STACK_AT + 0x900)
        found = trace(memory, replace(cpu, parked=replace(cpu.parked, loop=loop), context=context), None)
        assert [item.role for item in found.touched if item.address == address] == [roles[name]], name
        assert [item.size for item in found.touched if item.address == address] == [8]
        assert [item.access for item in found.touched if item.address == address] == [Access.READ]


def test_reasons_name_what_fails_first():
    found = delivered({IDT_FRAME: bytes(4096)})
    assert found.reason
    assert not found.granted
    gone = delivered({ROOT: bytes(4096)})
    assert (gone.difference, gone.granted) == (Difference.FOREIGN, False)
    assert gone.reason.startswith("the IDT gate of vector 2 at 0xfffffe0000000020 is out of reach (level 4 entry not")


def test_a_cpu_back_from_an_event_has_nothing_cached():
    """Its tables elsewhere: the delivery goes its way, and the loop is not found again."""
    away, _ = own_frames(text_frame=0x150)
    image = {pfn: content for pfn, content in away.items() if pfn < 0x20} | {0x150: b"\xcc" * 4096}
    assert delivered(image).difference is Difference.FOREIGN
    own = {pfn: content for pfn, content in OWN.items() if pfn < 0x20}
    same = delivered(own)
    assert same.difference is Difference.FOREIGN  # its per-CPU data are reached by tables that have been replaced


def test_a_cpu_that_does_not_page_uses_physical_addresses():
    memory, cpu = made(KEPT, ParkState.HLT)
    loop = replace(cpu.parked.loop, ranges=((TEXT_FRAME << 12 | 0x100, TEXT_FRAME << 12 | 0x120),), touches=())
    flat = replace(
        cpu,
        parked=replace(cpu.parked, loop=loop),
        context=ApContext(1, 0, placed=True, paging=False),
    )
    memory.resumer.bytes_at = lambda address, size: OWN[address >> 12][address & 0xFFF :][:size]
    found = trace(memory, flat, None)
    assert (found.difference, found.touched[0].leaf, found.touched[0].walk.steps) == (Difference.INTACT, TEXT_FRAME, ())
    over, _ = made({TEXT_FRAME: bytes(4096)}, ParkState.HLT)
    over.resumer.bytes_at = memory.resumer.bytes_at
    assert trace(over, flat, None, cached=True).difference is Difference.FOREIGN


def test_where_nothing_is_known_of_what_is_read_it_is_the_same_as_long_as_it_is_reached():
    """A frame of the resumer's whose contents are not known, reached through replaced tables that lead there."""
    own = {pfn: content for pfn, content in OWN.items() if pfn < 0x20}
    memory, cpu = made(own)
    frame = memory.resumer.frame
    memory.resumer.frame = lambda pfn: None if pfn == GS_FRAME else frame(pfn)
    cpu = replace(cpu, context=replace(cpu.context, registers=None))
    found = trace(memory, cpu, None)
    changes = {item.role: item.change for item in found.touched}
    assert changes == {PARK_LOOP: Change.SAME, LINE: Change.SAME, PERCPU: Change.SAME}
    unplaced = replace(cpu, context=replace(cpu.context, placed=False))
    changes = {item.role: item.change for item in trace(memory, unplaced, None).touched}
    assert changes[PERCPU] is Change.UNKNOWN
    away, _ = own_frames(gs_frame=0x160)
    moved, cpu = made({pfn: content for pfn, content in away.items() if pfn < 0x20})
    frame = moved.resumer.frame
    moved.resumer.frame = lambda pfn: None if pfn == 0x160 else frame(pfn)
    cpu = replace(cpu, context=replace(cpu.context, registers=None))
    changes = {item.role: (item.change, item.tables_only) for item in trace(moved, cpu, None).touched}
    assert changes[PERCPU] == (Change.CONTENT, True)


@pytest.mark.parametrize(("image", "overwritten"), [({LINE_FRAME: bytes(4096)}, True), ({ROOT: bytes(4096)}, False)])
def test_whether_what_it_touched_before_is_overwritten_is_told_of_every_access(image, overwritten):
    memory, cpu = made(image)
    found = trace(memory, replace(cpu, context=replace(cpu.context, registers=None)), None, cached=True)
    line = next(item for item in found.touched if item.role == LINE)
    assert (line.leaf_overwritten, line.leaf) == (overwritten, LINE_FRAME)


def test_pages_are_cut_at_their_borders():
    assert pages_of(0x1FF0, 0x3010) == [(0x1FF0, 0x10), (0x2000, 0x1000), (0x3000, 0x10)]
    assert pages_of(0x1000, 0x1000) == []


def test_the_words_of_changes_are_stable():
    assert [str(one) for one in Change] == ["intact", "same", "content", "fault", "unknown"]
