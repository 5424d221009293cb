"""What the copy changes of what a parked CPU does: one access at a time, then all of them together."""

from __future__ import annotations

from enum import IntEnum

from hibercheck.handoff.replay.touch import Change, Touched
from hibercheck.x86.paging import Access


class Difference(IntEnum):
    """What running again comes to, beside what it was before the copy, from harmless to harmful."""

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

    @property
    def parks_again(self) -> bool:
        """Whether the CPU certainly comes to rest again."""
        return self <= Difference.SAME

    @property
    def on_cold_tlb(self) -> Difference:
        """What it is for a CPU that has lost its translations."""
        return Difference.FOREIGN if self is Difference.STALE else self


def difference_of(touched: Touched) -> Difference:
    """Say what the change of one access comes to.

    Only a fetch of other bytes, or one that cannot be done, is lost for certain.  A data access that faults reads
    through a cached translation whatever its frame now holds, so that it lives as long as the TLB does; what other data
    lead the CPU to is `hibercheck.handoff.replay.divergence`'s.
    """
    simple = {
        Change.INTACT: Difference.INTACT,
        Change.SAME: Difference.SAME,
        Change.UNKNOWN: Difference.UNKNOWN,
    }
    if touched.change in simple:
        return simple[touched.change]
    if touched.access is Access.FETCH:
        return Difference.STALE if touched.tables_only else Difference.FOREIGN
    return Difference.SAME if touched.change is Change.CONTENT else Difference.STALE


def worst_of(touched: tuple[Touched, ...]) -> tuple[Difference, Touched | None]:
    """Return what all accesses of an iteration come to, and the one that decides; None where nothing is overwritten."""
    if not touched:
        return Difference.INTACT, None
    worst = max(touched, key=difference_of)  # the first of equals
    found = difference_of(worst)
    return found, None if found is Difference.INTACT else worst
