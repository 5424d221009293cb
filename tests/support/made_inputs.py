"""Made inputs of a check: what of the resumer was measured, what of the resumee, and what was said, without files."""

from __future__ import annotations

from types import SimpleNamespace

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology
from hibercheck.handoff.facts.pending import PendingCopies
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.resumer_facts import ResumerFacts
from hibercheck.handoff.facts.running import RunningKernelFacts
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import make_plan
from hibercheck.handoff.scenario.sources import Asking, InDump, Inputs
from tests.support.made_traits import made_traits

LINKED = 0x1000000
"""Where a kernel's text lies without KASLR: CONFIG_PHYSICAL_START's default."""
SMT = Topology({0: 0, 1: 1, 2: 2, 3: 3}, 1, frozenset({0, 2}))
INTEL = CpuFeatures("intel", 0xD, frozenset({"mwait", "clflush", "smep"}), frozenset(), 48, 39, 6, 0x9E)


class Kernel:
    """A kernel's file that has these symbols, at these addresses."""

    path = "vmlinux"
    release = "6.1.0"
    percpu_zero_based = True

    def __init__(self, *, banner="Linux version 6.1.0 (a@b) #1", build_id=None, **symbols):
        self.banner = banner
        self.build_id = build_id
        self.addresses = {"_text": START_KERNEL_MAP + LINKED} | symbols

    def symbol(self, name):
        return SimpleNamespace(name=name, address=self.addresses[name]) if name in self.addresses else None

    def require(self, name):
        found = self.symbol(name)
        if found is None:
            raise MissingFact(f"no {name}")
        return found


def made_space(kernel=None, *, levels=4, phys_base=0, kaslr_offset=0, variables=None):
    """Return an address space of which its place is known, and these variables."""

    def variable(symbol, size=8):
        if symbol not in (variables or {}):
            raise MissingFact(f"no {symbol}")
        return variables[symbol]

    mode = SimpleNamespace(levels=levels)
    place = {"phys_base": phys_base, "kaslr_offset": kaslr_offset}
    return SimpleNamespace(kernel=kernel or Kernel(), mode=mode, variable=variable, one_cpu=False, **place)


def made_collected(**values):
    """Return what the resumer told of itself: this, and nothing else."""
    names = (
        *("banner", "command_line", "load_address", "text_address", "present", "online", "topology", "features"),
        *("idle", "firmware", "levels"),
    )
    return ResumerFacts(**{"path": "facts.json", **dict.fromkeys(names), **values})


def made_dumped(space=None, machine_cpus=None, **values):
    """Return the resumer in a dump, of which this was read, and nothing else."""
    names = (
        *("command_line", "present", "online", "booted", "frozen", "smt_control", "topology", "features", "idle"),
        *("e820", "pages", "lockdown", "no_hibernation", "hardware_signature", "restores"),
    )
    facts = RunningKernelFacts(**{**dict.fromkeys(names), "missing": {}, **values})
    space = space or made_space()
    return InDump("dump", space, facts, PendingCopies(space, 0), machine_cpus)


def made_resumee(space=None, **values):
    """Return a resumee with two cores of two threads, all of them running."""
    plain = {
        "space": space or made_space(), "command_line": "", "present": frozenset(range(4)),
        "frozen": frozenset({1, 2, 3}), "smt_control": "enabled", "topology": SMT, "features": INTEL, "idle": None,
        "e820": None, "e820_checksum": None, "missing": {}, "loader_line": "",
    }  # fmt: skip
    return Resumee(**{**plain, **values})


def asking(
    *,
    traits=None,
    resumee=None,
    resumer=None,
    collected=None,
    dumped=None,
    logged=None,
    image=None,
    attached=None,
    **options,
):
    """Return the facts of a run of which this was given.

    Args:
        traits: What the resumer's code does, by trait.
        resumee: The resumee; by default as `made_resumee` has it.
        resumer: The resumer's kernel; by default the resumee's.
        collected: What the resumer told of itself, by name, or None.
        dumped: The resumer in a dump, or None.
        logged: What its kernel's log says, or None.
        image: What of the image is asked for.
        attached: The bootconfig of its initramfs, or None.
        options: The options of the check.
    """
    resumee = resumee or made_resumee()
    inputs = Inputs(
        image,
        resumer or resumee.kernel,
        made_traits(**(traits or {})),
        resumee,
        None if collected is None else made_collected(**collected),
        dumped,
        logged,
        attached=attached,
    )
    return Asking(inputs, CheckOptions(**options))


def made_image(compressor="lzo", *, hw_sig=None, swap_uuid=None, pages=32768, runs=((0x100, 0x1000),), **record):
    """Return an image that holds these runs of frames, (first, length), and says this in its headers."""
    frames = [pfn for first, length in runs for pfn in range(first, first + length)]

    class Frames(frozenset):
        has_zero_flag = record.pop("zero_flag", False)
        last = max(frames, default=0)

        def runs(self):
            return iter(runs)

    plain = {"magic": 0x123456789ABCDEF1, "e820_checksum": None, "e820_digest": None}
    return SimpleNamespace(
        compressor=compressor,
        header=SimpleNamespace(hw_sig=hw_sig),
        info=SimpleNamespace(num_physpages=pages, image_pages=len(frames)),
        record=SimpleNamespace(**{**plain, **record}),
        pfns=Frames(frames),
        swap_map=SimpleNamespace(base=0x100000),
        header_offset=0x100000,
        swap_uuid=swap_uuid,
    )


KNOWN = {
    "randomize_base": False, "resume_park": "hlt", "rescues_offline": False, "nosmt_resume_targets": "none",
    "la57": False, "reparks_siblings_after_resume": False, "hibernation": True,
}  # fmt: skip
"""Traits without which no plan is whole."""


def made_plan(**given):
    """Return the scenario of these inputs, as `asking` takes them; its kernel parks its CPUs in HLT."""
    given["traits"] = {**KNOWN, **(given.get("traits") or {})}
    run = asking(**{"image": made_image(), **given})
    return make_plan(run.inputs, run.options)
