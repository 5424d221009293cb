"""Block devices of a running system by the names that command lines and tables give them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from hibercheck.data import dataclass
from hibercheck.host.tree import inside, is_there, line_of, listed, text_of

_BY = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel", "ID": "by-id"}
_PLAIN = re.compile(r"[A-Za-z0-9#+\-.:=@_]")
_NUMBER = re.compile(r"\d{1,7}:\d{1,7}")
_MOST_DEVICES = 64


@dataclass(frozen=True, slots=True)
class Device:
    """A block device.

    Attributes:
        number: ``major:minor``.
        name: As sysfs has it: ``nvme0n1p3``, ``dm-1``.
    """

    number: str
    name: str


def device_of(name: str, root: Path) -> Device | None:
    """Return the device that a name means on a running system; None where it means none.

    Args:
        name: ``/dev/...``, ``UUID=...`` and the like, or ``major:minor``.
        root: Where proc, sys and dev are.
    """
    if _NUMBER.fullmatch(name):
        return _numbered(name, root)
    kind, equals, value = name.partition("=")
    path = PurePosixPath(name)
    if equals and kind.upper() in _BY:
        path = PurePosixPath("/dev/disk", _BY[kind.upper()], _encoded(value, kind.upper()))
    if not path.is_absolute() or path.parts[1:2] != ("dev",) or ".." in path.parts:
        return None
    place = root / str(path).lstrip("/")
    try:
        if not is_there(place, root):
            return None
        own = inside(place, root).name
    except (OSError, ValueError):
        return None
    number = line_of(root / "sys/class/block" / own / "dev", root)
    return Device(number, own) if number is not None and _NUMBER.fullmatch(number) else None


def _numbered(number: str, root: Path) -> Device | None:
    for line in text_of(root / "sys/dev/block" / number / "uevent", root).splitlines():
        if line.startswith("DEVNAME="):
            return Device(number, line.removeprefix("DEVNAME="))
    return None


def _encoded(value: str, kind: str) -> str:
    """Write a name as udev does in its links (encode_devnode_name()); UUIDs of file systems are in lower case."""
    value = value.strip('"')
    if kind in {"UUID", "PARTUUID"}:
        value = value.lower()
    return "".join(
        one if _PLAIN.match(one) or not one.isascii() else "".join(f"\\x{byte:02x}" for byte in one.encode())
        for one in value
    )


def mounted_from(path: str, root: Path) -> tuple[str, str] | None:
    """Return the source and the type of the file system that a file is on, by /proc/self/mountinfo.

    Args:
        path: The file, as the system itself calls it.
        root: Where proc is.
    """
    best: tuple[int, str, str] | None = None
    for line in text_of(root / "proc/self/mountinfo", root).splitlines():
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kinds) < 2:
            continue
        point = _unescaped(fields[4])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and (best is None or len(point) >= best[0]):
            best = (len(point), _unescaped(kinds[1]), kinds[0])
    return None if best is None else best[1:]


@dataclass(frozen=True, slots=True)
class Encrypted:
    """An encrypted device that is open.

    Attributes:
        name: What it is called in /dev/mapper.
        uuid: The UUID of its LUKS header, in hexadecimal digits; "" where it has none.
    """

    name: str
    uuid: str


def encrypted_below(name: str, root: Path) -> tuple[Encrypted, ...]:
    """Return what is encrypted of a device and of those that it is made of (dm-crypt), as a running system shows it.

    Args:
        name: As sysfs has it: ``dm-1``.
        root: Where sys is.
    """
    found: dict[str, Encrypted | None] = {}
    todo = [name]
    while todo and len(found) < _MOST_DEVICES:
        one = todo.pop()
        if one in found:
            continue
        place = root / "sys/class/block" / one
        # "CRYPT-LUKS2-UUID-NAME" or "CRYPT-PLAIN-NAME" (crypt_format_uuid(), libcryptsetup); else another device's
        kind = (line_of(place / "dm/uuid", root) or "").split("-")
        uuid = kind[2] if kind[0] == "CRYPT" and len(kind) > 3 and kind[1].startswith("LUKS") else ""
        found[one] = Encrypted(line_of(place / "dm/name", root) or one, uuid) if kind[0] == "CRYPT" else None
        todo += [path.name for path in listed(place / "slaves", "*", root)]
    return tuple(one for one in found.values() if one is not None)


def disk_of(point: Path) -> str | None:
    """Return the disk of this machine that what is mounted at a point lies on, or the file that a loop device shows.

    None where that cannot be told, or where a device lies between (LUKS, LVM, RAID).
    """
    root = Path("/")
    mounted = mounted_from(str(point), root)
    device = None if mounted is None else device_of(mounted[0], root)
    if device is None:
        return None
    place = inside(root / "sys/class/block" / device.name, root)
    is_part = is_there(place / "partition", root)
    place = place.parent if is_part else place
    behind = line_of(place / "loop/backing_file", root)
    if behind is not None:
        return behind if is_there(Path(behind), root) else None
    return f"/dev/{place.name}" if is_part else None


def _unescaped(text: str) -> str:
    """Undo the octal escapes of procfs (seq_escape())."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
