"""From inputs and options to the scenario: which CPUs the resumer has, where it lies, how each CPU is parked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hibercheck.errors import MissingFact
from hibercheck.handoff.bringup import Bringup, bring_up, rescued_cpus, smt_is_off
from hibercheck.handoff.cmdline import CommandLine, parse_command_line
from hibercheck.handoff.cpufacts import Topology
from hibercheck.handoff.findings import Assumption
from hibercheck.handoff.needs import KernelView
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.park import Parked, ParkRules, idle_of_resumer, park_all
from hibercheck.handoff.resumee import Resumee
from hibercheck.handoff.space import START_KERNEL_MAP
from hibercheck.kernel.code.traits import Traits
from hibercheck.swsusp.image import Image

if TYPE_CHECKING:
    from hibercheck.handoff.loop_replay import ApContext
    from hibercheck.handoff.resumer import ResumerMemory

_LA57_BITS = 57


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
        image: The image.
        resumer: The resumer's kernel.
        traits: What its code does.
        resumee: The resumee.
        options: As the user gave them.
        cmdline: The resumer's command line.
        topology: The machine's CPUs.
        bringup: The resumer's CPUs.
        rescued: Those it brings back before the handoff.
        parked: Every CPU but the one that copies.
        reinitialised: CPUs to which the resumee sends an INIT.
        placement: Where the resumer lies.
        levels: Levels of its page tables; None where not known.
        assumptions: What was taken for granted.
        adjust: What a parking design changes in a parked CPU's registers; None where the resumer parks by itself.
    """

    image: Image
    resumer: KernelView
    traits: Traits
    resumee: Resumee
    options: CheckOptions
    cmdline: CommandLine
    topology: Topology
    bringup: Bringup
    rescued: frozenset[int]
    parked: tuple[Parked, ...]
    reinitialised: frozenset[int]
    placement: Placement
    levels: int | None
    assumptions: tuple[Assumption, ...]
    adjust: Callable[[ApContext, ResumerMemory], ApContext] | None = None


def make_plan(image: Image, resumer: KernelView, traits: Traits, resumee: Resumee, options: CheckOptions) -> Plan:
    """Work out the scenario.

    Raises:
        UsageProblem: An option contradicts the machine.
        MissingFact: The machine's topology cannot be read, or what decides which CPUs run.
    """
    given = options.resumer_cmdline
    cmdline = parse_command_line(resumee.command_line or "" if given is None else given)
    if resumee.topology is None:
        raise MissingFact(f"the machine's CPUs cannot be read from the image: {resumee.missing.get('topology')}")
    smt_off = smt_is_off(cmdline, resumee.topology, resumee.features)
    bringup = bring_up(resumee.present, resumee.topology, cmdline, smt_off=smt_off, by_hand=options.resumer_offline)
    rescued = _rescued(bringup, resumee.topology, traits)
    idle = idle_of_resumer(options.resumer_idle, cmdline, resumee.idle, traits)
    rules = ParkRules(traits, resumee.features, idle)
    return Plan(
        image=image,
        resumer=resumer,
        traits=traits,
        resumee=resumee,
        options=options,
        cmdline=cmdline,
        topology=resumee.topology,
        bringup=bringup,
        rescued=rescued,
        parked=park_all(rules, bringup, rescued),
        reinitialised=reinitialised_by(resumee),
        placement=place(resumer, traits, cmdline, options),
        levels=paging_levels(traits, cmdline, resumee),
        assumptions=_assumptions(options, resumee, cmdline, idle, bringup),
    )


def _rescued(bringup: Bringup, topology: Topology, traits: Traits) -> frozenset[int]:
    """Apply the resumer's rescue.

    Raises:
        MissingFact: CPUs are offline, and whether they are rescued cannot be read.
    """
    if bringup.present == bringup.online:
        return frozenset()
    rescues, needs = traits.rescues_offline, traits.rescue_needs_primary
    if rescues.value is None:
        raise MissingFact(f"whether the resumer rescues offline CPUs cannot be read: {rescues.reason}")
    if rescues.value and needs.value is None:
        raise MissingFact(f"which offline CPUs the resumer rescues cannot be read: {needs.reason}")
    return rescued_cpus(bringup, topology, rescues=rescues.value, needs_primary=bool(needs.value))


def reinitialised_by(resumee: Resumee) -> frozenset[int]:
    """Return the CPUs to which the resumee sends an INIT when it thaws.

    Those in frozen_cpus; and, with SMT off, the siblings, which arch_resume_nosmt() brings up and takes down again
    in the resumee's own memory (arch/x86/power/hibernate.c), ec527c318036 ("x86/power: Fix 'nosmt' vs hibernation
    triple fault during resume", in v5.2).
    """
    cpus = set(resumee.frozen)
    if resumee.smt_disabled and resumee.topology and resumee.kernel.symbol("arch_resume_nosmt") is not None:
        online = cpus | {min(resumee.present, default=0)}
        topology = resumee.topology
        cpus |= {cpu for cpu in resumee.present if topology.primary_of(cpu) in online}
    return frozenset(cpus)


def place(resumer: KernelView, traits: Traits, cmdline: CommandLine, options: CheckOptions) -> Placement:
    """Decide where the resumer lies.

    Raises:
        MissingFact: Whether its load address is random cannot be read.
    """
    link = resumer.require("_text").address - START_KERNEL_MAP
    given = None if options.resumer_phys_base is None else options.resumer_phys_base - link
    if not cmdline.kaslr or traits.randomize_base.value is False:
        return Placement(given or 0, 0)
    if traits.randomize_base.value is None:
        raise MissingFact(
            f"whether the resumer's load address is random cannot be read: {traits.randomize_base.reason}",
            advice="say nokaslr in --resumer-cmdline if it is not",
        )
    return Placement(given, None)


def paging_levels(traits: Traits, cmdline: CommandLine, resumee: Resumee) -> int | None:
    """Decide how many levels of page tables the resumer uses, or None where that is not known."""
    if not cmdline.la57 or traits.la57.value is False:
        return 4
    capable: bool | None = None
    if resumee.levels == 5:
        capable = True
    elif resumee.features is not None and resumee.features.virtual_bits is not None:
        capable = resumee.features.virtual_bits == _LA57_BITS
    if capable is False:
        return 4
    if capable is None or traits.la57.value is None:
        return None
    return 5


def _assumptions(
    options: CheckOptions, resumee: Resumee, cmdline: CommandLine, idle: str | None, bringup: Bringup
) -> tuple[Assumption, ...]:
    cpus = ",".join(map(str, sorted(bringup.present)))
    found = [
        Assumption(
            "the resumer's command line",
            cmdline.text or "(empty)",
            "given" if options.resumer_cmdline is not None else "the resumee's, out of the image",
            "--resumer-cmdline",
        ),
        Assumption(
            "the resumer's CPUs", cpus, "the resumee's present CPUs, out of the image", "--resumer-cmdline nr_cpus="
        ),
        Assumption(
            "CPUs taken offline by hand in the resumer",
            ",".join(map(str, sorted(options.resumer_offline))) or "none",
            "given" if options.resumer_offline else "default",
            "--resumer-offline",
        ),
    ]
    if idle is not None:
        source = (
            "given"
            if options.resumer_idle
            else f"the resumee's driver ({resumee.idle.name or 'none'})"
            if resumee.idle
            else "command line"
        )
        found.append(Assumption("how the resumer's cpuidle driver parks a dead CPU", idle, source, "--resumer-idle"))
    return tuple(found)
