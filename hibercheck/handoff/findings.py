"""What a check found: the report and everything in it, as plain frozen data.

This module only declares; `hibercheck.handoff.check` computes, `hibercheck.report` renders.
Every field that could not be determined is None, never a default.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum, StrEnum

from hibercheck.data import dataclass
from hibercheck.x86.paging import Walk


class Outcome(StrEnum):
    """What becomes of the machine, under the scenario and the supposed events."""

    RESUMES = "resumes"
    RESETS = "resets"
    REFUSED = "refused"
    UNDETERMINED = "undetermined"


class Verdict(StrEnum):
    """The judgement, from harmless to harmful; design and exit statuses are in `hibercheck(1)`."""

    SAFE = "safe"
    BENIGN = "benign"
    LATENT = "latent"
    RISK = "risk"
    FATAL = "fatal"
    REFUSED = "refused"
    UNDETERMINED = "undetermined"


class Level(IntEnum):
    """Weight of a finding.  A note never fails a run."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


class Fate(StrEnum):
    """What becomes of one CPU."""

    UNTOUCHED = "untouched"
    """Nothing it can touch is overwritten, or nothing can make it touch anything."""
    PARKS_AGAIN = "parks again"
    """It runs through overwritten memory that holds the same bytes and equivalent tables."""
    REINITIALISED = "re-initialised"
    """It survives the copy and the resumee's INIT ends its parking."""
    STAYS_PARKED = "stays parked"
    """It survives the copy and stays in memory that is the resumee's, for as long as nothing wakes it."""
    DIES = "dies"
    """It executes foreign bytes or faults without a way out; the machine resets."""
    UNKNOWN = "unknown"
    """A fact is missing; the report's ``missing`` names it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A location in one kernel's memory.

    Attributes:
        virtual: Virtual address in that kernel, or None.
        physical: Physical address, or None where it is not known.
        symbol: ``name+0x1c`` in that kernel, or a description such as ``page table of the direct map``.
    """

    virtual: int | None = None
    physical: int | None = None
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something an expert can verify by hand.

    Attributes:
        title: One line that says what is shown.
        walk: The page walk, entry by entry, if that is the evidence.
        address: Physical address of the bytes shown.
        before: The resumer's bytes there.
        after: The resumee's bytes there, out of the image.
        lines: Further text lines (disassembly, for one).
    """

    title: str
    walk: Walk | None = None
    address: int | None = None
    before: bytes | None = None
    after: bytes | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that applies to one CPU (or to the whole handoff, where ``cpu`` is None).

    Attributes:
        rule: Stable identifier, ``HC201``.
        level: Weight here; may be lower than the rule's own (a benign overwrite is a note).
        cpu: Logical number of the CPU in the resumer.
        role: What the frame is to the CPU: ``park loop``, ``page table``, ``monitored line``, ``IDT gate`` and so on.
        message: What is the case, in one sentence.
        resumer: The place in the resumer.
        resumee: What the resumee has there.
        evidence: What proves it.
        advice: What to do, in one line.
    """

    rule: str
    level: Level
    cpu: int | None
    role: str
    message: str
    resumer: Place = Place()
    resumee: Place = Place()
    evidence: tuple[Evidence, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class FrameUse:
    """One frame of a CPU's footprint: it is touched if the CPU wakes.

    Attributes:
        role: Why it is touched: ``park loop``, ``page table 4``, ``per-CPU data``, ``IDT gate`` and so on.
        virtual: Virtual address whose access touches the frame.
        pfn: Frame number; None where the place is not known.
        resumer: Symbol of the resumer there.
        overwritten: Whether the image overwrites it; None where that is not known.
        resumee: What of the resumee lies there, if overwritten.
        same: Whether the bytes that matter are the same afterwards; None if not overwritten or not known.
    """

    role: str
    virtual: int | None
    pfn: int | None
    resumer: str | None
    overwritten: bool | None
    resumee: str | None = None
    same: bool | None = None


@dataclass(frozen=True, slots=True)
class CpuReport:
    """One CPU of the resumer other than the one that copies, or the boot CPU itself.

    Attributes:
        cpu: Logical number in the resumer.
        apic_id: Its APIC id, or None.
        boot_cpu: Whether it is the CPU that copies the image.
        state: Park state in words: ``mwait``, ``hlt``, ``port_io``, ``wait_for_sipi``, ``never_booted``, ``running``.
        why: How it came to be parked so, in one sentence.
        loop: Symbol of its park loop, ``mwait_play_dead+0x4d``.
        rip: Virtual address of its next instruction.
        cr3: Its page-table root.
        wakes: What can make it run: ``store to its line``, ``NMI`` and so on.
        footprint: The frames it touches.
        fate: What becomes of it.
        sentence: The same in one sentence with its reason.
        executed: What an emulator makes of it (``--execute``), or None.
    """

    cpu: int
    apic_id: int | None
    boot_cpu: bool
    state: str
    why: str
    loop: str | None
    rip: int | None
    cr3: int | None
    wakes: tuple[str, ...]
    footprint: tuple[FrameUse, ...]
    fate: Fate
    sentence: str
    executed: str | None = None


@dataclass(frozen=True, slots=True)
class Assumption:
    """A fact that was taken for granted, where it came from, and the option that changes it."""

    fact: str
    value: str
    source: str
    option: str | None = None


@dataclass(frozen=True, slots=True)
class MissingFactNote:
    """A fact that is missing and how to supply it."""

    fact: str
    supply: str


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the possible placements of the resumer fail."""

    failing: int
    placements: int
    of: str


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """The image as the report names it.  Sizes are in pages of 4 KiB."""

    path: str
    compressor: str
    pages: int
    zero_pages: int
    runs: tuple[tuple[int, int], ...]
    """(first PFN, length) of what the image covers; at most a few hundred entries, coarsened beyond that."""
    ram_pages: int
    cr3: int
    jump_address: int
    jump_address_phys: int
    consumed: bool = False


@dataclass(frozen=True, slots=True)
class KernelSummary:
    """A kernel as the report names it."""

    path: str
    release: str
    banner: str
    build_id: str | None
    load_address: int | None
    """Physical address of its text's start; None where it is random."""
    kaslr_offset: int | None
    """Virtual KASLR offset; None where it is random."""
    paging_levels: int | None
    command_line: str | None
    traits: tuple[tuple[str, str], ...] = ()
    """(trait, value) pairs that decided the verdict."""


@dataclass(frozen=True, slots=True)
class ScenarioSummary:
    """What was assumed of the resumer's run."""

    cpus: tuple[int, ...]
    boot_cpu: int
    offline_by_hand: tuple[int, ...]
    rescued: tuple[int, ...]
    supposed: tuple[str, ...]
    spurious_mwait: bool
    memory: str | None
    """Path of the resumer's memory dump, if one was given."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One step of the replay: copy number ``copy`` of ``copies`` (descending PFN) and what it does to whom."""

    copy: int
    pfn: int
    cpu: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a check found."""

    outcome: Outcome
    verdict: Verdict
    headline: str
    """One sentence that says what happens and why."""
    findings: tuple[Finding, ...]
    cpus: tuple[CpuReport, ...]
    image: ImageSummary
    resumer: KernelSummary
    resumee: KernelSummary
    scenario: ScenarioSummary
    assumptions: tuple[Assumption, ...] = ()
    missing: tuple[MissingFactNote, ...] = ()
    share: Share | None = None
    timeline: tuple[TimelineEvent, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    """Things about the inputs worth a line, such as a consumed image."""
