"""The experiments with unmodified Debian packages, family by family."""

from __future__ import annotations

from collections.abc import Iterator

from tests.lab.experiment import Experiment, Side
from tests.lab.machine import Machine

CLOUD = Machine(memory_mib=256)
DEBIAN = ("debian-6.1.176", "debian-6.12.94", "debian-7.3.4")


def short(kernel: str) -> str:
    """A kernel's name as part of an experiment's."""
    return (
        kernel.replace("debian-", "deb")
        .replace("small-", "")
        .replace("wide-", "w-")
        .replace("lean-", "l-")
        .replace("mid-", "m-")
    )


def debian() -> Iterator[Experiment]:
    """Unmodified packages against each other and against the small kernels."""
    for e in DEBIAN:
        for r in DEBIAN:
            yield Experiment(
                f"{short(r)}-resumes-{short(e)}", Side(e, "nokaslr nosmt"), Side(r, "nokaslr nosmt"), machine=CLOUD
            )
        for park in ("hlt", "mwait"):
            yield Experiment(
                f"{park}-resumes-{short(e)}",
                Side(e, "nokaslr nosmt"),
                Side(f"small-{park}", "nokaslr nosmt"),
                machine=CLOUD,
            )
    for r in DEBIAN:
        for e in ("small-current", "wide-current"):
            yield Experiment(
                f"{short(r)}-resumes-{short(e)}", Side(e, "nokaslr nosmt"), Side(r, "nokaslr nosmt"), machine=CLOUD
            )


IDLE_NOTE = (
    "an SSDT gives each CPU _CST with C1 (FFH) and C2 ({kind}); the resumer was made to accept FFH states although "
    "CPUID.5 EDX is 0 under TCG (the sub-state test in acpi_processor_ffh_cstate_probe_cpu skipped), and its entry of "
    "them for running CPUs was made sti;hlt, since TCG refuses MWAIT with ECX=1"
)
MWAIT_IDLE = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=256, acpi_table="mwait")
PORT_IDLE = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=256, acpi_table="port")
CORES_IDLE = Machine(smp="2,sockets=1,cores=2,threads=1", memory_mib=256, acpi_table="mwait")


def idle_states() -> Iterator[Experiment]:
    """The hazard of 6.17: a core whose primary thread is offline is not rescued (2066f00e5b2d), and waits in MWAIT.

    Which CPUs are taken offline by hand in the resumer, in which kernel, for which resumee, on which idle state.
    """

    def one(name: str, resumee: str, resumer: Side, machine: Machine, idle: str) -> Experiment:
        note = IDLE_NOTE.format(kind="FFH" if machine.acpi_table == "mwait" else "SystemIO")
        return Experiment(
            name,
            Side(resumee),
            resumer,
            machine=machine,
            arguments=("--resumer-idle", idle),
            note=note,
            dump="-12" in name,
        )

    for resumer in ("debian-7.3.4", "debian-6.12.94"):
        for resumee in ("debian-6.1.176", "mid-current", "debian-7.3.4"):
            if (resumer, resumee) == ("debian-6.12.94", "debian-7.3.4"):
                continue
            for cpus in ((2,), (3,), (2, 3), (1, 2), (1,)):
                offline = "".join(map(str, cpus))
                side = Side(resumer, "nokaslr", offline=cpus, take_idle_states=True)
                yield one(f"idle-{short(resumer)}-{short(resumee)}-{offline}", resumee, side, MWAIT_IDLE, "mwait")
    for cpus in ((2,), (3,)):
        offline = "".join(map(str, cpus))
        side = Side("debian-7.3.4", "nokaslr", offline=cpus, take_idle_states=True)
        yield one(f"port-deb7.3.4-deb6.1.176-{offline}", "debian-6.1.176", side, PORT_IDLE, "port")
    for version in ("6.16.3", "6.16.12", "6.17.13", "6.18.15", "7.0.13", "7.1.13"):
        for cpus in ((2,), (3,)):
            side = Side(f"debian-{version}", "nokaslr", offline=cpus, take_idle_states=True)
            # 6.18.15 registers no idle driver on this machine (current_driver says none), so its dead CPUs are in HLT.
            idle = "none" if version == "6.18.15" else "mwait"
            yield one(f"when-{version}-deb6.1.176-{cpus[0]}", "debian-6.1.176", side, MWAIT_IDLE, idle)
    side = Side("debian-7.3.4", "nokaslr", offline=(1,), take_idle_states=True)
    yield one("idle-cores-deb7.3.4-deb6.1.176", "debian-6.1.176", side, CORES_IDLE, "mwait")
    side = Side("debian-7.3.4", "nokaslr nosmt", take_idle_states=True)
    yield one("idle-nosmt-deb7.3.4-deb6.1.176", "debian-6.1.176", side, MWAIT_IDLE, "mwait")
    side = Side("debian-7.3.4", "nokaslr nosmt", offline=(2,), take_idle_states=True)
    yield one("idle-nosmt-deb7.3.4-deb6.1.176-2", "debian-6.1.176", side, MWAIT_IDLE, "mwait")
    side = Side("debian-7.3.4", "nokaslr", offline=(2,))
    yield one("halt-deb7.3.4-deb6.1.176-2", "debian-6.1.176", side, MWAIT_IDLE, "halt")


def fix() -> Iterator[Experiment]:
    """The hazard of 6.17 with a small 7.3.4 as the resumer, as it is and with what might be done about it."""
    for resumer in ("v73-stock", "v73-fixed"):
        for cpus in ((2,), (2, 3)):
            yield Experiment(
                f"{resumer}-resumes-deb6.1.176-{''.join(map(str, cpus))}",
                Side("debian-6.1.176"),
                Side(resumer, offline=cpus, take_idle_states=True),
                machine=MWAIT_IDLE,
                arguments=("--resumer-idle", "mwait"),
                note=IDLE_NOTE.format(kind="FFH"),
            )


BULLSEYE = "debian-5.10.251"
VIRTIO = Machine(memory_mib=256, disk="virtio")
VIRTIO_FOUR = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=256, disk="virtio")


def bullseye() -> Iterator[Experiment]:
    """Debian 11's 5.10: on NVMe it can resume only; after its own snapshot its driver loses the disk in QEMU.

    Probably because it rings shadow doorbells that it did not clear at the reset: 58847f12fe78 ("nvme-pci: clear shadow
    doorbell memory on resets", in v5.16), which this 5.10 has not.  So the resumee has a virtio disk.
    """
    for e in ("debian-6.1.176", "debian-6.12.94", "small-current", "wide-current"):
        yield Experiment(
            f"deb5.10.251-resumes-{short(e)}", Side(e, "nokaslr nosmt"), Side(BULLSEYE, "nokaslr nosmt"), machine=CLOUD
        )
    for words in ("nokaslr nosmt", "nokaslr nosmt pti=on", "nosmt"):
        tag = words.replace("nokaslr", "").replace("=", "-").replace(" ", "-").strip("-")
        yield Experiment(
            f"deb6.1.176-resumes-deb5.10.251-{tag}{'' if 'nokaslr' in words else '-kaslr'}",
            Side(BULLSEYE, words),
            Side("debian-6.1.176", "nokaslr nosmt"),
            machine=VIRTIO,
        )
    yield Experiment(
        "deb5.10.251-resumes-itself",
        Side(BULLSEYE, "nokaslr nosmt"),
        Side(BULLSEYE, "nokaslr nosmt"),
        machine=VIRTIO,
    )
    yield Experiment(
        "deb5.10.251-resumes-deb6.1.176-offline",
        Side("debian-6.1.176"),
        Side(BULLSEYE, offline=(1, 2)),
        machine=VIRTIO_FOUR,
    )
    yield Experiment(
        "deb6.1.176-resumes-deb5.10.251-offline",
        Side(BULLSEYE),
        Side("debian-6.1.176", offline=(1, 2)),
        machine=VIRTIO_FOUR,
    )
    for r in (BULLSEYE, "debian-6.1.176"):
        yield Experiment(
            f"{short(r)}-resumes-deb5.10.251-offline-nmi",
            Side(BULLSEYE, "nokaslr iomem=relaxed", offline=(1,)),
            Side(r),
            machine=VIRTIO,
            event="nmi",
        )
