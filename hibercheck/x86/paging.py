"""The page walk of x86-64 long mode: 4 and 5 levels, permissions, reserved bits, page-fault error codes.

Source: Intel SDM volume 3A, "Paging": "4-Level Paging" 4.5, "Access Rights" 4.6, "Page-Fault Exceptions" 4.7, "Accessed
and Dirty Flags" 4.8 (numbers of the 2019 edition, 325462-070; later editions move the chapter, not the titles); AMD APM
volume 2, "Long-Mode Page Translation" and "Secure Memory Encryption".  The walk says everything it read, so that a
reader can check it entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag, StrEnum
from typing import cast

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass, replace
from hibercheck.errors import Unsupported
from hibercheck.x86.memory import PartialMemory, PhysicalMemory

# CR0, CR4 and EFER bits that decide how the walk is done (SDM 3A 2.5 and 2.2.1).
CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PAE, CR4_MCE, CR4_LA57, CR4_FSGSBASE = (1 << bit for bit in (5, 6, 12, 16))
CR4_SMEP, CR4_SMAP, CR4_FRED = (1 << bit for bit in (20, 21, 32))
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11

PAGE_FAULT, GENERAL_PROTECTION, STACK_FAULT = 14, 13, 12

# Bits of a paging-structure entry (SDM 3A tables 4-14 to 4-19).
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
LARGE_PAT = 1 << 12
NO_EXECUTE = 1 << 63
ADDRESS_BITS = ((1 << 52) - 1) & ~0xFFF


class Access(StrEnum):
    """What the CPU wants at an address."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


class PageFaultCode(IntFlag):
    """Bits of the error code that a page fault pushes (SDM 3A figure 4-12)."""

    P = 1
    W = 2
    U = 4
    RSVD = 8
    I = 16  # noqa: E741 - the manual's name of the bit


@dataclass(frozen=True, slots=True)
class PagingMode:
    """How a CPU walks its page tables.

    Attributes:
        levels: 4, or 5 with CR4.LA57.
        nxe: EFER.NXE; without it bit 63 of an entry is reserved.
        write_protect: CR0.WP; without it a supervisor may write to read-only pages.
        smep: CR4.SMEP, no supervisor fetches from user pages.
        smap: CR4.SMAP, no supervisor data accesses to user pages unless RFLAGS.AC.
        max_phys_bits: MAXPHYADDR, 36 to 52; address bits at and above it are reserved.  40 under QEMU's TCG.
        encryption_mask: The SME or SEV C-bit (or 0), removed from CR3 and from every entry.
        large_1g: CPUID.80000001H:EDX.Page1GB; without it a 1 GiB entry has a reserved bit set.
    """

    levels: int = 4
    nxe: bool = True
    write_protect: bool = True
    smep: bool = False
    smap: bool = False
    max_phys_bits: int = 52
    encryption_mask: int = 0
    large_1g: bool = True

    @classmethod
    def from_registers(
        cls, cr0: int, cr4: int, efer: int, *, max_phys_bits: int = 52, encryption_mask: int = 0
    ) -> PagingMode:
        """Derive the mode from control registers.

        Raises:
            Unsupported: The registers do not describe 64-bit paging (CR0.PG, CR4.PAE or EFER.LMA is clear).
        """
        if not (cr0 & CR0_PG and cr4 & CR4_PAE and efer & EFER_LMA):
            raise Unsupported(
                f"CR0 {cr0:#x}, CR4 {cr4:#x}, EFER {efer:#x} are not those of a CPU in long mode",
                advice="only 64-bit paging is modelled",
            )
        return cls(
            levels=5 if cr4 & CR4_LA57 else 4,
            nxe=bool(efer & EFER_NXE),
            write_protect=bool(cr0 & CR0_WP),
            smep=bool(cr4 & CR4_SMEP),
            smap=bool(cr4 & CR4_SMAP),
            max_phys_bits=max_phys_bits,
            encryption_mask=encryption_mask,
        )

    @property
    def virtual_bits(self) -> int:
        """Width of a linear address: 48 or 57."""
        return 12 + 9 * self.levels

    @property
    def address_mask(self) -> int:
        """The bits of CR3 or of an entry that hold an address of a 4 KiB frame."""
        return ((1 << self.max_phys_bits) - 1) & ADDRESS_BITS & ~self.encryption_mask

    @property
    def reserved_mask(self) -> int:
        """The bits that must be clear in every present entry."""
        beyond = ADDRESS_BITS & ~((1 << self.max_phys_bits) - 1) & ~self.encryption_mask
        return beyond | (0 if self.nxe else NO_EXECUTE)

    def is_canonical(self, address: int) -> bool:
        """Tell whether all bits from the top of the linear address up are equal (SDM 1 3.3.7.1)."""
        top = address >> (self.virtual_bits - 1)
        return top in (0, (1 << (65 - self.virtual_bits)) - 1)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that the walk read.

    Attributes:
        level: 5 (PML5) down to 1 (page table).
        table: Physical address of the table.
        index: Index of the entry in it, 0 to 511.
        entry: The 64-bit entry.
    """

    level: int
    table: int
    index: int
    entry: int

    @property
    def physical(self) -> int:
        """Physical address of the entry itself."""
        return self.table + 8 * self.index

    @property
    def pfn(self) -> int:
        """Frame number of the table."""
        return self.table >> PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an access cannot be done.

    Attributes:
        vector: 14 (page fault), 13 (not canonical) or 12 (not canonical, through the stack segment).
        error_code: What the CPU pushes, as the SDM has it.  QEMU to 7.2 leaves P clear where RSVD is set.
        reason: One line.
    """

    vector: int
    error_code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Walk:
    """One access through the page tables; exactly one of ``physical``, ``fault``, ``unknown_pfn`` is set.

    Attributes:
        address: Linear address.
        access: What was wanted.
        cr3: Page-table root as the CPU has it, with PCID and the C-bit if any.
        steps: The entries read, top first.
        physical: Physical address that ``address`` translates to.
        page_size: 4096, 2 MiB or 1 GiB, where the translation exists.
        fault: Why the access fails.
        unknown_pfn: Frame of the table whose contents are in no layer of the memory.
    """

    address: int
    access: Access
    cr3: int
    steps: tuple[Step, ...]
    physical: int | None = None
    page_size: int | None = None
    fault: Fault | None = None
    unknown_pfn: int | None = None

    @property
    def table_pfns(self) -> tuple[int, ...]:
        """Frames of all tables that the walk reads, the unknown one included."""
        known = tuple(step.pfn for step in self.steps)
        return known if self.unknown_pfn is None else (*known, self.unknown_pfn)

    @property
    def pfns(self) -> tuple[int, ...]:
        """Frames of all tables that the walk reads, and the one that it ends in."""
        return self.table_pfns if self.physical is None else (*self.table_pfns, self.physical >> PAGE_SHIFT)

    @property
    def updates(self) -> tuple[tuple[int, int], ...]:
        """Physical addresses of entries that the CPU writes, with the bits it sets: accessed and dirty (SDM 3A 4.8).

        Only a completed walk sets them here; a CPU may also set accessed flags on the way to a fault.
        """
        if self.physical is None:
            return ()
        wanted = [ACCESSED] * len(self.steps)
        if self.access is Access.WRITE:
            wanted[-1] |= DIRTY
        pairs = ((step.physical, bits & ~step.entry) for step, bits in zip(self.steps, wanted, strict=True))
        return tuple((address, bits) for address, bits in pairs if bits)


def walk(
    memory: PhysicalMemory,
    mode: PagingMode,
    cr3: int,
    address: int,
    access: Access = Access.READ,
    *,
    user: bool = False,
    alignment_check: bool = False,
    stack: bool = False,
    upper: Sequence[Step] = (),
) -> Walk:
    """Translate ``address`` as the CPU would, with every entry it reads.

    Args:
        memory: The frames as they are at this moment.
        mode: How the CPU pages.
        cr3: Its CR3; the low 12 bits (PCID, PWT, PCD) and bits 61 to 63 do not take part.
        address: 64-bit linear address, unsigned.
        access: What it wants there.
        user: Whether it is a user-mode access (CPL 3); implicit accesses to IDT, GDT and TSS never are.
        alignment_check: RFLAGS.AC of an explicit supervisor access, which suspends SMAP (SDM 3A 4.6.1).
        stack: Whether it goes through SS, so that a non-canonical address is #SS instead of #GP.
        upper: The first steps, out of a walk of the same tables to an address that shares them; they are not read.

    Returns:
        The walk; a fault or an unknown frame is a result, not an exception.
    """
    if not mode.is_canonical(address):
        fault = Fault(STACK_FAULT if stack else GENERAL_PROTECTION, 0, f"{address:#x} is not canonical")
        return Walk(address, access, cr3, (), fault=fault)
    steps = [*upper]
    # once a walk, not once a step: the masks were a fifth of its time
    address_mask, reserved_mask = mode.address_mask, mode.reserved_mask
    table = (upper[-1].entry if upper else cr3) & address_mask
    for level in range(mode.levels - len(upper), 0, -1):
        frame = memory.frame(table >> PAGE_SHIFT)
        if frame is None:
            return Walk(address, access, cr3, tuple(steps), unknown_pfn=table >> PAGE_SHIFT)
        index = (address >> (3 + 9 * level)) & 0x1FF
        entry = int.from_bytes(frame[8 * index : 8 * index + 8], "little")
        steps.append(Step(level, table, index, entry))
        problem = _entry_problem(mode, reserved_mask, level, entry)
        if problem is not None:
            code, reason = problem
            fault = Fault(PAGE_FAULT, int(code | _request_code(mode, access, user)), reason)
            return Walk(address, access, cr3, tuple(steps), fault=fault)
        if level == 1 or (level in (2, 3) and entry & LARGE):
            break
        table = entry & address_mask
    size = 1 << (3 + 9 * level)
    denied = _denied(mode, steps, access, user, alignment_check)
    if denied is not None:
        fault = Fault(PAGE_FAULT, int(PageFaultCode.P | _request_code(mode, access, user)), denied)
        return Walk(address, access, cr3, tuple(steps), page_size=size, fault=fault)
    base = entry & address_mask & ~(size - 1)
    return Walk(address, access, cr3, tuple(steps), physical=base | (address & (size - 1)), page_size=size)


def as_far_as_known(memory: PhysicalMemory, found: Walk) -> Walk:
    """End a walk as unknown at the first entry that a memory known in part does not know."""
    if hasattr(memory, "knows_entry"):  # isinstance() with the protocol took a tenth of a replay's time
        partial = cast(PartialMemory, memory)
        for number, step in enumerate(found.steps):
            if not partial.knows_entry(step.table, step.index):
                steps = found.steps[:number]
                return replace(found, steps=steps, physical=None, page_size=None, fault=None, unknown_pfn=step.pfn)
    return found


def _entry_problem(mode: PagingMode, reserved: int, level: int, entry: int) -> tuple[int, str] | None:
    """Return (error-code bits, reason) when an entry is absent or malformed (SDM 3A 4.7)."""
    if not entry & PRESENT:
        return 0, f"level {level} entry not present"
    if level >= 4 or (level == 3 and not mode.large_1g):
        reserved |= LARGE
    elif level > 1 and entry & LARGE:
        reserved |= ((1 << (3 + 9 * level)) - 1) & ADDRESS_BITS & ~LARGE_PAT
    if entry & reserved:
        return PageFaultCode.P | PageFaultCode.RSVD, f"level {level} entry has reserved bits {entry & reserved:#x} set"
    return None


def _request_code(mode: PagingMode, access: Access, user: bool) -> PageFaultCode:
    """Return the bits of the error code that only repeat what was asked (SDM 3A 4.7)."""
    code = PageFaultCode(0)
    if access is Access.WRITE:
        code |= PageFaultCode.W
    if user:
        code |= PageFaultCode.U
    if access is Access.FETCH and (mode.nxe or mode.smep):
        code |= PageFaultCode.I
    return code


def _denied(mode: PagingMode, steps: list[Step], access: Access, user: bool, alignment_check: bool) -> str | None:
    """Return why the rights on the way forbid the access, or None (SDM 3A 4.6.1)."""
    user_page = all(step.entry & USER for step in steps)
    if user and not user_page:
        return "user access to a supervisor page"
    if access is Access.FETCH:
        if any(step.entry & NO_EXECUTE for step in steps):
            return "fetch from a page that is not executable"
        return "supervisor fetch from a user page (SMEP)" if mode.smep and not user and user_page else None
    if mode.smap and not user and user_page and not alignment_check:
        return "supervisor access to a user page (SMAP)"
    if access is Access.READ or not (user or mode.write_protect):
        return None
    return None if all(step.entry & WRITABLE for step in steps) else "write to a read-only page"
