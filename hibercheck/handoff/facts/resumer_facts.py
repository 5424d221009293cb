"""What was collected on the running resumer (``hibercheck collect``): it takes the place of what is assumed of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from hibercheck.cpulist import MAX_CPUS, parse_cpu_list
from hibercheck.data import dataclass
from hibercheck.errors import MalformedDump
from hibercheck.files.text import read_whole
from hibercheck.handoff.facts.cpufacts import (
    BUGS,
    FEATURES,
    FLAG_NAMES,
    VENDORS,
    CpuFeatures,
    MonitorLeaf,
    Topology,
    read_monitor_leaf,
)
from hibercheck.handoff.facts.e820 import Map
from hibercheck.handoff.facts.firmware_map import FirmwareMap, from_kernel, from_log, from_sysfs
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.modes import by_variables, logged_modes
from hibercheck.kernel.code.names import ENTER_DEAD
from hibercheck.numbers import decimal, either, hexadecimal, is_version
from hibercheck.patterns import pattern

FACTS_VERSION = 1
MAX_SIZE = 64 << 20
"""A facts file of a machine with thousands of CPUs is a few hundred KiB."""

_BUG_NAMES = {"cpu_meltdown": "meltdown"}
MAX_APIC_ID = 1 << 32
"""An x2APIC ID has 32 bits (Intel SDM, volume 3, "Extended XAPIC (x2APIC)")."""
_FREE = pattern(r"MemFree:\s+(\d{1,15}) kB$")
_CHOSEN = pattern(r"\[(\w+)\]")
_CODE = pattern(r"\s*([0-9a-f]{1,16})-[0-9a-f]+ : Kernel code$")
_RAM = pattern(r"[0-9a-f]+-([0-9a-f]{1,16}) : System RAM$")
_ACPI = pattern(r"ACPI (FFH|HLT|IOPORT)")


@dataclass(frozen=True, slots=True)
class ResumerFacts:
    """The resumer as it described itself; None where it did not say.

    Attributes:
        path: The file.
        banner: /proc/version.
        command_line: /proc/cmdline.
        load_address: Physical address of its text, by /proc/iomem.
        text_address: Run-time virtual address of ``_text``, by /proc/kallsyms.
        present: CPUs that are present.
        online: CPUs that are online.
        smt_control: /sys/devices/system/cpu/smt/control: ``on``, ``off``, ``forceoff``, ``notsupported`` ...
        booted: The CPUs that it has started at least once, where its memory could be read.
        topology: Which of the online CPUs share a core; None if a present CPU's APIC id is not known.
        features: Vendor, features and bugs of the CPUs.
        idle: The cpuidle driver.
        firmware: The firmware's memory map, from the best place where it was found.
        ram_end: End of the highest RAM, by /proc/iomem.
        levels: Levels of the page tables, by VMCOREINFO.
        kernel_offset: Virtual KASLR offset, by VMCOREINFO.
        phys_base: Physical displacement, by VMCOREINFO.
        frames: Frames of its memory, page tables above all, by /proc/kcore; None where it was not read.
        hibernation: Whether it hibernates and resumes at all, by /sys/power/disk: not under lockdown, for one.
        lockdown: ``none``, ``integrity`` or ``confidentiality``.
        compressors: Those of images that are loaded (True) or would be loaded when asked for (False).
        hw_signature: The firmware's hardware signature, by the FACS.
        pages: get_num_physpages(), by /proc/zoneinfo.
        free_pages: Frames that were free.
        apic_ids: APIC ids of the CPUs that are online, where ``topology`` lacks those of others.
        threads: Threads of a core that were seen online.
        exit_latency: Microseconds that its cpuidle driver's deepest state takes to leave.
        monitor: What CPUID.5 says of MWAIT.
        location: UUID and page where systemd says that an image is (HibernateLocation).
        modes: States of the machine (`hibercheck.handoff.facts.modes.MODES`), of those that were found.
        boot_id: /proc/sys/kernel/random/boot_id.
    """

    path: str
    banner: str | None
    command_line: str | None
    load_address: int | None
    text_address: int | None
    present: frozenset[int] | None
    online: frozenset[int] | None
    topology: Topology | None
    features: CpuFeatures | None
    idle: IdleDriver | None
    firmware: FirmwareMap | None
    levels: int | None
    ram_end: int | None = None
    kernel_offset: int | None = None
    phys_base: int | None = None
    smt_control: str | None = None
    booted: frozenset[int] | None = None
    frames: dict[int, bytes] | None = None
    hibernation: bool | None = None
    lockdown: str | None = None
    compressors: dict[str, bool] | None = None
    hw_signature: int | None = None
    pages: int | None = None
    free_pages: int | None = None
    apic_ids: dict[int, int] = field(default_factory=dict)
    threads: int = 1
    exit_latency: int | None = None
    monitor: MonitorLeaf | None = None
    location: tuple[str, int] | None = None
    modes: dict[str, bool] = field(default_factory=dict)
    boot_id: str | None = None

    @property
    def e820(self) -> Map | None:
        """The firmware's memory map."""
        return None if self.firmware is None else self.firmware.entries


def read_facts(path: str) -> ResumerFacts:
    """Read a facts file.

    Raises:
        InputProblem: It cannot be read.
        MalformedDump: It is not a facts file, or contradicts its format.
    """
    return parse_facts(read_whole(path, MAX_SIZE, "a facts file").decode("utf-8", "replace"), path)


def parse_facts(text: str, path: str) -> ResumerFacts:
    """Parse the text of a facts file.

    Raises:
        MalformedDump: It is not a facts file, or contradicts its format.
    """
    import json  # noqa: PLC0415 - few checks are given facts

    try:
        # not strict: a shell script copies control characters of a command line as they are
        data = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise MalformedDump(f"is not JSON: {error}", path=path, advice="write it with `hibercheck collect`") from error
    if not isinstance(data, dict) or not is_version(data.get("hibercheck_facts"), FACTS_VERSION):
        raise MalformedDump(
            f"is not a facts file of version {FACTS_VERSION}", path=path, advice="write it with `hibercheck collect`"
        )
    try:
        return _facts(_Members(data), path)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise MalformedDump(f"contradicts its format: {what}", path=path) from error


@dataclass(frozen=True, slots=True)
class _Members:
    """The document with its members' types checked."""

    data: dict[str, Any]

    def text(self, name: str) -> str | None:
        value = self.data.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is not a string")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise ValueError(f"{name} is not a list of strings")
        return value

    def objects(self, name: str) -> list[dict[str, Any]]:
        value = self.data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ValueError(f"{name} is not a list of objects")
        return value

    def rows(self, name: str) -> list[list[Any]]:
        value = self.data.get(name) or []
        if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 3 for row in value):
            raise ValueError(f"{name} is not a list of rows of three")
        return value

    def count(self, name: str) -> int | None:
        value = self.data.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 52):
            raise ValueError(f"{name} is not a number of pages")
        return value

    def numbers(self, name: str) -> dict[str, int]:
        value = self.data.get(name) or {}
        return {key: _number(key, number) for key, number in value.items()}


def _facts(members: _Members, path: str) -> ResumerFacts:
    present, online = _cpus(members.text("present")), _cpus(members.text("online"))
    info = list(_cpuinfo(members.texts("cpuinfo")))
    notes = members.numbers("vmcoreinfo")
    load, text = _load_address(members.texts("iomem")), _text_address(members.texts("kallsyms"))
    levels = notes.get("pgtable_l5_enabled")
    apic_ids, threads = _apic_ids(info), _threads(members.objects("topology"))
    return ResumerFacts(
        path=path,
        banner=members.text("version"),
        command_line=members.text("cmdline"),
        load_address=load,
        text_address=text,
        present=present,
        online=online,
        topology=_topology(present, apic_ids, threads),
        features=_features(info),
        idle=_idle(members.text("idle_driver"), members.objects("idle_states")),
        firmware=_firmware(members),
        levels=None if levels is None else 5 if levels else 4,
        ram_end=_ram_end(members.texts("iomem")),
        kernel_offset=notes.get("kernel_offset"),
        phys_base=_phys_base(notes),
        smt_control=members.text("smt_control"),
        booted=_cpus(members.text("booted")),
        frames=_frames(members.data.get("frames")),
        hibernation=_hibernation(members.text("power_disk")),
        lockdown=_lockdown(members.text("lockdown")),
        compressors=_compressors(members),
        hw_signature=_optional(members.text("hw_signature")),
        pages=members.count("pages"),
        free_pages=_free_pages(members.texts("meminfo")),
        apic_ids=apic_ids,
        threads=threads,
        exit_latency=_exit_latency(members.objects("idle_states")),
        monitor=_monitor(members.text("cpuid5")),
        location=_location(members.data.get("hibernate_location")),
        modes=logged_modes(members.texts("modes_log")) | by_variables(members.numbers("modes")),
        boot_id=members.text("boot_id"),
    )


def _location(found: object) -> tuple[str, int] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("uuid"), str):
        raise ValueError("hibernate_location has no UUID")  # noqa: TRY004 - of the document, not of our types
    offset = found.get("offset")
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 1 << 52:
        raise ValueError("hibernate_location has no offset in pages")
    return found["uuid"].lower(), offset


def _hibernation(text: str | None) -> bool | None:
    """Tell whether it hibernates and resumes at all: /sys/power/disk is ``[disabled]`` otherwise (disk_show())."""
    return None if text is None else text.strip() != "[disabled]"


def _optional(text: str | None) -> int | None:
    return None if text is None else hexadecimal(text, 1 << 32)


def _number(name: str, value: object) -> int:
    """Read a number of VMCOREINFO: from a script it is text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} is not a number")  # noqa: TRY004 - of the document, not of our types
    return either(str(value))


def _phys_base(notes: dict[str, int]) -> int | None:
    """Return the physical displacement from link-time addresses; the kernel's own counts from run-time ones."""
    return notes["phys_base"] + notes.get("kernel_offset", 0) if "phys_base" in notes else None


def _frames(encoded: object) -> dict[int, bytes] | None:
    if not encoded:
        return None
    from hibercheck.handoff.facts.collecting import decode_frames  # noqa: PLC0415 - a script does not collect any

    return decode_frames(encoded)


def _cpus(text: str | None) -> frozenset[int] | None:
    """Parse a list of CPUs as the kernel prints it (``0-3,8``)."""
    return None if text is None else parse_cpu_list(text)


def _cpuinfo(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _load_address(lines: list[str]) -> int | None:
    """Return where "Kernel code" starts; without privileges /proc/iomem shows zeros."""
    found = [int(match[1], 16) for match in map(_CODE.match, lines) if match]
    return found[0] if found and found[0] else None


def _ram_end(lines: list[str]) -> int | None:
    ends = [int(match[1], 16) + 1 for match in map(_RAM.match, lines) if match]
    return max(ends) if ends and max(ends) > 1 else None


def _text_address(lines: list[str]) -> int | None:
    """Return the address of _text; without privileges /proc/kallsyms shows zeros."""
    for line in lines:
        address, _, rest = line.partition(" ")
        if rest.split()[1:2] == ["_text"]:
            return hexadecimal(address) or None
    return None


def _apic_ids(info: list[tuple[str, str]]) -> dict[int, int]:
    apic_ids: dict[int, int] = {}
    cpu = None
    for key, value in info:
        if key == "processor":
            cpu = decimal(value, MAX_CPUS)
        elif key == "apicid" and cpu is not None:
            apic_ids[cpu] = decimal(value, MAX_APIC_ID)
    return apic_ids


def _threads(listed: list[dict[str, Any]]) -> int:
    """Return the most threads of a core that are online."""
    cores = Counter((item["package"], item["core"]) for item in listed if item.get("core") is not None)
    return max(cores.values(), default=1)


def _topology(present: frozenset[int] | None, apic_ids: dict[int, int], threads: int) -> Topology | None:
    if present is None or not present <= apic_ids.keys():
        return None
    return Topology({}, (threads - 1).bit_length(), frozenset()).extended(apic_ids)


def _number_of(info: dict[str, str], key: str) -> int | None:
    return decimal(info[key]) if key in info else None


def _features(info: list[tuple[str, str]]) -> CpuFeatures | None:
    first = dict(reversed(info))
    if "flags" not in first or "vendor_id" not in first:
        return None
    flags = {FLAG_NAMES.get(flag, flag) for flag in first["flags"].split()}
    bugs = {_BUG_NAMES.get(bug, bug) for bug in first["bugs"].split()} if "bugs" in first else None
    sizes = [decimal(number) for number in re.findall(r"[0-9]+", first.get("address sizes", ""))]
    vendor = first["vendor_id"]
    return CpuFeatures(
        vendor=VENDORS.get(vendor.encode(), vendor),
        cpuid_level=decimal(first.get("cpuid level", "0"), 1 << 32),
        flags=frozenset(flags & FEATURES.keys()),
        bugs=None if bugs is None else frozenset(bugs & BUGS.keys()),
        virtual_bits=sizes[1] if len(sizes) == 2 and sizes[1] in {48, 57} else None,
        physical_bits=sizes[0] if len(sizes) == 2 and sizes[0] in range(32, 53) else None,
        family=_number_of(first, "cpu family"),
        model=_number_of(first, "model"),
    )


def _idle(driver: str | None, states: list[dict[str, Any]]) -> IdleDriver | None:
    """Read the driver's deepest state; acpi_idle says in its description how it enters one (acpi_processor_cstate)."""
    if driver is None:
        return None
    if driver == "none" or not driver:
        return IdleDriver(None)
    if driver != "acpi_idle":
        return IdleDriver(driver)
    methods = {"FFH": "mwait", "HLT": "halt", "IOPORT": "port"}
    for state in reversed(states):
        match = _ACPI.match(str(state.get("desc") or ""))
        if match:
            return IdleDriver(driver, ENTER_DEAD[driver], methods[match[1]])
    return IdleDriver(driver)


def _exit_latency(states: list[dict[str, Any]]) -> int | None:
    """Return the longest latency of the driver's states; scripts before 0.1 did not collect any."""
    found = [decimal(str(state["latency"]), 1 << 32) for state in states if state.get("latency") is not None]
    return max(found, default=None)


def _monitor(text: str | None) -> MonitorLeaf | None:
    """Read leaf 5: EAX, EBX, ECX and EDX in hexadecimal."""
    if text is None:
        return None
    registers = [hexadecimal(word, 1 << 32) for word in text.split()]
    if len(registers) != 4:
        raise ValueError("cpuid5 is not four registers")
    return read_monitor_leaf(*registers)


def _firmware(members: _Members) -> FirmwareMap | None:
    """Take the best of what was found of the firmware's map: the kernel's own table, its log, sysfs."""
    return (
        from_kernel(members.rows("e820_table"))
        or from_log(members.texts("memory_log"))
        or from_sysfs(members.objects("e820"))
    )


def _compressors(members: _Members) -> dict[str, bool] | None:
    """Say which compressors are at hand: True for one that is loaded, False for one that would be when asked for.

    Without /proc/crypto nothing is known; it lists nothing else than what is there.
    """
    if "compressors" not in members.data:
        return None
    loaded = dict.fromkeys(members.texts("compressors"), True)
    return dict.fromkeys(members.texts("loadable"), False) | loaded


def _free_pages(lines: list[str]) -> int | None:
    """Return the free frames by /proc/meminfo, which counts KiB."""
    for line in lines:
        found = _FREE.match(line)
        if found is not None:
            return int(found[1]) // 4
    return None


def _lockdown(text: str | None) -> str | None:
    """Return the mode in brackets: ``none [integrity] confidentiality``."""
    found = _CHOSEN.search(text or "")
    return None if found is None else found[1]
