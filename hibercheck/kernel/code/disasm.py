"""One x86-64 instruction at a time, behind an interface small enough for another decoder to take its place.

Everything else in `hibercheck.kernel.code` sees only `Decoded` and `Operand`; nothing of iced-x86 leaves this file.
"""

from __future__ import annotations

from enum import StrEnum, auto
from functools import cached_property, lru_cache
from typing import Any

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.data import dataclass
from hibercheck.kernel.code.model import Instruction

MAX_INSTRUCTION = 15
"""Longest legal instruction, in bytes (SDM volume 2, section 2.3.11)."""


class Flow(StrEnum):
    """Where control goes after an instruction."""

    NEXT = auto()
    JUMP = auto()
    BRANCH = auto()
    CALL = auto()
    INDIRECT_JUMP = "indirect jump"
    INDIRECT_CALL = "indirect call"
    RETURN = auto()
    STOP = auto()


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


class Decoded:
    """An instruction for an analysis.

    Reading a function takes only where control goes; what else an instruction does is worked out if somebody asks.

    Attributes:
        address: Link-time address.
        code: Its bytes.
        flow: Where control goes next.
        target: Destination of a direct jump, branch or call.
    """

    def __init__(self, address: int, code: bytes, flow: Flow, target: int | None, decoded: Any) -> None:  # noqa: ANN401
        self.address = address
        self.code = code
        self.flow = flow
        self.target = target
        self._decoded = decoded  # the foreign object, which only `_Iced` understands

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.code)

    @property
    def end(self) -> int:
        """Address of the byte after it."""
        return self.address + len(self.code)

    @cached_property
    def mnemonic(self) -> str:
        """In lower case, without operand-size suffixes: ``mov``, ``monitor``, ``jne``."""
        return _engine().mnemonic(self._decoded)

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """Memory it accesses; stack accesses of pushes, pops, calls and returns included."""
        return _engine().operands(self._decoded)

    @cached_property
    def immediate(self) -> int | None:
        """Its immediate operand, sign-extended to 64 bits and taken modulo 2**64."""
        return _engine().immediate(self._decoded)

    @property
    def destination(self) -> str | None:
        """Register it writes as its first operand (64-bit name), if any."""
        return _engine().register(self._decoded, 0)

    @property
    def source(self) -> str | None:
        """Register it reads as its last operand (64-bit name), if any."""
        return _engine().register(self._decoded, -1)

    @cached_property
    def written(self) -> frozenset[str]:
        """Every register it writes (64-bit names)."""
        return _engine().written(self._decoded)

    @cached_property
    def effective(self) -> Operand | None:
        """For ``lea``: the address computed, as an `Operand`."""
        return _engine().effective(self._decoded)

    def render(self) -> Instruction:
        """Return the instruction in assembler syntax (AT&T, as kernel developers read it)."""
        return Instruction(self.address, self.size, _engine().text(self._decoded))


class _Iced:
    """The decoder proper.  iced-x86 decodes what capstone gets silently wrong (FRED, CLUI, WRMSRNS)."""

    def __init__(self) -> None:
        import iced_x86 as iced  # noqa: PLC0415 - 30 ms, paid only when code is read

        self._iced: Any = iced
        self._decoder = iced.Decoder
        self._info = iced.InstructionInfoFactory()
        self._formatter = iced.Formatter(iced.FormatterSyntax.GAS)
        self._formatter.uppercase_hex = False
        self._formatter.branch_leading_zeros = False
        self._registers = _names(iced.Register)
        self._mnemonics = _names(iced.Mnemonic)
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
        self._both = {access.READ_WRITE, access.READ_COND_WRITE}
        self._writes = {access.WRITE, access.COND_WRITE, *self._both}

    def decode(self, code: bytes, address: int, bits: int) -> Decoded | None:
        """Decode the instruction that ``code`` starts with, or None where there is none."""
        instruction = self._decoder(bits, code, ip=address).decode()
        if instruction.is_invalid:
            return None
        flow = self._flows.get(instruction.flow_control, Flow.STOP)
        direct = flow is Flow.JUMP or flow is Flow.BRANCH or flow is Flow.CALL
        target = instruction.near_branch_target if direct else None
        return Decoded(address, code[: instruction.len], flow, target, instruction)

    def mnemonic(self, instruction: Any) -> str:  # noqa: ANN401 - foreign object
        """See `Decoded.mnemonic`, and so on."""
        return self._mnemonics[instruction.mnemonic].lower()

    def operands(self, instruction: Any) -> tuple[Operand, ...]:  # noqa: ANN401 - foreign object
        return tuple(self._operand(used) for used in self._info.info(instruction).used_memory())

    def register(self, instruction: Any, which: int) -> str | None:  # noqa: ANN401 - foreign object
        count = instruction.op_count
        return self._name(instruction.op_register(which % count)) if count else None

    def written(self, instruction: Any) -> frozenset[str]:  # noqa: ANN401 - foreign object
        used = self._info.info(instruction).used_registers()
        names = [self._name(one.register) for one in used if one.access in self._writes]
        return frozenset(name for name in names if name is not None)

    def text(self, instruction: Any) -> str:  # noqa: ANN401 - foreign object
        return str(self._formatter.format(instruction))

    def _name(self, register: int) -> str | None:
        if register == self._iced.Register.NONE:
            return None
        return self._registers[self._iced.RegisterExt.full_register(register)].lower()

    def immediate(self, instruction: Any) -> int | None:  # noqa: ANN401 - foreign object
        first, last = self._iced.OpKind.IMMEDIATE8, self._iced.OpKind.IMMEDIATE32TO64
        for index in range(instruction.op_count):
            if first <= instruction.op_kind(index) <= last:
                return int(instruction.immediate(index)) & ADDRESS_MASK
        return None

    def _operand(self, used: Any) -> Operand:  # noqa: ANN401 - foreign object
        access = "write" if used.access in self._writes else "read"
        if used.access in self._both:
            access = "read+write"
        size = self._iced.MemorySizeExt.size(used.memory_size)
        return self._place(used.segment, used.base, used.index, used.scale, used.displacement, access=access, size=size)

    def effective(self, instruction: Any) -> Operand | None:  # noqa: ANN401 - foreign object
        if instruction.mnemonic != self._iced.Mnemonic.LEA:
            return None
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
            address=displacement & ADDRESS_MASK if absolute else None,
            size=size,
        )


def _names(constants: Any) -> dict[int, str]:  # noqa: ANN401 - a module of constants
    return {value: name for name, value in vars(constants).items() if isinstance(value, int)}


@lru_cache(maxsize=1)
def _engine() -> _Iced:
    return _Iced()


def decode(code: bytes, address: int, *, bits: int = 64) -> Decoded | None:
    """Decode one instruction.

    Args:
        code: Bytes that start with it: `MAX_INSTRUCTION`, or fewer at the end of a section.
        address: Its link-time address; one above 4 GiB is cut off in targets of 32-bit code.
        bits: Of the code segment: 64, or 32 for what runs without paging.

    Returns:
        The instruction, or None if the bytes are not one.
    """
    return _engine().decode(code, address, bits)
