"""One x86-64 instruction at a time, behind an interface small enough for another decoder to take its place.

Everything else in `hibercheck.kernel.code` sees only `Decoded` and `Operand`; nothing of iced-x86 leaves this file.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Any

from hibercheck.data import dataclass

MAX_INSTRUCTION = 15
"""Longest legal instruction, in bytes (SDM volume 2, section 2.3.11)."""

_U64 = (1 << 64) - 1


class Flow(StrEnum):
    """Where control goes after an instruction."""

    NEXT = "next"
    JUMP = "jump"
    BRANCH = "branch"
    CALL = "call"
    INDIRECT_JUMP = "indirect jump"
    INDIRECT_CALL = "indirect call"
    RETURN = "return"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Operand:
    """One memory access of an instruction, explicit or implied.

    Attributes:
        access: ``read``, ``write`` or ``read+write``.
        gs: Whether the address is relative to the GS base (per-CPU data in the kernel).
        base: Base register, its 64-bit name in lower case, or None.
        index: Index register, or None.
        scale: Factor of the index.
        displacement: Signed displacement; meaningless when ``address`` is set.
        address: The link-time address (relative to GS base 0 if ``gs``) when no register takes part in it.
        size: Bytes accessed; 0 where the instruction touches a line rather than an operand.
    """

    access: str
    gs: bool
    base: str | None
    index: str | None
    scale: int
    displacement: int
    address: int | None
    size: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction for a reader: where it is, how long, and how an assembler would write it."""

    address: int
    size: int
    text: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """An instruction for an analysis.

    Attributes:
        address: Link-time address.
        code: Its bytes.
        mnemonic: In lower case, without operand-size suffixes: ``mov``, ``monitor``, ``jne``.
        flow: Where control goes next.
        target: Destination of a direct jump, branch or call.
        operands: Memory it accesses; stack accesses of pushes, pops, calls and returns included.
        immediate: Its immediate operand, sign-extended to 64 bits and taken modulo 2**64.
        destination: Register it writes as its first operand (64-bit name), if any.
        source: Register it reads as its last operand (64-bit name), if any.
        written: Every register it writes (64-bit names).
        effective: For ``lea``: the address computed, as an `Operand`.
    """

    address: int
    code: bytes
    mnemonic: str
    flow: Flow
    target: int | None
    operands: tuple[Operand, ...]
    immediate: int | None
    destination: str | None
    source: str | None
    written: frozenset[str]
    effective: Operand | None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.code)

    @property
    def end(self) -> int:
        """Address of the byte after it."""
        return self.address + len(self.code)

    def render(self) -> Instruction:
        """The instruction in assembler syntax (AT&T, as kernel developers read it)."""
        return Instruction(self.address, self.size, _engine().text(self.code, self.address))


class _Iced:
    """The decoder proper.  iced-x86 decodes what capstone gets silently wrong (FRED, CLUI, WRMSRNS)."""

    def __init__(self) -> None:
        import iced_x86 as iced  # noqa: PLC0415 - 30 ms, paid only when code is read

        self._iced: Any = iced
        self._info = iced.InstructionInfoFactory()
        self._formatter = iced.Formatter(iced.FormatterSyntax.GAS)
        self._formatter.hex_prefix, self._formatter.hex_suffix = "0x", ""
        self._formatter.uppercase_hex = False
        self._formatter.branch_leading_zeros = False
        self._formatter.show_branch_size = False
        self._registers = {value: name.lower() for name, value in vars(iced.Register).items() if isinstance(value, int)}
        self._mnemonics = {value: name.lower() for name, value in vars(iced.Mnemonic).items() if isinstance(value, int)}
        flow = iced.FlowControl
        self._flows = {
            flow.NEXT: Flow.NEXT,
            flow.UNCONDITIONAL_BRANCH: Flow.JUMP,
            flow.CONDITIONAL_BRANCH: Flow.BRANCH,
            flow.CALL: Flow.CALL,
            flow.INDIRECT_BRANCH: Flow.INDIRECT_JUMP,
            flow.INDIRECT_CALL: Flow.INDIRECT_CALL,
            flow.RETURN: Flow.RETURN,
        }
        access = iced.OpAccess
        self._reads = {access.READ, access.COND_READ, access.READ_WRITE, access.READ_COND_WRITE}
        self._writes = {access.WRITE, access.COND_WRITE, access.READ_WRITE, access.READ_COND_WRITE}

    def decode(self, code: bytes, address: int) -> Decoded | None:
        """Decode the instruction that ``code`` starts with, or None where there is none."""
        iced = self._iced
        instruction = iced.Decoder(64, code, ip=address).decode()
        if instruction.is_invalid:
            return None
        info = self._info.info(instruction)
        flow = self._flows.get(instruction.flow_control, Flow.STOP)
        direct = flow in (Flow.JUMP, Flow.BRANCH, Flow.CALL)
        count = instruction.op_count
        kinds = [instruction.op_kind(index) for index in range(count)]
        registers = iced.OpKind.REGISTER
        return Decoded(
            address=address,
            code=code[: instruction.len],
            mnemonic=self._mnemonics[instruction.mnemonic],
            flow=flow,
            target=instruction.near_branch_target if direct else None,
            operands=tuple(self._operand(used) for used in info.used_memory()),
            immediate=self._immediate(instruction, kinds),
            destination=self._name(instruction.op_register(0)) if count and kinds[0] == registers else None,
            source=self._name(instruction.op_register(count - 1)) if count and kinds[-1] == registers else None,
            written=frozenset(
                name
                for used in info.used_registers()
                if used.access in self._writes and (name := self._name(used.register)) is not None
            ),
            effective=self._effective(instruction) if instruction.mnemonic == iced.Mnemonic.LEA else None,
        )

    def text(self, code: bytes, address: int) -> str:
        """The instruction in AT&T syntax."""
        return str(self._formatter.format(self._iced.Decoder(64, code, ip=address).decode()))

    def _name(self, register: int) -> str | None:
        if register == self._iced.Register.NONE:
            return None
        return self._registers[self._iced.RegisterExt.full_register(register)]

    def _immediate(self, instruction: Any, kinds: list[int]) -> int | None:  # noqa: ANN401 - foreign object
        first, last = self._iced.OpKind.IMMEDIATE8, self._iced.OpKind.IMMEDIATE32TO64
        for index, kind in enumerate(kinds):
            if first <= kind <= last:
                return int(instruction.immediate(index)) & _U64
        return None

    def _operand(self, used: Any) -> Operand:  # noqa: ANN401 - foreign object
        reads, writes = used.access in self._reads, used.access in self._writes
        access = "read+write" if reads and writes else "write" if writes else "read"
        size = self._iced.MemorySizeExt.size(used.memory_size)
        return self._place(used.segment, used.base, used.index, used.scale, used.displacement, access=access, size=size)

    def _effective(self, instruction: Any) -> Operand:  # noqa: ANN401 - foreign object
        base = instruction.memory_base
        if base == self._iced.Register.RIP:  # memory_displacement already is the absolute address
            base = self._iced.Register.NONE
        return self._place(
            instruction.memory_segment,
            base,
            instruction.memory_index,
            instruction.memory_index_scale,
            instruction.memory_displacement,
            access="read",
            size=0,
        )

    def _place(
        self, segment: int, base: int, index: int, scale: int, displacement: int, *, access: str, size: int
    ) -> Operand:
        none = self._iced.Register.NONE
        absolute = base == none and index == none
        signed = displacement - (1 << 64) if displacement >> 63 else displacement
        gs = segment == self._iced.Register.GS
        return Operand(
            access=access,
            gs=gs,
            base=self._name(base),
            index=self._name(index),
            scale=scale,
            displacement=signed,
            address=displacement & _U64 if absolute else None,
            size=size,
        )


@lru_cache(maxsize=1)
def _engine() -> _Iced:
    return _Iced()


def decode(code: bytes, address: int) -> Decoded | None:
    """Decode one instruction.

    Args:
        code: At most `MAX_INSTRUCTION` bytes starting with it; fewer at the end of a section.
        address: Its link-time address.

    Returns:
        The instruction, or None if the bytes are not one.
    """
    return _engine().decode(code[:MAX_INSTRUCTION], address)
