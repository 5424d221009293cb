"""The designs: what each is, what it asks of both kernels, and what it costs.

Sources: the thread "[PATCH v4] x86/power: Fix 'nosmt' vs. hibernation triple fault during resume" (May 2019, Kosina,
Wysocki, Poimboeuf, Lutomirski) for the proposals; the commits named below for what was shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hibercheck.errors import UsageProblem
from hibercheck.kernel.code import commits


class Announcement(StrEnum):
    """What an E that has the same design knows of where R has parked its CPUs."""

    NONE = "none"
    """Nothing: such an E treats the CPUs as any other E does."""
    LINE = "line"
    """Where the monitored line is: it leaves that frame alone, and the CPUs where they are."""
    CPUS = "cpus"
    """Every parked CPU and every frame it needs: it takes all CPUs over before it reuses a frame."""


@dataclass(frozen=True, slots=True)
class Design:
    """One way to park.

    Attributes:
        name: As ``--park`` takes it.
        summary: What it is, in one line.
        origin: Who proposed or shipped it.
        asks_resumer: What R must do.
        asks_resumee: What E must know or do.
        cost: What it costs.
        announcement: What an E of the same design knows.
        built: Whether the CPUs wait in code of the design's own.
        paging: Whether that code runs with paging on.
    """

    name: str
    summary: str
    origin: str
    asks_resumer: str
    asks_resumee: str
    cost: str
    announcement: Announcement = Announcement.NONE
    built: bool = False
    paging: bool = True


DESIGNS = (
    Design(
        name="mwait-flags",
        summary="MWAIT on thread_info.flags of the idle task",
        origin=f"every kernel before {commits.OWN_LINE}",
        asks_resumer="nothing",
        asks_resumee="nothing",
        cost="none: the deepest sleep; every store to the idle task's line wakes the CPU",
    ),
    Design(
        name="mwait-percpu",
        summary="MWAIT on the per-CPU mwait_cpu_dead; one word there (the kexec kick) makes it HLT",
        origin=f"{commits.OWN_LINE}; the kick: {commits.KICK}",
        asks_resumer="nothing; the kick before the copy would turn it into hlt",
        asks_resumee="nothing",
        cost="none: the deepest sleep; only stores to a line of its own wake the CPU",
    ),
    Design(
        name="cpuidle",
        summary="the deepest enter_dead of the cpuidle driver: MWAIT, sti;hlt, or a port read",
        origin=commits.CPUIDLE_FIRST,
        asks_resumer="a cpuidle driver that has enter_dead",
        asks_resumee="nothing",
        cost="none: the sleep that the driver chose",
    ),
    Design(
        name="hlt",
        summary="HLT, for CPUs that are online at the handoff; offline ones stay where they are",
        origin=commits.RESUME_HLT,
        asks_resumer="a play_dead of its own for the resume",
        asks_resumee="nothing",
        cost="C1 for CPUs that E leaves offline, until they are next brought up",
    ),
    Design(
        name="hlt-rescued",
        summary="HLT, after offline CPUs have been brought back up",
        origin=f"{commits.RESUME_RESCUE}; only siblings of online primaries since {commits.PRIMARY_ONLINE}",
        asks_resumer="bringing CPUs up in the middle of a resume, which may fail and then aborts it",
        asks_resumee="with nosmt: taking the siblings through an online cycle, arch_resume_nosmt()",
        cost="the time of the extra bring-ups; C1 for CPUs that E leaves offline",
    ),
    Design(
        name="fixmap",
        summary="MWAIT on a line in a reserved page at a fixed address beside the vsyscall page",
        origin="proposed by Josh Poimboeuf, 2019; not taken: Jiri Kosina objected that R and E may differ",
        asks_resumer="reserving the frame, and monitoring the line there",
        asks_resumee="the same page at the same place, in no image and with no store to it",
        cost="one page; MWAIT has no restart after an SMI, so the loop's text and page tables are still needed",
        announcement=Announcement.LINE,
    ),
    Design(
        name="self-contained",
        summary="a HLT loop with page tables, GDT, IDT, TSS and stacks of its own on a few announced pages",
        origin="proposed by Andy Lutomirski, 2019 (1)",
        asks_resumer="taking frames that are not in the image (get_safe_page()), and parking every CPU there",
        asks_resumee="reading the announcement, and taking all CPUs over before it reuses the frames",
        cost="some pages until E has taken over; C1 meanwhile; code that must be right for every CPU mode (FRED, CET)",
        announcement=Announcement.CPUS,
        built=True,
    ),
    Design(
        name="self-contained-nopaging",
        summary="the same with paging turned off",
        origin="proposed by Andy Lutomirski, 2019 (1)",
        asks_resumer="frames below 4 GiB that are not in the image, and leaving long mode on every CPU",
        asks_resumee="reading the announcement, and taking all CPUs over before it reuses the frames",
        cost="fewer pages than with paging; C1 meanwhile; a way out of long mode that nothing else uses",
        announcement=Announcement.CPUS,
        built=True,
        paging=False,
    ),
    Design(
        name="init",
        summary="an INIT IPI to every AP, which then waits for a SIPI; never to the CPU with the BSP flag",
        origin=f"proposed by Andy Lutomirski, 2019 (2); for shutdown and kexec shipped as {commits.INIT_ON_SHUTDOWN} "
        "and reverted by fbe1bf1e5ff1 (in v6.6): machines hung, whose firmware is thought to wait in SMM for all CPUs",
        asks_resumer="sending INIT to genuine APs only: it resets the machine on the CPU with the BSP flag",
        asks_resumee="nothing; to save power, bringing every CPU up once and parking it itself",
        cost="a CPU waiting for a SIPI does not sleep, and machine checks are fatal: INIT clears CR4.MCE",
        announcement=Announcement.CPUS,
    ),
)
"""All designs, in the order of their history."""

NAMES = tuple(design.name for design in DESIGNS)


def design_named(name: str) -> Design:
    """Return a design by name.

    Raises:
        UsageProblem: There is none of that name.
    """
    found = next((design for design in DESIGNS if design.name == name), None)
    if found is None:
        raise UsageProblem(f"no parking design is called {name!r}", advice=f"there are {', '.join(NAMES)}")
    return found
