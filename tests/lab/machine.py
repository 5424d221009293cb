"""One QEMU machine: started, talked to over its serial line, stopped and inspected."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.lab.errors import LabError
from tests.lab.gdb import Stub
from tests.lab.qmp import Monitor, connect

QEMU = "qemu-system-x86_64"
OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
"""Debian's package ovmf; without a file of variables they are lost at the end, which does not matter here."""
Firmware = Literal["seabios", "ovmf"]
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
        firmware: ``seabios``, or ``ovmf`` (UEFI), which wants kernels with an EFI stub.
        hotplug_mib: MiB of memory that are plugged in once the resumee runs, 0 for none.
        nvme_queues: Queues of the NVMe disk; OVMF itself wants two to boot from it.
    """

    smp: str = "2,sockets=1,cores=1,threads=2"
    memory_mib: int = 128
    cpu: str = "Skylake-Client,-hle,-rtm,+monitor"
    acpi_table: str | None = None
    disk: str = "nvme"
    firmware: Firmware = "seabios"
    hotplug_mib: int = 0
    nvme_queues: int = 1

    @property
    def block_device(self) -> str:
        """What the guest calls the disk."""
        return BLOCK_DEVICES[self.disk]

    @property
    def cpus(self) -> int:
        """Number of CPUs."""
        return int(self.smp.split(",")[0])

    @property
    def threads(self) -> int:
        """Threads of a core."""
        return self._shape.get("threads", 1)

    @property
    def _shape(self) -> dict[str, int]:
        return {key: int(number) for key, number in (part.split("=") for part in self.smp.split(",")[1:])}

    def apic_id(self, cpu: int) -> int:
        """The APIC id that QEMU gives a CPU: thread, core and package in fields of as many bits as they need."""
        threads, cores = self.threads, self._shape.get("cores", 1)
        thread_bits, core_bits = (threads - 1).bit_length(), (cores - 1).bit_length()
        thread, core, package = cpu % threads, cpu // threads % cores, cpu // (threads * cores)
        return package << (core_bits + thread_bits) | core << thread_bits | thread

    def facts(self) -> dict[str, Any]:
        """All of it, for names of files: without what came later and has its default."""
        out = asdict(self)
        return {key: item for key, item in out.items() if key not in LATER or item != LATER[key]}

    def arguments(self, ssdt: Path | None = None) -> list[str]:
        """QEMU's arguments for it, the compiled SSDT included."""
        table = ["-acpitable", f"file={ssdt}"] if ssdt else []
        device = (
            f"nvme,drive=d,serial=1,max_ioqpairs={self.nvme_queues}"
            if self.disk == "nvme"
            else "virtio-blk-pci,drive=d"
        )
        memory = str(self.memory_mib) + (",slots=2,maxmem=4G" if self.hotplug_mib else "")
        hardware = ["-machine", "q35,accel=tcg", "-cpu", self.cpu, "-smp", self.smp, "-m", memory]
        if self.firmware == "ovmf":
            hardware += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}"]
        return [*hardware, "-device", device, *table]


RESET = re.compile(r"^CPU Reset \(CPU (\d+)\)$", re.MULTILINE)
"""Of one CPU, by INIT (``-d cpu_reset``)."""
CODE_BEFORE = 0x28
"""Bytes of code before and after an instruction that show the loop round it."""
LATER = {"firmware": "seabios", "hotplug_mib": 0, "nvme_queues": 1}
"""Facts of a machine that older files were named without."""


@dataclass(slots=True)
class Vm:
    """A running machine.  Use as a context manager: it is killed on the way out.

    Args:
        machine: The hardware.
        kernel: bzImage to boot; None to leave that to a boot loader on the disk.
        initrd: The initramfs.
        cmdline: The kernel's command line, the console excepted.
        disk: The disk with the swap area: raw, or qcow2 by its name.
        directory: Where sockets and logs go (short path: it names Unix sockets).
        ssdt: A compiled table with the CPUs' idle states.
        variables: The variables of UEFI, which it keeps; None to have them forgotten.
        log_items: What QEMU logs from the start (its option ``-d``).
        numbers: The machine's CPU for each number that the guest's kernel gives: others where kexec started it on a CPU
            that is not the first.  Whoever asks this class for a CPU uses the guest's numbers.
    """

    machine: Machine
    kernel: Path | None
    initrd: Path | None
    cmdline: str
    disk: Path
    directory: Path
    ssdt: Path | None = None
    variables: Path | None = None
    log_items: str = ""
    process: subprocess.Popen[bytes] = field(init=False)
    monitor: Monitor = field(init=False)
    serial: socket.socket = field(init=False)
    text: str = field(init=False, default="")
    numbers: tuple[int, ...] = field(init=False)

    def __enter__(self) -> Vm:
        self.numbers = tuple(range(self.machine.cpus))
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in ("qmp", "gdb", "serial", "log"):
            (self.directory / name).unlink(missing_ok=True)
        form = "qcow2" if self.disk.suffix == ".qcow2" else "raw"
        command = [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *self.machine.arguments(self.ssdt),
            *self._started_with(),
            *("-drive", f"id=d,file={self.disk},format={form},if=none,discard=unmap"),
            *(
                "-chardev",
                f"socket,id=s,path={self.directory}/serial,server=on,wait=off,logfile={self.directory}/serial.log",
                "-serial",
                "chardev:s",
            ),
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

    def _started_with(self) -> list[str]:
        """What QEMU starts, and what it keeps and logs of that."""
        out = [] if self.kernel is None else ["-kernel", str(self.kernel), "-append", self.cmdline]
        out += [] if self.initrd is None else ["-initrd", str(self.initrd)]
        out += [] if self.variables is None else ["-drive", f"if=pflash,format=raw,unit=1,file={self.variables}"]
        return [*out, *(["-d", self.log_items] if self.log_items else [])]

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
        """All CPUs' registers.

        Raises:
            LabError: The monitor did not tell those of each CPU: it answers in part while the machine goes down.
        """
        rows = [parse_registers(part) for part in split_cpus(self.monitor.human("info registers -a"))]
        if len(rows) != self.machine.cpus:
            raise LabError(f"the monitor told the registers of {len(rows)} of {self.machine.cpus} CPUs")
        return [rows[number] for number in self.numbers]

    def apic_id(self, cpu: int) -> int:
        """The APIC id of one of the guest's CPUs."""
        return self.machine.apic_id(self.numbers[cpu])

    def code(self, cpu: int, registers: dict[str, Any]) -> bytes:
        """The code round a CPU's next instruction, by its own page tables; empty where they do not map it."""
        start = max(int(registers["rip"], 16) - CODE_BEFORE, 0)
        answer = self.monitor.human(f"x /{2 * CODE_BEFORE}xb {start:#x}", self.numbers[cpu])
        return bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", answer))

    def dump(self, path: Path) -> None:
        """Write guest memory and registers as an ELF file, with holes where memory is zero."""
        path.unlink(missing_ok=True)
        self.monitor.command("dump-guest-memory", paging=False, protocol=f"file:{path}")
        subprocess.run(["fallocate", "--dig-holes", path], check=False)

    def log(self) -> str:
        """What QEMU logged (exceptions, resets), with the guest's numbers."""
        path = self.directory / "log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return RESET.sub(lambda found: f"CPU Reset (CPU {self.numbers.index(int(found[1]))})", text)


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
