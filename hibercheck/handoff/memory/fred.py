"""The FRED MSRs of a parked CPU, as its kernel sets them up (arch/x86/kernel/fred.c).

No machine with FRED was among those that were measured: this follows the specification and the code of a 7.3 kernel.
"""

from __future__ import annotations

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.cpu import FredState

_RED_ZONE = 1 << 6
"""FRED_CONFIG_REDZONE; stack level 0 for interrupts, and for the code that a CPU parks in."""
_STACKS_IN_AREA = 5 * PAGE_SIZE
"""struct cpu_entry_area: gdt, entry_stack_page, tss (with its bitmap of ports 3 pages), then the exception stacks."""


def placed_fred(plan: Plan, area: int, kaslr_offset: int) -> FredState | None:
    """Return the MSRs of a CPU whose entry area has an address; None where what the kernel writes was not read."""
    return _state(plan, area + _STACKS_IN_AREA, kaslr_offset)


def dumped_fred(plan: Plan, space: KernelSpace, cpu: int) -> FredState | None:
    """Return the MSRs of a CPU in a dump, which holds where its exception stacks are, but none of the MSRs."""
    try:
        base = space.number(space.percpu_address("cea_exception_stacks", cpu))
    except MissingFact:
        return None
    return _state(plan, base, space.kaslr_offset)


def _state(plan: Plan, base: int, kaslr_offset: int) -> FredState | None:
    entry = plan.resumer.symbol("asm_fred_entrypoint_user")
    told = plan.traits.fred_stacks.value
    if entry is None or told is None:
        return None
    levels, *ends = told
    config = ((entry.address + kaslr_offset) & ~(PAGE_SIZE - 1) | _RED_ZONE) & ADDRESS_MASK
    first, second, third = ((base + end) & ADDRESS_MASK for end in ends)
    return FredState(config, levels, (0, first, second, third))
