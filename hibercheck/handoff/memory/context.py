"""One parked CPU as the copy begins: all that a trace of its next steps starts from."""

from __future__ import annotations

from collections.abc import Hashable

from hibercheck.data import all_but, dataclass
from hibercheck.handoff.scenario.park import Parked
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.events import Facts


@dataclass(frozen=True, slots=True)
class ApContext:
    """What is known of the registers in which a CPU waits.

    Attributes:
        cpu: Its number.
        cr3: Its page-table root; 0 for a CPU that does not page.
        gs_base: What %gs holds, or None.
        placed: Whether ``gs_base`` and ``stack`` are facts and not a stand-in address in the direct map.
        stack: Its stack pointer, or None.
        line: Address of the line it monitors, or None.
        line_kept: Whether the line is in a frame that both kernels keep for it.
        line_frame: The frame of the line, where the kernel's code says it and no walk has to; or None.
        line_withheld: Whether the resumer keeps that frame from images, so that the copy does not write to it.
        rip: Its next instruction, where that is known.
        registers: Its general registers, as far as they are known; None to judge by what the loop may access.
        gdt: Base and limit of its GDT, where known.
        paging: Whether it pages; one that does not addresses memory physically.
    """

    cpu: int
    cr3: int
    gs_base: int | None = None
    placed: bool = False
    stack: int | None = None
    line: int | None = None
    line_kept: bool = False
    line_frame: int | None = None
    line_withheld: bool = False
    rip: int | None = None
    registers: dict[str, int] | None = None
    gdt: tuple[int, int] | None = None
    paging: bool = True


_WHOLE = all_but(ApContext, "registers")
_UNPLACED = all_but(ApContext, "cpu", "gs_base", "stack", "line")


def whole(context: ApContext) -> Hashable:
    """Return all of a context, to compare it."""
    return _WHOLE(context), tuple((context.registers or {}).items())


def as_used(context: ApContext, loop: ParkLoop | None) -> Hashable:
    """Return what of a context a loop uses: one iteration is the same for CPUs that have the same of it.

    A CPU whose registers are known is followed, wherever they lead it, so that all of its context counts.
    """
    if context.registers is not None:
        return whole(context)
    used = {touch.kind for touch in loop.touches} if loop is not None else set()
    places = {"percpu": context.gs_base, "stack": context.stack, "line": context.line}
    return _UNPLACED(context), *(place if use in used else None for use, place in places.items())


@dataclass(frozen=True, slots=True)
class ParkedCpu:
    """All that is known of one parked CPU.

    Attributes:
        parked: Its number, where and how it waits, and how it came there.
        context: The registers in which it waits.
        entry: The registers that take part in delivering an event, or None where they are not known.
        tables_placed: Whether the addresses of its GDT and TSS are facts (the IDT's always is).
        facts: What decides how it takes events.
        general: Its general registers by name, where a dump has them as they are while the CPU is parked.
        seen: Its RIP and CR3 as a dump shows them, whether or not it waits in a loop.
        announced: Of a CPU that waits in frames outside the resumer's kernel: whether the resumee is told of them, and
            leaves them alone; None for any other.
    """

    parked: Parked
    context: ApContext
    entry: CpuState | None = None
    tables_placed: bool = True
    facts: Facts = Facts()
    general: dict[str, int] | None = None
    seen: tuple[int, int] | None = None
    announced: bool | None = None

    @property
    def number(self) -> int:
        """Its logical number in the resumer."""
        return self.parked.cpu
