"""How the entry code of an NMI and of a machine check finds the per-CPU area, where it comes from kernel mode.

With FSGSBASE paranoid_entry() (arch/x86/entry/entry_64.S) saves the GS base with RDGSBASE and sets that of the CPU
whose number is in the GDT; without, it reads MSR_GS_BASE and keeps what is negative, as every kernel's area is:
c82965f9e530 ("x86/entry/64: Handle FSGSBASE enabled paranoid entry/exit", in v5.9).  Which of the two it does an
alternative decides, so that a kernel's file shows that it can, and its memory whether it does.
"""

from __future__ import annotations

import re

_MAX_STEPS = 128
"""Instructions; paranoid_entry() comes to the GS base within 50."""

_RDGSBASE = re.compile(rb"\xf3[\x40-\x4f]?\x0f\xae[\xc8-\xcf]")
"""F3 0F AE /1 with a register (SDM volume 2, "RDFSBASE/RDGSBASE")."""


def may_set_gs_base(code: bytes) -> bool:
    """Whether a kernel's paranoid_entry(), as its file has it, uses RDGSBASE where the CPU has it."""
    return _RDGSBASE.search(code) is not None


def sets_gs_base(code: bytes) -> bool | None:
    """Whether paranoid_entry(), as it is in memory, sets the GS base by the CPU's number, or keeps a negative one.

    Args:
        code: All of it.

    Returns:
        None where it comes to neither.
    """
    from hibercheck.kernel.code.disasm import Flow, decode  # noqa: PLC0415 - few checks come here, and it loads a decoder

    at = 0
    for _ in range(_MAX_STEPS):
        one = decode(code[at:], at) if 0 <= at < len(code) else None
        if one is None or one.flow not in {Flow.NEXT, Flow.JUMP, Flow.BRANCH}:
            return None
        if one.mnemonic in {"rdgsbase", "rdmsr"}:
            return one.mnemonic == "rdgsbase"
        # a branch before (is this the user's page table?) comes back to the straight way
        at = one.target if one.flow is Flow.JUMP and one.target is not None else one.end
    return None
