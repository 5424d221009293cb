"""Where and how each of the resumer's other CPUs is parked at the handoff, by the resumer's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from hibercheck.data import dataclass
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.facts.cpufacts import CpuFeatures
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.scenario.bringup import Bringup
from hibercheck.handoff.scenario.options import Idle
from hibercheck.kernel.code.model import ParkKind, ParkLoop, ParkRole, Trait
from hibercheck.kernel.code.names import ENTER_DEAD
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState

_IDLE_OF: dict[str, Idle] = {"mwait": "mwait", "hlt": "halt", "port_io": "port"}
"""What the end of a park loop is called where a driver's choice is meant."""

NO_MEMORY = frozenset({ParkState.WAIT_FOR_SIPI, ParkState.NEVER_BOOTED})
"""States in which a CPU waits in no memory that an image could overwrite."""

_VMLINUX = "a vmlinux with symbols"
_MWAIT_LEAF = 5  # CPUID_MWAIT_LEAF, arch/x86/include/asm/mwait.h


class Unsettled(Exception):  # noqa: N818 - a state of knowledge
    """How a CPU is parked depends on a fact that is missing."""

    def __init__(self, fact: str, supply: str) -> None:
        super().__init__(fact)
        self.fact = fact
        self.supply = supply


@dataclass(frozen=True, slots=True)
class Parked:
    """One parked CPU.

    Attributes:
        cpu: Its logical number.
        state: Its park state.
        loop: The loop it waits in; None where it executes none.
        why: How it came to be parked so, in one sentence.
        rescued: Whether it was offline and brought up to be parked anew.
        left_behind: Whether it was offline, had run before, and was not rescued.
        unsettled: What is missing, where the state is not known.
        by_hand: Whether it was taken offline by hand, and not at boot because SMT is off.
        in_place: Whether it waits outside the resumer, in code that the resumer copied for it.
    """

    cpu: int
    state: ParkState
    loop: ParkLoop | None
    why: str
    rescued: bool = False
    left_behind: bool = False
    unsettled: Unsettled | None = None
    by_hand: bool = False
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class ParkRules:
    """What decides how one kernel's CPUs are parked.

    Attributes:
        traits: The kernel's own behaviour.
        features: The CPU's features, or None where they are not known.
        idle: The answer to "how does the cpuidle driver park a dead CPU", or None where it is not known; or what
            finds it, as it is only asked for where native_play_dead() gets that far.
        bsp: The CPU that may have the BSP flag, where that is not the one that copies: an INIT has it run the firmware.
        driver: Which cpuidle driver that is, or None where it is not known; or what finds it, as for ``idle``.
    """

    traits: Traits
    features: CpuFeatures | None
    idle: Idle | Callable[[], Idle | None] | None
    bsp: int | None = None
    driver: str | Callable[[], str | None] | None = None

    def _loop(self, role: ParkRole, kind: ParkKind) -> ParkLoop | None:
        """Return the loop of a role and kind that a CPU enters first."""
        return _first(self.traits.loops(role, kind))

    def _loop_of_driver(self, kind: ParkKind) -> ParkLoop | None:
        """Return the loop of a kind in which the cpuidle driver parks; the drivers of one kernel may share it."""
        loops = self.traits.loops("cpuidle", kind)
        if len({loop.wait for loop in map(_first, _by_driver(loops)) if loop is not None}) > 1:
            own = _known(
                self.driver() if callable(self.driver) else self.driver,
                "which cpuidle driver the resumer has, as those of its kernel do not wait in the same place",
                "--resumer-facts, or --resumer-memory",
            )
            loops = tuple(loop for loop in loops if loop.driver == own)
        return _first(loops)

    def at_resume(self) -> tuple[ParkState, ParkLoop | None, str]:
        """Say how a CPU that is online at the handoff is parked."""
        supply = (
            "--park DESIGN, if it is one that hibercheck knows" if self.traits.own_place.value is None else _VMLINUX
        )
        park = _read(self.traits.resume_park, "what the resumer's play_dead does at resume", supply)
        if park == "init":
            return ParkState.WAIT_FOR_SIPI, None, "parked in HLT, then sent an INIT, so that it waits for a SIPI"
        if park == "hlt":
            return ParkState.HLT, self._loop("resume", "hlt"), "taken down for the handoff and parked in HLT"
        if park == "place":
            return self._in_place()
        state, loop, how = self.by_native_play_dead(idle_ready=True)
        return state, loop, f"taken down for the handoff like any offlined CPU: {how}"

    def _in_place(self) -> tuple[ParkState, ParkLoop | None, str]:
        """Say how a CPU is parked outside the kernel; its loop is not in the kernel's file."""
        features = self.traits.own_place.value or ()
        state = ParkState.MWAIT if "mwait" in features else ParkState.HLT
        how = (
            "paging off" if "paging off" in features else "page tables of its own" if "page tables" in features else ""
        )
        where = f"code that the resumer copies for it{f', with {how}' if how else ''}"
        return state, None, f"taken down for the handoff and parked in {state.value.upper()}, in {where}"

    def by_native_play_dead(self, *, idle_ready: bool) -> tuple[ParkState, ParkLoop | None, str]:
        """Say where native_play_dead() takes a CPU that goes offline.

        Args:
            idle_ready: Whether a cpuidle driver was registered by then; not so for a sibling taken down at boot.
        """
        order = _read(self.traits.play_dead_order, "the order of native_play_dead()")
        for step in order:
            if step == "hlt":
                return ParkState.HLT, self._loop("native", "hlt"), "native_play_dead() falls back on HLT"
            if step == "mwait":
                if self._mwait_possible():
                    how = "native_play_dead() prefers MWAIT on this CPU"
                    return ParkState.MWAIT, self._loop("native", "mwait"), how
            elif step == "cpuidle":
                found = self._by_cpuidle() if idle_ready else None
                if found:
                    return found
            else:
                raise Unsettled(f"how native_play_dead() parks a CPU by {step}", _VMLINUX)
        raise Unsettled("where native_play_dead() leaves a CPU that it parks in no other way", _VMLINUX)

    def after_kick(self, loop: ParkLoop | None) -> ParkLoop | None:
        """Return the HLT loop to which the resumer sends a CPU in MWAIT before the copy; None where it stays.

        A CPU that a cpuidle driver parks leaves the loop, too: since a18d098f2aab ("Reapply "x86/smp: Eliminate
        mwait_play_dead_cpuid_hint()"", in v6.16) none gets to mwait_play_dead() otherwise.

        Args:
            loop: Where the CPU waits.

        Raises:
            Unsettled: It is not known whether it does.
        """
        if loop is None:
            return None
        halts = self.traits.loops(loop.role, "hlt", after_kick=True)
        found = next((one for one in halts if one.driver == loop.driver), None)
        if found is None:
            return None  # no store makes a CPU leave its loop
        return found if _read(self.traits.kicks_offline, "whether the resumer has CPUs leave MWAIT") else None

    def _mwait_possible(self) -> bool:
        """Apply the tests of mwait_play_dead(): vendor, MWAIT, CLFLUSH, CPUID leaf 5 (arch/x86/kernel/smpboot.c)."""
        features = _known(self.features, "the CPU's vendor and features", "a resumee vmlinux with BTF")
        vendors = _read(self.traits.mwait_vendor_check, "which vendors mwait_play_dead() turns away")
        capable = {"mwait", "clflush"} <= features.flags and features.cpuid_level >= _MWAIT_LEAF
        return capable and features.vendor not in {vendor.lower() for vendor in vendors}

    def _by_cpuidle(self) -> tuple[ParkState, ParkLoop | None, str] | None:
        idle = _known(
            self.idle() if callable(self.idle) else self.idle,
            "how the resumer's cpuidle driver parks a dead CPU",
            "--resumer-idle mwait|halt|port|none",
        )
        if idle == "mwait":
            return ParkState.MWAIT, self._loop_of_driver("mwait"), "the cpuidle driver's enter_dead parks it in MWAIT"
        if idle == "port":
            how = "the cpuidle driver's enter_dead parks it in an I/O port read"
            return ParkState.PORT_IO, self._loop_of_driver("port_io"), how
        if idle == "halt":
            return ParkState.HLT, self._loop_of_driver("hlt"), "the cpuidle driver's enter_dead parks it in HLT"
        return None


def _first(loops: Iterable[ParkLoop]) -> ParkLoop | None:
    """Return the loop that a CPU enters first: one that waits with interrupts enabled is another's."""
    return min(loops, key=lambda loop: loop.interrupts, default=None)


def _by_driver(loops: Iterable[ParkLoop]) -> Iterable[list[ParkLoop]]:
    found: dict[str | None, list[ParkLoop]] = {}
    for loop in loops:
        found.setdefault(loop.driver, []).append(loop)
    return found.values()


T = TypeVar("T")


def _known(value: T | None, fact: str, supply: str) -> T:
    if value is None:
        raise Unsettled(fact, supply)
    return value


def _read(trait: Trait[T], fact: str, supply: str = _VMLINUX) -> T:
    """Return what was read of the kernel's code; where that failed, the fact is named with what stood in the way."""
    return _known(trait.value, f"{fact} ({trait.reason})" if trait.reason else fact, supply)


def idle_by_driver(cmdline: CommandLine, driver: IdleDriver, traits: Traits) -> Idle | None:
    """Say how a cpuidle driver that was seen parks a dead CPU, or None where that cannot be told."""
    if driver.name is None:
        return "none"
    if driver.name not in ENTER_DEAD:
        return "none" if driver.enter_dead is None else None
    ways = traits.enter_dead.value
    if ways is None or (driver.name == "intel_idle" and cmdline.intel_idle_off):
        return None
    possible = {_IDLE_OF[way.partition(":")[2]] for way in ways if way.startswith(f"{driver.name}:")}
    if driver.name == "acpi_idle":
        if driver.enter_dead is None or driver.entry_method is None:
            return None
        # acpi_idle_play_dead(): an entry method that it cannot use leaves the CPU to the next step of play_dead
        return next((idle for idle in possible if idle == driver.entry_method), "none")
    if len(possible) > 1:
        return None
    return possible.pop() if possible else "none"


def park_all(rules: ParkRules, bringup: Bringup, rescued: frozenset[int]) -> tuple[Parked, ...]:
    """Park every CPU but the one that copies."""
    return tuple(_park(rules, bringup, rescued, cpu) for cpu in sorted(bringup.present - {bringup.boot_cpu}))


def _park(rules: ParkRules, bringup: Bringup, rescued: frozenset[int], cpu: int) -> Parked:
    is_rescued = cpu in rescued
    if cpu == rules.bsp and rules.traits.sends_init.value:
        fact = f"what the resumer's INIT does to CPU {cpu}, which may have the BSP flag and would then run the firmware"
        supply = "--park hlt-rescued, if the resumer sends it none and leaves it in HLT"
        return Parked(cpu, ParkState.RUNNING, None, f"depends on {fact}", unsettled=Unsettled(fact, supply))
    if cpu not in bringup.booted and not is_rescued:
        return Parked(cpu, ParkState.NEVER_BOOTED, None, "never started by the resumer, so it still waits for a SIPI")
    left_behind = cpu not in bringup.online and not is_rescued
    if left_behind and rules.traits.sends_init.value and rules.traits.init_targets.value != "online":
        why = "offline, and not brought back: the INIT that the resumer sends before the copy makes it wait for a SIPI"
        return Parked(cpu, ParkState.WAIT_FOR_SIPI, None, why, left_behind=True)
    try:
        if not left_behind:
            state, loop, how = rules.at_resume()
            before = "brought back up before the handoff, then " if is_rescued else ""
            in_place = rules.traits.resume_park.value == "place"
            return Parked(cpu, state, loop, before + how, rescued=is_rescued, in_place=in_place)
        by_hand = cpu in bringup.by_hand
        rescan = rules.traits.rescans_dead_siblings.value
        state, loop, how = rules.by_native_play_dead(idle_ready=by_hand or bool(rescan))
        cause = "taken offline by hand" if by_hand else "taken down at boot because SMT is off"
        if state is ParkState.MWAIT and (halted := rules.after_kick(loop)) is not None:
            state, loop, how = ParkState.HLT, halted, f"{how}; before the copy it is told to halt"
        return Parked(cpu, state, loop, f"{cause}, not brought back: {how}", left_behind=True, by_hand=by_hand)
    except Unsettled as unsettled:
        return Parked(
            cpu, ParkState.RUNNING, None, f"depends on {unsettled.fact}", left_behind=left_behind, unsettled=unsettled
        )


def hidden_cpus(machine: frozenset[int], bringup: Bringup, *, one_cpu: bool) -> tuple[Parked, ...]:
    """Return the CPUs that the machine has and the resumer takes no note of: nobody has started them.

    Args:
        machine: Every CPU of the machine.
        bringup: The resumer's.
        one_cpu: Whether its build is to blame, and not its command line.
    """
    why = "hidden from the resumer by its command line, so that it never started it"
    if one_cpu:
        why = "never started by the resumer, which is built for one CPU"
    return tuple(Parked(cpu, ParkState.NEVER_BOOTED, None, why) for cpu in sorted(machine - bringup.present))
