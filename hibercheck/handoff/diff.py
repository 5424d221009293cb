"""What changed in the handoff between two builds of a kernel, and whether it breaks a pair that worked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hibercheck.handoff.matrix.pair import Cell, judge_pair
from hibercheck.handoff.matrix.scenario import Settings
from hibercheck.handoff.matrix.summary import TABLES, Summary, summary_of
from hibercheck.handoff.matrix.table import Member
from hibercheck.handoff.verdict.findings import HARM
from hibercheck.kernel.code.model import ParkLoop, Trait
from hibercheck.kernel.code.traits import DECLARED, Traits, read_traits
from hibercheck.kernel.kernel import Kernel, open_kernel

if TYPE_CHECKING:
    from hibercheck.kernel.cache import KernelCache


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
        resumer: The new pair's resumer.
        resumee: Its resumee.
        old_resumer: The resumer in the pair that it is compared with.
        old_resumee: The resumee in that.
        before: The old pair's verdict.
        after: The new pair's.
    """

    scenario: str
    resumer: Member
    resumee: Member
    old_resumer: Member
    old_resumee: Member
    before: Cell
    after: Cell

    @property
    def changed(self) -> bool:
        """Whether the verdict is another."""
        return self.before.verdict is not self.after.verdict

    @property
    def worse(self) -> bool:
        """Whether it is worse than it was."""
        return self.is_worse()

    def is_worse(self, *, strict: bool = False) -> bool:
        """Tell whether it is worse than it was; with ``strict`` as if the worst condition of each held."""
        was, now = (one.strict if strict else one.verdict for one in (self.before, self.after))
        before, after = HARM.index(was), HARM.index(now)
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
        return self.broken_by()

    def broken_by(self, *, strict: bool = False) -> tuple[Pair, ...]:
        """Return those that are worse; with ``strict`` also those that have become worse if a condition holds."""
        return tuple(pair for pair in self.pairs if pair.worse or (strict and pair.is_worse(strict=True)))


def compare_kernels(
    old: str, new: str, against: Sequence[str], settings: Settings, cache: KernelCache | None = None
) -> Difference:
    """Compare two kernels, and judge the new one with the old one and with others.

    Args:
        old: The kernel that works.
        new: The one that is to replace it.
        against: Further kernels that must go on to work with it, in either role.
        settings: The machine and the scenarios.
        cache: Where answers of kernels are kept; None to keep none.

    Raises:
        HibercheckError: A kernel cannot be read.
    """

    def opened(path: str) -> Kernel:
        return open_kernel(path) if cache is None else cache.opened(path, lambda: open_kernel(path))

    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(opened(path)) for path in (old, new))
        before, after = read_traits(ours), read_traits(theirs)
        summaries = summary_of(ours, before), summary_of(theirs, after)
        changes = (*_traits(before, after), *_loops(before, after), *_layout(ours, theirs))
        same = ours.build_id is not None and ours.build_id == theirs.build_id
    others = []
    for path in against:
        with opened(path) as kernel:
            others.append(summary_of(kernel))
    pairs = tuple(_pairs(*summaries, others, settings))
    return Difference(summaries[0].release, summaries[1].release, same, changes, pairs)


def _traits(old: Traits, new: Traits) -> Iterator[Change]:
    for one, before, after in zip(DECLARED, old, new, strict=True):
        if one.distinguishing(before.value) != one.distinguishing(after.value):
            yield Change(Part.TRAIT, one.name, before, after, after.commit or before.commit)


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


_PLACE = re.compile(r"%gs:0x[0-9a-f]+|0x[0-9a-f]{7,}")
"""An address in an instruction: of a per-CPU variable, or in the kernel's image, as such or as a displacement."""


def _described(loop: ParkLoop) -> tuple[object, ...]:
    """Return what a loop does, wherever it lies: its instructions without addresses, and what they touch by name."""
    code = tuple(_PLACE.sub("...", one.text) for one in loop.instructions)
    touches = tuple(
        (one.kind, one.access, (one.symbol or "").partition("+")[0], one.register, one.size) for one in loop.touches
    )
    return loop.symbol, code, touches, tuple(patch.why for patch in loop.patchable)


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


def _member(one: Summary) -> Member:
    return Member(one.release, one.build_id, one.path)


def _pairs(old: Summary, new: Summary, others: Sequence[Summary], settings: Settings) -> Iterator[Pair]:
    """Judge each pair that the new kernel is part of, and the pair that it replaces."""
    replaced = [((new, new), (old, old)), ((new, old), (old, old)), ((old, new), (old, old))]
    for other in others:
        replaced += [((new, other), (old, other)), ((other, new), (other, old))]
    for after, before in replaced:
        verdicts = zip(settings.scenarios, judge_pair(*before, settings), judge_pair(*after, settings), strict=True)
        for scenario, was, now in verdicts:
            resumer, resumee, old_resumer, old_resumee = (_member(one) for one in (*after, *before))
            yield Pair(scenario.name, resumer, resumee, old_resumer, old_resumee, was, now)
