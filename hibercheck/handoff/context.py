"""What is known of a parked CPU's registers: all that a replay of its next steps starts from."""

from __future__ import annotations

from hibercheck.data import dataclass


@dataclass(frozen=True, slots=True)
class ApContext:
    """What is known of one parked CPU's registers.

    Attributes:
        cpu: Its number.
        cr3: Its page-table root.
        gs_base: What %gs holds, or None.
        placed: Whether ``gs_base`` and ``stack`` are facts and not a stand-in address in the direct map.
        stack: Its stack pointer, or None.
        line: Address of the line it monitors, or None.
        line_kept: Whether the line is in a frame that both kernels keep for it.
        rip: Its next instruction, where that is known.
        registers: Its general registers, as far as they are known; None to judge by what the loop may access.
        gdt: Base and limit of its GDT, where known.
    """

    cpu: int
    cr3: int
    gs_base: int | None = None
    placed: bool = False
    stack: int | None = None
    line: int | None = None
    line_kept: bool = False
    rip: int | None = None
    registers: dict[str, int] | None = None
    gdt: tuple[int, int] | None = None
