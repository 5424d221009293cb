"""The copy as a sequence, on measured cases."""

from __future__ import annotations

import pytest

from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.moments import moments_of
from hibercheck.handoff.replay.trace import trace
from hibercheck.x86.events import Event

EVENTS = [None, Event.NMI, Event.MACHINE_CHECK, Event.SMI]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", ["fatal", "random-address"])
def test_a_moment_holds_between_the_copies_that_begin_and_end_it(judged, name, event):
    """Tracing at the frame that begins a moment, beside the one that ends it, and between, gives the same."""
    plan, judgement = judged(name, memory=True)
    memory = judgement.memory
    for result in judgement.aps:
        line = moments_of(memory, result.cpu, event, cached=event is None)
        assert line.complete
        assert line.moments[0].trace.difference is Difference.INTACT or line.moments[0].trace.effect.ends_machine
        starts = [1 << 52, *(moment.pfn for moment in line.moments[1:])]
        assert starts == sorted(starts, reverse=True)
        last = plan.image.pfns.last
        for moment, start, following in zip(line.moments[1:], starts[1:], [*starts[2:], 0], strict=False):
            for floor in {start, following + 1, (min(start, last) + following) // 2 + 1}:
                if following < floor <= start:
                    now = trace(memory.at(floor), result.cpu, event, cached=event is None)
                    assert now.difference is moment.trace.difference


@pytest.mark.parametrize("name", ["fatal", "random-address"])
def test_the_last_moment_is_what_the_judgement_says(judged, name):
    _plan, judgement = judged(name, memory=True)
    for result in judgement.aps:
        line = moments_of(judgement.memory, result.cpu, None, cached=True)
        assert line.final.trace.difference is result.iteration.difference
        for after in (*result.events, *result.exposure):
            assert moments_of(judgement.memory, result.cpu, after.event).final.trace.difference is after.difference


def test_copies_are_numbered_from_the_highest_frame(judged):
    plan, judgement = judged("fatal", memory=True)
    pfns = plan.image.pfns
    assert judgement.memory.copy_number(pfns.last) == 1
    assert judgement.memory.copy_number(next(pfns.runs())[0]) == len(pfns)
