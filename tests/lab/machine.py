"""One QEMU machine: started, talked to over its serial line, stopped and inspected."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError
from tests.lab.gdb import Stub
from tests.lab.qmp import Monitor, connect

QEMU = "qemu-system-x86_64"
BLOCK_DEVICES = {"nvme": "nvme0n1", "virtio": "vda"}
"""What the guest calls the disk.  NVMe has one queue: of several, 7.3 loses those of offline CPUs after a snapshot."""
PATIENCE = float(os.environ.get("LAB_PATIENCE", "1"))
"""Factor on all waiting times, for a loaded machine."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware both kernels run on.

    Args:
        smp: QEMU's ``-smp``.
        memory_mib: RAM in MiB.
        cpu: QEMU's ``-cpu``.
        acpi_table: Kind of idle states that an SSDT gives the CPUs (:data:`tests.lab.cst.KINDS`), on both sides.
        disk: What the swap area is on: ``nvme``, which every kernel here has built in, or ``virtio``.
    """

    smp: str = "2,sockets=1,cores=1,threads=2"
    memory_mib: int = 128
    cpu: str = "Skylake-Client,-hle,-rtm,+monitor"
    acpi_table: str | None = None
    disk: str = "nvme"

    @property
    def block_device(self) -> str:
        """What the guest calls the disk."""
        return BLOCK_DEVICES[self.disk]

    @property
    def cpus(self) -> int:
        """Number of CPUs."""
        return int(self.smp.split(",")[0])

    def arguments(self, ssdt: Path | None = None) -> list[str]:
        """QEMU's arguments for it, the compiled SSDT included."""
        table = ["-acpitable", f"file={ssdt}"] if ssdt else []
        device = "nvme,drive=d,serial=1,max_ioqpairs=1" if self.disk == "nvme" else "virtio-blk-pci,drive=d"
        hardware = ["-machine", "q35,accel=tcg", "-cpu", self.cpu, "-smp", self.smp, "-m", str(self.memory_mib)]
        return [*hardware, "-device", device, *table]


@dataclass(slots=True)
class Vm:
    """A running machine.  Use as a context manager: it is killed on the way out.

    Args:
        machine: The hardware.
        kernel: bzImage to boot.
        initrd: The initramfs.
        cmdline: The kernel's command line, the console excepted.
        disk: The raw disk with the swap area.
        directory: Where sockets and logs go (short path: it names Unix sockets).
        ssdt: A compiled table with the CPUs' idle states.
    """

    machine: Machine
    kernel: Path
    initrd: Path
    cmdline: str
    disk: Path
    directory: Path
    ssdt: Path | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    monitor: Monitor = field(init=False)
    serial: socket.socket = field(init=False)
    text: str = field(init=False, default="")

    def __enter__(self) -> Vm:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in ("qmp", "gdb", "serial", "log"):
            (self.directory / name).unlink(missing_ok=True)
        command = [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *self.machine.arguments(self.ssdt),
            *("-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append", self.cmdline),
            *("-drive", f"id=d,file={self.disk},format=raw,if=none,discard=unmap"),
            *("-chardev", f"socket,id=s,path={self.directory}/serial,server=on,wait=off", "-serial", "chardev:s"),
            *("-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"),
            *("-gdb", f"unix:{self.directory}/gdb,server=on,wait=off", "-D", f"{self.directory}/log", "-S"),
        ]
        with (self.directory / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            self.monitor = Monitor(self.directory / "qmp")
            self.serial = connect(self.directory / "serial", 20)
            self.monitor.command("cont")
        except LabError:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.monitor.close()
        self.serial.close()
        (self.directory / "console.txt").write_text(self.text)

    def wait_for(self, pattern: str, seconds: float, start: int = 0) -> re.Match[str]:
        """Read the serial line until a pattern appears in what came after ``start``.

        Raises:
            LabError: It did not, or QEMU ended.
        """
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            if found := re.compile(pattern, re.MULTILINE).search(self.text, start):
                return found
            if time.monotonic() > deadline or not self.listen():
                tail = self.text[start:][-300:].strip().replace("\n", " | ")
                raise LabError(f"no {pattern!r} on the console; last: {tail}")

    def listen(self, seconds: float = 0.2) -> bool:
        """Take in what the console says for a moment; False when the machine has ended."""
        self.serial.settimeout(seconds)
        try:
            piece = self.serial.recv(65536)
        except TimeoutError:
            return self.process.poll() is None
        except OSError:
            return False
        self.text += piece.decode("utf-8", "replace").replace("\r", "")
        return bool(piece)

    def order(self, line: str) -> int:
        """Send a shell line to the guest, without waiting; returns where its output starts.

        Raises:
            LabError: QEMU has ended.
        """
        here = len(self.text)
        self.serial.settimeout(20)
        try:
            self.serial.sendall(line.encode() + b"\n")
        except OSError as error:
            raise LabError(f"the machine has ended: {error}") from error
        return here

    def shell(self, line: str, seconds: float = 30) -> str:
        """Run a shell line in the guest and return its output.

        Raises:
            LabError: It did not end in time, or failed.
        """
        start = self.order(line)
        done = self.wait_for(r"LAB done (\d+)\n", seconds, start)
        output = self.text[start : done.start()].strip()
        if done[1] != "0":
            raise LabError(f"in the guest, {line!r} gives {done[1]}: {output[-200:]}")
        return output

    def debugger(self) -> Stub:
        """Attach to the gdb stub, which stops the machine."""
        return Stub(self.directory / "gdb", 60 * PATIENCE)

    def registers(self) -> list[dict[str, Any]]:
        """All CPUs' registers."""
        return [parse_registers(part) for part in split_cpus(self.monitor.human("info registers -a"))]

    def dump(self, path: Path) -> None:
        """Write guest memory and registers as an ELF file, with holes where memory is zero."""
        path.unlink(missing_ok=True)
        self.monitor.command("dump-guest-memory", paging=False, protocol=f"file:{path}")
        subprocess.run(["fallocate", "--dig-holes", path], check=False)

    def log(self) -> str:
        """What QEMU logged (exceptions, resets)."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""


def split_cpus(text: str) -> list[str]:
    """Cut the output of ``info registers -a`` into one part per CPU."""
    parts = re.split(r"^\s*CPU#\d+\s*$", text.replace("\r", ""), flags=re.MULTILINE)
    return [part for part in parts if part.strip()]


def parse_registers(text: str) -> dict[str, Any]:
    """Read one CPU's registers into the form that the cases use."""

    def value(name: str) -> str | None:
        found = re.search(rf"\b{name}\s*=\s*([0-9a-f]+)", text)
        return f"{int(found[1], 16):#x}" if found else None

    def pair(name: str) -> str | None:
        found = re.search(rf"\b{name}=\s+([0-9a-f]+) ([0-9a-f]+)", text)
        return f"{int(found[1], 16):#x}" if found else None

    short = "RIP=" not in text  # a CPU waiting for SIPI is printed in 16-bit form
    names = {
        "rip": "EIP",
        "rsp": "ESP",
        "rax": "EAX",
        "rcx": "ECX",
        "rdx": "EDX",
        "rdi": "EDI",
        "rsi": "ESI",
        "rbx": "EBX",
    }
    out: dict[str, Any] = {key: value(name if short else "R" + name[1:]) for key, name in names.items()}
    out |= {"cr0": value("CR0"), "cr3": value("CR3"), "cr4": value("CR4"), "efer": value("EFER")}
    out["rflags"] = value("EFL" if short else "RFL")
    out["halted"] = value("HLT") == "0x1"
    base = re.search(r"^GS =\S+ ([0-9a-f]+) ", text, re.MULTILINE)
    out["gdt_base"], out["idt_base"] = (None, None) if short else (pair("GDT"), pair("IDT"))
    out["gs_base"] = None if short or not base else f"{int(base[1], 16):#x}"
    return out


def wait_exit(vm: Vm, seconds: float, instead: str = "") -> bool:
    """Wait until QEMU has ended, taking in its console; False if it did not, or if the console says ``instead``."""
    deadline = time.monotonic() + seconds * PATIENCE
    start = len(vm.text)
    while time.monotonic() < deadline and not (instead and instead in vm.text[start:]):
        alive = vm.listen(0.2)
        if vm.process.poll() is not None:
            return True
        if not alive:
            time.sleep(0.1)
    return False


def have_qemu(names: Sequence[str] = (QEMU,)) -> bool:
    """Whether the emulator is installed."""
    return all(any((Path(place) / name).exists() for place in os.environ.get("PATH", "").split(":")) for name in names)
