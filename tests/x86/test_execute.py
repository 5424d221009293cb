from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.errors import Unsupported
from hibercheck.x86.exceptions import DeliveryEnd
from hibercheck.x86.execute import ExecutionEnd, execute

pytest.importorskip("unicorn")

LINE = 0xFFFF888000005000
# at the parked RIP:  cmpl $0x4a17dead, (%rdi); je out; mov %rdi,%rax; xor %ecx,%ecx; xor %edx,%edx; monitor; mwait
MWAIT_LOOP = bytes.fromhex("813fadde174a 7412 4889f8 31c9 31d2 0f01c8 0f01c9 ebe9")
HLT_LOOP = bytes.fromhex("ebfd")  # parked after the HLT, jumps back to it


@pytest.fixture
def parked(machine):
    """A CPU that stands behind its MWAIT, at the jump back."""
    machine.map(LINE)

    def put(code, rip_offset=0, *, before=b""):
        machine.write(machine.RIP - len(before), before + code)
        return replace(machine.cpu, rip=machine.RIP + rip_offset, rflags=0x46)

    return machine, put


def run(machine, cpu, code, **options):
    options.setdefault("inside", [(machine.RIP - 1, machine.RIP + len(code))])
    return execute(machine.memory, cpu, {"rdi": LINE}, **options)


def test_an_mwait_loop_waits_again(parked):
    machine, put = parked
    cpu = put(MWAIT_LOOP, len(MWAIT_LOOP) - 2)
    result = run(machine, cpu, MWAIT_LOOP)
    assert (result.end, result.left, result.agrees) == (ExecutionEnd.WAITS_AGAIN, None, True)
    assert result.waits == (machine.RIP + 18,) * 3
    assert result.stores == ()


def test_a_hlt_loop_waits_again(parked):
    machine, put = parked
    cpu = put(HLT_LOOP, before=b"\xf4")
    result = run(machine, cpu, HLT_LOOP, rounds=5)
    assert (result.end, result.waits) == (ExecutionEnd.WAITS_AGAIN, (machine.RIP - 1,) * 5)


def test_a_port_read_loop_waits_again(parked):
    machine, put = parked
    cpu = put(b"\xec\xeb\xfd")
    assert run(machine, cpu, b"\xec\xeb\xfd").waits == (machine.RIP,) * 3


def test_the_kick_makes_it_leave(parked):
    machine, put = parked
    cpu = put(MWAIT_LOOP + b"\xf4", len(MWAIT_LOOP) - 2)
    machine.write(LINE, (0x4A17DEAD).to_bytes(4, "little"))
    left = run(machine, cpu, MWAIT_LOOP, follow=False)
    assert (left.end, left.left) == (ExecutionEnd.LEAVES, machine.RIP + 0x1A)
    machine.write(machine.RIP + 0x1A, b"\x90\xf4")
    halted = run(machine, cpu, MWAIT_LOOP)
    assert (halted.end, halted.rip) == (ExecutionEnd.HALTS_ELSEWHERE, machine.RIP + 0x1B)


def test_foreign_code_runs_on_to_the_limit_and_its_stores_are_told(parked):
    machine, put = parked
    cpu = put(b"\xff\x07\xeb\xfc")  # incl (%rdi); jmp
    result = run(machine, cpu, b"", limit=100)
    assert (result.end, result.instructions, result.left) == (ExecutionEnd.RUNS_ON, 100, machine.RIP)
    place = machine.entry(LINE) & ~0xFFF
    assert result.stores[0].physical == place
    assert [store.value for store in result.stores] == list(range(1, 51))
    assert result.stores[0].size == 4
    assert bytes(machine.frames[place >> 12][:4]) == bytes(4)  # the memory given is not changed


def test_a_fault_is_explained_by_the_walk_and_delivered(parked):
    machine, put = parked
    cpu = put(MWAIT_LOOP, len(MWAIT_LOOP) - 2)
    machine.unmap(LINE)
    result = run(machine, cpu, MWAIT_LOOP)
    assert (result.end, result.cr2, result.rip) == (ExecutionEnd.FAULTS, LINE, machine.RIP)
    assert (result.fault.vector, result.fault.error_code, result.agrees) == (14, 0, True)
    assert result.delivery.end is DeliveryEnd.HANDLED
    assert result.delivery.rip == machine.HANDLERS + 14 * 16


def test_a_write_and_a_fetch_have_their_error_codes(parked):
    machine, put = parked
    machine.set_entry(LINE, machine.entry(LINE) & ~2)
    result = run(machine, put(b"\xff\x07"), b"")
    assert (result.fault.error_code, result.cr2) == (3, LINE)
    far = put(b"\xff\xe7")  # jmp *%rdi
    machine.set_entry(LINE, machine.entry(LINE) | 1 << 63)
    result = run(machine, far, b"")
    assert (result.fault.error_code, result.cr2, result.rip) == (17, LINE, LINE)


def test_a_jump_to_null_is_a_fault_and_not_the_end(parked):
    machine, put = parked
    cpu = put(b"\x31\xc0\xff\xe0")  # xor %eax,%eax; jmp *%rax
    result = run(machine, cpu, b"")
    assert (result.end, result.cr2, result.rip) == (ExecutionEnd.FAULTS, 0, 0)
    assert result.fault.error_code == 16
    machine.map(0)
    machine.write(0, b"\xff\x07\xf4")  # incl (%rdi); hlt
    result = run(machine, cpu, b"")
    assert (result.end, result.rip, len(result.stores)) == (ExecutionEnd.HALTS_ELSEWHERE, 2, 1)


def test_other_exceptions(parked):
    machine, put = parked
    assert run(machine, put(b"\x0f\x0b"), b"").fault.vector == 6  # ud2
    # a jump to an address that is not canonical
    assert run(machine, put(b"\x48\xb8" + (1 << 62).to_bytes(8, "little") + b"\xff\xe0"), b"").fault.vector == 13


def test_the_parked_page_itself_taken_away(parked):
    machine, put = parked
    cpu = put(HLT_LOOP)
    machine.unmap(machine.RIP)
    machine.unmap(machine.IDT)
    result = run(machine, cpu, HLT_LOOP)
    assert (result.end, result.cr2, result.instructions) == (ExecutionEnd.FAULTS, machine.RIP, 0)
    assert result.delivery.end is DeliveryEnd.SHUTDOWN


def test_unknown_memory_is_named_whether_data_or_table(parked):
    machine, put = parked
    cpu = put(MWAIT_LOOP, len(MWAIT_LOOP) - 2)
    data = machine.entry(LINE) >> 12
    content = machine.frames.pop(data)
    result = run(machine, cpu, MWAIT_LOOP)
    assert (result.end, result.unknown_pfn) == (ExecutionEnd.UNKNOWN, data)
    machine.frames[data] = content
    table = machine.pages[LINE] >> 12
    del machine.frames[table]
    result = run(machine, cpu, MWAIT_LOOP)
    assert (result.end, result.unknown_pfn) == (ExecutionEnd.UNKNOWN, table)


def test_five_levels(parked):
    machine, put = parked
    cpu = put(HLT_LOOP, before=b"\xf4")
    root = machine.new_frame()
    machine.frames[root][511 * 8 : 512 * 8] = (machine.ROOT | 7).to_bytes(8, "little")
    five = replace(cpu, cr3=root << 12, cr4=cpu.cr4 | 1 << 12)
    assert run(machine, five, HLT_LOOP).end is ExecutionEnd.WAITS_AGAIN
    # the same root walked with 4 levels leads elsewhere
    assert run(machine, replace(cpu, cr3=root << 12), HLT_LOOP).end is ExecutionEnd.FAULTS


def test_a_long_string_instruction_ends(parked):
    machine, put = parked
    cpu = put(b"\x48\x83\xc9\xff\xf3\xaa")  # or $-1,%rcx; rep stosb: runs off the end of the page
    result = run(machine, cpu, b"", limit=100_000)
    assert (result.end, result.cr2) == (ExecutionEnd.FAULTS, LINE + 0x1000)
    assert result.fault.error_code == 2
    assert len(result.stores) == 256


def test_encrypted_memory_is_refused(machine):
    with pytest.raises(Unsupported, match="encryption"):
        execute(machine.memory, replace(machine.cpu, encryption_mask=1 << 47), {}, inside=[])
