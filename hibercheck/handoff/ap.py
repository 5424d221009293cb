"""One parked CPU through the handoff: what can wake it, when, and what becomes of it."""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.event_replay import EntryFacts, EventReplay, replay_event
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.loop_replay import LoopReplay, LoopState, own_frame, replay_loop
from hibercheck.handoff.options import Event as Supposed
from hibercheck.handoff.park import Parked
from hibercheck.handoff.resumee import Resumee
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts, rule

SUPPOSED: dict[Supposed, Event] = {"nmi": Event.NMI, "mce": Event.MACHINE_CHECK, "smi": Event.SMI}
NO_MEMORY = frozenset({ParkState.WAIT_FOR_SIPI, ParkState.NEVER_BOOTED})

SPURIOUS_EXITS = frozenset({ParkState.MWAIT, ParkState.PORT_IO})
"""States that end at any time without an event meant for the CPU."""

IN_HANDOFF, AFTER_HANDOFF = "in the handoff", "after the handoff"


@dataclass(frozen=True, slots=True)
class Suppositions:
    """What may happen: ``--spurious-mwait`` and ``--suppose``."""

    spurious_mwait: bool
    events: frozenset[Supposed]


@dataclass(frozen=True, slots=True)
class ApResult:
    """What becomes of one parked CPU.

    Attributes:
        parked: The CPU.
        fate: What becomes of it.
        when: `IN_HANDOFF` or `AFTER_HANDOFF` if it dies.
        cause: What wakes it then: the event, or None.
        turn: One turn of its loop after the copy; None if it executes none.
        events: The supposed events after the handoff.
        exposure: Events that were not supposed and would kill it if they came.
        reinitialised: Whether the resumee sends it an INIT.
        line_overwritten: Whether the frame of its monitored line is; None where that is not known.
        depends: Why its fate is a matter of chance (a risk), or None.
        missing: (fact, how to supply it) where the fate is unknown.
    """

    parked: Parked
    fate: Fate
    when: str | None = None
    cause: Event | None = None
    turn: LoopReplay | None = None
    events: tuple[EventReplay, ...] = ()
    exposure: tuple[EventReplay, ...] = ()
    reinitialised: bool = False
    line_overwritten: bool | None = False
    depends: str | None = None
    missing: tuple[str, str] | None = None

    @property
    def fatal_event(self) -> EventReplay | None:
        """The supposed event that kills it, if one does."""
        return next((event for event in self.events if event.state is LoopState.FOREIGN), None)

    @property
    def lucky(self) -> bool:
        """Whether it ran, or runs, through overwritten memory and stays where it is."""
        return self.fate is Fate.PARKS_AGAIN


@dataclass(frozen=True, slots=True)
class ApReplayer:
    """The replay of parked CPUs in one placement.

    Attributes:
        memory: The finished copy.
        resumee: The resumee.
        supposed: What may happen.
        reinitialised: CPUs to which the resumee sends an INIT.
    """

    memory: Composite
    resumee: Resumee
    supposed: Suppositions
    reinitialised: frozenset[int]

    def replay(self, parked: Parked, context: ApContext, entry: EntryFacts, facts: Facts) -> ApResult:
        """Take one CPU through the copy and beyond."""
        if parked.unsettled is not None:
            missing = (parked.unsettled.fact, parked.unsettled.supply)
            return ApResult(parked, Fate.UNKNOWN, missing=missing)
        if parked.loop is None and parked.state not in NO_MEMORY:
            missing = (f"the code in which CPU {parked.cpu} waits", "a resumer vmlinux with symbols")
            return ApResult(parked, Fate.UNKNOWN, missing=missing)
        turn = replay_loop(self.memory, parked.loop, context) if parked.loop else None
        line = self._line_overwritten(parked, context)
        dead = self._in_handoff(parked, turn, line)
        if dead is not None:
            return dead
        if parked.cpu in self.reinitialised:
            return ApResult(
                parked,
                self._quiet_fate(parked, turn, Fate.REINITIALISED),
                turn=turn,
                reinitialised=True,
                line_overwritten=line,
            )
        return self._stays(parked, context, entry, facts, turn, line)

    def _line_overwritten(self, parked: Parked, context: ApContext) -> bool | None:
        """Tell whether the image is copied over the line that the CPU monitors."""
        if parked.state is not ParkState.MWAIT or context.line_kept:
            return False
        if context.line is None or not context.placed:
            return None
        leaf = own_frame(self.memory.resumer, context.cr3, context.line)
        return None if leaf is None else self.memory.overwritten(leaf)

    def _in_handoff(self, parked: Parked, turn: LoopReplay | None, line: bool | None) -> ApResult | None:
        """Decide whether the CPU is lost while the image is copied, or whether that is not known."""
        if parked.state not in SPURIOUS_EXITS or turn is None:
            return None
        if self.supposed.spurious_mwait:
            return self._spinning(parked, turn, line)
        if parked.state is ParkState.PORT_IO:
            return self._break_event(parked, turn)
        return self._woken_by_store(parked, turn, line)

    def _spinning(self, parked: Parked, turn: LoopReplay, line: bool | None) -> ApResult | None:
        """Judge a CPU whose wait ends at once: it never stops using its loop's translations, so they stay cached."""
        if turn.state is LoopState.FOREIGN:
            return self._dies(parked, turn, line, Event.SPURIOUS)
        if turn.state is LoopState.UNKNOWN and turn.fetch_unknown:
            return ApResult(parked, Fate.UNKNOWN, turn=turn, line_overwritten=line, missing=_frame_missing(turn))
        return None

    def _woken_by_store(self, parked: Parked, turn: LoopReplay, line: bool | None) -> ApResult | None:
        """Judge a CPU that only a store to its line wakes; nothing says what its TLB holds by then."""
        if line is False or turn.state <= LoopState.SAME:
            return None
        if turn.state is LoopState.UNKNOWN:
            return ApResult(parked, Fate.UNKNOWN, turn=turn, line_overwritten=line, missing=_frame_missing(turn))
        if line and turn.state is LoopState.FOREIGN:
            return self._dies(parked, turn, line, Event.STORE)
        why = (
            "it is not known whether the image covers the line that it monitors"
            if line is None
            else "it is not known whether it still has the translations of its loop cached"
        )
        return ApResult(parked, Fate.DIES, IN_HANDOFF, Event.STORE, turn, line_overwritten=line, depends=why)

    @staticmethod
    def _break_event(parked: Parked, turn: LoopReplay) -> ApResult | None:
        """Judge a CPU whose port read ends with whatever the chipset takes for a break event."""
        if turn.state <= LoopState.SAME:
            return None
        why = "whether a break event of the chipset ends its port read during the copy is chance"
        return ApResult(parked, Fate.DIES, IN_HANDOFF, Event.SPURIOUS, turn, depends=why)

    @staticmethod
    def _dies(parked: Parked, turn: LoopReplay, line: bool | None, cause: Event) -> ApResult:
        return ApResult(parked, Fate.DIES, IN_HANDOFF, cause, turn, line_overwritten=line)

    def _quiet_fate(self, parked: Parked, turn: LoopReplay | None, otherwise: Fate) -> Fate:
        """Return the fate of a CPU that survives the copy."""
        if turn is None or turn.state is LoopState.INTACT:
            return Fate.UNTOUCHED if turn is None or otherwise is not Fate.REINITIALISED else Fate.REINITIALISED
        runs = parked.state in SPURIOUS_EXITS
        return Fate.PARKS_AGAIN if runs and turn.state is LoopState.SAME else otherwise

    def _stays(
        self,
        parked: Parked,
        context: ApContext,
        entry: EntryFacts,
        facts: Facts,
        turn: LoopReplay | None,
        line: bool | None,
    ) -> ApResult:
        """Let the supposed events reach a CPU that the resumee leaves where it is, and see what else could."""
        wanted = {SUPPOSED[name] for name in self.supposed.events}
        replays = {
            event: replay_event(self.memory, event, parked.state, parked.loop, context, entry, self.resumee, facts)
            for event in (Event.STORE, Event.NMI, Event.MACHINE_CHECK, Event.SMI)
            if event is not Event.STORE or parked.state is ParkState.MWAIT
        }
        events = tuple(replay for event, replay in replays.items() if event in wanted)
        exposure = tuple(
            replay for event, replay in replays.items() if event not in wanted and replay.state >= LoopState.UNKNOWN
        )
        fatal = next((replay for replay in events if replay.state is LoopState.FOREIGN), None)
        if fatal is not None:
            return ApResult(
                parked, Fate.DIES, AFTER_HANDOFF, fatal.event, turn, events, exposure, line_overwritten=line
            )
        unknown = next((replay for replay in events if replay.state is LoopState.UNKNOWN), None)
        if unknown is not None:
            missing = (
                f"what CPU {parked.cpu} does on {unknown.event.value}: {unknown.reason}",
                "--resumer-memory DUMP",
            )
            return ApResult(
                parked, Fate.UNKNOWN, None, None, turn, events, exposure, missing=missing, line_overwritten=line
            )
        fate = self._quiet_fate(parked, turn, Fate.STAYS_PARKED)
        ran_same = any(replay.state is LoopState.SAME for replay in events)
        if fate is Fate.STAYS_PARKED and not exposure and ran_same:
            fate = Fate.PARKS_AGAIN
        return ApResult(parked, fate, None, None, turn, events, exposure, line_overwritten=line)


def _frame_missing(turn: LoopReplay) -> tuple[str, str]:
    touched = turn.decisive
    pfn = touched.walk.unknown_pfn if touched else None
    where = f"PFN {pfn:#x} of the resumer" if pfn is not None else "memory of the resumer"
    role = touched.role if touched else "loop"
    return f"the contents of {where}, on the way to the {role}", "--resumer-memory DUMP"


def can_be_woken(state: ParkState, facts: Facts) -> tuple[str, ...]:
    """Name what makes a CPU so parked touch memory, or ends the machine, in the order of the table."""
    rows = (rule(event, state, facts) for event in Event)
    return tuple(row.event.value for row in rows if row.effect.touches_memory or row.effect.ends_machine)
