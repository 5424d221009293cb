"""The scenario of a pair of kernels without an image: the same plan as a check's, of an image that would be written.

What an image would say is made of what the resumee's code does and of what the matrix supposes of its machine and its
run.  From there on nothing is the matrix's own: `make_plan` says who is parked and how, `judge_acceptance` whether the
image is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from hibercheck.data import dataclass, replace
from hibercheck.errors import MissingFact
from hibercheck.handoff.acceptance.refusal import judge_acceptance
from hibercheck.handoff.facts.cmdline import CommandLine, compressor_asked, parse_command_line
from hibercheck.handoff.facts.cpufacts import cleared_by
from hibercheck.handoff.facts.e820 import RAM, E820Entry, edited, ram_pages
from hibercheck.handoff.facts.given import parse_fact
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.matrix.expected import ExpectedImage, Nothing
from hibercheck.handoff.matrix.memory import SummaryKernel
from hibercheck.handoff.matrix.scenario import IMAGE_SHARE, Machine, Scenario, Settings
from hibercheck.handoff.matrix.summary import Summary, Waiting
from hibercheck.handoff.replay.boot_cpu import CR4_BITS, Lack, lacking
from hibercheck.handoff.scenario.bringup import Bringup, Order, bring_up, found_by, is_alone, order_of, smt_is_off
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.park import Parked
from hibercheck.handoff.scenario.plan import Plan, make_plan
from hibercheck.handoff.scenario.sources import Inputs
from hibercheck.kernel.code.model import ParkLoop, Trait, built_in
from hibercheck.kernel.code.traits import Traits
from hibercheck.swsusp.image import Image
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.paging import PagingMode

_LOW, _HOLE, _HIGH = 0x9FC00, 0xC000_0000, 1 << 32
"""RAM of a PC: 639 KiB, from 1 MiB up to a hole below 4 GiB, and the rest from there on."""
_MOST_KNOWN = 1 << 13

_WITHOUT_IMAGE = "whether an image would overwrite the frames to which the resumer copies code for parked CPUs"


@dataclass(frozen=True, slots=True)
class Run:
    """What a plan comes to for a pair.

    Attributes:
        waiting: How the resumer parks CPUs.
        unknown: What is not known of it, or of whether it loads the image.
        refusal: Why it refuses the image, with the resumer as the subject, or None.
        placed: Whether both kernels lie where they are linked, and not at a random address.
        resumer_levels: Levels of the resumer's page tables; None where not known.
        resumee_levels: Of the resumee's.
        reinitialised: The CPUs that the resumee sends an INIT.
        left_behind: The CPUs that were offline and that the resumer has not brought back to park them.
        lacks: What the resumee uses of its CPU, and the resumer's lacks.
    """

    waiting: tuple[Waiting, ...]
    unknown: tuple[str, ...]
    refusal: str | None
    placed: bool
    resumer_levels: int | None
    resumee_levels: int | None
    reinitialised: frozenset[int]
    left_behind: frozenset[int] = frozenset()
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairing:
    """A pair in one scenario.

    Attributes:
        plan: The scenario, as a check has it.
        run: What it comes to.
    """

    plan: Plan
    run: Run


def options_of(scenario: Scenario, settings: Settings) -> CheckOptions:
    """Return the options of a check in a scenario."""
    return CheckOptions(
        resumer_cmdline=scenario.resumer_cmdline,
        resumer_offline=scenario.resumer_offline,
        resumer_idle=scenario.idle,
        spurious_mwait=settings.spurious_mwait,
        mwait_spins=settings.mwait_spins,
        suppose=settings.suppose,
        facts=scenario.facts,
        resumee_online=scenario.resumee_online,
    )


def of_pair(options: CheckOptions, resumer: Traits, resumee: Traits, scenario: Scenario) -> CheckOptions:
    """Return the options for two kernels, of which none takes a CPU offline or online that it leaves out."""
    return replace(
        options,
        resumer_offline=of_kernel(options.resumer_offline, resumer, scenario.resumer_cmdline),
        resumee_online=of_kernel(options.resumee_online, resumee, scenario.resumee_text),
    )


def of_kernel(cpus: frozenset[int], traits: Traits, text: str) -> frozenset[int]:
    """Return the CPUs of a scenario without those that a kernel leaves out by its build or by what it has built in.

    A scenario is of many kernels.  What its own command line leaves out stays: that is refused, of whichever kernel.

    Args:
        cpus: Those that are taken offline or online.
        traits: The kernel.
        text: What the scenario has its boot loader pass.
    """
    everyone = frozenset(range(max(cpus, default=0) + 1))
    has = found_by(everyone, _line_of(traits, text), one_cpu=is_alone(traits))
    return cpus & (has | (everyone - found_by(everyone, parse_command_line(text))))


_KNOWN: OrderedDict[tuple[object, ...], Pairing] = OrderedDict()
"""Pairs of kernels that behave alike come to the same: the plan is made once for each kind of them."""


def pairing_of(
    resumer: Summary, resumee: Summary, scenario: Scenario, settings: Settings, options: CheckOptions
) -> Pairing:
    """Work out the scenario of a pair.

    Args:
        resumer: The kernel that loads the image.
        resumee: The kernel that would write it.
        scenario: What is assumed of the two runs.
        settings: The machine.
        options: `options_of` the scenario, or an alternative to them.

    Raises:
        HibercheckError: The options contradict the machine.
    """
    share = settings.image_share
    size = _rounded(resumer, settings).size
    key = (resumer.kind, size, resumee.kind_as_resumee, scenario, settings.machine, share, options)
    found = _KNOWN.get(key)
    if found is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.popitem(last=False)
        found = _KNOWN[key] = _pairing(resumer, resumee, scenario, settings, options)
    return found


def _pairing(
    resumer: Summary, resumee: Summary, scenario: Scenario, settings: Settings, options: CheckOptions
) -> Pairing:
    line = _line_of(resumee.traits, scenario.resumee_text)
    image = _image_of(resumer, resumee, line, settings)
    theirs = resumee_of(image, resumee, line, scenario, settings.machine)
    options = of_pair(options, resumer.traits, resumee.traits, scenario)
    plan = make_plan(Inputs(image, SummaryKernel(_rounded(resumer, settings)), resumer.traits, theirs), options)
    acceptance = judge_acceptance(plan)
    random = line.kaslr and resumee.traits.randomize_base.value is not False
    unknown = (*_unknown_of(resumee), *(what for what, _ in acceptance.unknown))
    run = Run(
        waiting=grouped(plan.parked, resumer.traits.park_loops),
        unknown=tuple(dict.fromkeys(unknown)),
        refusal=None if acceptance.refusal is None else acceptance.refusal.reason,
        placed=plan.placement.known and not plan.placement.phys_base and not random,
        resumer_levels=plan.levels,
        resumee_levels=_levels(resumee.traits, la57=line.la57 and settings.machine.la57),
        reinitialised=plan.reinitialised,
        left_behind=left_behind(plan.parked),
        lacks=lacking(plan),
    )
    return Pairing(plan, run)


def _rounded(resumer: Summary, settings: Settings) -> Summary:
    """Return a kernel with its size in sixteenths of memory, so that kernels of one kind come to the same."""
    step = max(settings.machine.memory >> 4, 1)
    return replace(resumer, end=resumer.text + -(-resumer.size // step) * step)


def _line_of(traits: Traits, text: str) -> CommandLine:
    """Understand what a boot loader passes to a kernel, and what that has built in."""
    builtin = traits.builtin_cmdline.value or ""
    return parse_command_line(text, builtin, override=bool(builtin and traits.builtin_cmdline_overrides.value))


def _image_of(resumer: Summary, resumee: Summary, line: CommandLine, settings: Settings) -> Image:
    """Return the image; where the resumee does not tell a thing, one that the resumer accepts (see `_unknown_of`)."""
    traits = resumee.traits
    pages = ram_pages(edited(firmware_map(settings.machine), line.memory_edits))
    share = IMAGE_SHARE if settings.image_share is None else min(settings.image_share, IMAGE_SHARE)
    magic = traits.arch_record_magic.value
    signed = bool(traits.hw_sig.value) and line.hardware_signature is True and not line.acpi_off
    image: Any = ExpectedImage(
        compressor=_compressor(traits, line),
        hw_sig=1 if signed else None,
        magic=(resumer.traits.arch_record_magic.value or 0) if magic is None else magic,
        memory_map=None,
        pages=pages,
        least=int(pages * share),
        has_zero_flag=bool(traits.zero_pages.value),
    )
    return cast(Image, image)


def _compressor(traits: Traits, line: CommandLine) -> str:
    """Return what an image is compressed by: as the command line asks, or else by LZO, where the kernel has it."""
    known = traits.compressors.value
    asked = compressor_asked(line.text)
    if asked == "none" or not known:
        return "none"
    names = [name for name, _, how in (one.partition(":") for one in known) if how != "absent"]
    if asked in names:
        return str(asked)
    own = built_in(known) or tuple(names)
    return "lzo" if "lzo" in own else own[0]


def _unknown_of(resumee: Summary) -> tuple[str, ...]:
    """Return what is not known of the image that a kernel would write."""
    traits = resumee.traits
    facts: dict[str, Trait[Any]] = {
        "which arch record the resumee uses": traits.arch_record_magic,
        "how the resumee compresses images": traits.compressors,
        "whether the resumee leaves zero pages out": traits.zero_pages,
    }
    unknown = tuple(what for what, trait in facts.items() if trait.value is None)
    # facts of an older version do not tell it, but for a kernel that starts CPUs in some order
    alone = traits.one_cpu.value is None and traits.parallel_bringup.value is None
    return (*unknown, *(("whether the resumee is built for one CPU",) if alone else ()))


def firmware_map(machine: Machine) -> tuple[E820Entry, ...]:
    """Return a memory map with so much RAM."""
    low = E820Entry(0, min(_LOW, machine.memory), RAM)
    below = min(machine.memory, _HOLE)
    found = [low]
    if below > 1 << 20:
        found.append(E820Entry(1 << 20, below - (1 << 20), RAM))
    if machine.memory > _HOLE:
        found.append(E820Entry(_HIGH, machine.memory - _HOLE, RAM))
    return tuple(found)


def resumee_of(image: Image, resumee: Summary, line: CommandLine, scenario: Scenario, machine: Machine) -> Resumee:
    """Return what would be read of a resumee in its image, in one scenario."""
    topology, traits = machine.topology, resumee.traits
    bringup = started_of(machine, traits, line, of_kernel(scenario.resumee_offline, traits, scenario.resumee_text))
    smt_off = _smt_off(line, machine)
    levels = _levels(traits, la57=line.la57 and machine.la57) or 4
    features = replace(machine.features, flags=machine.features.flags | _lost(scenario))
    flags = features.flags - cleared_by(line)
    override = bool(traits.builtin_cmdline.value and traits.builtin_cmdline_overrides.value)
    whole = firmware_map(machine)
    space = KernelSpace(SummaryKernel(resumee), Nothing(), PagingMode(levels=levels), 0, 0, 0)
    return Resumee(
        space=space,
        command_line=line.text,
        present=bringup.present,
        frozen=bringup.online - {bringup.boot_cpu},
        smt_control="disabled" if smt_off else "enabled" if topology.smt_shift else "not supported",
        topology=topology,
        features=replace(features, flags=flags),
        idle=None,
        e820=whole,
        e820_checksum=None,
        missing={},
        loader_line=None if override else scenario.resumee_text,
        boot_pages=image.info.num_physpages,
        hypervisor=False,
        mp_table_has_all=True,  # of the machine that was supposed
        cr4=sum(1 << bit for bit, name in CR4_BITS.items() if name in flags),  # a kernel uses what its CPU has
    )


def _lost(scenario: Scenario) -> frozenset[str]:
    """Return the features of CR4 that a scenario says the resumer's CPU lacks: the resumee's has them."""
    told = dict(parse_fact(f"{name}={value}") for name, value in scenario.facts).get("cpu-flags", {})
    return frozenset(CR4_BITS.values()).intersection(name for name, is_on in told.items() if not is_on)


def started_of(machine: Machine, traits: Traits, line: CommandLine, offline: frozenset[int] = frozenset()) -> Bringup:
    """Return which CPUs of a machine a kernel runs on, but for those that are taken offline by hand."""
    return bring_up(
        found_by(frozenset(range(machine.cpus)), line, one_cpu=is_alone(traits)),
        machine.topology,
        line,
        smt_off=_smt_off(line, machine),
        by_hand=offline,
        order=order_of(traits, line) or Order.NUMBERS,
    )


def _smt_off(line: CommandLine, machine: Machine) -> bool:
    try:
        return smt_is_off(line, machine.topology, machine.features)
    except MissingFact:
        return True


def _levels(traits: Traits, *, la57: bool) -> int | None:
    if not la57:
        return 4
    return None if traits.la57.value is None else 5 if traits.la57.value else 4


def left_behind(parked: Iterable[Parked]) -> frozenset[int]:
    """Return the CPUs that were offline, and that nobody has brought back to park them."""
    return frozenset(one.cpu for one in parked if one.left_behind)


def grouped(parked: Iterable[Parked], loops: Sequence[ParkLoop]) -> tuple[Waiting, ...]:
    """Put CPUs together that wait in the same way.

    Args:
        parked: The CPUs.
        loops: All loops of their kernel.
    """
    groups: dict[tuple[ParkState, int | None, bool, str | None], set[int]] = {}
    for one in parked:
        index = None if one.loop is None else loops.index(one.loop)
        unsettled = one.unsettled.fact if one.unsettled else _WITHOUT_IMAGE if one.in_place else None
        key = (one.state, index, bool(one.loop and one.loop.interrupts), unsettled)
        groups.setdefault(key, set()).add(one.cpu)
    return tuple(Waiting(frozenset(cpus), *key) for key, cpus in groups.items())
