"""Whether what the resumee's memory says of its CPUs agrees with itself.

An image is megabytes of which a handful of words decide who is parked.  What a kernel keeps twice must be the same
twice; where it is not, one of them is damaged, and neither is believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hibercheck.data import replace
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology, read_features, read_topology
from hibercheck.handoff.facts.space import KernelSpace

T = TypeVar("T")

_NO_SMT = frozenset({"not supported", "not implemented"})
_MAX_APIC_ID = 1 << 15
"""MAX_LOCAL_APIC, arch/x86/include/asm/apicdef.h: bits of phys_cpu_present_map."""


def topology_of(
    space: KernelSpace, present: frozenset[int], smt_control: str | None, *, limited: bool, possible: int | None
) -> Topology:
    """Read the topology of the CPUs that are present, and compare it as `agreed_topology` does."""
    found = read_topology(space, present, limited=limited, possible=possible)
    return agreed_topology(space, present, found, smt_control, limited=limited)


def features_of(space: KernelSpace, present: frozenset[int]) -> CpuFeatures:
    """Read the CPUs' features, and compare them as `agreed_features` does."""
    return agreed_features(space, read_features(space), min(present, default=0))


def attempt(missing: dict[str, str], name: str, fact: Callable[[], T]) -> T | None:
    """Return a fact that can be done without: None where it cannot be read, with the reason in ``missing``."""
    try:
        return fact()
    except (MissingFact, IndexError) as error:
        missing[name] = str(error)
        return None


def agreed_topology(
    space: KernelSpace, present: frozenset[int], topology: Topology, smt_control: str | None, *, limited: bool
) -> Topology:
    """Return the topology, if nothing else in memory speaks against it.

    Args:
        space: The resumee's memory.
        present: CPUs in its present mask.
        topology: What was read.
        smt_control: Its cpu_smt_control.
        limited: Whether its command line limits that mask.

    Raises:
        MissingFact: Something does.
    """
    problem = (
        _ids(space, present, topology)
        or _count(space, present, limited=limited)
        or _threads(space, topology, smt_control)
    )
    if problem is not None:
        raise MissingFact(f"the image's memory contradicts itself: {problem}", advice="the image may be damaged")
    return topology


def _ids(space: KernelSpace, present: frozenset[int], topology: Topology) -> str | None:
    """Every CPU has an APIC id of its own, and all of them are in phys_cpu_present_map.

    generic_processor_info() and, since v6.9, topology_register_apic() (arch/x86/kernel/apic/apic.c, cpu/topology.c).
    """
    ids = [topology.apic_ids[cpu] for cpu in sorted(present)]
    if len(set(ids)) < len(ids):
        return "two CPUs have the same APIC id"
    symbol = space.kernel.symbol("phys_cpu_present_map")
    if symbol is None:
        return None
    known = space.number(space.address("phys_cpu_present_map"), _MAX_APIC_ID // 8)
    lost = next((apic for apic in ids if not known >> apic & 1), None)
    return None if lost is None else f"a CPU has APIC id {lost:#x}, which phys_cpu_present_map lacks"


def _count(space: KernelSpace, present: frozenset[int], *, limited: bool) -> str | None:
    """num_processors, until v6.8, counts the CPUs that are present (generic_processor_info())."""
    if limited or space.kernel.symbol("num_processors") is None:
        return None
    count = space.variable("num_processors", 4)
    return None if count == len(present) else f"{len(present)} CPUs are present, and num_processors is {count}"


def _threads(space: KernelSpace, topology: Topology, smt_control: str | None) -> str | None:
    """cpu_smt_control says "not supported" where cores have one thread (cpu_smt_check_topology(), kernel/cpu.c).

    Since v6.9 a core may have room for threads in its APIC ids that the firmware keeps off: "not supported" there too.
    """
    if smt_control is None:
        return None
    shift, without = topology.smt_shift, smt_control in _NO_SMT
    if not shift and not without:
        return f"cores have one thread, and cpu_smt_control is {smt_control}"
    if space.kernel.symbol("x86_topo_system") is None:
        contradicts = shift and smt_control == "not supported"
        return f"cores have {1 << shift} threads, and SMT is not supported" if contradicts else None
    if space.kernel.symbol("cpu_smt_max_threads") is None:  # not listed: it came before, in v6.6
        return None
    most = space.variable("cpu_smt_max_threads", 4)
    needed = max(most - 1, 0).bit_length()
    if needed <= shift <= max(needed, 1):
        return None
    return f"APIC ids have room for {1 << shift} threads of a core, and cpu_smt_max_threads is {most}"


def agreed_features(space: KernelSpace, features: CpuFeatures, boot_cpu: int) -> CpuFeatures:
    """Return the features of ``boot_cpu_data``, if the boot CPU's own ``cpu_info`` has the same.

    smp_store_boot_cpu_info() copies the one to the other (arch/x86/kernel/smpboot.c).

    Raises:
        MissingFact: It has others.
    """
    if space.kernel.symbol("cpu_info") is None:
        return features
    again = read_features(space, space.percpu_address("cpu_info", boot_cpu))
    if replace(again, bugs=features.bugs) != features:
        raise MissingFact(
            "the image's memory contradicts itself: boot_cpu_data and cpu_info have other CPU features",
            advice="the image may be damaged",
        )
    return features
