"""The kernel command line, split and understood as the kernel does it.

Only what changes the handoff is interpreted: which CPUs run, how they idle, where the kernel is loaded, which
paging mode it uses, which memory it has, and whether it will resume at all.

There are three readers, and they do not read alike.  The decompressor and some early code search the *whole* line for
words between blanks (`words_of`); ``early_param()`` and the rest get arguments with quotes, up to ``--``
(`split_command_line`).  CONFIG_CMDLINE reaches all but the decompressor.  What a bootconfig in the initramfs adds
reaches neither the decompressor nor ``early_param()``, which have run by then (setup_boot_config(), init/main.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from hibercheck.data import dataclass
from hibercheck.handoff.facts.arguments import (
    U64,
    Pairs,
    boolean,
    digits_number,
    leading_number,
    memparse,
    option_number,
    option_value,
    parse_size,
    split_command_line,
    whole_number,
    words_of,
)
from hibercheck.handoff.facts.e820 import ACPI_TABLES, PERSISTENT, RAM, RESERVED, MapEdit
from hibercheck.patterns import pattern

T = TypeVar("T")

_DECIMAL = pattern(r"[\t-\r ]*([0-9]+)")
_MEMMAP_TYPES = {"@": RAM, "#": ACPI_TABLES, "$": RESERVED, "!": PERSISTENT}
_HUGE_PAGES = {2 << 20, 1 << 30}
_CPUID_ARGUMENT = 127
"""What is kept of ``clearcpuid=``: cpu_parse_early_param(), arch/x86/kernel/cpu/common.c, has char arg[128]."""

_FULL = ("off", "full", "full,nosmt")

# Parameters that may ask for SMT to be switched off: the values that the kernel knows, those that ask, and the CPU bugs
# (any of them) without which it ignores the request (arch/x86/kernel/cpu/bugs.c; kernel/cpu.c for mitigations=).
_NOSMT = {
    "l1tf": (
        ("off", "flush,nowarn", "flush", "flush,nosmt", "full", "full,force"),
        {"flush,nosmt", "full", "full,force"},
        {"l1tf"},
    ),
    "mds": (_FULL, {"full,nosmt"}, {"mds"}),
    "tsx_async_abort": (_FULL, {"full,nosmt"}, {"taa"}),
    "mmio_stale_data": (_FULL, {"full,nosmt"}, {"mmio_stale_data"}),
}
_NOSMT_BY_ALL = frozenset({"l1tf", "mds", "taa", "mmio_stale_data", "retbleed"})

# Words that clear a feature of the CPU as clearcpuid= does, and its name in /proc/cpuinfo: cpu_parse_early_param() and
# the __setup()s of arch/x86/kernel/cpu/common.c; arch/x86/kernel/apic/apic.c.
_CLEARING = {
    "noxsave": "xsave",
    "nosmap": "smap",
    "nosmep": "smep",
    "nopcid": "pcid",
    "nopku": "pku",
    "nofsgsbase": "fsgsbase",
    "nox2apic": "x2apic",
}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a command line asks of the handoff.

    Attributes:
        text: The command line itself, as /proc/cmdline would show it.
        nosmt: SMT switched off by ``nosmt`` or ``nosmt=force``.
        nosmt_force: By ``nosmt=force``: siblings cannot be switched on by hand again.
        nosmt_if_bugs: SMT switched off if the CPU has one of these bugs (``mitigations=auto,nosmt`` and the like).
        mitigations_off: ``mitigations=off``, of which kernels differ whether such an option counts beside it.
        max_cpus: ``maxcpus=`` (``nosmp`` is 0), the last of them, or None.
        nr_cpus: ``nr_cpus=``, the smallest of them, or None.
        possible_cpus: ``possible_cpus=``, or None.
        ignored_apic: ``disable_cpu_apicid=``, the APIC id of a CPU that a kernel before v6.9 ignores, or None.
        parallel_bringup: ``cpuhp.parallel=``, or None for the kernel's choice.
        lapic_off: ``nolapic`` or ``disableapic``: the kernel starts no other CPU.
        acpi_off: ``acpi=off``: the kernel reads no MADT, and finds other CPUs by an MP table only.
        kaslr: False where the decompressor finds ``nokaslr``.
        la57: False where it finds ``no5lvl``.
        pti: True or False where ``pti=``, ``nopti`` or ``mitigations=off`` decides, None for the kernel's choice.
        fred: ``fred=`` as given, or None; a kernel obeys ``on`` or ``off``, the one that is not its default.
        idle: ``idle=`` (``poll``, ``halt``, ``nomwait``), or None.
        cpuidle_off: ``cpuidle.off=1``.
        intel_idle_max: ``intel_idle.max_cstate=``, or None.
        acpi_idle_max: ``processor.max_cstate=``, or None.
        cleared: CPU features that it takes away (``clearcpuid=``, ``nosmap``): names of /proc/cpuinfo, or numbers.
        memory_edits: What ``mem=`` and ``memmap=`` do to the memory map, in their order.
        huge_pages: Bytes that ``hugepages=`` sets aside.
        no_hibernation: ``nohibernate`` or ``hibernate=no`` as given, or None.
        no_resume: ``noresume`` or ``hibernate=noresume`` as given, or None: the kernel does not resume by itself.
        resume: ``resume=``, or None.
        resume_offset: ``resume_offset=`` in pages, or None.
        lockdown: ``lockdown=``, the strictest of them, or None.
        hardware_signature: True with ``acpi_sleep=s4_hwsig``, False with ``s4_nohwsig``, or None.
        bootconfig: Whether it asks for a bootconfig, which may add parameters that are not on the line.
    """

    text: str
    nosmt: bool = False
    nosmt_force: bool = False
    nosmt_if_bugs: frozenset[str] = frozenset()
    mitigations_off: bool = False
    max_cpus: int | None = None
    nr_cpus: int | None = None
    possible_cpus: int | None = None
    ignored_apic: int | None = None
    parallel_bringup: bool | None = None
    lapic_off: bool = False
    acpi_off: bool = False
    kaslr: bool = True
    la57: bool = True
    pti: bool | None = None
    fred: str | None = None
    idle: str | None = None
    cpuidle_off: bool = False
    intel_idle_max: int | None = None
    acpi_idle_max: int | None = None
    cleared: frozenset[str] = frozenset()
    memory_edits: tuple[MapEdit, ...] = ()
    huge_pages: int = 0
    no_hibernation: str | None = None
    no_resume: str | None = None
    resume: str | None = None
    resume_offset: int | None = None
    lockdown: str | None = None
    hardware_signature: bool | None = None
    bootconfig: bool = False

    @property
    def limits_cpus(self) -> bool:
        """Whether the kernel leaves CPUs of the machine out of its present mask."""
        counts = (self.nr_cpus, self.possible_cpus, self.ignored_apic)
        return any(count is not None for count in counts) or self.max_cpus == 0 or self.lapic_off

    @property
    def intel_idle_off(self) -> bool:
        """Whether intel_idle stays away: ``intel_idle.max_cstate=0`` (intel_idle_init(), drivers/idle/intel_idle.c)."""
        return self.intel_idle_max == 0

    def clears(self, flag: str, number: int) -> bool:
        """Tell whether it takes a feature of the CPU away: by its name in /proc/cpuinfo, or by 32 * word + bit."""
        return flag in self.cleared or str(number) in self.cleared


def parse_command_line(text: str, builtin: str = "", *, override: bool = False, bootconfig: str = "") -> CommandLine:
    """Interpret a command line.

    Args:
        text: What the boot loader passes.
        builtin: CONFIG_CMDLINE, which the kernel puts before it (setup_arch(), arch/x86/kernel/setup.c).
        override: Whether that takes the place of the boot loader's (CONFIG_CMDLINE_OVERRIDE).
        bootconfig: Keys of a bootconfig below ``kernel``, as a line (xbc_make_cmdline(), init/main.c).
    """
    line = builtin if override else f"{builtin} {text}" if builtin else text
    whole = f"{bootconfig} {line}" if bootconfig else line
    loader, words, early, late = words_of(text), words_of(line), split_command_line(line), split_command_line(whole)
    nosmt = [value for name, value in early if name == "nosmt"]
    no_hibernation, no_resume, resume, resume_offset = _hibernation(late)
    return CommandLine(
        text=whole,
        nosmt=bool(nosmt),
        nosmt_force="force" in nosmt,
        nosmt_if_bugs=_nosmt_bugs(early),
        mitigations_off=(_mitigations(early) or "").startswith("off"),
        max_cpus=_max_cpus(early),
        nr_cpus=min((n for n in _values(early, "nr_cpus", option_number) if n > 0), default=None),
        possible_cpus=_last(early, "possible_cpus", option_number),
        ignored_apic=_last(early, "disable_cpu_apicid", option_number),
        parallel_bringup=_last(early, "cpuhp.parallel", boolean),
        lapic_off=any(name in {"nolapic", "disableapic"} for name, _ in early),
        acpi_off=_last(early, "acpi", _one_of("off", "force")) == "off",
        kaslr="nokaslr" not in loader,
        la57="no5lvl" not in loader,
        pti=_pti(early, words),
        fred=option_value(words, "fred"),
        idle=_last(early, "idle", _one_of("poll", "halt", "nomwait")),
        cpuidle_off=bool(_last(late, "cpuidle.off", whole_number)),
        intel_idle_max=_last(late, "intel_idle.max_cstate", whole_number),
        acpi_idle_max=_last(late, "processor.max_cstate", whole_number),
        cleared=_cleared(early, words),
        memory_edits=tuple(_memory_edits(early)),
        huge_pages=_huge_pages(late),
        no_hibernation=no_hibernation,
        no_resume=no_resume,
        resume=resume,
        resume_offset=resume_offset,
        lockdown=max(_values(early, "lockdown", _one_of("integrity", "confidentiality")), key=len, default=None),
        hardware_signature=_last(late, "acpi_sleep", _hardware_signature),
        bootconfig=any(name == "bootconfig" for name, _ in early),
    )


def compressor_asked(line: str) -> str | None:
    """Return what a kernel that hibernates with this line is to compress by, ``none`` for not at all, or None.

    ``hibernate=nocompress`` counts whatever else is said; of ``hibernate.compressor=``, since v6.10, the last does.
    """
    pairs = split_command_line(line)
    if any(name == "hibernate" and (value or "").startswith("nocompress") for name, value in pairs):
        return "none"
    return _last(pairs, "hibernate.compressor", lambda value: value or None)


def loader_part(line: str, builtin: str, *, override: bool = False) -> str | None:
    """Return what of a running kernel's line (/proc/cmdline, saved_command_line) the boot loader passed.

    Args:
        line: The line.
        builtin: CONFIG_CMDLINE of that kernel.
        override: Whether that takes the place of the boot loader's: then the line does not tell, and None is returned.
    """
    if not builtin:
        return line
    return None if override else line.removeprefix(builtin).removeprefix(" ")


def parse_running_line(line: str, builtin: str = "", *, override: bool = False, bootconfig: str = "") -> CommandLine:
    """Interpret the command line of a kernel that runs (/proc/cmdline, saved_command_line).

    What is built in is part of it, but the decompressor saw only what the boot loader passed.

    Args:
        line: The line.
        builtin: CONFIG_CMDLINE of that kernel.
        override: Whether that takes the place of the boot loader's.
        bootconfig: What a bootconfig has put before it, which is not part of ``line`` here.
    """
    loader = loader_part(line, builtin, override=override)
    if loader is None:
        return parse_command_line("", line, override=True, bootconfig=bootconfig)
    return parse_command_line(loader, "" if loader == line else builtin, bootconfig=bootconfig)


def _values(pairs: Pairs, name: str, parse: Callable[[str | None], T | None]) -> list[T]:
    """Return the values of a parameter that the kernel accepts; it warns of others and goes on."""
    parsed = (parse(value) for given, value in pairs if given == name)
    return [value for value in parsed if value is not None]


def _last(pairs: Pairs, name: str, parse: Callable[[str | None], T | None]) -> T | None:
    """Return the last value of a parameter that the kernel accepts."""
    return next(iter(reversed(_values(pairs, name, parse))), None)


def _one_of(*choices: str) -> Callable[[str | None], str | None]:
    return lambda value: value if value in choices else None


def _max_cpus(pairs: Pairs) -> int | None:
    """Return what setup_max_cpus becomes: ``nosmp`` and ``maxcpus=`` set it, the last of them counts (kernel/smp.c)."""
    found = None
    for name, value in pairs:
        if name == "nosmp":
            found = 0
        elif name == "maxcpus":
            number = option_number(value)
            found = found if number is None else number
    return None if found is not None and found < 0 else found  # an unsigned number: more than there can be


def _hibernation(pairs: Pairs) -> tuple[str | None, str | None, str | None, int | None]:
    """Follow the ``__setup()`` functions of kernel/power/hibernate.c: what forbids hibernation, or resuming, stays.

    ``__setup()`` compares the beginning of an argument only (obsolete_checksetup(), init/main.c).

    Returns:
        The parameter that forbids hibernation, the one that forbids resuming, ``resume=`` and ``resume_offset=``.
    """
    never = no_resume = resume = None
    offset = None
    for name, value in pairs:
        given = name if value is None else f"{name}={value}"
        if given.startswith(("noresume", "hibernate=noresume")):
            no_resume = no_resume or given
        elif given.startswith("hibernate=nocompress"):
            continue
        elif given.startswith(("nohibernate", "hibernate=no")):
            never = never or given
        elif name == "resume" and value is not None and not (never or no_resume):
            resume = value.encode("latin-1").decode("utf-8", "replace")
        elif name == "resume_offset" and not (never or no_resume):
            number = _DECIMAL.match(value or "")
            offset = offset if number is None else digits_number(number[1], 10)
    return never, no_resume, resume, offset


def _nosmt_bugs(pairs: Pairs) -> frozenset[str]:
    """Return the CPU bugs any of which makes a mitigation parameter switch SMT off.

    The last value that the kernel knows counts; of ``retbleed=`` every word does.
    """
    bugs: set[str] = set()
    for name, (known, asking, needed) in _NOSMT.items():
        if _last(pairs, name, _one_of(*known)) in asking:
            bugs |= needed
    if any("nosmt" in value.split(",") for name, value in pairs if name == "retbleed" and value):
        bugs.add("retbleed")
    return frozenset(bugs | _NOSMT_BY_ALL if "nosmt" in re.split("[,;]", _mitigations(pairs) or "") else bugs)


def _mitigations(pairs: Pairs) -> str | None:
    """Return what counts of ``mitigations=``; since v6.17 attack vectors may follow: auto,nosmt,no_user_user."""
    return _last(pairs, "mitigations", lambda value: value if (value or "").startswith(("off", "auto")) else None)


def _pti(pairs: Pairs, words: list[str]) -> bool | None:
    """Decide page-table isolation where the command line does: pti_check_boottime_disable(), arch/x86/mm/pti.c."""
    chosen = option_value(words, "pti")
    if chosen in {"on", "off"}:
        return chosen == "on"
    mitigations = _last(pairs, "mitigations", _one_of("off", "auto", "auto,nosmt"))
    return False if chosen != "auto" and ("nopti" in words or mitigations == "off") else None


def _cleared(pairs: Pairs, words: list[str]) -> frozenset[str]:
    """Return the features that it takes away: the last ``clearcpuid=`` counts, as cmdline_find_option() finds it."""
    numbers = (option_value(words, "clearcpuid") or "")[:_CPUID_ARGUMENT].split(",")
    names = (_CLEARING[name] for name, _ in pairs if name in _CLEARING)
    return frozenset(filter(None, (*numbers, *names)))


def _memory_edits(pairs: Pairs) -> Iterable[MapEdit]:
    """Follow parse_memopt() and parse_memmap_opt() of arch/x86/kernel/e820.c, in the order of the line."""
    for name, value in pairs:
        if name == "mem" and value is not None:
            limit = memparse(value)[0]
            if limit:
                yield MapEdit(f"mem={value}", "remove", limit, U64 - limit, RAM)
        elif name == "memmap" and value is not None:
            yield from filter(None, map(_memmap, value.split(",")))


def _memmap(text: str) -> MapEdit | None:
    """Follow parse_memmap_one(): of what is malformed behind a valid range it complains, but the range counts."""
    given = f"memmap={text}"
    if text.startswith("exactmap"):
        return MapEdit(given, "clear", 0, U64, 0)
    size, rest = memparse(text)
    if rest == text:
        return None
    mark = rest[:1]
    start, rest = memparse(rest[1:])
    if mark in _MEMMAP_TYPES:
        return MapEdit(given, "add", start, size, 0, _MEMMAP_TYPES[mark])
    if mark != "%":
        return MapEdit(given, "remove", size, U64 - size, RAM)
    old, new = 0, 0
    if rest.startswith("-"):
        old, rest = leading_number(rest[1:])
    if rest.startswith("+"):
        new, rest = leading_number(rest[1:])
    if rest:
        return None
    return MapEdit(given, "update" if old and new else "add" if new else "remove", start, size, old, new)


def _huge_pages(pairs: Pairs) -> int:
    """Return how many bytes ``hugepages=`` asks for: of the size before it, or of the default size (mm/hugetlb.c)."""
    default, size = 2 << 20, None
    counts: dict[int | None, int] = {}
    for name, value in pairs:
        if name in {"hugepagesz", "default_hugepagesz"}:
            given = parse_size(value) or 0
            size = given if given in _HUGE_PAGES else 0
            default = size if size and name == "default_hugepagesz" else default
        elif name == "hugepages" and size != 0:
            parts = [part.rpartition(":")[2] for part in (value or "").split(",")]
            counts.setdefault(
                size, sum(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 16)
            )
    return min(sum((default if size is None else size) * count for size, count in counts.items()), U64)


def _hardware_signature(value: str | None) -> bool | None:
    """Follow acpi_sleep_setup() (arch/x86/kernel/acpi/sleep.c): of s4_hwsig and s4_nohwsig the last counts."""
    words = [part.lstrip(" \t") for part in (value or "").split(",")]
    found = [word.startswith("s4_hwsig") for word in words if word.startswith(("s4_hwsig", "s4_nohwsig"))]
    return found[-1] if found else None
