"""The copy as a sequence, on measured cases."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.findings import Level
from hibercheck.handoff.judge import judge
from hibercheck.handoff.kernels import open_resumee, open_resumer
from hibercheck.handoff.loop_replay import LoopState, replay_loop
from hibercheck.handoff.plan import make_plan
from hibercheck.handoff.resumee import read_resumee
from hibercheck.handoff.timeline import CpuTimeline, Epoch, copy_number, follow, worst_epoch_finding
from hibercheck.kernel.code.traits import read_traits
from hibercheck.swsusp.image import open_image
from tests.support.cases import options_of


@pytest.fixture(params=["fatal", "random-address"])
def judged(request, committed):
    case = committed(request.param)
    with ExitStack() as stack:
        image = stack.enter_context(open_image(case["image"]))
        resumer = stack.enter_context(open_resumer(case["resumer"], None))
        resumee = stack.enter_context(open_resumee(case["resumee"], None))
        plan = make_plan(image, resumer, read_traits(resumer), read_resumee(image, resumee), options_of(case["args"]))
        yield judge(plan, stack.enter_context(open_dump(case["memory"])))


def test_epochs_hold_between_the_copies_that_begin_them(judged):
    """Evaluating at every frame that any epoch names, and beside it, gives no state that the epochs lack."""
    memory, result = judged.memory, judged.aps[0]
    context = judged.contexts[result.parked.cpu]
    line = follow(memory, result, judged.contexts)
    assert line.complete
    assert line.epochs[0].turn.state is LoopState.INTACT
    starts = [1 << 52, *(epoch.pfn for epoch in line.epochs[1:])]
    assert starts == sorted(starts, reverse=True)
    for epoch, start, following in zip(line.epochs, starts, [*starts[1:], 0], strict=False):
        for floor in {start, following + 1, (start + following) // 2 + 1}:
            if floor > following:
                turn = replay_loop(replace(memory, floor=floor), result.parked.loop, context)
                assert turn.state is epoch.turn.state
    assert line.final.turn.state is result.turn.state


def test_copies_are_numbered_from_the_highest_frame(judged):
    memory: Composite = judged.memory
    pfns = memory.image.pfns
    assert copy_number(memory, pfns.last) == 1
    assert copy_number(memory, next(pfns.runs())[0]) == len(pfns)


def test_the_report_shows_it_from_the_first_copy_to_the_jump(predict):
    report = predict("fatal", memory=True, timeline=True)
    events = report.timeline
    middle = [event for event in events if event.cpu is not None]
    assert events[0].cpu is None
    assert events[0].copy == 1
    assert [event.copy for event in events] == sorted(event.copy for event in events)
    assert sum("the first copy that hurts it" in event.text for event in middle) == 1
    assert sum("the worst time to wake" in event.text for event in middle) == 1
    assert any("this wakes it" in event.text for event in middle if "monitored line" in event.text)
    assert predict("fatal", memory=True).timeline == ()


def test_where_the_place_is_unknown_there_is_none_and_the_report_says_so(predict):
    report = predict("random-address", timeline=True)
    assert report.timeline == ()
    assert any("no timeline" in warning for warning in report.warnings)
    assert not any("no timeline" in warning for warning in predict("random-address").warnings)


@pytest.mark.parametrize("judged", ["fatal"], indirect=True)
def test_a_worse_time_in_the_middle_is_a_note(judged):
    """Let the tables be whole again at the end, as when the resumee's happen to be equivalent."""
    result = judged.aps[0]
    line = follow(judged.memory, result, judged.contexts)
    assert (
        worst_epoch_finding(result, CpuTimeline(line.cpu, line.epochs[: line.epochs.index(line.worst) + 1]), 9) is None
    )
    healed = Epoch(1, 0x1000, line.final.copy + 1, ("page table",), line.epochs[0].turn)
    finding = worst_epoch_finding(result, replace(line, epochs=(*line.epochs, healed)), 9)
    assert finding.level is Level.NOTE
    assert finding.rule in {"HC201", "HC202"}
    assert f"from copy {line.worst.copy} to copy" in finding.message
