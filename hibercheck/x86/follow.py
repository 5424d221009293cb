"""Following a parked CPU's instructions by hand, as far as memory decides where they lead.

A park loop reads a few bytes and branches on them: was it told to halt, is it CPU 0 that is to come back?  Where these
bytes have been overwritten, so has the decision.  This follows the code with the registers and memory that are known
and knows when it does not know: a value that depends on anything else is None, and a branch on it ends the course.

Only what park loops consist of is understood (moves, comparisons, simple arithmetic, jumps, calls, the stack); any
other instruction ends the course as well.  Source: Intel SDM volume 2, the instructions by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from iced_x86 import ConditionCode, Decoder, Instruction, MemorySizeExt, Mnemonic, OpKind, Register, RegisterExt

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE
from hibercheck.data import dataclass, replace
from hibercheck.x86.flags import NOT_KNOWN, arithmetic, flags_of, holds
from hibercheck.x86.paging import Access

MAX_INSTRUCTION = 15
MAX_INSTRUCTIONS = 2048
"""A turn of a park loop, with what it calls, has a few dozen."""
LINE_SIZE = 64


class Unmapped(Exception):  # noqa: N818 - what becomes of an access, not an error shown to a user
    """An access goes where the CPU has no translation."""


class CourseEnd(StrEnum):
    """Why the course ends."""

    WAITS = "it waits again"
    FAULTS = "it faults"
    FOREIGN = "it comes upon other code"
    RUNS_ON = "it runs on"
    UNKNOWN = "it depends on what is not known"
    NOT_UNDERSTOOD = "an instruction is not understood"


@dataclass(frozen=True, slots=True)
class DataAccess:
    """A read or write of memory.

    Attributes:
        address: Virtual address.
        size: Bytes; 64 for what concerns a whole cache line.
        access: Read or write.
        value: What is read or written, or None where it is not known.
        by: The instruction.
    """

    address: int
    size: int
    access: Access
    value: int | None
    by: int


@dataclass(frozen=True, slots=True)
class Course:
    """Where a CPU goes.

    Attributes:
        end: Why the course ends.
        rip: The instruction that it ends at.
        fetched: (address, size) of the instructions, in order, each once.
        data: Accesses to memory, in order.
    """

    end: CourseEnd
    rip: int
    fetched: tuple[tuple[int, int], ...]
    data: tuple[DataAccess, ...]


Read = Callable[[int, int], "bytes | None"]
"""Bytes at a virtual address, None where they are not known; raises `Unmapped`."""


def follow(
    read: Read,
    registers: Mapping[str, int],
    rip: int,
    *,
    gs_base: int | None,
    gdt: tuple[int, int] | None,
    foreign: Callable[[int, int], bool],
) -> Course:
    """Follow a CPU until it waits a second time at the same instruction.

    Args:
        read: The memory.
        registers: General registers by name, ``rax`` to ``r15``; one that is absent is not known.
        rip: The first instruction.
        gs_base: What %gs holds.
        gdt: Base and limit of its GDT.
        foreign: Whether the instruction at (address, size) is not the one that used to be there.
    """
    return _Follower(read, registers, gs_base, gdt, foreign).run(rip)


class _UnknownError(Exception):
    """What happens depends on a value that is not known."""


_WAITS = frozenset({Mnemonic.HLT, Mnemonic.MWAIT, Mnemonic.MWAITX, Mnemonic.IN})
_NOTHING = frozenset(
    getattr(Mnemonic, name)
    for name in (
        *("NOP", "ENDBR64", "MFENCE", "LFENCE", "SFENCE", "PAUSE", "STI", "CLI", "CLD", "WBINVD", "HLT", "MWAIT"),
        *("MWAITX", "STAC", "CLAC", "OUT"),
    )
)
_LINE = frozenset({Mnemonic.CLFLUSH, Mnemonic.CLFLUSHOPT, Mnemonic.MONITOR, Mnemonic.MONITORX})


class _Follower:
    """The state of one CPU on its way."""

    def __init__(
        self,
        read: Read,
        registers: Mapping[str, int],
        gs_base: int | None,
        gdt: tuple[int, int] | None,
        foreign: Callable[[int, int], bool],
    ) -> None:
        self.gdt = gdt
        self.read = read
        self.foreign = foreign
        self.gs_base = gs_base
        self.registers: dict[int, int | None] = {
            getattr(Register, name.upper()): value for name, value in registers.items()
        }
        self.flags = NOT_KNOWN
        self.stores: dict[int, int | None] = {}
        self.fetched: dict[tuple[int, int], None] = {}
        self.data: list[DataAccess] = []
        self.waits: set[int] = set()
        self.rip = 0

    def run(self, rip: int) -> Course:
        self.rip = rip
        try:
            for _ in range(MAX_INSTRUCTIONS):
                end = self._step()
                if end is not None:
                    return self._course(end)
        except _UnknownError:
            return self._course(CourseEnd.UNKNOWN)
        except Unmapped:
            return self._course(CourseEnd.FAULTS)
        return self._course(CourseEnd.RUNS_ON)

    def _course(self, end: CourseEnd) -> Course:
        return Course(end, self.rip, tuple(self.fetched), tuple(self.data))

    def _step(self) -> CourseEnd | None:
        one = self._decode()
        if one.is_invalid:
            return CourseEnd.NOT_UNDERSTOOD
        self.fetched[self.rip, one.len] = None
        if self.foreign(self.rip, one.len):
            return CourseEnd.FOREIGN
        if one.mnemonic in _WAITS:
            if self.rip in self.waits:
                return CourseEnd.WAITS
            self.waits.add(self.rip)
        following = one.next_ip & ADDRESS_MASK
        if not (one.mnemonic in _NOTHING or self._moves(one) or self._computes(one)):
            target = self._goes(one, following)
            if target is None:
                return CourseEnd.NOT_UNDERSTOOD
            following = target
        self.rip = following
        return None

    def _decode(self) -> Instruction:
        """Decode the next instruction, which may cross into a page that is not there unless it is needed."""
        code = b""
        try:
            first = min(MAX_INSTRUCTION, PAGE_SIZE - self.rip % PAGE_SIZE)
            code = self._known(self.rip, first)
            if first < MAX_INSTRUCTION:
                code += self._known(self.rip + first, MAX_INSTRUCTION - first)
        except (Unmapped, _UnknownError):
            if not code or Decoder(64, code, ip=self.rip).decode().is_invalid:
                raise
        return Decoder(64, code, ip=self.rip).decode()

    def _known(self, address: int, size: int) -> bytes:
        content = self.read(address & ADDRESS_MASK, size)
        if content is None:
            raise _UnknownError
        return content

    # -- instructions ----------------------------------------------------------------------------------------------

    def _moves(self, one: Instruction) -> bool:
        """Execute a move, or a touch of memory; return whether it is one."""
        kind = one.mnemonic
        if kind in (Mnemonic.MOV, Mnemonic.MOVZX):
            self._set(one, 0, self._get(one, 1))
        elif kind in (Mnemonic.MOVSX, Mnemonic.MOVSXD):
            value, bits = self._get(one, 1), 8 * self._size(one, 1)
            self._set(one, 0, None if value is None else value - (value >> (bits - 1) << bits))
        elif kind == Mnemonic.LEA:
            self._set(one, 0, self._address(one))
        elif kind == Mnemonic.PUSH:
            self._push(self._get(one, 0))
        elif kind == Mnemonic.POP:
            self._set(one, 0, self._pop())
        elif kind in _LINE:
            monitor = kind in (Mnemonic.MONITOR, Mnemonic.MONITORX)
            address = self.registers.get(Register.RAX) if monitor else self._address(one)
            if address is not None:
                self._load(address & ~(LINE_SIZE - 1), LINE_SIZE)
        elif kind == Mnemonic.VERW:
            self._descriptor(self._get(one, 0))
        elif kind == Mnemonic.IN:
            self._write_register(one.op0_register, None)
        else:
            return False
        return True

    def _computes(self, one: Instruction) -> bool:
        """Execute arithmetic; return whether it is any that is understood."""
        kind = one.mnemonic
        if kind not in _COMPUTES:
            return False
        size = self._size(one, 0)
        if kind in (Mnemonic.INC, Mnemonic.DEC):
            result, flags = arithmetic(self._get(one, 0), 1, size, subtract=kind == Mnemonic.DEC)
            self.flags = replace(flags, cf=self.flags.cf)
            self._set(one, 0, result)
            return True
        first, second = self._get(one, 0), self._get(one, 1)
        if kind in (Mnemonic.XOR, Mnemonic.SUB) and _same_register(one):
            first = second = 0
        if kind in _LOGIC:
            result = None if first is None or second is None else _LOGIC[kind](first, second)
            self.flags = flags_of(result, size, carry=False, overflow=False)
        else:
            result, self.flags = arithmetic(first, second, size, subtract=kind != Mnemonic.ADD)
        if kind not in (Mnemonic.CMP, Mnemonic.TEST):
            self._set(one, 0, result)
        return True

    def _goes(self, one: Instruction, following: int) -> int | None:
        """Return where a jump, call or return leads, or None if it is not one of them."""
        kind = one.mnemonic
        if one.condition_code != ConditionCode.NONE and one.op0_kind == OpKind.NEAR_BRANCH64:
            taken = holds(self.flags, one.condition_code)
            if taken is None:
                raise _UnknownError
            return one.near_branch_target if taken else following
        if kind == Mnemonic.RET:
            target = self._pop()
        elif kind in (Mnemonic.JMP, Mnemonic.CALL):
            target = one.near_branch_target if one.op0_kind == OpKind.NEAR_BRANCH64 else self._get(one, 0)
            if kind == Mnemonic.CALL:
                self._push(following)
        else:
            return None
        if target is None:
            raise _UnknownError
        return target

    # -- operands --------------------------------------------------------------------------------------------------

    def _size(self, one: Instruction, number: int) -> int:
        kind = one.op_kind(number)
        if kind == OpKind.REGISTER:
            return int(RegisterExt.size(one.op_register(number)))
        return int(MemorySizeExt.size(one.memory_size)) if kind == OpKind.MEMORY else 8

    def _get(self, one: Instruction, number: int) -> int | None:
        kind = one.op_kind(number)
        if kind == OpKind.REGISTER:
            return self._read_register(one.op_register(number))
        if kind == OpKind.MEMORY:
            address = self._address(one)
            return None if address is None else self._load(address, self._size(one, number))
        return int(one.immediate(number)) & ADDRESS_MASK

    def _set(self, one: Instruction, number: int, value: int | None) -> None:
        if one.op_kind(number) == OpKind.REGISTER:
            self._write_register(one.op_register(number), value)
            return
        address = self._address(one)
        if address is None:
            raise _UnknownError  # it may have stored anywhere
        self._store(address, self._size(one, number), value)

    def _address(self, one: Instruction) -> int | None:
        """Return the address of the memory operand, or of a ``lea``."""
        based = self.gs_base if one.memory_segment == Register.GS and one.mnemonic != Mnemonic.LEA else 0
        # the decoder has already added RIP to the displacement of an operand that is relative to it
        parts = [based, one.memory_displacement]
        if one.memory_base != Register.NONE and not one.is_ip_rel_memory_operand:
            parts.append(self._read_register(one.memory_base))
        if one.memory_index != Register.NONE:
            index = self._read_register(one.memory_index)
            parts.append(None if index is None else index * one.memory_index_scale)
        known = [part for part in parts if part is not None]
        return sum(known) & ADDRESS_MASK if len(known) == len(parts) else None

    def _read_register(self, which: Any) -> int | None:  # noqa: ANN401 - iced's Register, an int
        value = self.registers.get(RegisterExt.full_register(which))
        if value is None:
            return None
        high = which in (Register.AH, Register.BH, Register.CH, Register.DH)
        return value >> (8 if high else 0) & ((1 << 8 * RegisterExt.size(which)) - 1)

    def _write_register(self, which: Any, value: int | None) -> None:  # noqa: ANN401 - as above
        full, size = RegisterExt.full_register(which), RegisterExt.size(which)
        if value is None or size >= 4:  # a 32-bit result clears the upper half
            self.registers[full] = None if value is None else value & ((1 << 8 * size) - 1)
            return
        shift = 8 if which in (Register.AH, Register.BH, Register.CH, Register.DH) else 0
        mask = ((1 << 8 * size) - 1) << shift
        before = self.registers.get(full)
        self.registers[full] = None if before is None else before & ~mask | value << shift & mask

    def _descriptor(self, selector: int | None) -> None:
        """Read the descriptor that a selector names, as VERW does even where only its side effect is wanted."""
        if self.gdt is None or selector is None or selector & 4 or selector & ~3 == 0:
            return
        base, limit = self.gdt
        if (selector | 7) <= limit:
            self._load(base + (selector & ~7), 8)

    # -- memory ----------------------------------------------------------------------------------------------------

    def _load(self, address: int, size: int) -> int | None:
        first = min(size, PAGE_SIZE - address % PAGE_SIZE)
        parts = [self.read(address, first)]
        if first < size:
            parts.append(self.read(address + first & ADDRESS_MASK, size - first))
        value: int | None = None
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            own = [self.stores.get(address + place, byte) for place, byte in enumerate(b"".join(known))]
            value = None if None in own else int.from_bytes(bytes(byte or 0 for byte in own), "little")
        self.data.append(DataAccess(address, size, Access.READ, value, self.rip))
        return value

    def _store(self, address: int, size: int, value: int | None) -> None:
        self.read(address, 1)  # raises Unmapped, as the page in which it ends does
        if address % PAGE_SIZE + size > PAGE_SIZE:
            self.read(address + size - 1 & ADDRESS_MASK, 1)
        for place in range(size):
            self.stores[address + place] = None if value is None else value >> 8 * place & 0xFF
        self.data.append(DataAccess(address, size, Access.WRITE, value, self.rip))

    def _push(self, value: int | None) -> None:
        stack = self.registers.get(Register.RSP)
        if stack is None:
            raise _UnknownError
        self.registers[Register.RSP] = (stack - 8) & ADDRESS_MASK
        self._store((stack - 8) & ADDRESS_MASK, 8, value)

    def _pop(self) -> int | None:
        stack = self.registers.get(Register.RSP)
        if stack is None:
            raise _UnknownError
        self.registers[Register.RSP] = (stack + 8) & ADDRESS_MASK
        return self._load(stack, 8)


def _same_register(one: Instruction) -> bool:
    both = one.op0_kind == OpKind.REGISTER and one.op1_kind == OpKind.REGISTER
    return both and one.op0_register == one.op1_register


_LOGIC: dict[int, Callable[[int, int], int]] = {
    Mnemonic.AND: lambda first, second: first & second,
    Mnemonic.TEST: lambda first, second: first & second,
    Mnemonic.OR: lambda first, second: first | second,
    Mnemonic.XOR: lambda first, second: first ^ second,
}
_COMPUTES = frozenset({*_LOGIC, Mnemonic.ADD, Mnemonic.SUB, Mnemonic.CMP, Mnemonic.INC, Mnemonic.DEC})
