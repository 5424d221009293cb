"""Experiments drawn over what is not known of the resumer's run: where hibercheck would otherwise fill in a default.

Each is two kernels on one machine and one or two twists.  A twist is something that hibercheck is not told; an option
that tells it (``--resumer-idle``, that MWAIT spins) is given only in a part.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

OLD, MID, LATE, NEW = "debian-6.1.192", "debian-6.12.118", "debian-6.17.13", "debian-7.3.4"
STOCK = (OLD, OLD, MID, MID, LATE, NEW, NEW)
SMALL = ("small-current", "small-hlt", "mid-current", "v73-stock")
INTEL = "Skylake-Client,-hle,-rtm,+monitor"
PAIRS = "4,sockets=1,cores=2,threads=2"
TOPOLOGIES = (PAIRS, PAIRS, "2,sockets=1,cores=1,threads=2", "2,sockets=1,cores=2,threads=1")
MODELS = (
    "Skylake-Client,-hle,-rtm",
    f"{INTEL},+la57",
    "Haswell-noTSX,+monitor",
    "Nehalem,+monitor",
    "EPYC,+monitor",
    f"{INTEL},-smap",
    f"{INTEL},-xsave",
    f"{INTEL},-pdpe1gb",
)
IDLE = ("idle=halt", "idle=nomwait", "idle=poll", "cpuidle.off=1", "clearcpuid=131", "processor.max_cstate=1")
"""131 is MWAIT (arch/x86/include/asm/cpufeatures.h, word 4)."""
ODD = (
    "nokaslr=1",
    "-- nokaslr",
    "nr_cpus=1 nr_cpus=2",
    "nr_cpus=2 nr_cpus=1",
    "mem=200M mem=1G",
    "mem=1G mem=200M",
    "maxcpus=2 maxcpus=1",
    "nosmt nosmt=force",
    "nosmt=0",
    "hibernate=no hibernate=nocompress",
    "hibernate=nocompress hibernate=no",
    "nohibernate",
    "noresume",
    "resume=/dev/nvme0n1",
    "resume_offset=8",
    "hugepages=64",
    "memmap=1M$0x8000000",
    "mitigations=auto,nosmt",
    "l1tf=full,force",
    "nolapic",
    "nosmp",
    "acpi=off",
    "possible_cpus=1",
    "acpi_sleep=s4_hwsig",
    "cpuhp.parallel=0 maxcpus=2",
    "NOSMT",
    '"nosmt"',
)
Twist = Callable[[random.Random, Experiment], Experiment]


def draw(seed: int, number: int) -> Experiment:
    """Draw one experiment; the same seed and number give the same one."""
    dice = random.Random(f"standings {seed}/{number}")
    resumee = Side(dice.choice(STOCK if dice.random() < 0.7 else SMALL), line(dice, 0.8))
    resumer = Side(dice.choice(STOCK if dice.random() < 0.7 else SMALL), line(dice, 0.8))
    machine = Machine(smp=dice.choice(TOPOLOGIES), memory_mib=dice.choice((320, 512)), cpu=INTEL)
    found = Experiment(f"standings{seed}-{number}", resumee, resumer, machine=machine, told=dice.random() < 0.35)
    found = asleep(dice, found)
    for twist in dice.sample(sorted(TWISTS), dice.choice((1, 1, 2))):
        found = TWISTS[twist](dice, found)
    return found


def line(dice: random.Random, fixed: float) -> str:
    """A command line, mostly one that fixes the address."""
    return "nokaslr" if dice.random() < fixed else ""


def asleep(dice: random.Random, found: Experiment) -> Experiment:
    """Take CPUs offline on either side, and let something wake them later."""
    cpus = found.machine.cpus
    some = tuple(range(1, cpus)[-dice.choice((1, 1, 2)) :])
    event: Event = dice.choice(("none", "none", "nmi"))
    if dice.random() < 0.6:
        found = replace(found, resumer=replace(found.resumer, offline=some))
    if dice.random() < 0.4 or event != "none":
        line = f"{found.resumee.cmdline} iomem=relaxed".strip()
        found = replace(found, resumee=replace(found.resumee, cmdline=line, offline=some), event=event)
    return found


def with_words(side: Side, words: str, *, limits: bool = False) -> Side:
    """Add to a command line; words that leave CPUs out go with none taken offline by hand."""
    more = replace(side, cmdline=f"{side.cmdline} {words}".strip())
    return replace(more, offline=()) if limits else more


def stock(side: Side, kernel: str) -> Side:
    """A Debian kernel, where a small one cannot do it."""
    return side if side.kernel.startswith("debian-") else replace(side, kernel=kernel)


def uefi(dice: random.Random, found: Experiment) -> Experiment:
    """OVMF as firmware: another map, and another place for the kernel."""
    sides = {"resumee": stock(found.resumee, OLD), "resumer": stock(found.resumer, NEW)}
    return replace(found, machine=replace(found.machine, firmware="ovmf", memory_mib=512), **sides)  # type: ignore[arg-type]


def kexec(dice: random.Random, found: Experiment) -> Experiment:
    """Another kernel boots and starts the resumer."""
    first = dice.choice((OLD, MID, NEW))
    return replace(found, resumer=replace(stock(found.resumer, NEW), kexec_from=first))


def resized(dice: random.Random, found: Experiment) -> Experiment:
    """More or fewer CPUs under the resumer, or threads toggled, or other memory."""
    smp = dice.choice([one for one in TOPOLOGIES if one != found.machine.smp])
    other = replace(found.machine, smp=smp)
    if dice.random() < 0.25:
        other = replace(found.machine, memory_mib=found.machine.memory_mib + dice.choice((-64, 128)))
    offline = tuple(cpu for cpu in found.resumer.offline if cpu < other.cpus)
    if not offline and dice.random() < 0.6:
        offline = (other.cpus - 1,)
    return replace(found, resumer_machine=other, resumer=replace(found.resumer, offline=offline))


def other_model(dice: random.Random, found: Experiment) -> Experiment:
    """Another CPU model under the resumer."""
    machine = found.resumer_machine or found.machine
    return replace(found, resumer_machine=replace(machine, cpu=dice.choice(MODELS)))


def idle_of_resumee(dice: random.Random, found: Experiment) -> Experiment:
    """What the resumee chose for its own idling."""
    return replace(found, resumee=with_words(found.resumee, dice.choice(IDLE)))


def idle_of_resumer(dice: random.Random, found: Experiment) -> Experiment:
    """What the resumer chooses."""
    return replace(found, resumer=with_words(found.resumer, dice.choice(IDLE)))


def odd(dice: random.Random, found: Experiment) -> Experiment:
    """Parameters given twice, spelled oddly, or seldom used."""
    return replace(found, resumer=with_words(found.resumer, dice.choice(ODD), limits=True))


def odd_resumee(dice: random.Random, found: Experiment) -> Experiment:
    """The same on the resumee's side, of those with which it still hibernates."""
    words = dice.choice(("nr_cpus=2 nr_cpus=1", "maxcpus=1", "nosmt", "mem=1G mem=300M", "memmap=1M$0x8000000"))
    return replace(found, resumee=with_words(found.resumee, words, limits=True), event="none")


def maxcpus(dice: random.Random, found: Experiment) -> Experiment:
    """How many CPUs come up, on both sides of the parallel bring-up (cpuhp_bringup_cpus_parallel(), in v6.5)."""
    words = f"maxcpus={dice.choice((1, 2, 3))}" + dice.choice(("", "", " cpuhp.parallel=0"))
    side = with_words(replace(found.resumer, kernel=dice.choice((OLD, MID, NEW))), words, limits=True)
    return replace(found, machine=replace(found.machine, smp=PAIRS), resumer=side)


def lockdown(dice: random.Random, found: Experiment) -> Experiment:
    """Lockdown forbids hibernation, and so the resume."""
    words = dice.choice(("lockdown=integrity", "lockdown=confidentiality", "lockdown=none"))
    return replace(found, resumer=with_words(stock(found.resumer, MID), words))


def plugged(dice: random.Random, found: Experiment) -> Experiment:
    """Memory that came while the resumee ran."""
    machine = replace(found.machine, hotplug_mib=128)
    return replace(found, machine=machine, resumee=stock(found.resumee, OLD), resumer_machine=replace(machine))


def lz4(dice: random.Random, found: Experiment) -> Experiment:
    """An image compressed with what the resumer has as a module, loaded or not."""
    modules = ("lz4_compress", "lz4") if dice.random() < 0.5 else ()
    resumee = with_words(replace(found.resumee, kernel=NEW), "hibernate.compressor=lz4")
    return replace(found, resumee=resumee, resumer=replace(found.resumer, kernel=MID, modules=modules))


def built_in(dice: random.Random, found: Experiment) -> Experiment:
    """A resumer with a command line of its own (kernels/cmd.config)."""
    return replace(found, resumer=replace(found.resumer, kernel="cmd-hlt", offline=()))


TWISTS: dict[str, Twist] = {
    "built-in command line": built_in,
    "idle of the resumee": idle_of_resumee,
    "idle of the resumer": idle_of_resumer,
    "kexec": kexec,
    "lockdown": lockdown,
    "lz4": lz4,
    "maxcpus": maxcpus,
    "odd": odd,
    "odd resumee": odd_resumee,
    "other model": other_model,
    "plugged": plugged,
    "resized": resized,
    "uefi": uefi,
}
