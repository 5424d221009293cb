"""States of the machine that a kernel sets up once and the next one finds: x2APIC, IOMMU, memory encryption.

No emulator on which handoffs were measured has interrupt remapping or memory encryption, and Linux stays out of x2APIC
mode on both: what becomes of a handoff between kernels that differ in one of them nobody has measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.arguments import split_command_line
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.patterns import pattern


@dataclass(frozen=True, slots=True)
class Mode:
    """One of them.

    Attributes:
        what: Its name in a sentence.
        symbol: The variable that is not 0 where it is on.
        size: Bytes of that.
        parameters: Those that have to do with it.
        on: What a kernel logs of itself where it is on.
        off: What it logs where it is off.
    """

    what: str
    symbol: str
    size: int
    parameters: tuple[str, ...]
    on: re.Pattern[str]
    off: re.Pattern[str] | None = None


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        # arch/x86/kernel/apic/apic.c
        "x2apic": Mode(
            "x2APIC",
            "x2apic_mode",
            4,
            ("nox2apic",),
            pattern(r"\bx2apic enabled$"),
            pattern(r"\bx2apic disabled$"),
        ),
        # drivers/iommu/irq_remapping.c, intel/irq_remapping.c, amd/init.c
        "interrupt-remapping": Mode(
            "interrupt remapping",
            "irq_remapping_enabled",
            4,
            ("intremap", "nointremap"),
            pattern(r"(?:DMAR-IR: Enabled IRQ remapping in \w+ mode|AMD-Vi: Interrupt remapping enabled)$"),
        ),
        # drivers/iommu/intel/iommu.c; of AMD's the state is a static variable
        "iommu": Mode(
            "the IOMMU",
            "intel_iommu_enabled",
            4,
            ("intel_iommu", "amd_iommu", "iommu"),
            pattern(r"DMAR: Intel\(R\) Virtualization Technology for Directed I/O$"),
            pattern(r"DMAR: IOMMU disabled$"),
        ),
        # arch/x86/mm/mem_encrypt_amd.c
        "memory-encryption": Mode(
            "memory encryption",
            "sme_me_mask",
            8,
            ("mem_encrypt",),
            pattern(r"Memory Encryption Features active:.*\b(?:SME|SEV)\b"),
        ),
    }
)
"""By name."""

SYMBOLS = {mode.symbol: mode.size for mode in MODES.values()}
"""The variables, with their sizes."""


def read_modes(space: KernelSpace) -> dict[str, bool]:
    """Read those whose variable a kernel's memory shows."""
    found = {}
    for name, mode in MODES.items():
        try:
            found[name] = space.variable(mode.symbol, mode.size) != 0
        except MissingFact:
            continue
    return found


def by_variables(values: Mapping[str, int]) -> dict[str, bool]:
    """Return those whose variable was collected."""
    return {name: values[mode.symbol] != 0 for name, mode in MODES.items() if mode.symbol in values}


def logged_modes(lines: Iterable[str]) -> dict[str, bool]:
    """Return those of which a kernel's log speaks; silence says nothing."""
    found = {}
    for line in lines:
        for name, mode in MODES.items():
            if mode.on.search(line.rstrip()):
                found[name] = True
            elif mode.off is not None and mode.off.search(line.rstrip()):
                found[name] = False
    return found


def differing_parameters(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    """Return the parameters that two command lines do not have alike, by the mode that they are about.

    Args:
        ours: A command line.
        theirs: Another.
    """
    names = {parameter for mode in MODES.values() for parameter in mode.parameters}
    told = [{name: value for name, value in split_command_line(line) if name in names} for line in (ours, theirs)]

    def differs(name: str) -> bool:
        return (name in told[0], told[0].get(name)) != (name in told[1], told[1].get(name))

    found = {name: tuple(filter(differs, mode.parameters)) for name, mode in MODES.items()}
    return {name: parameters for name, parameters in found.items() if parameters}
