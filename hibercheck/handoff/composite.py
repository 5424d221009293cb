"""Physical memory during the copy: the resumer's, with the image's frames over it from the highest down.

Frames are copied in descending order: PBEs are prepended while the PFNs ascend (kernel/power/snapshot.c), and
core_restore_code follows the list.
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass
from hibercheck.handoff.resumer import ResumerMemory
from hibercheck.swsusp.image import Image


@dataclass(frozen=True, slots=True)
class Composite:
    """Memory when every image frame from ``floor`` up has been copied; ``floor`` 0 is the finished copy."""

    image: Image
    resumer: ResumerMemory
    floor: int = 0

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
