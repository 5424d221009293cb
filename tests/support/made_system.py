"""Systems made of files: boot entries, tables, and the proc and sys of a machine that runs one of their kernels."""

from __future__ import annotations

import functools
import io
import shutil
import struct
from pathlib import Path

from hibercheck.kernel.kernel import open_kernel

FLAGS = "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat clflush mmx fxsr sse sse2 ht syscall nx lm monitor"
BUGS = "spectre_v1"


def write(root: Path, name: str, content: str | bytes = "") -> Path:
    """Write one file of a system."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


def link(root: Path, name: str, target: str) -> None:
    """Make one link of a system."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def cpio(files: dict[str, bytes]) -> bytes:
    """Return a cpio archive in the newc format."""
    out = io.BytesIO()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        text = name.encode() + b"\0"
        fields = (number, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(text), 0)
        out.write(b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + text)
        out.write(bytes(-out.tell() % 4) + content)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def grub(root: Path, entries: list[tuple[str, str, str, str]], default: str = "0") -> None:
    """Write a grub.cfg.

    Args:
        root: The system.
        entries: (title, kernel, command line, initramfs or "").
        default: Which is started.
    """
    menu = [f'set default="{default}"']
    for title, kernel, line, initramfs in entries:
        body = f"\tlinux {kernel} {line}\n" + (f"\tinitrd {initramfs}\n" if initramfs else "")
        menu.append(f"menuentry '{title}' {{\n{body}}}")
    write(root, "boot/grub/grub.cfg", "\n".join(menu) + "\n")


def kernel(root: Path, source: Path, release: str) -> None:
    """Install a kernel's file."""
    (root / "boot").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, root / f"boot/vmlinuz-{release}")


@functools.cache
def _says_of_itself(source: Path, _: int) -> tuple[str, str]:
    """Return a kernel's banner and release: of a vmlinuz they take more than all the rest."""
    with open_kernel(str(source)) as opened:
        return opened.banner, opened.release


def running(
    root: Path,
    source: Path,
    line: str,
    *,
    cpus: int = 4,
    threads: int = 1,
    offline: tuple[int, ...] = (),
    banner: str | None = None,
    smt: str | None = None,
    flags: str = FLAGS,
    pages: int = 262000,
    vendor: str = "GenuineIntel",
) -> None:
    """Write the proc and sys of a machine that runs the kernel of a file, with one disk and its partitions."""
    own, release = _says_of_itself(source, source.stat().st_mtime_ns)
    write(root, "proc/version", (banner or own).strip() + "\n")
    write(root, "proc/sys/kernel/osrelease", release + "\n")
    write(root, "proc/cmdline", line + "\n")
    write(root, "proc/zoneinfo", f"Node 0, zone DMA32\n        spanned  262144\n        present  {pages}\n")
    memory = {
        "MemTotal": 1 << 20,
        "MemFree": 1 << 19,
        "SUnreclaim": 20000,
        "KernelStack": 2000,
        "PageTables": 1000,
        "Unevictable": 0,
    }
    write(root, "proc/meminfo", "".join(f"{name}: {value} kB\n" for name, value in memory.items()))
    blocks = [
        f"processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel\t\t: 94\ncpuid level\t: 22\n"
        f"apicid\t\t: {cpu}\nflags\t\t: {flags}\nbugs\t\t: {BUGS}\naddress sizes\t: 40 bits physical, 48 bits virtual\n"
        for cpu in range(cpus)
        if cpu not in offline
    ]
    write(root, "proc/cpuinfo", "\n".join(blocks))
    system = "sys/devices/system/cpu"
    write(root, f"{system}/present", f"0-{cpus - 1}\n")
    write(root, f"{system}/online", ",".join(str(cpu) for cpu in range(cpus) if cpu not in offline) + "\n")
    write(root, f"{system}/smt/control", (smt or ("on" if threads > 1 else "notsupported")) + "\n")
    write(root, f"{system}/cpuidle/current_driver", "none\n")
    for cpu in range(cpus):
        if cpu not in offline:
            write(root, f"{system}/cpu{cpu}/topology/core_id", f"{cpu // threads}\n")
            write(root, f"{system}/cpu{cpu}/topology/physical_package_id", "0\n")
    write(root, "sys/power/state", "freeze mem disk\n")
    write(root, "sys/power/disk", "[platform] shutdown reboot suspend test_resume\n")
    write(root, "sys/power/resume", "0:0\n")
    write(root, "sys/power/resume_offset", "0\n")
    write(root, "sys/power/image_size", f"{(1 << 30) * 2 // 5}\n")
    write(root, "sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
    disk(root, {"sda1": "8:1", "sda2": "8:2", "sda3": "8:3"})
    link(root, "dev/disk/by-uuid/11111111-aaaa", "../../sda1")
    link(root, "dev/disk/by-uuid/22222222-bbbb", "../../sda2")
    link(root, "dev/disk/by-uuid/33333333-cccc", "../../sda3")
    swaps(root, [("/dev/sda2", "partition", 1 << 21, 0, -2)])


def madt(root: Path, ids: tuple[int, ...]) -> None:
    """Write the firmware's table of the APIC ids of all CPUs; one more is disabled."""
    rows = b"".join(struct.pack("<BBBBI", 0, 8, number, apic, 1) for number, apic in enumerate(ids))
    rows += struct.pack("<BBBBI", 0, 8, 99, 99, 0) + struct.pack("<BBHIII", 9, 16, 0, 300, 0, 99)
    write(root, "sys/firmware/acpi/tables/APIC", b"APIC".ljust(44, b"\0") + rows)


def disk(root: Path, devices: dict[str, str]) -> None:
    """Make block devices, as far as names go."""
    for name, number in devices.items():
        write(root, f"sys/class/block/{name}/dev", f"{number}\n")
        write(root, f"sys/dev/block/{number}/uevent", f"DEVNAME={name}\n")
        write(root, f"dev/{name}")


def swaps(root: Path, rows: list[tuple[str, str, int, int, int]]) -> None:
    """Write /proc/swaps: (name, kind, KiB, KiB used, priority)."""
    lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"]
    lines += [f"{name}\t{kind}\t{size}\t{used}\t{priority}" for name, kind, size, used, priority in rows]
    write(root, "proc/swaps", "\n".join(lines) + "\n")


def boot_params(root: Path, *, loader: int = 0x72, secure_boot: int = 0) -> None:
    """Write what the boot loader passed (struct boot_params)."""
    page = bytearray(4096)
    struct.pack_into("<B", page, 0x210, loader)
    struct.pack_into("<B", page, 0x1EC, secure_boot)
    write(root, "sys/kernel/boot_params/data", bytes(page))
