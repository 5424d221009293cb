"""The experiments that are always run, family by family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from tests.lab.bochs.rows import asleep
from tests.lab.bochs.rows import stock as asleep_stock
from tests.lab.designs import designs, designs_7
from tests.lab.experiment import Experiment, Side
from tests.lab.machine import Machine
from tests.lab.packages import CLOUD, DEBIAN, bullseye, debian, fix, idle_states, short

SMALL = Machine()
FOUR = Machine(smp="4,sockets=1,cores=2,threads=2", memory_mib=256)
CORES = Machine(smp="2,sockets=1,cores=2,threads=1")
ONE = Machine(smp="1,sockets=1,cores=1,threads=1")
LA57 = Machine(cpu="Skylake-Client,-hle,-rtm,+monitor,+la57")
EPYC = Machine(cpu="EPYC,+monitor", memory_mib=256)
PARKS = ("mwait", "hlt", "current", "init")


def park_states() -> Iterator[Experiment]:
    """Each way to park and each layout of the resumee, siblings taken offline by nosmt."""
    for resumee in ("small-current", "wide-current", "lean-current", "mid-current"):
        for park in PARKS:
            yield Experiment(
                f"nosmt-{park}-{short(resumee)}", Side(resumee, "nokaslr nosmt"), Side(f"small-{park}", "nokaslr nosmt")
            )
    for park in PARKS:
        yield Experiment(f"online-{park}-wide", Side("wide-current"), Side(f"small-{park}"))
        yield Experiment(f"online-{park}-lean", Side("lean-current"), Side(f"small-{park}"))
    for resumer in ("wide-hlt", "lean-hlt", "lean-mwait", "mid-hlt"):
        for resumee in ("small-current", "wide-current", "lean-current", "mid-current"):
            yield Experiment(
                f"nosmt-{short(resumer)}-{short(resumee)}-x",
                Side(resumee, "nokaslr nosmt"),
                Side(resumer, "nokaslr nosmt"),
            )


def filled() -> Iterator[Experiment]:
    """Images that cover much of the memory: what the parked CPU finds there is zeros, INT3 or NOP."""
    for resumer in ("small-mwait", "small-hlt", "small-current", "small-init", "wide-hlt", "lean-hlt"):
        yield Experiment(
            f"zeros-{short(resumer)}",
            Side("mid-current", "nokaslr nosmt"),
            Side(resumer, "nokaslr nosmt"),
            fill_mib=24,
            image_size=None,
        )
    for byte in (0xCC, 0x90):
        for resumer in ("small-mwait", "small-hlt"):
            yield Experiment(
                f"fill-{byte:02x}-{short(resumer)}",
                Side("mid-current", "nokaslr nosmt"),
                Side(resumer, "nokaslr nosmt"),
                fill_mib=24,
                image_size=None,
                fill_byte=byte,
            )
    yield Experiment(
        "zeros-m-hlt",
        Side("small-current", "nokaslr nosmt"),
        Side("mid-hlt", "nokaslr nosmt"),
        fill_mib=24,
        image_size=None,
    )
    for resumer in ("debian-6.1.176", "debian-6.12.94", "debian-7.3.4"):
        for event in ("none", "nmi"):
            yield Experiment(
                f"zeros-{short(resumer)}-{event}",
                Side("mid-current", "nokaslr iomem=relaxed", offline=(1,)),
                Side(resumer, "nokaslr"),
                machine=CLOUD,
                event=event,
                fill_mib=64,
                image_size=None,
            )


def formats() -> Iterator[Experiment]:
    """How the image is written."""
    yield Experiment("nocompress", Side("small-current", "nokaslr hibernate=nocompress"), Side("small-current"))
    yield Experiment(
        "nocompress-fatal",
        Side("wide-current", "nokaslr nosmt hibernate=nocompress"),
        Side("small-hlt", "nokaslr nosmt"),
    )
    yield Experiment("default-size", Side("small-current"), Side("small-init"), image_size=None)
    yield Experiment(
        "swap-file", Side("mid-current", "nokaslr nosmt"), Side("mid-hlt", "nokaslr nosmt"), swap_file=True
    )
    yield Experiment(
        "lz4-73", Side("debian-7.3.4", "nokaslr hibernate.compressor=lz4"), Side("debian-7.3.4"), machine=CLOUD
    )


def refusals() -> Iterator[Experiment]:
    """Images that the resumer does not take."""
    yield Experiment("less-memory", Side("small-current"), Side("small-current", "nokaslr mem=100M"))
    yield Experiment(
        "less-memory-debian", Side("debian-6.1.176"), Side("debian-6.12.94", "nokaslr mem=250M"), machine=CLOUD
    )
    yield Experiment("more-memory", Side("small-current", "nokaslr mem=100M"), Side("small-current"))
    yield Experiment("small61-refuses-612", Side("debian-6.12.94"), Side("small-current"), machine=CLOUD)
    yield Experiment(
        "small61-refuses-lz4",
        Side("debian-7.3.4", "nokaslr hibernate.compressor=lz4"),
        Side("small-hlt", "nokaslr nosmt"),
        machine=CLOUD,
    )
    yield Experiment(
        "deb612-refuses-lz4",
        Side("debian-7.3.4", "nokaslr hibernate.compressor=lz4"),
        Side("debian-6.12.94"),
        machine=CLOUD,
    )


def paging() -> Iterator[Experiment]:
    """Paging depth and isolation that differ between the two."""
    for name, e, r in (
        ("5-to-4", "", " no5lvl"),
        ("4-to-5", " no5lvl", ""),
        ("5-to-5", "", ""),
        ("4-to-4", " no5lvl", " no5lvl"),
    ):
        yield Experiment(
            f"la57-{name}",
            Side("small-current", f"nokaslr nosmt{e}"),
            Side("small-hlt", f"nokaslr nosmt{r}"),
            machine=LA57,
        )
        yield Experiment(
            f"la57-{name}-wide",
            Side("wide-current", f"nokaslr nosmt{e}"),
            Side("small-hlt", f"nokaslr nosmt{r}"),
            machine=LA57,
        )
    yield Experiment("pti-both", Side("wide-current", "nokaslr nosmt pti=on"), Side("wide-hlt", "nokaslr nosmt pti=on"))
    yield Experiment(
        "pti-resumer", Side("wide-current", "nokaslr nosmt nopti"), Side("wide-hlt", "nokaslr nosmt pti=on")
    )
    yield Experiment(
        "pti-resumee", Side("wide-current", "nokaslr nosmt pti=on"), Side("wide-hlt", "nokaslr nosmt nopti")
    )


def events() -> Iterator[Experiment]:
    """A CPU that the resumee leaves offline, and something that wakes it later."""
    for event in ("nmi", "smi", "mce"):
        for r in ("debian-6.1.176", "debian-6.12.94", "debian-7.3.4"):
            for e in ("debian-6.1.176", "wide-current"):
                yield Experiment(
                    f"{short(r)}-resumes-{short(e)}-offline-{event}",
                    Side(e, "nokaslr iomem=relaxed", offline=(1,)),
                    Side(r, "nokaslr"),
                    machine=CLOUD,
                    event=event,
                )
        for r in ("small-current", "small-init", "wide-current", "wide-hlt"):
            yield Experiment(
                f"{short(r)}-resumes-wide-offline-{event}",
                Side("wide-current", "nokaslr iomem=relaxed", offline=(1,)),
                Side(r, "nokaslr"),
                event=event,
            )


def cpus() -> Iterator[Experiment]:
    """Numbers of CPUs, and who takes them offline."""
    yield Experiment("one-cpu", Side("wide-current"), Side("small-mwait"), machine=ONE)
    yield Experiment(
        "cores-offline-resumer", Side("wide-current"), Side("small-hlt", "nokaslr", offline=(1,)), machine=CORES
    )
    yield Experiment(
        "cores-offline-online",
        Side("wide-current"),
        Side("small-hlt", "nokaslr", offline=(1,), online=(1,)),
        machine=CORES,
    )
    yield Experiment("maxcpus-resumer", Side("wide-current"), Side("small-hlt", "nokaslr maxcpus=1"), machine=CORES)
    yield Experiment("nr-cpus-resumer", Side("wide-current"), Side("small-hlt", "nokaslr nr_cpus=1"), machine=CORES)
    for resumer in ("v73-stock", "debian-6.12.94"):
        yield Experiment(
            f"resumee-nr-cpus1-v73-{short(resumer)}-nmi",
            Side("v73-stock", "nokaslr nr_cpus=1 iomem=relaxed"),
            Side(resumer),
            machine=CLOUD,
            event="nmi",
        )
    for words in ("nr_cpus=1", "maxcpus=1", "nosmt", "nr_cpus=1 possible_cpus=1"):
        tag = words.replace("=", "").replace("_", "-").replace(" ", "-")
        yield Experiment(
            f"resumee-{tag}",
            Side("mid-current", f"nokaslr {words}"),
            Side("small-hlt", "nokaslr nosmt"),
            image_size=None,
            fill_mib=24,
        )
        yield Experiment(
            f"resumee-{tag}-same", Side("small-hlt", f"nokaslr {words}"), Side("small-hlt", "nokaslr nosmt")
        )
    yield Experiment("nosmt-force", Side("wide-current"), Side("small-hlt", "nokaslr nosmt=force"))
    yield Experiment("mitigations-nosmt", Side("wide-current"), Side("wide-hlt", "nokaslr mitigations=auto,nosmt"))
    yield Experiment("four-nosmt", Side("wide-current"), Side("small-hlt", "nokaslr nosmt"), machine=FOUR)
    yield Experiment(
        "four-nosmt-maxcpus", Side("wide-current"), Side("small-hlt", "nokaslr nosmt maxcpus=2"), machine=FOUR
    )
    yield Experiment(
        "four-offline-12", Side("wide-current"), Side("small-hlt", "nokaslr", offline=(1, 2)), machine=FOUR
    )
    yield Experiment("four-online-mwait", Side("wide-current"), Side("small-mwait", "nokaslr"), machine=FOUR)
    yield Experiment(
        "four-offline-current", Side("wide-current"), Side("small-current", "nokaslr", offline=(1, 2, 3)), machine=FOUR
    )
    yield Experiment("idle-poll", Side("wide-current"), Side("small-hlt", "nokaslr nosmt idle=poll"))
    yield Experiment("idle-halt", Side("wide-current"), Side("small-hlt", "nokaslr nosmt idle=halt"))
    yield Experiment("idle-nomwait", Side("wide-current"), Side("small-hlt", "nokaslr nosmt idle=nomwait"))
    yield Experiment("amd-nosmt", Side("wide-current"), Side("small-hlt", "nokaslr nosmt"), machine=EPYC)
    yield Experiment("amd-mwait", Side("wide-current"), Side("small-mwait", "nokaslr"), machine=EPYC)
    yield Experiment(
        "no-monitor",
        Side("wide-current"),
        Side("small-hlt", "nokaslr nosmt"),
        machine=Machine(cpu="Skylake-Client,-hle,-rtm"),
    )


def load_addresses() -> Iterator[Experiment]:
    """Random load addresses on one side or both."""
    for number in range(3):
        tag = f"-{number}"
        yield Experiment(
            f"kaslr-both{tag}", Side("small-current", f"nosmt lab.run={number}"), Side("small-hlt", "nosmt")
        )
        yield Experiment(
            f"kaslr-resumee{tag}", Side("small-current", f"nosmt lab.run={number}"), Side("small-hlt", "nokaslr nosmt")
        )
        yield Experiment(
            f"kaslr-resumer{tag}", Side("wide-current", "nokaslr nosmt"), Side("small-hlt", f"nosmt lab.run={number}")
        )
        yield Experiment(
            f"kaslr-same{tag}",
            Side("small-hlt", f"nosmt lab.run={number}"),
            Side("small-hlt", f"nosmt lab.run={number}"),
        )


def committed() -> Iterator[Experiment]:
    """What fixtures/ holds: every verdict, from three small kernels and as few images as possible."""
    first = Side("mid-current", "nokaslr nosmt")
    second = Side("small-current", "nokaslr nosmt")
    yield Experiment("fatal", first, Side("small-hlt", "nokaslr nosmt init_on_free=1"), image_size=None, fill_mib=24)
    yield Experiment("safe", first, Side("small-current", "nokaslr nosmt"), image_size=None, dump=False, fill_mib=24)
    yield Experiment("benign", second, Side("small-hlt", "nokaslr nosmt"), dump=False)
    yield Experiment("same-build", second, Side("small-current", "nokaslr nosmt"), dump=False)
    yield Experiment("no-overlap", second, Side("mid-current", "nokaslr nosmt"), dump=False)
    yield Experiment("random-address", second, Side("small-hlt", "nosmt init_on_free=1"))
    third = Side("v73-stock", "nokaslr hibernate.compressor=lz4")
    yield Experiment("lz4-zero-pages", third, Side("v73-stock", "nokaslr nosmt"), dump=False)
    yield Experiment("refused", third, Side("small-current", "nokaslr"), dump=False)
    yield Experiment(
        "paging-mode", Side("small-current"), Side("small-current", "nokaslr no5lvl"), machine=LA57, dump=False
    )
    yield Experiment(
        "latent",
        Side("mid-current", "nokaslr iomem=relaxed hibernate=nocompress", offline=(1,)),
        Side("small-current"),
        event="nmi",
        image_size=None,
        dump=False,
        fill_mib=24,
    )


def collected() -> Iterator[Experiment]:
    """`hibercheck collect` on the resumer, whose kernel shows /proc/kcore, just before it resumes."""
    for cmdline, where in (("nokaslr nosmt", "fixed"), ("nosmt", "random")):
        yield Experiment(
            f"collect-kcore-{where}",
            Side("mid-current", "nokaslr nosmt"),
            Side("kcore-hlt", cmdline),
            image_size=None,
            fill_mib=24,
            collect=True,
        )
        for resumer in DEBIAN:
            yield Experiment(
                f"collect-{short(resumer)}-{where}",
                Side(resumer, "nokaslr nosmt"),
                Side(resumer, cmdline),
                machine=Machine(memory_mib=512),
                collect=True,
            )
    yield Experiment(
        "collect-la57",
        Side("debian-6.12.94", "nokaslr nosmt"),
        Side("debian-6.12.94", "nosmt"),
        machine=Machine(smp=FOUR.smp, memory_mib=3072, cpu=LA57.cpu),  # RAM beyond 4 GiB
        collect=True,
    )


FAMILIES: dict[str, Callable[[], Iterator[Experiment]]] = {
    "committed": committed,
    "parks": park_states,
    "filled": filled,
    "formats": formats,
    "refusals": refusals,
    "paging": paging,
    "debian": debian,
    "events": events,
    "cpus": cpus,
    "idle": idle_states,
    "fix": fix,
    "bullseye": bullseye,
    "kaslr": load_addresses,
    "collect": collected,
    "asleep": asleep,
    "asleep-stock": asleep_stock,
    "designs": lambda: chain(designs(), designs_7()),
}


def every() -> list[Experiment]:
    """All of them.

    Raises:
        ValueError: Two have one name.
    """
    out = [experiment for family in FAMILIES.values() for experiment in family()]
    names = [experiment.name for experiment in out]
    if len(set(names)) != len(names):
        raise ValueError(f"two experiments of one name: {sorted(name for name in names if names.count(name) > 1)[0]}")
    return out
