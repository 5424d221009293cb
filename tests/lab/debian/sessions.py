"""The sessions that hibernate, and the boot entries that are then started to resume them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.debian.provision import LUKS, PASSPHRASE


@dataclass(frozen=True, slots=True)
class Session:
    """One hibernation.

    Attributes:
        name: Its name in the record.
        kind: The system.
        entry: The entry that is started to have the session, by what it is called in `Start`.
        prepare: What is done in it before it hibernates, in shell lines.
        starts: The entries that are then started, each on a copy of the disk.
        outside: What tells `preflight --root` of the session that a system that does not run cannot show.
        unit: Whether the systemd unit is tried before: with an entry that would lose the session made the default.
        declines: Whether it is not to hibernate at all.
        alone: Whether the image is read by `hibercheck DEVICE` alone, and by the full command.
    """

    name: str
    kind: str
    entry: str
    starts: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    unit: str = ""
    alone: bool = False
    declines: bool = False


TO_FILE = (
    "swapoff -a && swapon /swapfile",
    r"sed -i -e '/ swap /d' /etc/fstab; echo '/swapfile none swap sw 0 0' >> /etc/fstab",
)
"""Hibernate to the swap file, and have /etc/fstab say so."""
TO_LUKS = (
    "swapoff -a; wipefs -q -a /dev/nvme0n1p2",
    f"printf {PASSPHRASE} > /run/key; cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 "
    f"--pbkdf-force-iterations 1000 --uuid {LUKS} /dev/nvme0n1p2 /run/key",
    "cryptsetup open --key-file /run/key /dev/nvme0n1p2 cryptswap && mkswap -q /dev/mapper/cryptswap",
    "udevadm settle; swapon /dev/mapper/cryptswap",
    r"sed -i -e '/ swap /d' /etc/fstab; echo '/dev/mapper/cryptswap none swap sw,nofail 0 0' >> /etc/fstab",
    f"echo 'cryptswap UUID={LUKS} none luks,noauto' > /etc/crypttab",
)
"""Encrypt the swap partition, and hibernate to it."""
OF_HOST = (
    "mkdir -p /srv/own/usr/lib; cp /usr/lib/os-release /srv/own/usr/lib/initrd-release",
    "dracut -q -f --include /srv/own / /srv/initrd $(uname -r)",
    "cp /srv/initrd /boot/efi/$(cat /etc/machine-id)/$(uname -r)/initrd-host; sync",
)
"""Give `host` an initramfs whose os-release is the system's: dracut 106 gives all that it makes ID=dracut.

Debian's wrapper of dracut puts it into the default entry as well.
"""
SESSIONS = (
    Session(
        "grub-new",
        "grub",
        "new",
        ("new", "old", "no5lvl", "noresume", "elsewhere", "file", "small"),
        unit="no5lvl",
    ),
    Session("grub-old", "grub", "old", ("new", "old", "nosmt", "small-nosmt", "small"), outside=("OLD",), alone=True),
    Session("grub-file", "grub", "file", ("new", "file", "file-wrong"), prepare=TO_FILE),
    Session("grub-lost", "grub", "new", (), prepare=TO_FILE, declines=True),
    Session("sdboot-new", "sdboot", "new", ("new", "host", "old", "noresume"), prepare=OF_HOST),
    Session("sdboot-file", "sdboot", "new", ("new", "file", "file-wrong"), prepare=TO_FILE),
    Session("sdboot-luks", "sdboot", "new", ("luks", "new"), prepare=TO_LUKS),
)
"""Entries are called `new` and `old` where the boot loader's own tools made them, else as `provision` calls them."""
