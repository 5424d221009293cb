"""How the resumer's own cpuidle drivers would park a dead CPU on the machine that the resumee saw.

A driver that the resumee had counts where it is the same build and was told the same.  Otherwise the resumer's code
says which drivers it has, and the image which CPU and, if the resumee used ACPI's C-states, what the firmware offers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.data import dataclass, replace
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.facts.cpufacts import FLAG_NAMES, CpuFeatures, MonitorLeaf, cleared_by
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.options import Idle
from hibercheck.handoff.scenario.park import idle_by_driver
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.view import KernelView

if TYPE_CHECKING:
    from hibercheck.kernel.code.idle import IntelIdle

_ACPI: tuple[Idle, ...] = ("mwait", "port", "halt")
_UNKNOWN: tuple[Idle, ...] = ("mwait", "port", "halt", "none")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What it is taken to be, and what else it may be.

    Attributes:
        known: What it is taken to be.
        others: Other ways that something in the inputs speaks for.
        reason: What that is, in one clause.
        driver: The driver, where it is taken to be one.
    """

    known: Known[Idle]
    others: tuple[Idle, ...] = ()
    reason: str = ""
    driver: str | None = None


def idle_choices(line: CommandLine) -> tuple[object, ...]:
    """Return what a command line says that decides which idle driver there is, and its states: a choice of that boot.

    Two that are equal make the same choices; of one that says nothing no member is true.
    """
    drivers = (line.cpuidle_off, line.idle, line.intel_idle_off, line.acpi_off, line.lapic_off)
    return (*drivers, *_acpi_choices(line))


def _acpi_choices(line: CommandLine) -> tuple[bool, bool, int | None]:
    """Return what a command line says of ACPI's C-states: whether they may be entered by MWAIT, and which of them.

    With ``idle=nomwait``, and on a CPU whose MWAIT is hidden, C1 is HLT, and the firmware is told to offer no deeper
    state by MWAIT (acpi_processor_get_power_info_cst(), drivers/acpi/acpi_processor.c; arch_acpi_set_proc_cap_bits()).
    """
    return line.idle == "nomwait", "mwait" in cleared_by(line), line.acpi_idle_max


def stays_away(line: CommandLine, driver: IdleDriver) -> str | None:
    """Return the parameter with which a driver cannot have registered itself, or None.

    __cpuidle_register_driver() (drivers/cpuidle/driver.c), intel_idle_init() (drivers/idle/intel_idle.c).
    """
    if driver.name is not None and line.cpuidle_off:
        return "cpuidle.off=1"
    if driver.name == "intel_idle" and line.intel_idle_off:
        return "intel_idle.max_cstate=0"
    return f"idle={line.idle}" if driver.name == "intel_idle" and line.idle is not None else None


def same_build(resumer: KernelView, resumee: KernelView) -> bool:
    """Tell whether two kernels are one build."""
    if resumer.build_id is not None and resumee.build_id is not None:
        return resumer.build_id == resumee.build_id
    return resumer.banner == resumee.banner


def outlook(
    line: CommandLine,
    resumer: KernelView,
    traits: Traits,
    resumee: Resumee,
    resumee_traits: Traits,
    features: CpuFeatures | None,
    monitor: MonitorLeaf | None = None,
    *,
    emulated: bool = False,
) -> Outlook | None:
    """Say how the resumer's cpuidle driver parks a dead CPU, where nobody has seen or said it.

    Args:
        line: The resumer's command line.
        resumer: Its kernel.
        traits: What its code does.
        resumee: The resumee.
        resumee_traits: What its code does.
        features: What the resumer's CPU can do, or None.
        monitor: What its CPUID.5 says of MWAIT, or None: it is in no image.
        emulated: Whether that CPU is taken to be an emulator's.

    Returns:
        The answer, or None where the inputs do not give it.
    """
    if line.cpuidle_off or line.idle in {"poll", "halt"}:  # disabled_by_idle_boot_param(); intel_idle_init()
        return Outlook(Known("none", Standing.READ, "its command line"))
    if traits.enter_dead.value == ():
        return Outlook(Known("none", Standing.READ, "its code: no driver parks dead CPUs"))
    known: Known[Idle]
    told_alike = idle_choices(line) == idle_choices(resumee.parameters)
    if told_alike and resumee.idle is not None and same_build(resumer, resumee.kernel):
        found = idle_by_driver(line, resumee.idle, traits)
        if found is not None:
            name = resumee.idle.name or "none"
            source = f"the resumee's driver ({name}), of the same build"
            return Outlook(Known(found, Standing.INFERRED, source), driver=resumee.idle.name)
    drivers = traits.idle_drivers.value
    if drivers is None:
        return _by_resumee(line, traits, resumee.idle)
    by_table = intel_states(line, traits, features, monitor)
    if by_table is None or not by_table.listed or (monitor is None and _stayed_away(resumee, resumee_traits, features)):
        return _by_firmware(line, traits, drivers, resumee, resumee_traits)
    virtual = features is not None and "hypervisor" in features.flags and monitor is None
    by_firmware = _by_firmware(line, traits, drivers, resumee, resumee_traits) if virtual and emulated else None
    if by_firmware is not None:
        known = replace(by_firmware.known, standing=Standing.USUAL, source=f"{_NO_STATES}; {by_firmware.known.source}")
        others = tuple(dict.fromkeys((*by_firmware.others, "mwait")))
        reason = "the resumer's intel_idle knows this CPU, whose CPUID is not in the inputs"
        return Outlook(known, others, reason, by_firmware.driver)
    known = Known("mwait", Standing.USUAL, "its intel_idle, which knows this CPU")
    reason = "the CPU is a virtual one, and intel_idle stays away where CPUID counts no sub-states of MWAIT"
    return Outlook(known, ("none",), reason, "intel_idle") if virtual else Outlook(known, driver="intel_idle")


_NO_STATES = "an emulator's CPU counts no sub-states of MWAIT, so that intel_idle stays away"
"""QEMU has them of the host's CPU, for KVM alone (cpu_x86_cpuid(), target/i386/cpu.c)."""


def _stayed_away(resumee: Resumee, traits: Traits, features: CpuFeatures | None) -> bool:
    """Tell whether the resumee's own intel_idle, which knows this CPU, found no states of MWAIT on it."""
    theirs, seen, line = resumee.features, resumee.idle, resumee.parameters
    if theirs is None or features is None or seen is None or seen.name == "intel_idle" or line.cpuidle_off:
        return False
    same = (theirs.vendor, theirs.family, theirs.model) == (features.vendor, features.family, features.model)
    found = _entered(line, traits, theirs, None) if same else None
    return found is not None and found.listed


def intel_states(
    line: CommandLine, traits: Traits, features: CpuFeatures | None, monitor: MonitorLeaf | None = None
) -> IntelIdle | None:
    """Ask intel_idle's tables what it does on this CPU; None where it is not there or stays away.

    ``idle=nomwait`` keeps it away too, and so does a CPU without the extensions of MWAIT or any sub-states
    (intel_idle_init(), drivers/idle/intel_idle.c).
    """
    return _entered(line, traits, features, monitor) if "intel_idle:mwait" in (traits.enter_dead.value or ()) else None


def _entered(
    line: CommandLine, traits: Traits, features: CpuFeatures | None, monitor: MonitorLeaf | None
) -> IntelIdle | None:
    """Ask the tables, whether or not the driver parks dead CPUs."""
    if "intel_idle:builtin" not in (traits.idle_drivers.value or ()):
        return None
    tables = traits.intel_idle.value
    told_off = line.intel_idle_off or line.idle is not None
    if told_off or tables is None or features is None or features.family is None or features.model is None:
        return None
    if monitor is not None and not (monitor.extended and any(monitor.sub_states)):
        return None
    if features.vendor != "intel":
        return None
    from hibercheck.kernel.code.idle import intel_idle_for  # noqa: PLC0415 - it imports what reads code

    shown = {ours: theirs for theirs, ours in FLAG_NAMES.items()}
    flags = {shown.get(flag, flag) for flag in features.flags}
    counted = None if monitor is None else monitor.sub_states
    return intel_idle_for(tables, features.family, features.model, flags, sub_states=counted)


def _by_firmware(
    line: CommandLine, traits: Traits, drivers: tuple[str, ...], resumee: Resumee, resumee_traits: Traits
) -> Outlook | None:
    """Ask for ACPI's C-states, which the resumee shows where it used them."""
    known: Known[Idle]
    if "acpi_idle:absent" in drivers:
        return Outlook(Known("none", Standing.READ, "its code: it has no driver for this CPU"))
    if line.acpi_off:
        return Outlook(Known("none", Standing.READ, "its command line"))
    module = "acpi_idle:module?" in drivers
    seen = resumee.idle
    if seen is not None and seen.name == "acpi_idle":
        found = idle_by_driver(line, seen, traits)
        if found is None:
            return None
        source = "the firmware's C-states, as the resumee uses them"
        if _acpi_choices(line) != _acpi_choices(resumee.parameters):
            words = "processor.max_cstate=, idle=nomwait, clearcpuid=monitor"
            reason = f"the two kernels were not told the same of ACPI's C-states ({words})"
            others = tuple(one for one in (*_ACPI, *(("none",) if module else ())) if one != found)
            return Outlook(Known(found, Standing.USUAL, source), others, reason, seen.name)
        known = Known(found, Standing.INFERRED, source)
        if module and found != "none":
            return Outlook(known, ("none",), "its acpi_idle is a module", seen.name)
        return Outlook(known, driver=seen.name)
    had_acpi = "acpi_idle:builtin" in (resumee_traits.idle_drivers.value or ())
    nothing_told = not any(idle_choices(resumee.parameters))
    if seen is not None and seen.name is None and had_acpi and nothing_told:
        return Outlook(Known("none", Standing.INFERRED, "the resumee, which has acpi_idle too, found no C-states"))
    name = "no driver" if seen is None or seen.name is None else seen.name
    reason = f"the resumee, with {name}, does not show the C-states that the firmware has for acpi_idle"
    return Outlook(
        Known("none", Standing.USUAL, "default: the image does not show the firmware's C-states"), _ACPI, reason
    )


def _by_resumee(line: CommandLine, traits: Traits, seen: IdleDriver | None) -> Outlook | None:
    """Go by the resumee's driver, where the resumer's code does not tell which it has."""
    found = None if seen is None else idle_by_driver(line, seen, traits)
    if seen is None or found is None:
        return None
    known = Known(found, Standing.USUAL, f"the resumee's driver ({seen.name or 'none'})")
    others = tuple(one for one in _UNKNOWN if one != found)
    reason = "which cpuidle drivers the resumer has cannot be read from its code"
    return Outlook(known, others, reason, seen.name)
