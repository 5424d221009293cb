"""Unicorn with physical frames and control registers as a test wants them, and events delivered by hand."""

from __future__ import annotations

import struct

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as reg

from hibercheck.addresses import PAGE_SIZE

NOWHERE = 1 << 63
EFER = 0xC0000080
MCG_STATUS = 0x17A


class Machine:
    """One CPU and some frames."""

    def __init__(self, frames: dict[int, bytes]) -> None:
        self.uc = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        self.interrupts: list[int] = []
        self.halts: list[int] = []
        for pfn, content in frames.items():
            self.uc.mem_map(pfn * PAGE_SIZE, PAGE_SIZE)
            self.uc.mem_write(pfn * PAGE_SIZE, content)
        self.uc.hook_add(uc_const.UC_HOOK_INTR, lambda _uc, number, _data: self._interrupt(number))
        self.uc.hook_add(uc_const.UC_HOOK_CODE, self._code)

    def _interrupt(self, number: int) -> None:
        self.interrupts.append(number)
        self.uc.emu_stop()

    def _code(self, uc, address, size, _data) -> None:
        if bytes(uc.mem_read(self.physical(address), 1)) == b"\xf4":
            self.halts.append(address)

    def physical(self, address: int) -> int:
        """The place maps its frames at their physical addresses."""
        return address

    def long_mode(self, cr3: int, *, la57: bool = False) -> None:
        self.uc.reg_write(reg.UC_X86_REG_CR4, 0x20 | 1 << 6 | (1 << 12 if la57 else 0))
        self.uc.reg_write(reg.UC_X86_REG_CR3, cr3)
        self.uc.msr_write(EFER, 0xD01)
        self.uc.reg_write(reg.UC_X86_REG_CR0, 0x80050033)

    def run(self, address: int, instructions: int = 100) -> str | None:
        """Run until a HLT; return what went wrong, or None."""
        self.halts.clear()
        try:
            self.uc.emu_start(address, NOWHERE, count=instructions)
        except unicorn.UcError as error:
            return f"{error} at {self.uc.reg_read(reg.UC_X86_REG_RIP):#x}, interrupts {self.interrupts}"
        if self.interrupts:
            return f"interrupts {self.interrupts} at {self.uc.reg_read(reg.UC_X86_REG_RIP):#x}"
        return None

    def get(self, name: str) -> int:
        return self.uc.reg_read(getattr(reg, f"UC_X86_REG_{name.upper()}"))

    def set(self, name: str, value: int) -> None:
        self.uc.reg_write(getattr(reg, f"UC_X86_REG_{name.upper()}"), value)

    def push64(self, rsp: int, values: list[int]) -> int:
        for value in values:
            rsp -= 8
            self.uc.mem_write(rsp, struct.pack("<Q", value))
        return rsp

    def push32(self, esp: int, values: list[int]) -> int:
        for value in values:
            esp -= 4
            self.uc.mem_write(esp, struct.pack("<I", value))
        return esp
