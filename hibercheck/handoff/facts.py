"""What was collected on the running resumer (``hibercheck collect``): it takes the place of what is assumed of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hibercheck.cpulist import MAX_CPUS
from hibercheck.data import dataclass
from hibercheck.errors import InputProblem, MalformedDump
from hibercheck.handoff.cpufacts import BUGS, FEATURES, VENDORS, CpuFeatures, Topology
from hibercheck.handoff.idle import IdleDriver
from hibercheck.handoff.resumee import E820Entry

FACTS_VERSION = 1
MAX_SIZE = 64 << 20
"""A facts file of a machine with thousands of CPUs is a few hundred KiB."""

# e820_type_to_string(), arch/x86/kernel/e820.c: what /sys/firmware/memmap/*/type says; the last is of no known type
_E820_TYPES = {
    "system ram": 1,
    "reserved": 2,
    "device reserved": 2,
    "acpi tables": 3,
    "acpi non-volatile storage": 4,
    "unusable memory": 5,
    "persistent memory": 7,
    "persistent memory (legacy)": 12,
    "soft reserved": 0xEFFF_FFFF,
}
_FLAGS = {"monitor": "mwait", "pdpe1gb": "gbpages"}  # /proc/cpuinfo's names where they differ from ours
_BUG_NAMES = {"cpu_meltdown": "meltdown"}
_CODE = re.compile(r"\s*([0-9a-f]+)-[0-9a-f]+ : Kernel code$")
_RAM = re.compile(r"[0-9a-f]+-([0-9a-f]+) : System RAM$")
_ACPI = re.compile(r"ACPI (FFH|HLT|IOPORT)")


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
        topology: Which of the online CPUs share a core; None if a present CPU's APIC id is not known.
        features: Vendor, features and bugs of the CPUs.
        idle: The cpuidle driver.
        e820: The firmware's memory map, by /sys/firmware/memmap, which not every kernel has.
        ram_end: End of the highest RAM, by /proc/iomem.
        levels: Levels of the page tables, by VMCOREINFO.
        kernel_offset: Virtual KASLR offset, by VMCOREINFO.
        phys_base: Physical displacement, by VMCOREINFO.
        frames: Frames of its memory, page tables above all, by /proc/kcore; None where it was not read.
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
    e820: tuple[E820Entry, ...] | None
    levels: int | None
    ram_end: int | None = None
    kernel_offset: int | None = None
    phys_base: int | None = None
    frames: dict[int, bytes] | None = None


def read_facts(path: str) -> ResumerFacts:
    """Read a facts file.

    Raises:
        InputProblem: It cannot be read.
        MalformedDump: It is no facts file, or contradicts its format.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        raise InputProblem(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=path) from error
    if len(content) > MAX_SIZE:
        raise MalformedDump("is too large for a facts file", path=path)
    return parse_facts(content.decode("utf-8", "replace"), path)


def parse_facts(text: str, path: str) -> ResumerFacts:
    """Parse the text of a facts file.

    Raises:
        MalformedDump: It is no facts file, or contradicts its format.
    """
    import json  # noqa: PLC0415 - few checks are given facts

    try:
        # not strict: a shell script copies control characters of a command line as they are
        data = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise MalformedDump(f"is not JSON: {error}", path=path, advice="write it with `hibercheck collect`") from error
    if not isinstance(data, dict) or data.get("hibercheck_facts") != FACTS_VERSION:
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

    def numbers(self, name: str) -> dict[str, int]:
        value = self.data.get(name) or {}
        return {key: int(str(number), 0) for key, number in value.items()}


def _facts(members: _Members, path: str) -> ResumerFacts:
    present, online = _cpus(members.text("present")), _cpus(members.text("online"))
    info = list(_cpuinfo(members.texts("cpuinfo")))
    notes = members.numbers("vmcoreinfo")
    load, text = _load_address(members.texts("iomem")), _text_address(members.texts("kallsyms"))
    levels = notes.get("pgtable_l5_enabled")
    return ResumerFacts(
        path=path,
        banner=members.text("version"),
        command_line=members.text("cmdline"),
        load_address=load,
        text_address=text,
        present=present,
        online=online,
        topology=_topology(present, info, members.objects("topology")),
        features=_features(info),
        idle=_idle(members.text("idle_driver"), members.objects("idle_states")),
        e820=_e820(members.objects("e820")),
        levels=None if levels is None else 5 if levels else 4,
        ram_end=_ram_end(members.texts("iomem")),
        kernel_offset=notes.get("kernel_offset"),
        phys_base=_phys_base(notes),
        frames=_frames(members.data.get("frames")),
    )


def _phys_base(notes: dict[str, int]) -> int | None:
    """Return the physical displacement from link-time addresses; the kernel's own counts from run-time ones."""
    return notes["phys_base"] + notes.get("kernel_offset", 0) if "phys_base" in notes else None


def _frames(encoded: object) -> dict[int, bytes] | None:
    if not encoded:
        return None
    from hibercheck.handoff.collecting import decode_frames  # noqa: PLC0415 - a script does not collect any

    return decode_frames(encoded)


def _cpus(text: str | None) -> frozenset[int] | None:
    """Parse a list of CPUs as the kernel prints it (``0-3,8``)."""
    if text is None:
        return None
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        start, end = int(first), int(last or first)
        if not 0 <= start <= end < MAX_CPUS:
            raise ValueError(f"{part!r} is not a range of CPUs")
        cpus.update(range(start, end + 1))
    return frozenset(cpus)


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
        if rest.split()[1:2] == ["_text"] and int(address, 16):
            return int(address, 16)
    return None


def _topology(
    present: frozenset[int] | None, info: list[tuple[str, str]], listed: list[dict[str, Any]]
) -> Topology | None:
    apic_ids: dict[int, int] = {}
    cpu = None
    for key, value in info:
        if key == "processor":
            cpu = int(value)
        elif key == "apicid" and cpu is not None:
            apic_ids[cpu] = int(value)
    if present is None or not present <= apic_ids.keys():
        return None
    cores = Counter((item["package"], item["core"]) for item in listed if item.get("core") is not None)
    threads = max(cores.values(), default=1)
    shift = (threads - 1).bit_length()
    mask = (1 << shift) - 1
    return Topology(apic_ids, shift, frozenset(number for number, apic in apic_ids.items() if apic & mask == 0))


def _features(info: list[tuple[str, str]]) -> CpuFeatures | None:
    first = dict(reversed(info))
    if "flags" not in first or "vendor_id" not in first:
        return None
    flags = {_FLAGS.get(flag, flag) for flag in first["flags"].split()}
    bugs = {_BUG_NAMES.get(bug, bug) for bug in first["bugs"].split()} if "bugs" in first else None
    sizes = [int(number) for number in re.findall(r"\d+", first.get("address sizes", ""))]
    vendor = first["vendor_id"]
    return CpuFeatures(
        vendor=VENDORS.get(vendor.encode(), vendor),
        cpuid_level=int(first.get("cpuid level", "0")),
        flags=frozenset(flags & FEATURES.keys()),
        bugs=None if bugs is None else frozenset(bugs & BUGS.keys()),
        virtual_bits=sizes[1] if len(sizes) == 2 and sizes[1] in {48, 57} else None,
        physical_bits=sizes[0] if len(sizes) == 2 and sizes[0] in range(32, 53) else None,
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
            return IdleDriver(driver, "acpi_idle_play_dead", methods[match[1]])
    return IdleDriver(driver)


def _e820(entries: list[dict[str, Any]]) -> tuple[E820Entry, ...] | None:
    """Turn /sys/firmware/memmap back into the map; None if a type has no known number."""
    found = []
    for entry in entries:
        kind = _E820_TYPES.get(str(entry["type"]).lower())
        if kind is None:
            return None
        start, end = int(entry["start"], 16), int(entry["end"], 16)
        if not 0 <= start <= end < (1 << 64) - 1:
            raise ValueError(f"e820 has a range from {start:#x} to {end:#x}")
        found.append(E820Entry(start, end + 1 - start, kind))
    return tuple(found) or None
