"""What changed in the handoff between two builds of a kernel, and whether it breaks a pair that worked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hibercheck.handoff.findings import Verdict
from hibercheck.handoff.matrix.brief import TABLES, Brief, brief_of
from hibercheck.handoff.matrix.pair import Cell, judge_pair
from hibercheck.handoff.matrix.scenario import Settings
from hibercheck.kernel.code.model import ParkLoop, Trait
from hibercheck.kernel.code.traits import Traits, read_traits
from hibercheck.kernel.kernel import Kernel, open_kernel

HARM = (
    Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.RISK, Verdict.UNDETERMINED, Verdict.REFUSED, Verdict.FATAL,
)  # fmt: skip
"""From harmless to harmful, for telling better from worse."""


class Part(StrEnum):
    """Where a change is."""

    TRAIT = "trait"
    LOOP = "loop"
    LAYOUT = "layout"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two kernels.

    Attributes:
        part: What kind.
        name: The trait, the loop, or the symbol.
        before: In the old kernel; a trait itself, so that a report can say it in its own words.
        after: In the new one.
        commit: The upstream change behind it, where one is known.
    """

    part: Part
    name: str
    before: Trait[Any] | str
    after: Trait[Any] | str
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair before and after.

    Attributes:
        scenario: Name of the scenario.
        resumer: Release of the new pair's resumer.
        resumee: Release of its resumee.
        old_resumer: Release of the resumer in the pair that it is compared with.
        old_resumee: Release of the resumee in that.
        before: The old pair's verdict.
        after: The new pair's.
    """

    scenario: str
    resumer: str
    resumee: str
    old_resumer: str
    old_resumee: str
    before: Cell
    after: Cell

    @property
    def changed(self) -> bool:
        """Whether the verdict is another."""
        return self.before.verdict is not self.after.verdict

    @property
    def worse(self) -> bool:
        """Whether it is worse than it was."""
        before, after = HARM.index(self.before.verdict), HARM.index(self.after.verdict)
        return after > before or (after == before and (self.after.share or 0) > (self.before.share or 0))


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that differs.

    Attributes:
        old: Release of the old kernel.
        new: Release of the new one.
        same_build: Whether they are one build.
        changes: What changed.
        pairs: The pairs that the new kernel is part of.
    """

    old: str
    new: str
    same_build: bool
    changes: tuple[Change, ...]
    pairs: tuple[Pair, ...]

    @property
    def broken(self) -> tuple[Pair, ...]:
        """Pairs that are worse than they were."""
        return tuple(pair for pair in self.pairs if pair.worse)


def compare_kernels(old: str, new: str, against: Sequence[str], settings: Settings) -> Difference:
    """Compare two kernels, and judge the new one with the old one and with others.

    Args:
        old: The kernel that works.
        new: The one that is to replace it.
        against: Further kernels that must go on to work with it, in either role.
        settings: The machine and the scenarios.

    Raises:
        HibercheckError: A kernel cannot be read.
    """
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(open_kernel(path)) for path in (old, new))
        before, after = read_traits(ours), read_traits(theirs)
        briefs = brief_of(ours, settings, before), brief_of(theirs, settings, after)
        changes = (*_traits(before, after), *_loops(before, after), *_layout(ours, theirs))
        same = ours.build_id is not None and ours.build_id == theirs.build_id
    others = []
    for path in against:
        with open_kernel(path) as kernel:
            others.append(brief_of(kernel, settings))
    pairs = tuple(_pairs(*briefs, others, settings))
    return Difference(briefs[0].release, briefs[1].release, same, changes, pairs)


def _traits(old: Traits, new: Traits) -> Iterator[Change]:
    for before, after in zip(old, new, strict=True):
        if before.name not in _OTHERWISE and _value(before) != _value(after):
            yield Change(Part.TRAIT, before.name, before, after, after.commit or before.commit)


_OTHERWISE = frozenset({"idt_gates"})  # addresses of handlers: they move with every build
_UNORDERED = frozenset({"enter_dead", "compressors"})


def _value(trait: Trait[Any]) -> object:
    return frozenset(trait.value) if trait.name in _UNORDERED and trait.value is not None else trait.value


_Key = tuple[str, str, str | None, bool, bool]


def _loops(old: Traits, new: Traits) -> Iterator[Change]:
    """Compare the loops by who parks there and how."""
    before, after = (_by_key(traits) for traits in (old, new))
    for key in dict.fromkeys((*before, *after)):
        ours, theirs = before.get(key), after.get(key)
        if ours is None or theirs is None or _described(ours) != _described(theirs):
            yield Change(Part.LOOP, _named(key), _text(ours), _text(theirs))


def _by_key(traits: Traits) -> dict[_Key, ParkLoop]:
    return {(loop.role, loop.kind, loop.driver, loop.interrupts, loop.after_kick): loop for loop in traits.park_loops}


def _named(key: _Key) -> str:
    role, kind, driver, interrupts, after_kick = key
    parts = [f"{kind} ({role}{f', {driver}' if driver else ''})"]
    parts += ["with interrupts on"] if interrupts else []
    parts += ["after a kick"] if after_kick else []
    return " ".join(parts)


def _described(loop: ParkLoop) -> tuple[object, ...]:
    return loop.symbol, loop.ranges, loop.code, tuple(one.text for one in loop.instructions)


def _text(loop: ParkLoop | None) -> str:
    if loop is None:
        return "none"
    ranges = ", ".join(f"{start:#x}-{end - 1:#x}" for start, end in loop.ranges)
    return f"{loop.symbol} {ranges}: {'; '.join(one.text for one in loop.instructions)}"


def _layout(old: Kernel, new: Kernel) -> Iterator[Change]:
    names = ("_text", "_etext", "_end", *TABLES, "idt_table", "restore_registers", "mwait_cpu_dead")
    before, after = old.symbols(names), new.symbols(names)
    for name in names:
        ours, theirs = before.get(name), after.get(name)
        if (ours and ours.address) != (theirs and theirs.address):
            yield Change(Part.LAYOUT, name, _address(ours), _address(theirs))
    if old.percpu_zero_based != new.percpu_zero_based:
        words = {True: "from zero", False: "by link address"}
        yield Change(Part.LAYOUT, "per-CPU symbols", words[old.percpu_zero_based], words[new.percpu_zero_based])


def _address(symbol: Any) -> str:  # noqa: ANN401 - a symbol or None
    return "none" if symbol is None else f"{symbol.address:#x}"


def _pairs(old: Brief, new: Brief, others: Sequence[Brief], settings: Settings) -> Iterator[Pair]:
    """Judge each pair that the new kernel is part of, and the pair that it replaces."""
    replaced = [((new, new), (old, old)), ((new, old), (old, old)), ((old, new), (old, old))]
    for other in others:
        replaced += [((new, other), (old, other)), ((other, new), (other, old))]
    for after, before in replaced:
        verdicts = zip(settings.scenarios, judge_pair(*before, settings), judge_pair(*after, settings), strict=True)
        for scenario, was, now in verdicts:
            yield Pair(
                scenario.name, after[0].release, after[1].release, before[0].release, before[1].release, was, now
            )
