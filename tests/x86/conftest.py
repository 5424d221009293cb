"""Unicorn's MMU as an oracle: one access through page tables, and how QEMU's walk ends."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

import pytest

from hibercheck.x86.cpu import CpuState
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import Access, PagingMode

try:
    import unicorn
    from unicorn import unicorn_const as uc_const
    from unicorn import x86_const as x86
except ImportError:  # an optional extra: its tests are skipped
    unicorn = None

CODE = {Access.READ: b"\x8a\x03\x90", Access.WRITE: b"\x88\x03\x90", Access.FETCH: b"\xff\xe3"}
"""mov al, [rbx]; nop / mov [rbx], al; nop / jmp rbx."""
SYSRETQ = b"\x48\x0f\x07"

CODE_SLOT = 510
"""Slot of the root table that maps the probe's own code; random tables leave it alone."""
CODE_FRAMES = tuple(range(0x8_000_000, 0x8_000_007))
MASK64 = (1 << 64) - 1


@dataclass
class Probe:
    """How an access ends: a physical address, or a vector with error code and CR2."""

    physical: int | None = None
    vector: int | None = None
    error_code: int | None = None
    cr2: int | None = None


@dataclass(repr=False)
class UnicornMmu:
    """Does single accesses; ``error_code_offset`` is where unicorn's saved context keeps the last error code."""

    error_code_offset: int | None = None
    last_context: bytes = field(default=b"", repr=False)

    def probe(
        self,
        frames: dict[int, bytes],
        mode: PagingMode,
        cr3: int,
        address: int,
        access: Access,
        *,
        user: bool = False,
        alignment_check: bool = False,
    ) -> Probe:
        uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC_ROME)
        cr4 = 1 << 5 | (mode.levels == 5) << 12 | mode.smep << 20 | mode.smap << 21
        uc.reg_write(x86.UC_X86_REG_CR4, cr4)
        uc.reg_write(x86.UC_X86_REG_CR3, cr3)
        uc.msr_write(0xC0000080, 0x501 | mode.nxe << 11)
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80040033 | mode.write_protect << 16)
        for pfn, content in self.with_code(frames, mode, cr3, CODE[access]).items():
            uc.mem_map(pfn << 12, 0x1000)
            uc.mem_write(pfn << 12, content)
        result = Probe()

        def interrupt(_uc, number, _data):
            result.vector = number
            if number == 14:
                result.cr2 = uc.reg_read(x86.UC_X86_REG_CR2)
            uc.emu_stop()

        def unmapped(_uc, _kind, physical, _size, _value, _data):
            result.physical = physical
            return False

        def mapped(_uc, _kind, physical, _size, _value, _data):
            result.physical = physical
            uc.emu_stop()

        def code(_uc, at, _size, _data):
            if access is Access.FETCH and at == address:
                result.physical = -1  # fetched from a frame that the emulator has: it does not say which
                uc.emu_stop()

        uc.hook_add(uc_const.UC_HOOK_INTR, interrupt)
        uc.hook_add(uc_const.UC_HOOK_MEM_UNMAPPED, unmapped)
        uc.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, mapped)
        uc.hook_add(uc_const.UC_HOOK_CODE, code)
        base = self._code_address(mode)
        uc.reg_write(x86.UC_X86_REG_RBX, address)
        uc.reg_write(x86.UC_X86_REG_RFLAGS, 2 | alignment_check << 18)
        uc.reg_write(x86.UC_X86_REG_RCX, base + 0x2000)
        uc.reg_write(x86.UC_X86_REG_R11, 2)
        uc.msr_write(0xC0000081, 0x0023 << 48)
        try:
            # the emulator looks at the page of the address where it is to stop afterwards, and would spoil the error
            # code if it were not mapped
            uc.emu_start(base + (0x1000 if user else 0), base + (0x2FFF if user else 0xFFF), count=3 if user else 2)
        except unicorn.UcError:
            assert result.physical is not None
        context = bytes(uc.context_save())
        if result.vector is not None:
            result.physical = None
            if self.error_code_offset is not None:
                result.error_code = struct.unpack_from("<i", context, self.error_code_offset)[0]
        self.last_context = context
        return result

    @staticmethod
    def _code_address(mode: PagingMode) -> int:
        address = CODE_SLOT << (12 + 9 * (mode.levels - 1))
        return (address | -(1 << mode.virtual_bits)) & MASK64

    @staticmethod
    def with_code(frames, mode: PagingMode, cr3: int, code: bytes) -> dict[int, bytes]:
        """Add the probe's code: page 0 for the supervisor, page 1 leads to page 2 for the user."""
        every = {pfn: bytearray(content) for pfn, content in frames.items()}
        chain = [cr3 >> 12, *CODE_FRAMES[: mode.levels - 1]]
        for level, (table, below) in enumerate(itertools.pairwise(chain)):
            entries = every.setdefault(table, bytearray(4096))
            struct.pack_into("<Q", entries, 8 * (CODE_SLOT if level == 0 else 0), below << 12 | 7)
        table = every.setdefault(chain[-1], bytearray(4096))
        for index, (pfn, rights, content) in enumerate(
            zip(CODE_FRAMES[4:], (3, 3, 7), (code, SYSRETQ, code), strict=True)
        ):
            struct.pack_into("<Q", table, 8 * index, pfn << 12 | rights)
            every[pfn] = bytearray(content.ljust(4096, b"\x90"))
        return {pfn: bytes(content) for pfn, content in every.items()}


# pairs of an access and a last-level entry, with the error code of each: all different, so that one place fits
_CALIBRATION = (
    (Access.READ, False, 0, 0),
    (Access.WRITE, False, 0, 2),
    (Access.FETCH, False, 0, 16),
    (Access.READ, True, 0, 4),
    (Access.WRITE, True, 0x9005, 7),
    (Access.FETCH, False, 1 << 63 | 0x9003, 17),
)


@pytest.fixture(scope="session")
def unicorn_mmu() -> UnicornMmu:
    if unicorn is None:
        pytest.skip("unicorn is not installed")
    mmu = UnicornMmu()
    seen = []
    for access, user, entry, code in _CALIBRATION:
        tables = {1: 0x2007, 2: 0x3007, 3: 0x4007, 4: entry}
        frames = {pfn: struct.pack("<Q", value).ljust(4096, b"\0") for pfn, value in tables.items()}
        assert mmu.probe(frames, PagingMode(), 0x1000, 8, access, user=user).vector == 14
        seen.append((mmu.last_context, code))
    places = [
        place
        for place in range(0, len(seen[0][0]) - 4, 4)
        if all(struct.unpack_from("<i", context, place)[0] == code for context, code in seen)
    ]
    assert len(places) == 1
    mmu.error_code_offset = places[0]
    return mmu


class Machine:
    """A CPU with IDT, GDT, TSS, stacks and handlers, each on a page of its own that a test can take away or damage."""

    IDT, GDT, TSS, IST, STACK = (0xFFFFFE0000000000 + 0x10000 * i for i in range(5))
    HANDLERS = 0xFFFFFFFF81400000
    STACK_PAGES = 2
    IST_TOP = IST + 0x1000
    RIP, RSP = 0xFFFFFFFF81000123, STACK + 0x1000 * STACK_PAGES - 0x48

    def __init__(self, first: int = 1) -> None:
        self.ROOT = first << 12
        self.frames: dict[int, bytearray] = {first: bytearray(4096)}
        self._next = first
        self.pages: dict[int, int] = {}
        """Physical address of the last-level entry, by virtual page."""
        for base in (self.IDT, self.GDT, self.TSS, self.IST, self.HANDLERS, self.RIP & ~0xFFF):
            self.map(base)
        for page in range(self.STACK_PAGES):
            self.map(self.STACK + 0x1000 * page)
        self.write(self.GDT + 0x10, struct.pack("<Q", 0x00AF9B000000FFFF))
        self.write(self.TSS + 0x24, struct.pack("<7Q", *[self.IST_TOP] * 7))
        self.write(self.TSS + 4, struct.pack("<3Q", *[self.STACK + 0x1000] * 3))
        for vector in range(256):
            self.gate(vector, ist=1 if vector in (2, 8, 18) else 0)

    def new_frame(self) -> int:
        self._next += 1
        self.frames[self._next] = bytearray(4096)
        return self._next

    def map(self, address: int, flags: int = 3) -> None:
        table = self.ROOT >> 12
        for level in (4, 3, 2, 1):
            index = address >> (3 + 9 * level) & 511
            entry = struct.unpack_from("<Q", self.frames[table], 8 * index)[0]
            if not entry:
                entry = self.new_frame() << 12 | (flags if level == 1 else 7)
                struct.pack_into("<Q", self.frames[table], 8 * index, entry)
            if level == 1:
                self.pages[address & ~0xFFF] = table << 12 | 8 * index
            table = entry >> 12

    def entry(self, address: int) -> int:
        place = self.pages[address & ~0xFFF]
        return struct.unpack_from("<Q", self.frames[place >> 12], place & 0xFFF)[0]

    def set_entry(self, address: int, entry: int) -> None:
        place = self.pages[address & ~0xFFF]
        struct.pack_into("<Q", self.frames[place >> 12], place & 0xFFF, entry)

    def unmap(self, address: int) -> None:
        self.set_entry(address, 0)

    def write(self, address: int, content: bytes) -> None:
        frame = self.frames[self.entry(address) >> 12 & 0xFFFFFFF]
        frame[address & 0xFFF : (address & 0xFFF) + len(content)] = content

    def gate(self, vector: int, *, ist: int = 0, kind: int = 0x8E, selector: int = 0x10, handler: int | None = None):
        handler = self.HANDLERS + 16 * vector if handler is None else handler
        low = handler & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | (handler >> 16 & 0xFFFF) << 48
        self.write(self.IDT + 16 * vector, struct.pack("<QQ", low, handler >> 32))

    @property
    def memory(self) -> MappedFrames:
        return MappedFrames({pfn: bytes(content) for pfn, content in self.frames.items()})

    @property
    def cpu(self) -> CpuState:
        return CpuState(
            rip=self.RIP,
            rsp=self.RSP,
            rflags=0x46,
            cr0=0x80050033,
            cr3=self.ROOT,
            cr4=0x3506F0,
            efer=0xD01,
            idt_base=self.IDT,
            idt_limit=0xFFF,
            gdt_base=self.GDT,
            gdt_limit=0x7F,
            tr_base=self.TSS,
            tr_limit=0x67,
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="session")
def machine_type():
    """The class above: test modules cannot import a conftest."""
    return Machine
