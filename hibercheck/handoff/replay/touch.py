"""One access of a parked CPU, before the copy and after it: is it still the same?"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass, replace
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext
from hibercheck.handoff.memory.resumer import ResumerMemory
from hibercheck.x86.memory import PhysicalMemory, UnknownMemory, read
from hibercheck.x86.paging import Access, PagingMode, Walk, as_far_as_known, walk


class Change(StrEnum):
    """What the copy does to one access."""

    INTACT = "intact"
    """No frame that it touches is overwritten."""
    SAME = "same"
    """Frames are overwritten, and the access goes where the same bytes are."""
    CONTENT = "content"
    """It succeeds and finds other bytes."""
    FAULT = "fault"
    """The walk fails."""
    UNKNOWN = "unknown"
    """It depends on memory that is not known."""


@dataclass(frozen=True, slots=True)
class Touched:
    """The result of one access in composite memory.

    Attributes:
        role: What it is for: ``park loop``, ``per-CPU data`` and so on.
        address: Virtual address.
        size: Bytes.
        access: Fetch, read or write.
        change: What the copy does to it.
        walk: The walk after the copy.
        tables_overwritten: PFNs of tables on the way that are overwritten.
        leaf_overwritten: Whether the frame that it reaches is.
        leaf: PFN that it touched before the copy, where known.
        before: The resumer's bytes, where known.
        after: The bytes there now, where the walk succeeds.
        tables_only: Whether the frame it touched before holds the same bytes, so that only the tables differ.
    """

    role: str
    address: int
    size: int
    access: Access
    change: Change
    walk: Walk
    tables_overwritten: tuple[int, ...] = ()
    leaf_overwritten: bool = False
    leaf: int | None = None
    before: bytes | None = None
    after: bytes | None = None
    tables_only: bool = False


def walk_of(
    memory: PhysicalMemory, mode: PagingMode, context: ApContext, address: int, access: Access = Access.READ
) -> Walk:
    """Translate an address as a parked CPU does; one that does not page addresses memory physically."""
    if not context.paging:
        return Walk(address, access, 0, (), physical=address)
    return walk(memory, mode, context.cr3, address, access)


def known_walk(memory: Composite, context: ApContext, address: int, access: Access) -> Walk:
    """Walk in composite memory, and stop as unknown where an entry is the resumer's and not known."""
    return as_far_as_known(memory, walk_of(memory, memory.resumer.mode, context, address, access))


def own_frame(resumer: ResumerMemory, context: ApContext, address: int) -> int | None:
    """Return the frame that an address led to before the copy, or None where that is not known."""
    found = walk_of(resumer, resumer.mode, context, address)
    if found.physical is None or not all(resumer.knows_entry(step.table, step.index) for step in found.steps):
        return None
    return found.physical >> PAGE_SHIFT


Equal = Callable[[int, bytes, bytes], bool]
"""Whether bytes at an address mean the same: (address, before, after)."""


def _identical(_address: int, before: bytes, after: bytes) -> bool:
    return before == after


def touch(
    memory: Composite,
    context: ApContext,
    role: str,
    address: int,
    size: int,
    access: Access,
    *,
    leaf: int | None,
    before: bytes | None,
    equal: Equal = _identical,
) -> Touched:
    """Do one access (within one page) in composite memory.

    Args:
        memory: Memory at that moment.
        context: The CPU's registers.
        role: What the access is for.
        address: Virtual address.
        size: Bytes, not crossing a page.
        access: Fetch, read or write.
        leaf: The frame that it touches before the copy, or None where not known.
        before: The resumer's bytes there; None where they are not known or do not matter.
        equal: When bytes count as the same.
    """
    found = known_walk(memory, context, address, access)
    tables = tuple(pfn for pfn in found.table_pfns if memory.overwritten(pfn))
    result = Touched(
        role,
        address,
        size,
        access,
        Change.UNKNOWN,
        found,
        tables_overwritten=tables,
        leaf=leaf,
        before=before,
        leaf_overwritten=leaf is not None and memory.overwritten(leaf),
    )
    if found.fault is not None:
        return replace(result, change=Change.FAULT, tables_only=_still_there(memory, result, equal))
    if found.physical is None:
        if not found.steps or not memory.overwritten(found.steps[-1].pfn):
            return result
        # The resumee's bytes, read as an entry, lead to a frame that the image does not hold.  The resumee's own tables
        # are all in the image, and the resumer's are reached by its own entries only: the way is lost.
        return replace(result, change=Change.FAULT, tables_only=_still_there(memory, result, equal))
    reached = found.physical >> PAGE_SHIFT
    overwritten = memory.overwritten(reached)
    if not tables and not overwritten:
        return replace(result, change=Change.INTACT)
    try:
        after = read(memory, found.physical, size)
    except UnknownMemory:
        if leaf is None:
            return result
        if reached == leaf:  # the resumer's own frame whose contents are not known, reached as before
            return replace(result, change=Change.SAME)
        return replace(result, change=Change.CONTENT, tables_only=_still_there(memory, result, equal))
    same = before is None or equal(address, before, after)
    return replace(
        result,
        change=Change.SAME if same else Change.CONTENT,
        after=after,
        leaf_overwritten=overwritten,
        tables_only=not same and _still_there(memory, result, equal),
    )


def _still_there(memory: Composite, touched: Touched, equal: Equal) -> bool:
    """Tell whether a CPU that still has the old translation cached would find its bytes."""
    if touched.leaf is None or touched.before is None:
        return touched.leaf is not None and not touched.leaf_overwritten
    try:
        physical = (touched.leaf << PAGE_SHIFT) | touched.address % PAGE_SIZE
        return equal(touched.address, touched.before, read(memory, physical, touched.size))
    except UnknownMemory:
        return not touched.leaf_overwritten


def pages_of(start: int, end: int) -> list[tuple[int, int]]:
    """Cut [start, end) at page borders, as (address, size) pairs."""
    pieces = []
    while start < end:
        stop = min(end, (start & ~(PAGE_SIZE - 1)) + PAGE_SIZE)
        pieces.append((start, stop - start))
        start = stop
    return pieces
