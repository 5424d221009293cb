"""The CPU that copies: it dies where the resumee's CR3 means something else to it than to the resumee."""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.resumee import Resumee
from hibercheck.x86.paging import Access, PagingMode, Walk, walk

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
    start = memory.image.record.jump_address
    address = start + _after_cr3_load(resumee)
    mode = PagingMode(
        levels=memory.resumer.mode.levels,
        max_phys_bits=memory.resumer.mode.max_phys_bits,
        encryption_mask=space.mode.encryption_mask,
    )
    found = walk(memory, mode, space.cr3, address, Access.FETCH)
    expected = space.image_physical(resumee.kernel.require("restore_registers").address) + (address - start)
    return BootCpuReplay(address, found, mode.levels, found.physical == expected)


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
