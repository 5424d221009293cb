"""What is done once in each system, in the machine itself: its boot loader, its entries, its swap files, LUKS."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.lab.debian.build import SMALL, UUIDS
from tests.lab.errors import LabError
from tests.lab.machine import PATIENCE, Machine, Vm

MACHINES = {
    "grub": Machine(memory_mib=768, cpu="Skylake-Client,-hle,-rtm,+monitor,+la57"),
    "sdboot": Machine(memory_mib=768, firmware="ovmf", nvme_queues=2),
}
VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
COMMON = "console=ttyS0 nokaslr"
SWAP_FILE_MIB = 900
LUKS = "0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0005"
PASSPHRASE = "lab"  # noqa: S105 - of a disk that is thrown away
"""Of the swap that a session encrypts."""

GRUB_ENTRY = """menuentry '{name}' --id {name} {{
	search --no-floppy --fs-uuid --set=root {root}
	linux {kernel} {line}
{initrd}}}
"""


def ask(vm: Vm, line: str, seconds: float = 120, *, may_fail: bool = False) -> str:
    """Run a shell line as root in a Debian system and return its output.

    Raises:
        LabError: It did not end in time, or failed.
    """
    start = vm.order(f"{{ {line}\n}}; echo LAB done $?")
    done = vm.wait_for(r"LAB done (\d+)\n", seconds, start)
    output = vm.text[start : done.start()].strip()
    if done[1] != "0" and not may_fail:
        raise LabError(f"in the guest, {line!r} gives {done[1]}: {output[-300:]}")
    return output


def machine_of(
    kind: str, disk: Path, directory: Path, variables: Path | None, kernel: tuple[Path, Path, str] | None = None
) -> Vm:
    """Return the machine of a system.

    Args:
        kind: Which system.
        disk: Its disk, or an overlay.
        directory: Where sockets and the console's text go.
        variables: Of its firmware.
        kernel: Kernel, initramfs and command line, to go round the boot loader.
    """
    boot, initrd, line = kernel or (None, None, "")
    return Vm(MACHINES[kind], boot, initrd, line, disk, directory, variables=variables, log_items="cpu_reset")


def provision(place: Path, kind: str) -> None:
    """Have a system install its boot loader and its entries; its disk is changed, once."""
    mark = place / f"{kind}.provisioned"
    if mark.exists():
        return
    tree, disk, variables = place / f"{kind}.tree", place / f"{kind}.raw", None
    if kind == "sdboot":
        variables = place / f"{kind}.vars"
        shutil.copy(VARIABLES, variables)
    kernel = newest_kernel(tree)
    initrd = tree / f"boot/initrd.img-{kernel}"
    line = f"{COMMON} root=UUID={UUIDS[kind][1]} rw"
    with machine_of(kind, disk, place / "run", variables, (tree / f"boot/vmlinuz-{kernel}", initrd, line)) as vm:
        vm.wait_for(r"^LAB ready\n", 600)
        ask(vm, "PS2=; sed -i \"s/PS2=\\S* //; s/PS1=''/PS1='' PS2=''/\" ~/.profile; uname -r; cat /proc/swaps")
        if kind == "grub":
            grub(vm, tree)
        else:
            (place / "sdboot.menu").write_text(systemd_boot(vm, tree))
        ask(vm, "sync")
        vm.order("systemctl poweroff")
        wait_end(vm, 300)
    mark.touch()


def wait_end(vm: Vm, seconds: float) -> None:
    """Wait until a machine is off, taking in what it prints: it stops while nobody does.

    Raises:
        LabError: It stayed on.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while vm.process.poll() is None:
        vm.listen(0.5)
        if time.monotonic() > deadline:
            raise LabError(f"it does not end: {vm.text[-400:]}")


def releases(tree: Path) -> list[str]:
    """Return the releases of the kernels of a tree, oldest first."""
    found = [one.name for one in (tree / "lib/modules").iterdir()]
    return sorted(found, key=lambda one: [int(part) for part in one.split("+")[0].split("-")[0].split(".")])


def newest_kernel(tree: Path) -> str:
    """Return the release of the newest kernel of a tree."""
    return releases(tree)[-1]


def grub(vm: Vm, tree: Path) -> None:
    """Install GRUB as Debian does, with entries beside those that it makes itself."""
    root = UUIDS["grub"][1]
    ask(vm, f"dd if=/dev/zero of=/swapfile bs=1M count={SWAP_FILE_MIB} status=none; chmod 600 /swapfile", 300)
    ask(vm, "mkswap -q /swapfile; sync")
    offset = int(ask(vm, "filefrag -v /swapfile | awk '$1 == \"0:\" { print $4 + 0 }'").split()[-1])
    old, new = releases(tree)[0], releases(tree)[-1]
    settings = {
        "GRUB_CMDLINE_LINUX": COMMON,
        "GRUB_CMDLINE_LINUX_DEFAULT": "",
        "GRUB_DEFAULT": "saved",
        "GRUB_TIMEOUT": "1",
        "GRUB_TERMINAL": "console",
        "GRUB_DISABLE_OS_PROBER": "true",
    }
    for name, value in settings.items():
        ask(vm, f"sed -i '/^{name}=/d' /etc/default/grub; echo '{name}=\"{value}\"' >> /etc/default/grub")
    text = ""
    for name, kernel, more in entries(old, new, offset):
        line = f"root=UUID={root} ro {COMMON} {more}" if kernel != SMALL else more
        image = "/boot/lab/small" if kernel == SMALL else f"/boot/vmlinuz-{kernel}"
        initrd = "" if kernel == SMALL else f"\tinitrd /boot/initrd.img-{kernel}\n"
        text += GRUB_ENTRY.format(name=name, root=root, kernel=image, line=line, initrd=initrd)
    put(vm, "/etc/grub.d/40_custom", "#!/bin/sh\nexec tail -n +3 $0\n" + text, "755")
    ask(vm, "grub-install --target=i386-pc /dev/nvme0n1", 600)
    ask(vm, "update-grub", 600)
    ask(vm, "grub-set-default 0; cat /boot/grub/grubenv")


def entries(old: str, new: str, offset: int) -> list[tuple[str, str, str]]:
    """Return GRUB's further entries: name, kernel, and what is added to the command line."""
    root = UUIDS["grub"][1]
    return [
        ("no5lvl", new, "no5lvl"),
        ("noresume", new, "noresume"),
        ("elsewhere", new, "resume=/dev/nvme0n1p1"),
        ("nosmt", old, "nosmt"),
        ("file", new, f"resume=UUID={root} resume_offset={offset}"),
        ("file-wrong", new, f"resume=UUID={root} resume_offset={offset + 8}"),
        ("small-nosmt", SMALL, "console=ttyS0 nokaslr nosmt resume=/dev/nvme0n1p2 resumewait"),
        ("small", SMALL, "console=ttyS0 nokaslr resume=/dev/nvme0n1p2 resumewait"),
        ("inspect", new, "noresume systemd.swap=0"),
    ]


def put(vm: Vm, path: str, text: str, mode: str = "644") -> None:
    """Write a file in a guest."""
    ask(vm, f"cat > {path} <<'LAB END'\n{text}LAB END\nchmod {mode} {path}")


def systemd_boot(vm: Vm, tree: Path) -> str:
    """Install systemd-boot as Debian does, with entries beside those that kernel-install makes; the menu."""
    root = UUIDS["sdboot"][1]
    ask(vm, "findmnt /boot/efi && bootctl install", 300)
    old, new = releases(tree)[0], releases(tree)[-1]
    for release in (old, new):
        ask(vm, f"kernel-install add {release} /boot/vmlinuz-{release} /boot/initrd.img-{release}", 900)
    ask(vm, f"btrfs filesystem mkswapfile --size {SWAP_FILE_MIB}m /swapfile", 300)
    offset = int(ask(vm, "btrfs inspect-internal map-swapfile -r /swapfile").split()[-1])
    ask(vm, "ls -R /boot/efi/loader /boot/efi/EFI; cat /boot/efi/loader/entries/*")
    base = ask(vm, f"ls /boot/efi/loader/entries/*{new}.conf").split()[-1]
    for name, more in (
        ("file", f"resume=UUID={root} resume_offset={offset}"),
        ("file-wrong", f"resume=UUID={root} resume_offset={offset + 8}"),
        ("noresume", "noresume"),
        ("luks", f"rd.luks.name={LUKS}=cryptswap resume=/dev/mapper/cryptswap"),
        ("inspect", "noresume systemd.swap=0"),
    ):
        line = f"sed -e 's|^options.*|& {more}|' -e 's|^title.*|title {name}|' -e '/^sort-key/d' {base}"
        ask(vm, f"{line} > /boot/efi/loader/entries/a-{name}.conf")
    change = "s|^initrd.*|initrd /'$(cat /etc/machine-id)'/" + new + "/initrd-host|"
    line = f"sed -e '{change}' -e 's|^title.*|title host|' -e '/^sort-key/d' {base}"
    ask(vm, f"{line} > /boot/efi/loader/entries/a-host.conf; cat /boot/efi/loader/entries/a-host.conf")
    put(vm, "/boot/efi/loader/loader.conf", f"timeout 8\ndefault *{new}.conf\n")
    return ask(vm, "bootctl list --no-pager | sed -n 's/^ *id: //p'; sync", 120)
