"""What is done in the guests, and on their disks."""

from __future__ import annotations

import base64
import gzip
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tests.lab import cst
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.gdb import Stub
from tests.lab.kernels import Kernels
from tests.lab.machine import PATIENCE, Vm
from tests.lab.truth import WAITING, state_of

NMI_TO_OTHERS = 0xC4400
"""APIC ICR: delivery mode NMI, assert, all but self (SDM 3A, 11.6.1)."""
SMI_TO_ONE = 0x4200
"""The same with delivery mode SMI, to the APIC that the high half names."""
ICR_LOW, ICR_HIGH = 0xFEE00300, 0xFEE00310
MCE = "mce {cpu} 9 0xbd00000000000134 0x5 0x100000 0x8c"
"""An uncorrected error in bank 9 with RIPV set, which the handler of an offline CPU ignores."""
SMBASE_ENTRY = 0x38000
"""Where a CPU that no firmware relocated enters SMM; SeaBIOS relocates the boot CPU only."""
RSM = bytes.fromhex("0faa")
MIB = 1 << 20
PAGE = 4096
MARK = b"SWAPSPACE2S1SUSPEND\0"
"""The last members of struct swsusp_header, kernel/power/swap.c: orig_sig and sig."""
CONSOLE = "console=ttyS0 panic=-1"
"""What is added to every command line."""


def disk_size(experiment: Experiment) -> int:
    """Bytes of the swap device: room for an uncompressed image."""
    return (2 * experiment.machine.memory_mib + 128) * MIB


def make_disk(path: Path, experiment: Experiment) -> None:
    """Make an empty disk, or one with an ext2 file system that holds a swap file."""
    with path.open("wb") as file:
        file.truncate(disk_size(experiment))
    if not experiment.swap_file:
        return
    root = path.parent / "root"
    root.mkdir()
    (root / "filler").write_bytes(os.urandom(3 * MIB))
    (root / "swapfile").write_bytes(b"\1" * (experiment.machine.memory_mib + 64) * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096", "-d", root, path], check=True)
    shutil.rmtree(root)


def resume_offset(disk: Path) -> int:
    """The first block of the swap file, in pages (Documentation/power/swsusp-and-swap-files.rst)."""
    listing = subprocess.run(["debugfs", "-R", "bmap /swapfile 0", disk], capture_output=True, text=True, check=True)
    return int(listing.stdout.split()[0])


def swap_on(experiment: Experiment) -> str:
    """The shell line that gives the guest its swap."""
    device = f"/dev/{experiment.machine.block_device}"
    if experiment.swap_file:
        mount = f"mount -t ext2 {device} /mnt"
        return f"{mount} && mkswap /mnt/swapfile >/dev/null && swapon /mnt/swapfile"
    return f"mkswap {device} >/dev/null && swapon {device}"


def collect(vm: Vm, target: Path) -> None:
    """Run ``hibercheck collect`` and its script in the guest, and keep what both write, and what the first says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = {
        ".json": "time -p hibercheck collect -o /it 2>/said",
        ".said": "cat /said > /it",
        ".script.json": "hibercheck collect --script > /collect.sh && sh /collect.sh > /it",
        ".kcore": "head -c 4096 /proc/kcore > /it",
    }
    for suffix, line in lines.items():
        vm.shell(line, 120)
        encoded = vm.shell("gzip -c /it | base64", 60)
        target.with_suffix(suffix).write_bytes(gzip.decompress(base64.b64decode(encoded)))


def fill(experiment: Experiment) -> str:
    """The shell line that fills memory: ramfs pages, which are neither reclaimed nor swapped."""
    stream = f"tr '\\000' '\\{experiment.fill_byte:03o}' < /dev/zero | head -c {experiment.fill_mib}m"
    return f"mkdir -p /fill && mount -t ramfs none /fill && {stream} > /fill/bytes"


def resume_device(experiment: Experiment, disk: Path) -> str:
    """The shell line that names the resume device; the kernel tries to resume from it at once."""
    line = f"echo $(cat /sys/block/{experiment.machine.block_device}/dev) > /sys/power/resume"
    if experiment.swap_file:
        return f"echo {resume_offset(disk)} > /sys/power/resume_offset; {line}"
    return line


def plug_memory(vm: Vm, mib: int) -> None:
    """Plug memory into a running guest, and have its kernel use it."""
    vm.monitor.command("object-add", qom_type="memory-backend-ram", id="plugged", size=mib * MIB)
    vm.monitor.command("device_add", driver="pc-dimm", id="dimm", memdev="plugged")
    vm.shell("sleep 2; for block in /sys/devices/system/memory/memory*/state; do echo online > $block; done; true")


def load_modules(vm: Vm, side: Side) -> None:
    """Load what the side wants, in this order."""
    for name in side.modules:
        vm.shell(f"insmod /late/{name}.ko")


def kexec(vm: Vm, side: Side, line: str) -> None:
    """From the kernel that runs, start the one that is meant, and wait until that takes orders."""
    vm.wait_for(r"LAB ready\n", 90)
    vm.shell(f"kexec -l /second/kernel --initrd=/second/initrd --command-line='{line}'", 60)
    start = vm.order("kexec -e")
    vm.wait_for(r"LAB ready\n", 90, start)


def boot(vm: Vm, side: Side, kernels: Kernels) -> None:
    """Wait until the guest takes orders, patching its kernel on the way if that is asked for."""
    if side.kexec_from:
        kexec(vm, side, f"{CONSOLE} {side.cmdline}".strip())
        if side.kexec_cpu:
            vm.numbers = numbered(vm)
        return
    if side.take_idle_states:
        patch(vm, side, kernels, cst.patches(kernels, side.kernel))
    vm.wait_for(r"LAB ready\n", 90)


def numbered(vm: Vm) -> tuple[int, ...]:
    """The machine's CPU for each of the guest's, by their APIC ids.

    Raises:
        LabError: The guest does not run all of them, and so does not say.
    """
    found = apic_ids(vm.shell("cat /proc/cpuinfo"))
    theirs = {vm.machine.apic_id(cpu): cpu for cpu in range(vm.machine.cpus)}
    if set(found.values()) != set(theirs) or set(found) != set(range(vm.machine.cpus)):
        raise LabError(f"the guest says of its CPUs' APIC ids {found}")
    return tuple(theirs[found[cpu]] for cpu in range(vm.machine.cpus))


def apic_ids(cpuinfo: str) -> dict[int, int]:
    """The APIC id of each CPU in /proc/cpuinfo."""
    numbers = re.findall(r"^(processor|initial apicid)\s*: (\d+)$", cpuinfo, re.MULTILINE)
    found, cpu = {}, -1
    for name, number in numbers:
        if name == "processor":
            cpu = int(number)
        else:
            found[cpu] = int(number)
    return found


def patch(vm: Vm, side: Side, kernels: Kernels, changes: tuple[tuple[str, str], ...]) -> None:
    """Write over code (symbol+offset, hexadecimal bytes) while the kernel boots.

    By the time it brings up the other CPUs it has patched itself (ftrace, alternatives) and has not yet probed for idle
    states.  A breakpoint would do too, but makes TCG slow.

    Raises:
        LabError: The kernel has no such symbol, or did not get that far.
    """
    if "nokaslr" not in side.cmdline.split():
        raise LabError("a kernel is patched only at its link address: add nokaslr")
    symbols = kernels.symbols(side.kernel)
    vm.wait_for("smp: Bringing up secondary CPUs", 60)
    stub = vm.debugger()
    for where, data in changes:
        name, _, offset = where.partition("+")
        if name not in symbols:
            raise LabError(f"{side.kernel} has no {name} to patch")
        stub.write(symbols[name] + int(offset or "0", 0), bytes.fromhex(data))
    stub.detach()


def set_online(vm: Vm, side: Side) -> None:
    """Take CPUs offline, then others back online."""
    for value, cpus in ((0, side.offline), (1, side.online)):
        for cpu in cpus:
            vm.shell(f"echo {value} > /sys/devices/system/cpu/cpu{cpu}/online")


def reached(vm: Vm, stub: Stub, start: int) -> bool:
    """Wait until the resumer stands at its breakpoint; False when it gave the image up instead.

    Raises:
        LabError: Neither happened.
    """
    for _ in range(int(900 * PATIENCE)):
        try:
            stub.packet(0.1)
        except LabError:
            if not vm.listen(0.01) and vm.process.poll() is not None:
                raise LabError(f"the resumer died before the handoff: {vm.text[start:][-300:]}") from None
            if re.search(r"LAB done \d+\n", vm.text[start:], re.MULTILINE):
                return False
        else:
            return True
    raise LabError(f"the resumer neither resumed nor gave up: {vm.text[start:][-300:]}")


def loops(vm: Vm, parked: list[dict[str, Any]]) -> dict[int, int]:
    """Physical address of the next instruction of each CPU that spins in the resumer's kernel."""
    out = {}
    for cpu in parked:
        if not cpu["halted"] and cpu["gdt_base"]:
            found = re.search(r"gpa: 0x([0-9a-f]+)", vm.monitor.human(f"gva2gpa {cpu['rip']}"))
            out |= {cpu["cpu"]: int(found[1], 16)} if found else {}
    return out


def around(stub: Stub, addresses: dict[int, int]) -> dict[int, bytes]:
    """The bytes round some instructions, as far as they are on one page."""
    return {cpu: stub.read_physical(max(at - 16, at & -0x1000), 24) for cpu, at in addresses.items()}


def after_copy(vm: Vm, stub: Stub, entry: int, parked: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Let the copy happen, and read where the parked CPUs are when the resumee's first instruction is reached.

    Args:
        vm: The machine, stopped before the copy.
        stub: Its gdb stub.
        entry: Address of the resumee's first instruction.
        parked: Registers of the other CPUs.

    Returns:
        None when the machine did not get there; it runs on either way.
    """
    places = loops(vm, parked)
    before = around(stub, places)
    stub.breakpoint(entry)
    stub.go()
    try:
        stub.packet(20 * PATIENCE)
        found = whereabouts(vm, range(1, vm.machine.cpus))
        now = around(stub, places)
        for row in found:
            row["loop_changed"] = before.get(row["cpu"]) != now.get(row["cpu"])
        stub.clear(entry)
        stub.detach()
    except LabError:
        stub.close()
        return None
    return found


def whereabouts(vm: Vm, cpus: Iterable[int]) -> list[dict[str, Any]]:
    """Where some CPUs are now."""
    rows = vm.registers()
    return [{"cpu": cpu, **{key: rows[cpu][key] for key in ("rip", "cr3", "halted")}} for cpu in cpus]


def resting(vm: Vm, theirs: Collection[int]) -> list[list[Any]]:
    """In which state each CPU that the guest has offline spends its time now, and in whose memory.

    Args:
        vm: The machine.
        theirs: CPUs that the resumee has started since, and so wait as it has them wait.
    """
    rows = vm.registers()
    found: list[list[Any]] = []
    for cpu in offline_now(vm):
        code = vm.code(cpu, rows[cpu]) if not rows[cpu]["halted"] else b""
        state = state_of(rows[cpu], code)
        found.append([cpu, state, *([] if state == WAITING else ["resumee" if cpu in theirs else "resumer"])])
    return found


def offline_now(vm: Vm) -> list[int]:
    """CPUs that the guest has offline."""
    at_work = cpu_list(vm.shell("cat /sys/devices/system/cpu/online"))
    return sorted(set(range(1, vm.machine.cpus)) - at_work)


def cause(vm: Vm, experiment: Experiment) -> None:
    """Make the experiment's event happen, from the resumed guest."""
    if experiment.event == "mce":
        # On a CPU that the resumee runs it is the resumee's affair: AMD's handler would panic.
        for cpu in offline_now(vm):
            vm.monitor.human(MCE.format(cpu=vm.numbers[cpu]))
        vm.shell("true")
        return
    if experiment.event == "smi":
        # A machine's firmware gives each CPU a handler; SeaBIOS leaves the APs with the reset vector in RAM.
        stub = vm.debugger()
        stub.write_physical(SMBASE_ENTRY, RSM)
        stub.detach()
        # All of these enter SMM at one SMBASE, and so save their state in one place: one after the other.
        for cpu in range(1, vm.machine.cpus):
            vm.shell(f"devmem {ICR_HIGH:#x} 32 {vm.apic_id(cpu) << 24:#x}")
            vm.shell(f"devmem {ICR_LOW:#x} 32 {SMI_TO_ONE:#x}")
            vm.shell("sleep 0.2")
    if experiment.event == "nmi":
        vm.shell(f"devmem {ICR_LOW:#x} 32 {NMI_TO_OTHERS:#x}")


def cpu_list(text: str) -> set[int]:
    """The CPUs in a list of sysfs, such as ``0-1,3``."""
    found = re.findall(r"^[0-9][0-9,-]*$", text, re.MULTILINE)
    spans = [part.split("-") for part in ",".join(found).split(",") if part]
    return {cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1)}


def complaints(vm: Vm) -> list[str]:
    """What a guest that lives on has to complain of."""
    words = "BUG:|WARNING:|Oops|general protection|unable to handle|soft lockup|rcu.*stall|Machine check|NMI received"
    listing = vm.shell(f"dmesg | grep -E '{words}' | grep -v -E 'RETBleed|Spectre' | tail -4")
    return [line.partition("] ")[2][:100] for line in listing.splitlines()]


def is_marked(disk: Path) -> bool:
    """Whether a header that says that there is an image ends some page of a disk (struct swsusp_header)."""
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        at = whole.find(MARK)
        while at >= 0 and (at + len(MARK)) % PAGE:
            at = whole.find(MARK, at + 1)
        return at >= 0


def trim(disk: Path, path: Path) -> None:
    """Keep a disk up to its last used MiB, with its holes."""
    last = 0
    with disk.open("rb") as file:
        position = 0
        size = os.fstat(file.fileno()).st_size
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: only a hole follows
            position = last = os.lseek(file.fileno(), start, os.SEEK_HOLE)
    part = path.with_suffix(".part")
    copy_sparse(disk, part)
    os.truncate(part, -(-last // MIB) * MIB)
    part.rename(path)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file and its holes; runs of zeros become holes too."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
