"""Supposed events between any two copies, on measured cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.check import open_inputs
from hibercheck.handoff.event_replay import replay_event
from hibercheck.handoff.event_timeline import EventLine, Moment, event_lines, event_timeline
from hibercheck.handoff.judge import judge
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.x86.events import Event
from tests.support.cases import options_of

EVENTS = [Event.NMI, Event.MACHINE_CHECK, Event.SMI]


@pytest.fixture(params=["fatal", "random-address"])
def lines(request, committed):
    case = committed(request.param)
    options = options_of(case["args"], resumer_memory=case["memory"])
    with open_inputs(case["image"], case["resumer"], case["resumee"], options) as (
        plan,
        _,
        dump,
    ):
        judged = judge(plan, dump)
        found = event_lines(judged.memory, judged.aps, judged.contexts, judged.entries, EVENTS, plan.resumee)
        yield plan, judged, found


def test_what_an_event_comes_to_holds_until_the_next_moment(lines):
    """At the frame that begins a moment, beside the one that ends it, and between, the replay says the same."""
    plan, judged, found = lines
    assert [line.event for line in found if line.cpu == 1] == sorted(EVENTS)
    for line in found:
        parked = next(result.parked for result in judged.aps if result.parked.cpu == line.cpu)
        entry, facts = judged.entries[line.cpu]
        starts = [1 << 52, *(moment.pfn for moment in line.moments[1:])]
        assert starts == sorted(starts, reverse=True)
        assert line.moments[0].replay.state is LoopState.INTACT or line.moments[0].replay.effect.ends_machine
        for moment, start, following in zip(line.moments, starts, [*starts[1:], 0], strict=True):
            last = judged.memory.image.pfns.last
            for floor in {min(start, last), following + 1, (min(start, last) + following) // 2 + 1}:
                memory = replace(judged.memory, floor=floor)
                context = judged.contexts[line.cpu]
                now = replay_event(memory, line.event, parked.state, parked.loop, context, entry, plan.resumee, facts)
                if following < floor <= start and moment.pfn is not None:
                    assert now.state is moment.replay.state


def test_the_last_moment_is_what_the_judgement_says(lines):
    _plan, judged, found = lines
    for result in judged.aps:
        for after in (*result.events, *result.exposure):
            line = next((one for one in found if (one.cpu, one.event) == (result.parked.cpu, after.event)), None)
            assert line is None or line.moments[-1].replay.state is after.state


def test_the_report_tells_them_among_the_copies(predict):
    told = predict("fatal", memory=True, timeline=True, suppose=frozenset({"nmi"})).timeline
    assert [event.copy for event in told] == sorted(event.copy for event in told)
    deadly = [event.text for event in told if "an NMI would kill it" in event.text]
    assert deadly
    assert sum("the worst time for it" in text for text in deadly) <= 1
    assert not any("NMI" in event.text for event in predict("fatal", memory=True, timeline=True).timeline)


def test_without_page_tables_there_is_nothing_to_follow(predict):
    report = predict("latent", timeline=True)
    assert report.timeline
    assert not any("NMI would" in event.text for event in report.timeline)


def test_only_changes_are_told():
    def moment(copy, state):
        return Moment(copy or None, copy, type("Replay", (), {"state": state, "reason": "so"})())

    states = [LoopState.INTACT, LoopState.SAME, LoopState.FOREIGN, LoopState.FOREIGN, LoopState.UNKNOWN, LoopState.SAME]
    line = EventLine(1, Event.NMI, tuple(moment(copy, state) for copy, state in enumerate(states)))
    assert [(event.copy, event.text.partition(":")[0]) for event in event_timeline([line])] == [
        (2, "from here on an NMI would kill it (the worst time for it)"),
        (4, "from here on what an NMI comes to is not known"),
        (5, "from here on it survives an NMI again"),
    ]
    always = EventLine(1, Event.MACHINE_CHECK, (moment(0, LoopState.FOREIGN),))
    assert [event.text for event in event_timeline([always])] == ["at any time a machine check would kill it: so"]


def test_fred_whose_registers_no_dump_has_leaves_an_event_open(lines):
    """QEMU's notes lack the FRED MSRs: that is a missing fact, and no reason to end the check."""
    plan, judged, _found = lines
    result = judged.aps[0]
    entry, facts = judged.entries[result.parked.cpu]
    by_fred = replace(entry, cpu=replace(entry.cpu, cr4=entry.cpu.cr4 | 1 << 32))
    context = judged.contexts[result.parked.cpu]
    now = replay_event(
        judged.memory, Event.NMI, result.parked.state, result.parked.loop, context, by_fred, plan.resumee, facts
    )
    assert now.state is LoopState.UNKNOWN
    assert "FRED" in now.reason
