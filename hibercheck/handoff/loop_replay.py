"""One turn of a park loop in composite memory: every access that it makes, and whether the CPU parks again."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.resumer import ResumerMemory
from hibercheck.handoff.touch import Change, Touched, pages_of, touch
from hibercheck.kernel.code.model import ParkLoop, Patch, Touch
from hibercheck.x86.paging import Access, walk

if TYPE_CHECKING:
    from hibercheck.handoff.loop_course import Diversion, LoopCourse

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
class LoopReplay:
    """Every access of one turn.

    Attributes:
        state: What it comes to.
        touched: The accesses.
        decisive: The access that decides, or None where nothing is overwritten.
        diversion: How what it reads makes it leave its loop, or None.
    """

    state: LoopState
    touched: tuple[Touched, ...]
    decisive: Touched | None
    diversion: Diversion | None = None

    @property
    def fetch_unknown(self) -> bool:
        """Whether it is not known what the CPU executes."""
        return any(item.access is Access.FETCH and item.change is Change.UNKNOWN for item in self.touched)


def replay_loop(memory: Composite, loop: ParkLoop, context: ApContext) -> LoopReplay:
    """Run once round a park loop in composite memory."""
    fetches = _fetches(memory, loop, context)
    course = _course(memory, loop, context) if _code_stands(fetches) else None
    if course is None:
        return _ranked((*fetches, *_data(memory, loop, context)))
    elsewhere = _elsewhere(memory, course, context)
    turn = _ranked((*fetches, *elsewhere, *_data_of(memory, loop, course, context)))
    if course.diversion is None:
        return turn
    return _diverted(turn, course.diversion)


def _ranked(touched: tuple[Touched, ...]) -> LoopReplay:
    """Let the worst access decide."""
    ranked = sorted(touched, key=_state_of, reverse=True)
    state = _state_of(ranked[0]) if ranked else LoopState.INTACT
    return LoopReplay(state, touched, ranked[0] if state is not LoopState.INTACT else None)


def _code_stands(fetches: list[Touched]) -> bool:
    """Tell whether the loop's own bytes are where they were, if not every table that leads there."""
    return all(_state_of(one) in {LoopState.INTACT, LoopState.SAME, LoopState.STALE} for one in fetches)


def _course(memory: Composite, loop: ParkLoop, context: ApContext) -> LoopCourse | None:
    """Follow the CPU, where its registers are known."""
    if context.registers is None:
        return None
    from hibercheck.handoff.loop_course import loop_course  # noqa: PLC0415 - it decodes, which only exact replays need

    return loop_course(memory, loop, context)


def _diverted(turn: LoopReplay, diversion: Diversion) -> LoopReplay:
    """Judge a CPU that leaves its loop: lost, or at rest in other code of the resumer."""
    read = diversion.read
    found = next((one for one in turn.touched if read is not None and one.address == read.address), None)
    decisive = found or turn.decisive
    if diversion.lost:
        return LoopReplay(LoopState.FOREIGN, turn.touched, decisive, diversion)
    return LoopReplay(max(turn.state, LoopState.SAME), turn.touched, turn.decisive or decisive, diversion)


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
    """Do what the loop's instructions may access."""
    accesses: dict[tuple[str, int, Access], int] = {}
    for item in loop.touches:
        address = _address(memory, item, context)
        if address is not None:
            access = Access.WRITE if item.access == "write" else Access.READ
            key = (_ROLES[item.kind], address, access)
            accesses[key] = max(accesses.get(key, 1), item.size)
    return _touch_all(memory, accesses, context)


def _data_of(memory: Composite, loop: ParkLoop, course: LoopCourse, context: ApContext) -> list[Touched]:
    """Do what a CPU on its course accesses; what is patched out of its loop, it does not."""
    roles = {
        address: _ROLES[item.kind] for item in loop.touches if (address := _address(memory, item, context)) is not None
    }
    accesses: dict[tuple[str, int, Access], int] = {}
    for one in course.data:
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
            leaf = own_frame(memory.resumer, context.cr3, address) if context.placed or role == RODATA else None
            found.append(touch(memory, context.cr3, role, address, part, access, leaf=leaf, before=None))
    return found


def _elsewhere(memory: Composite, course: LoopCourse, context: ApContext) -> list[Touched]:
    """Fetch what a CPU executes outside its loop, one access for each page."""
    pages: dict[int, list[tuple[int, int]]] = {}
    for address, size in course.code:
        pages.setdefault(address // PAGE_SIZE, []).append((address, size))
    found = []
    for page, pieces in pages.items():
        start, end = min(pieces)[0], min(max(a + size for a, size in pieces), (page + 1) * PAGE_SIZE)
        leaf = own_frame(memory.resumer, context.cr3, start)
        found.append(touch(memory, context.cr3, OTHER_CODE, start, end - start, Access.FETCH, leaf=leaf, before=None))
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
