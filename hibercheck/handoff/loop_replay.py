"""One turn of a park loop in composite memory: every access that it makes, and whether the CPU parks again."""

from __future__ import annotations

from enum import IntEnum

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.resumer import ResumerMemory
from hibercheck.handoff.touch import Change, Touched, pages_of, touch
from hibercheck.kernel.code.model import ParkLoop, Patch, Touch
from hibercheck.x86.paging import Access, walk

PARK_LOOP, PERCPU, LINE, RODATA, STACK, DATA = (
    "park loop",
    "per-CPU data",
    "monitored line",
    "read-only data",
    "stack",
    "data",
)
_ROLES = {"percpu": PERCPU, "line": LINE, "rodata": RODATA, "stack": STACK, "data": DATA}
_ADDRESS_MASK = (1 << 64) - 1


class LoopState(IntEnum):
    """What one turn of the loop comes to, from harmless to harmful."""

    INTACT = 0
    """Nothing that it touches is overwritten."""
    SAME = 1
    """What it touches is overwritten with what leaves it where it is."""
    UNKNOWN = 2
    """It depends on memory that is not known."""
    STALE = 3
    """Its own bytes are still in place, and the page tables no longer lead there: it lives as long as its TLB does."""
    FOREIGN = 4
    """It executes other bytes, or faults, whatever its TLB holds."""


@dataclass(frozen=True, slots=True)
class ApContext:
    """What is known of one parked CPU's registers.

    Attributes:
        cpu: Its number.
        cr3: Its page-table root.
        gs_base: What %gs holds, or None.
        placed: Whether ``gs_base`` and ``stack`` are facts and not a stand-in address in the direct map.
        stack: Its stack pointer, or None.
        line: Address of the line it monitors, or None.
        line_kept: Whether the line is in a frame that both kernels keep for it.
    """

    cpu: int
    cr3: int
    gs_base: int | None = None
    placed: bool = False
    stack: int | None = None
    line: int | None = None
    line_kept: bool = False


@dataclass(frozen=True, slots=True)
class LoopReplay:
    """Every access of one turn.

    Attributes:
        state: What it comes to.
        touched: The accesses.
        decisive: The access that decides, or None where nothing is overwritten.
    """

    state: LoopState
    touched: tuple[Touched, ...]
    decisive: Touched | None

    @property
    def fetch_unknown(self) -> bool:
        """Whether it is not known what the CPU executes."""
        return any(item.access is Access.FETCH and item.change is Change.UNKNOWN for item in self.touched)


def replay_loop(memory: Composite, loop: ParkLoop, context: ApContext) -> LoopReplay:
    """Run once round a park loop in composite memory."""
    touched = (*_fetches(memory, loop, context), *_data(memory, loop, context))
    ranked = sorted(touched, key=_state_of, reverse=True)
    state = _state_of(ranked[0]) if ranked else LoopState.INTACT
    return LoopReplay(state, touched, ranked[0] if state is not LoopState.INTACT else None)


def _state_of(touched: Touched) -> LoopState:
    if touched.change is Change.INTACT:
        return LoopState.INTACT
    if touched.change is Change.SAME:
        return LoopState.SAME
    if touched.change is Change.UNKNOWN:
        return LoopState.UNKNOWN
    is_fetch = touched.access is Access.FETCH
    if touched.change is Change.CONTENT:
        return (LoopState.STALE if touched.tables_only else LoopState.FOREIGN) if is_fetch else LoopState.SAME
    # a data access that faults reads through a cached translation whatever its frame now holds
    return LoopState.STALE if touched.tables_only or not is_fetch else LoopState.FOREIGN


def _fetches(memory: Composite, loop: ParkLoop, context: ApContext) -> list[Touched]:
    resumer = memory.resumer
    shift = resumer.kaslr_offset

    def equal(address: int, before: bytes, after: bytes) -> bool:
        return same_code(before, after, (address - shift) & _ADDRESS_MASK, loop.patchable)

    fetches = []
    for start, end in loop.ranges:
        for address, size in pages_of(start + shift & _ADDRESS_MASK, end + shift & _ADDRESS_MASK):
            before = resumer.bytes_at(address, size)
            fetches.append(
                touch(
                    memory,
                    context.cr3,
                    PARK_LOOP,
                    address,
                    size,
                    Access.FETCH,
                    leaf=own_frame(memory.resumer, context.cr3, address),
                    before=before,
                    equal=equal,
                )
            )
    return fetches


def same_code(before: bytes, after: bytes, address: int, patchable: tuple[Patch, ...]) -> bool:
    """Compare code; bytes that the kernel itself may patch at run time do not count.

    Args:
        before: Bytes of the vmlinux or of the running resumer.
        after: Bytes in the image.
        address: Link-time address of the first byte.
        patchable: The ranges that may differ.
    """
    if before == after:
        return True
    if len(before) != len(after):
        return False
    differing = {address + offset for offset, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    return all(any(patch.start <= place < patch.end for patch in patchable) for place in differing)


def _data(memory: Composite, loop: ParkLoop, context: ApContext) -> list[Touched]:
    accesses: dict[tuple[str, int, Access], int] = {}
    for item in loop.touches:
        address = _address(memory, item, context)
        if address is not None:
            access = Access.WRITE if item.access == "write" else Access.READ
            key = (_ROLES[item.kind], address, access)
            accesses[key] = max(accesses.get(key, 1), item.size)
    found = []
    for (role, start, access), size in accesses.items():
        for address, part in pages_of(start, start + max(size, 1)):
            leaf = own_frame(memory.resumer, context.cr3, address) if context.placed or role == RODATA else None
            found.append(touch(memory, context.cr3, role, address, part, access, leaf=leaf, before=None))
    return found


def _address(memory: Composite, item: Touch, context: ApContext) -> int | None:
    """Return the run-time address of an access, or None where it cannot be named."""
    kernel, shift = memory.resumer.kernel, memory.resumer.kaslr_offset
    if item.kind == "percpu" and item.address is not None and context.gs_base is not None:
        moved = 0 if kernel.percpu_zero_based else shift
        return (context.gs_base + item.address + moved) & _ADDRESS_MASK
    if item.kind == "line":
        return context.line
    if item.kind == "stack":
        return context.stack
    if item.kind in {"rodata", "data"} and item.address is not None:
        return (item.address + shift) & _ADDRESS_MASK
    return None


def own_frame(resumer: ResumerMemory, cr3: int, address: int) -> int | None:
    """Return the frame that an address led to before the copy, or None where that is not known."""
    found = walk(resumer, resumer.mode, cr3, address)
    if found.physical is None or not all(resumer.knows_entry(step.table, step.index) for step in found.steps):
        return None
    return found.physical >> PAGE_SHIFT
