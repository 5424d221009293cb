"""Unicorn's MMU as an oracle: one access through page tables, and how QEMU's walk ends."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from hibercheck.x86.paging import Access, PagingMode

unicorn = pytest.importorskip("unicorn")
from unicorn import unicorn_const as uc_const  # noqa: E402
from unicorn import x86_const as x86  # noqa: E402

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


@dataclass
class UnicornMmu:
    """Does single accesses; ``error_code_offset`` is where unicorn's saved context keeps the last error code."""

    error_code_offset: int | None = None
    last_context: bytes = b""

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
        for pfn, content in self._with_code(frames, mode, cr3, CODE[access]).items():
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
            uc.emu_start(base + (0x1000 if user else 0), 0, count=3 if user else 2)
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
    def _with_code(frames, mode: PagingMode, cr3: int, code: bytes) -> dict[int, bytes]:
        """Add the probe's code: page 0 for the supervisor, page 1 leads to page 2 for the user."""
        every = {pfn: bytearray(content) for pfn, content in frames.items()}
        chain = [cr3 >> 12, *CODE_FRAMES[: mode.levels - 1]]
        for level, (table, below) in enumerate(zip(chain, chain[1:], strict=False)):
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
