"""Everything a kernel's code says about the handoff, each property with what it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

from hibercheck.data import dataclass
from hibercheck.kernel.code.acceptance import AcceptanceReader
from hibercheck.kernel.code.deadcpu import DeadReader
from hibercheck.kernel.code.layout import LayoutReader
from hibercheck.kernel.code.model import Evidence, IdtGate, ParkKind, ParkLoop, ParkRole, Patch, Touch, Trait
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.rescue import freeze_order, needs_node, needs_primary, reparks_siblings, rescans
from hibercheck.kernel.code.resume import ResumeReader
from hibercheck.kernel.view import CodeView

__all__ = ["Evidence", "IdtGate", "ParkLoop", "Patch", "Touch", "Trait", "Traits", "read_traits", "traits_on_demand"]


class _OnDemand:
    """Fields that have no value yet get theirs when they are asked for."""

    __slots__ = ("readers",)
    readers: _Readers

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the field is
        read = _READ.get(name)
        if read is None:
            raise AttributeError(name)
        value = read(self.readers, self)  # type: ignore[arg-type]
        object.__setattr__(self, name, value)
        return value


@dataclass(frozen=True, slots=True)
class Traits(_OnDemand):
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
        readers = getattr(self, "readers", None)
        return tuple(
            loop
            for loop in (self.park_loops if readers is None else readers.dead.loops(role))
            if loop.role == role and kind in (None, loop.kind) and loop.after_kick == after_kick
        )


class _Readers:
    """What reads the traits of one kernel, each when it is asked for.

    Args:
        kernel: An open kernel.
    """

    def __init__(self, kernel: CodeView) -> None:
        self.program = Program(kernel)
        self.resume = ResumeReader(self.program)
        self.dead = DeadReader(self.program, self.resume)
        self.accepts = AcceptanceReader(self.program)

    @cached_property
    def layout(self) -> LayoutReader:
        """What reads where things are."""
        return LayoutReader(self.program, self.accepts.data_symbols())


# How each trait is read, from the readers and from the other traits.
_READ: Mapping[str, Callable[[_Readers, Traits], Any]] = {
    "hibernate_disable_hook": lambda by, _: by.resume.exists(),
    "rescues_offline": lambda by, _: by.resume.rescues(),
    "rescue_needs_primary": lambda by, _: needs_primary(by.program),
    "rescue_needs_node": lambda by, _: needs_node(by.program),
    "freeze_order": lambda by, _: freeze_order(by.program),
    "replaces_play_dead": lambda by, _: by.resume.replaces(),
    "resume_park": lambda by, its: by.dead.resume_park(its.play_dead_order, its.replaces_play_dead, its.sends_init),
    "sends_init": lambda by, _: by.resume.sends_init(),
    "init_targets": lambda by, its: by.resume.init_targets(its.sends_init),
    "play_dead_order": lambda by, _: by.dead.order(),
    "other_play_dead": lambda by, _: by.dead.others(),
    "enter_dead": lambda by, _: by.dead.enter_dead(),
    "mwait_vendor_check": lambda by, _: by.dead.vendor_check(),
    "monitored": lambda by, _: by.dead.monitored(),
    "kick_value": lambda by, _: by.dead.kick_value(),
    "rescans_dead_siblings": lambda by, _: rescans(by.program),
    "reparks_siblings_after_resume": lambda by, _: reparks_siblings(by.program),
    "zero_pages": lambda by, _: by.accepts.zero_pages(),
    "hw_sig": lambda by, _: by.accepts.hw_sig(),
    "compressors": lambda by, _: by.accepts.compressors(),
    "arch_record_magic": lambda by, _: by.accepts.record_magic(),
    "e820_check": lambda by, its: by.accepts.e820_check(its.arch_record_magic),
    "la57": lambda by, _: by.layout.la57(),
    "pti": lambda by, _: by.layout.pti(),
    "randomize_base": lambda by, _: by.layout.randomize_base(),
    "randomize_memory": lambda by, _: by.layout.randomize_memory(),
    "physical_start": lambda by, _: by.layout.physical_start(),
    "physical_align": lambda by, _: by.layout.physical_align(),
    "idt_gates": lambda by, _: by.layout.idt_gates(),
    "fred": lambda by, _: by.layout.fred(),
    "cea_random": lambda by, _: by.layout.cea_random(),
    "cea_size": lambda by, _: by.layout.cea_size(),
    "park_loops": lambda by, _: by.dead.park_loops,
}


def traits_on_demand(kernel: CodeView) -> Traits:
    """A kernel's traits, each read out of its code when it is asked for: a check asks for half of them.

    Args:
        kernel: A kernel, open for as long as its traits are asked for; or facts read from one before.

    Returns:
        The traits; what could not be read is unknown in them, with the reason.
    """
    ready = getattr(kernel, "traits", None)
    if isinstance(ready, Traits):
        return ready
    traits = object.__new__(Traits)
    object.__setattr__(traits, "readers", _Readers(kernel))
    return traits


def read_traits(kernel: CodeView) -> Traits:
    """Read all of a kernel's traits out of its code.

    Args:
        kernel: An open kernel, or facts read from one before.

    Returns:
        The traits; what could not be read is unknown in them, with the reason.
    """
    traits = traits_on_demand(kernel)
    for one in fields(Traits):
        getattr(traits, one.name)
    return traits
