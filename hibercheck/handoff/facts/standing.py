"""How well a fact is known: its standing, from what was measured down to what most machines do.

A verdict is as sure as the facts that it rests on.  Every fact that can decide one is a `Known`: a value together with
where it comes from and the option that settles it, so that nothing downstream has to work out a source again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from hibercheck.data import dataclass

T = TypeVar("T")


class Standing(StrEnum):
    """Where a fact comes from, the best first."""

    MEASURED = "measured"
    """The resumer's own memory, or facts or a log of that very boot."""
    READ = "read"
    """In the image, in a kernel, in its code."""
    GIVEN = "given"
    """An option says so."""
    INFERRED = "inferred"
    """The resumee saw it on the same machine minutes before."""
    USUAL = "usual"
    """What most machines do: a default."""

    @property
    def rank(self) -> int:
        """0 for the best, growing downwards."""
        return list(Standing).index(self)

    @property
    def is_open(self) -> bool:
        """Whether the fact may be otherwise though no input says so: it is then varied."""
        return self in {Standing.INFERRED, Standing.USUAL}


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A fact of one run.

    Attributes:
        value: What it is.
        standing: How it is known.
        source: The same in words: ``its memory dump``, ``collected on the resumer``, ``the resumee's own``.
        option: The option that says otherwise, or None where there is none.
    """

    value: T
    standing: Standing
    source: str
    option: str | None = None


@dataclass(frozen=True, slots=True)
class Assumption:
    """A fact that the report rests on, how well it is known, and the option that says otherwise.

    Attributes:
        fact: What it is about.
        value: What it is, in words.
        source: Where it comes from, in words.
        option: The option that changes it, or None.
        standing: How it is known; None for what is not known at all.
        name: The fact's stable name, or None for what is not one of the run's facts.
        detail: Whether only a verbose report shows it.
    """

    fact: str
    value: str
    source: str
    option: str | None = None
    standing: Standing | None = None
    name: str | None = None
    detail: bool = False
