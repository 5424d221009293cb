"""A fresh unicorn in the mode and with the registers of one CPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hibercheck.errors import UsageProblem
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.paging import CR4_LA57, CR4_PAE, CR4_SMAP, CR4_SMEP

GENERAL_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
MSR_EFER = 0xC0000080


BUFFER = 32 << 20
"""Bytes for translated code.  By itself QEMU asks for 1 GiB and ends the process where it gets less; a park loop, and
what a CPU runs that has left it, is some kilobytes."""


def load_emulator() -> tuple[Any, Any]:
    """Import unicorn and return it with its constants.

    Raises:
        UsageProblem: It is not installed.
    """
    try:
        # by name: it is an optional extra without type information, and its import takes 50 ms
        unicorn: Any = import_module("unicorn")
        return unicorn, _Constants(import_module("unicorn.unicorn_const"), import_module("unicorn.x86_const"))
    except ImportError as error:
        raise UsageProblem(
            "unicorn is not installed", advice="install hibercheck[emu], or do without --execute"
        ) from error


def new_emulator(cpu: CpuState, registers: Mapping[str, int]) -> tuple[Any, Any, type[Exception]]:
    """Make an emulator in the CPU's mode and with its registers; return it, its constants and its error type."""
    unicorn, const = load_emulator()
    uc = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    uc.ctl_set_tcg_buffer_size(BUFFER)
    # of the models that have MONITOR and MWAIT, one with SMEP and SMAP; its MWAIT does nothing
    uc.ctl_set_cpu_model(const.UC_CPU_X86_EPYC_ROME)
    uc.reg_write(const.UC_X86_REG_CR4, cpu.cr4 & (CR4_PAE | CR4_LA57 | CR4_SMEP | CR4_SMAP | 0x690) | CR4_PAE)
    uc.reg_write(const.UC_X86_REG_CR3, cpu.cr3 & cpu.mode.address_mask)
    uc.msr_write(MSR_EFER, cpu.efer)
    uc.reg_write(const.UC_X86_REG_CR0, cpu.cr0)
    for name in GENERAL_REGISTERS:
        uc.reg_write(getattr(const, f"UC_X86_REG_{name.upper()}"), registers.get(name, 0))
    uc.reg_write(const.UC_X86_REG_RSP, cpu.rsp)
    uc.reg_write(const.UC_X86_REG_RFLAGS, cpu.rflags)
    uc.reg_write(const.UC_X86_REG_GS_BASE, cpu.gs_base or 0)
    uc.reg_write(const.UC_X86_REG_GDTR, (0, cpu.gdt_base, cpu.gdt_limit, 0))
    uc.reg_write(const.UC_X86_REG_IDTR, (0, cpu.idt_base, cpu.idt_limit, 0))
    return uc, const, unicorn.UcError


class _Constants:
    """Unicorn's two modules of constants as one."""

    def __init__(self, *modules: object) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)
