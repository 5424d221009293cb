"""An event that reaches a parked CPU after the handoff: does the CPU come back to its loop?"""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.loop_replay import LoopReplay, LoopState, replay_loop
from hibercheck.handoff.resumee import Resumee
from hibercheck.handoff.resumer import space_of
from hibercheck.handoff.space import KernelSpace
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.cpu import CpuState, ParkState
from hibercheck.x86.events import VECTORS, Effect, Event, Facts, rule
from hibercheck.x86.exceptions import Delivery, DeliveryEnd, Role, deliver


@dataclass(frozen=True, slots=True)
class EventReplay:
    """What an event comes to.

    Attributes:
        event: The event.
        effect: What it does to a CPU so parked, by the manual.
        state: INTACT or SAME if the CPU parks again, FOREIGN if it is lost, UNKNOWN where a fact is missing.
        delivery: The delivery, where there was one.
        loop: The turn of the loop that follows, where there was one.
        reason: One clause.
    """

    event: Event
    effect: Effect
    state: LoopState
    delivery: Delivery | None
    loop: LoopReplay | None
    reason: str


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """How the resumer enters its handlers.

    Attributes:
        cpu: Registers for delivery, or None where they are not known.
        tables_placed: Whether the GDT's and TSS's addresses are facts (the IDT's always is).
    """

    cpu: CpuState | None
    tables_placed: bool


def replay_event(
    memory: Composite,
    event: Event,
    state: ParkState,
    loop: ParkLoop | None,
    context: ApContext,
    entry: EntryFacts,
    resumee: Resumee,
    facts: Facts,
) -> EventReplay:
    """Let an event reach a CPU that is parked in what is now the resumee's memory."""
    effect = rule(event, state, facts).effect
    if effect.ends_machine:
        return EventReplay(event, effect, LoopState.FOREIGN, None, None, f"it {effect.value}")
    if not effect.touches_memory or loop is None:
        return EventReplay(event, effect, LoopState.INTACT, None, None, "it touches nothing")
    if effect is not Effect.DELIVERS:
        return _back_in_loop(memory, event, effect, loop, context, None, LoopState.INTACT)
    if entry.cpu is None:
        return EventReplay(event, effect, LoopState.UNKNOWN, None, None, "its IDT, GDT and TSS are not known")
    try:
        delivery = deliver(memory, entry.cpu, VECTORS[event], reason=event.value)
    except MissingFact as missing:
        return EventReplay(event, effect, LoopState.UNKNOWN, None, None, missing.message)
    judged, reason = _judge(memory, delivery, entry, resumee)
    if judged in {LoopState.FOREIGN, LoopState.UNKNOWN}:
        return EventReplay(event, effect, judged, delivery, None, reason)
    return _back_in_loop(memory, event, effect, loop, context, delivery, judged)


def _back_in_loop(
    memory: Composite,
    event: Event,
    effect: Effect,
    loop: ParkLoop,
    context: ApContext,
    delivery: Delivery | None,
    judged: LoopState,
) -> EventReplay:
    """Go on in the loop; nothing that was cached before the event can be counted on."""
    turn = replay_loop(memory, loop, context)
    state = LoopState.FOREIGN if turn.state is LoopState.STALE else turn.state
    lost = "it leaves its loop because of what it reads" if turn.diversion else "it does not find its loop again"
    reason = "it parks again" if state <= LoopState.SAME else lost
    return EventReplay(event, effect, max(state, judged), delivery, turn, reason)


def _judge(memory: Composite, delivery: Delivery, entry: EntryFacts, resumee: Resumee) -> tuple[LoopState, str]:
    """Decide whether a delivery reaches a handler that returns."""
    if delivery.end in {DeliveryEnd.SHUTDOWN, DeliveryEnd.LOOPS}:
        used = {access.role for access in delivery.accesses if access.walk.physical is not None}
        if not entry.tables_placed and used & {Role.CODE_SEGMENT, Role.TSS, Role.STACK}:
            return LoopState.UNKNOWN, "the places of its GDT and TSS are not known"
        return LoopState.FOREIGN, _failure(delivery)
    if delivery.end is DeliveryEnd.UNKNOWN:
        return _judge_unknown(memory, delivery)
    return _judge_handler(memory, delivery, resumee)


def _judge_unknown(memory: Composite, delivery: Delivery) -> tuple[LoopState, str]:
    """Decide about a way that leads through tables of which only the image's own entries are known.

    The others the resumer allocated at boot, from the top of memory down, as the resumee did: what it has there is
    taken to have replaced them.  In all measured cases it had.
    """
    pfn = delivery.unknown_pfn
    if pfn is None or memory.frame(pfn) is None:
        return LoopState.UNKNOWN, delivery.reason
    failed = delivery.first_failure
    what = f"the {failed.role.value} of vector {failed.vector}" if failed else "what it needs"
    return LoopState.FOREIGN, (
        f"{what} is reached by page tables that the resumer allocated at boot, in memory where the resumee has its "
        "own (taken for granted without a dump)"
    )


def _failure(delivery: Delivery) -> str:
    """Say what fails first, and that nothing catches it."""
    failed = delivery.first_failure
    if failed is None or failed.walk.fault is None:
        return delivery.reason
    return (
        f"the {failed.role.value} of vector {failed.vector} at {failed.walk.address:#x} is out of reach "
        f"({failed.walk.fault.reason}), and so are those of the page fault and the double fault that follow"
    )


def _judge_handler(memory: Composite, delivery: Delivery, resumee: Resumee) -> tuple[LoopState, str]:
    """Decide whether the handler reached is a whole one: the resumer's own untouched, or the resumee's own in place.

    The resumee's handler finds its per-CPU area by the CPU number in the GDT, sees that the CPU is offline and
    returns (exc_nmi, arch/x86/kernel/nmi.c, and exc_machine_check test arch_cpu_is_offline() and its kin).
    """
    fetch = delivery.accesses[-1].walk
    vector = delivery.raised[-1].vector
    if vector not in VECTORS.values():
        return LoopState.FOREIGN, f"it ends in the handler of vector {vector}"
    overwritten = {access.role for access in delivery.accesses if any(map(memory.overwritten, access.walk.pfns))}
    if not overwritten:
        return LoopState.INTACT, "its own handler is untouched"
    own, place = _handler(resumee.space, vector)
    if (delivery.rip, fetch.physical) == (own, place):
        return LoopState.SAME, "the resumee's own handler runs and returns"
    if (delivery.rip, fetch.physical) == _handler(space_of(memory.resumer), vector) and Role.HANDLER not in overwritten:
        if overwritten == {Role.STACK}:
            return LoopState.SAME, "its own handler runs, on a stack in memory that has been replaced"
        return LoopState.FOREIGN, "its own handler runs on per-CPU data that have been replaced"
    return LoopState.FOREIGN, f"it jumps to {delivery.rip:#x}, which is no handler any more"


def _handler(space: KernelSpace, vector: int) -> tuple[int | None, int | None]:
    """Return the virtual and the physical address of a kernel's entry code of an event."""
    own = space.kernel.symbol("asm_exc_nmi" if vector == VECTORS[Event.NMI] else "asm_exc_machine_check")
    if own is None:
        return None, None
    return (own.address + space.kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF, space.image_physical(own.address)
