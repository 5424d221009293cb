"""What a preflight says: a row for each boot entry, with its three answers and a verdict."""

from __future__ import annotations

from enum import StrEnum

from hibercheck.data import dataclass
from hibercheck.handoff.preflight.waiting import Waiting
from hibercheck.handoff.verdict.findings import Condition


class Answer(StrEnum):
    """The answer to one question."""

    YES = "yes"
    NO = "no"
    PERHAPS = "perhaps"
    UNKNOWN = "unknown"
    NOT_ASKED = "not-asked"
    """An earlier answer was no."""


class RowVerdict(StrEnum):
    """The judgement of an entry: those of a check, and one before them."""

    NOT_FOUND = "not-found"
    """No image is written, or it is looked for where it is not."""
    SAFE = "safe"
    BENIGN = "benign"
    LATENT = "latent"
    RISK = "risk"
    FATAL = "fatal"
    REFUSED = "refused"
    UNDETERMINED = "undetermined"


PROVED = (RowVerdict.NOT_FOUND, RowVerdict.REFUSED, RowVerdict.FATAL)
"""What is certain to lose the session."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question of an entry, answered.

    Attributes:
        answer: The answer.
        text: Why, in one clause.
        advice: What to do; empty where all is well.
        log: What the kernel will print of it, line by line, where it says no.
        errno: The error with which it then fails, or None.
    """

    answer: Answer
    text: str
    advice: str = ""
    log: tuple[str, ...] = ()
    errno: int | None = None


NOT_ASKED = Step(Answer.NOT_ASKED, "")


@dataclass(frozen=True, slots=True)
class Row:
    """A boot entry.

    Attributes:
        name: Its identifier.
        title: What the menu shows.
        kernel: The kernel's file.
        release: Its release; None where the file cannot be read.
        command_line: What it is given.
        source: The file that says so.
        default: Whether it is started if nobody chooses.
        verdict: The judgement.
        share: Of a risk: how likely it fails, from 0 to 1.
        find: Whether it would find the image.
        load: Whether it would load it.
        survive: Whether the machine would survive the handoff.
        conditions: What would change the verdict if it were otherwise.
    """

    name: str
    title: str
    kernel: str
    release: str | None
    command_line: str
    source: str
    default: bool
    verdict: RowVerdict
    share: float | None
    find: Step
    load: Step
    survive: Step
    conditions: tuple[Condition, ...] = ()

    @property
    def deciding(self) -> Step:
        """The answer that makes the verdict."""
        for step in (self.find, self.load, self.survive):
            if step.answer is Answer.NO:
                return step
        for wanted in (Answer.UNKNOWN, Answer.PERHAPS):
            for step in (self.find, self.load, self.survive):
                if step.answer is wanted:
                    return step
        return self.survive


@dataclass(frozen=True, slots=True)
class Preflight:
    """The whole answer.

    Attributes:
        root: Where the system is.
        running: Whether it runs; else what would hibernate is taken to be the default entry.
        resumee: The release of the kernel that would hibernate; None where that is not known.
        resumee_kernel: Its file; None where none was found that is the same build.
        resumee_command_line: Its command line.
        target: Where the image would be written, in words.
        image_share: What part of memory the image is taken to cover.
        rows: The entries, the default first.
        warnings: What else the user should know, a line each.
        waiting: An image that waits on the system's disk already; None where there is none, or the disk cannot be read.
    """

    root: str
    running: bool
    resumee: str | None
    resumee_kernel: str | None
    resumee_command_line: str | None
    target: str
    image_share: float
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    waiting: Waiting | None = None
