from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.x86.cpu import FredState
from hibercheck.x86.exceptions import DeliveryEnd, Role, combine, deliver
from hibercheck.x86.paging import CR4_FRED


def roles(delivery):
    return [(access.role, access.walk.address) for access in delivery.accesses]


def vectors(delivery):
    return [(raised.vector, raised.error_code, raised.cr2) for raised in delivery.raised]


def test_nmi_is_delivered_on_its_ist_stack(machine):
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert delivery.end is DeliveryEnd.HANDLED
    assert roles(delivery) == [
        (Role.IDT_GATE, machine.IDT + 0x20),
        (Role.CODE_SEGMENT, machine.GDT + 0x10),
        (Role.TSS, machine.TSS + 0x24),
        (Role.STACK, machine.IST_TOP - 8),
        (Role.HANDLER, machine.HANDLERS + 0x20),
    ]
    assert (delivery.rip, delivery.rsp) == (machine.HANDLERS + 0x20, machine.IST_TOP - 40)
    assert vectors(delivery) == [(2, None, None)]
    assert delivery.first_failure is None


def test_interrupt_without_ist_reads_no_tss_and_aligns_the_stack(machine):
    cpu = replace(machine.cpu, rsp=machine.RSP - 4)
    delivery = deliver(machine.memory, cpu, 0x40)
    assert [access.role for access in delivery.accesses] == [
        *(Role.IDT_GATE, Role.CODE_SEGMENT, Role.STACK, Role.HANDLER)
    ]
    assert delivery.rsp == ((machine.RSP - 4) & ~15) - 40


def test_from_user_mode_the_stack_comes_of_the_tss(machine):
    delivery = deliver(machine.memory, replace(machine.cpu, cs=0x33), 0x40)
    assert (Role.TSS, machine.TSS + 4) in roles(delivery)
    assert delivery.rsp == machine.STACK + 0x1000 - 40


def test_page_fault_pushes_an_error_code(machine):
    delivery = deliver(machine.memory, machine.cpu, 14, error_code=2, cr2=0x1234)
    assert vectors(delivery) == [(14, 2, 0x1234)]
    assert delivery.rsp == (machine.RSP & ~15) - 48


def test_pushes_across_a_page_boundary_touch_both_pages(machine):
    cpu = replace(machine.cpu, rsp=machine.STACK + 0x1010)
    delivery = deliver(machine.memory, cpu, 0x40)
    stacks = [access.walk.address for access in delivery.accesses if access.role is Role.STACK]
    assert stacks == [machine.STACK + 0x1008, machine.STACK + 0xFF8]


def test_no_idt_at_all_is_a_triple_fault(machine):
    machine.unmap(machine.IDT)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert delivery.end is DeliveryEnd.SHUTDOWN
    # the page fault of the gate of #PF itself turns into #DF and is not raised on its own
    assert vectors(delivery) == [(2, None, None), (14, 0, machine.IDT + 0x20), (8, 0, None)]
    assert roles(delivery) == [(Role.IDT_GATE, machine.IDT + 16 * vector) for vector in (2, 14, 8)]
    assert {raised.rip for raised in delivery.raised} == {machine.RIP}
    assert delivery.first_failure is delivery.accesses[0]


def test_a_missing_gdt_reports_the_descriptor(machine):
    machine.unmap(machine.GDT)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert vectors(delivery) == [(2, None, None), (14, 0, machine.GDT + 0x10), (8, 0, None)]


def test_a_missing_stack_double_faults_and_is_survived_on_the_ist(machine):
    cpu = replace(machine.cpu, rsp=machine.STACK)
    delivery = deliver(machine.memory, cpu, 0x40)
    below = machine.STACK - 8
    assert vectors(delivery) == [(0x40, None, None), (14, 2, below), (8, 0, None)]
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, machine.HANDLERS + 0x80)


def test_reserved_bits_in_the_idt_mapping(machine):
    machine.set_entry(machine.IDT, machine.entry(machine.IDT) | 1 << 51)
    delivery = deliver(machine.memory, replace(machine.cpu, max_phys_bits=40), 2)
    assert vectors(delivery)[1] == (14, 9, machine.IDT + 0x20)


def test_smap_holds_for_tables_whatever_ac(machine):
    machine.set_entry(machine.IDT, machine.entry(machine.IDT) | 4)
    cpu = replace(machine.cpu, rflags=0x40002)
    assert deliver(machine.memory, cpu, 2).end is DeliveryEnd.SHUTDOWN
    assert deliver(machine.memory, replace(cpu, cr4=0x20), 2).end is DeliveryEnd.HANDLED


@pytest.mark.parametrize(
    ("damage", "vector", "code"),
    [
        (lambda m: m.gate(2, kind=0x0E), 11, 2 * 8 + 3),  # not present: #NP(vector, IDT, EXT)
        (lambda m: m.gate(2, kind=0x85), 13, 2 * 8 + 3),  # a task gate
        (lambda m: m.gate(2, selector=0), 13, 1),
        (lambda m: m.gate(2, selector=0x80), 13, 0x81),  # beyond the GDT
        (lambda m: m.gate(2, selector=0x14), 13, 0x15),  # in the LDT
        (lambda m: m.gate(2, selector=0x18), 13, 0x19),  # no descriptor
        (lambda m: m.gate(2, handler=0x1234_5678_9ABC_DEF0), 13, 1),
        (lambda m: m.write(m.GDT + 0x10, struct.pack("<Q", 0x00AF1B000000FFFF)), 11, 0x11),
        (lambda m: m.write(m.GDT + 0x10, struct.pack("<Q", 0x00CF9B000000FFFF)), 13, 0x11),  # 32-bit code
        (lambda m: m.write(m.GDT + 0x10, struct.pack("<Q", 0x00AFFB000000FFFF)), 13, 0x11),  # user code
        (lambda m: m.write(m.GDT + 0x10, struct.pack("<Q", 0x00AFBB000000FFFF)), 13, 0x11),  # code of level 1
        (lambda m: m.write(m.GDT + 0x10, struct.pack("<Q", 0x00AF93000000FFFF)), 13, 0x11),  # data
        (lambda m: m.write(m.TSS + 0x24, struct.pack("<Q", 0x8000_0000_0000)), 12, 1),
    ],
)
def test_damaged_tables(machine, damage, vector, code):
    damage(machine)
    machine.gate(8, ist=2)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert vectors(delivery)[1] == (vector, code, None)


def test_limits(machine):
    assert vectors(deliver(machine.memory, replace(machine.cpu, idt_limit=0x2E), 2))[1] == (13, 0x13, None)
    assert vectors(deliver(machine.memory, replace(machine.cpu, tr_limit=0x2A), 2))[1] == (10, 0x41, None)
    assert vectors(deliver(machine.memory, replace(machine.cpu, gdt_limit=0x16), 2))[1] == (13, 0x11, None)


def test_limits_are_the_last_byte_that_counts(machine):
    cpu = replace(machine.cpu, idt_limit=0x2F, tr_limit=0x2B, gdt_limit=0x17)
    assert deliver(machine.memory, cpu, 2).end is DeliveryEnd.HANDLED


def test_tables_that_lie_across_two_pages_are_read_in_two_parts(machine):
    for table in (machine.IDT, machine.GDT, machine.TSS):
        machine.map(table + 0x1000)
    for start, content in (
        (machine.IDT + 0xFF8, machine.memory.frame(machine.entry(machine.IDT) >> 12)[0x20:0x30]),
        (machine.GDT + 0xFFC, struct.pack("<Q", 0x00AF9B000000FFFF)),
        (machine.TSS + 0xFFD, struct.pack("<Q", machine.IST_TOP)),
    ):
        first = 0x1000 - start % 0x1000
        machine.write(start, content[:first])
        machine.write(start + first, content[first:])
    cpu = replace(
        machine.cpu, idt_base=machine.IDT + 0xFD8, gdt_base=machine.GDT + 0xFEC, tr_base=machine.TSS + 0xFFD - 0x24
    )
    delivery = deliver(machine.memory, cpu, 2)
    assert (delivery.end, delivery.rip, delivery.rsp) == (
        DeliveryEnd.HANDLED, machine.HANDLERS + 0x20, machine.IST_TOP - 40,
    )  # fmt: skip
    assert roles(delivery)[:6] == [
        (Role.IDT_GATE, machine.IDT + 0xFF8), (Role.IDT_GATE, machine.IDT + 0x1000),
        (Role.CODE_SEGMENT, machine.GDT + 0xFFC), (Role.CODE_SEGMENT, machine.GDT + 0x1000),
        (Role.TSS, machine.TSS + 0xFFD), (Role.TSS, machine.TSS + 0x1000),
    ]  # fmt: skip


def test_a_contributory_exception_in_an_nmi_is_delivered(machine):
    machine.gate(2, kind=0x0E)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, machine.HANDLERS + 16 * 11)
    assert delivery.rsp == (machine.RSP & ~15) - 48


def test_two_contributory_exceptions_are_a_double_fault(machine):
    machine.gate(2, kind=0x0E)
    machine.gate(11, kind=0x0E)
    assert vectors(deliver(machine.memory, machine.cpu, 2)) == [(2, None, None), (11, 0x13, None), (8, 0, None)]


BENIGN = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 22, 28, 31, 32, 0x40, 255)
CONTRIBUTORY = (0, 10, 11, 12, 13, 21)  # #DE, #TS, #NP, #SS, #GP, #CP
PAGE_FAULTS = (14, 20)  # #PF, #VE


@pytest.mark.parametrize(("firsts", "seconds", "double"), [
    (BENIGN, BENIGN, False), (BENIGN, CONTRIBUTORY, False), (BENIGN, PAGE_FAULTS, False),
    (CONTRIBUTORY, BENIGN, False), (CONTRIBUTORY, CONTRIBUTORY, True), (CONTRIBUTORY, PAGE_FAULTS, False),
    (PAGE_FAULTS, BENIGN, False), (PAGE_FAULTS, CONTRIBUTORY, True), (PAGE_FAULTS, PAGE_FAULTS, True),
])  # fmt: skip
def test_combination(firsts, seconds, double):
    """SDM 3A, tables 6-4 "Interrupt and Exception Classes" and 6-5 "Conditions for Generating a Double Fault"."""
    for first in firsts:
        for second in seconds:
            assert combine(first, second) == (8 if double else second), (first, second)


@pytest.mark.parametrize("vector", range(32))
def test_which_exceptions_push_an_error_code(machine, vector):
    """SDM 3A, table 6-1 "Protected-Mode Exceptions and Interrupts": an error code is a sixth quad."""
    machine.gate(vector)
    has_code = vector in (8, 10, 11, 12, 13, 14, 17, 21)
    delivery = deliver(machine.memory, machine.cpu, vector, error_code=0x123)
    assert delivery.rsp == (machine.RSP & ~15) - (48 if has_code else 40)
    assert delivery.raised[0].error_code == (0x123 if has_code else None)


def test_a_handler_that_is_not_mapped_faults_afterwards_and_is_no_double_fault(machine):
    far = machine.HANDLERS + 0x100000
    machine.gate(2, ist=1, handler=far)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert vectors(delivery) == [(2, None, None), (14, 16, far)]
    assert delivery.raised[1].rip == far
    assert delivery.raised[1].rsp == machine.IST_TOP - 40
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, machine.HANDLERS + 16 * 14)
    assert delivery.rsp == ((machine.IST_TOP - 40) & ~15) - 48  # the kernel's own: what it left does not count


def test_of_a_handler_its_first_byte_is_fetched(machine):
    machine.gate(2, ist=1, handler=machine.HANDLERS + 0xFFF)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, machine.HANDLERS + 0xFFF)
    assert [access.size for access in delivery.accesses] == [16, 8, 8, 8, 1]


@pytest.mark.parametrize("handler", [0xFFFF_FFFF_8140_0FF1, 0xFFFF_8123_4567_8ABC, 0x0000_7EDC_BA98_7123])
def test_a_gate_has_its_handler_in_three_parts(machine, handler):
    """SDM 3A, figure 6-8 "64-Bit IDT Gate Descriptors"."""
    if handler & ~0xFFF not in machine.pages:
        machine.map(handler & ~0xFFF)
    machine.gate(2, ist=1, handler=handler)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, handler)


@pytest.mark.parametrize("kind", range(32))
def test_only_interrupt_and_trap_gates_lead_anywhere(machine, kind):
    """SDM 3A, table 3-2 "System-Segment and Gate-Descriptor Types": 0EH and 0FH, with S clear."""
    machine.gate(2, ist=1, kind=0x80 | kind)
    raised = vectors(deliver(machine.memory, machine.cpu, 2))
    assert raised[1:] == ([] if kind in {0xE, 0xF} else [(13, 0x13, None)])


@pytest.mark.parametrize("ist", range(1, 8))
def test_each_stack_of_the_ist(machine, ist):
    """SDM 3A, figure 7-11 "64-Bit TSS Format": IST1 at 24H, each of 8 bytes."""
    tops = [machine.IST + 0x100 * number for number in range(1, 8)]
    machine.write(machine.TSS + 0x24, struct.pack("<7Q", *tops))
    machine.gate(2, ist=ist)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (Role.TSS, machine.TSS + 0x1C + 8 * ist) in roles(delivery)
    assert delivery.rsp == tops[ist - 1] - 40
    last = 0x1C + 8 * ist + 7
    assert vectors(deliver(machine.memory, replace(machine.cpu, tr_limit=last), 2)) == [(2, None, None)]
    assert vectors(deliver(machine.memory, replace(machine.cpu, tr_limit=last - 1), 2))[1] == (10, 0x41, None)


@pytest.mark.parametrize(("high", "vector"), [(0x00AF, None), (0x00EF, 13), (0x00CF, 13), (0x008F, 13)])
def test_code_is_64_bit_with_l_set_and_d_clear(machine, high, vector):
    """SDM 3A 5.2.1: L set and D set is reserved, and refused."""
    machine.write(machine.GDT + 0x10, struct.pack("<Q", high << 48 | 0x9B000000FFFF))
    assert vectors(deliver(machine.memory, machine.cpu, 2))[1:2] == ([(vector, 0x11, None)] if vector else [])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_privilege_level_of_a_gate_s_selector_does_not_count(machine, level):
    machine.gate(2, ist=1, selector=0x10 | level)
    assert vectors(deliver(machine.memory, machine.cpu, 2)) == [(2, None, None)]


def test_an_exception_whose_error_code_is_not_given_has_0(machine):
    assert vectors(deliver(machine.memory, machine.cpu, 13)) == [(13, 0, None)]


def test_of_what_is_written_no_content_is_told(machine):
    found = {access.role: access.content for access in deliver(machine.memory, machine.cpu, 2).accesses}
    assert found[Role.STACK] is None
    assert found[Role.TSS] == struct.pack("<Q", machine.IST_TOP)
    assert found[Role.HANDLER] == b"\0"


def test_a_page_table_that_is_not_known_is_named(machine):
    table = machine.pages[machine.GDT] >> 12
    del machine.frames[table]
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.unknown_pfn) == (DeliveryEnd.UNKNOWN, table)
    assert delivery.first_failure.walk.unknown_pfn == table


def test_error_codes_have_no_privilege_level(machine):
    """SDM 3A, figure 6-7 "Error Code": its low bits are EXT, IDT and TI."""
    machine.gate(2, selector=0x83)
    assert vectors(deliver(machine.memory, machine.cpu, 2))[1] == (13, 0x81, None)
    machine.gate(2, ist=1)
    cpu = replace(machine.cpu, tr=0x43, tr_limit=0x2A)
    assert vectors(deliver(machine.memory, cpu, 2))[1] == (10, 0x41, None)


def test_conforming_code_keeps_the_privilege_level_and_so_the_stack(machine):
    machine.write(machine.GDT + 0x10, struct.pack("<Q", 0x00AF9F000000FFFF))
    for cs in (0x10, 0x33):
        delivery = deliver(machine.memory, replace(machine.cpu, cs=cs), 0x40)
        assert Role.TSS not in [access.role for access in delivery.accesses]
        assert delivery.rsp == (machine.RSP & ~15) - 40


def test_pushes_below_address_0_wrap(machine):
    for rsp, top in ((0, 0xFFFF_FFFF_FFFF_FFF8), (0x10, 8)):
        delivery = deliver(machine.memory, replace(machine.cpu, rsp=rsp), 0x40)
        assert vectors(delivery)[1] == (14, 2, top)
    for address in (0, 0xFFFF_FFFF_FFFF_F000):
        machine.map(address)
    delivery = deliver(machine.memory, replace(machine.cpu, rsp=0x10), 0x40)
    stacks = [access.walk.address for access in delivery.accesses if access.role is Role.STACK]
    assert (delivery.end, delivery.rsp) == (DeliveryEnd.HANDLED, 0x10 - 40 + (1 << 64))
    assert stacks == [8, 0xFFFF_FFFF_FFFF_FFF8]


def test_an_address_that_is_not_canonical_is_no_page_fault(machine):
    """SDM 3A 6.15: #SS(0) for a stack, else #GP(0); delivery was under way, so that EXT is set."""
    hole = 0x8000_0000_0010
    assert vectors(deliver(machine.memory, replace(machine.cpu, rsp=hole), 0x40))[1] == (12, 1, None)
    assert vectors(deliver(machine.memory, replace(machine.cpu, idt_base=hole), 2))[1] == (13, 1, None)


def test_a_storm_fills_the_stack_and_ends_in_the_double_fault_handler(machine):
    far = machine.HANDLERS + 0x100000
    machine.gate(14, handler=far)
    delivery = deliver(machine.memory, machine.cpu, 0x0E, error_code=0, cr2=1)
    assert vectors(delivery)[-2:] == [(14, 16, far), (8, 0, None)]
    assert machine.STACK <= delivery.raised[-2].rsp < machine.STACK + 48
    assert (delivery.end, delivery.rip) == (DeliveryEnd.HANDLED, machine.HANDLERS + 0x80)


def test_a_storm_on_an_ist_stack_never_ends(machine):
    machine.gate(14, ist=1, handler=machine.HANDLERS + 0x100000)
    delivery = deliver(machine.memory, machine.cpu, 14, error_code=0, cr2=1)
    assert delivery.end is DeliveryEnd.LOOPS
    assert len(delivery.raised) == 2  # the second has found the same stack


@pytest.mark.parametrize("tops", [(0x800, 0xC00), (0xC00, 0x800)], ids=["higher", "lower"])
def test_a_storm_that_goes_from_one_ist_stack_to_another_never_ends(machine, tops):
    machine.write(machine.TSS + 0x24, struct.pack("<2Q", *(machine.IST + top for top in tops)))
    for ist, vector in enumerate((2, 14), 1):
        machine.gate(vector, ist=ist, handler=machine.HANDLERS + 0x100000)
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.unknown_pfn) == (DeliveryEnd.LOOPS, None)
    assert {raised.vector for raised in delivery.raised[1:]} == {14}
    assert "can never be fetched" in delivery.reason


def test_a_storm_whose_double_fault_handler_is_missing_too_never_ends(machine):
    for vector in (8, 14):
        machine.gate(vector, ist=1 if vector == 8 else 0, handler=machine.HANDLERS + 0x100000)
    delivery = deliver(machine.memory, machine.cpu, 14, error_code=0, cr2=1)
    assert (delivery.end, "can never be fetched" in delivery.reason) == (DeliveryEnd.LOOPS, True)


def test_a_storm_that_reaches_a_page_table_that_is_not_known_is_not_followed(machine):
    bottom = 0xFFFFC90000000000  # the page below is in another entry of the root
    machine.map(bottom)
    machine.map(bottom - 0x1000)
    machine.gate(14, handler=machine.HANDLERS + 0x100000)
    table = machine.pages[bottom - 0x1000] >> 12
    del machine.frames[table]
    delivery = deliver(machine.memory, replace(machine.cpu, rsp=bottom + 0x800), 14, error_code=0, cr2=1)
    assert (delivery.end, delivery.unknown_pfn) == (DeliveryEnd.UNKNOWN, table)


@pytest.mark.parametrize(("below", "end"), [(0, "HANDLED"), (63, "HANDLED"), (64, "LOOPS")])
def test_how_far_down_a_storm_is_followed(machine, below, end):
    """A stack ends by a page that is not mapped; what goes on for longer than any stack does not end."""
    bottom = 0xFFFFC90000000000
    for page in range(below + 1):
        machine.map(bottom + 0x1000 * page)
    machine.gate(14, handler=machine.HANDLERS + 0x100000)
    cpu = replace(machine.cpu, rsp=bottom + 0x1000 * below + 0x800)
    delivery = deliver(machine.memory, cpu, 14, error_code=0, cr2=1)
    assert delivery.end is DeliveryEnd[end]
    assert ("fill memory downwards" in delivery.reason) is (end == "LOOPS")


def test_unknown_memory_is_named(machine):
    pfn = machine.entry(machine.GDT) >> 12
    del machine.frames[pfn]
    delivery = deliver(machine.memory, machine.cpu, 2)
    assert (delivery.end, delivery.unknown_pfn) == (DeliveryEnd.UNKNOWN, pfn)
    assert delivery.accesses[-1].role is Role.CODE_SEGMENT


# ---- FRED ----


@pytest.fixture
def fred(machine):
    state = FredState(
        config=machine.HANDLERS | 1 << 6,
        stack_levels=2 << 2 * 2 | 1 << 2 * 18 | 3 << 2 * 8,
        stacks=(0x10, machine.IST_TOP - 0x400, machine.IST_TOP, machine.IST_TOP - 0x800),
    )
    return replace(machine.cpu, cr4=0x3506F0 | CR4_FRED, fred=state)


def test_fred_reads_no_tables(machine, fred):
    for address in (machine.IDT, machine.GDT, machine.TSS):
        machine.unmap(address)
    delivery = deliver(machine.memory, fred, 2)
    assert roles(delivery) == [(Role.STACK, machine.IST_TOP - 8), (Role.HANDLER, machine.HANDLERS + 256)]
    assert delivery.rsp == machine.IST_TOP - 64


def test_fred_stays_on_its_stack_below_the_red_zone(machine, fred):
    delivery = deliver(machine.memory, fred, 14, error_code=0, cr2=1)
    assert delivery.rsp == ((machine.RSP - 64) & ~63) - 64


def test_fred_double_fault_takes_its_level(machine, fred):
    delivery = deliver(machine.memory, replace(fred, rsp=machine.STACK), 14, error_code=0, cr2=1)
    assert [raised.vector for raised in delivery.raised] == [14, 8]
    assert delivery.rsp == machine.IST_TOP - 0x800 - 64


def test_fred_from_user_mode_enters_at_the_page(machine, fred):
    user = replace(fred, cs=0x33, fred=replace(fred.fred, stacks=(machine.IST_TOP, 0, 0, 0)))
    delivery = deliver(machine.memory, user, 14, error_code=4, cr2=1)
    assert (delivery.rip, delivery.rsp) == (machine.HANDLERS, machine.IST_TOP - 64)


def test_fred_without_its_registers_is_a_missing_fact(machine, fred):
    with pytest.raises(MissingFact, match="FRED MSRs"):
        deliver(machine.memory, replace(fred, fred=None), 2)


@pytest.mark.parametrize(("vector", "cs", "rsp"), [
    (18, 0x10, "level 1"), (2, 0x10, "level 2"), (8, 0x10, "level 3"), (14, 0x10, "its own"), (0x40, 0x10, "its own"),
    (2, 0x33, "level 0"), (8, 0x33, "level 3"), (14, 0x33, "level 0"), (0x40, 0x33, "level 0"),
])  # fmt: skip
def test_the_stack_level_of_fred(machine, fred, vector, cs, rsp):
    """From user mode level 0 unless it is a double fault; else the vector's if it is higher than the CPU's own."""
    tops = {f"level {level}": at for level, at in enumerate((machine.IST_TOP - 0x200, *fred.fred.stacks[1:]))}
    cpu = replace(fred, cs=cs, fred=replace(fred.fred, stacks=tuple(tops.values())))
    expected = {**tops, "its own": (machine.RSP - 64) & ~63}[rsp]
    assert deliver(machine.memory, cpu, vector).rsp == expected - 64


def test_an_exception_during_delivery_takes_its_own_level_of_fred_from_user_mode_too(machine, fred):
    """FRED specification, 5.1.2: level 0 from user mode is for events that are not nested."""
    state = replace(fred.fred, stack_levels=fred.fred.stack_levels | 1 << 2 * 14, stacks=(0x10, *fred.fred.stacks[1:]))
    delivery = deliver(machine.memory, replace(fred, cs=0x33, fred=state), 2)
    assert [raised.vector for raised in delivery.raised] == [2, 14]
    assert (delivery.end, delivery.rsp) == (DeliveryEnd.HANDLED, state.stacks[1] - 64)


@pytest.mark.parametrize(("current", "vector", "level"), [
    (0, 18, 1), (1, 18, None), (2, 18, None), (1, 2, 2), (2, 2, None), (2, 8, 3), (3, 8, None), (1, 14, None),
])  # fmt: skip
def test_fred_leaves_a_stack_only_for_one_of_a_higher_level(machine, fred, current, vector, level):
    """FRED specification, 5.1.2; the current level is IA32_FRED_CONFIG[1:0]."""
    cpu = replace(fred, fred=replace(fred.fred, config=fred.fred.config | current))
    expected = (machine.RSP - 64) & ~63 if level is None else fred.fred.stacks[level]
    assert deliver(machine.memory, cpu, vector).rsp == expected - 64


def test_fred_keeps_the_level_that_an_event_has_reached(machine, fred):
    """The NMI's handler is missing: the page fault of its fetch, of level 0, stays on the NMI's stack, of level 2."""
    machine.unmap(machine.HANDLERS)
    delivery = deliver(machine.memory, fred, 2)
    assert delivery.raised[1].rsp == machine.IST_TOP - 64
    assert delivery.accesses[2].walk.address == machine.IST_TOP - 64 - 64 - 8


@pytest.mark.parametrize(("current", "fault", "rsp"), [(0, 1, "the NMI's"), (0, 3, "level 3"), (1, 3, "level 3")])
def test_fred_compares_the_level_of_a_fault_with_that_which_the_event_has_reached(machine, fred, current, fault, rsp):
    machine.unmap(machine.HANDLERS)
    state = replace(fred.fred, config=fred.fred.config | current, stack_levels=2 << 2 * 2 | fault << 2 * 14)
    delivery = deliver(machine.memory, replace(fred, fred=state), 2)
    top = {"the NMI's": machine.IST_TOP - 64 - 64, "level 3": state.stacks[3]}[rsp]
    assert delivery.accesses[2].walk.address == top - 8


def test_the_current_level_of_fred_is_no_part_of_the_red_zone(machine, fred):
    rsp = machine.RSP & ~0x3F
    cpu = replace(fred, rsp=rsp, fred=replace(fred.fred, config=machine.HANDLERS | 3))
    assert deliver(machine.memory, cpu, 0x40).rsp == rsp - 64


@pytest.mark.parametrize("size", range(8))
def test_the_red_zone_of_fred_is_counted_in_64_bytes(machine, fred, size):
    """IA32_FRED_CONFIG[8:6]."""
    cpu = replace(fred, fred=replace(fred.fred, config=machine.HANDLERS | size << 6))
    assert deliver(machine.memory, cpu, 0x40).rsp == ((machine.RSP - 64 * size) & ~63) - 64


@pytest.mark.parametrize(("vector", "rsp"), [(31, "level 3"), (32, "level 1"), (255, "level 1")])
def test_vectors_below_32_have_levels_of_their_own(machine, fred, vector, rsp):
    state = replace(fred.fred, stack_levels=3 << 62, config=fred.fred.config | 1 << 9)
    assert deliver(machine.memory, replace(fred, fred=state), vector).rsp == state.stacks[int(rsp[-1])] - 64


def test_an_entry_of_fred_that_is_not_canonical_faults_when_it_is_fetched(machine, fred):
    """The event has been delivered: EXT is clear, as of any fault of an instruction."""
    cpu = replace(fred, fred=replace(fred.fred, config=0x8000_0000_0000))
    assert vectors(deliver(machine.memory, cpu, 2))[1] == (13, 0, None)


@pytest.mark.parametrize(("level", "rsp"), [(0, "own"), (1, "level 1"), (2, "level 2")])
def test_the_level_of_interrupts_is_in_the_configuration(machine, fred, level, rsp):
    cpu = replace(fred, fred=replace(fred.fred, config=fred.fred.config | level << 9))
    expected = (machine.RSP - 64) & ~63 if rsp == "own" else fred.fred.stacks[level]
    assert deliver(machine.memory, cpu, 0x40).rsp == expected - 64


@pytest.mark.parametrize("privilege", [0, 1, 2])
def test_from_user_mode_the_stack_is_that_of_the_handler_s_privilege(machine, privilege):
    tops = [machine.STACK + 0x1000, machine.STACK + 0xF00, machine.STACK + 0xE00]
    machine.write(machine.TSS + 4, struct.pack("<3Q", *tops))
    machine.write(machine.GDT + 0x10, struct.pack("<Q", 0x00AF9B000000FFFF | privilege << 45))
    delivery = deliver(machine.memory, replace(machine.cpu, cs=0x33), 0x40)
    assert (Role.TSS, machine.TSS + 4 + 8 * privilege) in roles(delivery)
    assert delivery.rsp == tops[privilege] - 40


def test_a_null_selector_names_no_segment_whatever_lies_there(machine):
    machine.write(machine.GDT, struct.pack("<Q", 0x00AF9B000000FFFF))
    machine.gate(2, selector=3)
    assert vectors(deliver(machine.memory, machine.cpu, 2))[1] == (13, 1, None)
