"""Experiments drawn at random from a seed, over everything the lab can vary.

Nothing here asks what hibercheck can do: a drawing that keeps to what the model was made on measures nothing.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

SMALL_RESUMEES = ("small-current", "wide-current", "mid-current", "lean-current", "small-hlt", "v73-stock")
SMALL_RESUMERS = (
    "small-mwait",
    "small-hlt",
    "small-current",
    "small-init",
    "wide-hlt",
    "wide-current",
    "mid-hlt",
    "lean-hlt",
    "lean-mwait",
    "v73-stock",
)
DEBIAN = ("debian-6.1.176", "debian-6.12.94", "debian-7.3.4")
LATER = ("debian-6.16.3", "debian-6.16.12", "debian-6.17.13", "debian-6.18.15", "debian-7.0.13", "debian-7.1.13")
"""Packages that the corrections of the model had seen little of."""
WITH_EXT2 = ("mid-current", "lean-current", "v73-stock")
"""Built with a file system that a swap file can lie in."""
TOPOLOGIES = (
    "1,sockets=1,cores=1,threads=1",
    "2,sockets=1,cores=1,threads=2",
    "2,sockets=1,cores=2,threads=1",
    "2,sockets=2,cores=1,threads=1",
    "3,sockets=1,cores=3,threads=1",
    "4,sockets=1,cores=2,threads=2",
    "4,sockets=2,cores=2,threads=1",
    "4,sockets=2,cores=1,threads=2",
    "6,sockets=1,cores=3,threads=2",
)
INTEL = "Skylake-Client,-hle,-rtm,+monitor"
MODELS = (
    INTEL,
    INTEL,
    INTEL,
    f"{INTEL},+la57",
    "Skylake-Client,-hle,-rtm",
    "EPYC,+monitor",
    "EPYC",
    "Haswell-noTSX,+monitor",
    "Skylake-Server,-hle,-rtm,+monitor,+la57",
)
RESUMER_WORDS = (
    "nosmt",
    "nosmt",
    "nosmt=force",
    "mitigations=auto,nosmt",
    "maxcpus=1",
    "maxcpus=2",
    "nr_cpus=1",
    "nr_cpus=2",
    "nr_cpus=3",
    "possible_cpus=2",
    "idle=poll",
    "idle=nomwait",
    "idle=halt",
    "pti=on",
    "nopti",
    "init_on_free=1",
    "hibernate=nocompress",
    "noresume",
    "mem=100M",
    "mem=240M",
)
RESUMEE_WORDS = (
    "nosmt",
    "nosmt=force",
    "maxcpus=1",
    "maxcpus=2",
    "nr_cpus=1",
    "nr_cpus=2",
    "pti=on",
    "nopti",
    "hibernate=nocompress",
    "idle=halt",
    "init_on_free=1",
    "mem=120M",
)
LIMITS = ("maxcpus", "nr_cpus", "possible_cpus", "nosmt", "mitigations")
"""Words that leave CPUs out, so that those cannot be taken offline by hand."""
IDLE_NOTE = "an SSDT gives each CPU _CST with C1 (FFH) and C2 ({kind}); {patched}"
PATCHED = "the resumer was made to accept FFH states; its entry of them for running CPUs is sti;hlt (cst.py)"


def draw(seed: int, number: int, only: tuple[str, ...] = ()) -> Experiment:
    """Draw one experiment; the same seed, number and kernels give the same one.

    Args:
        seed: The seed.
        number: Which of its experiments.
        only: Kernels that both sides are drawn from, such as packages that came out since the model was last changed.

    Seeds 1 to 4 in the record were drawn before this drew idle states, compressors, SMIs, machine checks, more Debian
    packages and more topologies; they cannot be drawn again.
    """
    dice = random.Random(f"{seed}/{number}")
    debian_e, debian_r = dice.random() < 0.4, dice.random() < 0.5
    smp = dice.choice(TOPOLOGIES)
    cpus = int(smp.split(",")[0])
    roomy = bool(only) or debian_e or debian_r or cpus > 2
    memory = dice.choice((256, 256, 256, 320, 512)) if roomy else dice.choice((128, 128, 160, 192, 256))
    machine = Machine(smp=smp, memory_mib=memory, cpu=dice.choice(MODELS))
    event: Event = dice.choice(("none", "none", "none", "none", "nmi", "nmi", "smi", "mce"))
    filled = dice.random() < 0.4
    resumee = side(dice, only or (DEBIAN if debian_e else SMALL_RESUMEES), RESUMEE_WORDS, cpus, kaslr=0.15)
    event = event if cpus > 1 else "none"
    if event != "none":
        resumee = replace(resumee, cmdline=f"{resumee.cmdline} iomem=relaxed".strip())
        if not limited(resumee) and not resumee.offline and dice.random() < 0.7:
            resumee = replace(resumee, offline=(dice.randrange(1, cpus),))
    if resumee.kernel in ("debian-7.3.4", "v73-stock") and dice.random() < 0.4:
        resumee = replace(resumee, cmdline=f"{resumee.cmdline} hibernate.compressor=lz4".strip())
    resumers = LATER if debian_r and dice.random() < 0.3 else DEBIAN if debian_r else SMALL_RESUMERS
    resumer = side(dice, only or resumers, RESUMER_WORDS, cpus, kaslr=0.15)
    if "la57" in machine.cpu:
        resumee, resumer = (shallow(dice, one) for one in (resumee, resumer))
    experiment = Experiment(
        f"seed{seed}-{number}",
        resumee,
        resumer,
        machine=machine,
        event=event,
        image_size=None if filled else dice.choice((0, 0, 0, 40 << 20)),
        fill_mib=dice.choice((24, memory // 4)) if filled else 0,
        fill_byte=dice.choice((0, 0, 0x90, 0xCC, 0xF4, 0xEB, 0xFF)) if filled else 0,
        swap_file=dice.random() < 0.15 and resumee.kernel in WITH_EXT2,
    )
    return with_idle_states(dice, experiment)


def side(dice: random.Random, kernels: tuple[str, ...], words: tuple[str, ...], cpus: int, *, kaslr: float) -> Side:
    """Draw one kernel's boot."""
    kernel = dice.choice(kernels)
    line = [] if dice.random() < kaslr else ["nokaslr"]
    count = dice.choice((0, 0, 1, 1, 1, 2))
    line += list(dict.fromkeys(dice.choice(words) for _ in range(count)))
    drawn = Side(kernel, " ".join(line))
    if cpus == 1 or limited(drawn) or dice.random() > 0.4:
        return drawn
    offline = tuple(dice.sample(range(1, cpus), dice.randint(1, cpus - 1)))
    online = tuple(cpu for cpu in offline if dice.random() < 0.15)
    return replace(drawn, offline=offline, online=online)


def limited(side: Side) -> bool:
    """Whether the command line leaves CPUs out."""
    return any(word.startswith(LIMITS) for word in side.cmdline.split())


def shallow(dice: random.Random, side: Side) -> Side:
    """On a CPU with five levels of page tables, keep some kernels to four."""
    return replace(side, cmdline=f"{side.cmdline} no5lvl".strip()) if dice.random() < 0.3 else side


def with_idle_states(dice: random.Random, experiment: Experiment) -> Experiment:
    """Give some of Debian's kernels on Intel's CPUs a cpuidle driver: MWAIT states, a port, or HLT only."""
    resumer, machine = experiment.resumer, experiment.machine
    stock = resumer.kernel.startswith("debian-") and resumer.kernel != "debian-6.18.15"  # registers no driver here
    wanted = dice.random() < 0.7
    kind = dice.choice(("mwait", "mwait", "port"))
    unpatched = dice.random() < 0.25
    plain = "nokaslr" in resumer.cmdline.split() and "idle=" not in resumer.cmdline
    if not (stock and wanted and plain and machine.cpu.startswith(INTEL)):
        return experiment
    idle = "halt" if unpatched and kind == "mwait" else kind
    words = "MWAIT" if kind == "mwait" else "SystemIO"
    return replace(
        experiment,
        machine=replace(machine, acpi_table=kind),
        resumer=replace(resumer, take_idle_states=not unpatched),
        arguments=("--resumer-idle", idle),
        note=IDLE_NOTE.format(kind=words, patched="the resumer is as Debian built it" if unpatched else PATCHED),
    )
