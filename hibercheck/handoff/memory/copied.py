"""The loop of a CPU that waits outside its kernel, read out of the memory in which it waits."""

from __future__ import annotations

from itertools import pairwise

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.dump.registers import CpuRegisters
from hibercheck.handoff.memory.exact import DumpedResumer, pages
from hibercheck.kernel.code.disasm import MAX_INSTRUCTION, Flow, decode
from hibercheck.kernel.code.model import Instruction, ParkKind, ParkLoop
from hibercheck.x86.memory import UnknownMemory, read
from hibercheck.x86.paging import walk

_WAITS: dict[bytes, ParkKind] = {b"\xf4": "hlt", b"\x0f\x01\xc9": "mwait"}
_MAX_LOOP = 16
"""Instructions of a loop; a jump back is all that those seen have."""


def copied_loop(resumer: DumpedResumer, registers: CpuRegisters) -> ParkLoop | None:
    """Return the loop that a CPU has just waited in, or None where it did not wait, or does not come back to that.

    The CPU's next instruction follows the one in which it waits.  From there its code is read as the CPU itself would
    fetch it, by its own page tables or without, until it is back.

    Args:
        resumer: The dump.
        registers: The CPU's.
    """
    paging = pages(registers)
    for code, kind in _WAITS.items():
        wait = registers.rip - len(code)
        if _fetch(resumer, registers, wait, len(code), paging=paging) != code:
            continue
        at = registers.rip
        found: list[tuple[int, bytes, str]] = [(wait, code, kind)]
        for _ in range(_MAX_LOOP):
            content = _fetch(resumer, registers, at, MAX_INSTRUCTION, paging=paging)
            node = decode(content, at, bits=64 if paging else 32) if content else None
            if node is None or node.flow not in (Flow.NEXT, Flow.JUMP):
                break
            found.append((at, node.code, node.render().text))
            at = node.end if node.target is None else node.target
            if at == wait:
                return _loop(resumer, found, kind)
    return None


def _loop(resumer: DumpedResumer, found: list[tuple[int, bytes, str]], kind: ParkKind) -> ParkLoop:
    """Describe it as loops of kernels are: run-time addresses less the offset that is added to a kernel's."""
    placed = sorted((at - resumer.kaslr_offset & ADDRESS_MASK, code, text) for at, code, text in found)
    wait = found[0][0] - resumer.kaslr_offset & ADDRESS_MASK
    start, end = placed[0][0], placed[-1][0] + len(placed[-1][1])
    whole = all(at + len(code) == later for (at, code, _), (later, _, _) in pairwise(placed))
    first = next(code for at, code, _ in placed if at == wait)
    return ParkLoop(
        kind=kind,
        symbol="copied code",
        function_address=start,
        start=start if whole else wait,
        end=end if whole else wait + len(first),
        code=b"".join(code for _, code, _ in placed) if whole else first,
        instructions=tuple(Instruction(at, len(code), text) for at, code, text in placed),
        touches=(),
        entry=wait,
        wait=wait,
        ranges=((start, end),) if whole else tuple((at, at + len(code)) for at, code, _ in placed),
        role="resume",
    )


def _fetch(resumer: DumpedResumer, registers: CpuRegisters, at: int, size: int, *, paging: bool) -> bytes | None:
    """Read code as the CPU does; None where it is not in the dump."""
    if paging:
        if registers.cr3 is None:
            return None
        found = walk(resumer, resumer.mode, registers.cr3 & resumer.mode.address_mask, at & ADDRESS_MASK)
        if found.physical is None:
            return None
        at = found.physical
    try:
        return read(resumer, at, min(size, 0x1000 - at % 0x1000))
    except UnknownMemory:
        return None
