"""Classes of equal CPUs: one of each is judged, and the others come to the same.

A machine with a thousand CPUs parks most of them alike, but no two have the same number, GDT or per-CPU area.  What a
judgement has looked at tells which of these counted: one that never read a GDT holds for every GDT.
"""

from __future__ import annotations

from collections.abc import Hashable

from hibercheck.data import all_but, replace
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.replay.judgement import ApResult
from hibercheck.x86.cpu import CpuState, ParkState

_ENTRY = all_but(CpuState, "gdt_base", "tr_base")
_CONTEXT = all_but(ApContext, "registers")
_UNNUMBERED = all_but(ApContext, "cpu", "gs_base", "stack", "line")


class Classes:
    """CPUs of one memory, judged with the same suppositions."""

    def __init__(self) -> None:
        self._judged: dict[Hashable, list[ApResult]] = {}

    def result_for(self, cpu: ParkedCpu, *, reinitialised: bool) -> ApResult | None:
        """Return what becomes of a CPU, by another that is like it; None if none was judged yet.

        Args:
            cpu: The CPU.
            reinitialised: Whether the resumee sends it an INIT.
        """
        for judged in self._judged.get(_key(cpu, reinitialised), ()):
            if not judged.reads_tables or _tables(judged.cpu) == _tables(cpu):
                return replace(judged, cpu=cpu)
        return None

    def add(self, result: ApResult) -> None:
        """Keep the result of a CPU that was judged by itself."""
        if result.missing is None:  # what is missing is said with the CPU's number
            self._judged.setdefault(_key(result.cpu, result.reinitialised), []).append(result)


def _key(cpu: ParkedCpu, reinitialised: bool) -> Hashable:
    """All of a CPU that a judgement may look at, but the places of its GDT and TSS."""
    entry = None if cpu.entry is None else _ENTRY(cpu.entry)
    # The loop by its identity, for it is long: the results that are kept keep it alive.
    loop = id(cpu.parked.loop)
    waits = cpu.parked.state, loop, cpu.parked.unsettled
    return *waits, _registers(cpu), entry, cpu.tables_placed, cpu.facts, cpu.announced, reinitialised


def _registers(cpu: ParkedCpu) -> Hashable:
    """Return the registers in which a CPU waits, as far as its loop uses them.

    A CPU whose registers are known is followed, wherever they lead it; of one whose line is known it matters whose
    memory that is.  Such CPUs are equal only with all of it, their number too.
    """
    context = cpu.context
    monitors = cpu.parked.state is ParkState.MWAIT and context.line is not None
    if context.registers is not None or monitors:
        return _CONTEXT(context), tuple((context.registers or {}).items())
    used = {touch.kind for touch in cpu.parked.loop.touches} if cpu.parked.loop is not None else set()
    places = {"percpu": context.gs_base, "stack": context.stack, "line": context.line}
    return _UNNUMBERED(context), *(place if use in used else None for use, place in places.items())


def _tables(cpu: ParkedCpu) -> tuple[int, int] | None:
    return None if cpu.entry is None else (cpu.entry.gdt_base, cpu.entry.tr_base)
