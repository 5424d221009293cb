"""Which CPUs the resumer runs, by its command line and by hand, and which of them its own rules rescue."""

from __future__ import annotations

from hibercheck.cpulist import format_cpu_list
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.cmdline import CommandLine
from hibercheck.handoff.cpufacts import CpuFeatures, Topology


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

    ``nosmt`` means nothing to a CPU without SMT; ``mitigations=auto,nosmt`` and its kin switch it off only on a
    CPU that has the bug concerned (kernel/cpu.c cpu_smt_disable(), arch/x86/kernel/cpu/bugs.c).

    Raises:
        MissingFact: It depends on the CPU's bugs and they are not known.
    """
    if topology.smt_shift == 0:
        return False
    if cmdline.nosmt or not cmdline.nosmt_if_bugs:
        return cmdline.nosmt
    if features is None or features.bugs is None:
        raise MissingFact("whether the CPU has the bugs for which the command line switches SMT off is not known")
    return bool(features.bugs & cmdline.nosmt_if_bugs)


def bring_up(
    present: frozenset[int], topology: Topology, cmdline: CommandLine, *, smt_off: bool, by_hand: frozenset[int]
) -> Bringup:
    """Start CPUs as bringup_nonboot_cpus() does (kernel/cpu.c): ascending, until maxcpus= of them are online.

    With SMT off a sibling is started once, so that its CR4.MCE is set, and taken down again at once.

    Raises:
        UsageProblem: A CPU said to be offline is not there, or is the boot CPU.
    """
    limits = [count for count in (cmdline.nr_cpus, cmdline.possible_cpus) if count is not None and count > 0]
    present = frozenset(cpu for cpu in present if cpu < min(limits, default=1 << 30))
    boot_cpu = min(present, default=0)
    wanted = 1 if cmdline.max_cpus == 0 else cmdline.max_cpus or len(present)
    online, booted = {boot_cpu}, {boot_cpu}
    for cpu in sorted(present):
        if len(online) >= wanted:
            break
        booted.add(cpu)
        if not smt_off or cpu in topology.primaries:
            online.add(cpu)
    _check_by_hand(by_hand, present, boot_cpu)
    return Bringup(
        present=present,
        boot_cpu=boot_cpu,
        booted=frozenset(booted),
        online=frozenset(online - by_hand),
        siblings_down=frozenset(booted - online),
        by_hand=by_hand & frozenset(online),
    )


def _check_by_hand(by_hand: frozenset[int], present: frozenset[int], boot_cpu: int) -> None:
    unknown = sorted(by_hand - present)
    if unknown:
        have = format_cpu_list(present)
        raise UsageProblem(f"--resumer-offline names CPU {unknown[0]}, but the resumer has CPUs {have}")
    if boot_cpu in by_hand:
        raise UsageProblem(f"--resumer-offline names CPU {boot_cpu}, which is the one that resumes")


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
