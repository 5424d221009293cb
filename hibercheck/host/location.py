"""Where a hibernation would write its image, and where systemd says that one is.

The kernel takes the swap that /sys/power/resume and resume_offset name, else the first that is active
(swsusp_swap_check(), kernel/power/swap.c).  systemd, since version 255, looks for one that these name, else for the one
of the highest priority or with the most room, and sets them and the EFI variable HibernateLocation before it starts
(find_suitable_hibernation_device_full() and write_efi_hibernate_location(), src/shared/hibernate-util.c).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.host.devices import Device, device_of, mounted_from
from hibercheck.host.extents import swap_file_offset
from hibercheck.host.swap import Swap, active_swaps, configured_swaps
from hibercheck.host.tree import data_of, line_of, text_of

_VARIABLE = "sys/firmware/efi/efivars/HibernateLocation-8cf2644b-4b0b-428f-9387-6d876050dc67"
_RANDOM_KEYS = {"/dev/urandom", "/dev/random"}
_LEAST_HEADROOM = 4 << 20
"""PAGES_FOR_IO, 1024 pages, is kept free (kernel/power/power.h)."""


@dataclass(frozen=True, slots=True)
class HibernateLocation:
    """What systemd has written into the EFI variable of that name.

    Attributes:
        uuid: Of the file system or swap.
        offset: The swap file's, in pages.
        kernel: The release of the kernel that hibernated.
        system: ID of its os-release.
        image: IMAGE_ID of it.
    """

    uuid: str
    offset: int
    kernel: str | None = None
    system: str | None = None
    image: str | None = None


def hibernate_location(root: Path) -> HibernateLocation | None:
    """Read the EFI variable HibernateLocation; None where there is none, or one that systemd does not read."""
    data = data_of(root / _VARIABLE, root)
    if data is None:
        return None
    return parse_location(data[4:])  # efivarfs puts four bytes of attributes before the value


def parse_location(value: bytes) -> HibernateLocation | None:
    """Understand the variable's value: JSON in UTF-16."""
    try:
        found = json.loads(value.decode("utf-16-le").split("\0")[0])
        uuid, offset = str(found["uuid"]).lower(), found["offset"]
        if isinstance(offset, bool) or not isinstance(offset, int | str):
            return None
        names = ("kernelVersion", "osReleaseId", "osReleaseImageId")
        texts = [value if isinstance(value := found.get(name), str) else None for name in names]
        return HibernateLocation(uuid, int(offset), *texts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the image would be written.

    Attributes:
        swap: The swap; None where there is none.
        device: The block device that it is on; None where that is not known.
        names: What ``resume=`` may call that device, where only names are known (a system that does not run).
        offset: The page of the device that has the header; None where that is not known.
        problem: Why no image would be written, or could be read again: what is proved; or "".
        advice: What to do about it.
        doubts: What is not known of it, a line each.
    """

    swap: Swap | None
    device: Device | None = None
    names: frozenset[str] = frozenset()
    offset: int | None = None
    problem: str = ""
    advice: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The place in words."""
        if self.swap is None:
            return "nowhere"
        at = f" at page {self.offset}" if self.offset else ""
        return f"{self.swap.name}{at}"


def is_running(root: Path) -> bool:
    """Whether the system below a directory runs, and shows itself in proc."""
    return line_of(root / "proc/sys/kernel/osrelease", root) is not None


def target(root: Path, *, least: int = 0) -> Target:
    """Say where a hibernation would write its image.

    Args:
        root: ``/``, or where the system is.
        least: Bytes that the image will have at least.
    """
    return _of_running(root, least) if is_running(root) else _of_tables(root)


def _of_running(root: Path, least: int) -> Target:
    swaps = [one for one in active_swaps(root, in_order=True) if not _is_ram(one)]
    if not swaps:
        every = active_swaps(root)
        what = "the only active swap is in memory (zram)" if every else "no swap is active"
        return Target(None, problem=f"{what}: no image can be written", advice="make a swap partition or file; swapon")
    chosen, doubts, problem = _chosen(root, swaps)
    if chosen is None:
        return Target(None, problem=problem, advice="write the swap's device to /sys/power/resume, or swapon it")
    found = _placed(root, chosen)
    problem = _unreadable(root, chosen)
    advice = "give the swap a key that lasts (crypttab(5)), or hibernate to another" if problem else ""
    free = (chosen.size or 0) - (chosen.used or 0)
    if not problem and chosen.size is not None and free < least + _LEAST_HEADROOM:
        problem = (
            f"{chosen.name} has {free >> 20} MiB free, and what memory cannot give up takes {least >> 20} MiB: "
            "no image can be written"
        )
        advice = "make the swap larger"
    return Target(chosen, *found, problem, advice, tuple(doubts))


def _is_ram(swap: Swap) -> bool:
    return swap.name.startswith("/dev/zram")


def _chosen(root: Path, swaps: list[Swap]) -> tuple[Swap | None, list[str], str]:
    """Return the swap that will be taken, what is doubtful of that, and why there is none."""
    resume = line_of(root / "sys/power/resume", root) or ""
    if resume and resume != "0:0":
        offset = line_of(root / "sys/power/resume_offset", root) or "0"
        for one in swaps:
            device, _, own = _placed(root, one)
            if device is not None and device.number == resume and (own is None or str(own) == offset):
                return one, [], ""
        known = all(_placed(root, one)[0] is not None for one in swaps)
        if known:
            where = f"{resume}, page {offset}" if offset != "0" else resume
            return None, [], f"/sys/power/resume names {where}, which is not an active swap: no image can be written"
        return swaps[0], ["which swap /sys/power/resume names could not be told"], ""
    best = swaps[0]
    for one in swaps[1:]:
        room = (one.size or 0) - (one.used or 0) > (best.size or 0) - (best.used or 0)
        if (one.priority or 0) > (best.priority or 0) or room:
            best = one
    doubts = []
    if (line_of(root / "sys/power/resume_offset", root) or "0") != "0":
        doubts.append("systemd does not hibernate while /sys/power/resume_offset is set and /sys/power/resume is not")
    if "noresume" in text_of(root / "proc/cmdline", root).split():
        doubts.append("systemd does not hibernate while the running kernel's command line has noresume")
    if best != swaps[0]:
        doubts.append(
            f"systemd takes {best.name}; a write of 'disk' to /sys/power/state takes {swaps[0].name}, the first swap"
        )
    return best, doubts, ""


def _placed(root: Path, swap: Swap) -> tuple[Device | None, frozenset[str], int | None]:
    """Return the device of a swap on a running system, and the page of its header."""
    if swap.kind != "file":
        return device_of(swap.name, root), frozenset({swap.name}), 0
    mounted = mounted_from(swap.name, root)
    device = None if mounted is None else device_of(mounted[0], root)
    start = swap_file_offset(root / swap.name.lstrip("/"), root)
    return device, frozenset(), None if start is None else start // PAGE_SIZE


def _unreadable(root: Path, swap: Swap) -> str:
    """Say why the swap's contents would not be there after a boot: a key that is made anew each time."""
    name = swap.name.removeprefix("/dev/mapper/")
    device = None if not is_running(root) else device_of(swap.name, root)
    for line in text_of(root / "etc/crypttab", root).splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        same = fields[0] == name and swap.name != name
        if not same and device is not None:
            mapped = device_of(f"/dev/mapper/{fields[0]}", root)
            same = mapped is not None and mapped.number == device.number
        if same and fields[2] in _RANDOM_KEYS:
            return f"{swap.name} is encrypted with a new key at each boot (crypttab): no image outlives it"
    return ""


def _of_tables(root: Path) -> Target:
    """Say what /etc/fstab lets expect of a system that does not run."""
    swaps = [one for one in configured_swaps(root) if not _is_ram(one)]
    if not swaps:
        doubt = "/etc/fstab has no swap; systemd may find one by its partition type, and the kernel by resume="
        return Target(None, doubts=(doubt,))
    best = max(swaps, key=lambda one: one.priority or -1)
    doubts = [] if len(swaps) == 1 else [f"/etc/fstab has {len(swaps)} swaps, of which {best.name} is taken"]
    problem = _unreadable(root, best)
    advice = "give the swap a key that lasts (crypttab(5)), or hibernate to another" if problem else ""
    if best.kind == "file":
        start = swap_file_offset(root / best.name.lstrip("/"), root)
        offset = None if start is None else start // PAGE_SIZE
        return Target(best, None, _file_system_names(root), offset, problem, advice, tuple(doubts))
    return Target(best, None, frozenset({best.name}), 0, problem, advice, tuple(doubts))


def _file_system_names(root: Path) -> frozenset[str]:
    """Return what /etc/fstab calls the root file system, on which a swap file mostly is."""
    rows = (line.split() for line in text_of(root / "etc/fstab", root).splitlines())
    return frozenset(fields[0] for fields in rows if len(fields) > 2 and fields[1] == "/" and fields[0][0] != "#")


def memory_in_use(root: Path) -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    rows = re.findall(r"^(\S+):\s+(\d{1,15}) kB$", text_of(root / "proc/meminfo", root), re.MULTILINE)
    return {name: int(value) << 10 for name, value in rows}


def least_image(root: Path) -> int:
    """Return the bytes that an image has at least: what the kernel can neither drop nor swap out.

    minimum_image_size() (kernel/power/snapshot.c) leaves out what is reclaimable; of what /proc/meminfo shows, this
    is certainly not.
    """
    found = memory_in_use(root)
    return sum(found.get(name, 0) for name in ("SUnreclaim", "KernelStack", "PageTables", "Unevictable"))
