"""The kernel command line, split and understood as the kernel does it.

Only what changes the handoff is interpreted: which CPUs run, how they idle, where the kernel is loaded, which
paging mode it uses and whether it will resume at all.
"""

from __future__ import annotations

import re

from hibercheck.data import dataclass

_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]{1,30}|0[0-7]{0,30}|[1-9][0-9]{0,30})")
_SIZE = re.compile(r"(0[xX][0-9a-fA-F]{1,30}|[0-9]{1,30})([kKmMgGtTpPeE]?)")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}

# Parameters whose ``,nosmt`` asks for SMT to be switched off, and the CPU bugs (any of them) without which the
# kernel ignores the request: arch/x86/kernel/cpu/bugs.c.
_NOSMT_BUGS = {
    "mitigations": frozenset({"l1tf", "mds", "taa", "mmio_stale_data", "retbleed"}),
    "l1tf": frozenset({"l1tf"}),
    "mds": frozenset({"mds"}),
    "tsx_async_abort": frozenset({"taa"}),
    "mmio_stale_data": frozenset({"mmio_stale_data"}),
    "retbleed": frozenset({"retbleed"}),
}


def split_command_line(text: str) -> list[tuple[str, str | None]]:
    """Split a command line into (name, value) pairs; the value is None where there is no ``=``.

    Follows ``next_arg()`` of lib/cmdline.c: blanks separate, double quotes protect blanks and are removed around
    a whole argument or its value, and ``--`` ends the kernel's part.  Dashes in a name become underscores, as
    ``parameq()`` compares them.
    """
    pairs: list[tuple[str, str | None]] = []
    for argument in _arguments(text):
        if argument == "--":
            break
        whole = argument[1:].removesuffix('"') if argument.startswith('"') else argument
        name, equals, value = whole.partition("=")
        if value.startswith('"'):
            value = value[1:].removesuffix('"')
        pairs.append((name.replace("-", "_"), value if equals else None))
    return pairs


def _arguments(text: str) -> list[str]:
    """Return the blank-separated arguments, quotes kept."""
    arguments, start, quoted = [], None, False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        blank = character.isspace() and not quoted
        if start is None and not blank:
            start = position
        elif start is not None and blank:
            arguments.append(text[start:position])
            start = None
    if start is not None:
        arguments.append(text[start:])
    return arguments


def _integer(value: str | None) -> int | None:
    """Parse as ``get_option()`` does: a leading integer in C notation, the rest ignored."""
    found = _NUMBER.match(value or "")
    if not found:
        return None
    text = found.group(0)
    digits = text.lstrip("+-")
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") and len(digits) > 1 else 10
    return int(text, base)


def parse_size(value: str | None) -> int | None:
    """Parse a size as ``memparse()`` does (``512M``, ``0x1000``); None when there is no number."""
    found = _SIZE.match(value or "")
    return (
        int(found.group(1), 0 if found.group(1)[:2].lower() == "0x" else 10) << _UNITS[found.group(2).lower()]
        if found
        else None
    )


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line asks of the handoff.

    Attributes:
        text: The command line itself.
        nosmt: SMT switched off by ``nosmt`` or ``nosmt=force``.
        nosmt_force: By ``nosmt=force``: siblings cannot be switched on by hand again.
        nosmt_if_bugs: SMT switched off if the CPU has one of these bugs (``mitigations=auto,nosmt`` and its kin).
        max_cpus: ``maxcpus=`` (``nosmp`` is 0), or None.
        nr_cpus: ``nr_cpus=``, or None.
        possible_cpus: ``possible_cpus=``, or None.
        kaslr: False with ``nokaslr``.
        la57: False with ``no5lvl``.
        pti: True or False where ``pti=``, ``nopti`` or ``mitigations=off`` decides, None for the kernel's choice.
        idle: ``idle=`` (``poll``, ``halt``, ``nomwait``), or None.
        cpuidle_off: ``cpuidle.off=1``.
        intel_idle_off: ``intel_idle.max_cstate=0``.
        mem_limit: ``mem=`` in bytes, or None.
        memmap: Whether ``memmap=`` edits the memory map.
        no_hibernation: ``nohibernate``, ``hibernate=no`` or ``hibernate=noresume`` as given, or None.
    """

    text: str
    nosmt: bool = False
    nosmt_force: bool = False
    nosmt_if_bugs: frozenset[str] = frozenset()
    max_cpus: int | None = None
    nr_cpus: int | None = None
    possible_cpus: int | None = None
    kaslr: bool = True
    la57: bool = True
    pti: bool | None = None
    idle: str | None = None
    cpuidle_off: bool = False
    intel_idle_off: bool = False
    mem_limit: int | None = None
    memmap: bool = False
    no_hibernation: str | None = None

    @property
    def limits_cpus(self) -> bool:
        """Whether the kernel leaves CPUs of the machine out of its present mask."""
        return self.nr_cpus is not None or self.possible_cpus is not None or self.max_cpus == 0


def parse_command_line(text: str) -> CommandLine:
    """Interpret a command line; a later parameter overrides an earlier one, as in the kernel."""
    pairs = split_command_line(text)
    names = {name for name, _ in pairs}
    values = {name: value for name, value in pairs if value is not None}
    nosmt = [value for name, value in pairs if name == "nosmt"]
    max_cpus = _integer(values.get("maxcpus"))
    return CommandLine(
        text=text,
        nosmt=bool(nosmt),
        nosmt_force="force" in nosmt,
        nosmt_if_bugs=_nosmt_bugs(values),
        max_cpus=0 if "nosmp" in names else max_cpus,
        nr_cpus=_integer(values.get("nr_cpus")),
        possible_cpus=_integer(values.get("possible_cpus")),
        kaslr="nokaslr" not in names,
        la57="no5lvl" not in names,
        pti=_pti(names, values),
        idle=values.get("idle"),
        cpuidle_off=values.get("cpuidle.off", "0") not in {"0", "n", "N"},
        intel_idle_off=values.get("intel_idle.max_cstate") == "0",
        mem_limit=parse_size(values.get("mem")),
        memmap="memmap" in values,
        no_hibernation=_no_hibernation(names, values),
    )


def _nosmt_bugs(values: dict[str, str]) -> frozenset[str]:
    """Return the CPU bugs any of which makes a mitigation parameter switch SMT off."""
    bugs: set[str] = set()
    for name, needed in _NOSMT_BUGS.items():
        words = re.split(r"[,;]", values.get(name, ""))
        if "nosmt" in words or (name == "l1tf" and words[0] == "full"):
            bugs |= needed
    return frozenset(bugs)


def _pti(names: set[str], values: dict[str, str]) -> bool | None:
    """Decide page-table isolation where the command line does: ``pti_check_boottime_disable()`` in mm/pti.c."""
    chosen = values.get("pti")
    if chosen in {"on", "off"}:
        return chosen == "on"
    return False if "nopti" in names or values.get("mitigations") == "off" else None


def _no_hibernation(names: set[str], values: dict[str, str]) -> str | None:
    """Return the parameter that keeps the kernel from resuming at all, or None.

    ``noresume`` is not among them: writing to /sys/power/resume clears it again (kernel/power/hibernate.c,
    ``resume_store``).
    """
    if "nohibernate" in names:
        return "nohibernate"
    chosen = values.get("hibernate")
    return f"hibernate={chosen}" if chosen == "no" else None
