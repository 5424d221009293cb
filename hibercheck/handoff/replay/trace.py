"""What a woken CPU does, access by access: the only engine.

`trace` lets one event reach one parked CPU in memory as it is at one moment of the copy: the delivery, if the event is
delivered, and then one iteration of the loop in which the CPU waits.  A placement, a dump, collected facts, a parking
design and a pair of kernels without an image differ only in the memory and the registers that they supply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu, as_used
from hibercheck.handoff.replay.compare import Difference, difference_of, worst_of
from hibercheck.handoff.replay.handler import gate_leads_astray, judge_handler
from hibercheck.handoff.replay.touch import Change, Touched, own_frame, pages_of, touch
from hibercheck.kernel.code.model import ParkLoop, Touch
from hibercheck.kernel.code.patching import same_code
from hibercheck.x86.events import VECTORS, Effect, Event, rule
from hibercheck.x86.exceptions import Delivery, DeliveryEnd, Role
from hibercheck.x86.paging import Access

if TYPE_CHECKING:
    from hibercheck.handoff.replay.divergence import Divergence, Followed

PARK_LOOP, OTHER_CODE, DESCRIPTOR, PERCPU, LINE, RODATA, STACK, DATA = (
    "park loop",
    "code outside its loop",
    "GDT descriptor",
    "per-CPU data",
    "monitored line",
    "read-only data",
    "stack",
    "data",
)
LINE_SIZE = 64
_ROLES = {"percpu": PERCPU, "line": LINE, "rodata": RODATA, "stack": STACK, "data": DATA}


@dataclass(frozen=True, slots=True)
class Trace:
    """What one event to one CPU comes to, at one moment.

    Attributes:
        event: The event; None for one iteration of its loop, whatever makes it run.
        effect: What it does to a CPU so parked, by the manual.
        difference: What the CPU comes to, beside what it would have without the copy.
        touched: The accesses of the iteration of its loop, where there is one.
        decisive: The access that decides, or None where nothing is overwritten.
        divergence: How what it reads makes it leave its loop, or None.
        delivery: The delivery, where there is one.
        reason: One clause.
        granted: Whether it rests on what is taken for granted of memory that is not known.
        lent: Whether it goes through memory that is free in the resumee, which may hand it out.
    """

    event: Event | None
    effect: Effect
    difference: Difference
    touched: tuple[Touched, ...] = ()
    decisive: Touched | None = None
    divergence: Divergence | None = None
    delivery: Delivery | None = None
    reason: str = ""
    granted: bool = False
    lent: bool = False

    @property
    def iterates(self) -> bool:
        """Whether the CPU comes back to its loop, so that the loop decides."""
        return bool(self.touched)

    @property
    def fetch_unknown(self) -> bool:
        """Whether it is not known what the CPU executes: in its loop, or where what it reads leads it."""
        left = self.divergence is not None and self.divergence.unknown
        return left or any(item.access is Access.FETCH and item.change is Change.UNKNOWN for item in self.touched)

    @property
    def reads_tables(self) -> bool:
        """Whether the delivery gets as far as the CPU's own GDT or TSS."""
        accesses = self.delivery.accesses if self.delivery else ()
        return any(access.role in {Role.CODE_SEGMENT, Role.TSS} for access in accesses)


def trace(memory: Composite, cpu: ParkedCpu, event: Event | None, *, cached: bool = False) -> Trace:
    """Let an event reach a parked CPU.

    Args:
        memory: Memory at that moment.
        cpu: The CPU.
        event: The event; None for one iteration of its loop, whatever makes it run.
        cached: Whether the CPU may still have the translations of its loop from before the copy: one that spins, or
            that a store wakes during the copy.  A delivery counts on none.
    """
    parked = cpu.parked
    if event is None:
        if parked.loop is None:
            return Trace(None, Effect.NONE, Difference.INTACT, reason="it touches nothing")
        return _iterated(memory, cpu, None, Effect.CONTINUES, cached=cached)
    effect = rule(event, parked.state, cpu.facts).effect
    if effect.ends_machine:
        return Trace(event, effect, Difference.FOREIGN, reason=f"it {effect.value}")
    if not effect.touches_memory or parked.loop is None:
        return Trace(event, effect, Difference.INTACT, reason="it touches nothing")
    if effect is not Effect.DELIVERS:
        return _iterated(memory, cpu, event, effect, cached=cached)
    if cpu.entry is None:
        return Trace(event, effect, Difference.UNKNOWN, reason="its IDT, GDT and TSS are not known")
    try:
        delivery = _delivered(memory, cpu, event)
    except MissingFact as missing:
        return Trace(event, effect, Difference.UNKNOWN, reason=missing.message)
    judged, reason, granted = _judge_delivery(memory, delivery, cpu)
    if not judged.parks_again:
        return Trace(event, effect, judged, delivery=delivery, reason=reason, granted=granted)
    back = _iterated(memory, cpu, event, effect, cached=False)
    return Trace(
        event,
        effect,
        max(back.difference, judged),
        back.touched,
        back.decisive,
        back.divergence,
        delivery,
        back.reason,
    )


def _iterated(memory: Composite, cpu: ParkedCpu, event: Event | None, effect: Effect, *, cached: bool) -> Trace:
    """Run once round the loop."""
    assert cpu.parked.loop is not None  # noqa: S101 - trace() has tested it
    found = iterate(memory, cpu.parked.loop, cpu.context)
    difference = found.difference if cached else found.difference.on_cold_tlb
    lost = "it leaves its loop because of what it reads" if found.divergence else "it does not find its loop again"
    reason = "it parks again" if difference.parks_again else lost
    return Trace(event, effect, difference, found.touched, found.decisive, found.divergence, None, reason)


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration of a loop.

    Attributes:
        difference: What it comes to, on a TLB that may be warm.
        touched: Its accesses.
        decisive: The one that decides, or None where nothing is overwritten.
        divergence: How what it reads makes the CPU leave the loop, or None.
    """

    difference: Difference
    touched: tuple[Touched, ...]
    decisive: Touched | None
    divergence: Divergence | None = None


def iterate(memory: Composite, loop: ParkLoop, context: ApContext) -> Iteration:
    """Run once round a park loop.

    Where the loop's own bytes stand and the registers are known the CPU is followed; else what its instructions may
    access decides.  That does not depend on the event from which a CPU comes back to its loop, so it is done once.
    """
    key = id(loop), as_used(context, loop)
    if key not in memory.answers:  # with what the number is of, so that nothing else gets it
        memory.answers[key] = _once_round(memory, loop, context), loop
    found: Iteration = memory.answers[key][0]
    return found


def _once_round(memory: Composite, loop: ParkLoop, context: ApContext) -> Iteration:
    fetches = _fetches(memory, loop, context)
    stands = all(difference_of(one) not in {Difference.UNKNOWN, Difference.FOREIGN} for one in fetches)
    followed = _follow(memory, loop, context) if stands else None
    if followed is None:
        touched = (*fetches, *_data(memory, loop, context))
        difference, decisive = worst_of(touched)
        return Iteration(difference, touched, decisive)
    touched = (*fetches, *_elsewhere(memory, followed, context), *_data_of(memory, loop, followed, context))
    difference, decisive = worst_of(touched)
    divergence = followed.divergence
    if divergence is None:
        return Iteration(difference, touched, decisive)
    read = divergence.read
    cause = next((one for one in touched if read is not None and one.address == read.address), None)
    if divergence.lost:
        return Iteration(Difference.FOREIGN, touched, cause or decisive, divergence)
    if divergence.unknown:
        return Iteration(max(difference, Difference.UNKNOWN), touched, cause or decisive, divergence)
    return Iteration(max(difference, Difference.SAME), touched, decisive or cause, divergence)


def _follow(memory: Composite, loop: ParkLoop, context: ApContext) -> Followed | None:
    """Follow the CPU, where its registers are known."""
    if context.registers is None:
        return None
    from hibercheck.handoff.replay.divergence import follow_loop  # noqa: PLC0415 - it decodes: only exact traces need it

    return follow_loop(memory, loop, context)


def _fetches(memory: Composite, loop: ParkLoop, context: ApContext) -> list[Touched]:
    """Fetch every page of the loop: for all CPUs with the same page tables it is the same."""
    key = id(loop), context.cr3, context.paging
    if key not in memory.answers:
        memory.answers[key] = _fetched(memory, loop, context), loop
    found: list[Touched] = memory.answers[key][0]
    return found


def _fetched(memory: Composite, loop: ParkLoop, context: ApContext) -> list[Touched]:
    resumer = memory.resumer
    shift = resumer.kaslr_offset

    def equal(address: int, before: bytes, after: bytes) -> bool:
        return same_code(before, after, (address - shift) & ADDRESS_MASK, loop.patchable)

    fetches = []
    for start, end in loop.ranges:
        for address, size in pages_of(start + shift & ADDRESS_MASK, end + shift & ADDRESS_MASK):
            fetches.append(
                touch(
                    memory,
                    context,
                    PARK_LOOP,
                    address,
                    size,
                    Access.FETCH,
                    leaf=own_frame(resumer, context, address),
                    before=resumer.bytes_at(address, size),
                    equal=equal,
                )
            )
    return fetches


def _data(memory: Composite, loop: ParkLoop, context: ApContext) -> list[Touched]:
    """Do what the loop's instructions may access."""
    accesses: dict[tuple[str, int, Access], int] = {}
    for item in loop.touches:
        address = _address(memory, item, context)
        if address is not None:
            access = Access.WRITE if item.access == "write" else Access.READ
            key = (_ROLES[item.kind], address, access)
            accesses[key] = max(accesses.get(key, 1), item.size)
    return _touch_all(memory, accesses, context)


def _data_of(memory: Composite, loop: ParkLoop, followed: Followed, context: ApContext) -> list[Touched]:
    """Do what a CPU that is followed accesses; what is patched out of its loop, it does not."""
    roles = {
        address: _ROLES[item.kind] for item in loop.touches if (address := _address(memory, item, context)) is not None
    }
    accesses: dict[tuple[str, int, Access], int] = {}
    for one in followed.data:
        key = (roles.get(one.address) or _role(one.address, context), one.address, one.access)
        accesses[key] = max(accesses.get(key, 1), one.size)
    return _touch_all(memory, accesses, context)


def _role(address: int, context: ApContext) -> str:
    """Say what an address is to a CPU that its loop does not name."""
    if context.line is not None and (address ^ context.line) < LINE_SIZE:
        return LINE
    if context.gdt is not None and context.gdt[0] <= address <= sum(context.gdt):
        return DESCRIPTOR
    if context.stack is not None and abs(address - context.stack) < PAGE_SIZE:
        return STACK
    return DATA


def _touch_all(memory: Composite, accesses: dict[tuple[str, int, Access], int], context: ApContext) -> list[Touched]:
    found = []
    for (role, start, access), size in accesses.items():
        for address, part in pages_of(start, start + max(size, 1)):
            leaf = own_frame(memory.resumer, context, address) if context.placed or role == RODATA else None
            found.append(touch(memory, context, role, address, part, access, leaf=leaf, before=None))
    return found


def _elsewhere(memory: Composite, followed: Followed, context: ApContext) -> list[Touched]:
    """Fetch what a CPU executes outside its loop, one access for each page."""
    pages: dict[int, list[tuple[int, int]]] = {}
    for address, size in followed.code:
        pages.setdefault(address // PAGE_SIZE, []).append((address, size))
    found = []
    for page, pieces in pages.items():
        start, end = min(pieces)[0], min(max(a + size for a, size in pieces), (page + 1) * PAGE_SIZE)
        leaf = own_frame(memory.resumer, context, start)
        found.append(touch(memory, context, OTHER_CODE, start, end - start, Access.FETCH, leaf=leaf, before=None))
    return found


def _address(memory: Composite, item: Touch, context: ApContext) -> int | None:
    """Return the run-time address of an access, or None where it cannot be named."""
    kernel, shift = memory.resumer.kernel, memory.resumer.kaslr_offset
    if item.kind == "percpu" and item.address is not None and context.gs_base is not None:
        moved = 0 if kernel.percpu_zero_based else shift
        return (context.gs_base + item.address + moved) & ADDRESS_MASK
    if item.kind == "line":
        return context.line
    if item.kind == "stack":
        return context.stack
    if item.kind in {"rodata", "data"} and item.address is not None:
        return (item.address + shift) & ADDRESS_MASK
    return None


def _delivered(memory: Composite, cpu: ParkedCpu, event: Event) -> Delivery:
    """Deliver an event, with paging or without."""
    assert cpu.entry is not None  # noqa: S101 - trace() has tested it
    if not cpu.context.paging:
        from hibercheck.x86.flat import deliver_flat  # noqa: PLC0415 - only a design that leaves long mode needs it

        return deliver_flat(memory, cpu.entry, VECTORS[event], reason=event.value)
    from hibercheck.x86.exceptions import deliver  # noqa: PLC0415 - as above

    return deliver(memory, cpu.entry, VECTORS[event], reason=event.value)


def _judge_delivery(memory: Composite, delivery: Delivery, cpu: ParkedCpu) -> tuple[Difference, str, bool]:
    """Decide whether a delivery reaches a handler that returns: with a reason, and whether it is taken for granted."""
    used = {access.role for access in delivery.accesses}
    if not cpu.tables_placed and used & {Role.CODE_SEGMENT, Role.TSS, Role.STACK}:
        # what it then finds is a stand-in's; the IDT's place is known, so that a gate that leads nowhere is certain
        astray = gate_leads_astray(memory, delivery, cpu)
        if astray is not None:
            return Difference.FOREIGN, astray, False
        return Difference.UNKNOWN, "the places of its GDT and TSS are not known", False
    if delivery.end in {DeliveryEnd.SHUTDOWN, DeliveryEnd.LOOPS}:
        return Difference.FOREIGN, _failure(delivery), False
    if delivery.end is DeliveryEnd.UNKNOWN:
        return _judge_unknown(memory, delivery)
    return (*judge_handler(memory, delivery, cpu), False)


def _judge_unknown(memory: Composite, delivery: Delivery) -> tuple[Difference, str, bool]:
    """Decide about a way that leads through tables of which not all is known.

    A table of the resumer's image is known as far as the image's own entries go.  The others the resumer allocated at
    boot, from the top of memory down, as the resumee did: what it has there is taken to have replaced them.  In all
    measured cases it had.  A frame to which the *resumee's* bytes lead, read as an entry of the resumer's tables, is no
    table of the resumer's: whatever it holds, it does not lead to where the CPU wants to go.
    """
    pfn, failed = delivery.unknown_pfn, delivery.first_failure
    what = f"the {failed.role.value} of vector {failed.vector}" if failed else "what it needs"
    if failed is not None and any(memory.overwritten(step.pfn) for step in failed.walk.steps):
        return (
            Difference.FOREIGN,
            f"{what} is reached through a page table that has been replaced, and is not there",
            False,
        )
    if pfn is None or memory.frame(pfn) is None:
        return Difference.UNKNOWN, delivery.reason, False
    return (
        Difference.FOREIGN,
        f"{what} is reached by page tables that the resumer allocated at boot, in memory where the resumee has its "
        "own (taken for granted without a dump)",
        True,
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
