from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.x86.cpu import CpuState, infer_efer
from hibercheck.x86.paging import NO_EXECUTE


@dataclass
class Registers:
    rip: int = 0xFFFFFFFF81000000
    rsp: int = 0xFFFFC90000000FF8
    rflags: int = 0x202
    cs: int = 0x10
    ss: int = 0x18
    cr0: int | None = 0x80050033
    cr3: int | None = 0x1000
    cr4: int | None = 0x3506F0
    efer: int | None = None
    gdt_base: int | None = 1
    gdt_limit: int | None = 2
    idt_base: int | None = 3
    idt_limit: int | None = 4
    tr: int | None = 0x40
    tr_base: int | None = 5
    tr_limit: int | None = 6
    gs_base: int | None = None


def test_state_of_registers():
    cpu = CpuState.of(Registers(), efer=0xD01, max_phys_bits=40)
    assert (cpu.mode.levels, cpu.mode.nxe, cpu.mode.smep, cpu.mode.smap, cpu.mode.max_phys_bits) == (
        4,
        True,
        True,
        True,
        40,
    )
    assert (cpu.interrupts_enabled, cpu.machine_checks_enabled, cpu.uses_fred, cpu.user) == (True, True, False, False)
    assert replace(cpu, cs=0x33).user


def test_bits_of_cr4_and_rflags():
    """SDM 3A 2.5: MCE is bit 6; FRED specification 3.1: bit 32; RFLAGS.IF is bit 9."""
    cpu = CpuState.of(Registers(cr4=1 << 5 | 1 << 6, rflags=2), efer=0xD01)
    assert (cpu.machine_checks_enabled, cpu.uses_fred, cpu.interrupts_enabled) == (True, False, False)
    cpu = CpuState.of(Registers(cr4=1 << 5 | 1 << 32, rflags=1 << 9), efer=0xD01)
    assert (cpu.machine_checks_enabled, cpu.uses_fred, cpu.interrupts_enabled) == (False, True, True)


def test_registers_win_over_the_given_efer():
    assert CpuState.of(Registers(efer=0x501), efer=0xD01).efer == 0x501


@pytest.mark.parametrize("name", ["cr3", "idt_base", "tr_limit"])
def test_a_missing_register_is_named(name):
    registers = Registers()
    setattr(registers, name, None)
    with pytest.raises(MissingFact, match=name.upper().replace("_", " ")):
        CpuState.of(registers, efer=0xD01)


def test_missing_efer():
    with pytest.raises(MissingFact, match="EFER"):
        CpuState.of(Registers())


def test_efer_follows_from_the_stack_being_executable_or_not(machine):
    registers = Registers(rsp=machine.RSP)
    assert infer_efer(machine.memory, registers) == 0x501
    machine.set_entry(machine.RSP, machine.entry(machine.RSP) | NO_EXECUTE)
    assert infer_efer(machine.memory, registers) == 0xD01
    machine.unmap(machine.RSP)
    with pytest.raises(MissingFact, match="stack"):
        infer_efer(machine.memory, registers)
