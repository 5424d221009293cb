"""The swap that a system uses, as its files say: names, and nothing opened that is a device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hibercheck.data import dataclass
from hibercheck.host.entries import BootEntry
from hibercheck.host.tree import text_of

_PRIORITY = re.compile(r"(?:^|,)pri=(-?\d+)")


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap space.

    Attributes:
        name: A device, a file, or ``UUID=...`` as /etc/fstab has it.
        kind: ``partition`` or ``file``.
        size: Bytes; None where only /etc/fstab names it.
        used: Bytes in use, the same.
        priority: Its priority; None where the kernel gives one in the order of activation.
    """

    name: str
    kind: str
    size: int | None = None
    used: int | None = None
    priority: int | None = None


def active_swaps(root: Path, *, in_order: bool = False) -> tuple[Swap, ...]:
    """Return what /proc/swaps lists (Documentation/filesystems/proc.rst).

    Args:
        root: Where proc is.
        in_order: Whether to return them in the kernel's order, in which they were activated; else the highest priority
            comes first.
    """
    found = []
    for line in text_of(root / "proc/swaps", root).splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 5 and fields[-1].lstrip("-").isdigit() and fields[-3].isdigit() and fields[-2].isdigit():
            name = " ".join(fields[:-4]).replace("\\040", " ")
            size, used = int(fields[-3]) << 10, int(fields[-2]) << 10
            found.append(Swap(name, fields[-4], size, used, int(fields[-1])))
    return tuple(found if in_order else sorted(found, key=lambda one: -(one.priority or 0)))


def configured_swaps(root: Path) -> tuple[Swap, ...]:
    """Return what /etc/fstab lists (fstab(5), swapon(8))."""
    found = []
    for line in text_of(root / "etc/fstab", root).splitlines():
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith("#") and fields[2] == "swap":
            priority = _PRIORITY.search(fields[3] if len(fields) > 3 else "")
            name = fields[0].replace('"', "").replace("\\040", " ")
            file = name.startswith("/") and not name.startswith("/dev/")
            found.append(
                Swap(name, "file" if file else "partition", priority=int(priority.group(1)) if priority else None)
            )
    return tuple(found)


def swap_uuids(root: Path, entries: Iterable[BootEntry]) -> frozenset[str]:
    """Return the UUIDs of swap that /etc/fstab or an entry's ``resume=`` names."""
    names = [one.name for one in configured_swaps(root)]
    names += [name for entry in entries if (name := parameter(entry.command_line, "resume")) is not None]
    return frozenset(name[5:].lower() for name in names if name.upper().startswith("UUID="))


def parameter(command_line: str, name: str) -> str | None:
    """Return the last value of a parameter of a command line, or None."""
    found = re.findall(rf"(?:^|\s)\"?{re.escape(name)}=(\"[^\"]*\"|\S*)", command_line)
    return found[-1].strip('"') if found else None


def host_name(root: Path) -> str | None:
    """Return the system's name: the running kernel's, or /etc/hostname."""
    for place in ("proc/sys/kernel/hostname", "etc/hostname"):
        name = text_of(root / place, root).strip()
        if name and not name.startswith("#"):
            return name.splitlines()[0]
    return None
