"""Every way to park that was proposed, as a kernel: who survives what (``kernels/park-*.patch``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.experiment import Event, Experiment, Side
from tests.lab.machine import Machine

SELF_CONTAINED = ("paged", "flat", "pause")
"""CPUs wait in frames of neither kernel, and the resumee is told of them."""
LEAVES = ("hlt", "current", "kick", "fixmap")
"""Of the CPUs that were offline before, some are not brought up to be parked: they stay in MWAIT, or leave it there.

`current` does since 2066f00e5b2d ("x86/topology: Implement topology_is_core_online() to address SMT regression", in
v6.17).
"""
SENDS_INIT = ("init", "bsp")
"""Parked CPUs wait for a SIPI."""
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


def planned(experiment: Experiment, emulator: str) -> bool:
    """Whether an experiment is to be run on an emulator, since that decides something.

    QEMU is to run all but kernels that park in MWAIT, which ends at once there.  Bochs is to run what QEMU shows
    otherwise than a processor (README.md, "Where the two machines disagree"): a CPU that is in MWAIT when others are
    parked; an INIT to a CPU in HLT, which QEMU keeps pending, and what events do to a CPU that has taken it.  CPUs in
    HLT or in a loop of their own meet the same on both, to which each design of 6.1 is held under a resumee of today.
    """
    if not experiment.name.startswith(("design-", ON_7)):
        return True
    design = experiment.resumer.kernel.partition("-")[2]
    if emulator != BOCHS:
        return design != "mwait"
    if experiment.resumee.kexec_from or experiment.resumer.kexec_from:
        return False  # Bochs has no kexec
    if design == "mwait" or experiment.name.startswith(f"design-{design}-new-old-"):
        return True
    if was_offline(experiment.resumer):
        return design in LEAVES or design in SENDS_INIT
    return design in SENDS_INIT and any(f"-{pair}-" in experiment.name for pair in pairs(design))


def was_offline(resumer: Side) -> bool:
    """Whether some CPUs of a resumer are offline, in MWAIT, before it parks the others."""
    return bool(resumer.offline) or "nosmt" in resumer.cmdline.split()


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

    A resumee of 6.1 that has the design shows whether two versions agree on it.  What runs where: :func:`planned`.
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
