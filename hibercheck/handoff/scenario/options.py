"""What a user can say about a check beyond its three inputs: the scenario, further inputs, and how deep to look."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

from hibercheck.addresses import LOAD_ALIGNMENT
from hibercheck.cpulist import MAX_CPUS
from hibercheck.data import dataclass, replace
from hibercheck.errors import UsageProblem
from hibercheck.handoff.facts.given import parse_fact

Idle = Literal["mwait", "halt", "port", "none"]
"""How the resumer's cpuidle driver parks a dead CPU where ``play_dead`` asks it (``none``: it has no such driver)."""

Event = Literal["nmi", "mce", "smi", "store"]
"""Something that reaches every CPU but its sender after the handoff."""

Mwait = Literal["sleeps", "ends"]
"""Whether a CPU in MWAIT sleeps until something wakes it, or MWAIT ends at once, always."""

Tlb = Literal["warm", "cold"]
"""What a CPU that wakes has of its translations: C6 and deeper states flush them."""


_WORDS = {"resumer_idle": get_args(Idle), "tlb": get_args(Tlb)}
_TEXTS = (
    *("resumer_cmdline", "resumer_cmdline_add", "resume", "resumer_memory", "resumer_registers", "resumer_facts"),
    *("resumer_log", "resumer_initramfs"),
    *("resumer_symbols", "resumee_symbols", "park"),
)
_FLAGS = ("spurious_mwait", "mwait_spins", "verify", "timeline", "execute", "what_if")
_NUMBERS = {"resumer_phys_base": LOAD_ALIGNMENT, "wake_latency": 1, "resume_offset": 1}
_CPU_SETS = ("resumer_offline", "resumee_online", "resumee_offline")


def _wrong(name: str, value: object, what: str) -> UsageProblem:
    shown = repr(value)
    return UsageProblem(f"{name} cannot be {shown if len(shown) <= 80 else f'{shown[:80]}...'}", advice=what)


def _text(name: str, value: object) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise _wrong(name, value, "it is text, or a path of text")
    return text


def _set(name: str, value: object) -> frozenset[Any]:
    """Return a set, list or tuple as a set; text is none, though it has members too."""
    try:
        if isinstance(value, frozenset | set | list | tuple):
            return frozenset(value)
    except TypeError:  # a member that no set can have
        pass
    raise _wrong(name, value, "it is a set, list or tuple")


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, str) for part in value)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of one check.  None means: read it from the inputs, or do without.

    Attributes:
        resumer_cmdline: The resumer's kernel command line, as far as the kernel reads it.
        resumer_cmdline_add: What is appended to it, or where it is not given to what else tells it.
        resumer_offline: Logical numbers of the CPUs taken offline by hand in the resumer before it resumes.
        resumer_idle: How the resumer's cpuidle driver parks a dead CPU.
        resumer_phys_base: Physical address at which the resumer's text starts.
        spurious_mwait: Whether MWAIT may end by itself, once, at the worst moment: the architecture allows that.
        mwait_spins: Whether MWAIT and the read of a C-state's port end at once, always, as in an emulator.
        suppose: Events supposed after the handoff.
        wake_latency: Copies made from a store to a monitored line until the CPU that it wakes runs; None: not known.
        tlb: Whether a CPU that wakes still has its translations cached; None: not known.
        resume_offset: Offset of the image's header in pages, as the kernel's ``resume_offset=``.
        resume: The partition of a disk that the image is on, as the kernel's ``resume=`` or by its number.
        verify: Whether to decode the whole image first and compare its checksum.
        resumer_memory: Path of a dump of the resumer's memory.
        resumer_registers: Path of its CPUs' registers as text, for a dump that has none.
        resumer_facts: Path of a facts file collected on the resumer.
        resumer_log: Path of the log of the resumer's boot.
        resumer_initramfs: Path of its initramfs, or of the unified image that has it: a bootconfig is looked for there.
        resumer_symbols: Path of a System.map or kallsyms listing for the resumer.
        resumee_symbols: The same for the resumee.
        timeline: Whether to record the replay step by step.
        execute: Whether to run each parked CPU's code in an emulator as well.
        park: Name of a parking design to replay instead of the resumer's own.
        facts: Facts of the resumer's run by the names of `hibercheck.handoff.facts.given.FACTS`, as text.
        what_if: Whether what is given of the run comes before what a dump or facts say of it.
        resumee_online: CPUs that the resumee brings online again once it runs, before the events that are supposed.
        resumee_offline: CPUs that it takes offline again by then.
    """

    resumer_cmdline: str | None = None
    resumer_cmdline_add: str | None = None
    resumer_offline: frozenset[int] = frozenset()
    resumer_idle: Idle | None = None
    resumer_phys_base: int | None = None
    spurious_mwait: bool = False
    mwait_spins: bool = False
    suppose: frozenset[Event] = frozenset()
    wake_latency: int | None = None
    tlb: Tlb | None = None
    resume_offset: int | None = None
    resume: str | None = None
    verify: bool = False
    resumer_memory: str | None = None
    resumer_registers: str | None = None
    resumer_facts: str | None = None
    resumer_log: str | None = None
    resumer_initramfs: str | None = None
    resumer_symbols: str | None = None
    resumee_symbols: str | None = None
    timeline: bool = False
    execute: bool = False
    park: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    what_if: bool = False
    resumee_online: frozenset[int] = frozenset()
    resumee_offline: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check every value: what no option can be must not count as one that was not given.

        Raises:
            UsageProblem: A value is of another type or none of those that there are, or has no effect.
        """
        for name, allowed in _WORDS.items():
            if (value := getattr(self, name)) is not None and value not in allowed:
                raise _wrong(name, value, f"it is one of {', '.join(allowed)}")
        for name in _TEXTS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _text(name, value))
        for name in _FLAGS:
            if not isinstance(value := getattr(self, name), bool):
                raise _wrong(name, value, "it is True or False")
        for name, unit in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (type(value) is int and 0 <= value < 1 << 52 and value % unit == 0):
                which = f", a multiple of {unit:#x}" if unit > 1 else ""
                raise _wrong(name, value, f"it is a number from 0 to 2^52-1{which}")
        for name in _CPU_SETS:
            cpus = _set(name, getattr(self, name))
            if not all(type(cpu) is int and 0 <= cpu < MAX_CPUS for cpu in cpus):
                raise _wrong(name, getattr(self, name), f"it holds numbers of CPUs, from 0 to {MAX_CPUS - 1}")
            object.__setattr__(self, name, cpus)
        events = _set("suppose", self.suppose)
        if not events <= {*get_args(Event)}:
            raise _wrong("suppose", self.suppose, f"it holds any of {', '.join(get_args(Event))}")
        object.__setattr__(self, "suppose", events)
        if not isinstance(self.facts, tuple | list) or not all(_is_pair(one) for one in self.facts):
            raise _wrong("facts", self.facts, "it holds pairs of a fact's name and its value, both text")
        if self.resumer_registers is not None and self.resumer_memory is None:
            advice = "give the dump too (--resumer-memory)"
            raise UsageProblem("registers (--resumer-registers) have no effect without a dump", advice=advice)

    def with_line(self, line: str) -> CheckOptions:
        """Return them with another command line of the resumer, to which nothing is appended."""
        return replace(self, resumer_cmdline=line, resumer_cmdline_add=None)

    @property
    def given(self) -> dict[str, Any]:
        """The facts by name, understood; of one that was given twice the last.

        Raises:
            UsageProblem: There is no fact of a name, or its value is not valid.
        """
        return dict(parse_fact(f"{name}={value}") for name, value in self.facts)
