"""Findings about one CPU: which rule, on what evidence, with what weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Doubt, Fate
from hibercheck.handoff.replay.judgement import ApResult
from hibercheck.handoff.replay.touch import Change, Touched
from hibercheck.handoff.replay.trace import LINE, Trace
from hibercheck.handoff.scenario.park import NO_MEMORY
from hibercheck.handoff.verdict.findings import Evidence, Finding, Level, Place
from hibercheck.handoff.verdict.naming import Namer
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.handoff.verdict.words import (
    either,
    killers_of,
    lent_to,
    owned,
    then_of,
    unknown_of,
    with_article,
    written,
)
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event
from hibercheck.x86.exceptions import Delivery
from hibercheck.x86.paging import Access

_VERBS = {Access.FETCH: "fetches", Access.READ: "reads", Access.WRITE: "writes to"}
_SHOWN_BYTES = 16
_SHOWN_INSTRUCTIONS = 12
_SMT_ADVICE = (
    "Boot the resumer without nosmt (and without mitigations=auto,nosmt), or use one that brings the siblings back "
    "before the copy"
)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Makes findings.

    Attributes:
        namer: Names places; None where the resumer's place is not known.
        reserved: Whether a design has set the monitored line's page aside for parked CPUs (``--park fixmap``).
        lacks: Why the resumer's kernel brings no offline CPU back, or not every one, as far as its code says it.
    """

    namer: Namer | None
    reserved: bool = False
    lacks: str = ""
    _loops: dict[int, tuple[ParkLoop, Evidence]] = field(default_factory=dict, repr=False, compare=False)

    def findings(self, result: ApResult) -> tuple[Finding, ...]:
        """Return all findings about one CPU, the decisive ones first."""
        found = [
            *self._left_behind(result),
            *self._line(result),
            *self._loop(result),
            *self._events(result),
            *self._stays(result),
            *self._stores(result),
            *self._init(result),
            *self._window(result),
        ]
        return tuple(sorted(found, key=lambda finding: -finding.level))

    def _left_behind(self, result: ApResult) -> Iterator[Finding]:
        """HC301: it was offline, it had run, and nobody brought it back to park it safely."""
        parked = result.parked
        if not parked.left_behind or parked.state is ParkState.WAIT_FOR_SIPI:
            return
        yield _finding(
            "HC301",
            Level.ERROR if result.fate is Fate.DIES else Level.NOTE,
            parked.cpu,
            "park state",
            f"CPU {parked.cpu} was {parked.why}; it is still there when the image is copied",
            advice=self._rescue_advice(by_hand=parked.by_hand),
        )

    def _rescue_advice(self, *, by_hand: bool) -> str:
        """Say what to do about a CPU that is left behind, and whose fault it is."""
        advice = RULES["HC301"].advice if by_hand else _SMT_ADVICE
        return f"{advice}: {self.lacks}" if self.lacks else advice

    def _line(self, result: ApResult) -> Iterator[Finding]:
        """HC101 and HC102: the line that it monitors."""
        if result.parked.state is not ParkState.MWAIT or self.namer is None or not (result.line or result.stored_to):
            return
        touched = (
            next((item for item in result.iteration.touched if item.role == LINE), None) if result.iteration else None
        )
        resumer, resumee = self.namer.places(touched) if touched else (Place(), Place())
        cpu = result.parked.cpu
        if self.reserved and result.line:
            yield _finding(
                "HC601",
                max(_level_of_wake(result), Level.WARNING),
                cpu,
                "reserved page",
                f"the image holds the page that the design sets aside for CPU {cpu} to monitor",
                resumer,
                resumee,
            )
        if result.line:
            yield _finding(
                "HC101",
                _level_of_wake(result),
                cpu,
                "monitored line",
                f"the image is copied over the line that CPU {cpu} monitors, which wakes it",
                resumer,
                resumee,
            )
        if not result.reinitialised or result.stored_to:
            whose = "" if result.owner is None else f" ({owned(result.owner)}{written(result.owner)})"
            yield _finding(
                "HC102",
                Level.ERROR if result.stored_to else Level.WARNING,
                cpu,
                "monitored line",
                f"after the handoff CPU {cpu} monitors memory of the resumee{whose}: each store there wakes it again",
                resumer,
                resumee,
            )

    def _loop(self, result: ApResult) -> Iterator[Finding]:
        """HC201 and HC202: what it would execute, and whether its page tables still lead there."""
        if result.iteration is None or self.namer is None:
            return
        level = self._loop_level(result)
        if level is None:
            return
        yield from self._code_findings(result, result.iteration, level)
        yield from self._divergence(result, result.iteration, level)
        yield from self._walk_findings(result, result.iteration, level)

    def _loop_level(self, result: ApResult) -> Level | None:
        """Weigh overwritten code by whether anything makes the CPU execute it."""
        if result.iteration is None or result.iteration.difference is Difference.INTACT:
            return None
        if result.fate is Fate.DIES and (result.fatal_event is None or result.fatal_event.iterates):
            return Level.ERROR
        exposed = any(replay.difference is Difference.FOREIGN for replay in result.exposure)
        return Level.WARNING if exposed or result.runs_on_cache else Level.NOTE

    def _code_findings(self, result: ApResult, found: Trace, level: Level) -> Iterator[Finding]:
        assert self.namer is not None  # noqa: S101 - _loop() has tested it
        for item in found.touched:
            if item.access is not Access.FETCH or not item.leaf_overwritten or item.before is None:
                continue
            if item.change is Change.SAME or item.tables_only:
                continue
            now = self._bytes_at_leaf(item)
            resumer, resumee = self.namer.places(item)
            cpu = result.parked.cpu
            yield _finding(
                "HC201",
                level,
                cpu,
                item.role,
                f"the image overwrites the loop in which CPU {cpu} waits with other bytes",
                resumer,
                resumee,
                (
                    Evidence(
                        f"the first bytes of the loop at {item.address:#x}",
                        address=resumer.physical,
                        before=item.before[:_SHOWN_BYTES],
                        after=None if now is None else now[:_SHOWN_BYTES],
                    ),
                    *self._disassembly(result.parked.loop),
                ),
            )

    def _disassembly(self, loop: ParkLoop | None) -> tuple[Evidence, ...]:
        """Show the instructions of a loop; thousands of CPUs may wait in one."""
        if loop is None:
            return ()
        if id(loop) not in self._loops:  # as long as it is kept here, no other has its identity
            shown = [one for one in loop.instructions if any(start <= one.address < end for start, end in loop.ranges)]
            lines = tuple(f"{one.address:x}: {one.text}" for one in shown[:_SHOWN_INSTRUCTIONS])
            self._loops[id(loop)] = loop, Evidence(f"the loop in {loop.symbol}, as linked", lines=lines)
        return (self._loops[id(loop)][1],)

    def _divergence(self, result: ApResult, found: Trace, level: Level) -> Iterator[Finding]:
        """HC204: what it reads makes it leave its loop."""
        assert self.namer is not None  # noqa: S101 - _loop() has tested it
        left = found.divergence
        if left is None:
            return
        read, cpu = left.read, result.parked.cpu
        to = self.namer.resumer_symbol(left.to) or f"{left.to:#x}"
        then = then_of(left)
        item = next((one for one in found.touched if read is not None and one.address == read.address), None)
        if item is None or read is None:
            message = f"CPU {cpu} leaves its loop for {to}, {then}"
            yield _finding("HC204", level, cpu, "park loop", message)
            return
        value = "what is not known" if read.value is None else f"{read.value:#x}"
        resumer, resumee = self.namer.places(item)
        evidence = Evidence(f"it reads {value} at {read.address:#x}, by the instruction at {read.by:#x}")
        message = f"CPU {cpu} reads {value} as its {item.role}, leaves its loop for {to}, {then}"
        yield _finding("HC204", level, cpu, item.role, message, resumer, resumee, (evidence,))

    def _bytes_at_leaf(self, item: Touched) -> bytes | None:
        assert self.namer is not None  # noqa: S101 - only called where it is set
        content = self.namer.memory.frame(item.leaf) if item.leaf is not None else None
        offset = item.address % PAGE_SIZE
        return None if content is None else content[offset : offset + item.size]

    def _walk_findings(self, result: ApResult, found: Trace, level: Level) -> Iterator[Finding]:
        assert self.namer is not None  # noqa: S101 - _loop() has tested it
        for item in found.touched:
            if item.leaf is None:
                continue  # its address is a stand-in; the footprint says that its place is not known
            moved = item.walk.physical is not None and item.leaf not in {None, item.walk.physical >> PAGE_SHIFT}
            if item.change is not Change.FAULT and not (moved and item.change is Change.CONTENT):
                continue
            cpu = result.parked.cpu
            where = item.walk.fault.reason if item.walk.fault else f"they lead to {item.walk.physical:#x} now"
            table = next((step for step in item.walk.steps if step.pfn in item.tables_overwritten), None)
            resumee = Place(None, table.physical, self.namer.resumee_physical(table.physical)) if table else Place()
            yield _finding(
                "HC202",
                level,
                cpu,
                "page table",
                f"the page tables of CPU {cpu} no longer lead to its {item.role}: {where}",
                self.namer.places(item)[0],
                resumee,
                (Evidence(f"it {_VERBS[item.access]} {item.address:#x} after the copy", walk=item.walk),),
            )

    def _events(self, result: ApResult) -> Iterator[Finding]:
        """HC203: an event whose handler cannot be reached, supposed or not."""
        for replay in (*result.events, *result.exposure):
            if replay.difference is not Difference.FOREIGN or replay.delivery is None or replay.iterates:
                continue
            supposed = replay in result.events
            yield self._delivery_finding(result, replay, replay.delivery, supposed=supposed)

    def _delivery_finding(self, result: ApResult, replay: Trace, delivery: Delivery, *, supposed: bool) -> Finding:
        failed = delivery.first_failure
        cpu, event = result.parked.cpu, replay.event.value if replay.event else ""
        verb = "cannot be delivered" if supposed else "could not be delivered"
        subject = with_article(event)
        place, evidence = Place(), []
        role = "handler"
        if failed is not None:
            role = failed.role.value
            place = Place(failed.walk.address, None, f"{role} of vector {failed.vector}")
            fault = failed.walk.fault
            code = f", error code {fault.error_code:#06x}" if fault else ""
            evidence.append(
                Evidence(f"the {role} of vector {failed.vector} at {failed.walk.address:#x}{code}", walk=failed.walk)
            )
        evidence.append(Evidence("what the CPU does", lines=tuple(_raised(delivery))))
        return _finding(
            "HC203",
            Level.ERROR if supposed and result.fate is Fate.DIES else Level.WARNING,
            cpu,
            role,
            f"{subject[0].upper()}{subject[1:]} to CPU {cpu} {verb}: {replay.reason}",
            place,
            Place(),
            tuple(evidence),
        )

    def _stays(self, result: ApResult) -> Iterator[Finding]:
        """HC302 and HC502: nobody takes it out of its loop after the handoff."""
        parked = result.parked
        lent = lent_to(result)
        if result.reinitialised or (result.fate is Fate.DIES and not lent) or parked.loop is None:
            return
        if parked.state in NO_MEMORY:
            return
        killers = killers_of(result)
        tail = f"; the next {either(killers)} kills the machine" if killers else ""
        if lent and not killers:
            tail = f"; that memory is free, and once it is handed out, the next {either(lent)} kills the machine"
        unknown = unknown_of(result)
        if unknown and not killers and not lent:
            tail = f"; what the next {either(unknown)} would do to it is not known"
        level = Level.WARNING if tail else Level.NOTE
        yield _finding(
            "HC302",
            Level.ERROR if result.doubt is Doubt.HANDED_OUT else level,
            parked.cpu,
            "park state",
            f"the resumee does not start CPU {parked.cpu}, which stays in the resumer's loop{tail}",
        )
        if parked.state is ParkState.HLT:
            yield _finding(
                "HC502",
                Level.NOTE,
                parked.cpu,
                "park state",
                f"CPU {parked.cpu} stays in HLT: its core can reach no deeper C-state until the next boot",
            )

    def _stores(self, result: ApResult) -> Iterator[Finding]:
        """HC303: a turn of the loop stores to memory that the image has overwritten."""
        if result.iteration is None or self.namer is None:
            return
        for item in result.iteration.touched:
            reached = item.walk.physical
            if (
                item.access is Access.WRITE
                and reached is not None
                and self.namer.memory.overwritten(reached >> PAGE_SHIFT)
            ):
                yield _finding(
                    "HC303",
                    Level.WARNING,
                    result.parked.cpu,
                    item.role,
                    f"if CPU {result.parked.cpu} wakes, it stores to memory of the resumee",
                    Place(item.address, reached, item.role),
                    Place(None, reached, self.namer.resumee_physical(reached)),
                )

    def _init(self, result: ApResult) -> Iterator[Finding]:
        """HC501: a CPU in wait-for-SIPI has CR4.MCE clear."""
        if result.parked.state is not ParkState.WAIT_FOR_SIPI or result.reinitialised:
            return
        dies = result.fate is Fate.DIES
        yield _finding(
            "HC501",
            Level.ERROR if dies else Level.NOTE,
            result.parked.cpu,
            "park state",
            f"CPU {result.parked.cpu} waits for a SIPI with CR4.MCE clear: a broadcast machine check resets it all",
        )

    def _window(self, result: ApResult) -> Iterator[Finding]:
        """HC701: between the copy and the resumee's INIT an NMI, SMI or machine check still finds it."""
        overwritten = result.iteration is not None and result.iteration.difference > Difference.SAME
        if result.reinitialised and result.parked.loop is not None and overwritten and not result.ruling.certain_death:
            yield _finding(
                "HC701",
                Level.NOTE,
                result.parked.cpu,
                "park state",
                f"until the resumee sends CPU {result.parked.cpu} an INIT, an NMI, SMI or machine check would find "
                "its loop overwritten",
            )


def _level_of_wake(result: ApResult) -> Level:
    """Weigh a store that wakes a CPU: an error if that kills it or may, else a note."""
    return Level.ERROR if result.fate is Fate.DIES and result.cause is Event.STORE else Level.NOTE


def _finding(
    rule: str,
    level: Level,
    cpu: int | None,
    role: str,
    message: str,
    resumer: Place | None = None,
    resumee: Place | None = None,
    evidence: tuple[Evidence, ...] = (),
    advice: str | None = None,
) -> Finding:
    """Make a finding; what to do about it is the first sentence of its rule's remedy, unless the case knows better."""
    told = advice or RULES[rule].advice
    return Finding(rule, level, cpu, role, message, resumer or Place(), resumee or Place(), evidence, told)


def _raised(delivery: Delivery) -> Iterator[str]:
    for raised in delivery.raised:
        code = f" error code {raised.error_code:#06x}" if raised.error_code is not None else ""
        address = f" CR2 {raised.cr2:#x}" if raised.cr2 is not None else ""
        yield f"vector {raised.vector}{code}{address} at RIP {raised.rip:#x}: {raised.reason}"
    yield delivery.reason
