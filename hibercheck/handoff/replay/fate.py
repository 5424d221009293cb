"""What becomes of a parked CPU: the only decision.

`fate_of` is a table: how the CPU is parked, what running again comes to (by what makes it run, and when), whether its
line is overwritten, whether the resumee sends it an INIT, and what is supposed.  Every command asks it, with traces of
whatever memory it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from hibercheck.data import dataclass, replace
from hibercheck.handoff.memory.owner import Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.scenario.options import Event as Supposed
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import ENDS_BY_ITSELF, Event

SUPPOSED: dict[Supposed, Event] = {
    "nmi": Event.NMI,
    "mce": Event.MACHINE_CHECK,
    "smi": Event.SMI,
    "store": Event.STORE,
}
"""What ``--suppose`` names."""


class Fate(StrEnum):
    """What becomes of one CPU."""

    UNTOUCHED = "untouched"
    """Nothing it can touch is overwritten, or nothing can make it touch anything."""
    PARKS_AGAIN = "parks again"
    """It runs through overwritten memory that holds the same bytes and equivalent tables."""
    REINITIALISED = "re-initialised"
    """It survives the copy and the resumee's INIT ends its parking."""
    STAYS_PARKED = "stays parked"
    """It survives the copy and stays in memory that is the resumee's, for as long as nothing wakes it."""
    DIES = "dies"
    """It executes foreign bytes or faults without a way out; the machine resets."""
    UNKNOWN = "unknown"
    """A fact is missing; the report's ``missing`` names it."""


class When(StrEnum):
    """When a CPU dies."""

    COPY = "copy"
    """While the image is copied."""
    BEFORE_INIT = "before-init"
    """Between the jump into the resumee and the INIT that the resumee sends it."""
    AFTER = "after"
    """When the resumee runs."""


class Doubt(StrEnum):
    """Why it is a matter of chance that a CPU dies."""

    LINE = "line"
    """It is not known whether the image covers the line that it monitors."""
    TIMING = "timing"
    """A store wakes it while its code is still its own: how long it takes to wake, and what its TLB holds, decides."""
    BREAK_EVENT = "break-event"
    """Whether a break event of the chipset ends its port read during the copy."""
    PLACE = "place"
    """The resumer's load address is random."""
    COVERAGE = "coverage"
    """Which frames an image covers, where there is none yet."""
    STORE = "store"
    """Its line is memory in which the resumee, which leaves it where it is, writes as it runs, or may come to."""
    REUSED = "reused"
    """Whether the resumee, which does not know of the frames that it waits in, has reused them."""
    HANDED_OUT = "handed-out"
    """Whether the resumee, in which memory that it goes through is free, has handed it out."""
    CACHE = "cache"
    """Whether it still has the translations without which it does not find its loop."""


@dataclass(frozen=True, slots=True)
class Suppositions:
    """What may happen.

    Attributes:
        spurious_mwait: A wait may end by itself, once, at the worst moment (``--spurious-mwait``).
        events: What happens after the handoff (``--suppose``).
        wake_latency: Copies that are made from a store to a line until the CPU that monitors it runs; None for none.
        cold_tlb: Whether a CPU that wakes has lost its translations.
        mwait_spins: Waits end at once, again and again, so that the CPU never sleeps (``--mwait-spins``).
        longest_wake: Copies that may be made at most from that store until it runs; None for any number.
    """

    spurious_mwait: bool = False
    events: frozenset[Event] = frozenset()
    wake_latency: int | None = None
    cold_tlb: bool = False
    mwait_spins: bool = False
    longest_wake: int | None = None

    @property
    def waits_end(self) -> bool:
        """Whether waits end by themselves."""
        return self.spurious_mwait or self.mwait_spins


@dataclass(frozen=True, slots=True)
class After:
    """What one event after the handoff comes to.

    Attributes:
        difference: As `hibercheck.handoff.replay.trace.trace` has it, on a cold TLB.
        doubt: Why it is chance that it does, or None.
        lent: Whether it goes through memory that is free in the resumee, which may hand it out.
        granted: Whether it rests on what is taken for granted of memory that is not known.
    """

    difference: Difference
    doubt: Doubt | None = None
    lent: bool = False
    granted: bool = False


@dataclass(frozen=True, slots=True)
class Prospects:
    """What running again comes to, by what makes the CPU run.

    Attributes:
        settled: One iteration of its loop when all is copied, with what it may have cached; None if it waits in none.
        fetch_unknown: Whether it is not known what it would execute then.
        spurious: What a wait that ends by itself comes to at the worst, with the TLB that is supposed; None as above.
        at_store: The same when its line has been written and it has woken, at the best of the moments at which it may
            run then; None where that moment is not known.
        worst_at_store: The same at the worst of these moments; for a port read, which a break event of the chipset may
            end at any time, at the worst of all.
        usual: The same for a machine as it is supposed to be, with its latency and its TLB; None as above.
        after: Each event that may come after the handoff.
        line: Whether the frame of its monitored line is overwritten; None where that is not known.
        writes: Whether the resumee writes that line.
    """

    settled: Difference | None
    fetch_unknown: bool = False
    spurious: Difference | None = None
    at_store: Difference | None = None
    worst_at_store: Difference | None = None
    usual: Difference | None = None
    after: Mapping[Event, After] | None = None
    line: bool | None = False
    writes: Writes = Writes.UNKNOWN


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a CPU.

    Attributes:
        fate: What.
        when: When it dies, if it does.
        cause: What wakes it then.
        doubt: Why that is chance, or None where it is certain.
        usual: Of a chance: what becomes of it on a machine as it usually is; None where nothing is usual.
    """

    fate: Fate
    when: When | None = None
    cause: Event | None = None
    doubt: Doubt | None = None
    usual: Fate | None = None

    @property
    def certain_death(self) -> bool:
        """Whether it dies on every resume of this scenario."""
        return self.fate is Fate.DIES and self.doubt is None


def fate_of(state: ParkState, prospects: Prospects, supposed: Suppositions, *, reinitialised: bool) -> Ruling:
    """Decide what becomes of one CPU.

    Args:
        state: How it is parked.
        prospects: What running again comes to.
        supposed: What may happen.
        reinitialised: Whether the resumee sends it an INIT when it thaws.
    """
    copy = _in_copy(state, prospects, supposed)
    if copy is not None and (copy.certain_death or copy.fate is Fate.UNKNOWN):
        return copy
    later = (_until_init if reinitialised else _after)(state, prospects, supposed)
    if copy is None or later.certain_death:
        return later  # what kills it later is certain, whether or not it gets that far
    if copy.usual is not None or copy.doubt is not Doubt.TIMING:
        return copy
    return replace(copy, usual=later.usual or later.fate)


def _in_copy(state: ParkState, prospects: Prospects, supposed: Suppositions) -> Ruling | None:
    """Decide whether a CPU is lost while the image is copied; None if nothing makes it run into harm there."""
    settled = prospects.settled
    if settled is None or state not in ENDS_BY_ITSELF:
        return None
    if supposed.waits_end:
        if Difference.FOREIGN in {settled, prospects.spurious}:
            return Ruling(Fate.DIES, When.COPY, Event.SPURIOUS)
        # data that it cannot reach does not hurt a CPU that has the way cached: one with a cold TLB has not
        warm = supposed.mwait_spins or not supposed.cold_tlb
        lost = prospects.fetch_unknown or (not warm and settled is Difference.UNKNOWN)
        # Who supposes this has a machine whose waits end before a store could end them, as QEMU's do: it asks for no
        # other wake-up, and a store to the line of one that is awake wakes nobody.
        return Ruling(Fate.UNKNOWN, When.COPY, Event.SPURIOUS) if lost else None
    if settled.parks_again and prospects.worst_at_store is not Difference.FOREIGN:
        return None
    if state is ParkState.PORT_IO:
        return Ruling(Fate.DIES, When.COPY, Event.SPURIOUS, Doubt.BREAK_EVENT)
    if prospects.line is False:
        return None
    at_store = prospects.at_store
    if at_store is Difference.FOREIGN:
        return Ruling(Fate.DIES, When.COPY, Event.STORE)  # at every moment at which it may run
    unknown = settled is Difference.UNKNOWN or prospects.fetch_unknown
    if unknown and (at_store is None or not at_store.parks_again):
        return Ruling(Fate.UNKNOWN, When.COPY, Event.STORE)
    if prospects.line is None:
        return Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.LINE)
    # It is woken while its code is its own.  It passes its loop and parks again unless the copy is faster than it, and
    # nothing says what its TLB holds: seen to pass, not known to (design, "Verdict").
    usual = {Difference.FOREIGN: Fate.DIES, Difference.UNKNOWN: Fate.UNKNOWN}.get(prospects.usual or Difference.INTACT)
    return Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING, usual)


def _until_init(state: ParkState, prospects: Prospects, supposed: Suppositions) -> Ruling:
    """Take a CPU from the jump into the resumee to the INIT that the resumee sends it."""
    if _stored_to(state, prospects, supposed):
        if prospects.settled is Difference.FOREIGN:
            return Ruling(Fate.DIES, When.BEFORE_INIT, Event.STORE)
        if prospects.settled is Difference.UNKNOWN or prospects.fetch_unknown:
            return Ruling(Fate.UNKNOWN, When.BEFORE_INIT, Event.STORE)
        if prospects.settled is Difference.STALE:  # as in the copy: seen to find its way, not known to
            usual = Fate.DIES if supposed.cold_tlb else Fate.REINITIALISED
            return Ruling(Fate.DIES, When.BEFORE_INIT, Event.STORE, Doubt.CACHE, usual)
    return Ruling(_quiet(state, prospects, Fate.REINITIALISED))


def _stored_to(state: ParkState, prospects: Prospects, supposed: Suppositions) -> bool:
    """Tell whether a CPU sleeps on a line that the resumee certainly writes before it starts that CPU."""
    sleeps = state is ParkState.MWAIT and not supposed.mwait_spins
    return sleeps and prospects.writes is Writes.BEFORE_INIT


def _expected(state: ParkState, prospects: Prospects, supposed: Suppositions) -> Mapping[Event, After]:
    """Return what comes to a CPU after the handoff: what is supposed, and what the resumee does as it runs.

    Whether memory that is free has been handed out by then is chance.
    """
    after = prospects.after or {}
    came = {event: found for event, found in after.items() if event in supposed.events}
    store = after.get(Event.STORE)
    if store is not None and Event.STORE not in came and not supposed.mwait_spins:
        if _stored_to(state, prospects, supposed) and prospects.settled is Difference.FOREIGN:
            came[Event.STORE] = After(Difference.FOREIGN)
        elif prospects.writes in {Writes.HANDED_OUT, Writes.ORDINARY, Writes.BEFORE_INIT}:
            came[Event.STORE] = After(store.difference, Doubt.STORE, lent=store.lent)
    return {
        event: After(Difference.FOREIGN, Doubt.HANDED_OUT) if found.lent else found for event, found in came.items()
    }


def _after(state: ParkState, prospects: Prospects, supposed: Suppositions) -> Ruling:
    """Let what comes reach a CPU that the resumee leaves where it is, and see what else could."""
    after = prospects.after or {}
    came = {event: found for event, found in after.items() if event in supposed.events}
    expected = _expected(state, prospects, supposed)
    deaths = [
        (found.granted, Ruling(Fate.DIES, When.AFTER, event, found.doubt, _usually(state, prospects, found.doubt)))
        for event, found in expected.items()
        if found.difference is Difference.FOREIGN
    ]
    if deaths:  # what is certain comes first, then what is taken for granted, then what is usual
        return min(deaths, key=lambda one: (one[1].doubt is not None, one[0], _USUAL.index(one[1].usual)))[1]
    for event, found in expected.items():
        if not found.difference.parks_again:
            return Ruling(Fate.UNKNOWN, When.AFTER, event)
    fate = _quiet(state, prospects, Fate.STAYS_PARKED)
    if any(found.lent for found in after.values()):
        return Ruling(Fate.STAYS_PARKED)
    exposed = any(found.difference is Difference.FOREIGN for event, found in after.items() if event not in came)
    if fate is Fate.STAYS_PARKED and not exposed and any(one.difference is Difference.SAME for one in came.values()):
        fate = Fate.PARKS_AGAIN
    return Ruling(fate)


def _usually(state: ParkState, prospects: Prospects, doubt: Doubt | None) -> Fate | None:
    """Return what usually becomes of a CPU that the resumee leaves where it is; None where nothing is usual.

    Memory that is free stays so until there is need of it: until then nothing wakes a CPU that monitors it, and one
    that waits there finds its way back.
    """
    if doubt is Doubt.STORE and prospects.writes is not Writes.HANDED_OUT:
        return Fate.DIES
    return _quiet(state, prospects, Fate.STAYS_PARKED) if doubt in {Doubt.STORE, Doubt.HANDED_OUT} else None


_USUAL = (Fate.DIES, None, Fate.UNKNOWN, Fate.STAYS_PARKED, Fate.REINITIALISED, Fate.PARKS_AGAIN, Fate.UNTOUCHED)
"""What is usual, from harmful to harmless."""


def _quiet(state: ParkState, prospects: Prospects, otherwise: Fate) -> Fate:
    """Return the fate of a CPU that nothing kills."""
    settled = prospects.settled
    if settled is None:
        return Fate.UNTOUCHED
    if settled is Difference.INTACT:
        return Fate.REINITIALISED if otherwise is Fate.REINITIALISED else Fate.UNTOUCHED
    return Fate.PARKS_AGAIN if state in ENDS_BY_ITSELF and settled is Difference.SAME else otherwise


def over_places(rulings: list[tuple[float, Ruling]], doubt: Doubt) -> Ruling:
    """Put together what becomes of a CPU in each of several places, or with each of several images.

    Args:
        rulings: (weight, ruling).
        doubt: Why it is not known which of them holds.
    """
    found = [ruling for weight, ruling in rulings if weight]
    deaths = [one for one in found if one.fate is Fate.DIES]
    if not deaths:
        return max(found, key=lambda one: _HARM.index(one.fate))
    doubts = {one.doubt for one in deaths}
    if len(doubts) == 1 and (len(deaths) == len(found) or doubts == {Doubt.HANDED_OUT}):
        return min(deaths, key=lambda one: _USUAL.index(one.usual))  # the same everywhere
    # what is usual where it waits in free memory, or is woken in time, is not usual where it does not
    dead = next(one for one in deaths if one.doubt is not Doubt.HANDED_OUT)
    return Ruling(Fate.DIES, dead.when, dead.cause, doubt)


_HARM = (Fate.UNTOUCHED, Fate.PARKS_AGAIN, Fate.REINITIALISED, Fate.STAYS_PARKED, Fate.UNKNOWN)
"""From harmless to harmful, of what nothing kills."""
