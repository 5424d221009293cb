"""Every way to park that was proposed, as a kernel: who survives what (``kernels/park-*.patch``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tests.lab.bochs.build import VERSION as BOCHS
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
ON_7 = "design7-"
"""How names begin of experiments in which the resumer is a 7.3; those of 6.1 begin with ``design-``."""


def pairs(design: str) -> dict[str, tuple[str, str]]:
    """Resumee and resumer: one of them with the design, both, and one kernel on both sides."""
    new, other, plain = f"near-{design}", f"far-{design}", "far-current"
    return {"new-old": (plain, new), "old-new": (new, plain), "both": (other, new), "same": (new, new)}


def shows(experiment: Experiment, emulator: str) -> bool:
    """Whether an emulator can carry out what the family wants, and shows it: QEMU's MWAIT ends at once."""
    sides = (experiment.resumee, experiment.resumer)
    if not experiment.name.startswith(("design-", ON_7)):
        return True
    if emulator == BOCHS:
        return not any(side.kexec_from for side in sides)
    return not any(side.kernel.endswith("-mwait") for side in sides)


def left_offline(name: str, builds: Mapping[str, tuple[str, str]], events: Iterable[Event]) -> Iterator[Experiment]:
    """Each pair of builds, each event, with a CPU that the resumee leaves offline."""
    for pair, (resumee, resumer) in builds.items():
        for event in events:
            yield Experiment(
                f"{name}-{pair}-{event}",
                Side(resumee, OFF, offline=(1,)),
                Side(resumer, "nokaslr"),
                machine=CORES,
                event=event,
                image_size=None,
                fill_mib=24,
            )


def designs() -> Iterator[Experiment]:
    """Each design, each pair of builds, each event, with a CPU that the resumee leaves offline; the rest in pairs."""
    for design in ALL:
        yield from left_offline(f"design-{design}", pairs(design), EVENTS)
        yield from others(design)


def designs_7() -> Iterator[Experiment]:
    """The same with a resumer of 7.3, whose images 6.1 does not load: today's kernel is one of 7.3, too, then.

    A resumee of 6.1 that has the design shows whether two versions agree on it.  CPUs sleep in MWAIT on Bochs alone.
    """
    for design in ALL:
        new = f"n73-{design}"
        sides = {
            "new-old": ("far-current", new),
            "old-new": (new, "n73-current"),
            "both": (f"far-{design}", new),
            "same": (new, new),
        }
        yield from left_offline(f"{ON_7}{design}", sides, EVENTS[:2])
        hand = Side(new, "nokaslr", offline=(1,))
        yield Experiment(f"{ON_7}{design}-hand-in-r", Side("far-current"), hand, machine=CORES)


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
    for event in EVENTS[:2]:
        yield Experiment(
            f"design-{design}-boot-{event}",
            Side(plain, OFF, offline=(1,), kexec_from=plain, kexec_cpu=1),
            Side(new, "nokaslr", kexec_from=plain, kexec_cpu=1),
            machine=CORES,
            event=event,
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
