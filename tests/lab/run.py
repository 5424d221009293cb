"""Carry out an experiment: hibernate, boot again, resume, and see what becomes of the machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.scenario.bringup import limited_to
from hibercheck.kernel.code.names import built_for_one_cpu
from tests.lab import cst, initramfs, python
from tests.lab.errors import ImpossibleError, LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.gdb import Stub
from tests.lab.guest import (
    CONSOLE,
    after_copy,
    boot,
    cause,
    collect,
    complaints,
    copy_sparse,
    disk_size,
    fill,
    is_marked,
    load_modules,
    make_disk,
    plug_memory,
    reached,
    resting,
    resume_device,
    set_online,
    swap_on,
    trim,
    whereabouts,
)
from tests.lab.kernels import Kernels
from tests.lab.machine import PATIENCE, Machine, Vm, wait_exit
from tests.lab.once import held
from tests.lab.outcome import Outcome
from tests.lab.record import EMULATOR, Record
from tests.lab.truth import Truth, errno_of, fault_of, init_taken, runaway, was_triple_fault

FIRST = "nokaslr"
"""Command line of a kernel that only starts another."""
SETTLE = 0.1
"""Seconds that the parked CPUs get to come to rest while the boot CPU stands at ``restore_image``."""
TRIES = 3
"""TCG itself kills about one boot in sixty; what dies before the handoff is run again."""


@dataclass(slots=True)
class Lab:
    """The place where experiments run.

    Args:
        work: Directory for images, logs and cases.
        kernels: Where the kernels are.
    """

    work: Path
    kernels: Kernels

    def image(self, experiment: Experiment) -> Path:
        """The image this experiment resumes, made if it is not there yet.

        Raises:
            LabError: The resumee did not hibernate.
        """
        path = self.work / "images" / f"{experiment.image_key()}.bin"
        with held(path):
            if not path.exists():
                retry(lambda: self._hibernate(experiment, path), "hibernation")
        return path

    def run(self, experiment: Experiment) -> Truth:
        """Carry it out.

        Raises:
            LabError: It could not be carried out; nothing is known then.
        """
        kernel = experiment.resumee.kernel
        alone = experiment.event == "smi" and built_for_one_cpu(self.kernels.symbols(kernel).get) is True
        unfit(experiment, alone=alone)
        image = self.image(experiment)
        return retry(lambda: self._resume(experiment, image), experiment.name)

    @property
    def emulator(self) -> str:
        """Its name in the record."""
        return EMULATOR

    def outcomes(self, group: list[Experiment]) -> Iterator[tuple[Experiment, Outcome]]:
        """Carry experiments out, and keep each with its truth in cases.json.

        Raises:
            LabError: As `run`.
        """
        record = Record(self.work)
        for experiment in group:
            truth = self.run(experiment)
            record.add(experiment, truth, with_memory=experiment.dump and truth.boot_cpu is not None)
            # a CPU that ran away rests nowhere
            events = {"rest": truth.rest} if truth.rest and truth.outcome == "resumes" else {}
            yield experiment, Outcome(truth.outcome, truth.when, truth.errno, events)

    def memory(self, experiment: Experiment) -> Path:
        """Where the dump of the resumer's memory is."""
        return self.work / "memory" / f"{experiment.name}.elf"

    def facts(self, experiment: Experiment) -> Path:
        """Where what ``hibercheck collect`` wrote is; what its script wrote is beside it."""
        return self.work / "facts" / f"{experiment.name}.json"

    def _start(self, side: Side, machine: Machine, disk: Path, place: Path, *, collects: bool = False) -> Vm:
        cmdline = f"{CONSOLE} {side.cmdline}".strip()
        initrd = self._initrd(side, machine, collects=collects)
        kernel = side.kernel
        if side.kexec_from:
            kernel, cmdline = side.kexec_from, f"{CONSOLE} {FIRST}"
            cmdline += f" reboot=smp{side.kexec_cpu}" if side.kexec_cpu else ""
            initrd = self._kexec_initrd(side, initrd, place)
        kind = machine.acpi_table
        ssdt = cst.table(place, kind, machine.cpus) if kind else None
        return Vm(machine, self.kernels.boot_file(kernel), initrd, cmdline, disk, place, ssdt)

    def _initrd(self, side: Side, machine: Machine, *, collects: bool) -> Path:
        modules = () if machine.disk == "nvme" else self.kernels.modules(side.kernel)
        named = self.kernels.named_modules(side.kernel, side.modules)
        name = f"initramfs-{'-'.join([side.kernel, *side.modules])}.gz" if modules or named else "initramfs.gz"
        initrd = self.work / (f"python-{name}" if collects else name)
        with held(initrd):
            if not initrd.exists() or (collects and initrd.stat().st_mtime < python.changed()):
                more = python.entries() if collects else []
                more += [initramfs.plain(f"late/{path.name}", path.read_bytes()) for path in named]
                initramfs.build(initrd, disk=machine.block_device, modules=modules, more=more)
        return initrd

    def _kexec_initrd(self, side: Side, initrd: Path, place: Path) -> Path:
        """What the first kernel gets: the program kexec, and the second kernel with its initramfs."""
        out = place / "kexec-initramfs.gz"
        more = [
            *python.program_entries(Path("/usr/sbin/kexec")),
            initramfs.plain("second/kernel", self.kernels.boot_file(side.kernel).read_bytes()),
            initramfs.plain("second/initrd", initrd.read_bytes()),
        ]
        return initramfs.build(out, more=more)

    def _place(self, name: str) -> Path:
        place = self.work / "run" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def _hibernate(self, experiment: Experiment, path: Path) -> None:
        place = self._place(f"e-{experiment.image_key()}")
        disk = place / "disk"
        make_disk(disk, experiment)
        with self._start(experiment.resumee, experiment.machine, disk, place) as vm:
            boot(vm, experiment.resumee, self.kernels)
            if experiment.machine.hotplug_mib:
                plug_memory(vm, experiment.machine.hotplug_mib)
            vm.shell(swap_on(experiment))
            if experiment.fill_mib:
                vm.shell(fill(experiment), 60)
            if experiment.image_size is not None:
                vm.shell(f"echo {experiment.image_size} > /sys/power/image_size")
            vm.shell(f"echo {ending(experiment.resumee)} > /sys/power/disk")
            set_online(vm, experiment.resumee)
            vm.shell(resume_device(experiment, disk))
            start = vm.order("echo disk > /sys/power/state; echo LAB back $?; dmesg | tail -3")
            if not wait_exit(vm, 90, "LAB done"):
                back = vm.text[start:][-300:].strip().replace("\n", " | ")
                raise (ImpossibleError if back else LabError)(f"it did not hibernate: {back}")
        if not is_marked(disk):
            raise LabError("it ended without an image")  # it died on the way, which is not a resume
        trim(disk, path)
        disk.unlink()

    def _resume(self, experiment: Experiment, image: Path) -> Truth:
        place = self._place(experiment.name)
        disk = place / "disk"
        copy_sparse(image, disk)
        os.truncate(disk, disk_size(experiment))
        machine = experiment.resumer_machine or experiment.machine
        try:
            with self._start(experiment.resumer, machine, disk, place, collects=experiment.collect) as vm:
                boot(vm, experiment.resumer, self.kernels)
                load_modules(vm, experiment.resumer)
                set_online(vm, experiment.resumer)
                if experiment.collect:
                    collect(vm, self.facts(experiment))
                offset = self._offset(vm, experiment.resumer)
                stub = vm.debugger()
                stub.breakpoint(self.kernels.symbols(experiment.resumer.kernel)["restore_image"] + offset)
                stub.go()
                start = vm.order(resume_device(experiment, disk))
                return self._handoff(vm, stub, experiment, start, offset)
        finally:
            disk.unlink()

    def _offset(self, vm: Vm, side: Side) -> int:
        """How far a running kernel is from its link address."""
        answer = vm.shell("grep -m1 ' _text$' /proc/kallsyms", 60)
        found = re.search(r"([0-9a-f]{16}) \w _text", answer)
        if not found:
            raise LabError(f"no _text in /proc/kallsyms: {answer[-100:]}")
        return int(found[1], 16) - self.kernels.symbols(side.kernel)["_text"]

    def _handoff(self, vm: Vm, stub: Stub, experiment: Experiment, start: int, offset: int) -> Truth:
        if not reached(vm, stub, start):
            stub.close()
            errno = errno_of(vm.text[start:])
            if errno is None:
                vm.listen(1)
                errno = errno_of(vm.text) or errno_of(vm.shell("dmesg | tail -40"))
            return Truth("refused", errno=errno)
        # A parked CPU may still be on its last steps (an INIT not yet taken, say), if the host gave its thread no time.
        stub.run_only(vm.numbers[1:], SETTLE * PATIENCE)
        registers = [{"cpu": cpu, **found} for cpu, found in enumerate(vm.registers())]
        if experiment.dump:
            path = self.memory(experiment)
            path.parent.mkdir(parents=True, exist_ok=True)
            vm.dump(path)
        symbols = self.kernels.symbols(experiment.resumer.kernel)
        truth = Truth("resumes", boot_cpu=registers[:1], parked=registers[1:])
        vm.monitor.human("log int,cpu_reset")
        stub.clear(symbols["restore_image"] + offset)
        entry = int.from_bytes(stub.read(symbols["restore_jump_address"] + offset, 8), "little")
        truth.after_copy = after_copy(vm, stub, entry, registers[1:])
        self._aftermath(vm, experiment, truth, start)
        return truth

    def _aftermath(self, vm: Vm, experiment: Experiment, truth: Truth, start: int) -> None:
        try:
            back = vm.wait_for(r"LAB back (\d+)\n", 30, start)
            vm.wait_for(r"LAB done \d+\n", 30, back.end())  # else it would be taken for the answer to the next order
        except LabError as error:
            self._died(vm, truth, "in the handoff", error)
            return
        lost = runaway(vm.log(), truth.parked or [])
        if lost or truth.strayed():
            truth.outcome = "survives"
            truth.fault = {"last_exceptions": [lost]} if lost else None
            truth.remarks.append("a parked CPU ran away before the resumee brought it back")
        try:
            cause(vm, experiment)
            for _ in range(3):
                vm.shell("sleep 1")
            log = vm.log()
            left = [cpu for cpu in left_behind(experiment, log) if cpu < vm.machine.cpus]  # it may have fewer by now
            truth.after_event = whereabouts(vm, left)
            truth.rest = resting(vm, [cpu for cpu in range(vm.machine.cpus) if init_taken(log, cpu) < len(log)])
        except LabError as error:
            self._died(vm, truth, "after the handoff", error)
            return
        lost = runaway(log, [cpu for cpu in truth.parked or [] if cpu["cpu"] in left])
        if truth.outcome == "resumes" and (lost or truth.strayed()):
            truth.outcome = "survives"
            truth.remarks.append("a CPU that the resumee left offline ran away")
        truth.remarks += complaints(vm)

    def _died(self, vm: Vm, truth: Truth, when: str, error: LabError) -> None:
        ended = wait_exit(vm, 1)
        log = vm.log()
        truth.outcome = "resets" if ended else "hangs"
        truth.triple_fault = was_triple_fault(log)
        truth.fault = fault_of(log)
        truth.when = when
        if not ended:
            truth.remarks.append(str(error))


def ending(side: Side) -> str:
    """How a kernel ends the machine once the image is written: without ACPI it cannot switch it off."""
    return "reboot" if parse_command_line(side.cmdline).acpi_off else "shutdown"


def left_behind(experiment: Experiment, log: str) -> list[int]:
    """CPUs that the resumee has offline and never brought back: those that took its INIT stand where it put them.

    arch_resume_nosmt() up to 6.16 brings up every present CPU, and takes the siblings down again, in its own loop.
    """
    offline = [cpu for cpu in experiment.resumee.offline if cpu not in experiment.resumee.online]
    return [cpu for cpu in offline if init_taken(log, cpu) == len(log)]


def at_work(side: Side, machine: Machine, *, alone: bool = False) -> int:
    """How many CPUs a kernel runs once its CPUs are where the experiment wants them, at most.

    Args:
        side: Its boot.
        machine: The machine.
        alone: Whether it is built for one CPU.
    """
    line = parse_command_line(side.cmdline)
    has = limited_to(frozenset(range(machine.cpus)), line, one_cpu=alone)
    if line.nosmt:
        has = frozenset(cpu for cpu in has if not cpu % machine.threads)
    kept = has - (frozenset(side.offline) - frozenset(side.online))
    return min(len(kept), line.max_cpus or len(kept))


def unfit(experiment: Experiment, *, alone: bool = False) -> None:
    """Refuse what QEMU cannot do.

    An SMI is sent by two writes to the ICR of whichever CPU the shell is on: with several at work the second may be to
    another's, and the kernel itself writes to it in between.

    Args:
        experiment: The experiment.
        alone: Whether the resumee is built for one CPU.

    Raises:
        ImpossibleError: The experiment wants it.
    """
    sides = (experiment.resumee, experiment.resumer)
    wants = {
        "a place for kernel or initramfs": any(side.load or side.initrd_at for side in sides),
        "a latency": experiment.latency > 0,
        "a cold TLB": experiment.tlb == "cold",
        "a resumee with other numbers for the CPUs": len({side.kexec_cpu for side in sides}) > 1,
        "an SMI that hits the CPU it is meant for, where the resumee runs several": experiment.event == "smi"
        and at_work(experiment.resumee, experiment.machine, alone=alone) > 1,
    }
    if asked := [what for what, wanted in wants.items() if wanted]:
        raise ImpossibleError(f"not on QEMU: {', '.join(asked)}")


T = TypeVar("T")


def retry(action: Callable[[], T], what: str) -> T:
    """Run an action again when the lab itself failed.

    Raises:
        LabError: It failed every time.
    """
    problems = []
    for _ in range(TRIES):
        try:
            return action()
        except ImpossibleError:
            raise
        except LabError as error:
            problems.append(str(error))
    raise LabError(f"{what}: " + " / ".join(problems))
