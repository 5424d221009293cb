"""Whether what a delivery reaches is a whole handler: the resumer's own untouched, or the resumee's own in its place.

A CPU that is offline runs little of it: exc_nmi() and exc_machine_check() find the per-CPU area, see that the CPU is
offline, and return: since 60dcaad5736f ("x86/hotplug: Silence APIC and NMI when CPU is dead", in v5.4).
exc_machine_check() does so only if the CPU can go on, by MCG_STATUS.RIPV (mce_check_crashing_cpu()), which is supposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ParkedCpu
from hibercheck.handoff.memory.resumer import space_of
from hibercheck.handoff.replay.compare import Difference, difference_of
from hibercheck.handoff.replay.touch import Change, Touched, known_walk, own_frame, pages_of, touch
from hibercheck.kernel.code.gsbase import sets_gs_base
from hibercheck.kernel.view import KernelView, SymbolView
from hibercheck.x86.events import VECTORS, Event
from hibercheck.x86.exceptions import Delivery, Role
from hibercheck.x86.memory import UnknownMemory, read
from hibercheck.x86.paging import CR4_FSGSBASE, Access

Judged = tuple[Difference, str]

HANDLER_CODE, HANDLER_DATA = "handler's code", "handler's data"

# The entry of an event, and what it certainly calls.  Kernels before 6271fef00b34 ("x86/entry: Convert NMI to
# IDTENTRY_NMI") and 8cd501c1facc ("x86/entry: Convert Machine Check to IDTENTRY_IST"), both in v5.8, have other names.
_NMI, _MACHINE_CHECK = VECTORS[Event.NMI], VECTORS[Event.MACHINE_CHECK]
_BY_IDT = {
    _NMI: (("asm_exc_nmi", "exc_nmi", "paranoid_entry"), ("nmi", "do_nmi", "paranoid_entry")),
    _MACHINE_CHECK: (
        ("asm_exc_machine_check", "exc_machine_check", "paranoid_entry", "paranoid_exit"),
        ("machine_check", "do_mce", "do_machine_check", "paranoid_entry", "paranoid_exit"),
    ),
}
# By FRED all events of kernel mode have one entry (arch/x86/entry/entry_64_fred.S, entry_fred.c).
_BY_FRED = {
    _NMI: (("asm_fred_entrypoint_kernel", "fred_entry_from_kernel", "fred_exc_nmi"),),
    _MACHINE_CHECK: (("asm_fred_entrypoint_kernel", "fred_entry_from_kernel", "fred_exc_machine_check"),),
}
_FIRST_BYTES = 16
"""Bytes at the start of a function that it certainly executes."""
_CPU_NODE = 15 * 8
"""GDT_ENTRY_CPUNODE (arch/x86/include/asm/segment.h): its limit is the CPU's number, with the node above bit 12."""


@dataclass(frozen=True, slots=True)
class _Handler:
    """The code of an event in one kernel.

    Attributes:
        space: The kernel's memory.
        names: The names under which it was looked for, the newest first.
        symbols: The entry, and what it certainly calls; empty where no entry was found.
    """

    space: KernelSpace
    names: tuple[str, ...]
    symbols: tuple[SymbolView, ...]

    @property
    def place(self) -> tuple[int, int] | None:
        """Virtual and physical address of the entry."""
        if not self.symbols:
            return None
        return self.address(self.symbols[0]), self.space.image_physical(self.symbols[0].address)

    @property
    def absent(self) -> str:
        """That it was not found."""
        return f"{' or '.join(self.names)} is not among the symbols of {_release(self.space.kernel)}"

    def address(self, symbol: SymbolView) -> int:
        """Return the run-time address of a symbol."""
        return (symbol.address + self.space.kaslr_offset) & ADDRESS_MASK


def _release(kernel: KernelView) -> str:
    try:
        return kernel.release
    except MissingFact:
        return "the kernel"


def _handler(space: KernelSpace, vector: int, *, fred: bool) -> _Handler:
    ways = (_BY_FRED if fred else _BY_IDT)[vector]
    for names in ways:
        if space.kernel.symbol(names[0]) is not None:
            return _Handler(space, (names[0],), tuple(filter(None, map(space.kernel.symbol, names))))
    return _Handler(space, tuple(names[0] for names in ways), ())


def judge_handler(memory: Composite, delivery: Delivery, cpu: ParkedCpu) -> Judged:
    """Decide whether a delivery that ends in code ends in a handler that returns.

    Args:
        memory: Memory at that moment.
        delivery: It; its last access is the fetch of the code.
        cpu: The CPU.

    Returns:
        What it comes to, with the reason.
    """
    fetch, vector = delivery.accesses[-1].walk, delivery.raised[-1].vector
    if vector not in _BY_IDT:
        return Difference.FOREIGN, f"it ends in the handler of vector {vector}"
    overwritten = {access.role for access in delivery.accesses if any(map(memory.overwritten, access.walk.pfns))}
    where = delivery.rip, fetch.physical
    own = _handler(space_of(memory.resumer), vector, fred=_fred(cpu))
    if memory.resumee is not None and Role.HANDLER in overwritten:
        theirs = _handler(memory.resumee, vector, fred=_fred(cpu))
        if where == theirs.place:
            return _resumees(memory, cpu, theirs)
        if not theirs.symbols and where != own.place:
            return Difference.UNKNOWN, theirs.absent
    if where == own.place:
        return _own(memory, cpu, own, overwritten)
    if not own.symbols and Role.HANDLER not in overwritten and _in_image(own.space, fetch.physical):
        return Difference.UNKNOWN, own.absent
    if not overwritten:
        return Difference.INTACT, "its own handler is untouched"
    return Difference.FOREIGN, _lost(delivery.rip)


def gate_leads_astray(memory: Composite, delivery: Delivery, cpu: ParkedCpu) -> str | None:
    """Say why the IDT gate of an event leads to no handler, whatever the GDT and the TSS hold; None if it may."""
    first = delivery.accesses[0]
    vector = first.vector
    if first.role is not Role.IDT_GATE or not first.content or vector not in _BY_IDT:
        return None
    gate = int.from_bytes(first.content, "little")
    address = (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000) | (gate >> 32 & 0xFFFFFFFF << 32)
    found = known_walk(memory, cpu.context, address, Access.FETCH)
    if found.fault is not None:
        return _lost(address)
    spaces = (space_of(memory.resumer), memory.resumee)
    handlers = [_handler(space, vector, fred=False) for space in spaces if space is not None]
    open_ = found.physical is None or not all(one.symbols for one in handlers)
    return None if open_ or (address, found.physical) in {one.place for one in handlers} else _lost(address)


def _fred(cpu: ParkedCpu) -> bool:
    return cpu.entry is not None and cpu.entry.uses_fred


def _lost(address: int) -> str:
    return f"it jumps to {address:#x}, which is not a handler any more"


def _in_image(space: KernelSpace, physical: int | None) -> bool:
    try:
        return physical is not None and space.in_image(physical)
    except MissingFact:
        return False


# -- the resumer's own -------------------------------------------------------------------------------------------------


def _own(memory: Composite, cpu: ParkedCpu, handler: _Handler, overwritten: set[Role]) -> Judged:
    """Judge the resumer's own handler: its code, then what it reads."""
    harm = Difference.INTACT
    for symbol in handler.symbols:
        entry = symbol is handler.symbols[0]
        found = _code_of(memory, cpu, handler, symbol, _own_bytes(memory, handler, symbol))
        # What the file has may be patched in memory, but the first byte of an entry to which a gate leads is not.
        certain = _FIRST_BYTES if memory.resumer.exact else int(entry)
        difference = _executed(found, certain)
        if difference is Difference.FOREIGN:
            what = _lost(handler.address(symbol)) if entry else f"its own handler runs into other code at {symbol.name}"
            return difference, what
        if difference is Difference.UNKNOWN:
            return difference, f"whether {symbol.name}, which its own handler executes, is still whole"
        harm = max(harm, difference)
    if overwritten - {Role.STACK, Role.HANDLER}:
        return Difference.FOREIGN, "its own handler runs on per-CPU data that have been replaced"
    for name, difference in _data(memory, cpu, handler):
        if not difference.parks_again:
            return Difference.UNKNOWN, f"its own handler reads {name}, which has been replaced"
        harm = max(harm, difference)
    if Role.STACK in overwritten:
        return Difference.SAME, "its own handler runs, on a stack in memory that has been replaced"
    if harm is Difference.INTACT:
        return harm, "its own handler is untouched"
    return harm, "its own handler runs, in memory that has been replaced with the same"


def _own_bytes(memory: Composite, handler: _Handler, symbol: SymbolView) -> bytes | None:
    size = _size(handler, symbol)
    return None if size is None else memory.resumer.bytes_at(handler.address(symbol), size)


def _size(handler: _Handler, symbol: SymbolView) -> int | None:
    try:
        return symbol.size or handler.space.kernel.extent(symbol)
    except MissingFact:
        return None


def _code_of(
    memory: Composite, cpu: ParkedCpu, handler: _Handler, symbol: SymbolView, before: bytes | None
) -> list[Touched]:
    """Fetch a function, of which not all may be executed, page by page."""
    start, done = handler.address(symbol), 0
    found = []
    for address, size in pages_of(start, start + len(before or b"\0")):
        leaf = own_frame(memory.resumer, cpu.context, address)
        piece = None if before is None else before[done : done + size]
        one = touch(memory, cpu.context, HANDLER_CODE, address, size, Access.FETCH, leaf=leaf, before=piece)
        found.append(one)
        done += size
    return found


def _executed(pieces: list[Touched], certain: int) -> Difference:
    """Say what a function comes to, of which only the first bytes are certainly executed."""
    worst = Difference.INTACT
    for number, piece in enumerate(pieces):
        found = difference_of(piece).on_cold_tlb
        if piece.change is Change.SAME and piece.before is None:
            found = Difference.UNKNOWN
        elif piece.change is Change.CONTENT and piece.before is not None and piece.after is not None:
            lost = number == 0 and piece.before[:certain] != piece.after[:certain]
            found = Difference.FOREIGN if lost else Difference.UNKNOWN
        elif number and found is Difference.FOREIGN:
            found = Difference.UNKNOWN
        worst = max(worst, found)
    return worst


def _data(memory: Composite, cpu: ParkedCpu, handler: _Handler) -> Iterator[tuple[str, Difference]]:
    """Read what the handler of an offline CPU reads: where its area is, its number, and whether it is online."""
    kernel, number = handler.space.kernel, cpu.number
    area = cpu.context.gs_base if cpu.context.placed else None
    online = kernel.symbol("__cpu_online_mask")
    if online is not None:
        address = handler.address(online) + number // 64 * 8
        yield online.name, _kept(memory, cpu, address, 8, lambda word: not word >> number % 64 & 1)
    areas = kernel.symbol("__per_cpu_offset")
    if areas is not None and not _fred(cpu):
        yield areas.name, _kept(memory, cpu, handler.address(areas) + 8 * number, 8, lambda base: base == area)
    own = _number_place(kernel)
    if own is None and (online is not None or kernel.symbol("pcpu_hot") is not None):
        # A kernel for several CPUs has it, and this one does not say where.
        yield "its CPU's number", Difference.UNKNOWN
    elif own is not None:
        moved = 0 if kernel.percpu_zero_based else handler.space.kaslr_offset
        place = None if area is None else (area + own + moved) & ADDRESS_MASK
        known = Difference.UNKNOWN if place is None else _kept(memory, cpu, place, 4, lambda value: value == number)
        yield "its CPU's number", known


def _kept(memory: Composite, cpu: ParkedCpu, address: int, size: int, right: Callable[[int], bool]) -> Difference:
    """Say what data come to that must have a value."""
    leaf = own_frame(memory.resumer, cpu.context, address)
    found = touch(memory, cpu.context, HANDLER_DATA, address, size, Access.READ, leaf=leaf, before=None)
    if found.change is Change.INTACT:
        return Difference.INTACT
    if found.after is None or not right(int.from_bytes(found.after, "little")):
        return Difference.UNKNOWN
    return Difference.SAME


def _number_place(kernel: KernelView) -> int | None:
    """Return the address of a CPU's number in its per-CPU area: ``cpu_number``, or in ``pcpu_hot`` (6.2 to 6.14)."""
    own = kernel.symbol("cpu_number")
    if own is not None:
        return own.address
    hot = kernel.symbol("pcpu_hot")
    try:
        return None if hot is None else hot.address + kernel.offset_of("pcpu_hot", "cpu_number")
    except MissingFact:
        return None


# -- the resumee's -----------------------------------------------------------------------------------------------------


def _resumees(memory: Composite, cpu: ParkedCpu, handler: _Handler) -> Judged:
    """Judge the resumee's handler in its own place: its code, then whether it runs on the resumee's per-CPU area."""
    for symbol in handler.symbols:
        size = _size(handler, symbol)
        try:
            before = None if size is None else handler.space.read(handler.address(symbol), size)
        except MissingFact:
            before = None
        difference = _executed(_code_of(memory, cpu, handler, symbol, before), _FIRST_BYTES)
        if difference is Difference.FOREIGN:
            return difference, f"the resumee's handler runs on to {symbol.name}, which is not there"
        if difference is Difference.UNKNOWN:
            return difference, f"whether {symbol.name}, which the resumee's handler executes, is there"
    reason = _other_area(memory, cpu, handler.space)
    if reason is not None:
        return Difference.UNKNOWN, reason
    return Difference.SAME, "the resumee's own handler runs and returns"


def _other_area(memory: Composite, cpu: ParkedCpu, space: KernelSpace) -> str | None:
    """Say why the resumee's handler may not find the resumee's per-CPU area of the CPU; None if it does."""
    context, kept = cpu.context, "the resumee's handler keeps the GS base, which is the resumer's per-CPU area"
    if context.placed and context.gs_base is not None and context.gs_base == _area(space, cpu.number):
        return None  # both kernels have it at one address
    if _fred(cpu):
        return f"{kept}: delivery by FRED leaves it"
    sets = _sets(space)
    if sets is None:
        return (
            f"how the resumee's handler finds its per-CPU area: {_release(space.kernel)} has no paranoid_entry to read"
        )
    if not sets:
        return f"{kept}: without FSGSBASE it keeps what is negative"
    if cpu.entry is None or not cpu.entry.cr4 & CR4_FSGSBASE:
        return "the resumee's handler begins with RDGSBASE, and CR4.FSGSBASE is not known to be set in this CPU"
    number = _number_in_gdt(memory, cpu)
    if number != cpu.number:
        said = "does not have the CPU's number" if number is None else f"says that it is CPU {number}"
        return f"the resumee's handler finds its per-CPU area by the GDT, which {said}"
    return None


def _area(space: KernelSpace, cpu: int) -> int | None:
    try:
        return space.percpu_base(cpu)
    except MissingFact:
        return None


def _sets(space: KernelSpace) -> bool | None:
    symbol = space.kernel.symbol("paranoid_entry")
    if symbol is None:
        return None
    try:
        size = symbol.size or space.kernel.extent(symbol)
        return sets_gs_base(space.read((symbol.address + space.kaslr_offset) & ADDRESS_MASK, size))
    except MissingFact:
        return None


def _number_in_gdt(memory: Composite, cpu: ParkedCpu) -> int | None:
    """Read the CPU's number out of the GDT, as LSL does.

    RDPID is not used there: 6a3ea3e68b8a ("x86/entry/64: Do not use RDPID in paranoid entry to accomodate KVM", in
    v5.9).
    """
    assert cpu.entry is not None  # noqa: S101 - tested by who asks
    if cpu.entry.gdt_limit < _CPU_NODE + 7:
        return None
    found = known_walk(memory, cpu.context, cpu.entry.gdt_base + _CPU_NODE, Access.READ)
    try:
        raw = None if found.physical is None else read(memory, found.physical, 8)
    except UnknownMemory:
        return None
    if raw is None or not raw[5] >> 7:  # not present
        return None
    return int.from_bytes(raw[:2], "little") & 0xFFF
