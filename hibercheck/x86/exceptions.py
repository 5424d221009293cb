"""Delivery of an event in 64-bit mode, access by access: IDT gate, code segment, TSS, stack, first fetch.

Every access is a page walk in the memory as it is at that moment.  An exception on the way is delivered in turn;
two that do not combine are a double fault, and an exception during that is a shutdown.

Section numbers are those of the 2019 edition of the Intel SDM (325462-070); the titles find them in any other.
- Gates and stack switching: 3A 6.14 "Exception and Interrupt Handling in 64-bit Mode"; volume 2, INT n, "Operation".
- Error codes: 3A 6.13.  Combination: 3A 6.15, "Interrupt 8 - Double Fault Exception", table 6-5.
- IDT, GDT and TSS are supervisor accesses whatever the privilege level, and SMAP holds for them whatever RFLAGS.AC:
  3A 4.6.1 "Determination of Access Rights".
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.memory import PhysicalMemory, UnknownMemory, read
from hibercheck.x86.paging import PAGE_FAULT, Access, PagingMode, Walk, as_far_as_known, walk

NMI, DOUBLE_FAULT, INVALID_TSS, NOT_PRESENT, STACK_FAULT, GENERAL_PROTECTION, MACHINE_CHECK = 2, 8, 10, 11, 12, 13, 18

CONTRIBUTORY = frozenset({0, 10, 11, 12, 13, 21})
"""Table 6-5: #DE, #TS, #NP, #SS, #GP; #CP since control-flow enforcement."""
PAGE_FAULTS = frozenset({14, 20})
"""Table 6-5: #PF and #VE."""
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21})

EXT, IDT = 1, 2
"""Bits of a selector error code (3A 6.13): EXT, the exception came while an event external to the program, or an
earlier exception, was being delivered, as is always so here; the index is one of the IDT.  QEMU's TCG never sets EXT
(do_interrupt64(), target/i386/tcg/seg_helper.c): where we say 0x11 its log has 0x10."""

MAX_EVENTS = 64
"""An exception storm that has not ended by then does not end."""
MAX_STACK_PAGES = 64
"""Kernel stacks have 4 pages (KASAN: 8) and a page that is not mapped below them."""


class Role(StrEnum):
    """What the CPU reads or writes for."""

    IDT_GATE = "IDT gate"
    CODE_SEGMENT = "GDT descriptor"
    TSS = "TSS stack pointer"
    STACK = "stack"
    HANDLER = "handler"


class DeliveryEnd(StrEnum):
    """How the delivery ends."""

    HANDLED = "the handler runs"
    SHUTDOWN = "the CPU shuts down"
    LOOPS = "the CPU faults without end"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class EventAccess:
    """One access that delivering an event makes.

    Attributes:
        role: What for.
        vector: The event that was being delivered.
        size: Bytes accessed from ``walk.address`` on (within one page).
        walk: Address, translation, or why not.
        content: The bytes read; None for a write or where the access failed.
    """

    role: Role
    vector: int
    size: int
    walk: Walk
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """An event, as QEMU's ``-d int`` prints it: the first is the one that started the delivery.

    Attributes:
        vector: 0 to 255.
        error_code: What is pushed, or None for a vector without one.
        cr2: The address of a page fault.
        rip: Where the CPU was: the return address that is pushed.
        rsp: Its stack pointer then.
        reason: One line.
    """

    vector: int
    error_code: int | None
    cr2: int | None
    rip: int
    rsp: int
    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Everything that delivering one event comes to.

    Attributes:
        end: How it ends.
        accesses: Every access in order.
        raised: Every event in order.  A shutdown has no entry of its own: the last is then the double fault, and
            ``reason`` says what failed in it.
        rip, rsp: Where the CPU is then: the handler's first instruction if it runs, else where it was.
        unknown_pfn: The frame whose contents are not known, if that is the end.
        reason: One line.
    """

    end: DeliveryEnd
    accesses: tuple[EventAccess, ...]
    raised: tuple[Raised, ...]
    rip: int
    rsp: int
    unknown_pfn: int | None
    reason: str

    @property
    def first_failure(self) -> EventAccess | None:
        """The first access that faults or is not known."""
        return next((access for access in self.accesses if access.walk.physical is None), None)


class _ExceptionRaised(Exception):  # noqa: N818 - an exception of the CPU, not of Python
    """An exception of the modelled CPU during delivery."""

    def __init__(self, vector: int, error_code: int, reason: str, cr2: int | None = None) -> None:
        self.vector = vector
        self.error_code = error_code
        self.reason = reason
        self.cr2 = cr2


def combine(first: int, second: int) -> int:
    """Return the vector that is delivered when ``second`` is raised during delivery of ``first``.

    SDM 3A table 6-5 "Conditions for Generating a Double Fault"; `DOUBLE_FAULT` for a pair that does not combine.
    """
    if first in PAGE_FAULTS and (second in PAGE_FAULTS or second in CONTRIBUTORY):
        return DOUBLE_FAULT
    if first in CONTRIBUTORY and second in CONTRIBUTORY:
        return DOUBLE_FAULT
    return second


def deliver(
    memory: PhysicalMemory,
    cpu: CpuState,
    vector: int,
    *,
    error_code: int | None = None,
    cr2: int | None = None,
    reason: str = "",
) -> Delivery:
    """Deliver an event to a CPU, with all that follows until a handler's first instruction is fetched.

    Args:
        memory: The frames as they are at this moment; the stack writes are not carried out.
        cpu: The CPU.
        vector: 2 for an NMI, 18 for a machine check, and so on.
        error_code: For a vector that has one.
        cr2: The address, for a page fault.
        reason: What caused the event, for the result.

    Returns:
        The accesses and exceptions in order, and how it ends.

    Raises:
        Unsupported: The CPU is not in long mode.
        MissingFact: It uses FRED and its MSRs are not known.
    """
    if cpu.uses_fred and cpu.fred is None:
        raise MissingFact("the CPU delivers events by FRED and its FRED MSRs are not known")
    return _Delivering(memory, cpu).run(_ExceptionRaised(vector, error_code or 0, reason, cr2))


class _Delivering:
    """The state of one delivery."""

    def __init__(self, memory: PhysicalMemory, cpu: CpuState) -> None:
        self.memory = memory
        self.cpu = cpu
        self.mode: PagingMode = cpu.mode
        self.rip, self.rsp = cpu.rip, cpu.rsp
        self.user = cpu.user
        self.fred = cpu.fred
        self.nested = False
        self.vector: int
        self.accesses: list[EventAccess] = []
        self.raised: list[Raised] = []
        self.missed_handlers: dict[int, int] = {}
        self.exhausted: set[int] = set()

    def run(self, event: _ExceptionRaised) -> Delivery:
        try:
            for _ in range(MAX_EVENTS):
                following = self._one(event)
                if following is None:
                    return self._end(DeliveryEnd.HANDLED, f"the handler of vector {event.vector} runs")
                event = following
        except _ShutdownError as shutdown:
            return self._end(DeliveryEnd.SHUTDOWN, str(shutdown))
        except UnknownMemory as unknown:
            return self._end(DeliveryEnd.UNKNOWN, str(unknown), unknown.pfn)
        except _StormError as storm:
            return self._end(DeliveryEnd.LOOPS, str(storm))
        return self._end(DeliveryEnd.LOOPS, f"more than {MAX_EVENTS} exceptions")

    def _end(self, end: DeliveryEnd, reason: str, unknown_pfn: int | None = None) -> Delivery:
        return Delivery(end, tuple(self.accesses), tuple(self.raised), self.rip, self.rsp, unknown_pfn, reason)

    def _one(self, event: _ExceptionRaised) -> _ExceptionRaised | None:
        """Deliver one event; return the one to deliver next, or None when the handler runs."""
        self.vector = event.vector
        has_code = event.vector in WITH_ERROR_CODE
        self.raised.append(
            Raised(event.vector, event.error_code if has_code else None, event.cr2, self.rip, self.rsp, event.reason)
        )
        try:
            rip, rsp = self._by_fred() if self.cpu.uses_fred else self._through_idt()
        except _ExceptionRaised as second:
            self.nested = True
            if event.vector == DOUBLE_FAULT:
                raise _ShutdownError(f"during the double fault: {second.reason}") from second
            vector = combine(event.vector, second.vector)
            if vector == DOUBLE_FAULT:
                return _ExceptionRaised(DOUBLE_FAULT, 0, f"during vector {event.vector}: {second.reason}")
            return second
        self.rip, self.rsp, self.user = rip, rsp, False
        return self._fetch_handler()

    def _fetch_handler(self) -> _ExceptionRaised | None:
        """Fetch the handler's first byte.  Delivery is complete: a fault here is a new one and no double fault."""
        try:
            self._access(Role.HANDLER, self.rip, 1, Access.FETCH)
        except _ExceptionRaised as fault:
            if self.rip in self.missed_handlers:
                self._fill_stack(self.missed_handlers[self.rip])
            self.missed_handlers[self.rip] = self.rsp
            return fault
        return None

    def _fill_stack(self, previous_rsp: int) -> None:
        """Move the stack pointer to where a handler that can never be fetched has pushed it.

        Each new fault pushes another frame below the last one, over whatever lies there, until a push faults.
        """
        page = self.rsp & ~(PAGE_SIZE - 1)
        step = previous_rsp - self.rsp
        for _ in range(MAX_STACK_PAGES):
            if step <= 0 or page in self.exhausted:
                raise _StormError(f"the handler at {self.rip:#x} can never be fetched")
            below = self._walk(page - 8, Access.WRITE, stack=True)
            if below.unknown_pfn is not None:
                raise UnknownMemory(below.unknown_pfn)
            if below.fault is not None:
                self.exhausted.add(page)
                self.rsp -= (self.rsp - page) // step * step
                return
            page -= PAGE_SIZE
        raise _StormError(f"the handler at {self.rip:#x} can never be fetched; its faults fill memory downwards")

    def _through_idt(self) -> tuple[int, int]:
        """Return RIP and RSP after delivery through the IDT."""
        cpu, vector = self.cpu, self.vector
        selector_code = 8 * vector + IDT + EXT
        if 16 * vector + 15 > cpu.idt_limit:
            raise _ExceptionRaised(GENERAL_PROTECTION, selector_code, f"vector {vector} is beyond the IDT's limit")
        gate = int.from_bytes(self._access(Role.IDT_GATE, cpu.idt_base + 16 * vector, 16, Access.READ), "little")
        if (gate >> 40) & 0x1F not in (0xE, 0xF):
            raise _ExceptionRaised(GENERAL_PROTECTION, selector_code, f"gate {vector} is not an interrupt or trap gate")
        if not gate >> 47 & 1:
            raise _ExceptionRaised(NOT_PRESENT, selector_code, f"gate {vector} is not present")
        privilege = self._check_code_segment((gate >> 16) & 0xFFFF)
        handler = (gate & 0xFFFF) | (gate >> 32 & 0xFFFF0000) | (gate >> 32 & 0xFFFFFFFF << 32)
        rsp = self._stack_pointer((gate >> 32) & 7, privilege)
        quads = 6 if vector in WITH_ERROR_CODE else 5
        rsp = self._push(rsp & ~0xF, 8 * quads)
        if not self.mode.is_canonical(handler):
            raise _ExceptionRaised(GENERAL_PROTECTION, EXT, f"the handler {handler:#x} is not canonical")
        return handler, rsp

    def _check_code_segment(self, selector: int) -> int:
        """Read and check the descriptor of the handler's code segment; return its privilege level.

        The LDT is taken to be empty: no kernel puts its entry code there.
        """
        code = (selector & ~3) + EXT
        if selector & ~3 == 0:
            raise _ExceptionRaised(GENERAL_PROTECTION, EXT, "the gate's code segment is null")
        if selector & 4 or (selector | 7) > self.cpu.gdt_limit:
            raise _ExceptionRaised(GENERAL_PROTECTION, code, f"selector {selector:#x} is beyond the GDT's limit")
        raw = self._access(Role.CODE_SEGMENT, self.cpu.gdt_base + (selector & ~7), 8, Access.READ)
        descriptor = int.from_bytes(raw, "little")
        conforming = bool(descriptor >> 42 & 1)
        privilege = descriptor >> 45 & 3
        current = 3 if self.user else 0
        is_code = descriptor >> 43 & 3 == 3  # S, and the code bit of the type
        if not is_code or privilege > current:
            raise _ExceptionRaised(
                GENERAL_PROTECTION, code, f"selector {selector:#x} is not a code segment that can be entered"
            )
        if not descriptor >> 47 & 1:
            raise _ExceptionRaised(NOT_PRESENT, code, f"code segment {selector:#x} is not present")
        if descriptor >> 53 & 3 != 1:  # L set, D clear
            raise _ExceptionRaised(GENERAL_PROTECTION, code, f"code segment {selector:#x} is not 64-bit")
        return current if conforming else privilege

    def _stack_pointer(self, ist: int, privilege: int) -> int:
        """Return the stack pointer before the pushes (SDM 3A 6.14.2, 6.14.4, 6.14.5)."""
        if not ist and not (self.user and privilege < 3):
            return self.rsp
        # struct of the 64-bit TSS: u32 reserved; u64 rsp[3]; u64 reserved; u64 ist[7]    SDM 3A figure 7-11
        offset = 0x24 + 8 * (ist - 1) if ist else 4 + 8 * privilege
        if offset + 7 > self.cpu.tr_limit:
            raise _ExceptionRaised(INVALID_TSS, (self.cpu.tr & ~3) + EXT, "the stack pointer is beyond the TSS's limit")
        raw = self._access(Role.TSS, self.cpu.tr_base + offset, 8, Access.READ)
        rsp = int.from_bytes(raw, "little")
        if not self.mode.is_canonical(rsp):
            raise _ExceptionRaised(STACK_FAULT, EXT, f"the stack pointer {rsp:#x} of the TSS is not canonical")
        return rsp

    def _by_fred(self) -> tuple[int, int]:
        """Return RIP and RSP after FRED event delivery (FRED specification 5.1, revision 5.0): no table is read."""
        fred = self.fred
        assert fred is not None  # noqa: S101 - deliver() has refused it
        entry = (fred.config & ~0xFFF) + (0 if self.user else 256)
        if self.user and not self.nested and self.vector != DOUBLE_FAULT:
            level = 0
        elif self.vector < 32:
            level = fred.stack_levels >> (2 * self.vector) & 3
        else:
            level = fred.config >> 9 & 3
        current = fred.config & 3
        if self.user or level > current:
            rsp = fred.stacks[level]
        else:
            level = current
            rsp = (self.rsp - (fred.config & 0x1C0)) & ~0x3F
        rsp = self._push(rsp, 64)
        self.fred = replace(fred, config=fred.config & ~3 | level)
        return entry, rsp

    def _push(self, rsp: int, size: int) -> int:
        """Write ``size`` bytes below ``rsp``, top first; return the new stack pointer."""
        low = rsp - size
        while rsp > low:
            # in each page the highest quad is written first: its address is what a fault reports
            self._access(Role.STACK, rsp - 8, 8, Access.WRITE)
            rsp = max(low, (rsp - 8) & ~(PAGE_SIZE - 1))
        return low & ADDRESS_MASK

    def _access(self, role: Role, address: int, size: int, access: Access) -> bytes:
        """Do one access, page by page; return what is read (nothing for a write).

        Raises:
            _ExceptionRaised: It faults.
            UnknownMemory: A frame on the way, or the one read, is not known.
        """
        parts = []
        while size > 0:
            address &= ADDRESS_MASK
            part = min(size, PAGE_SIZE - address % PAGE_SIZE)
            done = self._walk(address, access, stack=role is Role.STACK)
            content = None
            try:
                if done.physical is not None and access is not Access.WRITE:
                    content = read(self.memory, done.physical, part)
            finally:
                self.accesses.append(EventAccess(role, self.vector, part, done, content))
            self._check(role, done)
            parts.append(content or b"")
            address, size = address + part, size - part
        return b"".join(parts)

    def _walk(self, address: int, access: Access, *, stack: bool) -> Walk:
        return as_far_as_known(self.memory, walk(self.memory, self.mode, self.cpu.cr3, address, access, stack=stack))

    def _check(self, role: Role, done: Walk) -> None:
        if done.unknown_pfn is not None:
            raise UnknownMemory(done.unknown_pfn)
        if done.fault is not None:
            reason = f"{role} at {done.address:#x}: {done.fault.reason}"
            is_page_fault = done.fault.vector == PAGE_FAULT
            code = done.fault.error_code if is_page_fault or role is Role.HANDLER else EXT
            raise _ExceptionRaised(done.fault.vector, code, reason, done.address if is_page_fault else None)


class _StormError(Exception):
    """The CPU faults on and on."""


class _ShutdownError(Exception):
    """An exception during the double fault."""
