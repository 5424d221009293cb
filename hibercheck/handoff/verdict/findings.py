"""What a check found: the report and everything in it, as plain frozen data.

This module only declares; `hibercheck.handoff.verdict.check` computes, `hibercheck.report` renders.
Every field that could not be determined is None, never a default.
"""

from __future__ import annotations

import shlex
from dataclasses import field
from enum import IntEnum, StrEnum

from hibercheck.data import dataclass
from hibercheck.handoff.acceptance.refusal import Refusal
from hibercheck.handoff.facts.standing import Assumption
from hibercheck.handoff.replay.fate import Fate
from hibercheck.x86.paging import Walk


class Outcome(StrEnum):
    """What becomes of the machine, under the scenario and the supposed events."""

    RESUMES = "resumes"
    MAY_RESET = "may-reset"
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


HARM = (
    Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.RISK, Verdict.UNDETERMINED, Verdict.REFUSED, Verdict.FATAL,
)  # fmt: skip
"""From harmless to harmful, for telling better from worse."""


class Level(IntEnum):
    """Weight of a finding.  A note never fails a run."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


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
class WakeTiming:
    """When a store to its line wakes a CPU, in copies counted from 1.

    Attributes:
        store: The copy that writes the line.
        copies: How many there are.
        counted: Whether by the resumer's own list of them (`restore_pblist`, in a dump); else these are upper bounds.
        tables: The first copy from then on that leaves it lost unless its TLB is warm, or None.
        code: The first that leaves it lost for certain, or None.
        margin: Copies from the store to the first of these two, or None.
        longest: Copies that may be made at most until it runs; None where that is not known.
    """

    store: int
    copies: int
    tables: int | None
    code: int | None
    margin: int | None
    counted: bool = False
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class LineOwner:
    """Whose memory a parked CPU monitors once the image is in place.

    Attributes:
        physical: Physical address of the line.
        size: Its bytes.
        use: What it is (`hibercheck.handoff.memory.owner.Use`).
        names: What lies there: symbols of the resumee's kernel, or the name of a slab cache.
        cpu: Whose per-CPU data it is, or None.
        writes: Whether the resumee writes there (`hibercheck.handoff.memory.owner.Writes`).
        sentence: The same in one clause.
    """

    physical: int
    size: int
    use: str
    names: tuple[str, ...]
    cpu: int | None
    writes: str
    sentence: str


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
        when: When it dies or may: ``copy``, ``before-init`` or ``after``; None if it does not.
        cause: What wakes it then: ``store to its line``, ``NMI`` and so on.
        doubt: Why that is a matter of chance (`hibercheck.handoff.replay.fate.Doubt`), or None.
        timing: Of a store that wakes it: the number of the copy, and of those that then take its tables and its code.
        owner: Of a CPU that monitors a line: whose that is in the resumee; None where it is not known.
        exposure: The events that were not supposed and would kill it, or might.
        exposure_unknown: Those of them of which it is not known whether they would.
        lent: The events, supposed or not, that kill it once the resumee hands out free memory that it goes through.
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
    when: str | None = None
    cause: str | None = None
    doubt: str | None = None
    timing: WakeTiming | None = None
    owner: LineOwner | None = None
    exposure: tuple[str, ...] = ()
    exposure_unknown: tuple[str, ...] = ()
    lent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """What, if it were otherwise than it is taken to be, would change the verdict.

    Attributes:
        id: Stable name of the kind.
        fact: What it is about.
        value: What it would have to be.
        reason: The sign of it in the inputs.
        outcome: What becomes of the machine then.
        verdict: The verdict then.
        settle: What to add to the command line to say so, as (option, value); the value of a switch is empty.
        how: How to find out, in one clause.
    """

    id: str
    fact: str
    value: str
    reason: str
    outcome: Outcome
    verdict: Verdict
    settle: tuple[tuple[str, str], ...]
    how: str = ""

    @property
    def arguments(self) -> str:
        """What to add to the command line, as a shell reads it."""
        return shlex.join(word for argument in self.settle for word in argument if word)


@dataclass(frozen=True, slots=True)
class MissingFactNote:
    """A fact that is missing and how to supply it."""

    fact: str
    supply: str


@dataclass(frozen=True, slots=True)
class NotExamined:
    """Rules that a check could not look at: that there is no finding says nothing.

    Attributes:
        rules: Their identifiers.
        cpus: The CPUs for which they were not; none for what is not about a CPU.
        why: Why, in one clause.
        supply: What would let them be, such as an option.
    """

    rules: tuple[str, ...]
    cpus: tuple[int, ...]
    why: str
    supply: str


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the addresses at which the resumer may be loaded fail.

    Attributes:
        failing: How many fail.
        placements: How many there are.
        of: What they are, in words.
        places: All of them, ascending: (physical load address, how many follow one another, whether they fail).
        step: Bytes between two that follow one another.
    """

    failing: int
    placements: int
    of: str
    places: tuple[tuple[int, int, bool], ...] = ()
    step: int = 2 << 20


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
    written: int | None = None
    """When the session was frozen, in seconds since 1970 by its own clock."""
    node: str | None = None
    """The machine's name."""
    boot_id: str | None = None
    swap_uuid: str | None = None
    swap_label: str | None = None
    partition: int | None = None
    """The partition that it lies in, where it was found on a disk."""


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
    size: int | None = None
    """Bytes that it takes in memory, from its text's start; None where its symbols do not tell."""


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
    mwait_spins: bool = False


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
    unexamined: tuple[NotExamined, ...] = ()
    """Rules that could not be looked at."""
    warnings: tuple[str, ...] = field(default=())
    """Things about the inputs worth a line, such as a consumed image."""
    conditions: tuple[Condition, ...] = ()
    """What would change the verdict, the worst first."""
    refusal: Refusal | None = None
    """Why the resumer does not load the image, and what its kernel says of it."""
    usual_outcome: Outcome | None = None
    """Of a machine that may reset: what becomes of it usually, on a machine without latencies; None otherwise."""
