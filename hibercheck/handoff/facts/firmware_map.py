"""The firmware's memory map as a running kernel shows it: in its memory, in its log, in sysfs.

A resumer compares the checksum of e820_table_firmware (arch_hibernation_header_restore(), arch/x86/power/hibernate.c).
Its log has that table line by line as it was set up.  /sys/firmware/memmap shows e820_table_kexec since a2498e5c453b
("x86/kexec: Export e820_table_kexec[] to sysfs", in v6.15), in which the kernel has reserved what it needs: on a host
of SEV-SNP guests, with an MP table of its own making.  What differs there need not differ in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hibercheck.data import dataclass
from hibercheck.handoff.facts.e820 import RAM, RESERVED, E820Entry, Map, differences
from hibercheck.numbers import hexadecimal
from hibercheck.patterns import pattern

MapSource = Literal["kernel", "log", "sysfs"]

# e820_type_to_string(), arch/x86/kernel/e820.c: what /sys/firmware/memmap/*/type says; the last is of no known type
_SYSFS_TYPES = {
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
# e820_print_type() there, up to 6.x and since
_LOG_TYPES = {
    "usable": 1,
    "system ram": 1,
    "reserved": 2,
    "device reserved": 2,
    "acpi data": 3,
    "acpi nvs": 4,
    "unusable": 5,
    "soft reserved": 0xEFFF_FFFF,
}
_LINE = pattern(r"(BIOS-\w+|extended): \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]\s+(.*?)\s*$")
_NUMBERED = pattern(r"(?:persistent (?:RAM )?\()?type (\d{1,10})\)?$")
_TITLE = pattern(r"\b(BIOS-provided|extended) physical RAM map:")


@dataclass(frozen=True, slots=True)
class FirmwareMap:
    """A map and where it was found.

    Attributes:
        entries: The map.
        source: ``kernel`` is the table itself, ``log`` the same as the kernel printed it, ``sysfs`` perhaps another.
    """

    entries: Map
    source: MapSource

    def same_machine(self, other: Map) -> bool:
        """Tell whether it may be the same firmware's map, though this one is perhaps not what the kernel compares.

        What sysfs shows may lack RAM that the kernel has reserved since, and nothing else.
        """
        found = differences(self.entries, other)
        reserved = all((ours, theirs) == (RESERVED, RAM) for _, _, ours, theirs in found)
        return not found or (self.source == "sysfs" and reserved)


def from_kernel(rows: Sequence[Sequence[Any]]) -> FirmwareMap | None:
    """Make a map of rows of start, size and type.

    Raises:
        ValueError: They are anything else.
    """
    entries = []
    for start, size, kind in rows:
        for number in (start, size, kind):
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 64:
                raise ValueError("e820_table is not a list of start, size and type")
        entries.append(_entry(start, start + size - 1, kind))
    return FirmwareMap(tuple(entries), "kernel") if entries else None


def from_log(lines: Sequence[str]) -> FirmwareMap | None:
    """Make a map of what the kernel logged, or return None where its first lines are gone from the log.

    Where the boot loader passes more entries than fit (SETUP_E820_EXT) the kernel prints all again, as "extended".

    Raises:
        ValueError: A line has a range that cannot be.
    """
    found: dict[str, list[E820Entry]] = {}
    titles: set[str] = set()
    for line in lines:
        title = _TITLE.search(line)
        if title is not None:
            titles.add(title[1])
            continue
        match = _LINE.search(line)
        if match is None:
            continue
        kind = _LOG_TYPES.get(match[4].lower())
        numbered = _NUMBERED.match(match[4])
        if kind is None and numbered is None:
            return None
        who = "extended" if match[1] == "extended" else "BIOS-provided"
        kind = int(numbered[1]) if kind is None and numbered is not None else kind
        found.setdefault(who, []).append(_entry(int(match[2], 16), int(match[3], 16), kind or 0))
    who = "extended" if "extended" in found else "BIOS-provided"
    return FirmwareMap(tuple(found[who]), "log") if who in found and who in titles else None


def from_sysfs(entries: Sequence[dict[str, Any]]) -> FirmwareMap | None:
    """Turn /sys/firmware/memmap back into a map; None if a type has no known number.

    Raises:
        ValueError: An entry has a range that cannot be.
    """
    found = []
    for entry in entries:
        kind = _SYSFS_TYPES.get(str(entry["type"]).lower())
        if kind is None:
            return None
        found.append(_entry(hexadecimal(str(entry["start"])), hexadecimal(str(entry["end"])), kind))
    return FirmwareMap(tuple(found), "sysfs") if found else None


def _entry(start: int, last: int, kind: int) -> E820Entry:
    if not start <= last < (1 << 64) - 1:
        raise ValueError(f"e820 has a range from {start:#x} to {last:#x}")
    return E820Entry(start, last + 1 - start, kind)
