"""What of a run could be otherwise than it is taken to be, each with the sign of it in the inputs.

An alternative is written as options: those that a user would add to say so.  The check is run again with them
(`hibercheck.handoff.verdict.conditions`), and where that changes the verdict it is a condition, whose
proof is that command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from hibercheck.cpulist import format_cpu_list
from hibercheck.data import dataclass, replace
from hibercheck.handoff.facts.arguments import split_command_line
from hibercheck.handoff.facts.cmdline import loader_part
from hibercheck.handoff.facts.cpufacts import FLAG_NAMES, VENDORS, cleared_by
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.bringup import Order, bring_up, order_of
from hibercheck.handoff.scenario.known_cpus import BOOTED, IDLE, MWAIT, SMT_OFF, TLB, idle_outlook
from hibercheck.handoff.scenario.known_machine import (
    FEATURES,
    MACHINE_MODES,
    PRESENT,
    bootconfig_unseen,
    from_bootconfig,
    modes_told_apart,
    named_modes,
)
from hibercheck.handoff.scenario.known_place import (
    ALIGNMENT,
    LARGEST_ALIGNMENT,
    LOAD_ADDRESS,
    linked_at,
    resumee_address,
)
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.events import ENDS_BY_ITSELF

About = Literal[0, 1, 2]
HOW: About = 0
"""Who is parked, and how."""
WHERE: About = 1
"""Where the resumer lies, and what its machine is."""
LOADS: About = 2
"""Whether it loads the image at all."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of alternative.

    Attributes:
        id: Stable name: what suppressions and programs go by.
        fact: What it is about, as in ``the resumer's cpuidle driver``.
        means: What is at stake, in one sentence.
        settle: How one finds out, in one clause.
        about: What it is about; two alternatives about different things are also judged together.
    """

    id: str
    fact: str
    means: str
    settle: str
    about: About = HOW


@dataclass(frozen=True, slots=True)
class Alternative:
    """One fact of the run with another value.

    Attributes:
        id: Stable name of the kind, such as ``idle-driver``.
        fact: What it is about.
        value: The other value, in words.
        reason: The sign of it in the inputs, in one clause.
        options: The check's options with it; all else is as it was.
        arguments: What to add to the command line for the same, in place of the same option if that was given, as
            (option, value); the value of a switch is empty.
    """

    id: str
    fact: str
    value: str
    reason: str
    options: CheckOptions
    arguments: tuple[tuple[str, str], ...]


_COLLECT = "run `hibercheck collect` on the resumer and give --resumer-facts"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.id: kind
        for kind in (
            Kind(
                "load-address",
                "where the resumer is loaded",
                "Without KASLR a kernel lies where its boot loader put it, which under UEFI or after kexec may be "
                "elsewhere than where it is linked.",
                f"{_COLLECT}; or look for 'Kernel code' in its /proc/iomem and give --resumer-phys-base",
                about=WHERE,
            ),
            Kind(
                "load-alignment",
                "what the resumer's load address is a multiple of",
                "A kernel at a random address lies at a multiple of CONFIG_PHYSICAL_ALIGN, which is 2 to 16 MiB.",
                "give the vmlinuz, which says it; or look for CONFIG_PHYSICAL_ALIGN in its configuration and give "
                "--fact load-align=",
                about=WHERE,
            ),
            Kind(
                "idle-driver",
                "how the resumer's cpuidle driver parks a dead CPU",
                "Since v6.16 a CPU that goes offline waits as the cpuidle driver has it: in MWAIT, in HLT, or in the "
                "read of an I/O port.",
                f"{_COLLECT}; or look at /sys/devices/system/cpu/cpuidle/current_driver and give --resumer-idle",
            ),
            Kind(
                "mwait-exits",
                "whether MWAIT ends by itself",
                "A hypervisor may let MWAIT end at once, so that a CPU parked in it never stops running.",
                "give --mwait-spins if it does, --fact mwait=sleeps if not",
            ),
            Kind(
                "tlb",
                "which cached translations a CPU still has when it wakes",
                "A CPU whose MWAIT ends by itself may have lost them in its sleep, or to another guest.",
                "give --tlb cold if it may",
            ),
            Kind(
                "cpus",
                "the resumer's CPUs",
                "If only one of the two kernels knows of a CPU, one parks it and the other does not expect it.",
                f"{_COLLECT}; or look at its /sys/devices/system/cpu/present and give --fact cpus=",
                about=WHERE,
            ),
            Kind(
                "cpu-features",
                "what the resumer's CPU can do",
                "Whether a CPU has MWAIT decides how it is parked.",
                f"{_COLLECT}; or look at the flags in its /proc/cpuinfo and give --fact cpu-flags= or cpu-vendor=",
                about=WHERE,
            ),
            Kind(
                "smt",
                "whether the resumer runs with SMT off",
                "With SMT off the second thread of each core has been parked since boot.",
                f"{_COLLECT}; or look at its /sys/devices/system/cpu/smt/control and give --fact smt=",
            ),
            Kind(
                "bringup-order",
                "which CPUs maxcpus= leaves out",
                "A kernel starts CPUs in the order of their numbers, or the primary threads first.",
                f"{_COLLECT}; or look at its /sys/devices/system/cpu/online and give --fact booted=",
            ),
            Kind(
                "resumee-start",
                "which CPUs the resumee starts again",
                "A resumee with SMT off starts CPUs that were offline in it, which ends their parking.",
                "give --resumee-online if it does",
            ),
            Kind(
                "bootconfig",
                "what a bootconfig adds to the resumer's command line",
                "A kernel may take parameters from the end of its initramfs, or from data of its own. They come too "
                "late for early parameters, but may forbid resuming or disable the cpuidle driver.",
                f"give its initramfs, --resumer-initramfs; or {_COLLECT}, or look at its /proc/cmdline",
                about=LOADS,
            ),
            Kind(
                "modes",
                "in which modes of the machine the two kernels differ",
                "x2APIC, interrupt remapping, the IOMMU and memory encryption are set up by the kernel that boots; "
                "what becomes of a handoff between kernels that differ in one was never measured.",
                f"give both kernels the same parameters; or {_COLLECT}, and --fact modes=same if they agree",
                about=WHERE,
            ),
            Kind(
                "lockdown",
                "the resumer's kernel lockdown",
                "A kernel that is locked down does not resume.",
                f"{_COLLECT}; or look at its /sys/kernel/security/lockdown and give --fact lockdown=",
                about=LOADS,
            ),
            Kind(
                "resume",
                "who starts the resume",
                "A kernel resumes by its parameters; a program in the initramfs may have it resume in spite of them.",
                "give --fact resume= as the initramfs does it",
                about=LOADS,
            ),
            Kind(
                "hw-sig",
                "the firmware's hardware signature",
                "A kernel that compares it refuses an image of other hardware.",
                "compare the FACS of both boots and give --fact hw-sig=",
                about=LOADS,
            ),
            Kind(
                "hw-sig-guest",
                "the firmware's hardware signature",
                "A kernel that knows its hypervisor compares it without being told to.",
                "give --resumer-cmdline with acpi_sleep=s4_hwsig if it does",
                about=LOADS,
            ),
            Kind(
                "lz4-module",
                "the resumer's LZ4 module",
                "A kernel decompresses LZ4 only once its module is loaded, from the initramfs.",
                "look for lz4.ko in the initramfs and give --fact lz4=",
                about=LOADS,
            ),
            Kind(
                "memory-added",
                "the resumer's number of physical pages",
                "A kernel refuses an image that was made with more memory, or with less.",
                f"{_COLLECT}; or give --fact pages=",
                about=LOADS,
            ),
            Kind(
                "room",
                "the resumer's free memory",
                "A kernel needs memory to load an image into.",
                f"{_COLLECT}; or give --fact free-pages=",
                about=LOADS,
            ),
        )
    }
)
"""By identifier, which never changes its meaning."""


def alternatives(plan: Plan) -> tuple[Alternative, ...]:
    """Return what of a scenario could be otherwise, with the sign of it."""
    makers: tuple[Callable[[Plan], Iterator[Alternative]], ...] = (
        _load_address,
        _load_alignment,
        _idle_driver,
        _mwait_exits,
        _tlb,
        _cpus,
        _cpu_features,
        _smt,
        _bringup_order,
        _resumee_start,
        _bootconfig,
        _modes,
    )
    return tuple(found for make in makers for found in make(plan))


def _made(
    plan: Plan, kind: str, value: str, reason: str, arguments: tuple[tuple[str, str], ...], **options: object
) -> Alternative:
    """Make an alternative; where something was measured, it takes ``--what-if`` to say otherwise."""
    if plan.inputs.measured:
        arguments = (*arguments, ("--what-if", ""))
        options["what_if"] = True
    changed = replace(plan.options, **options)  # type: ignore[arg-type]  # fields by name
    return Alternative(kind, KINDS[kind].fact, value, reason, changed, arguments)


def with_fact(options: CheckOptions, name: str, value: str) -> tuple[tuple[str, str], ...]:
    """Return the facts of options with one that is said otherwise."""
    return (*(one for one in options.facts if one[0] != name), (name, value))


def _stated(plan: Plan, kind: str, name: str, value: str, words: str, reason: str) -> Alternative:
    """Make an alternative of one ``--fact``."""
    return _all_stated(plan, kind, [(name, value)], words, reason)


def _all_stated(plan: Plan, kind: str, told: list[tuple[str, str]], words: str, reason: str) -> Alternative:
    """Make an alternative of some facts."""
    options = plan.options
    for name, value in told:
        options = replace(options, facts=with_fact(options, name, value))
    arguments = tuple(("--fact", f"{name}={value}") for name, value in told)
    return _made(plan, kind, words, reason, arguments, facts=options.facts)


def _open(plan: Plan, name: str) -> bool:
    """Tell whether a fact is inferred or usual."""
    known = plan.known.get(name)
    return known is not None and known.standing.is_open


def at_address(plan: Plan, address: int, reason: str) -> Alternative:
    """Put the resumer at a physical address."""
    arguments = (("--resumer-phys-base", f"{address:#x}"),)
    return _made(plan, "load-address", f"{address:#x}", reason, arguments, resumer_phys_base=address)


def place_is_open(plan: Plan) -> str | None:
    """Return why a resumer without KASLR may lie elsewhere than where it is linked, or None where nothing says so."""
    known: Known[int | None] | None = plan.known.get(LOAD_ADDRESS.name)
    if known is None or known.value is None or not known.standing.is_open:
        return None
    if plan.resumee.booted_by_kexec:
        return "the resumee was started by kexec, which decides where a kernel lies; so may be the resumer"
    theirs = resumee_address(plan.asking)
    if theirs is not None:
        at = f"the resumee, without KASLR too, lies at {theirs:#x} and not where it is linked"
        return at if plan.resumee.space.phys_base else None
    if plan.resumee.booted_by_efi:
        return (
            "the firmware is UEFI, under which a kernel without KASLR lies where there is room, not where it is linked"
        )
    return None


def _load_address(plan: Plan) -> Iterator[Alternative]:
    """Where it is linked, if it is taken to lie where the resumee does; any other place is `conditions`' to find."""
    reason, link = place_is_open(plan), linked_at(plan.asking)
    known = plan.known.get(LOAD_ADDRESS.name)
    if reason is not None and known is not None and known.value != link:
        yield at_address(plan, link, reason)


def _load_alignment(plan: Plan) -> Iterator[Alternative]:
    """Yield the largest, of a kernel at a random address whose file does not tell; what lies between is not tried."""
    known = plan.known.get(LOAD_ADDRESS.name)
    if known is None or known.value is not None:
        return
    if plan.asking.need(ALIGNMENT).standing is Standing.USUAL:
        reason = "the resumer's file does not say it, and some distributions use 16 MiB"
        size = f"{LARGEST_ALIGNMENT >> 20}M"
        yield _stated(plan, "load-alignment", "load-align", size, f"{LARGEST_ALIGNMENT >> 20} MiB", reason)


def _idle_driver(plan: Plan) -> Iterator[Alternative]:
    known = plan.known.get(IDLE.name)
    if known is None or not known.standing.is_open:
        return
    found = idle_outlook(plan.asking)
    if found is None:
        return
    words = {"mwait": "by MWAIT", "port": "by reading an I/O port", "halt": "by HLT", "none": "not at all"}
    for other in found.others:
        arguments = (("--resumer-idle", other),)
        yield _made(plan, "idle-driver", words[other], found.reason, arguments, resumer_idle=other)


def _mwait_exits(plan: Plan) -> Iterator[Alternative]:
    """Under a hypervisor; on the machine itself a spurious exit is a chance that the verdict knows."""
    options, known = plan.options, plan.asking.known(MWAIT)
    virtual = plan.features is not None and "hypervisor" in plan.features.flags
    if not virtual or options.spurious_mwait:
        return
    fact = KINDS["mwait-exits"].fact
    if known is None and plan.sleeps:
        reason = "the CPU is a virtual one, and hypervisors let MWAIT end at once"
        spins = replace(options, mwait_spins=True)
        yield Alternative("mwait-exits", fact, "at once", reason, spins, (("--mwait-spins", ""),))
    elif known is not None and known.standing.is_open and any(one.state in ENDS_BY_ITSELF for one in plan.parked):
        reason = "what emulates the CPU is not named in the inputs, and may let it sleep in MWAIT"
        sleeps = replace(options, facts=with_fact(options, "mwait", "sleeps"))
        yield Alternative("mwait-exits", fact, "it sleeps", reason, sleeps, (("--fact", "mwait=sleeps"),))


def _tlb(plan: Plan) -> Iterator[Alternative]:
    """Yield a cold one, where a virtual CPU's is taken to be warm."""
    known = plan.known.get(TLB.name)
    if known is None or not known.standing.is_open or known.value == "cold":
        return
    if any(parked.state in ENDS_BY_ITSELF for parked in plan.parked):
        reason = "a virtual CPU that is not running keeps no translations"
        options = replace(plan.options, tlb="cold")
        yield Alternative("tlb", KINDS["tlb"].fact, "none of them", reason, options, (("--tlb", "cold"),))


def _cpus(plan: Plan) -> Iterator[Alternative]:
    """Yield the image's CPUs, where those that were seen in the resumer are others; all of them with ``acpi=off``.

    And those of the image alone that the resumee ran with, if it may have counted empty slots with the others.
    """
    machine, theirs = plan.resumee.machine, plan.resumee.present
    listed = format_cpu_list(machine)
    for one in plan.disagreements:
        if one.fact == PRESENT.name:
            yield _stated(plan, "cpus", "cpus", format_cpu_list(one.other), format_cpu_list(one.other), one.text)
    if plan.cmdline.acpi_off and _open(plan, PRESENT.name) and len(machine) > 1 and not plan.resumee.booted_by_efi:
        reason = "with acpi=off it finds other CPUs only where the firmware has an MP table"
        yield _stated(plan, "cpus", "cpus", listed, listed, reason)
    if plan.resumee.may_count_slots and _open(plan, PRESENT.name) and machine - theirs:
        reason = "CPUs that the resumee left out may be slots in which there is none, for CPUs to be plugged in"
        yield _stated(plan, "cpus", "cpus", format_cpu_list(theirs), format_cpu_list(theirs), reason)


def _cpu_features(plan: Plan) -> Iterator[Alternative]:
    """Yield what the resumee was told to clear, or saw of another CPU."""
    hidden = cleared_by(plan.resumee.parameters) - cleared_by(plan.cmdline)
    shown = {ours: theirs for theirs, ours in FLAG_NAMES.items()}
    if hidden and _open(plan, FEATURES.name):
        flags = ",".join(f"-{shown.get(name, name)}" for name in sorted(hidden))
        reason = "the resumee was told to clear that feature, so that the image does not show whether the CPU has it"
        yield _stated(plan, "cpu-features", "cpu-flags", flags, flags, reason)
    for one in plan.disagreements:
        if one.fact == FEATURES.name and plan.features is not None:
            more, less = one.other.flags - plan.features.flags, plan.features.flags - one.other.flags
            changed = [*(("+", name) for name in sorted(more)), *(("-", name) for name in sorted(less))]
            flags = ",".join(f"{sign}{shown.get(name, name)}" for sign, name in changed)
            told = [("cpu-vendor", one.other.vendor)] if one.other.vendor != plan.features.vendor else []
            told += [("cpu-flags", flags)] if flags else []
            if told and one.other.vendor in VENDORS.values():
                yield _all_stated(plan, "cpu-features", told, ", ".join(value for _, value in told), one.text)


def _smt(plan: Plan) -> Iterator[Alternative]:
    known = plan.known.get(SMT_OFF.name)
    if known is not None and known.standing is Standing.USUAL:
        other = "on" if known.value else "off"
        reason = "whether the CPU has the bugs for which the command line switches SMT off is not in the inputs"
        yield _stated(plan, "smt", "smt", other, other, reason)


def _bringup_order(plan: Plan) -> Iterator[Alternative]:
    """Yield the other order, where the resumer's code does not tell and it makes a difference."""
    if not plan.cmdline.max_cpus or not _open(plan, BOOTED.name) or order_of(plan.traits, plan.cmdline) is not None:
        return
    other = bring_up(
        plan.bringup.present,
        plan.topology,
        plan.cmdline,
        smt_off=plan.asking.need(SMT_OFF).value,
        by_hand=plan.options.resumer_offline,
        order=Order.PRIMARIES,
    )
    if other.booted != plan.bringup.booted:
        listed = format_cpu_list(other.booted)
        reason = "in which order the resumer starts CPUs cannot be read from its code"
        yield _stated(plan, "bringup-order", "booted", listed, f"CPUs {listed} are started", reason)


def _resumee_start(plan: Plan) -> Iterator[Alternative]:
    """Every CPU that is present, where the resumee's code does not tell whom it brings up with SMT off."""
    if not plan.resumee.smt_disabled or plan.inputs.resumee_traits.nosmt_resume_targets.value is not None:
        return
    more = frozenset(cpu for cpu in plan.resumee.present if plan.numbers.get(cpu, cpu) not in plan.reinitialised)
    if more:
        listed, everyone = format_cpu_list(more), plan.options.resumee_online | more
        reason = "which CPUs the resumee starts again when it is resumed with SMT off cannot be read from its code"
        arguments = (("--resumee-online", format_cpu_list(everyone)),)
        yield _made(
            plan,
            "resumee-start",
            f"CPUs {listed} too",
            reason,
            arguments,
            resumee_online=everyone,
        )


_LATE = {"hibernate=no": "hibernate", "cpuidle.off=1": "cpuidle.off"}
"""Parameters that a bootconfig can set (no early one) and that decide a handoff, each with its name.

What the line itself says comes after a bootconfig's, and of ``cpuidle.off`` the last counts.
"""


def _bootconfig(plan: Plan) -> Iterator[Alternative]:
    """Each parameter that decides, alone; where a built-in line takes the place of the loader's none can be given."""
    reason = bootconfig_unseen(plan.asking)
    builtin, override = plan.traits.builtin_cmdline.value or "", plan.traits.builtin_cmdline_overrides.value is True
    own = plan.cmdline.text.removeprefix(from_bootconfig(plan.asking, plan.cmdline)).removeprefix(" ")
    line = loader_part(own, builtin, override=override)
    if reason is None or line is None:
        return
    named = {name for name, _ in split_command_line(plan.cmdline.text)}
    for parameter, name in _LATE.items():
        if name not in named:
            more = f"{line} {parameter}" if line else parameter
            said = {"resumer_cmdline": more, "resumer_cmdline_add": None}
            yield _made(plan, "bootconfig", parameter, reason, (("--resumer-cmdline", more),), **said)


def _modes(plan: Plan) -> Iterator[Alternative]:
    """Offer that parameters which only one kernel has, or not alike, put the machine in another mode."""
    told = modes_told_apart(plan.asking) if _open(plan, MACHINE_MODES.name) else {}
    if told:
        parameters = ", ".join(dict.fromkeys(name for names in told.values() for name in names))
        reason = f"{parameters} on only one of the two command lines, or not the same there"
        yield _stated(plan, "modes", "modes", "other", named_modes(told), reason)
