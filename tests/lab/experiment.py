"""What an experiment is: two kernels, one machine, and what is done to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tests.lab.machine import Machine

Event = Literal["none", "nmi", "smi", "mce"]
Tlb = Literal["warm", "cold"]


@dataclass(frozen=True, slots=True)
class Side:
    """One kernel's boot.

    Args:
        kernel: Name in :class:`tests.lab.kernels.Kernels`, such as ``debian-6.1.176``.
        cmdline: Command line, as ``--resumer-cmdline`` takes it (the console is added).
        offline: CPUs taken offline by hand, in this order.
        online: CPUs brought back by hand after that.
        take_idle_states: Patch the running kernel so that it accepts MWAIT states under TCG (see ``cst``).
        load: Physical address at which the boot loader puts the kernel, 0 for the usual (Bochs only).
        initrd_at: Physical address of its initramfs, 0 for the usual (Bochs only).
        kexec_from: A kernel that is booted first, and starts this one by kexec (QEMU only).
        kexec_cpu: The machine's CPU on which it does: this kernel's CPU 0, to which the BSP is a CPU like others.
        modules: Modules of the kernel's package that are loaded before it resumes, in this order (QEMU only).
    """

    kernel: str
    cmdline: str = "nokaslr"
    offline: tuple[int, ...] = ()
    online: tuple[int, ...] = ()
    take_idle_states: bool = False
    load: int = 0
    initrd_at: int = 0
    kexec_from: str = ""
    kexec_cpu: int = 0
    modules: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """All of it, for names of files: without what came later and has its default."""
        out = asdict(self)
        return {key: item for key, item in out.items() if item or key not in ("kexec_from", "kexec_cpu", "modules")}


@dataclass(frozen=True, slots=True)
class Experiment:
    """One hibernation, one resume.

    Args:
        name: Its name in the cases.
        resumee: The kernel that hibernates.
        resumer: The kernel that loads the image.
        machine: The hardware under both.
        resumer_machine: The hardware under the resumer where it differs (memory, CPU features).
        event: What happens after the handoff.
        image_size: Written to /sys/power/image_size; None leaves the default.
        fill_mib: MiB of the resumee's memory to fill, so that the image covers frames that would be free otherwise.
        fill_byte: With what (an instruction of interest: 0x00, 0xcc, 0x90).
        swap_file: Swap to a file in an ext2 file system instead of the whole disk.
        churn_mib: MiB that the resumee writes once it is back (Bochs only).
        latency: Pages that are copied between the store to a parked CPU's line and the end of its MWAIT (Bochs only).
        tlb: Whether a CPU still has its translations when it leaves MWAIT (Bochs only).
        told: Whether hibercheck is told that MWAIT ends at once on QEMU (and so should agree with it there).
        dump: Keep the resumer's memory at ``restore_image``.
        collect: Run ``hibercheck collect`` on the resumer before it resumes, and keep what it writes.
        arguments: Further arguments hibercheck gets.
        note: Anything the reader must know about the machine.
    """

    name: str
    resumee: Side
    resumer: Side
    machine: Machine = field(default_factory=Machine)
    resumer_machine: Machine | None = None
    event: Event = "none"
    image_size: int | None = 0
    fill_mib: int = 0
    fill_byte: int = 0
    swap_file: bool = False
    churn_mib: int = 16
    latency: int = 0
    tlb: Tlb = "warm"
    told: bool = True
    dump: bool = True
    collect: bool = False
    arguments: tuple[str, ...] = ()
    note: str | None = None

    def image_key(self) -> str:
        """Name of the image: experiments that hibernate in the same way share one."""
        side = self.resumee
        run: dict[str, Any] = {
            "kernel": side.kernel,
            "cmdline": side.cmdline,
            "offline": side.offline,
            "online": side.online,
        }
        if side.kexec_from:
            run["kexec"] = (side.kexec_from, side.kexec_cpu)
        run["patches"] = ["idle states"] if side.take_idle_states else []
        machine = self.machine.facts()
        if self.machine.disk == "nvme":
            del machine["disk"]  # names of images that were made before there was another
        facts: list[Any] = [run, machine, self.image_size, self.swap_file]
        facts += [self.fill_mib, self.fill_byte] if self.fill_mib else []
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:10]

    def hibercheck_arguments(self, *, mwait_spins: bool = True) -> list[str]:
        """Arguments that tell hibercheck what is known of the resumer's run.

        Args:
            mwait_spins: The machine ends MWAIT at once, as QEMU does.
        """
        out = ["--resumer-cmdline", self.resumer.cmdline]
        left = [cpu for cpu in self.resumer.offline if cpu not in self.resumer.online]
        if left:
            out += ["--resumer-offline", ",".join(map(str, left))]
        if mwait_spins and self.told:
            out.append("--spurious-mwait")
        if self.event != "none":
            out += ["--suppose", self.event]
        return [*out, *self.arguments]

    @property
    def unread(self) -> bool:
        """Whether the resumer parks CPUs as no reader of hibercheck's knows: it is to say so, whatever it is given."""
        return self.resumer.kernel.endswith("-pause")

    @property
    def may_abstain(self) -> bool:
        """Whether the resumer's load address was random, so that only a dump can tell."""
        return "nokaslr" not in self.resumer.cmdline.split()
