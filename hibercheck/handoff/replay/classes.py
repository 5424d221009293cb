"""Classes of equal CPUs: one of each is judged, and the others come to the same.

A machine with a thousand CPUs parks most of them alike, but no two have the same number, GDT or per-CPU area.  What a
judgement has looked at tells which of these counted: one that never read a GDT holds for every GDT.
"""

from __future__ import annotations

from collections.abc import Hashable

from hibercheck.data import all_but, replace
from hibercheck.handoff.memory.context import ParkedCpu, as_used, whole
from hibercheck.handoff.replay.judgement import ApResult
from hibercheck.x86.cpu import CpuState, ParkState

_ENTRY = all_but(CpuState, "gdt_base", "tr_base")


class Classes:
    """CPUs of one memory, judged with the same suppositions."""

    def __init__(self) -> None:
        self._judged: dict[Hashable, ApResult] = {}

    def result_for(self, cpu: ParkedCpu, *, reinitialised: bool) -> ApResult | None:
        """Return what becomes of a CPU, by another that is like it; None if none was judged yet.

        Args:
            cpu: The CPU.
            reinitialised: Whether the resumee sends it an INIT.
        """
        key = _key(cpu, reinitialised)
        judged = self._judged.get((key, None)) or self._judged.get((key, _tables(cpu)))
        return None if judged is None else replace(judged, cpu=cpu)

    def add(self, result: ApResult) -> None:
        """Keep the result of a CPU that was judged by itself."""
        if result.missing is None:  # what is missing is said with the CPU's number
            tables = _tables(result.cpu) if result.reads_tables else None
            self._judged[_key(result.cpu, result.reinitialised), tables] = result


def _key(cpu: ParkedCpu, reinitialised: bool) -> Hashable:
    """All of a CPU that a judgement may look at, but the places of its GDT and TSS."""
    entry = None if cpu.entry is None else _ENTRY(cpu.entry)
    # The loop by its identity, for it is long: the results that are kept keep it alive.
    loop = id(cpu.parked.loop)
    waits = cpu.parked.state, loop, cpu.parked.unsettled
    return *waits, _registers(cpu), entry, cpu.tables_placed, cpu.facts, cpu.announced, reinitialised


def _registers(cpu: ParkedCpu) -> Hashable:
    """Return the registers in which a CPU waits, as far as its loop uses them.

    Of a CPU whose line is known it matters whose memory that is: such CPUs are equal only with all of their context.
    """
    monitors = cpu.parked.state is ParkState.MWAIT and cpu.context.line is not None
    return whole(cpu.context) if monitors else as_used(cpu.context, cpu.parked.loop)


def _tables(cpu: ParkedCpu) -> tuple[int, int] | None:
    return None if cpu.entry is None else (cpu.entry.gdt_base, cpu.entry.tr_base)
