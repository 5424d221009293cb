"""Running a parked CPU's code in an emulator, on the memory as it is at one moment: a second opinion on the model.

It needs unicorn (the extra ``emu``), which is QEMU's translator with its own page walk.  Two of its traits shape what
is done here, both measured with 2.1.4: its hook for unmapped memory does not fire for the page walk's own reads, so a
fault is looked at with our walk and the run is repeated with the missing tables; and after one exception it raises
#DF for the next, so that every repetition starts a fresh emulator.  It never delivers an exception: `exceptions` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from iced_x86 import Decoder, InstructionInfoFactory, OpAccess

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.children import ChildEnded, in_child
from hibercheck.data import replace
from hibercheck.errors import Unsupported
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.emulator import load_emulator, new_emulator
from hibercheck.x86.exceptions import Delivery, deliver
from hibercheck.x86.memory import MappedFrames, PhysicalMemory
from hibercheck.x86.paging import Access, Fault, Walk, walk

ENTRIES = 512
MAX_FRAMES = 4096
MAX_STORES = 256
TIMEOUT_MICROSECONDS = 10_000_000
"""A guard against a ``rep`` prefix with a count of 2**60; no run that ends takes so long."""

NOWHERE = 1 << 63
"""Where the emulator is told to stop: no CPU can get to an address that is not canonical."""

INVALID_OPCODE, PAGE_FAULT = 6, 14

# the instructions in which a CPU waits: HLT; MWAIT; IN al/eax from an immediate port or DX (a C-state's port)
_HLT = b"\xf4"
_WAITS = (_HLT, b"\x0f\x01\xc9", b"\xe4", b"\xe5", b"\xec", b"\xed")


class ExecutionEnd(StrEnum):
    """How a run ends."""

    WAITS_AGAIN = "waits again in its loop"
    LEAVES = "leaves its loop"
    FAULTS = "faults"
    HALTS_ELSEWHERE = "waits outside its loop"
    RUNS_ON = "runs on to the limit"
    STRAYS = "goes where it has cached nothing"
    UNKNOWN = "needs memory that is not known"


@dataclass(frozen=True, slots=True)
class Store:
    """A store that the CPU made: ``size`` bytes at a physical address, by the instruction at ``rip``."""

    physical: int
    size: int
    value: int
    rip: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of the CPU.

    Attributes:
        end: How the run ended.
        rip: The instruction it ended at.
        instructions: How many instructions were begun.
        waits: Addresses of the waiting instructions reached, in order.
        left: The first address outside the given ranges, or None if it never left them.
        fault: Vector, error code and reason, where it faults; the error code is our walk's, as the emulator gives none.
        cr2: The address of a page fault.
        delivery: What delivering that fault comes to, by the model.
        unknown_pfn: The frame that is not known, if that is the end.
        stores: Its first stores, at most `MAX_STORES`.
        agrees: Whether our own walk explains the fault the emulator raised; True where it raised none.
        reason: One line.
    """

    end: ExecutionEnd
    rip: int
    instructions: int
    waits: tuple[int, ...]
    left: int | None
    reason: str
    fault: Fault | None = None
    cr2: int | None = None
    delivery: Delivery | None = None
    unknown_pfn: int | None = None
    stores: tuple[Store, ...] = ()
    agrees: bool = True


def execute(
    memory: PhysicalMemory,
    cpu: CpuState,
    registers: Mapping[str, int],
    *,
    inside: Sequence[tuple[int, int]],
    limit: int = 4096,
    rounds: int = 3,
    follow: bool = True,
    uncached: PhysicalMemory | None = None,
) -> Execution:
    """Run a CPU from its parked registers, as if whatever it waits for had just happened.

    Args:
        memory: The frames as they are at this moment; it is not changed.
        cpu: Control registers, RIP, RSP, RFLAGS and tables.
        registers: The others by name, ``rax`` to ``r15``; one that is absent is 0.
        inside: Virtual ranges [start, end) of its park loop.
        limit: The largest number of instructions.
        rounds: How often it must wait again in its loop to be taken for parked.
        follow: Whether to go on after it has left the loop, until it faults, waits or reaches the limit.
        uncached: Where ``memory`` stands for what the CPU has cached: the memory itself, in which anything else is
            looked up, such as what an exception needs.

    Raises:
        UsageProblem: Unicorn is not installed.
        Unsupported: The memory is encrypted, the CPU is not in long mode, or the emulator ended instead of answering.
    """
    if cpu.encryption_mask:
        raise Unsupported("memory encryption cannot be emulated", advice="do without --execute")
    cpu.mode  # noqa: B018 - raises Unsupported for a CPU outside long mode, before anything is run
    load_emulator()
    try:
        # QEMU ends the process, with the status of a failed check, where it gets no memory; and hostile code runs in it
        return in_child(partial(_execute, memory, cpu, registers, inside, limit, rounds, follow, uncached))
    except (ChildEnded, MemoryError) as error:
        what = "the emulator ended without an answer: it got too little memory, or failed"
        raise Unsupported(what, advice="raise --max-memory, or do without --execute") from error


def _execute(
    memory: PhysicalMemory,
    cpu: CpuState,
    registers: Mapping[str, int],
    inside: Sequence[tuple[int, int]],
    limit: int,
    rounds: int,
    follow: bool,
    uncached: PhysicalMemory | None,
) -> Execution:
    """Run with ever more page tables mapped, until all are there that it needs."""
    frames: set[int] = set(_table_frames(memory, cpu))
    while True:
        run = _Run(memory, cpu, registers, inside, limit, rounds, follow, uncached)
        result = run.start(frames)
        if isinstance(result, Execution):
            return result
        if len(frames) > MAX_FRAMES or result <= frames:
            return run.result(ExecutionEnd.RUNS_ON, "the run needs too many page tables")
        frames |= result


def cached_tables(memory: PhysicalMemory, cpu: CpuState, addresses: Iterable[int]) -> MappedFrames:
    """Return the page tables of some addresses as a memory layer: what a CPU's TLB may still stand for.

    Laid over memory in which these tables have been overwritten it lets the CPU run on the translations that it has
    cached, and on no others: nobody flushes the TLB of a parked CPU, and a shallow MWAIT keeps it (SDM 3A 4.10
    "Caching Translation Information").

    Args:
        memory: The frames as they were when the CPU used them.
        cpu: The CPU.
        addresses: What it has accessed: its loop, its stack, its monitored line and so on.
    """
    entries: dict[int, dict[int, int]] = {}
    for address in addresses:
        for step in walk(memory, cpu.mode, cpu.cr3, address).steps:
            entries.setdefault(step.pfn, {})[step.index] = step.entry
    tables = {
        pfn: b"".join(known.get(index, 0).to_bytes(8, "little") for index in range(ENTRIES))
        for pfn, known in entries.items()
    }
    return MappedFrames(tables)


def _table_frames(memory: PhysicalMemory, cpu: CpuState) -> Iterable[int]:
    """Yield the known frames of the tables that are surely needed, so that the first run gets far."""
    for address in (cpu.rip, cpu.rsp, cpu.gdt_base, cpu.gs_base or cpu.rsp):
        done = walk(memory, cpu.mode, cpu.cr3, address)
        yield from (step.pfn for step in done.steps)


@dataclass(slots=True)
class _Run:
    """One attempt in one fresh emulator."""

    memory: PhysicalMemory
    cpu: CpuState
    registers: Mapping[str, int]
    inside: Sequence[tuple[int, int]]
    limit: int
    rounds: int
    follow: bool
    uncached: PhysicalMemory | None
    loaded: set[int] = field(default_factory=set)
    instructions: int = 0
    rip: int = 0
    waits: list[int] = field(default_factory=list)
    left: int | None = None
    stores: list[Store] = field(default_factory=list)
    interrupt: int | None = None
    cr2: int = 0
    unknown_pfn: int | None = None
    exhausted: bool = False
    stopped: bool = False
    uc: Any = None
    const: Any = None

    def start(self, frames: set[int]) -> Execution | set[int]:
        """Run; return the result, or the frames of page tables without which there is none."""
        self.uc, self.const, error_type = new_emulator(self.cpu, self.registers)
        for pfn in sorted(frames):
            self._load(pfn)
        self._hook()
        self.rip = self.cpu.rip
        address = self.cpu.rip
        error = None
        while error is None and not self._ended():
            before = self.instructions
            try:
                self.uc.emu_start(address, NOWHERE, timeout=TIMEOUT_MICROSECONDS, count=self.limit - self.instructions)
            except error_type as problem:
                error = problem
            # the emulator stops after a HLT, as if it had been woken at once we go on behind it
            address = self.uc.reg_read(self.const.UC_X86_REG_RIP)
            if self.instructions == before or not (self.waits and self.waits[-1] == self.rip):
                break
        return self._judge(error)

    def _ended(self) -> bool:
        return self.stopped or self.interrupt is not None or self.instructions >= self.limit

    def _load(self, pfn: int) -> bool:
        """Put a frame into the emulator; return whether its contents are known."""
        if pfn in self.loaded:
            return True
        content = self.memory.frame(pfn)
        if len(self.loaded) >= MAX_FRAMES:
            self.exhausted = True
            return False
        if content is None:
            self.unknown_pfn = pfn
            return False
        self.uc.mem_map(pfn << PAGE_SHIFT, PAGE_SIZE)
        self.uc.mem_write(pfn << PAGE_SHIFT, content)
        self.loaded.add(pfn)
        return True

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame as the emulator has it now, with the CPU's own stores: the memory to judge a fault by."""
        if pfn in self.loaded:
            return bytes(self.uc.mem_read(pfn << PAGE_SHIFT, PAGE_SIZE))
        return self.memory.frame(pfn)

    def _hook(self) -> None:
        const = self.const
        self.uc.hook_add(const.UC_HOOK_CODE, self._on_instruction)
        self.uc.hook_add(const.UC_HOOK_INTR, self._on_interrupt)
        self.uc.hook_add(const.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self.uc.hook_add(const.UC_HOOK_MEM_WRITE, self._on_store)

    def _on_instruction(self, _uc: Any, address: int, size: int, _data: object) -> None:  # noqa: ANN401
        if self.left is None and not self._is_inside(address):
            self.left = address
        if self.left is not None and not self.follow:
            self._stop(address)
            return
        self.instructions += 1
        self.rip = address
        if size <= 3 and self._bytes(address, size).startswith(_WAITS):
            self.waits.append(address)
            if self.left is not None or len(self.waits) >= self.rounds:
                self._stop(address)

    def _is_inside(self, address: int) -> bool:
        return any(start <= address < end for start, end in self.inside)

    def _stop(self, address: int) -> None:
        self.rip = address
        self.stopped = True
        self.uc.emu_stop()

    def _bytes(self, address: int, size: int) -> bytes:
        """Return the bytes of an instruction that is about to be executed."""
        done = walk(self, self.cpu.mode, self.cpu.cr3, address, Access.FETCH)
        if done.physical is None:
            return b""
        start = done.physical & (PAGE_SIZE - 1)
        return (self.frame(done.physical >> PAGE_SHIFT) or b"")[start : start + size]

    def _on_interrupt(self, uc: Any, number: int, _data: object) -> None:  # noqa: ANN401
        self.interrupt = number
        # read here: on its way out the emulator looks at the address where it is to stop, and that may fault too
        self.cr2 = uc.reg_read(self.const.UC_X86_REG_CR2)
        uc.emu_stop()

    def _on_unmapped(self, _uc: Any, _kind: int, address: int, size: int, _value: int, _data: object) -> bool:  # noqa: ANN401
        first, last = address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT
        return all(self._load(pfn) for pfn in range(first, last + 1))

    def _on_store(self, _uc: Any, _kind: int, address: int, size: int, value: int, _data: object) -> None:  # noqa: ANN401
        if len(self.stores) < MAX_STORES:
            self.stores.append(Store(address, size, value & ((1 << 8 * size) - 1), self.rip))

    def _judge(self, error: Exception | None) -> Execution | set[int]:
        if self.interrupt == PAGE_FAULT:
            return self._page_fault()
        if self.unknown_pfn is not None:
            return self.result(ExecutionEnd.UNKNOWN, f"the contents of PFN {self.unknown_pfn:#x} are not known")
        if self.exhausted:
            return self.result(ExecutionEnd.RUNS_ON, f"touches more than {MAX_FRAMES} frames")
        if self.interrupt is not None:
            return self._faults(Fault(self.interrupt, 0, "raised by the instruction"), None)
        if error is not None:
            return self._faults(Fault(INVALID_OPCODE, 0, f"no instruction, or none the emulator knows ({error})"), None)
        return self._ended_by_itself()

    def _ended_by_itself(self) -> Execution:
        if not self.stopped:
            return self.result(ExecutionEnd.RUNS_ON, f"runs on after {self.instructions} instructions")
        if not (self.waits and self.waits[-1] == self.rip):
            return self.result(ExecutionEnd.LEAVES, f"leaves its loop for {self.rip:#x}")
        if self._is_inside(self.rip):
            return self.result(ExecutionEnd.WAITS_AGAIN, f"waits again at {self.rip:#x}")
        return self.result(ExecutionEnd.HALTS_ELSEWHERE, f"waits at {self.rip:#x}, outside its loop")

    def _page_fault(self) -> Execution | set[int]:
        """Tell a fault of the modelled CPU from one that only comes of tables we have not given the emulator."""
        cr2 = self.cr2
        rip = self.uc.reg_read(self.const.UC_X86_REG_RIP)
        self.rip = rip
        walks = [self._walk(cr2, access) for access in Access]
        missing = {pfn for done in walks for pfn in done.table_pfns} - self.loaded
        if missing:
            unknown = next((pfn for pfn in sorted(missing) if self.memory.frame(pfn) is None), None)
            if unknown is None:
                return missing
            self.unknown_pfn = unknown
            return self.result(ExecutionEnd.UNKNOWN, f"the page table in PFN {unknown:#x} is not known")
        wanted = Access.FETCH if rip <= cr2 < rip + 16 else self._data_access(rip)
        fault = next(done.fault for done in walks if done.access is wanted)
        if fault is not None and self.uncached is not None:
            found = walk(self.uncached, self.cpu.mode, self.cpu.cr3, cr2, wanted, alignment_check=self._ac())
            if found.fault is None:
                return self.result(
                    ExecutionEnd.UNKNOWN, f"goes on at {cr2:#x}, which its own page tables lead to no more"
                )
            fault = found.fault
        if fault is None or fault.vector != PAGE_FAULT:
            return self._faults(Fault(PAGE_FAULT, 0, "the emulator faults where our walk does not"), cr2, agrees=False)
        return self._faults(fault, cr2)

    def _data_access(self, rip: int) -> Access:
        """Tell whether the instruction at ``rip`` writes memory; what it both reads and writes faults as a write."""
        instruction = Decoder(64, self._bytes(rip, 15), ip=rip).decode()
        written = (OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE)
        used = InstructionInfoFactory().info(instruction).used_memory()
        return Access.WRITE if any(memory.access in written for memory in used) else Access.READ

    def _walk(self, address: int, access: Access) -> Walk:
        return walk(self, self.cpu.mode, self.cpu.cr3, address, access, alignment_check=self._ac())

    def _ac(self) -> bool:
        return bool(self.uc.reg_read(self.const.UC_X86_REG_RFLAGS) & 1 << 18)

    def _faults(self, fault: Fault, cr2: int | None, *, agrees: bool = True) -> Execution:
        rsp = self.uc.reg_read(self.const.UC_X86_REG_RSP)
        cpu = replace(self.cpu, rip=self.rip, rsp=rsp)
        memory = self if self.uncached is None else self.uncached
        delivery = deliver(memory, cpu, fault.vector, error_code=fault.error_code, cr2=cr2, reason=fault.reason)
        reason = f"vector {fault.vector} at {self.rip:#x}: {fault.reason}"
        return self.result(ExecutionEnd.FAULTS, reason, fault=fault, cr2=cr2, delivery=delivery, agrees=agrees)

    def result(self, end: ExecutionEnd, reason: str, **more: Any) -> Execution:
        """Sum up the run."""
        return Execution(
            end=end,
            rip=self.rip,
            instructions=self.instructions,
            waits=tuple(self.waits),
            left=self.left,
            reason=reason,
            unknown_pfn=self.unknown_pfn,
            stores=tuple(self.stores),
            **more,
        )
