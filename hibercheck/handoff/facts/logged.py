"""What a kernel's log says of its run: the log of the boot that was to resume, taken by dmesg or journalctl -k."""

from __future__ import annotations

import re
from dataclasses import field

from hibercheck.data import dataclass
from hibercheck.errors import MalformedDump
from hibercheck.files.text import read_whole
from hibercheck.handoff.facts.firmware_map import FirmwareMap, from_log
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.modes import logged_modes
from hibercheck.patterns import pattern

MAX_LOG = 256 << 20
_LONGEST = 8192
_STAMP = r"(?:^|[\]:]\s+|^\s*\[[^\]]*\]\s*)"
_BANNER = pattern(rf"{_STAMP}(Linux version \S.*?)\s*$")
_COMMAND_LINE = pattern(rf"{_STAMP}(Kernel command line|Command line): (.*?)\s*$")
"""What the boot loader passed (setup_arch()), and later the whole line, with what is built in and a bootconfig's
(start_kernel())."""
_CPUS = pattern(
    r"(?:smpboot: )?(?:CPU topo: )?[Aa]llow(?:ing|ed) (\d{1,5}) (?:present )?CPUs(?: plus|,) (\d{1,5}) hotplug CPUs"
)
_BROUGHT_UP = pattern(rf"{_STAMP}(?:smp: )?Brought up \d{{1,5}} nodes?, (\d{{1,5}}) CPUs?\s*$")
"""smp_init(), kernel/smp.c: those that are online then, before any user space."""
_LOCKED = pattern(r"Kernel is locked down from ([^;]+);")
_SECURE = pattern(r"(?:secureboot: Secure boot (enabled|disabled)|Secure boot (enabled|disabled))", re.IGNORECASE)
_SMT_OFF = pattern(rf"{_STAMP}SMT: (?:disabled|Force disabled)")
"""cpu_smt_disable(), kernel/cpu.c."""
_KASLR_OFF = pattern(r"^\s*KASLR disabled: ")
"""choose_random_location(), arch/x86/boot/compressed/kaslr.c: on the console only, before the log begins."""
_INTEL_IDLE = pattern(rf"{_STAMP}intel_idle: v[\d.]+ model ")
_YIELDS = pattern(rf"{_STAMP}intel_idle: intel_idle yielding to (\w+)")
"""intel_idle_init(), drivers/idle/intel_idle.c, where its messages for debugging are on."""


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What was found; None where the log does not say.

    Attributes:
        path: The log.
        banner: The kernel's banner.
        command_line: Its command line.
        present: How many CPUs are present, numbered from 0.
        brought_up: How many CPUs were online once the kernel had started them.
        firmware: The firmware's memory map.
        lockdown: ``integrity`` where the kernel says that it is locked down.
        secure_boot: Whether it says that Secure Boot is on.
        modes: States of the machine (`hibercheck.handoff.facts.modes.MODES`), of those that it names.
        smt_off: True where it says that it switched SMT off.
        kaslr_off: True where it says that it lies at its own address, not at a random one.
        idle: Its cpuidle driver, where that says so.
    """

    path: str
    banner: str | None = None
    command_line: str | None = None
    present: frozenset[int] | None = None
    brought_up: int | None = None
    firmware: FirmwareMap | None = None
    lockdown: str | None = None
    secure_boot: bool | None = None
    modes: dict[str, bool] = field(default_factory=dict)
    smt_off: bool | None = None
    kaslr_off: bool | None = None
    idle: IdleDriver | None = None


def read_log_facts(path: str) -> LogFacts:
    """Read a log.

    Raises:
        InputProblem: It cannot be read.
        MalformedDump: It says nothing of how a kernel was started, or of several.
    """
    return parse_log_facts(read_whole(path, MAX_LOG, "a kernel's log").decode("utf-8", "replace"), path)


def parse_log_facts(text: str, path: str) -> LogFacts:
    """Take the facts out of a log's text.

    Raises:
        MalformedDump: It says nothing of how a kernel was started, or of several, or has an impossible memory map.
    """
    banners: list[str] = []
    lines: dict[str, dict[str, None]] = {"Kernel command line": {}, "Command line": {}}
    present = brought_up = lockdown = idle = None
    secure: bool | None = None
    modes: dict[str, bool] = {}
    smt_off: bool | None = None
    kaslr_off: bool | None = None
    memory: list[str] = []
    for whole in text.splitlines():
        line = whole[:_LONGEST]
        if "Linux version " in line and (found := _BANNER.search(line)):
            banners.append(found.group(1))
        elif "ommand line: " in line and (found := _COMMAND_LINE.search(line)):
            if not found.group(2).endswith("\\"):  # a long one may be printed in pieces
                lines[found.group(1)][found.group(2)] = None
        elif "hotplug CPUs" in line and (found := _CPUS.search(line)):
            count, more = int(found.group(1)), int(found.group(2))
            # "Allowing N CPUs, H hotplug CPUs" counts both, since v6.10 "Allowing P present CPUs plus H hotplug CPUs"
            present = frozenset(range(max(count if "plus" in found.group(0) else count - more, 0)))
        elif "Brought up " in line and (found := _BROUGHT_UP.search(line)):
            brought_up = int(found.group(1))
        elif "RAM map:" in line or ("[mem 0x" in line and ("BIOS-" in line or "extended: " in line)):
            memory.append(line)
        elif _LOCKED.search(line):
            lockdown = "integrity"
        elif found := _SECURE.search(line):
            secure = (found.group(1) or found.group(2)).lower() == "enabled"
        elif _SMT_OFF.search(line):
            smt_off = True
        elif _KASLR_OFF.search(line):
            kaslr_off = True
        elif _INTEL_IDLE.search(line):
            idle = IdleDriver("intel_idle")
        elif _YIELDS.search(line):
            idle = None
        else:
            modes |= logged_modes((line,))
    if len(banners) > 1 or any(len(found) > 1 for found in lines.values()):
        raise MalformedDump("is of several boots", path=path, advice="give one: journalctl -k -b NUMBER")
    line_of = next((line for found in lines.values() for line in found), None)
    if not banners and line_of is None and not memory:
        advice = "give dmesg's output from the start of the boot, or journalctl -k -b NUMBER"
        raise MalformedDump("says nothing of how the kernel was started", path=path, advice=advice)
    try:
        firmware = from_log(memory)
    except ValueError as error:
        raise MalformedDump(f"contradicts itself: {error}", path=path) from error
    banner = next(iter(banners), None)
    return LogFacts(
        path, banner, line_of, present, brought_up, firmware, lockdown, secure, modes, smt_off, kaslr_off, idle
    )
