"""What a matrix assumes of the machine and of each run, since there is no image to read it from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.bringup import Bringup, bring_up, smt_is_off
from hibercheck.handoff.cmdline import CommandLine, parse_command_line
from hibercheck.handoff.cpufacts import BUGS, CpuFeatures, Topology
from hibercheck.handoff.options import Event, Idle

IMAGE_SHARE = 0.4
"""image_size is 2/5 of RAM unless the user says otherwise: hibernate_image_size_init(), kernel/power/snapshot.c."""

_CPUID_LEVEL = 0x16


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine on which all the kernels run.

    Attributes:
        cpus: How many.
        threads: Threads of a core: 1 or 2.
        vendor: ``intel``, ``amd`` or ``hygon``.
        mwait: Whether the CPUs have MWAIT.
        la57: Whether they can page with five levels.
        memory: RAM in bytes.
    """

    cpus: int = 4
    threads: int = 2
    vendor: str = "intel"
    mwait: bool = True
    la57: bool = False
    memory: int = 4 << 30

    @property
    def topology(self) -> Topology:
        """Neighbouring CPUs share a core."""
        numbers = {cpu: cpu for cpu in range(self.cpus)}
        shift = self.threads.bit_length() - 1
        return Topology(numbers, shift, frozenset(cpu for cpu in numbers if cpu % self.threads == 0))

    @property
    def features(self) -> CpuFeatures:
        """What its CPUs can do; a CPU of which nothing is known is taken to have every bug that matters."""
        flags = {"clflush", "nx", "gbpages"} | ({"mwait"} if self.mwait else set()) | ({"la57"} if self.la57 else set())
        bits = 57 if self.la57 else 48
        return CpuFeatures(self.vendor, _CPUID_LEVEL, frozenset(flags), frozenset(BUGS), bits, None)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is assumed of the two runs.

    Attributes:
        name: As the user named it.
        resumer_cmdline: The resumer's command line.
        resumee_cmdline: The resumee's; by default the same.
        resumer_offline: CPUs taken offline by hand in the resumer.
        resumee_offline: CPUs that are offline in the resumee when it hibernates.
        idle: How the resumer's cpuidle driver parks a dead CPU, or None for what its command line says.
    """

    name: str
    resumer_cmdline: str = ""
    resumee_cmdline: str | None = None
    resumer_offline: frozenset[int] = frozenset()
    resumee_offline: frozenset[int] = frozenset()
    idle: Idle | None = None

    @property
    def resumer(self) -> CommandLine:
        """The resumer's command line, understood."""
        return parse_command_line(self.resumer_cmdline)

    @property
    def resumee(self) -> CommandLine:
        """The resumee's command line, understood."""
        return parse_command_line(self.resumer_cmdline if self.resumee_cmdline is None else self.resumee_cmdline)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a matrix assumes.

    Attributes:
        machine: The machine.
        scenarios: The runs, one table each.
        spurious_mwait: Whether MWAIT may end at any time.
        suppose: Events supposed after the handoff.
        image_share: What part of RAM an image covers; None for `IMAGE_SHARE`, or more for a large resumee.
    """

    machine: Machine = Machine()
    scenarios: tuple[Scenario, ...] = ()
    spurious_mwait: bool = False
    suppose: frozenset[Event] = frozenset()
    image_share: float | None = None


def presets(machine: Machine) -> dict[str, Scenario]:
    """Return the scenarios that have names of their own."""
    last = machine.cpus - 1
    primary = last // machine.threads * machine.threads
    core = frozenset(range(primary, machine.cpus))
    known = [Scenario("default"), Scenario("nosmt", "nosmt")]
    if machine.cpus > machine.threads:
        known += [
            Scenario("offline-core", resumer_offline=core),
            Scenario("offline-primary", resumer_offline=frozenset({primary})),
        ]
    if machine.cpus > 1:
        known += [
            Scenario("offline", resumer_offline=frozenset({last})),
            Scenario("resumee-offline", resumee_offline=frozenset({last})),
        ]
    return {scenario.name: scenario for scenario in known}


def parse_scenario(text: str, machine: Machine) -> Scenario:
    """Understand ``NAME``, a preset, or ``NAME=CMDLINE;KEY=VALUE...``: resumee, offline, resumee-offline, idle.

    Raises:
        UsageProblem: It is neither, or names CPUs that the machine lacks.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        known = presets(machine)
        if name not in known:
            advice = f"there are {', '.join(known)}, or NAME=CMDLINE;offline=CPUS"
            raise UsageProblem(f"no scenario is called {name!r}", advice=advice)
        return known[name]
    cmdline, *parts = rest.split(";")
    fields = dict(_field(part, machine) for part in parts if part.strip())
    return Scenario(name, cmdline.strip(), **fields)  # type: ignore[arg-type]


def _field(text: str, machine: Machine) -> tuple[str, object]:
    key, _, value = (part.strip() for part in text.partition("="))
    if key == "resumee":
        return "resumee_cmdline", value
    if key in {"offline", "resumee-offline"}:
        return ("resumer_offline" if key == "offline" else "resumee_offline"), _cpus(value, machine)
    if key == "idle" and value in get_args(Idle):
        return "idle", value
    advice = "parts are resumee=CMDLINE, offline=CPUS, resumee-offline=CPUS, idle=mwait|halt|port|none"
    raise UsageProblem(f"a scenario cannot have {text.strip()!r}", advice=advice)


def _cpus(text: str, machine: Machine) -> frozenset[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdigit() or not (last or first).strip().isdigit():
            raise UsageProblem(f"{text!r} is not a list of CPUs such as 2,3 or 1-3")
        numbers.update(range(int(first), int(last or first) + 1) if int(last or first) < machine.cpus else {1 << 30})
    if not all(0 < cpu < machine.cpus for cpu in numbers):
        raise UsageProblem(f"of {machine.cpus} CPUs only 1 to {machine.cpus - 1} can be offline, not {text}")
    return frozenset(numbers)


def resumer_cpus(scenario: Scenario, machine: Machine) -> Bringup:
    """Start the resumer's CPUs.

    Raises:
        MissingFact: Whether SMT is off depends on what is not known.
    """
    cmdline, topology = scenario.resumer, machine.topology
    off = smt_is_off(cmdline, topology, machine.features)
    present = frozenset(range(machine.cpus))
    return bring_up(present, topology, cmdline, smt_off=off, by_hand=scenario.resumer_offline)


def reinitialised_cpus(scenario: Scenario, machine: Machine, *, reparks: bool) -> frozenset[int]:
    """Return the CPUs to which the resumee sends an INIT when it thaws: see plan.reinitialised_by().

    Args:
        scenario: The runs.
        machine: The machine.
        reparks: Whether the resumee takes SMT siblings through an online cycle, arch_resume_nosmt().
    """
    cmdline, topology = scenario.resumee, machine.topology
    try:
        off = smt_is_off(cmdline, topology, machine.features)
    except MissingFact:
        off = True
    present = frozenset(range(machine.cpus))
    bringup = bring_up(present, topology, cmdline, smt_off=off, by_hand=scenario.resumee_offline)
    cpus = set(bringup.online)
    if off and reparks:
        cpus |= {cpu for cpu in bringup.present if topology.primary_of(cpu) in bringup.online}
    return frozenset(cpus)
