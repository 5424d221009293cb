"""From inputs and options to the scenario: which CPUs the resumer has, where it lies, how each CPU is parked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from typing import TYPE_CHECKING, Any

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.cpulist import format_cpu_list
from hibercheck.data import dataclass, replace
from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.bringup import Bringup, is_alone, limited_to
from hibercheck.handoff.scenario.known import TABLE
from hibercheck.handoff.scenario.known_cpus import IDLE, MWAIT, idle_driver, rescue, started
from hibercheck.handoff.scenario.known_machine import (
    COMMAND_LINE,
    FEATURES,
    PRESENT,
    TOPOLOGY,
    ignored_apic,
    remark_bootconfig,
    renumbered,
    settle_local_apic,
    settle_modes,
)
from hibercheck.handoff.scenario.known_place import KASLR_OFFSET, LEVELS, LOAD_ADDRESS
from hibercheck.handoff.scenario.measured import remark_dump
from hibercheck.handoff.scenario.options import CheckOptions, Idle
from hibercheck.handoff.scenario.park import Parked, ParkRules, Unsettled, hidden_cpus, park_all
from hibercheck.handoff.scenario.sources import Asking, Disagreement, Inputs
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.handoff.facts.resumer_facts import ResumerFacts

DEFAULT_PHYS_BITS = 52
_UNKNOWN_MACHINE = ("which CPUs the machine has", "--fact cpus=LIST")
_OTHER_NUMBERS = (
    "which of the resumer's CPUs the resumee starts again, as the two numbered them otherwise",
    "a run in which both have acpi=off and disable_cpu_apicid= alike",
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the resumer lies.

    Attributes:
        phys_base: Physical displacement, or None where it is random.
        kaslr_offset: Virtual offset, or None where it is random.
    """

    phys_base: int | None
    kaslr_offset: int | None

    @property
    def known(self) -> bool:
        """Whether both are known."""
        return self.phys_base is not None and self.kaslr_offset is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before anything is replayed.

    Attributes:
        inputs: What was given.
        options: As the user gave them.
        asking: The facts of the run, each with its standing (`hibercheck.handoff.scenario.known.TABLE`).
        cmdline: The resumer's command line.
        topology: The machine's CPUs.
        bringup: The resumer's CPUs.
        rescued: Those it brings back before the handoff.
        parked: Every CPU but the one that copies.
        reinitialised: CPUs to which the resumee sends an INIT.
        placement: Where the resumer lies.
        levels: Levels of its page tables; None where not known.
        features: What its CPU can do; None where not known.
        disagreements: Where two sources differ and both may be right.
        remarks: What the user should know of what he has given.
        missing: What nobody said and nothing can be done without: (fact, how to supply it).
        design: The name and the meaning of the parking design that takes the place of the resumer's own, or None.
        rearranged: Whether CPUs are parked otherwise than in the run that was measured, so that no dump shows it.
        reserves_line: Whether the page of the monitored lines is set aside for parked CPUs.
        numbers: The resumer's number of each of the resumee's CPUs, where it is another.
    """

    inputs: Inputs
    options: CheckOptions
    asking: Asking
    cmdline: CommandLine
    topology: Topology
    bringup: Bringup
    rescued: frozenset[int]
    parked: tuple[Parked, ...]
    reinitialised: frozenset[int]
    placement: Placement
    levels: int | None
    features: CpuFeatures | None = None
    disagreements: tuple[Disagreement, ...] = ()
    remarks: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = field(default=())
    design: tuple[str, str] | None = None
    rearranged: bool = False
    reserves_line: bool = False
    numbers: Mapping[int, int] = field(default_factory=dict)

    @property
    def known(self) -> Mapping[str, Known[Any]]:
        """The facts that were asked for and found, by name."""
        return dict(self.asking)

    @property
    def idle(self) -> Idle | None:
        """How the resumer's cpuidle driver parks a dead CPU; None where not known."""
        return self.asking.value(IDLE)

    @property
    def image(self) -> Image:
        """The image."""
        return self.inputs.image

    @property
    def resumer(self) -> KernelView:
        """The resumer's kernel."""
        return self.inputs.resumer

    @property
    def traits(self) -> Traits:
        """What its code does."""
        return self.inputs.traits

    @property
    def resumee(self) -> Resumee:
        """The resumee."""
        return self.inputs.resumee

    @property
    def facts(self) -> ResumerFacts | None:
        """What the resumer told of itself."""
        return self.inputs.collected

    @property
    def announced(self) -> bool:
        """Whether the resumee is told of the place that the resumer parks CPUs in, and takes them over."""
        return announced(self.inputs)

    @property
    def supposed(self) -> bool:
        """Whether the run is another than the one that was measured, on the same machine."""
        return self.inputs.supposed(self.options)

    @property
    def sleeps(self) -> bool:
        """Whether a CPU is parked in MWAIT, so that it matters when a store wakes it."""
        return any(parked.state is ParkState.MWAIT for parked in self.parked)

    @property
    def mwait_ends(self) -> bool:
        """Whether MWAIT ends at once, always, and so does the read of a C-state's port."""
        return self.asking.value(MWAIT) == "ends"

    @property
    def resumee_runs(self) -> frozenset[int]:
        """CPUs that run in the resumee, by its numbers: those that it starts again, and that on which it continues."""
        theirs = {ours: cpu for cpu, ours in self.numbers.items()}
        return frozenset(theirs.get(cpu, cpu) for cpu in self.reinitialised) | {min(self.resumee.present, default=0)}

    @property
    def physical_bits(self) -> int:
        """MAXPHYADDR of the machine, 52 where nothing tells."""
        return (self.features.physical_bits if self.features else None) or DEFAULT_PHYS_BITS


def make_plan(inputs: Inputs, options: CheckOptions) -> Plan:
    """Work out the scenario.

    What is missing does not end it: the plan says so, and every CPU that depends on it is unsettled.

    Args:
        inputs: What was given to the check.
        options: The scenario.

    Raises:
        UsageProblem: An option contradicts the machine.
        Mismatch: Two inputs contradict each other.
    """
    asking = Asking(inputs, options)
    missing: list[tuple[str, str]] = []
    bringup, rescued = _cpus(asking, missing)
    missing += [] if _machine_is_known(asking) else [_UNKNOWN_MACHINE]
    topology = asking.value(TOPOLOGY) or Topology({}, 0, frozenset())
    features = asking.value(FEATURES)
    bsp = _bsp(inputs.resumee, topology, bringup.boot_cpu)
    rules = ParkRules(inputs.traits, features, lambda: asking.value(IDLE), bsp, lambda: idle_driver(asking))
    parked = park_all(rules, bringup, rescued) if not missing else _unsettled(bringup, missing)
    placement = _placement(asking, missing)
    levels = asking.value(LEVELS)
    for fact in TABLE:
        if fact.on_demand or (fact.lazy and not (options.resumer_idle or inputs.dumped or inputs.collected)):
            continue
        with suppress(MissingFact):  # what nothing rests on so far is not shown either
            asking.known(fact)
    remark_bootconfig(asking)
    remark_dump(asking)
    missing += [apart for apart in (settle_modes(asking), settle_local_apic(asking)) if apart is not None]
    numbers = renumbered(asking)
    missing += [] if numbers or _numbered_alike(asking, bringup) else [_OTHER_NUMBERS]
    return Plan(
        inputs=inputs,
        options=options,
        asking=asking,
        cmdline=asking.need(COMMAND_LINE).value,
        topology=topology,
        bringup=bringup,
        rescued=rescued,
        parked=(*parked, *hidden_cpus(_machine(asking, numbers), bringup, one_cpu=is_alone(inputs.traits))),
        reinitialised=_ours(
            numbers, reinitialised_by(inputs.resumee, inputs.resumee_traits) | _brought_back(inputs.resumee, options)
        )
        | _taken_over(inputs, parked, _ours(numbers, inputs.resumee.present)),
        placement=placement,
        levels=levels,
        features=features,
        rearranged=inputs.supposed(options),
        disagreements=tuple(asking.disagreements),
        remarks=tuple(asking.remarks),
        missing=tuple(dict.fromkeys(missing)),
        numbers=numbers,
    )


def _ours(numbers: Mapping[int, int], theirs: frozenset[int]) -> frozenset[int]:
    """Return CPUs of the resumee by the resumer's numbers."""
    return frozenset(numbers.get(cpu, cpu) for cpu in theirs)


def _cpus(asking: Asking, missing: list[tuple[str, str]]) -> tuple[Bringup, frozenset[int]]:
    """Return the resumer's CPUs and whom it rescues; where that cannot be told, all CPUs that the image has."""
    try:
        bringup = started(asking)
        return bringup, rescue(asking, bringup)
    except MissingFact as fact:
        missing.append(_note(fact))
    machine = asking.inputs.resumee.machine
    boot_cpu = min(machine, default=0)
    everyone = machine | {boot_cpu}
    return Bringup(everyone, boot_cpu, everyone, everyone, frozenset(), frozenset()), frozenset()


def _machine(asking: Asking, numbers: Mapping[int, int]) -> frozenset[int]:
    """Return every CPU of the machine, of which the resumer may take note of a part.

    The image tells them, but for a resumee that left some out and of which it cannot be read how many; then it is who
    saw them, or how many an emulator dumped.  Who says which CPUs there are counts those too of which the resumer takes
    no note, and knows which of the resumee's may be empty slots.
    """
    resumee, topology, told = asking.inputs.resumee, asking.value(TOPOLOGY), asking.given.get("cpus")
    if numbers:
        return frozenset(numbers.values())
    seen = topology.apic_ids if resumee.topology is None and topology is not None else {}
    if told is not None and resumee.may_count_slots:
        return resumee.present.union(seen, told)
    dumped = asking.inputs.dumped
    count = 0 if dumped is None or resumee.tells_machine else dumped.machine_cpus or 0
    return resumee.machine.union(seen, told or range(count))


def _machine_is_known(asking: Asking) -> bool:
    """Tell whether a CPU may be there of which nobody has told, and which counts.

    One that the resumer would start and park always counts; one that nobody starts, if an event is supposed.
    """
    inputs, line = asking.inputs, asking.value(COMMAND_LINE)
    if line is None or inputs.resumee.tells_machine or "cpus" in asking.given:
        return True
    if inputs.dumped is not None and inputs.dumped.machine_cpus is not None:
        return True
    blind, alone = line.acpi_off or line.lapic_off, line.acpi_off or is_alone(inputs.traits)
    told = inputs.dumped is not None and inputs.dumped.facts.topology is not None and not blind
    if asking.options.suppose and (line.limits_cpus or alone) and not told:
        return False
    if len(limited_to(frozenset(range(2)), line, one_cpu=alone)) == 1:  # it starts nobody
        return True
    present = asking.known(PRESENT)
    return present is not None and present.standing is Standing.MEASURED


def _numbered_alike(asking: Asking, bringup: Bringup) -> bool:
    """Tell whether the resumee's numbers of CPUs are the resumer's.

    An MP table, which is read with ``acpi=off``, lists of each package the first CPU alone; by ACPI's list the numbers
    are others then, unless it has all.  Who is told to ignore a CPU, which cannot be the boot CPU, numbers those behind
    it otherwise.  Where both were read the APIC ids say it; `renumbered` has found no difference.
    """
    inputs, line, resumee = asking.inputs, asking.value(COMMAND_LINE), asking.inputs.resumee
    both = bringup.present & resumee.present
    if line is None or len(bringup.present) < 2 or len(resumee.present) < 2:
        return True
    by_table = line.acpi_off != resumee.parameters.acpi_off and not resumee.mp_table_has_all
    by_table = by_table and not (line.acpi_off and bringup.present == resumee.present)
    ignored = {ignored_apic(inputs.resumer, line)} ^ {ignored_apic(resumee.kernel, resumee.parameters)}
    ids = {} if resumee.topology is None else resumee.topology.apic_ids
    skipped = any(apic < max(ids.values(), default=apic + 1) for apic in ignored if apic not in {None, ids.get(0)})
    if not by_table and not skipped:
        return True
    measured = next((one.topology for one in (inputs.dumped and inputs.dumped.facts, inputs.collected) if one), None)
    return measured is not None and all(measured.apic_ids.get(cpu) == ids.get(cpu, -1) for cpu in both)


def _bsp(resumee: Resumee, topology: Topology, boot_cpu: int) -> int | None:
    """Return the CPU that may have the BSP flag, where the one that copies has not; else None.

    Firmware starts a kernel on the BSP.  One that kexec started may run on another CPU (``reboot=smp1``), and a resumer
    runs where its resumee did.  The BSP is then taken to be the CPU with the lowest APIC id, as firmware numbers them.
    """
    if not resumee.booted_by_kexec or not topology.apic_ids:
        return None
    lowest = min(topology.apic_ids, key=lambda cpu: topology.apic_ids[cpu])
    return None if lowest == boot_cpu else lowest


def _unsettled(bringup: Bringup, missing: list[tuple[str, str]]) -> tuple[Parked, ...]:
    """Leave open how CPUs are parked."""
    fact, supply = missing[0]
    why = f"depends on a fact that is missing: {fact}"
    return tuple(
        Parked(cpu, ParkState.RUNNING, None, why, unsettled=Unsettled(fact, supply))
        for cpu in sorted(bringup.present - {bringup.boot_cpu})
    )


def _placement(asking: Asking, missing: list[tuple[str, str]]) -> Placement:
    try:
        address, offset = asking.value(LOAD_ADDRESS), asking.value(KASLR_OFFSET)
    except MissingFact as fact:
        missing.append(_note(fact))
        return Placement(None, None)
    link = asking.inputs.resumer.require("_text").address - START_KERNEL_MAP
    return Placement(None if address is None else address - link, offset)


def unplaced(plan: Plan) -> Plan:
    """Return a scenario in which the resumer may lie anywhere."""
    return replace(plan, placement=Placement(None, plan.placement.kaslr_offset))


def _note(fact: MissingFact) -> tuple[str, str]:
    return fact.message.removesuffix(" is not known"), fact.advice or "a vmlinux with symbols"


def reinitialised_by(resumee: Resumee, traits: Traits) -> frozenset[int]:
    """Return the CPUs to which the resumee sends an INIT when it thaws.

    Those in frozen_cpus; and, with SMT off, those that arch_resume_nosmt() brings up (arch/x86/power/hibernate.c),
    ec527c318036 ("x86/power: Fix 'nosmt' vs hibernation triple fault during resume", in v5.2): every CPU that is
    present, until 2066f00e5b2d ("x86/topology: Implement topology_is_core_online() to address SMT regression", in
    v6.17) has it pass by those whose core's primary thread is offline.  Siblings are then taken down again, by which
    time they wait in the resumee's own memory.

    Args:
        resumee: The resumee.
        traits: What its code does; read only where SMT is off.
    """
    cpus = set(resumee.frozen)
    if resumee.smt_disabled and resumee.topology and traits.nosmt_resume_targets.value != "none":
        online = cpus | {min(resumee.present, default=0)}
        topology, everyone = resumee.topology, traits.nosmt_resume_targets.value == "present"
        cpus |= {cpu for cpu in resumee.present if everyone or topology.primary_of(cpu) in online}
    return frozenset(cpus)


def announced(inputs: Inputs) -> bool:
    """Tell whether two kernels agree on how the one that loads the image tells the one in it where CPUs are parked.

    Both look for, and write, one word in the image header; and the resumee starts the CPUs that it is told of.
    """
    word, theirs = inputs.traits.park_announcement.value, inputs.resumee_traits.park_announcement.value
    return bool(word) and word == theirs and inputs.resumee_traits.takes_parked_over.value is True


def _taken_over(inputs: Inputs, parked: tuple[Parked, ...], theirs: frozenset[int]) -> frozenset[int]:
    """Return the CPUs that wait outside the resumer and that the resumee starts before it uses their frames."""
    waiting = frozenset(one.cpu for one in parked if one.in_place)
    return waiting & theirs if waiting and announced(inputs) else frozenset()


def _brought_back(resumee: Resumee, options: CheckOptions) -> frozenset[int]:
    """Return the CPUs that the resumee has started anew before anything that is supposed happens.

    A CPU comes online by an INIT and a SIPI, and one that goes offline again waits in the resumee's own memory.

    Raises:
        UsageProblem: The resumee does not know one of them, or it cannot go offline as it never was online.
    """
    running = resumee.frozen | {min(resumee.present, default=0)}
    for option, cpus, there, what in (
        ("--resumee-online", options.resumee_online, resumee.present, "the resumee knows of CPUs"),
        ("--resumee-offline", options.resumee_offline, running | options.resumee_online, "the resumee runs on CPUs"),
    ):
        unknown = sorted(cpus - there)
        if unknown:
            raise UsageProblem(f"{option} names CPU {unknown[0]}, but {what} {format_cpu_list(there)}")
    return options.resumee_online | (options.resumee_offline & running)
