"""Physical memory during the copy: the resumer's, with the image's frames over it from the highest down.

Frames are copied in descending order: PBEs are prepended while the PFNs ascend (kernel/power/snapshot.c), and
core_restore_code follows the list.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass, replace
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.owner import Owners
from hibercheck.handoff.memory.resumer import ResumerMemory

if TYPE_CHECKING:
    from hibercheck.handoff.facts.pending import PendingCopies

NO_PFN = 1 << 52
"""Above every frame: nothing has been copied yet."""


class CoveredFrames(Protocol):
    """The frames that an image holds."""

    def __contains__(self, pfn: int) -> bool:
        """Tell whether a frame is one of them."""
        ...

    def count_between(self, first: int, end: int) -> int:
        """Count those in [first, end)."""
        ...

    def is_zero(self, pfn: int) -> bool:
        """Tell whether a frame is said to be all zeros."""
        ...


class Covering(Protocol):
    """What is copied: an image, or what is certain of one before it exists."""

    @property
    def pfns(self) -> CoveredFrames:
        """The frames that it covers."""
        ...

    def frame(self, pfn: int) -> bytes | None:
        """Return what it puts into a frame, or None where it covers none or that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Composite:
    """Memory at one moment of the copy.

    Attributes:
        image: What is copied.
        resumer: What was there before.
        floor: Every image frame from this one up has been copied; 0 is the finished copy.
        resumee: The resumee's own address space, for its handlers; None where that is not known.
        pending: The copies that the resumer has still to make, where a dump shows them.
        owners: Whose memory is whose in the resumee; None where there is no image to tell.
        answers: What others have worked out of this very memory, by keys of theirs: many CPUs ask the same.
    """

    image: Covering
    resumer: ResumerMemory
    floor: int = 0
    resumee: KernelSpace | None = None
    pending: PendingCopies | None = None
    owners: Owners | None = None
    answers: dict[Hashable, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", {})  # not a default, which a changed copy of this memory would have too

    def overwritten(self, pfn: int) -> bool:
        """Tell whether the image has overwritten a frame by now."""
        return pfn >= self.floor and pfn in self.image.pfns

    def frame(self, pfn: int) -> bytes | None:
        """Return what the frame holds now, or None where that is the resumer's and not known."""
        if self.overwritten(pfn):
            return self.image.frame(pfn)
        return self.resumer.frame(pfn)

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether one entry of a page table is known."""
        return self.overwritten(table >> PAGE_SHIFT) or self.resumer.knows_entry(table, index)

    def at(self, floor: int) -> Composite:
        """Return memory when every image frame from ``floor`` up has been copied."""
        return replace(self, floor=floor)

    def next_copy(self, frames: Iterable[int], after: int) -> int | None:
        """Return the one of some frames that is copied next after frame ``after``, or None if none is."""
        return max((pfn for pfn in frames if pfn < after and pfn in self.image.pfns), default=None)

    def copy_number(self, pfn: int) -> int:
        """Return the number of a frame's copy, from 1.

        Frames that the resumer had free were filled before it parked anyone.  Without its list of pending copies they
        are counted as if they were copied too, so that the count is an upper bound.
        """
        number = None if self.pending is None else self.pending.number(pfn)
        return self.image.pfns.count_between(pfn, NO_PFN) if number is None else number

    @property
    def counts_copies(self) -> bool:
        """Whether copies are counted by the resumer's own list of them."""
        return self.pending is not None and self.pending.frames is not None
