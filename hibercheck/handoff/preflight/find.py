"""Whether a boot entry would look for the image where it will be."""

from __future__ import annotations

import re
from pathlib import Path

from hibercheck.data import dataclass
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.preflight.answers import NOT_ASKED, Answer, Step
from hibercheck.handoff.preflight.parts import same_partition
from hibercheck.host.devices import Encrypted, device_of, encrypted_below
from hibercheck.host.entries import BootEntry, is_systemd_boot
from hibercheck.host.initramfs import DRACUT, MKINITCPIO, SYSTEMD, TOOLS, Initramfs, system_of
from hibercheck.host.location import Target
from hibercheck.host.tree import is_there, text_of

_BY_KERNEL = re.compile(r"/dev/(?!mapper/|disk/)|PARTUUID=|PARTLABEL=|\d+:\d+$|[0-9a-f]+$", re.IGNORECASE)
"""What the kernel itself understands of ``resume=`` (early_lookup_bdev(), block/early-lookup.c); UUIDs and labels of
file systems, and links that udev makes, only user space."""
_RESUMES_BY_LINE = {DRACUT, MKINITCPIO, SYSTEMD, TOOLS}
_NO_DEFAULT = {"", "none", "auto"}


@dataclass(frozen=True, slots=True)
class Looked:
    """Where an entry looks.

    Attributes:
        device: As ``resume=`` or the initramfs names it.
        offset: The page.
        source: What says so.
    """

    device: str
    offset: int
    source: str


def would_find(entry: BootEntry, line: CommandLine, initramfs: Initramfs, target: Target, root: Path) -> Step:
    """Answer for one entry.

    Args:
        entry: The entry.
        line: Its command line, as its kernel takes it.
        initramfs: What its initramfs has.
        target: Where the image will be.
        root: Where the system is.
    """
    if target.problem:
        return Step(Answer.NO, target.problem, target.advice)
    doubt = target.doubts[0] if target.swap is None and target.doubts else ""
    if doubt:
        return Step(Answer.UNKNOWN, doubt, "name the swap in /etc/fstab, or run this on the system itself")
    if line.no_resume is not None or line.no_hibernation is not None:
        return NOT_ASKED  # it does not load it, wherever it is
    if line.resume is not None:
        looked = Looked(line.resume, line.resume_offset or 0, "resume=")
        found = _starts(entry, initramfs, looked) or _compared(looked, target, root)
    else:
        found = _without_parameter(entry, line, initramfs, target, root)
    return (_locked(entry, initramfs, target, root) or found) if found.answer is Answer.YES else found


def _locked(entry: BootEntry, initramfs: Initramfs, target: Target, root: Path) -> Step | None:
    """Say that nothing is known to open the encrypted device that the image will be in; None where something does.

    By crypttab in the initramfs, by ``rd.luks.`` and the like, ``cryptdevice=`` or ``rd.auto`` on the command line.
    """
    words = f"{entry.command_line}\n{initramfs.opens}"
    if re.search(r"(?:^|\s)rd\.auto(?:=1)?(?:\s|$)", words):
        return None
    plain = words.replace("-", "").lower()
    for one in _encrypted(target, root):
        named = re.search(rf"(?:^|[\s=:,]){re.escape(one.name)}(?:[\s:,]|$)", words) is not None
        if named or (one.uuid and one.uuid.lower() in plain):
            continue
        what = f"{one.name}, which the image will be in, is encrypted, and nothing was found that opens it: "
        why = initramfs.problem or "no line of its initramfs's crypttab and no parameter of the entry names it"
        add = f"rd.luks.name={one.uuid or 'UUID'}={one.name}"
        return Step(Answer.UNKNOWN, f"{what}{why}", f"put it into the initramfs's crypttab (crypttab(5)), or add {add}")
    return None


def _encrypted(target: Target, root: Path) -> tuple[Encrypted, ...]:
    """Return what is encrypted of the device that the image will be in: by sysfs, else by name in /etc/crypttab."""
    if target.device is not None:
        return encrypted_below(target.device.name, root)
    rows = (line.split() for line in text_of(root / "etc/crypttab", root).splitlines())
    return tuple(
        Encrypted(fields[0], fields[1].partition("UUID=")[2].replace("-", ""))
        for fields in rows
        if len(fields) > 1 and f"/dev/mapper/{fields[0]}" in target.names
    )


def _starts(entry: BootEntry, initramfs: Initramfs, looked: Looked) -> Step | None:
    """Say why nothing would look at the device of ``resume=``; None where something does."""
    own = _BY_KERNEL.match(looked.device) is not None
    if not entry.initramfs:
        if own:
            return None
        text = f"the kernel does not understand resume={looked.device}, and the entry has no initramfs that would"
        return Step(Answer.NO, text, "write resume=PARTUUID=... or add an initramfs")
    if initramfs.programs & _RESUMES_BY_LINE:
        return None
    if initramfs.problem:
        return Step(Answer.UNKNOWN, f"its initramfs: {initramfs.problem}", "run this as root")
    why = "the kernel may, if the disk's driver is built in" if own else f"resume={looked.device} needs such a program"
    return Step(
        Answer.UNKNOWN,
        f"its initramfs has nothing that is known to resume; {why}",
        "add the resume module or hook to the initramfs",
    )


def _without_parameter(entry: BootEntry, line: CommandLine, initramfs: Initramfs, target: Target, root: Path) -> Step:
    add = f"add {_parameters(target)} to the entry's command line"
    if not entry.initramfs:
        text = "nothing tells the kernel where to look: there is no resume= and no initramfs"
        return Step(Answer.NO, text, add)
    if TOOLS in initramfs.programs and initramfs.default.lower() not in _NO_DEFAULT:
        looked = Looked(initramfs.default, line.resume_offset or 0, "RESUME= in its initramfs")
        return _compared(looked, target, root)
    if initramfs.problem:
        return Step(Answer.UNKNOWN, f"its initramfs: {initramfs.problem}", "run this as root")
    if SYSTEMD in initramfs.programs:
        if line.resume_offset is not None:
            return Step(Answer.NO, "resume_offset= is given without resume=, which systemd refuses", add)
        other = _another_system(initramfs, add, root)
        if other is not None:
            return other
        mounted = not is_there(root / "sys/firmware", root)
        if is_there(root / "sys/firmware/efi/efivars", root) or (mounted and is_systemd_boot(root)):
            text = "systemd in its initramfs obeys the EFI variable that `systemctl hibernate` writes"
            return Step(Answer.YES, text)
        if is_there(root / "sys/firmware", root):
            text = "there is no resume=, and without UEFI systemd cannot tell its initramfs where the image is"
            return Step(Answer.NO, text, add)
        return Step(Answer.UNKNOWN, "there is no resume=; under UEFI systemd tells where the image is", add)
    if initramfs.programs:
        text = "its initramfs resumes from the device of resume= only, and there is none"
        return Step(Answer.NO, text, add)
    return Step(Answer.UNKNOWN, "there is no resume=, and its initramfs has nothing that is known to resume", add)


def _another_system(initramfs: Initramfs, add: str, root: Path) -> Step | None:
    """Say that systemd does not obey HibernateLocation, which another system wrote than the initramfs is of.

    It compares ID and IMAGE_ID of os-release(5) (validate_efi_hibernate_location(), src/hibernate-resume); dracut 106
    gives each initramfs that it makes an ID of its own (modules.d/99base).
    """
    own = system_of(text_of(root / "etc/os-release", root) or text_of(root / "usr/lib/os-release", root))
    if initramfs.system is None or not own[0]:
        return None
    for name, here, there in zip(("ID", "IMAGE_ID"), own, initramfs.system, strict=True):
        if here != there:
            text = (
                "there is no resume=, and systemd in its initramfs obeys an EFI variable only if that was written by a "
                f"system of its own {name}: it has {there or 'none'} (os-release), and the system {here or 'none'}"
            )
            return Step(Answer.NO, text, add)
    return None


def _parameters(target: Target) -> str:
    """Return what would make an entry look where the image is, as far as that is known."""
    device = next(iter(sorted(target.names)), None) or "UUID=..."
    if target.offset == 0:
        return f"resume={device}"
    return f"resume={device} resume_offset={'...' if target.offset is None else target.offset}"


def _compared(looked: Looked, target: Target, root: Path) -> Step:
    """Hold where an entry looks against where the image will be."""
    same, why = _same_device(looked, target, root)
    at = f"the image will be in {target.where}"
    if same is False:
        advice = f"make it {_parameters(target)}"
        return Step(Answer.NO, f"it looks at {looked.device} ({looked.source}){why}, and {at}", advice)
    if same is None:
        text = f"whether {looked.device} ({looked.source}) is where the image will be cannot be told{why}"
        return Step(Answer.UNKNOWN, text, "run this as root on the system itself")
    if target.offset is None:
        text = f"where on its device {target.where} begins cannot be told"
        return Step(Answer.UNKNOWN, text, "run this as root on the system itself")
    if looked.offset != target.offset:
        given = f"page {looked.offset}" + ("" if looked.offset else ", for want of resume_offset=")
        advice = f"make it resume_offset={target.offset}" if target.offset else "leave out resume_offset="
        there = at if target.offset else f"{at} at page 0"
        return Step(Answer.NO, f"it looks at {given}, and {there}", advice)
    return Step(Answer.YES, f"it looks at {looked.device} ({looked.source}), where the image will be")


def _same_device(looked: Looked, target: Target, root: Path) -> tuple[bool | None, str]:
    if target.device is not None:
        if "/" in looked.device.partition("=")[2]:
            return None, " (a part number of a disk)"
        found = device_of(looked.device, root)
        if found is None:
            return False, ", which names no device of this machine"
        return found.number == target.device.number, ""
    ours, theirs = _plain(looked.device), {_plain(name) for name in target.names}
    if ours in theirs:
        return True, ""
    alike = ours.partition("=")[0] in {name.partition("=")[0] for name in theirs if "=" in name}
    return (False, "") if alike and "=" in ours else same_partition(looked.device, target.names, root)


def _plain(name: str) -> str:
    """Write the names of one device in one way."""
    for kind, place in (("UUID", "by-uuid"), ("LABEL", "by-label"), ("PARTUUID", "by-partuuid")):
        if name.startswith(f"/dev/disk/{place}/"):
            name = f"{kind}={name.rpartition('/')[2]}"
    kind, equals, value = name.partition("=")
    if equals and kind.upper() in {"UUID", "PARTUUID"}:
        return f"{kind.upper()}={value.lower()}"
    return name
