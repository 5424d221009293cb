"""The designs: what each is, how it parks a CPU, what it asks of both kernels, and what it costs.

Sources: the thread "[PATCH v4] x86/power: Fix 'nosmt' vs. hibernation triple fault during resume" (May 2019, Kosina,
Wysocki, Poimboeuf, Lutomirski) for the proposals; the commits named below for what was shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.errors import UsageProblem
from hibercheck.handoff.designs.occupy import place_island
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ParkedCpu
from hibercheck.handoff.scenario.bringup import rescued_cpus
from hibercheck.handoff.scenario.park import ParkRules
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code import commits
from hibercheck.kernel.code.model import ParkKind, ParkLoop, Trait
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState

Placed = tuple[ParkState, ParkLoop | None, str]


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
    """One way to park.  Each kind overrides how it parks, and what it changes of memory and registers.

    Attributes:
        name: As ``--park`` takes it.
        summary: What it is, in one line.
        origin: Who proposed or shipped it.
        asks_resumer: What R must do.
        asks_resumee: What E must know or do.
        cost: What it costs.
        announcement: What an E of the same design knows.
    """

    name: str
    summary: str
    origin: str
    asks_resumer: str
    asks_resumee: str
    cost: str
    announcement: Announcement = Announcement.NONE

    @property
    def reserves_line(self) -> bool:
        """Whether it sets a page aside for the lines that CPUs monitor."""
        return False

    @property
    def parks_offline(self) -> bool:
        """Whether it parks CPUs too that are offline when the handoff begins."""
        return False

    def rescued(self, _plan: Plan) -> frozenset[int]:
        """Return the offline CPUs that it brings up before the handoff."""
        return frozenset()

    def traits(self, traits: Traits) -> Traits:
        """Return R's traits with what the design changes of native_play_dead()."""
        return traits

    def park(self, plan: Plan, rules: ParkRules, cpu: int, *, online: bool, is_bsp: bool) -> Placed:
        """Say how a CPU that has run is parked: by R's own native_play_dead().

        Args:
            plan: The scenario.
            rules: R's rules, with the design's traits.
            cpu: Its number.
            online: Whether it is online at the handoff.
            is_bsp: Whether it has the BSP flag and is not the CPU that copies.

        Raises:
            Unsettled: It depends on a fact that is missing.
        """
        del is_bsp
        ready = online or cpu in plan.bringup.by_hand or bool(plan.traits.rescans_dead_siblings.value)
        state, loop, why = rules.by_native_play_dead(idle_ready=ready)
        return state, loop or _any_loop(plan.traits, "mwait" if state is ParkState.MWAIT else "hlt"), why

    def apply(
        self, _plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], _dump: Dump | None, *, known: bool
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Change memory and registers as the design does.

        Args:
            memory: As R itself would have it.
            cpus: The CPUs, parked by `park`.
            known: Whether E has the same design.
        """
        del known
        return memory, cpus


@dataclass(frozen=True, slots=True)
class MonitoredLine(Design):
    """MWAIT before anything else; on the idle task's own line, if that is not R's."""

    idle_task: bool = False

    def traits(self, traits: Traits) -> Traits:
        """Prefer MWAIT."""
        return _with_order(traits, ("mwait", "hlt"))

    def apply(
        self, plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], _dump: Dump | None, *, known: bool
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Forget where the line is, where R would monitor another."""
        del known
        if not self.idle_task or plan.traits.monitored.value != "percpu:mwait_cpu_dead":
            return memory, cpus
        return memory, tuple(replace(cpu, context=replace(cpu.context, line=None)) for cpu in cpus)


@dataclass(frozen=True, slots=True)
class FixmapLine(Design):
    """MWAIT on a line in a page that both kernels keep for it."""

    @property
    def reserves_line(self) -> bool:
        """It does."""
        return True

    def traits(self, traits: Traits) -> Traits:
        """Prefer MWAIT."""
        return _with_order(traits, ("mwait", "hlt"))

    def apply(
        self, _plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], _dump: Dump | None, *, known: bool
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Monitor the reserved page: one of R's image beside its fixmap tables, which another E fills."""
        kernel, shift = memory.resumer.kernel, memory.resumer.kaslr_offset
        stand_in = kernel.symbol("level1_fixmap_pgt") or kernel.symbol("level2_kernel_pgt")
        if known or stand_in is None:
            return memory, tuple(replace(cpu, context=replace(cpu.context, line=None, line_kept=known)) for cpu in cpus)
        line = (stand_in.address + shift) & 0xFFFF_FFFF_FFFF_FFFF
        return memory, tuple(
            replace(
                cpu,
                context=replace(
                    cpu.context,
                    line=line,
                    placed=True,
                    gs_base=cpu.context.gs_base if cpu.context.placed else None,
                ),
            )
            for cpu in cpus
        )


@dataclass(frozen=True, slots=True)
class Cpuidle(Design):
    """The cpuidle driver first."""

    def traits(self, traits: Traits) -> Traits:
        """Ask the driver, then halt."""
        return _with_order(traits, ("cpuidle", "hlt"))


@dataclass(frozen=True, slots=True)
class Halt(Design):
    """HLT for the CPUs that are online at the handoff; others first brought up, or left where they are."""

    rescues: bool = False

    def rescued(self, plan: Plan) -> frozenset[int]:
        """Bring up what R's own rescue would."""
        if not self.rescues:
            return frozenset()
        needs = bool(plan.traits.rescue_needs_primary.value)
        return rescued_cpus(plan.bringup, plan.topology, rescues=True, needs_primary=needs)

    def park(self, plan: Plan, rules: ParkRules, cpu: int, *, online: bool, is_bsp: bool) -> Placed:
        """Halt those that are online."""
        if online:
            return *_hlt(plan.traits), "taken down for the handoff and parked in HLT"
        # Named, as super() does not work in a class that slots make anew.
        return Design.park(self, plan, rules, cpu, online=online, is_bsp=is_bsp)


@dataclass(frozen=True, slots=True)
class SelfContained(Design):
    """A HLT loop on pages of its own, that no image holds."""

    paging: bool = True

    @property
    def parks_offline(self) -> bool:
        """Every CPU that has run."""
        return True

    def park(self, _plan: Plan, _rules: ParkRules, _cpu: int, *, online: bool, is_bsp: bool) -> Placed:
        """Park it in the pages, which `apply` finds and fills."""
        del online, is_bsp
        return ParkState.HLT, None, "parked in the design's own pages"

    def apply(
        self, plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], dump: Dump | None, *, known: bool
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Lay the pages over memory and put the CPUs there."""
        return place_island(plan, memory, cpus, dump, paging=self.paging, known=known)


@dataclass(frozen=True, slots=True)
class InitIpi(Design):
    """An INIT to every CPU but one with the BSP flag."""

    @property
    def parks_offline(self) -> bool:
        """Every CPU that has run."""
        return True

    def park(self, plan: Plan, _rules: ParkRules, _cpu: int, *, online: bool, is_bsp: bool) -> Placed:
        """Send it an INIT, unless that would reset the machine."""
        del online
        if is_bsp:
            return *_hlt(plan.traits), "has the BSP flag, so no INIT: parked in HLT"
        return ParkState.WAIT_FOR_SIPI, None, "sent an INIT, so that it waits for a SIPI"


def _with_order(traits: Traits, order: tuple[str, ...]) -> Traits:
    turned_away = traits.mwait_vendor_check
    if turned_away.value is None:
        turned_away = Trait(turned_away.name, ())
    return traits.replaced(play_dead_order=Trait("play_dead_order", order), mwait_vendor_check=turned_away)


def _hlt(traits: Traits) -> tuple[ParkState, ParkLoop | None]:
    found = traits.loops("resume", "hlt") or traits.loops("native", "hlt")
    return ParkState.HLT, next(iter(found), None)


def _any_loop(traits: Traits, kind: ParkKind) -> ParkLoop | None:
    """Return R's loop of a kind, whoever enters it in R itself: the design only changes who does."""
    return next((loop for loop in traits.park_loops if loop.kind == kind and not loop.after_kick), None)


DESIGNS: tuple[Design, ...] = (
    MonitoredLine(
        name="mwait-flags",
        summary="MWAIT on thread_info.flags of the idle task",
        origin=f"every kernel before {commits.OWN_LINE}",
        asks_resumer="nothing",
        asks_resumee="nothing",
        cost="none: the deepest sleep; every store to the idle task's line wakes the CPU",
        idle_task=True,
    ),
    MonitoredLine(
        name="mwait-percpu",
        summary="MWAIT on the per-CPU mwait_cpu_dead; a word that kexec writes there (the kick) makes it HLT",
        origin=f"{commits.OWN_LINE}; the kick: {commits.KICK}",
        asks_resumer="nothing; the kick before the copy would turn it into hlt",
        asks_resumee="nothing",
        cost="none: the deepest sleep; only stores to a line of its own wake the CPU",
    ),
    Cpuidle(
        name="cpuidle",
        summary="the deepest enter_dead of the cpuidle driver: MWAIT, sti;hlt, or a port read",
        origin=commits.CPUIDLE_FIRST,
        asks_resumer="a cpuidle driver that has enter_dead",
        asks_resumee="nothing",
        cost="none: the sleep that the driver chose",
    ),
    Halt(
        name="hlt",
        summary="HLT, for CPUs that are online at the handoff; offline ones stay where they are",
        origin=commits.RESUME_HLT,
        asks_resumer="a play_dead of its own for the resume",
        asks_resumee="nothing",
        cost="C1 for CPUs that E leaves offline, until they are next brought up",
    ),
    Halt(
        name="hlt-rescued",
        summary="HLT, after offline CPUs have been brought back up",
        origin=f"{commits.RESUME_RESCUE}; only siblings of online primaries since {commits.PRIMARY_ONLINE}",
        asks_resumer="bringing CPUs up in the middle of a resume, which may fail and then aborts it",
        asks_resumee="with nosmt: taking the siblings through an online cycle, arch_resume_nosmt()",
        cost="the time of the extra bring-ups; C1 for CPUs that E leaves offline",
        rescues=True,
    ),
    FixmapLine(
        name="fixmap",
        summary="MWAIT on a line in a reserved page at a fixed address beside the vsyscall page",
        origin="proposed by Josh Poimboeuf, 2019; not taken: Jiri Kosina objected that R and E may differ",
        asks_resumer="reserving the frame, and monitoring the line there",
        asks_resumee="the same page at the same place, in no image and with no store to it",
        cost="one page; MWAIT has no restart after an SMI, so the loop's text and page tables are still needed",
        announcement=Announcement.LINE,
    ),
    SelfContained(
        name="self-contained",
        summary="a HLT loop with page tables, GDT, IDT, TSS and stacks of its own on a few announced pages",
        origin="proposed by Andy Lutomirski, 2019 (1)",
        asks_resumer="taking frames that are not in the image (get_safe_page()), and parking every CPU there",
        asks_resumee="reading the announcement, and taking all CPUs over before it reuses the frames",
        cost="some pages until E has taken over; C1 meanwhile; code that must be right for every CPU mode (FRED, CET)",
        announcement=Announcement.CPUS,
    ),
    SelfContained(
        name="self-contained-nopaging",
        summary="the same with paging turned off",
        origin="proposed by Andy Lutomirski, 2019 (1)",
        asks_resumer="frames below 4 GiB that are not in the image, and leaving long mode on every CPU",
        asks_resumee="reading the announcement, and taking all CPUs over before it reuses the frames",
        cost="fewer pages than with paging; C1 meanwhile; a way out of long mode that nothing else uses",
        announcement=Announcement.CPUS,
        paging=False,
    ),
    InitIpi(
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
        UsageProblem: There is no design of that name.
    """
    found = next((design for design in DESIGNS if design.name == name), None)
    if found is None:
        raise UsageProblem(f"no parking design is called {name!r}", advice=f"there are {', '.join(NAMES)}")
    return found
