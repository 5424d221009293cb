"""The state of one CPU as far as it decides what the CPU touches when something makes it run."""

# ruff: noqa: D102 - the members of the protocol are documented with `CpuState`

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.x86.memory import PhysicalMemory
from hibercheck.x86.paging import CR4_FRED, CR4_LA57, CR4_MCE, EFER_LMA, EFER_NXE, NO_EXECUTE, PagingMode, walk

RFLAGS_IF = 1 << 9
EFER_SCE, EFER_LME = 1 << 0, 1 << 8


class ParkState(StrEnum):
    """Where a CPU that does no work is."""

    RUNNING = "running"
    """Fetches and executes all the time."""
    MWAIT = "mwait"
    """Waits in MWAIT for a store to the line it armed with MONITOR, or for anything else that ends MWAIT."""
    HLT = "hlt"
    """Stopped by HLT."""
    PORT_IO = "port_io"
    """In a C-state entered by reading an I/O port (ACPI ``SYSTEMIO``)."""
    WAIT_FOR_SIPI = "wait_for_sipi"
    """After INIT: fetches nothing before a start-up IPI tells it where."""
    NEVER_BOOTED = "never_booted"
    """Where the firmware left it; no kernel ran on it."""
    SHUTDOWN = "shutdown"
    """After a triple fault, or a machine check with CR4.MCE clear; chipsets then reset the machine."""


@dataclass(frozen=True, slots=True)
class FredState:
    """The FRED MSRs (Intel "Flexible Return and Event Delivery" specification, section 4).

    Attributes:
        config: IA32_FRED_CONFIG: page of the entry points, red zone in bits 8:6, interrupts' stack level in 10:9,
            current stack level in 1:0.
        stack_levels: IA32_FRED_STKLVLS: two bits for each vector below 32.
        stacks: IA32_FRED_RSP0 to RSP3.
    """

    config: int
    stack_levels: int
    stacks: tuple[int, int, int, int]


class RegisterSource(Protocol):
    """Anything with the registers of one CPU, such as a dump's; None where it does not know."""

    @property
    def rip(self) -> int: ...
    @property
    def rsp(self) -> int: ...
    @property
    def rflags(self) -> int: ...
    @property
    def cs(self) -> int: ...
    @property
    def ss(self) -> int: ...
    @property
    def cr0(self) -> int | None: ...
    @property
    def cr3(self) -> int | None: ...
    @property
    def cr4(self) -> int | None: ...
    @property
    def efer(self) -> int | None: ...
    @property
    def gdt_base(self) -> int | None: ...
    @property
    def gdt_limit(self) -> int | None: ...
    @property
    def idt_base(self) -> int | None: ...
    @property
    def idt_limit(self) -> int | None: ...
    @property
    def tr(self) -> int | None: ...
    @property
    def tr_base(self) -> int | None: ...
    @property
    def tr_limit(self) -> int | None: ...
    @property
    def gs_base(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class CpuState:
    """Registers that take part in fetching and in delivering an event.

    Attributes:
        rip: Next instruction: of a parked CPU, the one after its MWAIT, HLT or IN.
        cs, ss, tr: Selectors.  The low two bits of ``cs`` are the privilege level.
        gdt_limit, idt_limit, tr_limit: Offset of the last byte.
        fred: The FRED MSRs; they count only if CR4.FRED is set.
        max_phys_bits: MAXPHYADDR.
        encryption_mask: The C-bit, or 0.
    """

    rip: int
    rsp: int
    rflags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    idt_base: int
    idt_limit: int
    gdt_base: int
    gdt_limit: int
    tr_base: int
    tr_limit: int
    tr: int = 0x40
    cs: int = 0x10
    ss: int = 0x18
    gs_base: int | None = None
    fred: FredState | None = None
    max_phys_bits: int = 52
    encryption_mask: int = 0

    @property
    def mode(self) -> PagingMode:
        """How it pages.

        Raises:
            Unsupported: It is not in long mode.
        """
        return PagingMode.from_registers(
            self.cr0, self.cr4, self.efer, max_phys_bits=self.max_phys_bits, encryption_mask=self.encryption_mask
        )

    @property
    def user(self) -> bool:
        """Whether it runs at privilege level 3."""
        return self.cs & 3 == 3

    @property
    def uses_fred(self) -> bool:
        """Whether events are delivered by FRED instead of through the IDT (CR4 bit 32)."""
        return bool(self.cr4 & CR4_FRED)

    @property
    def machine_checks_enabled(self) -> bool:
        """CR4.MCE."""
        return bool(self.cr4 & CR4_MCE)

    @property
    def interrupts_enabled(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.rflags & RFLAGS_IF)

    @classmethod
    def of(
        cls,
        registers: RegisterSource,
        *,
        efer: int | None = None,
        max_phys_bits: int = 52,
        encryption_mask: int = 0,
        fred: FredState | None = None,
    ) -> CpuState:
        """Take the state from a dump's registers.

        Args:
            registers: The registers.
            efer: Used where the registers lack EFER; see `infer_efer`.
            max_phys_bits: MAXPHYADDR of the machine.
            encryption_mask: Its C-bit, or 0.
            fred: The FRED MSRs, where known.

        Raises:
            MissingFact: A register that is needed is not known; the message names it.
        """

        def need(name: str) -> int:
            value: int | None = getattr(registers, name)
            if value is None:
                raise MissingFact(
                    f"register {name.upper().replace('_', ' ')} is not known",
                    advice="give a dump with QEMU's CPU notes, or the text of `info registers -a`",
                )
            return value

        return cls(
            rip=registers.rip,
            rsp=registers.rsp,
            rflags=registers.rflags,
            cr0=need("cr0"),
            cr3=need("cr3"),
            cr4=need("cr4"),
            efer=efer if registers.efer is None and efer is not None else need("efer"),
            idt_base=need("idt_base"),
            idt_limit=need("idt_limit"),
            gdt_base=need("gdt_base"),
            gdt_limit=need("gdt_limit"),
            tr_base=need("tr_base"),
            tr_limit=need("tr_limit"),
            tr=need("tr"),
            cs=registers.cs,
            ss=registers.ss,
            gs_base=registers.gs_base,
            fred=fred,
            max_phys_bits=max_phys_bits,
            encryption_mask=encryption_mask,
        )


def infer_efer(memory: PhysicalMemory, registers: RegisterSource) -> int:
    """Work out EFER of a 64-bit kernel's CPU from its page tables, as QEMU's CPU notes lack it.

    A kernel maps its stacks not executable if, and only if, it has set EFER.NXE: without it bit 63 of an entry is
    reserved, and the first push would have faulted.  So the walk of the stack pointer tells.

    Raises:
        MissingFact: The tables of the stack are not all known, or CR3 or CR4 are not.
    """
    if registers.cr3 is None or registers.cr4 is None:
        raise MissingFact("CR3 and CR4 are not known", advice="give a dump with QEMU's CPU notes")
    mode = PagingMode(levels=5 if registers.cr4 & CR4_LA57 else 4, nxe=True)
    stack = walk(memory, mode, registers.cr3, registers.rsp)
    if stack.physical is None:
        raise MissingFact(f"EFER is not known, and the stack at {registers.rsp:#x} is not mapped in this memory")
    executable = not any(step.entry & NO_EXECUTE for step in stack.steps)
    return EFER_SCE | EFER_LME | EFER_LMA | (0 if executable else EFER_NXE)
