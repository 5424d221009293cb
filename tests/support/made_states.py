"""Made states of a parked CPU: a loop, its tables and data in a few frames, and what an image puts over them."""

from __future__ import annotations

import struct
from types import SimpleNamespace

from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.scenario.park import Parked
from hibercheck.handoff.verdict.naming import Namer
from hibercheck.kernel.code.model import ParkLoop, Touch
from hibercheck.x86.cpu import CpuState, ParkState
from hibercheck.x86.events import Facts
from hibercheck.x86.paging import PagingMode

TEXT, LINE_AT, GS, GDT = 0xFFFFFFFF81000100, 0xFFFF888000005040, 0xFFFF888000006000, 0xFFFFFE0000001000
NUMBER = 0x40
# the loop, parked behind its MWAIT at 1e:
#  00 mov (%rdi),%eax; 02 cmp $0x4a17dead,%eax; 07 je 20; 09 mov %gs:0x40,%eax; 11 test %eax,%eax; 13 je 22
#  15 mov %rdi,%rax; 18 monitor; 1b mwait; 1e jmp 00; 20 hlt ... 22 what CPU 0 does: call, which never ends
CODE = bytes.fromhex("8b07 3dadde174a 7417 658b042540000000 85c0 740d 4889f8 0f01c8 0f01c9 ebe0 f490")
KICK, DEAD = (0x4A17DEAD).to_bytes(4, "little"), (0xDEADBEEF).to_bytes(4, "little")
ROOT, TEXT_FRAME, LINE_FRAME, GS_FRAME, GDT_FRAME, OTHER = 1, 0x100, 0x101, 0x102, 0x103, 0x104

# what an NMI or a machine check needs: gates, a TSS, the stack of both, and their entry code in the kernel's image
IDT_AT, TSS_AT, STACK_AT, ENTRY = 0xFFFFFE0000000000, 0xFFFFFE0000003000, 0xFFFFFE0000005000, 0xFFFFFFFF81001000
IDT_FRAME, TSS_FRAME, STACK_FRAME, ENTRY_FRAME = 0x110, 0x111, 0x112, 0x1001
"""The entry code lies where the direct placement of the image has it: at its link address less __START_KERNEL_map."""
HANDLERS = {"asm_exc_nmi": ENTRY + 0x10, "asm_exc_machine_check": ENTRY + 0x20}
CALLED, CALLED_FRAME = ENTRY + 0x1000, 0x1002
"""The page after it, with what the entry code calls."""
SIZES = {"asm_exc_nmi": 0x10, "asm_exc_machine_check": 0x10, "exc_nmi": 0x40, "exc_machine_check": 0x40}
PLACES = HANDLERS | {"exc_nmi": CALLED + 0x100, "exc_machine_check": CALLED + 0x200, "paranoid_entry": CALLED + 0x300}

KINDS = {ParkState.MWAIT: "mwait", ParkState.HLT: "hlt", ParkState.PORT_IO: "port_io"}


class Frames(dict):
    """A set of frames with contents, as an image and a resumer have them."""

    def frame(self, pfn):
        return self.get(pfn)

    def count_between(self, first, end):
        return sum(first <= pfn < end for pfn in self)

    def is_zero(self, pfn):
        return self.get(pfn) == bytes(4096)


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


def own_frames(code=CODE, **where):
    """Return the resumer's frames, and which holds what; a keyword moves one (``line_frame=0x80``)."""
    at = {"text": TEXT_FRAME, "line": LINE_FRAME, "gs": GS_FRAME, "gdt": GDT_FRAME}
    at |= {name.removesuffix("_frame"): pfn for name, pfn in where.items()}
    places = {TEXT: at["text"], LINE_AT: at["line"], GS: at["gs"], GDT: at["gdt"]}
    places |= {IDT_AT: IDT_FRAME, TSS_AT: TSS_FRAME, STACK_AT: STACK_FRAME, ENTRY: ENTRY_FRAME, CALLED: CALLED_FRAME}
    return Frames(
        tables(places)
        | entry_frames()
        | {
            at["text"]: page(TEXT & 0xFFF, code + b"\xeb\xfe"),
            at["line"]: page(LINE_AT & 0xFFF, DEAD),
            at["gs"]: page(NUMBER, b"\1\0\0\0"),
            at["gdt"]: entry_frames()[GDT_FRAME],
        }
    ), at


def gate(handler, ist=1):
    low = handler & 0xFFFF | 0x10 << 16 | ist << 32 | 0x8E << 40 | (handler >> 16 & 0xFFFF) << 48
    return struct.pack("<QQ", low, handler >> 32)


def entry_frames(handlers=HANDLERS):
    """Return the frames of IDT, GDT, TSS, stack, entry code and what that calls."""
    gates = {2: handlers["asm_exc_nmi"], 18: handlers["asm_exc_machine_check"]}
    idt = b"".join(gate(gates[vector]) if vector in gates else bytes(16) for vector in range(32))
    return {
        IDT_FRAME: idt.ljust(4096, b"\0"),
        GDT_FRAME: struct.pack("<QQQQ", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF).ljust(4096, b"\0"),
        TSS_FRAME: bytes(0x24) + struct.pack("<Q", STACK_AT + 0x1000) + bytes(4096 - 0x2C),
        STACK_FRAME: bytes(4096),
        ENTRY_FRAME: b"\x90" * 4096,
        CALLED_FRAME: b"\x90" * 4096,
    }


def entry_state():
    """Return the registers that take part in delivery."""
    return CpuState(
        rip=TEXT + 0x1E, rsp=STACK_AT + 0x800, rflags=0x46, cr0=0x80050033, cr3=ROOT << 12, cr4=0x60, efer=0xD01,
        idt_base=IDT_AT, idt_limit=0x1FF, gdt_base=GDT, gdt_limit=0x1F, tr_base=TSS_AT, tr_limit=0x67,
    )  # fmt: skip


def park_loop(state=ParkState.MWAIT, code=CODE):
    """Return the loop in which a CPU of a state waits."""
    return ParkLoop(
        kind=KINDS[state],
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


def made(image, state=ParkState.MWAIT, *, registers=None, code=CODE, gdt=None, facts=None, placed=True, **where):
    """Return memory after the copy of an image, and a CPU parked in it.

    Args:
        image: Contents by frame.
        state: How the CPU is parked.
        registers: Its general registers; by default RDI at its line.
        code: The loop.
        gdt: Base and limit of its GDT.
        facts: What decides how it takes events.
        placed: Whether its per-CPU area is known.
        where: As for `own_frames`.
    """
    own, at = own_frames(code, **where)

    def symbol(name):
        return SimpleNamespace(name=name, address=PLACES[name], size=SIZES.get(name, 0x80)) if name in PLACES else None

    def bytes_at(address, size):
        start = address & 0xFFF
        frame = {ENTRY: ENTRY_FRAME, CALLED: CALLED_FRAME}.get(address & -4096, at["text"])
        return own[frame][start : start + size]

    resumer = SimpleNamespace(
        kernel=SimpleNamespace(percpu_zero_based=True, symbol=symbol),
        mode=PagingMode(),
        kaslr_offset=0,
        phys_base=0,
        cr3=ROOT << 12,
        exact=True,
        frame=own.frame,
        knows_entry=lambda _table, _index: True,
        bytes_at=bytes_at,
    )
    waits = state in KINDS
    context = ApContext(
        1,
        ROOT << 12,
        GS,
        placed=placed,
        line=LINE_AT,
        rip=TEXT + 0x1E,
        registers=registers or {"rdi": LINE_AT},
        gdt=gdt,
    )
    frames = Frames(image)
    memory = Composite(SimpleNamespace(pfns=frames, frame=frames.frame), resumer)
    parked = Parked(1, state, park_loop(state, code) if waits else None, "made")
    return memory, ParkedCpu(parked, context, facts=facts or Facts())


def namer_of(memory):
    """Name places of made memory: its kernels have no symbols."""
    kernel = SimpleNamespace(
        nearest=lambda _address: None, require=lambda _name: SimpleNamespace(address=0xFFFFFFFF81000000)
    )
    resumer = memory.resumer
    resumer.kernel.nearest, resumer.kernel.require = kernel.nearest, kernel.require
    resumee = SimpleNamespace(space=SimpleNamespace(image_symbol=lambda _physical: None))
    return Namer(memory, resumee)
