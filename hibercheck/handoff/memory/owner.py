"""Whose memory a parked CPU monitors once the image is in place, and whether the resumee writes there.

The resumee's own symbols, per-CPU areas and array of ``struct page`` tell, all of them read out of the image as they
were when it was made.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Container
from enum import StrEnum
from functools import cached_property

from hibercheck.addresses import ADDRESS_MASK, PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cpufacts import cpu_count
from hibercheck.handoff.facts.e820 import ram_runs, read_e820
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.scenario.known_timing import USUAL_LINE

VMEMMAP = {4: 0xFFFF_EA00_0000_0000, 5: 0xFFD4_0000_0000_0000}
"""__VMEMMAP_BASE_L4 and _L5 (arch/x86/include/asm/pgtable_64_types.h), where no ``vmemmap_base`` says otherwise."""
_SIZES = (64, 56, 72, 80, 96)
"""Bytes that a ``struct page`` may have, as the kernel is configured (include/linux/mm_types.h)."""
_HEADER = 56
"""Bytes of it that every kernel has."""
_MAPPING_AT, _TYPE_AT, _COUNT_AT = 24, 48, 52
_SLAB_CACHE_AT = (8, 24)
"""struct slab's cache; at 8 since 130d4df57390 ("mm/sl[au]b: rearrange struct slab fields to allow larger rcu_head",
in v6.2)."""
_FREE = {0xFFFF_FF7F, 0xBFFF_FFFF, 0xF000_0000}
_TABLE = {0xFFFF_FDFF, 0xFFFF_FBFF, 0xEFFF_FFFF, 0xF200_0000}
_SLAB = {0xFDFF_FFFF, 0xF500_0000}
"""page_type of what is free, a page table, and (since 46df8e73a4a3 ("mm: free up PG_slab", in v6.10)) a slab, in the
three ways in which include/linux/page-flags.h has encoded it; 0xfffffbff was a table until v5.1 or so, later a guard
page, which nobody uses either."""
_OFFLINE = {0xFFFF_FEFF, 0xDFFF_FFFF, 0xF100_0000}
"""The same of what is given away, as by a balloon (PageOffline): not saved, and not to be used."""
_MAX_FLAGS = 64
_NAME_AT = range(0x38, 0xA8, 8)
_SP_AT = 152
"""``saved_context.regs.sp``: the structure begins with struct pt_regs (arch/x86/include/asm/suspend_64.h)."""
_SHOWN = 3


class Use(StrEnum):
    """What the resumee uses a piece of memory for."""

    OWN_LINE = "own line"
    """The line on which one of its own dead CPUs would wait (``mwait_cpu_dead``)."""
    CODE = "code"
    """Its kernel's code, or read-only data."""
    DATA = "data"
    """A variable of its kernel."""
    PERCPU = "per-CPU data"
    """A CPU's own variables."""
    STACK = "stack"
    """The stack on which it hibernated, and on which it goes on."""
    SLAB = "slab"
    """Objects of one cache."""
    PAGE_TABLE = "page table"
    """A page table of a process."""
    ANONYMOUS = "anonymous memory"
    """A process's own memory."""
    PAGE_CACHE = "page cache"
    """A file's contents."""
    FREE = "free memory"
    """Nothing: it was free."""
    RESERVED = "reserved memory"
    """What was set aside at boot."""
    KERNEL = "kernel memory"
    """Pages that its kernel allocated for itself."""
    SNAPSHOT = "snapshot"
    """Pages of the copy of memory that it made to hibernate; it frees them as it comes back."""
    ABSENT = "not in the image"
    """What the image does not hold and no page of it describes."""
    UNKNOWN = "unknown"
    """It could not be read."""


class Writes(StrEnum):
    """Whether the resumee writes there."""

    NEVER = "never"
    """It has no reason to: code, or the line of a CPU that it would have to take offline first."""
    UNKNOWN = "unknown"
    """Nothing tells."""
    HANDED_OUT = "once handed out"
    """Nothing does while it is free; whoever the allocator hands it out to does."""
    ORDINARY = "ordinary"
    """A kernel that runs writes there sooner or later."""
    BEFORE_INIT = "before-init"
    """It certainly does before it sends the CPU an INIT, or without ever sending it one."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the line is that a parked CPU monitors.

    Attributes:
        physical: The line's physical address.
        size: Its bytes.
        use: What it is.
        names: What lies there: symbols of the resumee's kernel, or the name of a slab cache.
        cpu: Whose per-CPU data it is, or None.
        writes: Whether the resumee writes there.
        writer: The function of the resumee that certainly does, or None.
    """

    physical: int
    size: int
    use: Use
    names: tuple[str, ...] = ()
    cpu: int | None = None
    writes: Writes = Writes.UNKNOWN
    writer: str | None = None


@dataclass(frozen=True, slots=True)
class _Sign:
    """A variable of which the image itself shows that it must change before the first CPU is started again.

    Attributes:
        symbol: Its name.
        shows: Whether its value (4 bytes) says so.
        writer: Who changes it.
    """

    symbol: str
    shows: Callable[[int], bool]
    writer: str


SIGNS = (
    # kernel/time/timekeeping.c, a syscore operation: it runs before interrupts are enabled
    _Sign("timekeeping_suspended", bool, "timekeeping_resume()"),
    # kernel/power/hibernate.c: SYSTEM_SUSPEND, one of the last of enum system_states, becomes SYSTEM_RUNNING
    _Sign("system_state", lambda value: value > 4, "create_image()"),
    # kernel/cpu.c: the first thing that it does
    _Sign("cpu_hotplug_disabled", bool, "thaw_secondary_cpus()"),
)
COME_BACK = "in_suspend", "restore_registers()"
"""Not saved, so that no image shows it; the first code that runs of the resumee clears it
(arch/x86/power/hibernate_asm_64.S)."""
ONLINE_MASK, ONLINE_COUNT = "__cpu_online_mask", "__num_online_cpus"
"""Written as each CPU comes up (set_cpu_online(), kernel/cpu.c), so for all but the first before its INIT."""
QUIET = "mwait_cpu_dead"
"""Written to send a dead CPU from MWAIT to HLT, before a kexec."""
COMING_UP = "cpuhp_state"
"""Its first two members, state and target, change while a CPU is made ready (_cpu_up(), kernel/cpu.c)."""


class Owners:
    """Tells whose memory is whose in the resumee.

    Args:
        space: The resumee's address space.
        covered: The frames that the image holds.
        frozen: CPUs that the resumee starts again as it thaws, in ascending order.
        running: All CPUs that run in it from then on.
        line_size: Bytes of a line that MWAIT monitors, a power of two.
    """

    def __init__(
        self,
        space: KernelSpace,
        covered: Container[int],
        frozen: frozenset[int],
        running: frozenset[int],
        line_size: int = USUAL_LINE,
    ) -> None:
        self._space, self._covered = space, covered
        self._frozen, self._running = frozen, running
        self.line_size = line_size
        self._free: dict[int, bool] = {}

    def of_line(self, physical: int, cpu: int) -> Owner:
        """Say whose the line is that a parked CPU monitors.

        Args:
            physical: Any address in it.
            cpu: The number of the CPU that monitors it.
        """
        size = self.line_size
        start = physical & -size
        saved = start >> PAGE_SHIFT in self._covered
        whose = (self._stack, self._of_kernel, self._of_percpu, self._of_page)
        for find in whose if saved else (self._never_saved, self._of_page):
            try:
                found = find(start, size, cpu)
            except MissingFact:
                continue
            if found is not None:
                return found
        return Owner(start, size, Use.UNKNOWN) if saved else self._undescribed(start, size)

    def handed_out(self, pfn: int) -> bool:
        """Tell whether a frame is free in the resumee, which may hand it out to anyone; no image holds such a one."""
        if pfn not in self._free:
            writes = None if pfn in self._covered else self.of_line(pfn << PAGE_SHIFT, 0).writes
            self._free[pfn] = writes is Writes.HANDED_OUT
        return self._free[pfn]

    def _stack(self, start: int, size: int, _cpu: int) -> Owner | None:
        """Judge the line under the saved stack pointer, where the first call after restore_registers() stores."""
        pointer = self._space.number(self._space.address("saved_context") + _SP_AT)
        if not start <= self._space.physical(pointer) < start + size:
            return None
        writer = "the first call after restore_registers()"
        return Owner(start, size, Use.STACK, writes=Writes.BEFORE_INIT, writer=writer)

    def _of_kernel(self, start: int, size: int, cpu: int) -> Owner | None:
        """Judge a line of the kernel's image that has not been freed since boot."""
        kernel = self._space.kernel
        link = start - self._space.phys_base + START_KERNEL_MAP
        if not self._space.in_image(start) or any(first <= link < end for first, end in self._freed):
            return None
        names = self._names(link, size)
        read_only = kernel.symbol("__end_rodata") or kernel.require("_etext")
        if link < read_only.address:
            return Owner(start, size, Use.CODE, names[:_SHOWN], writes=Writes.NEVER)
        found = self._certain(link, size, cpu)
        if found is None:
            return Owner(start, size, Use.DATA, names[:_SHOWN], writes=Writes.ORDINARY)
        symbol, writer = found
        return Owner(start, size, Use.DATA, (symbol,), writes=Writes.BEFORE_INIT, writer=writer)

    def _never_saved(self, start: int, size: int, _cpu: int) -> Owner | None:
        """Judge a line of the kernel's data that no image holds (__nosavedata); hibernation alone writes them."""
        kernel = self._space.kernel
        link = start - self._space.phys_base + START_KERNEL_MAP
        begin, end = kernel.require("__nosave_begin").address, kernel.require("__nosave_end").address
        if not begin <= link < end:
            return None
        symbol, writer = COME_BACK
        if link <= kernel.require(symbol).address < link + size:
            return Owner(start, size, Use.DATA, (symbol,), writes=Writes.BEFORE_INIT, writer=writer)
        return Owner(start, size, Use.DATA, self._names(link, size)[:_SHOWN], writes=Writes.NEVER)

    def _undescribed(self, start: int, size: int) -> Owner:
        """Judge a line that is neither in the image nor in the array of pages, if the resumee has memory there."""
        pfn = start >> PAGE_SHIFT
        known = self._ram is not None and not any(first <= pfn < end for first, end in self._ram)
        return Owner(start, size, Use.ABSENT, writes=Writes.UNKNOWN if known else Writes.HANDED_OUT)

    @cached_property
    def _ram(self) -> tuple[tuple[int, int], ...] | None:
        """The frames that the resumee takes for memory, as it has been told by its command line; None if not known."""
        try:
            return ram_runs(read_e820(self._space, "e820_table"))
        except MissingFact:
            return None

    @cached_property
    def _freed(self) -> tuple[tuple[int, int], ...]:
        """What free_initmem() and mark_rodata_ro() give back of the image."""
        symbol = self._space.kernel.symbol
        pairs = ((symbol("__init_begin"), symbol("__init_end")), (symbol("__end_rodata"), symbol("_sdata")))
        return tuple((first.address, end.address) for first, end in pairs if first is not None and end is not None)

    def _names(self, link: int, size: int) -> tuple[str, ...]:
        """Name what lies in a line."""
        found = (self._space.kernel.nearest(address) for address in range(link, link + size, 4))
        return tuple(dict.fromkeys(one[0].name for one in found if one is not None))

    def _certain(self, link: int, size: int, cpu: int) -> tuple[str, str] | None:
        """Return which variable in a line is certainly written before a CPU's INIT, and by whom.

        It counts where it is written: a mask of many CPUs goes through several lines.
        """

        def holds(symbol: str, offset: int = 0) -> bool:
            found = self._space.kernel.symbol(symbol)
            return found is not None and link <= found.address + offset < link + size

        for sign in SIGNS:
            if holds(sign.symbol) and sign.shows(self._space.variable(sign.symbol, 4)):
                return sign.symbol, sign.writer
        earlier = self._before(cpu) - {cpu}
        if any(holds(ONLINE_MASK, other // 64 * 8) for other in earlier):
            return ONLINE_MASK, "set_cpu_online()"
        return (ONLINE_COUNT, "set_cpu_online()") if earlier and holds(ONLINE_COUNT) else None

    def _before(self, cpu: int) -> frozenset[int]:
        """Return the CPUs that are started no later than one: thaw_secondary_cpus() goes up, one after the other."""
        return frozenset(one for one in self._frozen if one <= cpu) if cpu in self._frozen else self._frozen

    def _of_percpu(self, start: int, size: int, cpu: int) -> Owner | None:
        found = self._area(start)
        if found is None:
            return None
        owner, offset = found
        kernel = self._space.kernel
        static = kernel.require("__per_cpu_end").address - kernel.percpu_start
        names = self._names(kernel.percpu_start + offset, size) if offset < static else ()
        if QUIET in names and self._begins(QUIET, offset, size):
            return Owner(start, size, Use.OWN_LINE, (QUIET,), owner, Writes.NEVER)
        if COMING_UP in names and owner in self._before(cpu) and self._begins(COMING_UP, offset, size):
            return Owner(start, size, Use.PERCPU, (COMING_UP,), owner, Writes.BEFORE_INIT, "_cpu_up()")
        writes = Writes.ORDINARY if owner in self._running else Writes.UNKNOWN
        return Owner(start, size, Use.PERCPU, names[:_SHOWN], owner, writes)

    def _begins(self, symbol: str, offset: int, size: int) -> bool:
        """Tell whether a per-CPU variable begins in a line."""
        kernel = self._space.kernel
        return offset <= kernel.require(symbol).address - kernel.percpu_start < offset + size

    def _area(self, physical: int) -> tuple[int, int] | None:
        """Return the CPU in whose first per-CPU area an address lies, and the offset there; None if it is in none."""
        space, areas = self._space, self._areas
        at = bisect_right(areas, (physical, ADDRESS_MASK, 0)) - 1
        if at < 0:
            return None
        first, begin, cpu = areas[at]
        offset = physical - first
        inside = offset < space.variable("pcpu_unit_size", 4)
        return (cpu, offset) if inside and space.physical(begin + offset & ADDRESS_MASK) == physical else None

    @cached_property
    def _areas(self) -> list[tuple[int, int, int]]:
        """The first per-CPU area of each CPU: where it begins, physically and virtually, and the CPU, in that order."""
        space, found = self._space, []
        shift = 0 if space.kernel.percpu_zero_based else space.kaslr_offset
        for cpu in range(cpu_count(space)):
            try:
                begin = (space.percpu_base(cpu) + space.kernel.percpu_start + shift) & ADDRESS_MASK
                found.append((space.physical(begin), begin, cpu))
            except MissingFact:  # the area of a CPU that is not there
                continue
        return sorted(found)

    def _of_page(self, start: int, size: int, _cpu: int) -> Owner | None:
        """Judge a line anywhere else, by the struct page of its frame."""
        if self._page_size is None:
            return None
        page = self._page(start >> PAGE_SHIFT, self._page_size)
        flags, kind = self._flags_of(page), int.from_bytes(page[_TYPE_AT : _TYPE_AT + 4], "little")
        mapping = int.from_bytes(page[_MAPPING_AT : _MAPPING_AT + 8], "little")
        ordinary = Writes.ORDINARY
        if "slab" in flags or kind in _SLAB:
            return Owner(start, size, Use.SLAB, self._cache_of(page), writes=ordinary)
        if kind in _TABLE:
            return Owner(start, size, Use.PAGE_TABLE, writes=ordinary)
        if "reserved" in flags or kind in _OFFLINE:
            return Owner(start, size, Use.RESERVED)
        if kind in _FREE or not int.from_bytes(page[_COUNT_AT : _COUNT_AT + 4], "little"):
            return Owner(start, size, Use.FREE, writes=Writes.HANDED_OUT)
        if start >> PAGE_SHIFT not in self._covered:
            # In use and yet not saved: it was used to save, until swsusp_free() (kernel/power/snapshot.c).
            return Owner(start, size, Use.SNAPSHOT, writes=Writes.HANDED_OUT)
        if mapping & 1:  # PAGE_MAPPING_ANON, include/linux/page-flags.h
            return Owner(start, size, Use.ANONYMOUS, writes=ordinary)
        if mapping >> 56 == 0xFF and not mapping & 3:
            return Owner(start, size, Use.PAGE_CACHE, writes=ordinary)
        return Owner(start, size, Use.KERNEL)

    def _page(self, pfn: int, size: int) -> bytes:
        """Read the struct page of a frame, or of the first frame of the block that it belongs to."""
        address = self._pages + pfn * size & ADDRESS_MASK
        page = self._space.read(address, _HEADER)
        head = int.from_bytes(page[8:16], "little")
        if not head & 1:
            return page
        # compound_head points to the first; in 7.3 it may be a mask instead, which its own address is put through
        return self._space.read(address & head if head >> 32 == 0xFFFF_FFFF else head - 1, _HEADER)

    @cached_property
    def _pages(self) -> int:
        """The address of the array of pages."""
        if self._space.kernel.symbol("vmemmap_base") is not None:
            return self._space.variable("vmemmap_base")
        return VMEMMAP[self._space.mode.levels]

    @cached_property
    def _page_size(self) -> int | None:
        """Bytes of a struct page, or None where the array does not read as it should.

        The kernel's own text is reserved and in no list, so that its page's lru points to itself (__init_single_page(),
        mm/mm_init.c).
        """
        space = self._space
        pfn = space.image_physical(space.kernel.require("_text").address) >> PAGE_SHIFT
        for size in _SIZES:
            try:
                page = space.read(self._pages + pfn * size & ADDRESS_MASK, _HEADER)
            except MissingFact:
                continue
            lru = self._pages + pfn * size + 8
            if int.from_bytes(page[8:16], "little") == lru and "reserved" in self._flags_of(page):
                return size
        return None

    @cached_property
    def _flags(self) -> dict[str, int]:
        """Masks of page flags by name, as the kernel itself prints them (pageflag_names[], mm/debug.c)."""
        space, found = self._space, {}
        try:
            table = space.address("pageflag_names")
            for index in range(_MAX_FLAGS):
                mask, name = struct.unpack("<QQ", space.read(table + 16 * index & ADDRESS_MASK, 16))
                if not mask:
                    break
                found[space.string(name, 32)] = mask
        except MissingFact:
            return {}
        return found

    def _flags_of(self, page: bytes) -> set[str]:
        flags = int.from_bytes(page[:8], "little")
        return {name for name, mask in self._flags.items() if flags & mask}

    def _cache_of(self, page: bytes) -> tuple[str, ...]:
        """Name the cache of a slab."""
        for place in _SLAB_CACHE_AT:
            cache = int.from_bytes(page[place : place + 8], "little")
            name = self._cache_name(cache) if cache >> 56 == 0xFF else None
            if name is not None:
                return (name,)
        return ()

    def _cache_name(self, cache: int) -> str | None:
        """Read kmem_cache.name; without types the first member from min_partial on that points to a name."""
        space = self._space
        try:
            places: range | tuple[int, ...] = (space.kernel.offset_of("kmem_cache", "name"),)
        except MissingFact:
            places = _NAME_AT
        for place in places:
            try:
                pointer = space.number(cache + place & ADDRESS_MASK)
                text = space.string(pointer, 64) if pointer >> 56 == 0xFF else ""
            except MissingFact:
                continue
            if len(text) > 2 and text.isascii() and text.isprintable():
                return text
        return None
