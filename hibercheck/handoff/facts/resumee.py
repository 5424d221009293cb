"""The resumee, read out of its own image with its own symbols and page tables."""

from __future__ import annotations

from typing import TypeVar

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MalformedImage, MissingFact
from hibercheck.handoff.facts.arguments import COMMAND_LINE_SIZE
from hibercheck.handoff.facts.cmdline import CommandLine, loader_part, parse_command_line
from hibercheck.handoff.facts.consistency import attempt, features_of, topology_of
from hibercheck.handoff.facts.cpufacts import (
    CpuFeatures,
    Topology,
    cpu_count,
    may_count_slots,
    mp_table_has_all,
    read_mask,
    read_mask_variable,
    under_known_hypervisor,
)
from hibercheck.handoff.facts.e820 import E820Entry, e820_checksum, ram_pages, read_e820
from hibercheck.handoff.facts.identity import check_identity
from hibercheck.handoff.facts.idle import IdleDriver, read_idle_driver
from hibercheck.handoff.facts.modes import read_modes
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.paging import PagingMode, walk

T = TypeVar("T")


_EFI_INFO_AT, _SECURE_BOOT_AT, _LOADER_AT = 0x1C0, 0x1EC, 0x210  # arch/x86/include/uapi/asm/bootparam.h
_KEXEC = 0xD
_CR3_AT = (216, 224)  # in struct saved_context, since v4.16 and before

SMT_CONTROL = ("enabled", "disabled", "force-disabled", "not supported", "not implemented")
"""enum cpuhp_smt_control, include/linux/cpu_smt.h."""


@dataclass(frozen=True, slots=True)
class Resumee:
    """The facts of the resumee that the handoff depends on.

    A field that the image does not give is None, and its reason stands in ``missing`` under the field's name.

    Attributes:
        space: Its address space: the image through its own page tables.
        command_line: Its kernel command line.
        present: CPUs in ``__cpu_present_mask``.
        frozen: CPUs it brings back after the snapshot (``frozen_cpus``).
        smt_control: One of `SMT_CONTROL`.
        topology: APIC ids, cores, primary threads.
        features: CPU vendor and features.
        idle: Its cpuidle driver.
        e820: The firmware's memory map.
        e820_checksum: CRC-32 of that map as the arch record computes it.
        missing: Why a field is None.
        remarks: What the user should know of where its kernel was found, a line each.
        loader_line: What of its command line the boot loader passed.
        boot_pages: RAM that it had when it booted, in pages, by its own e820_table.
        booted_by_efi: Whether UEFI started it; None where that is not known.
        secure_boot: Whether the firmware said that Secure Boot is on; None where it did not say.
        hypervisor: Whether it ran under a hypervisor that it knows; None where it knows none.
        cr4: CR4 as it was saved, and is loaded again after the handoff.
        booted_by_kexec: Whether an older kernel started it, and decided where it lies; None where that is not known.
        mp_table_has_all: Whether it found an MP table that cannot lack a CPU.
        may_count_slots: Whether CPUs that it left out may be slots in which there is none.
        without_local_apic: Whether it takes interrupts as firmware has set it up: apic_intr_mode is 0, APIC_PIC.
    """

    space: KernelSpace
    command_line: str | None
    present: frozenset[int]
    frozen: frozenset[int]
    smt_control: str | None
    topology: Topology | None
    features: CpuFeatures | None
    idle: IdleDriver | None
    e820: tuple[E820Entry, ...] | None
    e820_checksum: int | None
    missing: dict[str, str]
    remarks: tuple[str, ...] = ()
    loader_line: str | None = None
    boot_pages: int | None = None
    booted_by_efi: bool | None = None
    secure_boot: bool | None = None
    hypervisor: bool | None = None
    cr4: int | None = None
    booted_by_kexec: bool | None = None
    mp_table_has_all: bool = False
    may_count_slots: bool = False
    without_local_apic: bool = False

    @property
    def kernel(self) -> KernelView:
        """The kernel file."""
        return self.space.kernel

    @property
    def levels(self) -> int:
        """Levels of its page tables, 4 or 5."""
        return self.space.mode.levels

    @property
    def parameters(self) -> CommandLine:
        """Its command line as it was interpreted; an empty one where that is not known."""
        return parse_command_line(self.command_line or "")

    @property
    def machine(self) -> frozenset[int]:
        """CPUs that the machine has, numbered as a kernel that uses all of them would."""
        return self.present if self.topology is None else frozenset(self.topology.apic_ids)

    @property
    def tells_machine(self) -> bool:
        """Whether `machine` has all CPUs.

        With ``acpi=off`` or ``nolapic`` no MADT is read, and what is found may be a part of them; and of CPUs that a
        kernel was told to leave out nothing is known where its topology cannot be read, nor where it is not known what
        it was told.
        """
        told = self.parameters
        if self.command_line is None:
            return False
        if self.topology is None and leaves_cpus_out(self.space, told, self.present):
            return False
        return self.mp_table_has_all or not (told.acpi_off or told.lapic_off)

    @property
    def modes(self) -> dict[str, bool]:
        """States of the machine, of those that its memory shows: read when they are asked for."""
        return read_modes(self.space)

    @property
    def smt_disabled(self) -> bool:
        """Whether it runs with SMT switched off."""
        return self.smt_control in {"disabled", "force-disabled"}


def read_resumee(image: Image, kernel: KernelView) -> Resumee:
    """Read the resumee out of its image.

    Raises:
        Mismatch: The image was written by another kernel.
        MalformedImage: The image's own page tables do not lead to its entry point.
        MissingFact: The masks of present and frozen CPUs cannot be read.
    """
    space = open_space(image, kernel)
    missing: dict[str, str] = {}
    present, frozen = _masks(image, space)
    e820 = attempt(missing, "e820", lambda: read_e820(space))
    command_line = attempt(missing, "command_line", lambda: space.string(space.variable("saved_command_line")))
    told = parse_command_line(command_line or "")
    limited, possible = leaves_cpus_out(space, told, present), told.possible_cpus
    smt_control = attempt(missing, "smt_control", lambda: read_smt_control(space))

    def topology() -> Topology:
        return topology_of(space, present, smt_control, limited=limited, possible=possible)

    return Resumee(
        space=space,
        command_line=command_line,
        present=present,
        frozen=frozen & present,
        smt_control=smt_control,
        topology=attempt(missing, "topology", topology),
        features=attempt(missing, "features", lambda: features_of(space, present)),
        idle=attempt(missing, "idle", lambda: read_idle_driver(space)),
        e820=e820,
        e820_checksum=e820_checksum(e820) if e820 else None,
        missing=missing,
        loader_line=_loader_line(image, space, command_line),
        boot_pages=attempt({}, "boot_pages", lambda: ram_pages(read_e820(space, "e820_table"))),
        booted_by_efi=attempt({}, "booted_by_efi", lambda: _booted_by_efi(space)),
        secure_boot=attempt({}, "secure_boot", lambda: _secure_boot(space)),
        hypervisor=attempt({}, "hypervisor", lambda: under_known_hypervisor(space)),
        cr4=attempt({}, "cr4", lambda: _saved_cr4(image, space)),
        booted_by_kexec=attempt({}, "booted_by_kexec", lambda: _booted_by_kexec(space)),
        mp_table_has_all=attempt({}, "mp_table_has_all", lambda: mp_table_has_all(space)) is True,
        may_count_slots=limited and attempt({}, "may_count_slots", lambda: may_count_slots(space)) is True,
        without_local_apic=attempt({}, "without_local_apic", lambda: space.variable("apic_intr_mode", 4)) == 0,
    )


def _loader_line(image: Image, space: KernelSpace, line: str | None) -> str | None:
    """Return what the boot loader passed; None where CONFIG_CMDLINE took its place, or there is no line.

    CONFIG_CMDLINE is in the kernel file; of the image's own kernel that page has been used anew since.
    """
    symbol = space.kernel.symbol("builtin_cmdline")
    if line is None or symbol is None or space.kernel.path == image.path:
        return line
    try:
        builtin = space.kernel.read(symbol.address, COMMAND_LINE_SIZE).split(b"\0")[0].decode("utf-8", "replace")
    except MissingFact:
        return line
    return loader_part(line, builtin, override=line == builtin)


def _secure_boot(space: KernelSpace) -> bool | None:
    """Read boot_params.secure_boot: unset, unknown, disabled, enabled (enum efi_secureboot_mode, linux/efi.h)."""
    return {2: False, 3: True}.get(space.number(space.address("boot_params") + _SECURE_BOOT_AT, 1))


def _booted_by_efi(space: KernelSpace) -> bool:
    """Tell by boot_params.efi_info.efi_loader_signature: "EL64" or "EL32" (arch/x86/include/asm/efi.h)."""
    return space.read(space.address("boot_params") + _EFI_INFO_AT, 4) in {b"EL64", b"EL32"}


def _booted_by_kexec(space: KernelSpace) -> bool:
    """Tell by boot_params.hdr.type_of_loader, whose high half is the number (Documentation/arch/x86/boot.rst)."""
    return space.number(space.address("boot_params") + _LOADER_AT, 1) >> 4 == _KEXEC


def _saved_cr4(image: Image, space: KernelSpace) -> int:
    """Read saved_context.cr4 (arch/x86/include/asm/suspend_64.h), which restore_processor_state() loads again.

    Without types it is known by CR3 before it: the one that the arch record has, but for the PCID.

    Raises:
        MissingFact: It is not there.
    """
    base = space.address("saved_context")
    for place in _CR3_AT:
        if space.number(base + place) & ~0xFFF == image.record.cr3 & ~0xFFF:
            return space.number(base + place + 8)
    raise MissingFact("CR4 is in none of the places where a kernel saves it")


def leaves_cpus_out(space: KernelSpace, line: CommandLine, present: frozenset[int] = frozenset()) -> bool:
    """Tell whether a kernel may take no note of CPUs that the machine has: by its build, or by its command line.

    Args:
        space: Its memory.
        line: Its command line.
        present: CPUs in its present mask, where that is known.
    """
    return space.one_cpu or line.limits_cpus or (line.max_cpus is None and _is_full(space, present))


def _is_full(space: KernelSpace, present: frozenset[int]) -> bool:
    """Tell whether every number of a CPU is taken: CONFIG_NR_CPUS, with which setup_max_cpus begins (kernel/smp.c)."""
    try:
        return bool(present) and len(present) >= space.variable("setup_max_cpus", 4)
    except MissingFact:
        return False


def read_smt_control(space: KernelSpace) -> str:
    """Read cpu_smt_control; a kernel for one CPU has none, and says so (include/linux/cpu_smt.h).

    Raises:
        MissingFact: It is not in memory.
    """
    return SMT_CONTROL[-1 if space.one_cpu else space.variable("cpu_smt_control", 4)]


def _masks(image: Image, space: KernelSpace) -> tuple[frozenset[int], frozenset[int]]:
    """Read which CPUs are present, and which were frozen for the snapshot."""
    if space.one_cpu:
        return frozenset({0}), frozenset()
    try:
        count = cpu_count(space)
        present = read_mask(space, space.address("__cpu_present_mask"), count)
        return present, read_mask_variable(space, "frozen_cpus", count, present)
    except MissingFact as fact:
        fact.path = fact.path or image.path
        raise


def open_space(image: Image, kernel: KernelView) -> KernelSpace:
    """Place the kernel by the arch record and check that it is the image's.

    The record holds the run-time address of restore_registers and its physical address: KASLR's two offsets.
    """
    record = image.record
    restore = kernel.symbol("restore_registers")
    if restore is None:
        message = "no symbol restore_registers in it: this kernel cannot hibernate"
        raise MissingFact(message, path=kernel.path, advice="give the kernel that wrote the image")
    offset = (record.jump_address - restore.address) & 0xFFFF_FFFF_FFFF_FFFF
    mode, cr3, entry = paging_of(image)
    phys_base = entry - (restore.address - START_KERNEL_MAP)
    space = KernelSpace(kernel, image, mode, cr3, offset, phys_base)
    check_identity(image, space)
    return space


def paging_of(image: Image) -> tuple[PagingMode, int, int]:
    """Find the paging mode in which the resumee's CR3 leads to its own entry point, and that point's physical address.

    Its page tables say it themselves, so no symbol is needed.  The C-bit of memory encryption, if set in CR3, is
    above every physical address and stripped.

    Raises:
        MalformedImage: They do not lead there in any mode.
    """
    record = image.record
    mask = 0
    for bit in (47, 51):  # APM 2 7.10: CPUID.8000001FH:EBX[5:0]; 47 on family 17h, 51 from family 19h
        mask |= record.cr3 & (1 << bit)
    for levels in (4, 5):
        mode = PagingMode(levels=levels, encryption_mask=mask)
        found = walk(image, mode, record.cr3, record.jump_address)
        # records from before v4.8 do not hold the physical address, so that any translation has to do
        if found.physical is not None and record.jump_address_phys in {None, found.physical, found.physical | mask}:
            return mode, record.cr3 & ~mask, found.physical
    raise MalformedImage(
        f"the resumee's page tables at CR3 {record.cr3:#x} do not lead to its entry point {record.jump_address:#x}",
        path=image.path,
        advice="the image is damaged; hibernate again",
    )
