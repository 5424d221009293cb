"""Every way to park that was proposed, as a kernel: who survives what (``kernels/park-*.patch``)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

SELF_CONTAINED = ("paged", "flat", "pause")
"""CPUs wait in frames of neither kernel, and the resumee is told of them."""
NEW = ("rescue", "bsp", "kick", "fixmap", *SELF_CONTAINED)
"""Designs that no kernel has."""
ALL = ("mwait", "hlt", "current", "init", *NEW)
EVENTS: tuple[Event, ...] = ("none", "nmi", "smi", "mce")
CORES = Machine(smp="2,sockets=1,cores=2,threads=1")
FOUR = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=256)
DEEP = Machine(smp="2,sockets=1,cores=2,threads=1", cpu="Skylake-Client,-hle,-rtm,+monitor,+la57")
OFF = "nokaslr iomem=relaxed"
"""The resumee's: it sends NMIs and SMIs by its local APIC."""


def pairs(design: str) -> dict[str, tuple[str, str]]:
    """Resumee and resumer: one of them with the design, both, and one kernel on both sides."""
    new, other, plain = f"near-{design}", f"far-{design}", "far-current"
    return {"new-old": (plain, new), "old-new": (new, plain), "both": (other, new), "same": (new, new)}


def designs() -> Iterator[Experiment]:
    """Each design, each pair of builds, each event, with a CPU that the resumee leaves offline; the rest in pairs."""
    for design in ALL:
        for pair, (resumee, resumer) in pairs(design).items():
            for event in EVENTS:
                yield Experiment(
                    f"design-{design}-{pair}-{event}",
                    Side(resumee, OFF, offline=(1,)),
                    Side(resumer, "nokaslr"),
                    machine=CORES,
                    event=event,
                    image_size=None,
                    fill_mib=24,
                )
        yield from others(design)


def others(design: str) -> Iterator[Experiment]:
    """Who is offline where, random load addresses, five levels."""
    new, plain = f"near-{design}", "far-current"
    yield Experiment(f"design-{design}-hand-in-r", Side(plain), Side(new, "nokaslr", offline=(1,)), machine=CORES)
    yield Experiment(
        f"design-{design}-hand-in-both",
        Side(new, OFF, offline=(1,)),
        Side(new, "nokaslr", offline=(1,)),
        machine=CORES,
        event="nmi",
    )
    for tag, e, r in (("r", "", " nosmt"), ("e", " nosmt", ""), ("both", " nosmt", " nosmt")):
        yield Experiment(
            f"design-{design}-nosmt-{tag}",
            Side(plain, f"nokaslr iomem=relaxed{e}"),
            Side(new, f"nokaslr{r}"),
            machine=FOUR,
            event="nmi",
        )
    yield Experiment(f"design-{design}-kaslr", Side(new, "iomem=relaxed", offline=(1,)), Side(new, ""), event="nmi")
    for tag, e, r in (("5", "", ""), ("4", " no5lvl", " no5lvl")):
        yield Experiment(
            f"design-{design}-levels-{tag}",
            Side(new, f"nokaslr iomem=relaxed{e}", offline=(1,)),
            Side(new, f"nokaslr{r}"),
            machine=DEEP,
            event="nmi",
        )
