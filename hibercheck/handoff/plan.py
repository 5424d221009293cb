"""From inputs and options to the scenario: which CPUs the resumer has, where it lies, how each CPU is parked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.assumptions import image_assumption, scenario_assumptions
from hibercheck.handoff.bringup import Bringup, bring_up, rescued_cpus, smt_is_off
from hibercheck.handoff.cmdline import CommandLine, parse_command_line
from hibercheck.handoff.cpufacts import CpuFeatures, Topology
from hibercheck.handoff.facts import ResumerFacts
from hibercheck.handoff.findings import Assumption
from hibercheck.handoff.measured import check_idle, kaslr_offset, observe, phys_base
from hibercheck.handoff.options import CheckOptions, Idle
from hibercheck.handoff.park import Parked, ParkRules, idle_of_resumer, park_all
from hibercheck.handoff.resumee import Resumee
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState

if TYPE_CHECKING:
    from hibercheck.handoff.context import ApContext
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
        facts: What the resumer told of itself, or None.
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
    facts: ResumerFacts | None = None
    adjust: Callable[[ApContext, ResumerMemory], ApContext] | None = None


def make_plan(
    image: Image,
    resumer: KernelView,
    traits: Traits,
    resumee: Resumee,
    options: CheckOptions,
    facts: ResumerFacts | None = None,
) -> Plan:
    """Work out the scenario.

    Args:
        image: The image.
        resumer: The resumer's kernel.
        traits: What its code does.
        resumee: The resumee.
        options: The options, with the facts that replace some of them already in them (`measured.with_facts`).
        facts: What the resumer told of itself, or None.

    Raises:
        UsageProblem: An option contradicts the machine, or the facts.
        MissingFact: The machine's topology cannot be read, or what decides which CPUs run.
    """
    given = options.resumer_cmdline
    cmdline = resumee.parameters if given is None else parse_command_line(given)
    topology = resumee.topology or (facts.topology if facts else None)
    if topology is None:
        why = resumee.missing.get("topology")
        raise MissingFact(f"the machine's CPUs cannot be read from the image: {why}", path=image.path)
    features = (facts.features if facts else None) or resumee.features
    bringup = _bring_up(resumee, topology, cmdline, features, options, facts)
    rescued = _rescued(bringup, topology, traits, resumer.path)
    idle = _idle(cmdline, resumee, traits, options, facts)
    rules = ParkRules(traits, features, idle)
    return Plan(
        image=image,
        resumer=resumer,
        traits=traits,
        resumee=resumee,
        options=options,
        cmdline=cmdline,
        topology=topology,
        bringup=bringup,
        rescued=rescued,
        parked=(*park_all(rules, bringup, rescued), *_hidden(resumee, bringup)),
        reinitialised=reinitialised_by(resumee),
        placement=place(resumer, traits, cmdline, options, facts),
        levels=paging_levels(traits, cmdline, resumee, facts),
        assumptions=(
            *scenario_assumptions(options, resumee, cmdline, idle, bringup, facts),
            image_assumption(image, verified=options.verify),
        ),
        facts=facts,
    )


def _bring_up(
    resumee: Resumee,
    topology: Topology,
    cmdline: CommandLine,
    features: CpuFeatures | None,
    options: CheckOptions,
    facts: ResumerFacts | None,
) -> Bringup:
    """Start the resumer's CPUs by its command line, or as the facts say that they are."""
    smt_off = smt_is_off(cmdline, topology, features)
    present = resumee.machine if facts is None or facts.present is None else facts.present

    def start(by_hand: frozenset[int]) -> Bringup:
        return bring_up(present, topology, cmdline, smt_off=smt_off, by_hand=by_hand)

    return start(options.resumer_offline) if facts is None else observe(facts, options.resumer_offline, start)


def _idle(
    cmdline: CommandLine, resumee: Resumee, traits: Traits, options: CheckOptions, facts: ResumerFacts | None
) -> Idle | None:
    if facts is None or facts.idle is None:
        return idle_of_resumer(options.resumer_idle, cmdline, resumee.idle, traits)
    measured = idle_of_resumer(None, cmdline, facts.idle, traits)
    check_idle(options.resumer_idle, measured, facts)
    return measured or options.resumer_idle


def _rescued(bringup: Bringup, topology: Topology, traits: Traits, path: str) -> frozenset[int]:
    """Apply the resumer's rescue.

    Raises:
        MissingFact: CPUs are offline, and whether they are rescued cannot be read.
    """
    if bringup.present == bringup.online:
        return frozenset()
    rescues, needs = traits.rescues_offline, traits.rescue_needs_primary
    if rescues.value is None:
        raise MissingFact(f"whether the resumer rescues offline CPUs cannot be read: {rescues.reason}", path=path)
    if rescues.value and needs.value is None:
        raise MissingFact(f"which offline CPUs the resumer rescues cannot be read: {needs.reason}", path=path)
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


def place(
    resumer: KernelView, traits: Traits, cmdline: CommandLine, options: CheckOptions, facts: ResumerFacts | None = None
) -> Placement:
    """Decide where the resumer lies: as measured, or where it lies without KASLR.

    Raises:
        MissingFact: Whether its load address is random cannot be read.
    """
    link = resumer.require("_text").address - START_KERNEL_MAP
    given = None if options.resumer_phys_base is None else options.resumer_phys_base - link
    offset = None
    if facts is not None:
        measured, offset = phys_base(facts, resumer), kaslr_offset(facts, resumer)
        given = given if measured is None else measured
    if given is not None and offset is not None:
        return Placement(given, offset)
    if not cmdline.kaslr or traits.randomize_base.value is False:
        return Placement(given or 0, offset or 0)
    if traits.randomize_base.value is None:
        raise MissingFact(
            f"whether the resumer's load address is random cannot be read: {traits.randomize_base.reason}",
            path=resumer.path,
            advice="say nokaslr in --resumer-cmdline if it is not",
        )
    return Placement(given, offset)


def _hidden(resumee: Resumee, bringup: Bringup) -> tuple[Parked, ...]:
    """Return the CPUs that the machine has and the resumer's command line hides from it: nobody has started them."""
    why = "beyond nr_cpus= or possible_cpus=, so that the resumer never started it"
    return tuple(Parked(cpu, ParkState.NEVER_BOOTED, None, why) for cpu in sorted(resumee.machine - bringup.present))


def _would_use_la57(resumee: Resumee) -> bool:
    """Tell whether the resumee, which has four levels, would have five on a CPU that supports them."""
    built_in = resumee.kernel.symbol("level4_kernel_pgt") is not None  # CONFIG_X86_5LEVEL
    return built_in and resumee.command_line is not None and resumee.parameters.la57


def paging_levels(
    traits: Traits, cmdline: CommandLine, resumee: Resumee, facts: ResumerFacts | None = None
) -> int | None:
    """Decide how many levels of page tables the resumer uses, or None where that is not known."""
    if facts is not None and facts.levels is not None:
        return facts.levels
    if not cmdline.la57 or traits.la57.value is False:
        return 4
    capable: bool | None = None
    if resumee.levels == 5:
        capable = True
    elif facts is not None and facts.features is not None:
        capable = "la57" in facts.features.flags
    elif resumee.features is not None and resumee.features.virtual_bits is not None:
        capable = resumee.features.virtual_bits == _LA57_BITS
    elif _would_use_la57(resumee):
        capable = False
    if capable is False:
        return 4
    if capable is None or traits.la57.value is None:
        return None
    return 5
