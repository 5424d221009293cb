"""The self-contained parking places, built for real: page tables, descriptor tables, stacks and code.

A place needs nothing but its own frames.  A CPU enters at ``entry`` with RSI at its own block and, where the place is
paged, RDI holding the place's CR3; the entry page is mapped at its physical address on both sides of the switch.
It then waits in HLT.  An NMI finds an IDT, a GDT, a TSS and a stack and returns to the loop; a machine check clears
IA32_MCG_STATUS, so that the next one is not a shutdown (SDM 3B 15.3.1.2), and returns; anything else stops the CPU in
HLT.  Every CPU has a block of its own, as several may take a broadcast event at once.

Layout of the code page: IDT at 0, code at 0x200.  Layout of a CPU's block of 1 KiB: pseudo-descriptors of the GDT and
the IDT, GDT, TSS, and three stacks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.kernel.code.model import Instruction, ParkLoop
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.paging import ACCESSED, DIRTY, NO_EXECUTE, PRESENT, WRITABLE

BLOCK_SIZE = 1024
BLOCKS_PER_FRAME = PAGE_SIZE // BLOCK_SIZE
CODE_OFFSET = 0x200
GATES = 32

# a CPU's block
GDTR, IDTR, GDT, TSS = 0x00, 0x10, 0x20, 0x60
NMI_STACK, CHECK_STACK, STOP_STACK, LOOP_STACK = 0x1C0, 0x2C0, 0x3C0, 0x400
CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x18
GDT_LIMIT, TSS_LIMIT, IDT_LIMIT = 0x27, 0x67, 16 * GATES - 1
FLAT_IDT_LIMIT = 8 * GATES - 1
NMI, MACHINE_CHECK = 2, 18

_CODE64, _CODE32, _DATA = 0x00AF_9B00_0000_FFFF, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF
_TSS_AVAILABLE = 0x89  # present, 64-bit or 32-bit TSS, available; LTR makes it busy
_INTERRUPT_GATE = 0x8E

_ENDBR64, _ENDBR32 = bytes.fromhex("f30f1efa"), bytes.fromhex("f30f1efb")  # handlers of a kernel with IBT need one
_CLEAR_MCIP = bytes.fromhex("31c0 31d2 b97a010000 0f30")  # xor eax,eax; xor edx,edx; mov ecx,IA32_MCG_STATUS; wrmsr
_IRETQ, _IRETD = bytes.fromhex("48cf"), bytes.fromhex("cf")
_LOOP = bytes.fromhex("f4 ebfd")  # 1: hlt; jmp 1b
_STOP = bytes.fromhex("fa f4 ebfd")  # cli; 1: hlt; jmp 1b
_LOAD_DATA = bytes.fromhex("b810000000 8ed8 8ec0 8ed0")  # mov eax,DATA_SELECTOR; mov ds,eax; mov es,eax; mov ss,eax
_LOAD_TASK = bytes.fromhex("66b81800 0f00d8")  # mov ax,TSS_SELECTOR; ltr ax
# push CODE_SELECTOR; lea rax,[rip+3]; push rax; lretq: on behind it with the new code segment
_LOAD_CODE = bytes.fromhex("6a08 488d0503000000 50 48cb")
# endbr64; cli; mov rax,cr4; btr rax,32 (FRED: events are to come through the IDT)
_ENTER = bytes.fromhex("f30f1efa fa 0f20e0 480fbaf020")
_PAGED_ENTRY = (
    _ENTER
    # mov cr4,rax; mov cr3,rdi; lgdt [rsi]; lidt [rsi+0x10]; lea rsp,[rsi+0x400]
    + bytes.fromhex("0f22e0 0f22df 0f0116 0f015e10 488da600040000")
    + _LOAD_DATA
    + _LOAD_CODE
    + _LOAD_TASK
)
_FLAT_ENTRY = (
    _ENTER
    # btr eax,17 (PCIDE, else CR0.PG cannot be cleared); mov cr4,rax; lgdt [rsi]; lidt [rsi+0x10]; lea rsp,[rsi+0x400]
    + bytes.fromhex("0fbaf011 0f22e0 0f0116 0f015e10 488da600040000")
    + _LOAD_CODE  # into compatibility mode
    + _LOAD_DATA
    # mov eax,cr0; btr eax,31; mov cr0,eax: paging off.  mov ecx,IA32_EFER; rdmsr; btr eax,8; wrmsr: long mode off
    + bytes.fromhex("0f20c0 0fbaf01f 0f22c0 b9800000c0 0f32 0fbaf008 0f30")
    + _LOAD_TASK
)


@dataclass(frozen=True, slots=True)
class Island:
    """A finished parking place.

    Attributes:
        frames: Contents by PFN.
        roles: What each frame is, by PFN.
        cr3: Physical address of its page-table root; 0 without paging.
        levels: Levels of its page tables; 0 without paging.
        entry: Physical (and virtual) address at which a CPU enters.
        loop: Address of the HLT.
        code: Physical address of the code page, where its IDT begins.
        blocks: Physical address of each CPU's block, by CPU number.
        source: How it is known that R can have the frames.
    """

    frames: dict[int, bytes]
    roles: dict[int, str]
    cr3: int
    levels: int
    entry: int
    loop: int
    code: int
    blocks: dict[int, int]
    source: str = ""

    @property
    def paged(self) -> bool:
        """Whether paging is on."""
        return self.levels > 0

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame's contents, or None if it is not one of the place's."""
        return self.frames.get(pfn)

    def park_loop(self, kaslr_offset: int = 0) -> ParkLoop:
        """Describe the loop as those of kernels are described.

        Args:
            kaslr_offset: What is added to a kernel's addresses at run time, and so taken from these, which are run-time
                ones.
        """
        start = (self.loop - kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF
        end = start + len(_LOOP)
        instructions = (Instruction(start, 1, "hlt"), Instruction(start + 1, 2, f"jmp {self.loop:#x}"))
        return ParkLoop(
            kind="hlt",
            symbol="self-contained loop",
            function_address=start - (self.loop - self.entry),
            start=start,
            end=end,
            code=_LOOP,
            instructions=instructions,
            touches=(),
            entry=start,
            wait=start,
            ranges=((start, end),),
            role="resume",
        )

    def cpu(self, number: int, cr0: int, cr4: int, efer: int, max_phys_bits: int) -> CpuState:
        """Return a parked CPU's registers, for delivery."""
        block = self.blocks[number]
        return CpuState(
            rip=self.loop + 1,
            rsp=block + LOOP_STACK,
            rflags=0x46,
            cr0=cr0,
            cr3=self.cr3,
            cr4=cr4,
            efer=efer,
            idt_base=self.code,
            idt_limit=IDT_LIMIT if self.paged else FLAT_IDT_LIMIT,
            gdt_base=block + GDT,
            gdt_limit=GDT_LIMIT,
            tr_base=block + TSS,
            tr_limit=TSS_LIMIT,
            tr=TSS_SELECTOR,
            cs=CODE_SELECTOR,
            ss=DATA_SELECTOR,
            max_phys_bits=max_phys_bits,
        )


def frames_needed(cpus: int, levels: int) -> int:
    """Return how many frames a place for so many CPUs takes; ``levels`` is 0 without paging."""
    return levels + 1 + -(-cpus // BLOCKS_PER_FRAME)


def build(cpus: Sequence[int], frames: Sequence[int], levels: int, source: str = "") -> Island:
    """Build a place.

    Args:
        cpus: Numbers of the CPUs that are to park in it.
        frames: PFNs to use, `frames_needed` of them; with paging all in one 2 MiB region, without below 4 GiB.
        levels: 4 or 5 levels of page tables, or 0 for no paging.
        source: How it is known that R can have the frames.
    """
    tables, code, stores = frames[:levels], frames[levels], frames[levels + 1 :]
    base = code << PAGE_SHIFT
    blocks = {
        cpu: (stores[place // BLOCKS_PER_FRAME] << PAGE_SHIFT) + place % BLOCKS_PER_FRAME * BLOCK_SIZE
        for place, cpu in enumerate(sorted(cpus))
    }
    page, entry, loop = _code_page(base, paged=bool(levels))
    contents = {code: page}
    roles = {code: "code and IDT"}
    for pfn in stores:
        own = [block for block in blocks.values() if block >> PAGE_SHIFT == pfn]
        parts = b"".join(_block(block, base, paged=bool(levels)) for block in sorted(own))
        contents[pfn] = parts.ljust(PAGE_SIZE, b"\0")
        roles[pfn] = "GDT, TSS and stacks"
    for pfn, content, level in zip(tables, _tables(tables, code, stores), range(levels, 0, -1), strict=True):
        contents[pfn] = content
        roles[pfn] = f"page table, level {level}"
    return Island(
        frames=contents,
        roles=roles,
        cr3=tables[0] << PAGE_SHIFT if tables else 0,
        levels=levels,
        entry=entry,
        loop=loop,
        code=base,
        blocks=blocks,
        source=source,
    )


def _tables(tables: Sequence[int], code: int, stores: Sequence[int]) -> list[bytes]:
    """Map the code page and the blocks at their physical addresses; nothing else, the tables themselves not either.

    Accessed and dirty flags are set beforehand, so that the walk writes nothing.
    """
    contents = []
    for depth, following in enumerate(tables[1:]):
        index = code >> 9 * (len(tables) - 1 - depth) & 0x1FF
        contents.append({index: following << PAGE_SHIFT | PRESENT | WRITABLE | ACCESSED})
    if tables:
        leaves = {code & 0x1FF: code << PAGE_SHIFT | PRESENT | ACCESSED}
        for pfn in stores:
            leaves[pfn & 0x1FF] = pfn << PAGE_SHIFT | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE
        contents.append(leaves)
    return [b"".join(struct.pack("<Q", table.get(index, 0)) for index in range(512)) for table in contents]


def _code_page(base: int, *, paged: bool) -> tuple[bytes, int, int]:
    """Return the code page, the address of the entry and that of the HLT."""
    entry = _PAGED_ENTRY if paged else _FLAT_ENTRY
    endbr, iret = (_ENDBR64, _IRETQ) if paged else (_ENDBR32, _IRETD)
    parts = [entry + _LOOP, endbr + iret, endbr + _CLEAR_MCIP + iret, endbr + _STOP]
    places = [CODE_OFFSET]
    for part in parts[:-1]:
        places.append(places[-1] + (len(part) + 15 & ~15))
    text = b"".join(part.ljust(len(part) + 15 & ~15, b"\xf4") for part in parts)
    nmi, check, stop = (base + place for place in places[1:])
    gates = []
    for vector in range(GATES):
        handler, ist = {NMI: (nmi, 1), MACHINE_CHECK: (check, 2)}.get(vector, (stop, 3))
        gates.append(_gate64(handler, ist) if paged else _gate32(handler))
    page = b"".join(gates).ljust(CODE_OFFSET, b"\0") + text
    return page.ljust(PAGE_SIZE, b"\xf4"), base + CODE_OFFSET, base + CODE_OFFSET + len(entry)


def _gate64(handler: int, ist: int) -> bytes:
    """SDM 3A figure 6-8 "64-Bit IDT Gate Descriptors"."""
    low, middle, high = handler & 0xFFFF, handler >> 16 & 0xFFFF, handler >> 32
    return struct.pack("<HHBBHII", low, CODE_SELECTOR, ist, _INTERRUPT_GATE, middle, high, 0)


def _gate32(handler: int) -> bytes:
    """SDM 3A figure 6-2 "IDT Gate Descriptors"."""
    return struct.pack("<HHBBH", handler & 0xFFFF, CODE_SELECTOR, 0, _INTERRUPT_GATE, handler >> 16)


def _block(block: int, idt: int, *, paged: bool) -> bytes:
    """Build one CPU's block: descriptors and TSS, then empty stacks."""
    tss = block + TSS
    descriptor = struct.pack("<HHBBBB", TSS_LIMIT, tss & 0xFFFF, tss >> 16 & 0xFF, _TSS_AVAILABLE, 0, tss >> 24 & 0xFF)
    upper = struct.pack("<II", tss >> 32, 0)
    gdt = struct.pack("<QQQ", 0, _CODE64 if paged else _CODE32, _DATA) + descriptor + upper
    content = bytearray(BLOCK_SIZE)
    content[GDTR : GDTR + 10] = struct.pack("<HQ", GDT_LIMIT, block + GDT)
    content[IDTR : IDTR + 10] = struct.pack("<HQ", IDT_LIMIT if paged else FLAT_IDT_LIMIT, idt)
    content[GDT : GDT + len(gdt)] = gdt
    content[TSS : TSS + TSS_LIMIT + 1] = _tss64(block) if paged else _tss32(block)
    return bytes(content)


def _tss64(block: int) -> bytes:
    """SDM 3A figure 7-11 "64-Bit TSS Format": RSP0 at 4, IST1 at 0x24; no I/O map."""
    content = bytearray(TSS_LIMIT + 1)
    struct.pack_into("<Q", content, 4, block + LOOP_STACK)
    struct.pack_into("<QQQ", content, 0x24, block + NMI_STACK, block + CHECK_STACK, block + STOP_STACK)
    struct.pack_into("<H", content, 0x66, TSS_LIMIT + 1)
    return bytes(content)


def _tss32(block: int) -> bytes:
    """SDM 3A figure 7-2 "32-Bit Task-State Segment": ESP0 and SS0 at 4; no I/O map."""
    content = bytearray(TSS_LIMIT + 1)
    struct.pack_into("<II", content, 4, block + LOOP_STACK, DATA_SELECTOR)
    struct.pack_into("<H", content, 0x66, TSS_LIMIT + 1)
    return bytes(content)
