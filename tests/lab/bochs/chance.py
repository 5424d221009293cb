"""Experiments for Bochs drawn at random from a seed: where the line, code and tables lie, and when a CPU wakes.

A scene (two kernels, who is offline, where all lies) serves some moments and events.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.lab.bochs.rows import DEEP, FOUR, LARGE, LOW_INITRD, MID, NEW, OLD
from tests.lab.experiment import Event, Experiment, Side, Tlb
from tests.lab.machine import Machine

MOMENTS = 4
"""Experiments of a scene."""
RESUMEES = ("small-current", "mid-current", "mid-current", "wide-current", "wide-current", "v73-stock", OLD, NEW)
PLACES = {320: (0x2000000, 0x6000000, 0xE000000, 0x12E00000), 512: (0x6000000, 0x12E00000, 0x1BE00000, 0x1C200000)}
"""Physical addresses for a kernel, by MiB of memory; the last leave the per-CPU areas hardly any room above it."""
NO_ROOM = {320: "memmap=2M$0x13c00000", 512: "memmap=2M$0x1fc00000"}
"""And these none, so that the lines lie below code and tables."""
SLEEP_LATENCIES = ((0, 0), (0, 0), (1, 200), (200, 1000), (1000, 2500), (2500, 4000))


STOCK_FILL = 40
"""MiB that one of Debian's kernels fills at most: with 106 of 320 MiB none hibernates, as an image has half at most."""

FEWER = (
    "2,sockets=1,cores=1,threads=2",
    "2,sockets=1,cores=2,threads=1",
    "3,sockets=1,cores=3,threads=1",
)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A kernel and how CPUs come to sleep in MWAIT in it when it resumes."""

    kernel: str
    cmdline: str = "nokaslr"
    offline: bool = False


SLEEPERS = (
    Sleeper("v73-stock", offline=True),  # enter_dead of intel_idle
    Sleeper("v73-stock", offline=True),
    Sleeper("small-mwait"),  # all, as before 406f992e4a37
    Sleeper("small-mwait", offline=True),
    Sleeper("small-hlt", "nokaslr nosmt"),  # mwait_play_dead, rescued by nobody
    Sleeper("small-hlt", offline=True),
    Sleeper("small-current", offline=True),  # rescued
    Sleeper(NEW, offline=True),
    Sleeper(NEW, "nokaslr nosmt"),
    Sleeper(NEW, "nokaslr numa=fake=2", offline=True),
    Sleeper(MID, offline=True),
)


def draw(seed: int, number: int) -> Experiment:
    """The experiment of a number: the scene of ``number // MOMENTS``, and a moment of its own."""
    stage = scene(random.Random(f"{seed} scene {number // MOMENTS}"))
    dice = random.Random(f"{seed} moment {number}")
    low, high = dice.choice(SLEEP_LATENCIES)
    events: tuple[Event, ...] = ("none", "none", "none", "nmi", "smi", "mce")
    tlb: Tlb = dice.choice(("warm", "cold"))
    return replace(stage, name=f"b{seed}-{number}", latency=dice.randint(low, high), tlb=tlb, event=dice.choice(events))


def scene(dice: random.Random) -> Experiment:
    """Draw two kernels on a machine."""
    sleeper = dice.choice(SLEEPERS)
    resumee = Side(dice.choice(RESUMEES))
    stock = [kernel for kernel in (sleeper.kernel, resumee.kernel) if kernel.startswith("debian-")]
    machine = draw_machine(dice, stock=bool(stock))
    cpus = machine.cpus
    some = dice.choice(((cpus - 2, cpus - 1), (cpus - 1,), tuple(range(1, cpus)))) if cpus > 2 else (1,)
    resumer = Side(sleeper.kernel, sleeper.cmdline, tuple(cpu for cpu in some if cpu) if sleeper.offline else ())
    if sleeper.cmdline.endswith("nosmt") and dice.random() < 0.5:
        resumee = replace(resumee, cmdline="nokaslr nosmt")
    elif dice.random() < 0.5:
        resumee = replace(resumee, offline=resumer.offline or (cpus - 1,))
    if dice.random() < 0.15:
        resumer = replace(resumer, cmdline=resumer.cmdline.replace("nokaslr", "").strip())
    if dice.random() < 0.6 and not stock:
        resumee, resumer = placed(dice, resumee, machine), placed(dice, resumer, machine)
        if dice.random() < 0.4:
            resumee, resumer = (with_word(side, NO_ROOM[machine.memory_mib]) for side in (resumee, resumer))
    drawn = Experiment(
        "scene",
        resumee,
        resumer,
        machine=machine,
        image_size=dice.choice((None, None, 0)),
        fill_mib=dice.choice((0, 0, 40, machine.memory_mib // 3)),
        fill_byte=dice.choice((0, 0xCC, 0x90)),
        churn_mib=dice.choice((16, 16, machine.memory_mib // 3)),
    )
    return replace(drawn, fill_mib=min(drawn.fill_mib, STOCK_FILL)) if resumee.kernel.startswith("debian-") else drawn


def draw_machine(dice: random.Random, *, stock: bool) -> Machine:
    """Draw the hardware."""
    if stock:
        return FOUR
    machine = dice.choice((FOUR, FOUR, FOUR, DEEP, LARGE))
    smp = dice.choice((FOUR.smp, FOUR.smp, *FEWER))
    return replace(machine, smp=smp)


def placed(dice: random.Random, side: Side, machine: Machine) -> Side:
    """Let the boot loader put a kernel somewhere, if its address is not random."""
    if "nokaslr" not in side.cmdline or dice.random() < 0.3:
        return side
    return replace(
        side, load=dice.choice(PLACES[machine.memory_mib]), initrd_at=LOW_INITRD if dice.random() < 0.7 else 0
    )


def with_word(side: Side, word: str) -> Side:
    """Add a word to a command line."""
    return replace(side, cmdline=f"{side.cmdline} {word}".strip())
