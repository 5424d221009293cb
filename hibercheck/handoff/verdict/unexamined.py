"""What a check could not look at: a rule without a finding is only then a good sign if it was examined."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.replay.touch import Change
from hibercheck.handoff.replay.trace import LINE as LINE_ROLE
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.findings import NotExamined
from hibercheck.handoff.verdict.words import with_article
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.paging import Access

LINE = ("HC101", "HC102")
CODE, WALKS, EVENTS, DATA, STORES = "HC201", "HC202", "HC203", "HC204", "HC303"

_RULES = {Access.FETCH: CODE, Access.READ: DATA, Access.WRITE: STORES}
_DUMP = "--resumer-memory DUMP"
_VERIFY = "--verify"


def not_examined(plan: Plan, acceptance: Acceptance, judgement: Judgement | None) -> tuple[NotExamined, ...]:
    """Say which rules were not looked at, for which CPUs, why, and what would let them be.

    What does not apply is not among it: the rules of the handoff where the image is refused, or what is missing for
    the verdict itself, which is undetermined then.

    Args:
        plan: The scenario that was replayed.
        acceptance: Whether the resumer takes the image.
        judgement: What the replay found; None where the image is refused.
    """
    found: dict[tuple[tuple[str, ...], str, str], list[int]] = {}
    results = () if judgement is None or acceptance.refusal is not None else judgement.aps
    for result in results:
        for rules, why, supply in _of_cpu(result):
            found.setdefault((rules, why, supply), []).append(result.parked.cpu)
    notes = [NotExamined(rules, tuple(cpus), why, supply) for (rules, why, supply), cpus in found.items()]
    return (*notes, *_of_image(plan))


def _of_image(plan: Plan) -> Iterator[NotExamined]:
    if not plan.options.verify:
        yield NotExamined(("HC404",), (), "only what the check reads of the image was decoded", _VERIFY)
    elif plan.image.compressor == "none":
        why = "an image that is not compressed has no checksum, so that changed contents cannot be told"
        yield NotExamined(("HC404",), (), why, "an image written with compression")


def _of_cpu(result: ApResult) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the rules that were not looked at for one CPU."""
    parked = result.parked
    if parked.loop is None or parked.unsettled is not None:
        return  # it executes nothing, or its state is what is missing
    waits = parked.state is ParkState.MWAIT
    line = LINE[: 1 if result.reinitialised else 2]  # HC102 is about who stays
    if result.iteration is None:
        why = "the load addresses of the resumer were judged together, and none of them by itself"
        yield (*(line if waits else ()), CODE, WALKS, DATA, STORES), why, _DUMP
    else:
        if waits and result.line is None:
            yield line, "where the monitored line lies is not known", _DUMP
        yield from _of_accesses(result)
    later = (*result.events, *result.exposure)
    events = [one.event.value for one in later if one.event is not None and one.difference is Difference.UNKNOWN]
    if events:
        yield (EVENTS,), f"what {' or '.join(map(with_article, events))} would do is not known", _DUMP


def _of_accesses(result: ApResult) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the rules that an access would have to be known for, by the kind of access."""
    assert result.iteration is not None  # noqa: S101 - _of_cpu() has tested it
    unknown: dict[str, dict[str, None]] = {}  # a dictionary keeps the order, which a set does not
    for item in result.iteration.touched:
        if item.change is Change.UNKNOWN and item.walk.unknown_pfn is not None:
            unknown.setdefault(WALKS, {})[item.role] = None
        decided = item.change in {Change.FAULT, Change.CONTENT}
        if item.role != LINE_ROLE and (item.change is Change.UNKNOWN or (item.leaf is None and not decided)):
            unknown.setdefault(_RULES[item.access], {})[item.role] = None
    for rule, roles in unknown.items():
        names = " and the ".join(roles)
        why = f"where the {names} {'lie' if len(roles) > 1 else 'lies'} is not known"
        yield (rule,), f"a page table on the way to the {names} is not known" if rule == WALKS else why, _DUMP
