"""The CPU that copies: it dies where the resumee's CR3 means something else to it than to the resumee."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass
from hibercheck.handoff.facts.cpufacts import cleared_by
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.scenario.known_machine import FEATURES
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.paging import LARGE, PRESENT, Access, PagingMode, Walk, walk

_MOV_CR3 = b"\x0f\x22"  # mov r64, cr3: the ModRM byte with reg = 3 follows
_SEARCH = 64


@dataclass(frozen=True, slots=True)
class BootCpuReplay:
    """The first fetch after the resumee's CR3 is loaded in restore_registers.

    Attributes:
        address: Address of that instruction.
        walk: The fetch, paged as the resumer's CPU pages.
        levels: Levels of page tables on the resumer's side.
        survives: Whether the fetch reaches the instruction.
    """

    address: int
    walk: Walk
    levels: int
    survives: bool


def replay_boot_cpu(memory: Composite, resumee: Resumee) -> BootCpuReplay:
    """Load the resumee's CR3 with the resumer's CR4 and fetch on.

    restore_registers (arch/x86/power/hibernate_asm_64.S) does ``movq %r9, %cr3`` first.  CR4.LA57 cannot change
    while paging is on (SDM 3A 2.5), so a root of the other depth is read as what it is not.
    """
    space = resumee.space
    start = space.address("restore_registers")
    address = start + _after_cr3_load(resumee)
    mode = PagingMode(
        levels=memory.resumer.mode.levels,
        max_phys_bits=memory.resumer.mode.max_phys_bits,
        encryption_mask=space.mode.encryption_mask,
    )
    found = walk(memory, mode, space.cr3, address, Access.FETCH)
    expected = space.image_physical(resumee.kernel.require("restore_registers").address) + (address - start)
    return BootCpuReplay(address, found, mode.levels, found.physical == expected)


# Bits of CR4 (SDM 3A 2.5) and the feature without which setting one is a general protection fault.
CR4_BITS = {16: "fsgsbase", 17: "pcid", 18: "xsave", 20: "smep", 21: "smap"}
_DIRECT_MAP = range(256, 511)
"""Entries of the root table for the kernel's half but for its own image (Documentation/arch/x86/x86_64/mm.rst)."""
_MAX_TABLES = 64


@dataclass(frozen=True, slots=True)
class Lack:
    """Something of its CPU that the resumee uses, and that the resumer's CPU lacks.

    Attributes:
        feature: Its name.
        use: What the resumee does with it, as a clause.
    """

    feature: str
    use: str


def lacking(plan: Plan) -> tuple[Lack, ...]:
    """Return what the resumee uses of its CPU and the resumer's CPU cannot do.

    restore_processor_state() (arch/x86/power/cpu.c) loads CR4 as it was saved: a bit that the CPU lacks is a general
    protection fault, while GS still points to the resumer's per-CPU area.  Measured with SMAP and FSGSBASE (the machine
    hangs) and XSAVE (it resets).  A feature that is not used is not missed.

    Only where the resumer's CPU is known, and not taken to be the resumee's.  What the resumer's command line hides
    is there all the same.
    """
    known, resumee = plan.known.get(FEATURES.name), plan.resumee
    if known is None or known.standing.is_open or resumee.features is None:
        return ()
    lost = (resumee.features.flags - known.value.flags) - cleared_by(plan.cmdline)
    cr4 = resumee.cr4 or 0
    used = [Lack(name, f"sets CR4.{_bit_name(name)}") for bit, name in CR4_BITS.items() if cr4 >> bit & 1]
    if "gbpages" in lost and _has_huge_leaf(resumee):
        used.append(Lack("gbpages", "maps memory by pages of 1 GiB"))
    return tuple(one for one in used if one.feature in lost)


def _bit_name(feature: str) -> str:
    return {"xsave": "OSXSAVE", "pcid": "PCIDE"}.get(feature, feature.upper())


def _has_huge_leaf(resumee: Resumee) -> bool:
    """Tell whether an entry of the third level maps 1 GiB: without the feature its bit 7 is reserved (SDM 3A 4.5)."""
    return any(entry & PRESENT and entry & LARGE for entry in _third_level(resumee))


def _third_level(resumee: Resumee) -> Iterator[int]:
    """Yield the entries of the kernel's page-directory-pointer tables."""
    mode, tables = resumee.space.mode, [resumee.space.cr3]
    for depth in range(mode.levels - 3):
        found = [one for table in tables for one in _entries(resumee, table) if depth or one[0] in _DIRECT_MAP]
        tables = [entry & mode.address_mask for _, entry in found if entry & PRESENT][:_MAX_TABLES]
    for table in tables:
        yield from (entry for _, entry in _entries(resumee, table))


def _entries(resumee: Resumee, table: int) -> Iterator[tuple[int, int]]:
    content = resumee.space.memory.frame(table >> PAGE_SHIFT)
    return iter(()) if content is None else enumerate(memoryview(content).cast("Q"))


def _after_cr3_load(resumee: Resumee) -> int:
    """Return the offset in restore_registers of the instruction after the CR3 load; 0 if none is found."""
    link = resumee.kernel.require("restore_registers").address
    code = resumee.kernel.read(link, _SEARCH)
    place = code.find(_MOV_CR3)
    while place >= 0 and place + 2 < len(code):
        if code[place + 2] >> 3 & 7 == 3 and code[place + 2] >> 6 == 3:
            return place + 3
        place = code.find(_MOV_CR3, place + 1)
    return 0
