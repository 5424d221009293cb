"""What a user can say about a check beyond its three inputs: the scenario, further inputs, and how deep to look."""

from __future__ import annotations

from typing import Literal

from hibercheck.data import dataclass

Idle = Literal["mwait", "halt", "port", "none"]
"""How the resumer's cpuidle driver parks a dead CPU where ``play_dead`` asks it (``none``: it has no such driver)."""

Event = Literal["nmi", "mce", "smi"]
"""Something that reaches every CPU but its sender after the handoff."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of one check.  None means: read it from the inputs, or do without.

    Attributes:
        resumer_cmdline: The resumer's kernel command line, as far as the kernel reads it.
        resumer_offline: Logical numbers of the CPUs taken offline by hand in the resumer before it resumes.
        resumer_idle: How the resumer's cpuidle driver parks a dead CPU.
        resumer_phys_base: Physical address at which the resumer's text starts.
        spurious_mwait: Whether MWAIT may end at any time, as the architecture allows.
        suppose: Events supposed after the handoff.
        resume_offset: Offset of the image's header in pages, as the kernel's ``resume_offset=``.
        verify: Whether to decode the whole image first and compare its checksum.
        resumer_memory: Path of a dump of the resumer's memory.
        resumer_registers: Path of its CPUs' registers as text, for a dump that has none.
        resumer_facts: Path of a facts file collected on the resumer.
        resumer_symbols: Path of a System.map or kallsyms listing for the resumer.
        resumee_symbols: The same for the resumee.
        timeline: Whether to record the replay step by step.
        execute: Whether to run each parked CPU's code in an emulator as well.
        park: Name of a parking design to replay instead of the resumer's own.
    """

    resumer_cmdline: str | None = None
    resumer_offline: frozenset[int] = frozenset()
    resumer_idle: Idle | None = None
    resumer_phys_base: int | None = None
    spurious_mwait: bool = False
    suppose: frozenset[Event] = frozenset()
    resume_offset: int | None = None
    verify: bool = False
    resumer_memory: str | None = None
    resumer_registers: str | None = None
    resumer_facts: str | None = None
    resumer_symbols: str | None = None
    resumee_symbols: str | None = None
    timeline: bool = False
    execute: bool = False
    park: str | None = None
