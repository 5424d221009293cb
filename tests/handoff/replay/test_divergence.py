"""A loop that reads what has been overwritten: memory decides whether the CPU stays in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.divergence import Followed, follow_loop
from hibercheck.handoff.replay.touch import Change
from hibercheck.handoff.replay.trace import DESCRIPTOR, LINE, PERCPU, trace
from hibercheck.x86.follow import CourseEnd
from tests.support.made_states import (
    CODE,
    ENTRY_FRAME,
    GDT,
    GS,
    GS_FRAME,
    KICK,
    LINE_AT,
    LINE_FRAME,
    NUMBER,
    OTHER,
    ROOT,
    TEXT,
    TEXT_FRAME,
    made,
    own_frames,
    page,
    tables,
)


def iteration(image, **more):
    memory, cpu = made(image, **more)
    return trace(memory, cpu, None, cached=True)


def test_untouched_it_stays():
    found = iteration({OTHER: bytes(4096)})
    assert (found.difference, found.divergence) == (Difference.INTACT, None)
    assert {item.role for item in found.touched} == {"park loop", LINE, PERCPU}


@pytest.mark.parametrize(
    "image", [{GS_FRAME: page(NUMBER, b"\7\0\0\0")}, {LINE_FRAME: bytes(4096)}], ids=["other number", "line cleared"]
)
def test_other_data_may_lead_it_the_same_way(image):
    found = iteration(image)
    assert (found.difference, found.divergence) == (Difference.SAME, None)


def test_the_number_of_cpu_0_sends_it_elsewhere_for_good():
    found = iteration({GS_FRAME: bytes(4096)})
    assert found.difference is Difference.FOREIGN
    assert (found.divergence.to, found.divergence.end) == (TEXT + 0x22, CourseEnd.RUNS_ON)
    assert (found.divergence.read.address, found.divergence.read.value) == (GS + NUMBER, 0)
    assert found.decisive.role == PERCPU
    assert found.reason == "it leaves its loop because of what it reads"


def test_the_kick_makes_it_halt():
    """mwait_play_dead() halts in code of the resumer that is still there: it comes to rest."""
    found = iteration({LINE_FRAME: page(LINE_AT & 0xFFF, KICK)}, code=CODE[:0x20] + b"\xf4\xeb\xfd")
    assert found.difference is Difference.SAME
    assert (found.divergence.to, found.divergence.rip, found.divergence.lost) == (TEXT + 0x20, TEXT + 0x20, False)
    assert any(item.role == "code outside its loop" for item in found.touched)


def test_code_of_its_own_that_is_not_understood_is_not_known():
    """The kick leads to whole code of the resumer, of which the tool cannot follow one instruction (shr)."""
    found = iteration({LINE_FRAME: page(LINE_AT & 0xFFF, KICK)}, code=CODE[:0x20] + bytes.fromhex("c1e802f4ebfd"))
    assert (found.difference, found.divergence.end) == (Difference.UNKNOWN, CourseEnd.NOT_UNDERSTOOD)
    assert (found.divergence.lost, found.divergence.rests, found.divergence.unknown) == (False, False, True)


@pytest.mark.parametrize("at", [0x20, 0x21, 0x22])
def test_code_outside_the_loop_that_is_no_longer_its_own_is_not_run(at):
    """The loop's own bytes stand, and what the kick leads to does not: one changed byte is enough."""
    code = CODE[:0x20] + b"\xf4\xeb\xfd"
    other = bytearray(own_frames(code)[0][TEXT_FRAME])
    other[(TEXT & 0xFFF) + at] ^= 0xFF
    found = iteration({LINE_FRAME: page(LINE_AT & 0xFFF, KICK), TEXT_FRAME: bytes(other)}, code=code)
    assert found.difference is Difference.FOREIGN
    assert (found.divergence.to, found.divergence.end) == (TEXT + 0x20, CourseEnd.FOREIGN)
    assert found.divergence.rip == TEXT + (0x20 if at == 0x20 else 0x21)
    assert found.divergence.lost


def test_code_beside_what_it_runs_may_be_other_code():
    code = CODE[:0x20] + b"\xf4\xeb\xfd"
    other = bytearray(own_frames(code)[0][TEXT_FRAME])
    other[(TEXT & 0xFFF) + 0x23 :] = bytes(4096 - (TEXT & 0xFFF) - 0x23)
    other[: TEXT & 0xFFF] = bytes(TEXT & 0xFFF)
    found = iteration({LINE_FRAME: page(LINE_AT & 0xFFF, KICK), TEXT_FRAME: bytes(other)}, code=code)
    assert (found.divergence.rip, found.divergence.lost) == (TEXT + 0x20, False)


def test_where_the_value_is_not_known_what_may_happen_decides():
    found = iteration({GS_FRAME: bytes(4096)}, registers={"rsi": 1})
    assert (found.difference, found.divergence) == (Difference.SAME, None)


def test_a_loop_of_other_bytes_is_not_followed():
    found = iteration({TEXT_FRAME: bytes(4096)})
    assert (found.difference, found.divergence) == (Difference.FOREIGN, None)


def test_verw_needs_the_gdt():
    """An access that the kernel's file does not show: the descriptor is the CPU's own."""
    code = bytes.fromhex("0f00 2f").ljust(0x1B, b"\x90") + CODE[0x1B:]  # verw (%rdi), instead of the comparisons
    selector = {LINE_FRAME: page(LINE_AT & 0xFFF, b"\x18")}
    assert any(item.role == DESCRIPTOR for item in iteration(selector, code=code, gdt=(GDT, 0x7F)).touched)
    broken = tables({TEXT: TEXT_FRAME, LINE_AT: LINE_FRAME, GS: GS_FRAME})
    found = iteration(selector | {ROOT: broken[ROOT]}, code=code, gdt=(GDT, 0x7F))
    assert found.difference is Difference.STALE
    assert (found.decisive.role, found.decisive.change) == (DESCRIPTOR, Change.FAULT)


def test_a_loop_in_two_pieces_is_left_only_where_it_is_left():
    """LLVM and GCC put a part of a loop elsewhere: going there is not leaving it."""
    code = CODE[:0x1E] + b"\xeb\x20" + bytes(0x20) + b"\xeb\xbe"  # jmp 40; 40: jmp 00
    memory, cpu = made({OTHER: bytes(4096)}, code=code)
    loop = replace(cpu.parked.loop, ranges=((TEXT, TEXT + 0x20), (TEXT + 0x40, TEXT + 0x42)))
    found = follow_loop(memory, loop, cpu.context)
    assert (found.divergence, found.code) == (None, ())
    short = replace(loop, ranges=loop.ranges[:1])  # what is not said to be of the loop is code outside
    outside = follow_loop(memory, short, cpu.context)
    assert (outside.divergence, outside.code) == (None, ((TEXT + 0x40, 2),))
    assert isinstance(outside, Followed)


@pytest.mark.parametrize(("changed", "at"), [(0, 0xEFD), (1, 0xEFD), (2, 0xF02), (3, 0xF03)])
def test_an_instruction_that_crosses_into_another_page_is_of_both(changed, at):
    """From 0xffd of the text's page on: mov $..., %eax, whose last two bytes are in the page behind it, and NOPs."""
    code = (CODE[:0x20] + b"\xe9\xd8\x0e\0\0").ljust(0xEFD, b"\x90") + b"\xb8"
    behind = bytearray(b"\x90" * 4096)
    behind[changed] ^= 1
    found = iteration({LINE_FRAME: page(LINE_AT & 0xFFF, KICK), ENTRY_FRAME: bytes(behind)}, code=code)
    assert (found.divergence.end, found.divergence.rip) == (CourseEnd.FOREIGN, TEXT + at)
