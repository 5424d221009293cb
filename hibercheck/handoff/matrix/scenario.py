"""What a matrix assumes of the machine and of each run, since there is no image to read it from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

from hibercheck.cpulist import parse_cpu_list
from hibercheck.errors import UsageProblem
from hibercheck.handoff.facts.cpufacts import BUGS, CpuFeatures, Topology
from hibercheck.handoff.facts.given import parse_fact
from hibercheck.handoff.scenario.options import Event, Idle

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
        idle: How the resumer's cpuidle driver parks a dead CPU, or None for what can be told.
        facts: Facts of the resumer's run, as ``--fact`` has them.
        resumee_online: CPUs that the resumee brings online again before the events that are supposed.
    """

    name: str
    resumer_cmdline: str = ""
    resumee_cmdline: str | None = None
    resumer_offline: frozenset[int] = frozenset()
    resumee_offline: frozenset[int] = frozenset()
    idle: Idle | None = None
    facts: tuple[tuple[str, str], ...] = ()
    resumee_online: frozenset[int] = frozenset()

    @property
    def resumee_text(self) -> str:
        """The resumee's command line."""
        return self.resumer_cmdline if self.resumee_cmdline is None else self.resumee_cmdline


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a matrix assumes.

    Attributes:
        machine: The machine.
        scenarios: The runs, one table each.
        spurious_mwait: Whether MWAIT may end by itself, at the worst moment and on a cold TLB.
        suppose: Events supposed after the handoff.
        image_share: What part of RAM an image covers; None for `IMAGE_SHARE`, or more for a large resumee.
        mwait_spins: Whether MWAIT ends at once, always.
    """

    machine: Machine = Machine()
    scenarios: tuple[Scenario, ...] = ()
    spurious_mwait: bool = False
    suppose: frozenset[Event] = frozenset()
    image_share: float | None = None
    mwait_spins: bool = False


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
    """Understand ``NAME``, a preset, or ``NAME=CMDLINE``, each with ``;KEY=VALUE...`` if wanted: see `_field`.

    Raises:
        UsageProblem: It is neither, or names CPUs that the machine lacks.
    """
    start, *parts = text.split(";")
    name, equals, cmdline = start.partition("=")
    if equals:
        begun = Scenario(name, cmdline.strip())
    elif (preset := presets(machine).get(name.strip())) is not None:
        begun = replace(preset, name=text.strip())
    else:
        advice = f"there are {', '.join(presets(machine))}, or NAME=CMDLINE;offline=CPUS"
        raise UsageProblem(f"no scenario is called {name!r}", advice=advice)
    fields: dict[str, Any] = {}
    for part in filter(str.strip, parts):
        field, value = _field(part, machine)
        fields[field] = (*fields.get("facts", ()), value) if field == "facts" else value
    return replace(begun, **fields)


def _field(text: str, machine: Machine) -> tuple[str, object]:
    key, _, value = (part.strip() for part in text.partition("="))
    if key == "resumee":
        return "resumee_cmdline", value
    lists = {"offline": "resumer_offline", "resumee-offline": "resumee_offline", "resumee-online": "resumee_online"}
    if key in lists:
        return lists[key], _cpus(value, machine)
    if key == "fact":
        parse_fact(value)
        fact, _, stated = value.partition("=")
        return "facts", (fact.strip(), stated.strip())
    if key == "idle" and value in get_args(Idle):
        return "idle", value
    advice = (
        "parts are resumee=CMDLINE, offline=CPUS, resumee-offline=CPUS, resumee-online=CPUS, "
        "idle=mwait|halt|port|none, fact=NAME=VALUE"
    )
    raise UsageProblem(f"a scenario cannot have {text.strip()!r}", advice=advice)


def _cpus(text: str, machine: Machine) -> frozenset[int]:
    """Parse the CPUs that are offline.

    Raises:
        UsageProblem: The text is not a list of CPUs, names none, or names one that the machine lacks or boots from.
    """
    try:
        numbers = parse_cpu_list(text)
    except ValueError as error:
        raise UsageProblem(f"a scenario has {error}", advice="write CPUs as 2,3 or 1-3 or 1-7:1/2") from error
    if not numbers:
        raise UsageProblem("a scenario has an empty list of CPUs", advice="write CPUs as 2,3 or 1-3 or 1-7:1/2")
    if not all(0 < cpu < machine.cpus for cpu in numbers):
        raise UsageProblem(f"of {machine.cpus} CPUs only 1 to {machine.cpus - 1} can be offline, not {text}")
    return numbers
