"""Experiments drawn at random from a seed, over everything the lab can vary."""

from __future__ import annotations

import random

from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

SMALL_KERNELS = ("small-current", "wide-current", "mid-current", "lean-current")
SMALL_RESUMERS = (
    "small-mwait",
    "small-hlt",
    "small-current",
    "small-init",
    "wide-hlt",
    "wide-current",
    "mid-hlt",
    "lean-hlt",
)
DEBIAN = ("debian-6.1.176", "debian-6.12.94", "debian-7.3.4")
TOPOLOGIES = (
    "1,sockets=1,cores=1,threads=1",
    "2,sockets=1,cores=1,threads=2",
    "2,sockets=1,cores=2,threads=1",
    "2,sockets=2,cores=1,threads=1",
    "4,sockets=1,cores=2,threads=2",
    "4,sockets=2,cores=2,threads=1",
)
MODELS = (
    "Skylake-Client,-hle,-rtm,+monitor",
    "Skylake-Client,-hle,-rtm,+monitor,+la57",
    "Skylake-Client,-hle,-rtm",
    "EPYC,+monitor",
    "Haswell-noTSX,+monitor",
)
RESUMER_WORDS = (
    "nosmt",
    "nosmt",
    "nosmt=force",
    "maxcpus=1",
    "maxcpus=2",
    "nr_cpus=2",
    "idle=poll",
    "idle=nomwait",
    "pti=on",
    "nopti",
)
RESUMEE_WORDS = ("nosmt", "maxcpus=1", "pti=on", "hibernate=nocompress", "idle=halt")


def draw(seed: int, number: int) -> Experiment:
    """Draw one experiment; the same seed and number give the same one."""
    dice = random.Random(f"{seed}/{number}")
    debian_e, debian_r = dice.random() < 0.25, dice.random() < 0.3
    smp = dice.choice(TOPOLOGIES)
    cpus = int(smp.split(",")[0])
    roomy = debian_e or debian_r or cpus > 2
    machine = Machine(smp=smp, memory_mib=256 if roomy else dice.choice((128, 128, 160, 192)), cpu=dice.choice(MODELS))
    event: Event = dice.choice(("none", "none", "none", "nmi", "nmi"))
    filled = dice.random() < 0.4 and not debian_e
    resumee = side(dice, DEBIAN if debian_e else SMALL_KERNELS, RESUMEE_WORDS, cpus, kaslr=0.15)
    if event != "none":
        resumee = Side(resumee.kernel, f"{resumee.cmdline} iomem=relaxed", resumee.offline or tuple(range(1, cpus))[:1])
    if "la57" in machine.cpu and dice.random() < 0.3:
        resumee = Side(resumee.kernel, f"{resumee.cmdline} no5lvl", resumee.offline)
    resumer = side(dice, DEBIAN if debian_r else SMALL_RESUMERS, RESUMER_WORDS, cpus, kaslr=0.2)
    if "la57" in machine.cpu and dice.random() < 0.3:
        resumer = Side(resumer.kernel, f"{resumer.cmdline} no5lvl", resumer.offline)
    return Experiment(
        f"seed{seed}-{number}",
        resumee,
        resumer,
        machine=machine,
        event=event,
        image_size=None if filled else 0,
        fill_mib=24 if filled else 0,
        fill_byte=dice.choice((0, 0, 0x90, 0xCC, 0xF4, 0xFF)) if filled else 0,
    )


def side(dice: random.Random, kernels: tuple[str, ...], words: tuple[str, ...], cpus: int, *, kaslr: float) -> Side:
    """Draw one kernel's boot."""
    kernel = dice.choice(kernels)
    line = [] if dice.random() < kaslr else ["nokaslr"]
    line += [dice.choice(words)] if dice.random() < 0.55 else []
    offline: tuple[int, ...] = ()
    if cpus > 1 and dice.random() < 0.35 and not any(word.startswith(("maxcpus", "nr_cpus", "nosmt")) for word in line):
        offline = tuple(sorted(dice.sample(range(1, cpus), dice.randint(1, cpus - 1))))
    return Side(kernel, " ".join(line), offline)
