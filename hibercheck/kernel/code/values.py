"""Small readings of a function that several traits share: what it stores where, what it calls, how to quote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.data import dataclass
from hibercheck.kernel.code.disasm import MAX_INSTRUCTION, Decoded, Flow
from hibercheck.kernel.code.model import Evidence
from hibercheck.kernel.code.program import Function, Program

_LOOK_BACK = 24
"""Instructions searched for the definition of a register; compilers set one up close to its use."""

_ARGUMENT_LOOK_BACK = 32
"""Instructions searched for what sets up an argument of a call."""

_KEPT_BY_CALLS = frozenset({"rbx", "rbp", "r12", "r13", "r14", "r15"})
"""Registers that a called function gives back (System V ABI, section 3.2.1)."""

_U32 = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Store:
    """A store to a fixed address.

    Attributes:
        node: The instruction.
        address: Where it stores.
        value: What, if that is a constant; else None.
    """

    node: Decoded
    address: int
    value: int | None


def quote(function: Function, node: Decoded, note: str = "") -> Evidence:
    """Evidence that shows one instruction of a function."""
    text = node.render().text
    return Evidence(function.name, node.address, f"{text}  # {note}" if note else text)


def quote_call(program: Program, function: Function, address: int) -> Evidence:
    """Evidence that shows a call or tail jump, with the name of what it goes to."""
    node = function.nodes[address]
    target = function.calls()[address]
    return Evidence(function.name, address, f"{'call' if node.flow is Flow.CALL else 'jmp'} {program.name(target)}")


def absent(symbol: str, what: str = "the kernel has no such symbol") -> Evidence:
    """Evidence that something is not there."""
    return Evidence(symbol, None, what)


def stores(function: Function) -> Iterator[Store]:
    """Yield stores of the function to fixed addresses, with the constant stored where there is one."""
    by_end = {node.end: node for node in function}
    for node in function:
        if node.mnemonic not in ("mov", "xchg"):
            continue
        for operand in node.operands:
            if "write" in operand.access and operand.address is not None and not operand.gs:
                value = node.immediate if node.immediate is not None else constant(node, node.source, by_end)
                yield Store(node, operand.address, value)


def constant(node: Decoded, register: str | None, by_end: dict[int, Decoded]) -> int | None:
    """Return the constant in a register at an instruction, from the straight-line code before it; None if unknown."""
    before = by_end.get(node.address)
    for _ in range(_LOOK_BACK):
        if before is None or register is None or before.flow is not Flow.NEXT:
            return None
        if register in before.written:
            return _defined(before)
        before = by_end.get(before.address)
    return None


def argument(function: Function, call: int, register: str | None) -> int | None:
    """Return the constant that a register holds at a call, from the code before it; None if that does not say.

    Unlike `constant` it follows copies of registers, past calls where they are kept, and the way not taken of branches.
    """
    before = previous(function, call)
    for _ in range(_ARGUMENT_LOOK_BACK):
        if before is None or register is None:
            return None
        if before.flow is Flow.CALL:
            if register not in _KEPT_BY_CALLS:
                return None
        elif before.flow not in (Flow.NEXT, Flow.BRANCH):
            return None
        elif register in before.written:
            if before.effective is not None:
                return before.effective.address
            if before.mnemonic != "mov" or before.operands:
                return None
            if before.immediate is not None:
                return before.immediate
            register = before.source
        before = previous(function, before.address)
    return None


def previous(function: Function, address: int) -> Decoded | None:
    """Return the instruction of a function that ends at an address."""
    starts = range(address - 1, address - MAX_INSTRUCTION - 1, -1)
    return next((node for at in starts if (node := function.nodes.get(at)) is not None and node.end == address), None)


def _defined(node: Decoded) -> int | None:
    """Return the constant that an instruction gives its destination, or None."""
    if node.mnemonic == "mov" and not node.operands:
        return node.immediate
    if node.mnemonic == "lea" and node.effective is not None:
        return node.effective.address
    if node.mnemonic == "xor" and node.destination == node.source:
        return 0
    return None


def references(function: Function, start: int, size: int = 1) -> list[Decoded]:
    """Instructions that name an address in ``[start, start + size)``: as memory, as an immediate, or by LEA.

    Displacements off a register count too: ``-0x7c30a800(%rax)`` names a per-CPU or an array symbol.
    """
    return [node for node in function if any(start <= named < start + size for named in named(node))]


def named(node: Decoded) -> Iterator[int]:
    """Every address that an instruction could name."""
    operands = [*node.operands, *([node.effective] if node.effective is not None else [])]
    for operand in operands:
        value = operand.address if operand.address is not None else operand.displacement
        yield value & ADDRESS_MASK
    if node.immediate is not None:
        yield node.immediate


def calls_to(function: Function, targets: Iterable[int | None]) -> list[int]:
    """Addresses of the calls and tail jumps to any of some functions."""
    wanted = {target for target in targets if target is not None}
    return sorted(address for address, target in function.calls().items() if target in wanted)


def closure(program: Program, roots: Iterable[int | None], stop: Iterable[int | None], depth: int) -> list[Function]:
    """Return the functions at ``roots`` and what they call, ``depth`` levels down, without those in ``stop``."""
    barred = {target for target in stop if target is not None}
    seen: dict[int, Function] = {}
    level = [root for root in roots if root is not None]
    for _ in range(depth + 1):
        following: list[int] = []
        for entry in level:
            if entry in seen or entry in barred or program.is_thunk(entry) or program.is_noise(entry):
                continue
            seen[entry] = function = program.function(entry)
            following.extend(function.calls().values())
        level = following
    return list(seen.values())


def returned_factor(function: Function) -> int | None:
    """Return the factor of a function of one argument that returns ``a + factor * argument``, or None.

    Compilers spell a product as LEA, SHL and ADD where the factor has few bits.  One by IMUL names it, and is for the
    caller to read.
    """
    factors = {"rdi": 1}
    for node in function:
        if node.flow is Flow.RETURN:
            break
        if node.flow is Flow.CALL and factors == {"rdi": 1}:  # of __fentry__, which keeps everything
            continue
        if node.flow is not Flow.NEXT:
            return None
        made = _factor_of(node, factors)
        for register in node.written:
            factors.pop(register, None)
        if made is not None and node.destination is not None:
            factors[node.destination] = made
    return factors.get("rax")


def _factor_of(node: Decoded, factors: Mapping[str, int]) -> int | None:
    """Return the factor of the argument in what an instruction writes; None where that is nothing of the kind."""
    own, other = factors.get(node.destination or "", 0), factors.get(node.source or "", 0)
    shift = node.immediate or 0
    if node.effective is not None:
        place = node.effective
        return factors.get(place.base or "", 0) + place.scale * factors.get(place.index or "", 0)
    values = {
        "mov": 0 if node.immediate is not None else other,
        "movsxd": other,
        "movsx": other,
        "add": own if node.immediate is not None else own + other,
        "sub": own if node.immediate is not None else own - other,
        "shl": own << (shift & 63),  # as the processor counts
    }
    return None if any(one.access != "write" for one in node.operands) else values.get(node.mnemonic)


def low32(value: int) -> int:
    """Return the low 32 bits of a sign-extended immediate."""
    return value & _U32


def wide(immediate: int | None) -> bool:
    """Tell whether an immediate is a word of 64 bits: no number of 32 bits, sign-extended or not."""
    return immediate is not None and (1 << 32) <= immediate < (1 << 64) - (1 << 31)
