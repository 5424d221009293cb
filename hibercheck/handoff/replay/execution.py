"""``--execute``: each parked CPU's code run in an emulator on the memory as the copy leaves it, and compared.

The replay reasons about one iteration of the loop; the emulator executes it, with a page walk and a decoder that are
not ours.  Where they differ one of them is wrong, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from hibercheck.addresses import ADDRESS_MASK, PAGE_SHIFT
from hibercheck.errors import Unsupported, UsageProblem
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.replay.touch import Change, known_walk
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import CpuState, ParkState
from hibercheck.x86.execute import Execution, ExecutionEnd, cached_tables, execute
from hibercheck.x86.memory import LayeredMemory, PhysicalMemory
from hibercheck.x86.paging import Access

MAX_INSTRUCTIONS = 20_000
"""Enough for any loop, and for a CPU that has left its own to fault or to stop somewhere."""

_WITHOUT_REGISTERS = frozenset({"text", "rodata", "io"})


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What the emulator says of one CPU.

    Attributes:
        cpu: Its number.
        text: Where it goes, in one sentence.
        agrees: Whether that is what the replay says; None where it could not be run or one of the two does not know.
        runs: The executions: with what is in memory, and then with cached translations if that makes a difference.
    """

    cpu: int
    text: str
    agrees: bool | None
    runs: tuple[Execution, ...] = ()


def require_emulator() -> None:
    """Fail early where unicorn is not installed.

    Raises:
        UsageProblem: It is not.
    """
    if find_spec("unicorn") is None:
        raise UsageProblem(
            "--execute needs unicorn, which is not installed", advice="install hibercheck[emu], or do without --execute"
        )


def second_opinions(plan: Plan, judgement: Judgement) -> tuple[SecondOpinion, ...]:
    """Run every CPU that waits in a loop.

    Args:
        plan: The scenario.
        judgement: The replay; where the resumer's place is not known nothing can be run.
    """
    if judgement.memory is None:
        why = "not run: where the resumer is loaded is not known"
        return tuple(
            SecondOpinion(result.parked.cpu, why, None) for result in judgement.aps if result.parked.loop is not None
        )
    found = []
    for result in judgement.aps:
        if result.iteration is not None and result.parked.loop is not None:
            found.append(_Runner(plan, judgement, judgement.memory, result, result.parked.loop).opinion())
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Runner:
    """One CPU."""

    plan: Plan
    judgement: Judgement
    memory: Composite
    result: ApResult
    loop: ParkLoop

    @property
    def cpu(self) -> int:
        return self.result.parked.cpu

    def opinion(self) -> SecondOpinion:
        """Run it, once as its memory is and once on what it may have cached, and compare."""
        state = self.result.cpu.entry
        lacking = self._lacking(state)
        if state is None or lacking:
            return SecondOpinion(self.cpu, f"not run: {lacking or 'its control registers are not known'}", None)
        try:
            plain = self._run(self.memory, state)
            cached = (self._run(self._cached(state), state, self.memory),) if self._may_run_on_cache() else ()
            runs = (plain, *cached)
        except Unsupported as problem:
            return SecondOpinion(self.cpu, f"not run: {problem.message}", None)
        agrees = self._agrees(plain)
        text = f"in the emulator it {self._says(plain)}"
        if len(runs) > 1:
            text += f"; on translations cached before the copy it {self._says(runs[1])}"
            agrees = _both(agrees, self._agrees_cached(runs[1]))
        verdict = {True: "as the replay says", False: "the replay says otherwise", None: "the replay cannot tell"}
        return SecondOpinion(self.cpu, f"{text}: {verdict[agrees]}", agrees, runs)

    def _lacking(self, state: CpuState | None) -> str:
        """Say which registers of the loop are not known, or nothing."""
        if state is None or self.result.cpu.general is not None:
            return ""
        needed = {touch.kind for touch in self.loop.touches} - _WITHOUT_REGISTERS
        if not needed:
            return ""
        what = {"percpu": "its GS base", "line": "the line that it monitors", "stack": "its stack"}
        names = ", ".join(sorted(what.get(kind, "registers") for kind in needed))
        return f"its loop uses {names}, known only from a dump taken after parking (--resumer-memory)"

    def _run(self, memory: PhysicalMemory, state: CpuState, uncached: PhysicalMemory | None = None) -> Execution:
        shift = self.memory.resumer.kaslr_offset
        return execute(
            memory,
            state,
            self.result.cpu.general or {},
            inside=[(start + shift & ADDRESS_MASK, end + shift & ADDRESS_MASK) for start, end in self.loop.ranges],
            limit=MAX_INSTRUCTIONS,
            uncached=uncached,
        )

    def _may_run_on_cache(self) -> bool:
        """Tell whether its TLB makes a difference: a CPU that spins or wakes from a shallow MWAIT has not lost it."""
        found = self.result.iteration
        mwait = self.result.parked.state is ParkState.MWAIT
        return mwait and self.memory.resumer.exact and found is not None and found.difference >= Difference.STALE

    def _cached(self, state: CpuState) -> PhysicalMemory:
        found = self.result.iteration
        addresses = [item.address for item in found.touched] if found else []
        return LayeredMemory([cached_tables(self.memory.resumer, state, [*addresses, state.rip]), self.memory])

    def _unknown(self, run: Execution) -> bool:
        """Tell whether a run ended for want of memory; a table of a placed kernel is known only in part."""
        if run.end is ExecutionEnd.UNKNOWN:
            return True
        if run.cr2 is None or self.memory.resumer.exact:
            return False
        found = known_walk(self.memory, self.result.cpu.context, run.cr2, Access.READ)
        return found.unknown_pfn is not None

    def _agrees(self, run: Execution) -> bool | None:
        """Compare with the replay of one iteration on the memory as it is."""
        found = self.result.iteration
        if found is None or not run.agrees:
            return False
        unknown = self._unknown(run)
        if found.difference is Difference.UNKNOWN or unknown:
            return True if found.difference is Difference.UNKNOWN and unknown else None
        parks = self._parks(run)
        if parks != (found.difference <= Difference.SAME):
            return False
        return parks or run.left is not None or run.cr2 is None or self._runs_other_bytes() or self._same_fault(run)

    def _runs_other_bytes(self) -> bool:
        """Tell whether other bytes lie where the loop was: what they access the replay does not follow."""
        found = self.result.iteration
        return found is not None and any(
            item.access is Access.FETCH and item.change is Change.CONTENT for item in found.touched
        )

    def _same_fault(self, run: Execution) -> bool:
        """Tell whether a fault on the loop's own accesses is one that the replay has, down to its error code."""
        found = self.result.iteration
        faults = [item.walk for item in found.touched if item.change is Change.FAULT] if found else []
        return any(
            walk.fault is not None
            and run.fault is not None
            and run.cr2 is not None
            and walk.address >> PAGE_SHIFT == run.cr2 >> PAGE_SHIFT
            and (walk.fault.vector, walk.fault.error_code) == (run.fault.vector, run.fault.error_code)
            for walk in faults
        )

    def _agrees_cached(self, run: Execution) -> bool | None:
        """Compare with what the replay says of a CPU that keeps its translations."""
        found = self.result.iteration
        if found is None or self._unknown(run) or (found.divergence is not None and found.divergence.unknown):
            return None
        if run.end is ExecutionEnd.STRAYS:
            return True if found.difference is Difference.FOREIGN else None
        return self._parks(run) == (found.difference < Difference.FOREIGN)

    def _parks(self, run: Execution) -> bool:
        """Tell whether a run comes to rest: in its loop, or where the replay has it rest outside."""
        divergence = self.result.iteration.divergence if self.result.iteration else None
        elsewhere = divergence is not None and divergence.rests and run.rip == divergence.rip
        return run.end is ExecutionEnd.WAITS_AGAIN or (run.end is ExecutionEnd.HALTS_ELSEWHERE and elsewhere)

    def _says(self, run: Execution) -> str:
        """Say where a run goes."""
        if self._unknown(run):
            return "needs memory that is not known"
        count = f"{run.instructions} instruction{'s' * (run.instructions != 1)}"
        texts = {
            ExecutionEnd.WAITS_AGAIN: "waits again in its loop",
            ExecutionEnd.FAULTS: f"faults {f'after {count}' if run.instructions else 'at once'} ({run.reason})",
        }
        text = texts.get(run.end, f"{run.reason}, after {count}")
        if run.left is not None:
            text = f"leaves its loop for {run.left:#x} and {text}"
        foreign = sum(self.memory.overwritten(store.physical >> PAGE_SHIFT) for store in run.stores)
        return f"{text}, with {foreign} stores into memory of the resumee" if foreign else text


def _both(first: bool | None, second: bool | None) -> bool | None:
    """Combine two answers: a disagreement counts most, then not knowing."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True
