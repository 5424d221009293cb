"""The registers of one CPU as a dump gives them."""

from __future__ import annotations

from dataclasses import dataclass

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")


@dataclass(frozen=True, slots=True)
class CpuRegisters:
    """What is known of one CPU; None where the dump does not say.

    Attributes:
        cpu: Position among the dump's CPUs, from 0 (QEMU: its CPU index; crash dumps: order of the notes).
        source: Where they come from: ``QEMU note``, ``NT_PRSTATUS`` or ``register listing``.
        halted: Whether the CPU was stopped in HLT (or waits for a start-up IPI); QEMU's notes do not say, its
            register listing does.
        cs: Selector; ``cs_base`` tells a CPU that waits in real mode at the reset vector.
        efer: Only a register listing has it.
    """

    cpu: int
    source: str
    rip: int
    rflags: int
    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    cs: int
    ss: int
    fs_base: int | None = None
    gs_base: int | None = None
    kernel_gs_base: int | None = None
    cs_base: int | None = None
    cr0: int | None = None
    cr2: int | None = None
    cr3: int | None = None
    cr4: int | None = None
    efer: int | None = None
    gdt_base: int | None = None
    gdt_limit: int | None = None
    idt_base: int | None = None
    idt_limit: int | None = None
    tr: int | None = None
    tr_base: int | None = None
    tr_limit: int | None = None
    halted: bool | None = None

    @property
    def interrupts_enabled(self) -> bool:
        """RFLAGS.IF."""
        return bool(self.rflags & 0x200)
