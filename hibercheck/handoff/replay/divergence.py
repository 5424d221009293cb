"""Where the data that a park loop reads send a CPU, once the image has overwritten them.

A loop compares what it reads: "am I CPU 0, which is to come back", "was I told to halt" (mwait_play_dead(),
arch/x86/kernel/smpboot.c).  With the resumee's bytes in place of the resumer's the answer may be another, though code
and page tables are still whole.  The CPU is followed on the translations that it had before the copy, which it may
have cached; what becomes of it without them the page walks say.
"""

from __future__ import annotations

from collections.abc import Callable

from hibercheck.addresses import ADDRESS_MASK, PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext
from hibercheck.handoff.replay.touch import walk_of
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.x86.follow import Course, CourseEnd, DataAccess, Unmapped, follow
from hibercheck.x86.paging import Access


@dataclass(frozen=True, slots=True)
class Divergence:
    """A CPU that leaves its loop because of what it has read.

    Attributes:
        to: The first instruction outside the loop.
        read: What it read last before.
        end: What comes of it: `CourseEnd.WAITS` if it waits elsewhere, in code that is the resumer's own.
        rip: Where that is.
    """

    to: int
    read: DataAccess | None
    end: CourseEnd
    rip: int

    @property
    def rests(self) -> bool:
        """Whether it comes to rest elsewhere."""
        return self.end is CourseEnd.WAITS

    @property
    def lost(self) -> bool:
        """Whether it certainly does not come to rest."""
        return not self.rests and not self.unknown

    @property
    def unknown(self) -> bool:
        """Whether it goes on in code that is not understood."""
        return self.end is CourseEnd.NOT_UNDERSTOOD


@dataclass(frozen=True, slots=True)
class Followed:
    """One iteration of a loop as a CPU really makes it.

    Attributes:
        data: Every access to memory, in order.
        code: Instructions outside the loop's ranges, as (address, size).
        divergence: How it leaves the loop for good, or None if it waits there again.
    """

    data: tuple[DataAccess, ...]
    code: tuple[tuple[int, int], ...]
    divergence: Divergence | None


def follow_loop(memory: Composite, loop: ParkLoop, context: ApContext) -> Followed | None:
    """Follow a CPU round its loop, or None where that cannot be told.

    Args:
        memory: Memory at that moment.
        loop: The loop; its own bytes must be the same as before.
        context: What is known of its registers.
    """
    if context.registers is None or context.rip is None:
        return None
    shift = memory.resumer.kaslr_offset
    ranges = [(start + shift & ADDRESS_MASK, end + shift & ADDRESS_MASK) for start, end in loop.ranges]
    translate = _translator(memory, context)

    def inside(address: int) -> bool:
        return any(start <= address < end for start, end in ranges)

    def read(address: int, size: int) -> bytes | None:
        physical = translate(address)
        content = None if physical is None else memory.frame(physical >> PAGE_SHIFT)
        offset = address % PAGE_SIZE
        return None if content is None else content[offset : offset + size]

    def foreign(address: int, size: int) -> bool:
        return not inside(address) and _changed(memory, translate, address, size)

    course = follow(read, context.registers, context.rip, gs_base=context.gs_base, gdt=context.gdt, foreign=foreign)
    if course.end is CourseEnd.UNKNOWN:
        return None
    outside = tuple(one for one in course.fetched if not inside(one[0]))
    if inside(course.rip):
        return Followed(course.data, outside, None) if course.end is CourseEnd.WAITS else None
    return Followed(course.data, outside, _divergence(course, inside))


def _translator(memory: Composite, context: ApContext) -> Callable[[int], int | None]:
    """Return the CPU's own translation, as it was before the copy."""
    resumer = memory.resumer
    pages: dict[int, int | None] = {}

    def translate(address: int) -> int | None:
        page = address >> PAGE_SHIFT
        if page not in pages:
            found = walk_of(resumer, resumer.mode, context, page << PAGE_SHIFT)
            if found.fault is not None:
                raise Unmapped
            pages[page] = found.physical
        return pages[page]

    return translate


def _changed(memory: Composite, translate: Callable[[int], int | None], address: int, size: int) -> bool:
    """Tell whether an instruction is not the resumer's own."""
    for page in {address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT}:
        physical = translate(page << PAGE_SHIFT)
        if physical is None:
            return False
        pfn = physical >> PAGE_SHIFT
        before, after = memory.resumer.frame(pfn), memory.frame(pfn)
        start, end = max(address, page << PAGE_SHIFT), min(address + size, (page + 1) << PAGE_SHIFT)
        first = start % PAGE_SIZE
        part = slice(first, first + end - start)
        if before is None or after is None or before[part] != after[part]:
            return True
    return False


def _divergence(course: Course, inside: Callable[[int], bool]) -> Divergence:
    """Say where it left the loop: the first instruction outside that follows the last one inside."""
    last = max((number for number, one in enumerate(course.fetched) if inside(one[0])), default=-1)
    to = course.fetched[last + 1][0] if last + 1 < len(course.fetched) else course.rip
    reads = [one for one in course.data if one.access is Access.READ and inside(one.by)]
    return Divergence(to, reads[-1] if reads else None, course.end, course.rip)
