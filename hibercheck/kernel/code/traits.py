"""Everything a kernel's code says about the handoff, each property with what it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from hibercheck.kernel.code.acceptance import AcceptanceReader
from hibercheck.kernel.code.deadcpu import DeadReader
from hibercheck.kernel.code.layout import LayoutReader
from hibercheck.kernel.code.model import Evidence, IdtGate, ParkKind, ParkLoop, ParkRole, Patch, Touch, Trait
from hibercheck.kernel.code.program import KernelFile, Program
from hibercheck.kernel.code.rescue import freeze_order, needs_node, needs_primary, reparks_siblings, rescans
from hibercheck.kernel.code.resume import ResumeReader

__all__ = ["Evidence", "IdtGate", "ParkLoop", "Patch", "Touch", "Trait", "Traits", "read_traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """The traits of one kernel.  A trait whose value is None is unknown; its ``reason`` says why.

    Attributes:
        hibernate_disable_hook: Whether x86's ``hibernate_resume_nonboot_cpu_disable`` exists.
        rescues_offline: Whether it brings offline CPUs up first (``cpuhp_smt_enable``).
        rescue_needs_primary: Whether the rescue passes over CPUs whose core's primary thread is offline.
        rescue_needs_node: Whether it passes over CPUs of an offline NUMA node.
        freeze_order: ``ascending`` or ``descending``: how online CPUs are taken down.
        replaces_play_dead: Whether CPUs that it takes down die by another function than usual.
        resume_park: What they end in: ``hlt``, ``init``, or (not replaced) what native_play_dead tries first.
        sends_init: Whether it sends them an INIT once parked.
        init_targets: To which CPUs: ``present``, ``possible`` or ``online``.
        play_dead_order: What native_play_dead tries, in order: ``mwait``, ``cpuidle``, ``hlt``.
        other_play_dead: Functions that take native_play_dead's place on some machines.
        enter_dead: What cpuidle drivers in the kernel do: ``acpi_idle:port_io`` and so on.
        mwait_vendor_check: CPU vendors for which MWAIT is not tried.
        monitored: ``percpu:mwait_cpu_dead`` or ``thread_info.flags``.
        kick_value: Word that turns the MWAIT loop into HLT.
        rescans_dead_siblings: Whether SMT siblings are parked anew once the cpuidle driver is there.
        reparks_siblings_after_resume: Whether, resumed with SMT off, it parks the siblings anew.
        zero_pages: Whether it understands the zero-page flag in PFNs.
        hw_sig: Whether it compares the hardware signature.
        compressors: What it decompresses without a module.
        arch_record_magic: Magic number of the arch record that it accepts.
        e820_check: ``crc32``, ``md5`` or ``none``.
        la57: Whether it can run on five levels of page tables.
        pti: Whether page-table isolation is built in.
        randomize_base: Whether its load address is random.
        randomize_memory: Whether its direct map's address is random.
        physical_start: Physical load address without KASLR, in bytes.
        physical_align: CONFIG_PHYSICAL_ALIGN, in bytes.
        idt_gates: Exception gates.
        fred: Whether it can use FRED.
        cea_random: Whether CPU entry areas are at random places.
        cea_size: Size of one, in bytes.
        park_loops: Every loop that a CPU can be parked in.
    """

    hibernate_disable_hook: Trait[bool]
    rescues_offline: Trait[bool]
    rescue_needs_primary: Trait[bool]
    rescue_needs_node: Trait[bool]
    freeze_order: Trait[str]
    replaces_play_dead: Trait[bool]
    resume_park: Trait[str]
    sends_init: Trait[bool]
    init_targets: Trait[str]
    play_dead_order: Trait[tuple[str, ...]]
    other_play_dead: Trait[tuple[str, ...]]
    enter_dead: Trait[tuple[str, ...]]
    mwait_vendor_check: Trait[tuple[str, ...]]
    monitored: Trait[str]
    kick_value: Trait[int]
    rescans_dead_siblings: Trait[bool]
    reparks_siblings_after_resume: Trait[bool]
    zero_pages: Trait[bool]
    hw_sig: Trait[bool]
    compressors: Trait[tuple[str, ...]]
    arch_record_magic: Trait[int]
    e820_check: Trait[str]
    la57: Trait[bool]
    pti: Trait[bool]
    randomize_base: Trait[bool]
    randomize_memory: Trait[bool]
    physical_start: Trait[int]
    physical_align: Trait[int]
    idt_gates: Trait[tuple[IdtGate, ...]]
    fred: Trait[bool]
    cea_random: Trait[bool]
    cea_size: Trait[int]
    park_loops: tuple[ParkLoop, ...]

    def __iter__(self) -> Iterator[Trait[Any]]:
        """The traits, in the order in which a report shows them (park loops are not traits)."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Trait):
                yield value

    def loops(self, role: ParkRole, kind: ParkKind | None = None, *, after_kick: bool = False) -> tuple[ParkLoop, ...]:
        """The loops of one role, of one kind if given; those that only a kick leads to on request."""
        return tuple(
            loop
            for loop in self.park_loops
            if loop.role == role and kind in (None, loop.kind) and loop.after_kick == after_kick
        )


def read_traits(kernel: KernelFile) -> Traits:
    """Read a kernel's traits out of its code.

    Args:
        kernel: An open kernel, or facts read from one before.

    Returns:
        The traits; what could not be read is unknown in them, with the reason.
    """
    ready = getattr(kernel, "traits", None)
    if isinstance(ready, Traits):
        return ready
    program = Program(kernel)
    resume = ResumeReader(program)
    dead = DeadReader(program, resume)
    accepts = AcceptanceReader(program)
    layout = LayoutReader(program, accepts.data_symbols())
    replaced, sent, order = resume.replaces(), resume.sends_init(), dead.order()
    magic = accepts.record_magic()
    return Traits(
        hibernate_disable_hook=resume.exists(),
        rescues_offline=resume.rescues(),
        rescue_needs_primary=needs_primary(program),
        rescue_needs_node=needs_node(program),
        freeze_order=freeze_order(program),
        replaces_play_dead=replaced,
        resume_park=dead.resume_park(order, replaced, sent),
        sends_init=sent,
        init_targets=resume.init_targets(sent),
        play_dead_order=order,
        other_play_dead=dead.others(),
        enter_dead=dead.enter_dead(),
        mwait_vendor_check=dead.vendor_check(),
        monitored=dead.monitored(),
        kick_value=dead.kick_value(),
        rescans_dead_siblings=rescans(program),
        reparks_siblings_after_resume=reparks_siblings(program),
        zero_pages=accepts.zero_pages(),
        hw_sig=accepts.hw_sig(),
        compressors=accepts.compressors(),
        arch_record_magic=magic,
        e820_check=accepts.e820_check(magic),
        la57=layout.la57(),
        pti=layout.pti(),
        randomize_base=layout.randomize_base(),
        randomize_memory=layout.randomize_memory(),
        physical_start=layout.physical_start(),
        physical_align=layout.physical_align(),
        idt_gates=layout.idt_gates(),
        fred=layout.fred(),
        cea_random=layout.cea_random(),
        cea_size=layout.cea_size(),
        park_loops=dead.park_loops,
    )
