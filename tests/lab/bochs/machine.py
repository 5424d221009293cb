"""One Bochs process: its configuration, its environment, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.bochs.build import Bochs
from tests.lab.errors import LabError
from tests.lab.machine import PATIENCE, Machine

BOOT = bytes.fromhex(
    "fa 31c0 8ed0 bc007c e492 0c02 e692 ba0089 b001 ee b80010 8ed8 8ec0 8ee0 8ee8 8ed0 bc00e0 ea00002010"
)
"""The boot sector: A20 on; a write to port 0x8900 has the kernel loaded; a jump to its setup code at 1020:0000."""
FLOPPY = 1474560
CONFIGURATION = """config_interface: textconfig
display_library: nogui
memory: guest={memory}, host={memory}
romimage: file={bios}
vgaromimage: file={vga_bios}
floppya: 1_44={floppy}, status=inserted
boot: floppy
cpu: model={model}, count={count}, ips=100000000, quantum=16, reset_on_triple_fault=1, cpuid_limit_winnt=0
clock: sync=none, time0=1700000000
com1: enabled=1, mode=null
pci: enabled=1, chipset=i440fx
ata0: enabled=0
ata1: enabled=0
speaker: enabled=0
log: {log}
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""
SILENCE = 90
"""Processor seconds without a byte from the guest after which a machine is ended: a busy host makes no hang."""
LONGEST = 600
"""Processor seconds that a boot may take with all its variants."""
ENDS = (0, 1, -signal.SIGKILL)
"""Exit statuses: the hooks end it, the guest powers off (a panic of Bochs), a hang is ended from outside."""


@dataclass(slots=True)
class Run:
    """One boot.

    Args:
        bochs: The program and its firmware.
        machine: The hardware.
        place: Where it works.
        kernel: The bzImage.
        initrd: The initramfs.
        cmdline: The whole command line.
        disk: The disk.
        keep: Whether what is written to the disk stays.
        load: Physical address for the kernel, 0 for the usual.
        initrd_at: Physical address for the initramfs, 0 for the usual.
        variants: Lines for the file of variants; with them the machine is forked at ``restore_image``.
        dump: Where memory and registers go, without ``.memory`` and ``.registers``.
    """

    bochs: Bochs
    machine: Machine
    place: Path
    kernel: Path
    initrd: Path
    cmdline: str
    disk: Path
    keep: bool = False
    load: int = 0
    initrd_at: int = 0
    variants: list[str] = field(default_factory=list)
    dump: Path | None = None

    def go(self) -> float:
        """Run it to its end; the seconds that it took.

        Raises:
            LabError: Bochs cannot model the machine, or ends by itself.
        """
        floppy, log, rc = self.place / "boot.img", self.place / "bochs.log", self.place / "bochsrc"
        floppy.write_bytes((BOOT.ljust(510, b"\0") + b"\x55\xaa").ljust(FLOPPY, b"\0"))
        (self.place / "variants").write_text("".join(f"{line}\n" for line in self.variants))
        text = CONFIGURATION.format(
            memory=self.machine.memory_mib,
            bios=self.bochs.bios,
            vga_bios=self.bochs.vga_bios,
            floppy=floppy,
            model=model(self.machine),
            count=count(self.machine),
            log=log,
        )
        rc.write_text(text)
        start = time.monotonic()
        with (self.place / "out").open("wb") as out:
            process = subprocess.Popen(
                [self.bochs.binary, "-q", "-f", rc],
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            try:
                self.watch(process)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if process.returncode not in ENDS:
            tail = (self.place / "out").read_text(errors="replace")[-200:].strip()
            raise LabError(f"Bochs ended with status {process.returncode}: {tail}")
        return time.monotonic() - start

    def environment(self) -> dict[str, str]:
        """What the hooks read (hooks/lab.h)."""
        out = {
            "LAB_KERNEL": str(self.kernel),
            "LAB_INITRD": str(self.initrd),
            "LAB_CMDLINE": self.cmdline,
            "LAB_LOAD": hex(self.load),
            "LAB_INITRD_AT": hex(self.initrd_at),
            "LAB_DISK": str(self.disk),
            "LAB_DISK_KEPT": str(int(self.keep)),
            "LAB_OUT": str(self.place),
        }
        out |= {"LAB_VARIANTS": str(self.place / "variants")} if self.variants else {}
        return out | ({"LAB_DUMP": str(self.dump)} if self.dump else {})

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end; give up on a silent machine, which is a hang."""
        size, grew, used = 0, 0.0, 0.0
        while process.poll() is None:
            time.sleep(0.2)
            used = max(used, processor_seconds(process.pid))
            total = sum(path.stat().st_size for path in self.place.glob("*serial"))
            if total != size:
                size, grew = total, used
            if used - grew > SILENCE * PATIENCE or used > LONGEST * PATIENCE:
                return


def processor_seconds(group: int) -> float:
    """What the processes of a group and their ended children have used (proc(5), /proc/PID/stat)."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(words[2]) == group:
            ticks += sum(map(int, words[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def model(machine: Machine) -> str:
    """Bochs's CPU model, that of Haswell for any of Intel's.

    Raises:
        LabError: There is none for it.
    """
    if not machine.cpu.startswith("Skylake-Client"):
        raise LabError(f"Bochs has no such CPU: {machine.cpu}")
    return "corei7_haswell_4770" + (", add_features=la57" if "+la57" in machine.cpu else "")


def count(machine: Machine) -> str:
    """Packages, cores of each, threads of each."""
    facts = dict(part.split("=") for part in machine.smp.split(",")[1:])
    return ":".join(facts.get(key, "1") for key in ("sockets", "cores", "threads"))
