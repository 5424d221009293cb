"""For each fact of a run: which conditions vary it where it is inferred or usual, or why nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hibercheck.data import dataclass


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What is done about a fact that may be otherwise than it is taken to be.

    Attributes:
        kinds: Kinds of conditions that vary it (`hibercheck.handoff.scenario.alternatives.KINDS`).
        why: Why no condition varies it, or why these are all; None where they need no word.
    """

    kinds: tuple[str, ...] = ()
    why: str | None = None


_NO_SIGN = "nothing in the inputs is a sign of another: the report says that it was taken for the usual one"

OTHERWISE: Mapping[str, Otherwise] = MappingProxyType(
    {
        "command-line": Otherwise(
            ("hw-sig-guest", "bootconfig"),
            "what its boot loader passes is the user's to say; what a kernel has built in is read, and that a line was "
            "taken from the resumee is shown",
        ),
        "cpus": Otherwise(("cpus",)),
        "offline-by-hand": Otherwise(
            (), "nobody takes CPUs offline before a resume without knowing of it: --resumer-offline"
        ),
        "idle-driver": Otherwise(("idle-driver",)),
        "mwait-states": Otherwise((), "only CPUID.5 of the machine tells; without it the idle driver is varied"),
        "mwait": Otherwise(("mwait-exits",)),
        "tlb": Otherwise(("tlb", "mwait-exits")),
        "wake-latency": Otherwise((), "survival that rests on it is a risk, with the margin in copies"),
        "exit-latency": Otherwise((), "survival that rests on it is a risk, with the margin in copies"),
        "copy-rate": Otherwise((), "survival that rests on it is a risk, with the margin in copies"),
        "line-size": Otherwise(
            (), "every Intel CPU with MWAIT so far has lines of 64 bytes; other vendors' were not read"
        ),
        "load-address": Otherwise(("load-address",), "a random one is swept, and is a risk"),
        "load-alignment": Otherwise(("load-alignment",)),
        "topology": Otherwise(("cpus",), "CPUs that the image does not know are taken to follow its order"),
        "cpu-features": Otherwise(("cpu-features",)),
        "smt-off": Otherwise(("smt",)),
        "booted": Otherwise(("bringup-order",)),
        "online": Otherwise(("bringup-order", "smt"), "it follows from who was started and who was taken offline"),
        "kaslr-offset": Otherwise((), "a random one is swept with the load address, and is a risk"),
        "paging-levels": Otherwise((), "it follows from the command line, the code and the CPU, which are varied"),
        "fred": Otherwise((), "it follows from the command line, the code and the CPU, which are varied"),
        "hibernates": Otherwise((), "only the resumer itself tells; what forbids it is varied as lockdown"),
        "lockdown": Otherwise(("lockdown",)),
        "resume": Otherwise(("resume",)),
        "hw-sig": Otherwise(("hw-sig",)),
        "compressor": Otherwise(("lz4-module",)),
        "memory-map": Otherwise((), _NO_SIGN),
        "pages": Otherwise(("memory-added",)),
        "free-pages": Otherwise(("room",)),
        "modes": Otherwise(("modes",)),
    }
)
"""By the fact's name in `hibercheck.handoff.scenario.known.TABLE`."""

OF_RESUMEE = ("resumee-start",)
"""Kinds of conditions about what the resumee does, which is not a fact of the resumer's run."""
