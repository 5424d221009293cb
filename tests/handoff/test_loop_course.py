"""A loop that reads what has been overwritten: memory decides whether the CPU stays in it."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.loop_replay import DESCRIPTOR, LINE, PERCPU, LoopState, replay_loop
from hibercheck.handoff.touch import Change
from hibercheck.kernel.code.model import ParkLoop, Touch
from hibercheck.x86.follow import CourseEnd
from hibercheck.x86.paging import PagingMode

TEXT, LINE_AT, GS, GDT = 0xFFFFFFFF81000100, 0xFFFF888000005040, 0xFFFF888000006000, 0xFFFFFE0000001000
NUMBER = 0x40
# the loop, parked behind its MWAIT at 1e:
#  00 mov (%rdi),%eax; 02 cmp $0x4a17dead,%eax; 07 je 20; 09 mov %gs:0x40,%eax; 11 test %eax,%eax; 13 je 22
#  15 mov %rdi,%rax; 18 monitor; 1b mwait; 1e jmp 00; 20 hlt ... 22 what CPU 0 does: call, which never ends
CODE = bytes.fromhex("8b07 3dadde174a 7417 658b042540000000 85c0 740d 4889f8 0f01c8 0f01c9 ebe0 f490")
KICK, DEAD = (0x4A17DEAD).to_bytes(4, "little"), (0xDEADBEEF).to_bytes(4, "little")
ROOT, TEXT_FRAME, LINE_FRAME, GS_FRAME, GDT_FRAME, OTHER = 1, 0x100, 0x101, 0x102, 0x103, 0x104


class Frames(dict):
    """A set of frames with contents, as an image and a resumer have them."""

    def frame(self, pfn):
        return self.get(pfn)


def tables(places):
    """Build 4-level tables at ROOT and up."""
    frames, following = {ROOT: bytearray(4096)}, ROOT
    for address, pfn in places.items():
        table = ROOT
        for level in (4, 3, 2, 1):
            at = 8 * (address >> (3 + 9 * level) & 511)
            entry = struct.unpack_from("<Q", frames[table], at)[0]
            if level == 1:
                entry = pfn << 12 | 3
            elif not entry:
                following += 1
                frames[following] = bytearray(4096)
                entry = following << 12 | 3
            struct.pack_into("<Q", frames[table], at, entry)
            table = entry >> 12
    return {pfn: bytes(content) for pfn, content in frames.items()}


def page(offset, content):
    return (bytes(offset) + content).ljust(4096, b"\0")


@pytest.fixture
def replay():
    """Return a function that replays the loop with some frames overwritten."""

    def run(image, *, registers=None, code=CODE, gdt=None):
        places = {TEXT: TEXT_FRAME, LINE_AT: LINE_FRAME, GS: GS_FRAME, GDT: GDT_FRAME}
        own = Frames(
            tables(places)
            | {
                TEXT_FRAME: page(TEXT & 0xFFF, code + b"\xeb\xfe"),
                LINE_FRAME: page(LINE_AT & 0xFFF, DEAD),
                GS_FRAME: page(NUMBER, b"\1\0\0\0"),
                GDT_FRAME: bytes(4096),
            }
        )

        def bytes_at(address, size):
            start = address & 0xFFF
            return own[TEXT_FRAME][start : start + size]

        resumer = SimpleNamespace(
            kernel=SimpleNamespace(percpu_zero_based=True),
            mode=PagingMode(),
            kaslr_offset=0,
            frame=own.frame,
            knows_entry=lambda _table, _index: True,
            bytes_at=bytes_at,
        )
        loop = ParkLoop(
            kind="mwait",
            symbol="mwait_play_dead",
            function_address=TEXT,
            start=TEXT,
            end=TEXT + 0x20,
            code=code[:0x20],
            instructions=(),
            touches=(
                Touch("line", "read", None, None, "rdi", 0, 4, TEXT),
                Touch("percpu", "read", NUMBER, "cpu_number", None, 0, 4, TEXT + 9),
            ),
            entry=TEXT,
            wait=TEXT + 0x1B,
            ranges=((TEXT, TEXT + 0x20),),
            line="rdi",
        )
        context = ApContext(
            1,
            ROOT << 12,
            GS,
            placed=True,
            line=LINE_AT,
            rip=TEXT + 0x1E,
            registers=registers or {"rdi": LINE_AT},
            gdt=gdt,
        )
        image = Frames(image)
        memory = Composite(SimpleNamespace(pfns=image, frame=image.frame), resumer)
        return replay_loop(memory, loop, context)

    return run


def test_untouched_it_stays(replay):
    turn = replay({OTHER: bytes(4096)})
    assert (turn.state, turn.diversion) == (LoopState.INTACT, None)
    assert {item.role for item in turn.touched} == {"park loop", LINE, PERCPU}


@pytest.mark.parametrize(
    "image", [{GS_FRAME: page(NUMBER, b"\7\0\0\0")}, {LINE_FRAME: bytes(4096)}], ids=["other number", "line cleared"]
)
def test_other_data_may_lead_it_the_same_way(replay, image):
    turn = replay(image)
    assert (turn.state, turn.diversion) == (LoopState.SAME, None)


def test_the_number_of_cpu_0_sends_it_elsewhere_for_good(replay):
    turn = replay({GS_FRAME: bytes(4096)})
    assert turn.state is LoopState.FOREIGN
    assert (turn.diversion.to, turn.diversion.end) == (TEXT + 0x22, CourseEnd.RUNS_ON)
    assert (turn.diversion.read.address, turn.diversion.read.value) == (GS + NUMBER, 0)
    assert turn.decisive.role == PERCPU


def test_the_kick_makes_it_halt(replay):
    """mwait_play_dead() halts in code of the resumer that is still there: it comes to rest."""
    turn = replay({LINE_FRAME: page(LINE_AT & 0xFFF, KICK)}, code=CODE[:0x20] + b"\xf4\xeb\xfd")
    assert turn.state is LoopState.SAME
    assert (turn.diversion.to, turn.diversion.rip, turn.diversion.lost) == (TEXT + 0x20, TEXT + 0x20, False)
    assert any(item.role == "code outside its loop" for item in turn.touched)


def test_where_the_value_is_not_known_what_may_happen_decides(replay):
    turn = replay({GS_FRAME: bytes(4096)}, registers={"rsi": 1})
    assert (turn.state, turn.diversion) == (LoopState.SAME, None)


def test_a_loop_of_other_bytes_is_not_followed(replay):
    turn = replay({TEXT_FRAME: bytes(4096)})
    assert (turn.state, turn.diversion) == (LoopState.FOREIGN, None)


def test_verw_needs_the_gdt(replay):
    """An access that the kernel's file does not show: the descriptor is the CPU's own."""
    code = bytes.fromhex("0f00 2f").ljust(0x1B, b"\x90") + CODE[0x1B:]  # verw (%rdi), instead of the comparisons
    selector = {LINE_FRAME: page(LINE_AT & 0xFFF, b"\x18")}
    assert any(item.role == DESCRIPTOR for item in replay(selector, code=code, gdt=(GDT, 0x7F)).touched)
    broken = tables({TEXT: TEXT_FRAME, LINE_AT: LINE_FRAME, GS: GS_FRAME})
    turn = replay(selector | {ROOT: broken[ROOT]}, code=code, gdt=(GDT, 0x7F))
    assert turn.state is LoopState.STALE
    assert (turn.decisive.role, turn.decisive.change) == (DESCRIPTOR, Change.FAULT)
