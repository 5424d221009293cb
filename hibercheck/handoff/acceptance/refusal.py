"""Whether the resumer loads the image at all: its tests, in the order in which it makes them."""

from __future__ import annotations

from typing import Any, TypeVar

from hibercheck.data import dataclass
from hibercheck.handoff.scenario.measured import other_image
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.scenario.sources import RunFact

T = TypeVar("T")

EPERM, ENOMEM, EFAULT, EINVAL, EOPNOTSUPP = 1, 12, 14, 22, 95
NAMES = {EPERM: "EPERM", ENOMEM: "ENOMEM", EFAULT: "EFAULT", EINVAL: "EINVAL", EOPNOTSUPP: "EOPNOTSUPP"}
"""Errors of the kernel by number (include/uapi/asm-generic/errno-base.h, errno.h)."""


def failed(errno: int, *before: str) -> tuple[str, ...]:
    """Return what is printed where an image that is being loaded is given up (software_resume())."""
    return (*before, f"PM: hibernation: resume failed (-{errno})")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the resumer refuses.

    Attributes:
        test: Stable name of the test that fails, such as ``memory-map``.
        reason: One clause, with the resumer as its subject.
        errno: The error with which the resume fails; None where it is not tried, or where that cannot be foretold.
        log: What its kernel prints of it, line by line.
        advice: What to do.
        keeps_image: Whether the image stays as it was.  As soon as the kernel has read the header it puts the swap
            signature back (swsusp_check(), kernel/power/swap.c): whatever it finds afterwards, the image is lost.
    """

    test: str
    reason: str
    errno: int | None
    log: tuple[str, ...]
    advice: str
    keeps_image: bool = False


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer, and what it would take to be sure.

    Attributes:
        refusal: The first test that fails, or None.
        unknown: Tests whose outcome is not known: (fact, how to supply it).
        remarks: What the user should know of how sure it is, a line each.
    """

    refusal: Refusal | None
    unknown: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...] = ()


class Question:
    """One image before one resumer: what the tests ask, and what they have to say beside their answer.

    Args:
        plan: The scenario.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.image = plan.image
        self.traits = plan.traits
        self.resumee = plan.resumee
        self.cmdline = plan.cmdline
        self.unknown: list[tuple[str, str]] = []
        self.remarks: list[str] = []

    def value(self, fact: RunFact[T]) -> T | None:
        """Return a fact of the run, or None where it is not known."""
        known = self.plan.known.get(fact.name)
        found: Any = None if known is None else known.value
        return found  # type: ignore[no-any-return]  # of the fact's own type, which the table of all facts does not keep

    def open(self, fact: RunFact[Any]) -> bool:
        """Tell whether a fact is inferred or usual, or not known."""
        known = self.plan.known.get(fact.name)
        return known is None or known.standing.is_open


def judge_acceptance(plan: Plan) -> Acceptance:
    """Apply the resumer's tests to the image, in the order in which it makes them; the first that fails decides."""
    from hibercheck.handoff.acceptance import contents, machine, willing  # noqa: PLC0415 - they use what is declared here

    question = Question(plan)
    if _was_loaded(plan):
        return Acceptance(None, plan.missing)
    refusal = None
    for test in (
        *(willing.built_in, willing.told_not_to, willing.locked_down, willing.says_no, willing.not_asked),
        *(willing.looks_elsewhere, willing.announced, willing.signature),
        contents.compressor_first,
        *(contents.magic, machine.memory_map, machine.pages),
        contents.compressor_last,
        *(contents.zero_pages, machine.frames, machine.room),
    ):
        refusal = test(question)
        if refusal is not None:
            break
    return Acceptance(refusal, (*question.unknown, *plan.missing), tuple(question.remarks))


def _was_loaded(plan: Plan) -> bool:
    """Tell whether a dump shows the resumer with this image loaded: then it has passed all tests."""
    dumped = plan.inputs.dumped
    if dumped is None or plan.supposed or dumped.facts.restores is None:
        return False
    return other_image(dumped, plan.image) is None
