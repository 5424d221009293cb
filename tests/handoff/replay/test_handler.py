"""Whether what a delivery reaches is a whole handler, in made memory."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.handler import gate_leads_astray
from hibercheck.handoff.replay.trace import trace
from hibercheck.x86.cpu import FredState, ParkState
from hibercheck.x86.events import Event
from hibercheck.x86.paging import CR4_FRED, CR4_FSGSBASE
from tests.support.made_states import (
    CALLED,
    CALLED_FRAME,
    ENTRY,
    ENTRY_FRAME,
    GDT,
    GDT_FRAME,
    GS,
    GS_FRAME,
    HANDLERS,
    IDT_FRAME,
    NUMBER,
    OTHER,
    PLACES,
    ROOT,
    STACK_AT,
    STACK_FRAME,
    TSS_FRAME,
    entry_frames,
    entry_state,
    gate,
    made,
    page,
)

KEPT = {OTHER: bytes(4096)}
RDGSBASE, RDMSR = bytes.fromhex("f3480faecb"), bytes.fromhex("b9010100c0 0f32")
SETS = RDGSBASE + b"\x90" * 20
KEEPS = b"\xeb\x05" + RDGSBASE + RDMSR
AREAS, ONLINE = CALLED + 0x800, CALLED + 0x900
OTHER_AREA = 0xFFFF888000007000


def kernel_of(places, sizes=0x40):
    """Return a kernel with symbols at addresses."""

    def symbol(name):
        return SimpleNamespace(name=name, address=places[name], size=sizes) if name in places else None

    def require(name):
        place = ({"_text": ENTRY, "_end": ENTRY + 0x3000} | places).get(name)
        if place is None:
            raise MissingFact(name)
        return SimpleNamespace(address=place)

    return SimpleNamespace(symbol=symbol, require=require, release="6.1", percpu_zero_based=True, offset_of=offset_of)


def offset_of(name, member):
    return {("pcpu_hot", "cpu_number"): 12}[name, member]


def told(memory, cpu, event=Event.NMI, **entry):
    state = replace(entry_state(), gdt_limit=0x7F, cr4=entry_state().cr4 | CR4_FSGSBASE)
    found = trace(memory, replace(cpu, entry=replace(state, **entry)), event)
    return found.difference, found.reason


def called(code=SETS, area=OTHER_AREA, online=1):
    """Return the frame of what the entry code calls: as it is made, with paranoid_entry, areas and who is online."""
    content = bytearray(b"\x90" * 4096)
    content[0x300 : 0x300 + len(code)] = code
    content[0x800:0x810] = struct.pack("<QQ", 0, area)
    content[0x900:0x908] = struct.pack("<Q", online)
    return bytes(content)


def gdt_of(number):
    """Return a GDT whose CPUNODE descriptor has a number."""
    frame = bytearray(entry_frames()[GDT_FRAME])
    frame[15 * 8 : 16 * 8] = struct.pack("<HHBBBB", number | 3 << 12, 0, 0, 0xF5, 0x40, 0)
    return bytes(frame)


def in_resumee(*, code=SETS, area=OTHER_AREA, number=1, places=PLACES, more=None):
    """Return memory in which the resumee's entry code is in place."""
    frames = {ENTRY_FRAME: b"\x90" * 4096, CALLED_FRAME: called(code, area), GDT_FRAME: gdt_of(number)}
    memory, cpu = made(frames | (more or {}), ParkState.HLT)
    kernel = kernel_of(places | {"__per_cpu_offset": AREAS})
    return replace(memory, resumee=KernelSpace(kernel, memory, memory.resumer.mode, ROOT << 12, 0, 0)), cpu


@pytest.mark.parametrize("event", [Event.NMI, Event.MACHINE_CHECK])
def test_the_resumees_own_handler_finds_its_area_by_the_gdt_and_returns(event):
    assert told(*in_resumee(), event) == (Difference.SAME, "it parks again")


@pytest.mark.parametrize(("told_of", "entry", "why"), [
    ({"code": KEEPS}, {}, "keeps what is negative"),
    ({}, {"cr4": 0x60}, "CR4.FSGSBASE is not known to be set"),
    ({"number": 2}, {}, "says that it is CPU 2"),
    ({"more": {GDT_FRAME: entry_frames()[GDT_FRAME]}}, {}, "does not have the CPU's number"),
    ({}, {"gdt_limit": 0x7E}, "does not have the CPU's number"),
    ({"code": b"\xc3"}, {}, "no paranoid_entry"),
    ({"places": HANDLERS}, {}, "no paranoid_entry"),
])  # fmt: skip
def test_where_the_resumees_handler_may_run_on_the_resumers_area_it_is_open(told_of, entry, why):
    difference, reason = told(*in_resumee(**told_of), **entry)
    assert difference is Difference.UNKNOWN
    assert why in reason


def test_an_area_that_both_kernels_have_at_one_address_is_the_resumees_however_it_is_found():
    assert told(*in_resumee(code=KEEPS, area=GS))[0] is Difference.SAME
    memory, cpu = in_resumee(code=KEEPS, area=GS)
    assert told(memory, replace(cpu, context=replace(cpu.context, placed=False)))[0] is Difference.UNKNOWN


def test_a_resumees_handler_that_calls_what_is_not_there_is_lost():
    moved = PLACES | {"exc_nmi": CALLED + 0x2000}  # nothing is mapped there
    memory, cpu = in_resumee()
    kernel = kernel_of(moved)
    memory = replace(memory, resumee=replace(memory.resumee, kernel=kernel))
    difference, reason = told(memory, cpu)
    assert difference in {Difference.FOREIGN, Difference.UNKNOWN}
    assert "exc_nmi" in reason
    # its bytes are known, and the CPU's tables lead elsewhere
    elsewhere = SimpleNamespace(frame=memory.frame)
    space = replace(memory.resumee, kernel=kernel_of(PLACES), memory=elsewhere)
    read = dict.fromkeys([CALLED_FRAME], called())
    space = replace(space, memory=SimpleNamespace(frame=lambda pfn: read.get(pfn) or memory.frame(pfn)))
    changed = replace(memory, image=SimpleNamespace(pfns=memory.image.pfns, frame=lambda pfn: bytes(4096)
                      if pfn == CALLED_FRAME else memory.image.frame(pfn)), resumee=space)  # fmt: skip
    assert told(changed, cpu) == (Difference.FOREIGN, "the resumee's handler runs on to exc_nmi, which is not there")


@pytest.mark.parametrize(("event", "name"), [
    (Event.NMI, "exc_nmi"), (Event.NMI, "paranoid_entry"), (Event.MACHINE_CHECK, "exc_machine_check"),
])  # fmt: skip
@pytest.mark.parametrize(("offset", "exact", "expected"), [
    (0, True, Difference.FOREIGN), (15, True, Difference.FOREIGN), (16, True, Difference.UNKNOWN),
    (0, False, Difference.UNKNOWN), (None, True, Difference.SAME), (None, False, Difference.SAME),
])  # fmt: skip
def test_its_own_handler_is_whole_only_with_what_it_calls(event, name, offset, exact, expected):
    content = bytearray(entry_frames()[CALLED_FRAME])
    if offset is not None:
        content[(PLACES[name] & 0xFFF) + offset] = 0xCC
    memory, cpu = made({CALLED_FRAME: bytes(content)}, ParkState.HLT)
    memory.resumer.exact = exact
    difference, reason = told(memory, cpu, event)
    assert difference is expected
    assert (name in reason) is (offset is not None)


def test_entry_code_of_which_only_the_end_is_other_is_open_and_what_is_not_called_does_not_count():
    content = bytearray(entry_frames()[ENTRY_FRAME])
    content[0x2F] = 0xCC  # the end of the machine check's
    for event, expected in ((Event.NMI, Difference.SAME), (Event.MACHINE_CHECK, Difference.FOREIGN)):
        memory, cpu = made({ENTRY_FRAME: bytes(content)}, ParkState.HLT)
        assert told(memory, cpu, event)[0] is expected
    memory, cpu = made({ENTRY_FRAME: bytes(content)}, ParkState.HLT)
    memory.resumer.exact = False
    assert told(memory, cpu, Event.MACHINE_CHECK)[0] is Difference.UNKNOWN


def test_code_whose_bytes_before_are_not_known_is_open():
    memory, cpu = made({CALLED_FRAME: entry_frames()[CALLED_FRAME]}, ParkState.HLT)
    memory.resumer.bytes_at = lambda _address, _size: None
    assert told(memory, cpu)[0] is Difference.UNKNOWN


AS_IT_WAS = {GS_FRAME: page(NUMBER, struct.pack("<I", 1))}


def on_data(image, **symbols):
    memory, cpu = made(image, ParkState.HLT)
    memory.resumer.kernel = kernel_of(PLACES | symbols)
    # the same code in either; only the data differ
    memory.resumer.bytes_at = lambda address, size: called()[address & 0xFFF :][:size]
    return told(memory, cpu)


@pytest.mark.parametrize(("online", "expected"), [(0b01, Difference.SAME), (0b11, Difference.UNKNOWN)])
def test_a_cpu_that_the_resumers_data_call_online_now_does_not_return_for_certain(online, expected):
    frame = {CALLED_FRAME: called(online=online)}
    difference, reason = on_data(frame | AS_IT_WAS, __cpu_online_mask=ONLINE, cpu_number=NUMBER)
    assert difference is expected
    assert ("__cpu_online_mask" in reason) is (expected is Difference.UNKNOWN)


@pytest.mark.parametrize(("area", "expected"), [(GS, Difference.SAME), (OTHER_AREA, Difference.UNKNOWN)])
def test_a_place_of_its_area_that_has_been_replaced_is_no_longer_its_own(area, expected):
    difference, reason = on_data({CALLED_FRAME: called(area=area)}, __per_cpu_offset=AREAS)
    assert difference is expected
    assert ("__per_cpu_offset" in reason) is (expected is Difference.UNKNOWN)


@pytest.mark.parametrize(("symbols", "at"), [
    ({"cpu_number": NUMBER}, NUMBER), ({"pcpu_hot": NUMBER}, NUMBER + 12),
])  # fmt: skip
@pytest.mark.parametrize(("number", "expected"), [(1, Difference.SAME), (2, Difference.UNKNOWN)])
def test_another_number_in_its_area_is_open(symbols, at, number, expected):
    frame = page(NUMBER, struct.pack("<IIII", 1, 0, 0, 1))  # what the loop reads stays as it was
    difference, _ = on_data({GS_FRAME: frame[:at] + struct.pack("<I", number) + frame[at + 4 :]}, **symbols)
    assert difference is expected


def test_where_its_area_is_not_known_what_its_handler_reads_is_open():
    memory, cpu = made(KEPT, ParkState.HLT)
    memory.resumer.kernel = kernel_of(PLACES | {"cpu_number": NUMBER})
    assert told(memory, cpu)[0] is Difference.INTACT
    assert told(memory, replace(cpu, context=replace(cpu.context, placed=False)))[0] is Difference.UNKNOWN


@pytest.mark.parametrize("listed", [{"__cpu_online_mask": ONLINE}, {"pcpu_hot": NUMBER}])
def test_where_the_number_is_that_a_kernel_does_not_say_is_open(listed):
    memory, cpu = made(KEPT, ParkState.HLT)
    kernel = kernel_of(PLACES | listed)

    def unknown(_struct, _member):
        raise MissingFact("no types")

    kernel.offset_of = unknown
    memory.resumer.kernel = kernel
    difference, reason = told(memory, cpu)
    assert (difference, "its CPU's number" in reason) == (Difference.UNKNOWN, True)
    memory.resumer.kernel = kernel_of(PLACES)  # for one CPU
    assert told(memory, cpu)[0] is Difference.INTACT


OLD = {"nmi": HANDLERS["asm_exc_nmi"], "do_nmi": PLACES["exc_nmi"], "machine_check": HANDLERS["asm_exc_machine_check"],
       "do_machine_check": PLACES["exc_machine_check"], "paranoid_entry": PLACES["paranoid_entry"]}  # fmt: skip


@pytest.mark.parametrize("event", [Event.NMI, Event.MACHINE_CHECK])
def test_handlers_have_other_names_in_older_kernels(event):
    for frames, expected in ((KEPT, Difference.INTACT), ({CALLED_FRAME: bytes(4096)}, Difference.FOREIGN),
                             ({ENTRY_FRAME: bytes(4096)}, Difference.FOREIGN)):  # fmt: skip
        memory, cpu = made(frames, ParkState.HLT)
        memory.resumer.kernel = kernel_of(OLD, sizes=0x10)
        assert told(memory, cpu, event)[0] is expected


def test_the_resumee_may_be_the_older_kernel():
    memory, cpu = in_resumee()
    memory = replace(memory, resumee=replace(memory.resumee, kernel=kernel_of(OLD | {"__per_cpu_offset": AREAS})))
    assert told(memory, cpu)[0] is Difference.SAME


def test_a_kernel_that_names_no_handler_leaves_it_open():
    memory, cpu = made(KEPT, ParkState.HLT)
    memory.resumer.kernel = kernel_of({})
    assert told(memory, cpu) == (Difference.UNKNOWN, "asm_exc_nmi or nmi is not among the symbols of 6.1")
    memory, cpu = in_resumee()
    memory.resumer.kernel = kernel_of({"asm_exc_nmi": ENTRY + 0x40})
    memory = replace(memory, resumee=replace(memory.resumee, kernel=kernel_of({})))
    assert told(memory, cpu) == (Difference.UNKNOWN, "asm_exc_nmi or nmi is not among the symbols of 6.1")
    named = replace(memory, resumee=replace(memory.resumee, kernel=kernel_of({"asm_exc_nmi": ENTRY + 0x80})))
    assert told(named, cpu)[0] is Difference.FOREIGN


def test_code_outside_the_kernel_is_its_own_where_nothing_is_overwritten():
    memory, cpu = made(KEPT, ParkState.HLT)
    kernel = kernel_of({})
    kernel.require = lambda name: SimpleNamespace(address={"_text": ENTRY + 0x8000, "_end": ENTRY + 0x9000}[name])
    memory.resumer.kernel = kernel
    assert told(memory, cpu)[0] is Difference.INTACT

    def absent(name):
        raise MissingFact(name)

    kernel.require = absent
    assert told(memory, cpu)[0] is Difference.INTACT


# -- FRED ----------------------------------------------------------------------------------------------------------

FRED = {"cr4": 0x60 | CR4_FRED, "fred": FredState(ENTRY, 0, (0, STACK_AT + 0x1000, 0, 0))}
BY_FRED = {"asm_fred_entrypoint_kernel": ENTRY + 0x100, "fred_entry_from_kernel": CALLED + 0x100,
           "fred_exc_nmi": CALLED + 0x200, "fred_exc_machine_check": CALLED + 0x300}  # fmt: skip


@pytest.mark.parametrize("event", [Event.NMI, Event.MACHINE_CHECK])
def test_by_fred_all_events_have_one_entry(event):
    for frames, expected in ((KEPT, Difference.INTACT), ({STACK_FRAME: bytes(4096)}, Difference.SAME),
                             ({ENTRY_FRAME: bytes(4096)}, Difference.FOREIGN),
                             ({CALLED_FRAME: bytes(4096)}, Difference.FOREIGN)):  # fmt: skip
        memory, cpu = made(frames, ParkState.HLT)
        memory.resumer.kernel = kernel_of(BY_FRED)
        assert told(memory, cpu, event, **FRED)[0] is expected


def test_by_fred_a_kernel_that_does_not_name_its_entry_leaves_it_open():
    memory, cpu = made(KEPT, ParkState.HLT)
    memory.resumer.kernel = kernel_of(PLACES)
    difference, reason = told(memory, cpu, **FRED)
    assert difference is Difference.UNKNOWN
    assert "asm_fred_entrypoint_kernel" in reason


def test_by_fred_the_resumees_handler_keeps_the_gs_base():
    frames = {ENTRY_FRAME: b"\x90" * 4096, CALLED_FRAME: called()}
    memory, cpu = made(frames, ParkState.HLT)
    space = KernelSpace(kernel_of(BY_FRED), memory, memory.resumer.mode, ROOT << 12, 0, 0)
    difference, reason = told(replace(memory, resumee=space), cpu, **FRED)
    assert difference is Difference.UNKNOWN
    assert "FRED" in reason


# -- tables whose places are not known -------------------------------------------------------------------------------


def standing_in(memory, cpu, **entry):
    state = replace(entry_state(), **entry)
    return trace(memory, replace(cpu, entry=state, tables_placed=False), Event.NMI)


@pytest.mark.parametrize("entry", [{}, {"gdt_base": 0x7000}, {"tr_base": 0x7000}, {"gdt_base": GDT + 0x1000}])
def test_a_delivery_through_stand_in_tables_is_open_whether_it_ends_well_or_badly(entry):
    memory, cpu = made({IDT_FRAME: entry_frames()[IDT_FRAME]}, ParkState.HLT)
    found = standing_in(memory, cpu, **entry)
    assert (found.difference, found.granted) == (Difference.UNKNOWN, False)
    assert found.reason == "the places of its GDT and TSS are not known"


def test_even_one_in_which_nothing_is_overwritten():
    memory, cpu = made(KEPT, ParkState.HLT)
    assert standing_in(memory, cpu).difference is Difference.UNKNOWN


def idt(address):
    return (bytes(2 * 16) + gate(address)).ljust(4096, b"\0")


@pytest.mark.parametrize("address", [ENTRY + 0x80, 0xFFFFFFFF90000000])
def test_a_gate_that_leads_to_no_handler_is_the_end_wherever_the_tables_are(address):
    memory, cpu = made({IDT_FRAME: idt(address)}, ParkState.HLT)
    memory = replace(memory, resumee=KernelSpace(kernel_of(PLACES), memory, memory.resumer.mode, ROOT << 12, 0, 0))
    found = standing_in(memory, cpu)
    assert found.difference is Difference.FOREIGN
    assert f"{address:#x}, which is not a handler" in found.reason
    assert gate_leads_astray(memory, found.delivery, cpu) == found.reason


def test_a_gate_to_a_kernel_that_names_no_handler_is_open():
    memory, cpu = made({IDT_FRAME: idt(ENTRY + 0x80)}, ParkState.HLT)
    memory = replace(memory, resumee=KernelSpace(kernel_of({}), memory, memory.resumer.mode, ROOT << 12, 0, 0))
    assert standing_in(memory, cpu).difference is Difference.UNKNOWN


def test_an_idt_that_is_out_of_reach_is_the_end_wherever_the_tables_are():
    memory, cpu = made({IDT_FRAME: bytes(4096)}, ParkState.HLT)
    assert standing_in(memory, cpu).difference is Difference.FOREIGN


@pytest.mark.parametrize("frame", [GDT_FRAME, TSS_FRAME])
def test_tables_that_have_been_replaced_with_the_same_are_not_its_own(frame):
    memory, cpu = made({frame: entry_frames()[frame]}, ParkState.HLT)
    assert told(memory, cpu)[0] is Difference.FOREIGN
