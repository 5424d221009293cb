"""What a replay found: the record of each CPU and of the machine."""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ParkedCpu
from hibercheck.handoff.memory.owner import Owner
from hibercheck.handoff.replay.boot_cpu import BootCpuReplay, Lack
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Doubt, Fate, Ruling, When
from hibercheck.handoff.replay.places import Sweep
from hibercheck.handoff.replay.trace import Trace
from hibercheck.handoff.scenario.park import Parked
from hibercheck.x86.events import ENDS_BY_ITSELF, Event


@dataclass(frozen=True, slots=True)
class Timing:
    """When a store to its line wakes a CPU, and how long it then stays safe.

    Attributes:
        store: The number of the copy that writes its line, from 1.
        copies: How many copies there are.
        counted: Whether they are counted by the resumer's own list of them; else all numbers are upper bounds.
        tables: The first copy from then on after which it is lost unless it has its translations cached, or None.
        code: The first copy from then on after which it is lost for certain, or None.
        longest: Copies that may be made at most from the store until it runs; None where that is not known.
    """

    store: int
    copies: int
    tables: int | None
    code: int | None
    counted: bool = False
    longest: int | None = None

    @property
    def margin(self) -> int | None:
        """Copies between the store and the first that hurts a CPU with an empty TLB; None if none does."""
        first = min((copy for copy in (self.tables, self.code) if copy is not None), default=None)
        return None if first is None else first - self.store


@dataclass(frozen=True, slots=True)
class ApResult:
    """What becomes of one parked CPU.

    Attributes:
        cpu: The CPU, with all that is known of it.
        ruling: What becomes of it.
        iteration: One iteration of its loop after the copy; None if it executes none, or where its place is not known.
        events: The supposed events after the handoff.
        exposure: Events that were not supposed and would kill it, or might, if they came.
        reinitialised: Whether the resumee sends it an INIT.
        line: Whether the frame of its monitored line is overwritten; None where that is not known.
        owner: Whose the line is in the resumee that it monitors; None if it monitors none, or where it is not known.
        timing: When it is woken and what follows, where a store to its line wakes it.
        reads_tables: Whether an event's delivery, supposed or not, gets as far as the CPU's own GDT or TSS.
        missing: (fact, how to supply it) where the fate is unknown.
    """

    cpu: ParkedCpu
    ruling: Ruling
    iteration: Trace | None = None
    events: tuple[Trace, ...] = ()
    exposure: tuple[Trace, ...] = ()
    reinitialised: bool = False
    line: bool | None = False
    owner: Owner | None = None
    timing: Timing | None = None
    reads_tables: bool = False
    missing: tuple[str, str] | None = None

    @property
    def parked(self) -> Parked:
        """Where and how it waits."""
        return self.cpu.parked

    @property
    def fate(self) -> Fate:
        """What becomes of it."""
        return self.ruling.fate

    @property
    def when(self) -> When | None:
        """When it dies."""
        return self.ruling.when

    @property
    def cause(self) -> Event | None:
        """What wakes it then."""
        return self.ruling.cause

    @property
    def doubt(self) -> Doubt | None:
        """Why its death is a matter of chance."""
        return self.ruling.doubt

    @property
    def runs_on_cache(self) -> bool:
        """Whether its wait may end by itself, and then only what its TLB has cached leads it back to its loop."""
        return self._waits_with(Difference.STALE)

    @property
    def may_run_on_cache(self) -> bool:
        """Whether that may be so, and is not known."""
        return self._waits_with(Difference.UNKNOWN)

    def _waits_with(self, difference: Difference) -> bool:
        found = self.iteration is not None and self.iteration.difference is difference
        return found and self.parked.state in ENDS_BY_ITSELF

    @property
    def stored_to(self) -> bool:
        """Whether a store of the resumee, which nobody supposed, is what kills it or may."""
        after = self.when in {When.BEFORE_INIT, When.AFTER}
        return after and self.cause is Event.STORE and self.fatal_event is None

    @property
    def fatal_event(self) -> Trace | None:
        """What the supposed event that kills it after the handoff comes to."""
        if self.when is not When.AFTER:
            return None
        return next((found for found in self.events if found.event is self.cause), None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the replay found.

    Attributes:
        memory: The finished copy; None where the resumer's place is not known.
        boot_cpu: The boot CPU's own step; None where it is not known.
        aps: Every other CPU.
        sweep: The result over all places, where the place is not known.
        missing: Facts that the answer lacks: (fact, how to supply it).
        dump_shows_parked: Whether the dump was taken after parking; None without a dump.
        lacks: What the resumee uses of its CPU and the CPU under the resumer lacks.
    """

    memory: Composite | None
    boot_cpu: BootCpuReplay | None
    aps: tuple[ApResult, ...]
    sweep: Sweep | None = None
    missing: tuple[tuple[str, str], ...] = ()
    dump_shows_parked: bool | None = None
    lacks: tuple[Lack, ...] = ()
