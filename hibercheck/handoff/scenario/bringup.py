"""Which CPUs the resumer runs, by its command line and by hand, and which of them its own rules rescue."""

from __future__ import annotations

from enum import StrEnum

from hibercheck.cpulist import format_cpu_list
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology
from hibercheck.kernel.code.traits import Traits


@dataclass(frozen=True, slots=True)
class Bringup:
    """The resumer's CPUs when it is told to resume.

    Attributes:
        present: CPUs it knows of.
        boot_cpu: The CPU that copies the image.
        booted: CPUs that it started at least once (a ``nosmt`` sibling is started once and taken down).
        online: CPUs that are online when the resume begins.
        siblings_down: CPUs taken down at boot because SMT is off.
        by_hand: CPUs taken offline by hand.
    """

    present: frozenset[int]
    boot_cpu: int
    booted: frozenset[int]
    online: frozenset[int]
    siblings_down: frozenset[int]
    by_hand: frozenset[int]

    @property
    def never_booted(self) -> frozenset[int]:
        """CPUs that this kernel never started: they still wait for a SIPI."""
        return self.present - self.booted


def smt_is_off(cmdline: CommandLine, topology: Topology, features: CpuFeatures | None) -> bool:
    """Tell whether a kernel runs with SMT switched off.

    ``nosmt`` means nothing to a CPU without SMT; ``mitigations=auto,nosmt`` and the like switch it off only on a
    CPU that has the bug concerned (kernel/cpu.c cpu_smt_disable(), arch/x86/kernel/cpu/bugs.c).

    Raises:
        MissingFact: It depends on the CPU's bugs, which are not known, or on what ``mitigations=off`` is to the kernel.
    """
    if topology.smt_shift == 0:
        return False
    if cmdline.nosmt or not cmdline.nosmt_if_bugs:
        return cmdline.nosmt
    if features is None or features.bugs is None:
        raise MissingFact("whether the CPU has the bugs for which the command line switches SMT off is not known")
    off = bool(features.bugs & cmdline.nosmt_if_bugs)
    if off and cmdline.mitigations_off:
        # it wins up to 2f970a526975 ("x86/bugs: Add attack vector controls for L1TF", in v6.17), and loses since
        raise MissingFact("whether mitigations=off counts beside an option that switches SMT off is not known")
    return off


class Order(StrEnum):
    """In which order a kernel starts CPUs, and what ``maxcpus=`` counts."""

    NUMBERS = "numbers"
    """In the order of their numbers, until so many are online: before 18415f33e2ac ("cpu/hotplug: Allow "parallel"
    bringup up to CPUHP_BP_KICK_AP_STATE", in v6.5)."""
    ATTEMPTS = "attempts"
    """In the order of their numbers, until so many have been tried, the boot CPU among them: ``cpuhp.parallel=0``."""
    PRIMARIES = "primaries"
    """The primary threads of all cores first, then their siblings, counting those tried in each round."""


def order_of(traits: Traits, cmdline: CommandLine) -> Order | None:
    """Say in which order a kernel starts CPUs; None where its code does not tell."""
    parallel = traits.parallel_bringup.value
    if parallel is None:
        return None
    if not parallel:
        return Order.NUMBERS
    switched_off = cmdline.parallel_bringup is False and traits.parallel_switch.value is not False
    return Order.ATTEMPTS if switched_off else Order.PRIMARIES


def bring_up(
    present: frozenset[int],
    topology: Topology,
    cmdline: CommandLine,
    *,
    smt_off: bool,
    by_hand: frozenset[int],
    order: Order = Order.NUMBERS,
) -> Bringup:
    """Start CPUs as bringup_nonboot_cpus() does (kernel/cpu.c).

    With SMT off a sibling is started once, so that its CR4.MCE is set, and taken down again at once.

    Args:
        present: The CPUs of the machine.
        topology: Which of them share a core.
        cmdline: What limits them.
        smt_off: Whether SMT is off.
        by_hand: CPUs that are taken offline by hand afterwards.
        order: In which order the kernel starts them.

    Raises:
        UsageProblem: A CPU said to be offline is not there, or is the boot CPU.
    """
    present = limited_to(present, cmdline)
    boot_cpu = min(present, default=0)
    wanted = cmdline.max_cpus or len(present)
    stays = present & topology.primaries | {boot_cpu} if smt_off else present
    booted = frozenset(_started(present, topology, wanted, stays, order)) | {boot_cpu}
    online = booted & stays
    _check_by_hand(by_hand, present, boot_cpu)
    return Bringup(
        present=present,
        boot_cpu=boot_cpu,
        booted=booted,
        online=online - by_hand,
        siblings_down=booted - online,
        by_hand=by_hand & online,
    )


def _started(
    present: frozenset[int], topology: Topology, wanted: int, stays: frozenset[int], order: Order
) -> list[int]:
    """Return the CPUs that are started, the boot CPU among them, which counts in each order.

    Args:
        present: The CPUs.
        topology: Which of them share a core.
        wanted: ``maxcpus=``.
        stays: Those that stay online once they are started.
        order: In which order.
    """
    if order is Order.PRIMARIES:  # without SMT all are primary threads, and one round is as good
        first = sorted(present & topology.primaries)[:wanted]
        left = wanted - len(stays.intersection(first))
        return first + sorted(present - topology.primaries)[:left]
    if order is not Order.NUMBERS:
        return sorted(present)[:wanted]
    found, online = [], 0
    for cpu in sorted(present):
        if online >= wanted:
            break
        found.append(cpu)
        online += cpu in stays
    return found


def is_alone(traits: Traits) -> bool:
    """Tell whether a kernel is known to be built for one CPU."""
    return traits.one_cpu.value is True


def limited_to(machine: frozenset[int], cmdline: CommandLine, *, one_cpu: bool = False) -> frozenset[int]:
    """Return the CPUs of those that it finds that a kernel takes note of.

    ``nr_cpus=`` and ``possible_cpus=`` hide the rest.  ``nosmp``, ``maxcpus=0`` and ``nolapic`` leave it the boot CPU
    alone, and so does a build without CONFIG_SMP.
    """
    if cmdline.max_cpus == 0 or cmdline.lapic_off or one_cpu:
        return frozenset(sorted(machine)[:1])
    limits = [count for count in (cmdline.nr_cpus, cmdline.possible_cpus) if count is not None and count > 0]
    return frozenset(cpu for cpu in machine if all(cpu < limit for limit in limits))


def found_by(machine: frozenset[int], cmdline: CommandLine, *, one_cpu: bool = False) -> frozenset[int]:
    """Return the CPUs of a machine that a kernel takes note of.

    With ``acpi=off`` it is the boot CPU alone where no MP table lists the others (disable_smp(),
    arch/x86/kernel/smpboot.c).
    """
    return limited_to(frozenset(sorted(machine)[:1]) if cmdline.acpi_off else machine, cmdline, one_cpu=one_cpu)


def _check_by_hand(by_hand: frozenset[int], present: frozenset[int], boot_cpu: int) -> None:
    unknown = sorted(by_hand - present)
    if unknown:
        have = format_cpu_list(present)
        raise UsageProblem(
            f"--resumer-offline names CPU {unknown[0]}, but the resumer has CPUs {have}",
            advice="give --fact cpus=LIST if it has other CPUs than the resumee, and takes note of them",
        )
    if boot_cpu in by_hand:
        raise UsageProblem(f"--resumer-offline names CPU {boot_cpu}, which is the CPU that resumes")


def rescued_cpus(bringup: Bringup, topology: Topology, *, rescues: bool, needs_primary: bool) -> frozenset[int]:
    """Return the offline CPUs that cpuhp_smt_enable() brings up before the handoff.

    Since ec527c318036 ("x86/power: Fix 'nosmt' vs hibernation triple fault during resume", in v5.2) the resumer
    calls it; since 2066f00e5b2d ("x86/topology: Implement topology_is_core_online() to address SMT regression", in
    v6.17) it passes by every CPU whose core's primary thread is offline, the primary itself included.
    """
    offline = bringup.present - bringup.online
    if not rescues:
        return frozenset()
    if not needs_primary:
        return offline
    return frozenset(cpu for cpu in offline if topology.primary_of(cpu) in bringup.online)
