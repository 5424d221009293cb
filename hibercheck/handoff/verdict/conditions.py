"""What would change the verdict: the handoff judged again for each plausible alternative, and for pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError
from hibercheck.handoff.replay.places import classes_of
from hibercheck.handoff.scenario.alternatives import KINDS, Alternative, alternatives, at_address, place_is_open
from hibercheck.handoff.scenario.known_place import linked_at
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import Plan, unplaced
from hibercheck.handoff.verdict.findings import HARM, Condition, Outcome, Verdict

MOST_CPUS = 600
"""Judgements of single CPUs that alternatives may take in all, each a fraction of a millisecond."""

LEAST_JUDGEMENTS = 2
"""Alternatives that are judged however many CPUs there are: each takes no longer than the first judgement did."""

MOST_PLACES = 16
"""Classes of places that are tried for a resumer whose place is open."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What one scenario comes to.

    Attributes:
        plan: The scenario.
        outcome: What becomes of the machine.
        verdict: The judgement.
    """

    plan: Plan
    outcome: Outcome
    verdict: Verdict

    @property
    def harm(self) -> int:
        """How bad it is."""
        return HARM.index(self.verdict)

    def differs(self, other: Decided) -> bool:
        """Whether it comes to something else."""
        return (self.outcome, self.verdict) != (other.outcome, other.verdict)


Judge = Callable[[CheckOptions], Decided]
"""Judges the same inputs with other options."""

More = Callable[[Plan], Iterable[Alternative]]
"""Returns alternatives beside those of the scenario: of what decides whether the image is loaded."""


_Changed = tuple[str, tuple[Alternative, ...], Decided]
"""The name of a condition, the alternatives that make it, and what they come to."""


@dataclass(frozen=True, slots=True)
class Varied:
    """What came of it.

    Attributes:
        conditions: What would change the verdict, the worst first.
        left_out: How many alternatives, alone or in pairs, were not judged for want of time.
    """

    conditions: tuple[Condition, ...]
    left_out: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """That some were not judged, if so."""
        if not self.left_out:
            return ()
        what = "1 alternative was" if self.left_out == 1 else f"{self.left_out} alternatives were"
        return (f"{what} not judged: there are too many CPUs to judge them in time",)


def vary(usual: Decided, judge: Judge, more: More) -> Varied:
    """Judge every alternative of a scenario, and every pair of two that are about different things.

    Args:
        usual: The scenario, and what it comes to.
        judge: Judges the inputs with other options.
        more: Further alternatives.
    """
    budget = _Budget(max(MOST_CPUS // max(len(usual.plan.parked), 1), LEAST_JUDGEMENTS), judge)
    single = [(one, budget.judge(one.options)) for one in (*_of(usual.plan), *more(usual.plan))]
    changed: list[_Changed] = [
        (one.id, (one,), found) for one, found in single if found is not None and found.differs(usual)
    ]
    alone: dict[str, int] = {}
    for name, _, came_to in changed:
        alone[name] = max(alone.get(name, usual.harm), came_to.harm)
    for one, found in single:
        if found is None:
            continue
        for other in (*_of(found.plan), *more(found.plan)):
            if KINDS[one.id].about >= KINDS[other.id].about:
                continue
            both = budget.judge(other.options)
            worst = max(usual.harm, alone.get(one.id, 0), alone.get(other.id, 0))
            if both is not None and both.harm > worst:
                changed.append((f"{one.id}+{other.id}", (one, other), both))
    return Varied(tuple(_conditions(changed, usual)), budget.left_out)


class _Budget:
    """Judges as long as there is something left.

    Args:
        left: How many judgements there may be.
        judge: Makes one.
    """

    def __init__(self, left: int, judge: Judge) -> None:
        self.left = left
        self.left_out = 0
        self._judge = judge
        self._known: dict[CheckOptions, Decided | None] = {}

    def judge(self, options: CheckOptions) -> Decided | None:
        """Judge options; None for those that contradict what was measured, or once nothing is left."""
        if options in self._known:
            return self._known[options]
        if self.left <= 0:
            self.left_out += 1
            return None
        self.left -= 1
        try:
            found: Decided | None = self._judge(options)
        except HibercheckError:
            found = None
        self._known[options] = found
        return found


def _of(plan: Plan) -> Iterator[Alternative]:
    """Yield a scenario's alternatives, and one place of each class for a resumer whose place is open."""
    yield from alternatives(plan)
    reason = place_is_open(plan)
    if reason is None or plan.levels is None:
        return
    try:
        classes = classes_of(unplaced(plan), plan.levels)
    except HibercheckError:
        return
    link = linked_at(plan.asking)
    yield from (at_address(plan, link + one.phys_base, reason) for one in classes[:MOST_PLACES])


def _conditions(changed: list[_Changed], usual: Decided) -> Iterator[Condition]:
    """Yield one condition of each kind: the worst, or the best where none is worse than what is usual."""
    kinds: dict[str, list[_Changed]] = {}
    for one in changed:
        kinds.setdefault(one[0], []).append(one)
    chosen = []
    for alike in kinds.values():
        worst = max(alike, key=lambda one: one[2].harm)
        chosen.append(worst if worst[2].harm > usual.harm else min(alike, key=lambda one: one[2].harm))
    for name, parts, found in sorted(chosen, key=lambda one: -one[2].harm):
        arguments = [argument for part in parts for argument in part.arguments]
        yield Condition(
            id=name,
            fact=", and ".join(part.fact for part in parts),
            value=", and ".join(part.value for part in parts),
            reason="; ".join(dict.fromkeys(part.reason for part in parts)),
            outcome=found.outcome,
            verdict=found.verdict,
            settle=tuple(dict.fromkeys(arguments)),
            how="; ".join(dict.fromkeys(KINDS[part.id].settle for part in parts)),
        )
