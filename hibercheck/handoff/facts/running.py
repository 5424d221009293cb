"""A kernel as its own memory shows it while it runs: the resumer in a dump, or in frames that were collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TypeVar

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.consistency import attempt, features_of, topology_of
from hibercheck.handoff.facts.cpufacts import (
    CpuFeatures,
    Topology,
    cpu_count,
    read_mask,
    read_mask_variable,
    under_known_hypervisor,
)
from hibercheck.handoff.facts.e820 import E820Entry, read_e820
from hibercheck.handoff.facts.idle import IdleDriver, read_idle_driver
from hibercheck.handoff.facts.modes import read_modes
from hibercheck.handoff.facts.resumee import leaves_cpus_out, read_smt_control
from hibercheck.handoff.facts.space import KernelSpace

T = TypeVar("T")

MAX_NODES = 1024
"""The largest MAX_NUMNODES: 1 << NODES_SHIFT, which is at most 10 (arch/x86/Kconfig)."""


@dataclass(frozen=True, slots=True)
class RunningKernelFacts:
    """What a running kernel's memory says of its run; None where it does not, with the reason in ``missing``.

    Attributes:
        command_line: ``saved_command_line``.
        present: ``__cpu_present_mask``.
        online: ``__cpu_online_mask``; the CPU that copies alone once the others are parked for the handoff.
        booted: ``cpus_booted_once_mask``: the CPUs that it has started at least once.
        frozen: ``frozen_cpus``: those that it has parked for the handoff; empty before.
        smt_control: One of `hibercheck.handoff.facts.resumee.SMT_CONTROL`.
        topology: APIC ids and cores of the CPUs that are present.
        features: Of ``boot_cpu_data``.
        idle: Its cpuidle driver.
        e820: The firmware's memory map.
        pages: get_num_physpages().
        lockdown: ``none``, or ``integrity`` where the kernel is locked down at all.
        no_hibernation: Whether it was told never to hibernate.
        hardware_signature: swsusp_hardware_signature: 0 where it compares none.
        restores: Of an image that it has loaded: where it will jump, and with which CR3; None where it has loaded none.
        missing: Why a field is None.
        modes: States of the machine (`hibercheck.handoff.facts.modes.MODES`), of those that could be read.
        hypervisor: Whether it runs under a hypervisor that it knows.
        loads: Of an image that it has loaded: how many pages of data that has.
    """

    command_line: str | None
    present: frozenset[int] | None
    online: frozenset[int] | None
    booted: frozenset[int] | None
    frozen: frozenset[int] | None
    smt_control: str | None
    topology: Topology | None
    features: CpuFeatures | None
    idle: IdleDriver | None
    e820: tuple[E820Entry, ...] | None
    pages: int | None
    lockdown: str | None
    no_hibernation: bool | None
    hardware_signature: int | None
    restores: tuple[int, int] | None
    missing: dict[str, str]
    modes: dict[str, bool] = field(default_factory=dict)
    hypervisor: bool | None = None
    loads: int | None = None

    @property
    def has_parked(self) -> bool:
        """Whether it has parked CPUs for the handoff."""
        return bool(self.frozen)


def read_running(space: KernelSpace) -> RunningKernelFacts:
    """Read a running kernel by its symbols, through its own page tables; what cannot be read is None."""
    missing: dict[str, str] = {}

    def read(name: str, fact: Callable[[], T]) -> T | None:
        return attempt(missing, name, fact)

    def mask(symbol: str) -> frozenset[int]:
        return read_mask(space, space.address(symbol), cpu_count(space))

    command_line = read("command_line", lambda: space.string(space.variable("saved_command_line")))
    present = read("present", lambda: mask("__cpu_present_mask"))
    smt_control = read("smt_control", lambda: read_smt_control(space))
    told = parse_command_line(command_line or "")
    limited = leaves_cpus_out(space, told, present or frozenset())

    def frozen() -> frozenset[int]:
        return read_mask_variable(space, "frozen_cpus", cpu_count(space), _known(present))

    def topology() -> Topology:
        # the handoff has set cpu_smt_control to "enabled" by the time at which most dumps are taken
        return topology_of(space, _known(present), None, limited=limited, possible=told.possible_cpus)

    return RunningKernelFacts(
        command_line=command_line,
        present=present,
        online=read("online", lambda: mask("__cpu_online_mask")),
        booted=read("booted", lambda: mask("cpus_booted_once_mask")),
        frozen=read("frozen", frozen),
        smt_control=smt_control,
        topology=read("topology", topology),
        features=read("features", lambda: features_of(space, _known(present))),
        idle=read("idle", lambda: read_idle_driver(space)),
        e820=read("e820", lambda: read_e820(space)),
        pages=read("pages", lambda: physical_pages(space)),
        lockdown=attempt(
            missing, "lockdown", lambda: "integrity" if space.variable("kernel_locked_down", 4) else "none"
        ),
        no_hibernation=read("no_hibernation", lambda: bool(space.variable("nohibernate", 4))),
        hardware_signature=attempt(
            missing, "hardware_signature", lambda: space.variable("swsusp_hardware_signature", 4)
        ),
        restores=read("restores", lambda: restores(space)),
        missing=missing,
        modes=read_modes(space),
        hypervisor=attempt({}, "hypervisor", lambda: under_known_hypervisor(space)),
        # load_header(), kernel/power/snapshot.c, has it out of the image's header
        loads=attempt({}, "loads", lambda: space.variable("nr_copy_pages", 4)) or None,
    )


def _known(present: frozenset[int] | None) -> frozenset[int]:
    if present is None:
        raise MissingFact("which CPUs are present cannot be read")
    return present


def restores(space: KernelSpace) -> tuple[int, int] | None:
    """Read restore_jump_address and restore_cr3, which came out of an image's header, if an image has been loaded.

    restore_pblist is then the list of pages that are still to be copied (kernel/power/snapshot.c).
    """
    if not space.variable("restore_pblist"):
        return None
    return space.variable("restore_jump_address"), space.variable("restore_cr3")


def physical_pages(space: KernelSpace) -> int:
    """Read get_num_physpages(): the sum of all nodes' node_present_pages (include/linux/mm.h).

    Raises:
        MissingFact: The kernel has no types, or its nodes cannot be read.
    """
    offset = space.kernel.offset_of("pglist_data", "node_present_pages")
    return sum(space.number(node + offset) for node in _nodes(space))


def _nodes(space: KernelSpace) -> list[int]:
    """Return the addresses of the memory nodes: node_data[] with NUMA, contig_page_data without."""
    if space.kernel.symbol("contig_page_data") is not None:
        return [space.address("contig_page_data")]
    count = min(space.kernel.extent(space.kernel.require("node_data")) // 8, MAX_NODES)
    start = space.address("node_data")
    return [node for node in (space.number(start + 8 * index) for index in range(count)) if node]
