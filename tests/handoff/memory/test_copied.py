"""The loop of a CPU that waits outside its kernel, read as that CPU would fetch it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.dump.registers import GENERAL, CpuRegisters
from hibercheck.handoff.designs.island import build, frames_needed
from hibercheck.handoff.memory.copied import copied_loop
from hibercheck.x86.paging import CR0_PG, PagingMode
from tests.support.made_memory import Memory

OFFSET = 0x1200_0000
"""What KASLR adds to a kernel's addresses, and so is taken from those of code that is not the kernel's."""


def waiting(levels, *, code=None, rip=None):
    """A CPU in a place that is built for it: the memory, and its registers behind the HLT."""
    frames = tuple(range(0x300, 0x300 + frames_needed(1, levels)))
    island = build([1], frames, levels, "made")
    content = dict(island.frames)
    if code is not None:
        pfn, at = island.loop >> 12, island.loop & 0xFFF
        content[pfn] = content[pfn][:at] + code + content[pfn][at + len(code) :]
    general = dict.fromkeys(GENERAL, 0)
    registers = CpuRegisters(
        **{**general, "cpu": 1, "source": "made", "rip": rip or island.loop + 1, "rflags": 2, "cs": 0x10, "ss": 0},
        cr0=1 | (CR0_PG if levels else 0),
        cr3=island.cr3,
    )
    mode = PagingMode(levels=levels or 4)
    return SimpleNamespace(frame=content.get, mode=mode, kaslr_offset=OFFSET), registers, island.loop


@pytest.mark.parametrize("levels", [0, 4, 5])
def test_hlt_and_the_jump_back(levels):
    memory, registers, at = waiting(levels)
    loop = copied_loop(memory, registers)
    assert loop.kind == "hlt"
    assert loop.wait == (at - OFFSET) & 0xFFFF_FFFF_FFFF_FFFF
    assert loop.resume_at == loop.wait + 1
    assert (loop.start, loop.end, loop.role, loop.symbol) == (loop.wait, loop.wait + 3, "resume", "copied code")
    assert loop.ranges == ((loop.wait, loop.wait + 3),)
    assert loop.code == bytes.fromhex("f4ebfd")
    assert [one.text.split()[0] for one in loop.instructions] == ["hlt", "jmp"]


def test_mwait_is_a_way_to_wait_too():
    code = bytes.fromhex("0f01c9 90 ebfa")
    memory, registers, at = waiting(4, code=code)
    loop = copied_loop(memory, replace(registers, rip=at + 3))
    assert loop.kind == "mwait"
    assert loop.code == code


@pytest.mark.parametrize(
    ("code", "behind"),
    [
        ("f390 ebfc", 2),  # pause; jmp: nothing waits
        ("90 ebfd", 1),  # nop; jmp
        ("f4 06", 1),  # hlt; no instruction
        ("f4 ffe0", 1),  # hlt; jmp *%rax
        ("f4 c3", 1),  # hlt; ret
        ("f4 0f0b", 1),  # hlt; ud2
        ("f4 ebfe", 1),  # hlt; a loop without it
        ("f4 7500 ebfb", 1),  # hlt; jne: where it goes is not known
        ("f4" + "90" * 20 + "ebe9", 1),  # longer than what waits
    ],
)
def test_what_does_not_come_back_to_where_it_waited_is_no_loop(code, behind):
    memory, registers, at = waiting(4, code=bytes.fromhex(code))
    assert copied_loop(memory, replace(registers, rip=at + behind)) is None


def test_code_that_is_not_mapped_or_not_in_the_dump_is_none():
    memory, registers, _ = waiting(4)
    assert copied_loop(memory, replace(registers, rip=0x7FFF_0000)) is None
    assert copied_loop(memory, replace(registers, cr3=None)) is None
    assert copied_loop(SimpleNamespace(frame=lambda _: None, mode=memory.mode, kaslr_offset=0), registers) is None
    flat, registers, _ = waiting(0)
    assert copied_loop(flat, replace(registers, rip=0x10_0000_0001)) is None


@pytest.mark.parametrize(("more", "found"), [(0, True), (15, True), (16, False)])
def test_how_long_a_loop_may_be(more, found):
    """So many instructions after the HLT, the jump back among them."""
    code = b"\xf4" + b"\x90" * more + b"\xeb" + (-(3 + more)).to_bytes(1, "little", signed=True)
    memory, registers, _ = waiting(4, code=code)
    loop = copied_loop(memory, registers)
    assert (loop is not None) is found
    if loop is not None:
        assert (len(loop.instructions), loop.code) == (2 + more, code)


def test_a_loop_in_pieces_is_not_one_range():
    """hlt; nop; jmp over three bytes; nop; jmp to the HLT."""
    memory, registers, at = waiting(4, code=bytes.fromhex("f4 90 eb03 cccccc 90 ebf6"))
    loop = copied_loop(memory, registers)
    start = at - OFFSET & (1 << 64) - 1
    assert loop.ranges == ((start, start + 1), (start + 1, start + 2), (start + 2, start + 4), (start + 7, start + 8),
                           (start + 8, start + 10))  # fmt: skip
    assert (loop.start, loop.end, loop.code) == (start, start + 1, b"\xf4")


@pytest.mark.parametrize(("levels", "texts"), [(0, ["hlt", "inc", "jmp"]), (4, ["hlt", "jmp"])])
def test_a_cpu_that_does_not_page_runs_32_bit_code(levels, texts):
    """There 40H is INC EAX; in 64-bit mode it is a REX prefix (SDM 2A 2.2.1)."""
    memory, registers, _ = waiting(levels, code=bytes.fromhex("f4 40 ebfc"))
    loop = copied_loop(memory, registers)
    assert [one.text.split()[0] for one in loop.instructions] == texts


@pytest.mark.parametrize(("offset", "found"), [(0x100, True), (0xFFD, True), (0xFFE, False)])
def test_code_is_read_where_its_page_tables_lead_and_page_by_page(offset, found):
    """Of the page behind it nothing is in the dump."""
    page, frame = 0xFFFFC90000004000, 0x9000000
    memory = Memory(root=0x300)
    memory.map(page, frame)
    memory.put(frame + offset, b"\xf4\xeb\xfd")
    memory.pop((frame >> 12) + 1, None)
    resumer = SimpleNamespace(frame=memory.frame, mode=PagingMode(), kaslr_offset=0)
    _, registers, _ = waiting(4)
    loop = copied_loop(resumer, replace(registers, cr3=0x300000, rip=page + offset + 1))
    assert (None if loop is None else loop.wait) == (page + offset if found else None)
