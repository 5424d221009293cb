"""The resumer out of a dump of its memory: where it lies, its CPUs' registers, which loop each waits in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.dump.dump import Dump
from hibercheck.dump.registers import CpuRegisters
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.files.vmcoreinfo import number
from hibercheck.handoff.facts.cpufacts import cpu_count, read_mask_variable
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.memory.resumer import space_of
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.view import KernelView
from hibercheck.patterns import pattern
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.paging import CR0_PG, CR4_LA57, PagingMode, walk

ENCRYPTION_BITS = 1 << 47 | 1 << 51
"""Where the C-bit is: APM 2 7.10, CPUID.8000001FH:EBX[5:0]; 47 on family 17h, 51 from family 19h."""

PTI_USER_BIT = 1 << 12
"""PTI_PGTABLE_SWITCH_BIT, arch/x86/include/asm/processor-flags.h: set in the CR3 of user mode."""

_KASLR_STEP = 1 << 21
_KASLR_RANGE = 1 << 30  # KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h
_RESET_RIP = 0xFFF0

MAX_SCANNED = 1 << 16
"""Frames in which a wrong dump's own banner is looked for: 256 MiB, a tenth of a second."""

_BANNER = pattern(rb"Linux version \d[!-~ ]{10,400}\n")


@dataclass(frozen=True, slots=True)
class DumpedResumer:
    """The resumer's memory as a dump has it: every frame is a fact."""

    kernel: KernelView
    dump: Dump
    mode: PagingMode
    cr3: int
    kaslr_offset: int
    phys_base: int
    exact: bool = True

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's contents; None outside the dump."""
        return self.dump.frame(pfn)

    def knows_entry(self, _table: int, _index: int) -> bool:
        """Every entry is known."""
        return True

    def bytes_at(self, address: int, size: int) -> bytes | None:
        """Return bytes at a run-time virtual address, through the resumer's own page tables."""
        try:
            return self.space.read(address, size)
        except MissingFact:
            return None

    @property
    def space(self) -> KernelSpace:
        """The resumer's address space."""
        return space_of(self)


def open_resumer(dump: Dump, kernel: KernelView, path: str, max_phys_bits: int) -> DumpedResumer:
    """Find the resumer in a dump by its banner, at whatever address KASLR has put it.

    Raises:
        Mismatch: No CPU's page tables lead to the resumer's banner, nor do those that VMCOREINFO names.
    """
    link = kernel.require("linux_banner").address
    banner = kernel.banner.strip().encode()
    for mode, cr3 in _roots(dump, kernel, max_phys_bits):
        for offset in range(0, _KASLR_RANGE, _KASLR_STEP):
            found = walk(dump, mode, cr3, link + offset)
            if found.physical is None:
                continue
            phys_base = found.physical - (link - START_KERNEL_MAP)
            space = KernelSpace(kernel, dump, mode, cr3, offset, phys_base)
            if _holds(space, link + offset, banner):
                root = kernel.require("init_top_pgt").address - START_KERNEL_MAP + phys_base
                return DumpedResumer(kernel, dump, mode, root, offset, phys_base)
    other = _banner_in(dump)
    raise Mismatch(
        f"is not a dump of '{kernel.banner.strip()}'{f' but of {other!r}' if other else ''}",
        path=path,
        advice="give a dump taken while the resumer runs",
    )


def _banner_in(dump: Dump) -> str | None:
    """Return the first banner of a kernel that a dump holds, of its first frames; None where it has none.

    The kernel's text lies low in memory, and its banner is among its first read-only data.
    """
    frames = chain.from_iterable(range(first, first + number) for first, number in dump.runs())
    for pfn in islice(frames, MAX_SCANNED):
        match = _BANNER.search(dump.frame(pfn) or b"")
        if match is not None:
            return match[0].decode("ascii").strip()
    return None


def _roots(dump: Dump, kernel: KernelView, max_phys_bits: int) -> Iterator[tuple[PagingMode, int]]:
    """Yield every page-table root that the dump names, with its mode: the CPUs', then the kernel's own."""
    for registers in dump.cpus:
        if not registers.cr3 or registers.cr4 is None:
            continue
        mask = registers.cr3 & ENCRYPTION_BITS
        levels = 5 if registers.cr4 & CR4_LA57 else 4
        mode = PagingMode(levels=levels, max_phys_bits=max_phys_bits, encryption_mask=mask)
        root = registers.cr3 & mode.address_mask
        yield mode, root
        # page-table isolation: the user half, an odd frame, maps no more than the entry code; the kernel's is before it
        if root & PTI_USER_BIT:
            yield mode, root & ~PTI_USER_BIT
    facts = dump.vmcoreinfo or {}
    phys_base = number(facts, "NUMBER(phys_base)")
    if phys_base is not None:
        # the kernel's phys_base counts from run-time addresses: under KASLR it is less by their offset, negative even
        # (__startup_64(), arch/x86/kernel/head64.c, later arch/x86/boot/startup/map_kernel.c)
        phys_base += number(facts, "KERNELOFFSET") or 0
        mask = number(facts, "NUMBER(sme_mask)") or 0
        levels = 5 if number(facts, "NUMBER(pgtable_l5_enabled)") else 4
        root = kernel.require("init_top_pgt").address - START_KERNEL_MAP + phys_base
        if root >= 0:
            yield PagingMode(levels=levels, max_phys_bits=max_phys_bits, encryption_mask=mask), root


def _holds(space: KernelSpace, address: int, banner: bytes) -> bool:
    try:
        return space.read(address, len(banner)) == banner
    except MissingFact:
        return False


def pages(own: CpuRegisters) -> bool:
    """Tell whether a CPU pages; one that does not has left long mode."""
    return own.cr0 is None or bool(own.cr0 & CR0_PG)


def registers_by_cpu(resumer: DumpedResumer, cpus: frozenset[int]) -> dict[int, CpuRegisters]:
    """Match the dump's CPUs with logical numbers by their per-CPU bases; by position where that says nothing.

    Positions say nothing where a base shows that they are no numbers, as in a kernel that kexec started on another CPU
    than the first: then a CPU without a base (one that waits in a page of its own) is known if it is the only one.
    """
    space = resumer.space
    bases: dict[int | None, int] = {}
    for cpu in cpus:
        try:
            bases[space.percpu_base(cpu)] = cpu
        except MissingFact:
            continue
    matched: dict[int, CpuRegisters] = {}
    others, in_order = [], True
    for registers in resumer.dump.cpus:
        number = bases.get(registers.gs_base)
        if number is None:
            number = bases.get(registers.kernel_gs_base)
        if number is None:
            others.append(registers)
        else:
            matched.setdefault(number, registers)
            in_order = in_order and number == registers.cpu
    left = cpus - matched.keys()
    if in_order:
        return {registers.cpu: registers for registers in reversed(others)} | matched
    return matched | ({min(left): others[0]} if len(left) == len(others) == 1 else {})


def park_state(
    registers: CpuRegisters, loops: tuple[ParkLoop, ...], kaslr_offset: int
) -> tuple[ParkState, ParkLoop | None] | None:
    """Read from its instruction pointer how a CPU is parked, or None when it is not (yet)."""
    if registers.rip == _RESET_RIP or not (registers.cr0 or 1) & 1:
        return ParkState.WAIT_FOR_SIPI, None
    link = (registers.rip - kaslr_offset) & 0xFFFF_FFFF_FFFF_FFFF
    order = sorted(loops, key=lambda loop: (loop.role != "resume", loop.after_kick))
    for loop in order:
        if any(start <= link < end for start, end in loop.ranges):
            state = {"mwait": ParkState.MWAIT, "hlt": ParkState.HLT, "port_io": ParkState.PORT_IO}[loop.kind]
            return state, loop
    return None


def cpus_are_parked(resumer: DumpedResumer, waiting: frozenset[int], registers: dict[int, CpuRegisters]) -> bool:
    """Tell whether a dump was taken after the resumer had parked its CPUs for the handoff.

    freeze_secondary_cpus() records in frozen_cpus those that it takes down (kernel/cpu.c); before, the mask is empty.

    Args:
        resumer: The resumer's memory.
        waiting: The CPUs that it parks for the handoff.
        registers: The registers by CPU.
    """
    if not waiting:
        return True
    space = resumer.space
    try:
        frozen = read_mask_variable(space, "frozen_cpus", cpu_count(space), waiting)
    except MissingFact:
        return all(registers[cpu].rflags & 0x200 == 0 for cpu in waiting if cpu in registers)
    return bool(frozen)
