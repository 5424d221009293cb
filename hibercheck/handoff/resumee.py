"""The resumee, read out of its own image with its own symbols and page tables."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import TypeVar

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MalformedImage, Mismatch, MissingFact
from hibercheck.handoff.cmdline import CommandLine, parse_command_line
from hibercheck.handoff.consistency import agreed_features, agreed_topology
from hibercheck.handoff.cpufacts import (
    CpuFeatures,
    Topology,
    cpu_count,
    read_features,
    read_mask,
    read_mask_variable,
    read_topology,
)
from hibercheck.handoff.idle import IdleDriver, read_idle_driver
from hibercheck.handoff.space import KernelSpace
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.paging import PagingMode, walk

T = TypeVar("T")

E820_RAM = 1
_E820_ENTRY = struct.Struct("<QQI")
_E820_MAX = 4096
_LINE_LIMIT = 1024

SMT_CONTROL = ("enabled", "disabled", "force-disabled", "not supported", "not implemented")
"""enum cpuhp_smt_control, include/linux/cpu_smt.h."""


@dataclass(frozen=True, slots=True)
class E820Entry:
    """One range of the firmware's memory map: bytes [address, address + size) of a type (1 is RAM)."""

    address: int
    size: int
    kind: int


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
    space = _open_space(image, kernel)
    missing: dict[str, str] = {}
    present, frozen = _masks(image, space)
    e820 = _attempt(missing, "e820", lambda: read_e820(space))
    command_line = _attempt(missing, "command_line", lambda: space.string(space.variable("saved_command_line")))
    limited = parse_command_line(command_line or "").limits_cpus
    smt_control = _attempt(missing, "smt_control", lambda: SMT_CONTROL[space.variable("cpu_smt_control", 4)])

    def topology() -> Topology:
        found = read_topology(space, present, limited=limited)
        return agreed_topology(space, present, found, smt_control, limited=limited)

    def features() -> CpuFeatures:
        return agreed_features(space, read_features(space), min(present, default=0))

    return Resumee(
        space=space,
        command_line=command_line,
        present=present,
        frozen=frozen & present,
        smt_control=smt_control,
        topology=_attempt(missing, "topology", topology),
        features=_attempt(missing, "features", features),
        idle=_attempt(missing, "idle", lambda: read_idle_driver(space)),
        e820=e820,
        e820_checksum=e820_checksum(e820) if e820 else None,
        missing=missing,
    )


def _masks(image: Image, space: KernelSpace) -> tuple[frozenset[int], frozenset[int]]:
    """Read which CPUs are present, and which were frozen for the snapshot."""
    try:
        count = cpu_count(space)
        present = read_mask(space, space.address("__cpu_present_mask"), count)
        return present, read_mask_variable(space, "frozen_cpus", count, present)
    except MissingFact as fact:
        fact.path = fact.path or image.path
        raise


def _attempt(missing: dict[str, str], name: str, fact: Callable[[], T]) -> T | None:
    try:
        return fact()
    except (MissingFact, IndexError) as error:
        missing[name] = str(error)
        return None


def _open_space(image: Image, kernel: KernelView) -> KernelSpace:
    """Place the kernel by the arch record and check that it is the image's.

    The record holds the run-time address of restore_registers and its physical address: KASLR's two offsets.
    """
    record = image.record
    restore = kernel.symbol("restore_registers")
    if restore is None:
        message = "no symbol restore_registers in it: this kernel cannot hibernate"
        raise MissingFact(message, path=kernel.path, advice="give the kernel that wrote the image")
    offset = (record.jump_address - restore.address) & 0xFFFF_FFFF_FFFF_FFFF
    mode, cr3, entry = _paging(image)
    phys_base = entry - (restore.address - START_KERNEL_MAP)
    space = KernelSpace(kernel, image, mode, cr3, offset, phys_base)
    _check_banner(image, space)
    return space


def _paging(image: Image) -> tuple[PagingMode, int, int]:
    """Find the paging mode in which the resumee's CR3 leads to its own entry point, and that point's physical address.

    Its page tables say it themselves, so no symbol is needed.  The C-bit of memory encryption, if set in CR3, is
    above every physical address and stripped.
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


def _check_banner(image: Image, space: KernelSpace) -> None:
    """Refuse a kernel that did not write the image, naming both banners."""
    kernel = space.kernel
    wanted = kernel.banner.strip()
    try:
        found = space.string(space.address("linux_banner"), _LINE_LIMIT).strip()
    except MissingFact:
        found = ""
    if found == wanted:
        return
    actual = found if found.startswith("Linux version ") else (image.find_banner() or "an unknown kernel").strip()
    raise Mismatch(
        f"the image was written by '{actual}', not by '{wanted}'",
        path=kernel.path,
        advice="give the kernel that hibernated as --resumee (are --resumer and --resumee swapped?)",
    )


def read_e820(space: KernelSpace) -> tuple[E820Entry, ...]:
    """Read ``e820_table_firmware`` (struct e820_table, arch/x86/include/asm/e820/types.h: u32 count, packed entries).

    Raises:
        MissingFact: It cannot be read, or counts more entries than a kernel keeps.
    """
    table = space.variable("e820_table_firmware")
    count = space.number(table, 4)
    if count > _E820_MAX:
        raise MissingFact(f"the firmware memory map counts {count} entries")
    data = space.read(table + 4, count * _E820_ENTRY.size)
    return tuple(E820Entry(*entry) for entry in _E820_ENTRY.iter_unpack(data))


def e820_checksum(entries: tuple[E820Entry, ...]) -> int:
    """Return the CRC-32 that the arch record keeps of a memory map (compute_e820_crc32, arch/x86/power/hibernate.c)."""
    return zlib.crc32(pack_e820(entries))


def pack_e820(entries: tuple[E820Entry, ...]) -> bytes:
    """Return a memory map as struct e820_table has it, without the unused entries."""
    packed = b"".join(_E820_ENTRY.pack(entry.address, entry.size, entry.kind) for entry in entries)
    return struct.pack("<I", len(entries)) + packed
