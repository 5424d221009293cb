"""Two Debian systems on disks of their own: one that GRUB starts, one that systemd-boot starts.

debootstrap and apt fill a tree, in which everything is installed that a user would install; the disks are made of it
without mounting anything.  The boot loaders install themselves in the machine (`tests.lab.debian.provision`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.errors import LabError

ROOT = Path(__file__).resolve().parents[3]
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
BASE = (
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "python3", "zstd", "util-linux", "cryptsetup-bin"),
    *("procps", "e2fsprogs", "dosfstools", "less"),
)
MORE = {
    "grub": ("initramfs-tools", "grub-pc"),
    "sdboot": ("dracut", "systemd-boot", "systemd-cryptsetup", "btrfs-progs"),
}
"""What makes a system's initramfs and starts it."""
OLD, NEW = r"linux-image-6\.1\.0-\d+-cloud-amd64", r"linux-image-6\.12\.[^ ]*-cloud-amd64"
SOURCES = """deb {mirror} trixie main
deb {mirror} trixie-updates main
deb {mirror}-security trixie-security main
deb {mirror} bookworm main
deb {mirror}-security bookworm-security main
"""
MIB = 1 << 20
PARTITIONS = {
    "grub": (("21686148-6449-6E6F-744E-656564454649", 2), ("swap", 1024), ("linux", 3072)),
    "sdboot": (("uefi", 512), ("swap", 1024), ("linux", 3072)),
}
"""Type and MiB of each partition, in their order; the first begins at 1 MiB."""
SMALL = "small-hlt"
"""A kernel of fixtures/ that leaves its sibling in MWAIT when it resumes."""
UUIDS = {
    "grub": ("0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0001", "0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0002"),
    "sdboot": ("0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0003", "0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0004"),
}
"""Of the swap partition and of the root file system."""
IDLE = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer"),
    *(
        "e2scrub_reap.service",
        "ldconfig.service",
        "systemd-journal-catalog-update.service",
        "systemd-hwdb-update.service",
    ),
    *("systemd-update-done.service", "systemd-tmpfiles-clean.timer", "getty@tty1.service"),
)
"""What a system does by itself, and these need not: emulated, each takes seconds to minutes."""
LOGIN = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I dumb\n"


def run(*words: str | Path, text: str | None = None) -> str:
    """Run a program and return what it prints.

    Raises:
        LabError: It failed.
    """
    done = subprocess.run([str(one) for one in words], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{words[0]} {words[1] if len(words) > 1 else ''}: {done.stderr.strip()[-400:]}")
    return done.stdout


def build(place: Path, *, base: Path | None = None) -> None:
    """Make `grub.tree`, `sdboot.tree` and a disk of each, what is there already left alone.

    Args:
        place: The directory; 6 GB.
        base: What debootstrap made, to begin with.

    Raises:
        LabError: A program failed.
    """
    place.mkdir(parents=True, exist_ok=True)
    tree = base or place / "tree"
    if not (tree / "etc/debian_version").exists():
        words = ["debootstrap", "--arch=amd64", "--variant=minbase", f"--keyring={KEYS}", f"--include={','.join(BASE)}"]
        run(*words, SUITE, tree, MIRROR)
    wheel = make_wheel(place)
    for kind in MORE:
        own = place / f"{kind}.tree"
        if not (own / "done").exists():
            shutil.rmtree(own, ignore_errors=True)
            run("cp", "-a", tree, own)
            fill(own, kind, wheel)
            (own / "done").touch()
        make_disk(place, kind)


def make_wheel(place: Path) -> Path:
    """Build the wheel of this checkout."""
    (place / "wheel").mkdir(exist_ok=True)
    run("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", place / "wheel", ROOT)
    return max((place / "wheel").glob("*.whl"), key=lambda one: one.stat().st_mtime)


@contextmanager
def mounted(tree: Path) -> Iterator[None]:
    """Give a tree its proc, sys and devices."""
    for name in ("proc", "sys", "dev"):
        run("mount", "--rbind", f"/{name}", tree / name)
        run("mount", "--make-rslave", tree / name)
    try:
        yield
    finally:
        for name in ("dev", "sys", "proc"):
            subprocess.run(["umount", "-R", "-l", tree / name], check=False)


def fill(tree: Path, kind: str, wheel: Path) -> None:
    """Install kernels, initramfs, boot loader and hibercheck in a tree, and configure it."""
    (tree / "etc/apt/sources.list").write_text(SOURCES.format(mirror=MIRROR))
    (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (tree / "usr/sbin/policy-rc.d").chmod(0o755)
    swap, root = UUIDS[kind]
    table = f"UUID={root} / {'ext4' if kind == 'grub' else 'btrfs'} defaults 0 1\nUUID={swap} none swap sw 0 0\n"
    if kind == "sdboot":
        table += "LABEL=ESP /boot/efi vfat umask=0077 0 2\n"
        (tree / "boot/efi").mkdir(parents=True, exist_ok=True)
        (tree / "etc/kernel").mkdir(exist_ok=True)
        (tree / "etc/kernel/cmdline").write_text(f"root=UUID={root} rw console=ttyS0 nokaslr\n")
        (tree / "etc/dracut.conf.d").mkdir(parents=True, exist_ok=True)
        (tree / "etc/dracut.conf.d/lab.conf").write_text(
            'hostonly="no"\nadd_dracutmodules+=" resume systemd systemd-cryptsetup "\nomit_drivers+=" ahci libahci "\n'
        )
    else:
        (tree / "etc/initramfs-tools/conf.d").mkdir(parents=True, exist_ok=True)
        (tree / "etc/initramfs-tools/conf.d/resume").write_text(f"RESUME=UUID={swap}\n")
        (tree / "etc/initramfs-tools/conf.d/few").write_text("MODULES=list\n")  # a boot with all takes a minute longer
        (tree / "etc/initramfs-tools/modules").write_text("ext4\nnvme\n")
    (tree / "etc/fstab").write_text(table)
    (tree / "etc/hostname").write_text(f"{kind}\n")
    with mounted(tree):
        inside = ["chroot", tree, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
        install = [*inside, "apt-get", "install", "-y", "--no-install-recommends"]
        run(*inside, "apt-get", "update")
        kernels = [newest(run(*inside, "apt-cache", "pkgnames", "linux-image-6.1"), one) for one in (OLD, NEW)]
        run(*install, *MORE[kind], *kernels)
        run(*inside, "apt-get", "clean")
    login = tree / "etc/systemd/system/serial-getty@ttyS0.service.d/override.conf"
    login.parent.mkdir(parents=True)
    login.write_text(LOGIN)
    (tree / "root/.profile").write_text(
        "export PS1='' PS2='' TERM=dumb PAGER=cat\nstty -echo cols 400\necho LAB ready\n"
    )
    for name in IDLE:
        (tree / "etc/systemd/system" / name).symlink_to("/dev/null")
    wanted = tree / "etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
    wanted.parent.mkdir(exist_ok=True)
    wanted.symlink_to("/usr/lib/systemd/system/serial-getty@.service")
    put_hibercheck(tree, wheel)


def newest(names: str, pattern: str) -> str:
    """Return the newest package of those that apt knows.

    Raises:
        LabError: There is none.
    """
    found = [one for one in names.split() if re.fullmatch(pattern, one)]
    if not found:
        raise LabError(f"apt has no {pattern}")
    return max(found, key=lambda one: [int(part) for part in re.findall(r"\d+", one)])


def put_hibercheck(tree: Path, wheel: Path) -> None:
    """Install the wheel with all that it needs, and the examples of the manual."""
    words = ["python", "-m", "pip", "install", "--quiet", "--target", tree / "opt/hibercheck", "--upgrade"]
    kind = ["--only-binary=:all:", "--python-version", "3.13", "--platform", "manylinux_2_28_x86_64"]
    run(*words, *kind, "--platform", "manylinux2014_x86_64", wheel)
    program = tree / "usr/local/bin/hibercheck"
    program.write_text('#!/bin/sh\nPYTHONPATH=/opt/hibercheck exec python3 -m hibercheck "$@"\n')
    program.chmod(0o755)
    examples, script = ROOT / "man/examples", tree / "usr/local/libexec/hibercheck-preflight"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(examples / "hibercheck-preflight.sh", script)
    script.chmod(0o755)
    shutil.copy(examples / "hibercheck-preflight.service", tree / "srv")
    (tree / "boot/lab").mkdir(exist_ok=True)  # where update-grub does not look: it would be the default
    shutil.copy(ROOT / f"fixtures/kernels/{SMALL}.bzImage", tree / "boot/lab/small")


def make_disk(place: Path, kind: str) -> None:
    """Make a sparse disk of a tree: partition table, swap, root file system, and an empty ESP where there is one."""
    disk = place / f"{kind}.raw"
    if disk.exists():
        return
    part = place / f"{kind}.part"
    part.unlink(missing_ok=True)
    starts, at = [], 1
    for _, size in PARTITIONS[kind]:
        starts.append(at)
        at += size
    with part.open("wb") as file:
        file.truncate((at + 1) * MIB)
    rows = (f"{start}MiB {size}MiB {what}" for start, (what, size) in zip(starts, PARTITIONS[kind], strict=True))
    table = "label: gpt\n" + "".join("start={}, size={}, type={}\n".format(*row.split()) for row in rows)
    run("sfdisk", "--quiet", part, text=table)
    swap, root = UUIDS[kind]
    piece = place / f"{kind}.piece"
    for number, make in ((2, ("ext4" if kind == "grub" else "btrfs",)), (1, ("swap",)), (0, ("vfat",))):
        if make == ("vfat",) and kind == "grub":
            continue
        piece.unlink(missing_ok=True)
        with piece.open("wb") as file:
            file.truncate(PARTITIONS[kind][number][1] * MIB)
        if make == ("ext4",):
            run("mkfs.ext4", "-q", "-U", root, "-d", place / f"{kind}.tree", piece)
        elif make == ("btrfs",):
            run("mkfs.btrfs", "-q", "-U", root, "--rootdir", place / f"{kind}.tree", piece)
        elif make == ("swap",):
            run("mkswap", "-q", "-U", swap, piece)
        else:
            run("mkfs.vfat", "-n", "ESP", piece)
        run("dd", f"if={piece}", f"of={part}", "bs=1M", f"seek={starts[number]}", "conv=notrunc,sparse", "status=none")
    piece.unlink(missing_ok=True)
    part.rename(disk)
