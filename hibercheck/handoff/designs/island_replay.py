"""The replay of CPUs that wait in a self-contained parking place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.handoff.ap import AFTER_HANDOFF, SUPPOSED, ApResult
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.designs.island import CODE_SELECTOR, GDT, LOOP_STACK, Island
from hibercheck.handoff.event_replay import EventReplay
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.loop_replay import PARK_LOOP, LoopReplay, LoopState, replay_loop
from hibercheck.handoff.options import Event as Supposed
from hibercheck.handoff.park import Parked
from hibercheck.handoff.touch import Change, Touched
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import VECTORS, Effect, Event, rule
from hibercheck.x86.exceptions import deliver
from hibercheck.x86.memory import UnknownMemory, read
from hibercheck.x86.paging import Access, PagingMode, Walk

EVENTS = (Event.NMI, Event.MACHINE_CHECK, Event.SMI)
REUSED = "the resumee knows nothing of the frames and may have reused them"

_CR0, _CR4, _CR4_MCE, _CR4_LA57, _EFER = 0x8005_0033, 0x20, 1 << 6, 1 << 12, 0xD01


@dataclass(frozen=True, slots=True)
class IslandMemory:
    """The resumer as a CPU in the place sees it: the place's frames, at their physical addresses."""

    kernel: KernelView
    island: Island
    mode: PagingMode
    kaslr_offset: int = 0
    phys_base: int = 0
    exact: bool = False

    @property
    def cr3(self) -> int:
        """The place's own page-table root."""
        return self.island.cr3

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame of the place; None for all else."""
        return self.island.frame(pfn)

    def knows_entry(self, table: int, _index: int) -> bool:
        """Every entry of the place's tables is known."""
        return table >> PAGE_SHIFT in self.island.tables

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return bytes of the place at a physical address, which is the virtual one too."""
        try:
            return read(self.island, address, size)
        except UnknownMemory:
            return None


@dataclass(frozen=True, slots=True)
class IslandReplayer:
    """The replay of one place.

    Attributes:
        image: The image.
        kernel: The resumer.
        island: The place.
        max_phys_bits: MAXPHYADDR.
    """

    image: Image
    kernel: KernelView
    island: Island
    max_phys_bits: int

    @property
    def memory(self) -> Composite:
        """The finished copy, with the place in it."""
        mode = PagingMode(levels=self.island.levels or 4, max_phys_bits=self.max_phys_bits)
        return Composite(self.image, IslandMemory(self.kernel, self.island, mode))

    def turn(self, cpu: int) -> LoopReplay:
        """Go once round the loop."""
        loop = self.island.park_loop()
        if self.island.paged:
            return replay_loop(self.memory, loop, ApContext(cpu, self.island.cr3))
        touched = self._flat(PARK_LOOP, loop.start, loop.end - loop.start, Access.FETCH)
        intact = touched.change is Change.INTACT
        return LoopReplay(LoopState.INTACT if intact else LoopState.FOREIGN, (touched,), None if intact else touched)

    def event(self, cpu: int, event: Event) -> EventReplay:
        """Let an event reach a CPU while the frames are the place's."""
        effect = rule(event, ParkState.HLT).effect
        turn = self.turn(cpu)
        if effect is not Effect.DELIVERS:
            return EventReplay(event, effect, turn.state, None, turn, _reason(turn.state))
        delivery = None
        if self.island.paged:
            cr4 = _CR4 | _CR4_MCE | (_CR4_LA57 if self.island.levels == 5 else 0)
            state = self.island.cpu(cpu, _CR0, cr4, _EFER, self.max_phys_bits)
            delivery = deliver(self.memory, state, VECTORS[event], reason=event.value)
            reached = delivery.rip == self._handler(VECTORS[event])
        else:
            reached = all(touched.change is Change.INTACT for touched in self._flat_delivery(cpu, VECTORS[event]))
        judged = max(turn.state, LoopState.INTACT if reached else LoopState.FOREIGN)
        return EventReplay(event, effect, judged, delivery, turn, _reason(judged))

    def _handler(self, vector: int) -> int:
        gate = int.from_bytes(read(self.island, self.island.code + 16 * vector, 16), "little")
        return (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000) | (gate >> 32 & 0xFFFFFFFF << 32)

    def _flat_delivery(self, cpu: int, vector: int) -> Iterator[Touched]:
        """Yield the accesses of a delivery in protected mode without paging (SDM 3A 6.12.1), by physical address."""
        gate = self.island.code + 8 * vector
        content = int.from_bytes(read(self.island, gate, 8), "little")
        handler = (content & 0xFFFF) | (content >> 32 & 0xFFFF0000)
        block = self.island.blocks[cpu]
        yield self._flat("IDT gate", gate, 8, Access.READ)
        yield self._flat("GDT descriptor", block + GDT + CODE_SELECTOR, 8, Access.READ)
        yield self._flat("stack", block + LOOP_STACK - 12, 12, Access.WRITE)
        yield self._flat("handler", handler, 16, Access.FETCH)

    def _flat(self, role: str, address: int, size: int, access: Access) -> Touched:
        pfn = address >> PAGE_SHIFT
        lost = self.memory.overwritten(pfn) or self.island.frame(pfn) is None
        walked = Walk(
            address=address, access=access, cr3=0, steps=(), physical=address, page_size=None, fault=None,
            unknown_pfn=None,
        )  # fmt: skip
        change = Change.CONTENT if lost else Change.INTACT
        return Touched(role, address, size, access, change, walked, leaf=pfn, leaf_overwritten=lost)

    def result(self, parked: Parked, supposed: frozenset[Supposed], *, taken_over: bool) -> ApResult:
        """Take one CPU through the copy and beyond.

        Args:
            parked: The CPU.
            supposed: Events supposed after the handoff.
            taken_over: Whether the resumee sends it an INIT before it reuses a frame.
        """
        turn = self.turn(parked.cpu)
        if taken_over:
            return ApResult(parked, Fate.REINITIALISED, turn=turn, reinitialised=True)
        wanted = {SUPPOSED[name] for name in supposed}
        rules = {event: rule(event, parked.state).effect for event in EVENTS}
        lost = [
            EventReplay(event, effect, LoopState.FOREIGN, None, None, REUSED)
            for event, effect in rules.items()
            if effect.touches_memory or effect.ends_machine
        ]
        events = tuple(replay for replay in lost if replay.event in wanted)
        exposure = tuple(replay for replay in lost if replay.event not in wanted)
        if events:
            cause = events[0].event
            return ApResult(parked, Fate.DIES, AFTER_HANDOFF, cause, turn, events, exposure, depends=REUSED)
        return ApResult(parked, Fate.STAYS_PARKED, turn=turn, exposure=exposure)


def _reason(state: LoopState) -> str:
    return "it parks again" if state is LoopState.INTACT else "it does not find its loop again"
