"""Experiments made for what QEMU cannot show: a CPU asleep in MWAIT, and the moment at which a store wakes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

FOUR = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=320)
SMALL = Machine(smp="2,sockets=1,cores=2,threads=1", memory_mib=128)
LARGE = replace(FOUR, memory_mib=512)
DEEP = replace(FOUR, cpu="Skylake-Client,-hle,-rtm,+monitor,+la57")
HIGH = 0x12E00000
"""A place for the kernel above most of what the other holds; the per-CPU areas then lie below or just above it."""
LOW_INITRD = 0x4000000
PAIR = (2, 3)
"""Both threads of the second core: since 6.17 nobody rescues them if their primary thread is offline."""
OLD, MID, NEW = "debian-6.1.192", "debian-6.12.118", "debian-7.3.4"
EVENTS: tuple[Event, ...] = ("none", "nmi", "smi", "mce")


def one(name: str, resumee: Side, resumer: Side, machine: Machine = FOUR, **more: object) -> Experiment:
    """An experiment whose image is as large as the kernel makes it."""
    return replace(Experiment(name, resumee, resumer, machine=machine, image_size=None), **more)  # type: ignore[arg-type]


def moments(name: str, resumee: Side, resumer: Side, *rows: tuple[int, str]) -> Iterator[Experiment]:
    """One resumer, and the moment at which its CPUs leave MWAIT after the store, in copies, with either TLB."""
    for latency, tlb in rows:
        yield one(f"{name}-{latency}-{tlb}", resumee, resumer, latency=latency, tlb=tlb)


def high(kernel: str, cmdline: str = "nokaslr", offline: tuple[int, ...] = (), load: int = HIGH) -> Side:
    """A kernel that the boot loader puts high."""
    return Side(kernel, cmdline, offline, load=load, initrd_at=LOW_INITRD)


def committed() -> Iterator[Experiment]:
    """Small machines, for fixtures/: a CPU that is woken and parks again, and one that dies in the copy."""
    yield one("sleeper", Side("small-current"), Side("v73-stock", offline=(1,)), SMALL, image_size=0)
    reserved = "nokaslr memmap=2M$0x7c00000"
    resumee, resumer = Side("mid-current", reserved), Side("v73-stock", reserved, (1,))
    place = {"load": 0x6E00000, "initrd_at": LOW_INITRD}
    yield one("line-below", replace(resumee, **place), replace(resumer, **place), SMALL, image_size=0)


def asleep() -> Iterator[Experiment]:
    """Lines above, below and between code and tables, outside the image, and every moment; and who wakes them later."""
    small, small_off = Side("small-current"), Side("small-current", offline=PAIR)
    stock = Side("v73-stock", offline=PAIR)
    yield one("v1", small, stock)
    yield from moments("v1", small, stock, (0, "cold"), (331, "cold"), (1167, "cold"), (1167, "warm"), (2335, "warm"))
    yield one("p5", small, Side("small-mwait"))
    yield from moments("p5", small, Side("small-mwait"), (0, "cold"), (700, "cold"), (700, "warm"), (4000, "warm"))
    yield one("v2", small_off, stock)
    yield from moments("v2", small_off, stock, (600, "cold"), (1500, "warm"), (3000, "warm"))
    yield one("v2-nmi", small_off, stock, event="nmi")
    for event in ("nmi", "smi", "mce"):
        yield one(f"hlt-{event}", small_off, Side("v73-stock"), event=event)
    for event in EVENTS:  # a line that no image overwrites, in code and tables that it does
        yield one(f"fixmap-{event}", Side("far-current", offline=PAIR), Side("near-fixmap", offline=PAIR), event=event)
    reserved = "nokaslr memmap=2M$0x13c00000"
    yield one("v9", high("small-current", reserved), high("small-mwait", reserved))
    yield one("v9-cold", high("small-current", reserved), high("small-mwait", reserved), tlb="cold")
    yield from committed()
    below = high("v73-stock", reserved, PAIR)
    yield one("below", high("mid-current", reserved), below)
    yield one("below-off", high("mid-current", reserved, PAIR), below)
    yield one("below-off-cold", high("mid-current", reserved, PAIR), below, tlb="cold")
    yield one("old1", Side("wide-hlt-old", "nokaslr nosmt"), Side("small-hlt-old", "nokaslr nosmt"))
    yield one("old3", Side("wide-hlt-old", "nokaslr nosmt"), Side("small-hlt", "nokaslr nosmt"))
    yield one("seed1", Side(OLD, "nokaslr nosmt"), Side("small-hlt", "nokaslr nosmt"))
    yield one("seed2", Side("mid-current", "nokaslr nosmt"), Side("small-hlt", "nokaslr nosmt"))
    yield one("p5off", small_off, Side("small-mwait"))
    yield one("p5off-smi", small_off, Side("small-mwait"), event="smi")
    yield one("v8b", high("small-current"), high("small-mwait"))
    yield one("v6high", high("small-current", load=0x12000000), high("v73-stock", offline=PAIR, load=0x12000000))
    yield one("v7line", small_off, replace(stock, cmdline="nokaslr possible_cpus=24"), churn_mib=150)
    for name, churn in (("v13", 235), ("v14", 270)):
        yield one(name, small_off, high("v73-stock", offline=PAIR), churn_mib=churn)
    for name, churn in (("free-16", 16), ("free-80", 80), ("v10", 150), ("v11", 235)):
        yield one(name, small_off, replace(stock, initrd_at=LOW_INITRD), churn_mib=churn)
    yield one("a9la57", small, Side("small-mwait"), DEEP)
    yield one("v4nosmt", small, Side("v73-stock", "nokaslr nosmt"))
    yield one("s1one", small, Side("v73-stock", offline=(3,)))


def stock() -> Iterator[Experiment]:
    """Debian's kernels, as they are."""
    yield one("s3deb", Side(OLD), Side("v73-stock", offline=PAIR))
    yield one("s2deb", Side(OLD, offline=PAIR), Side("v73-stock", offline=PAIR))
    yield one("d73off", Side(OLD), Side(NEW, offline=PAIR))
    yield from moments("d73off", Side(OLD), Side(NEW, offline=PAIR), (1000, "cold"), (1000, "warm"), (4000, "cold"))
    event: Event = "nmi"
    yield one("s4nmi", Side(OLD, offline=PAIR), Side(NEW, offline=PAIR), event=event)
    yield one(
        "f2",
        high(OLD, load=0x1BE00000),
        high(NEW, offline=PAIR, load=0x1C200000),
        LARGE,
    )
    yield online_store()
    yield one("g3", Side(OLD), Side(MID, offline=PAIR))
    yield one("g2same", Side(NEW), Side(NEW, offline=PAIR))
    yield one("d1", Side(OLD), Side(OLD))
    yield one("g4nosmt", Side(OLD), Side(NEW, "nokaslr nosmt"))
    yield one("g5kaslr", Side(OLD), Side(NEW, "", offline=PAIR))


def online_store() -> Experiment:
    """A CPU asleep on the resumee's count of CPUs, which changes with each that comes up before it.

    Both variables lie at the same offset in their pages (0x800).  The resumer's per-CPU area is made of single pages,
    from the highest free one down; what is reserved for a crash kernel, and the initramfs below it, leave room for as
    many of them as puts CPU 3's page where the resumee has the count.
    """
    resumee = Side(MID, load=0x1B800000, initrd_at=LOW_INITRD)
    line = "nokaslr percpu_alloc=page crashkernel=32184K@0x1e000000"
    return one("online-store", resumee, Side(NEW, line, PAIR, initrd_at=0x1D703000), LARGE, fill_mib=40)
