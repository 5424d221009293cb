"""The copy told step by step, on measured cases."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Suppositions
from hibercheck.handoff.replay.judge import judge_cpu
from hibercheck.handoff.replay.moments import Moment, Moments
from hibercheck.handoff.replay.trace import trace
from hibercheck.handoff.verdict.findings import Level
from hibercheck.handoff.verdict.timeline import event_changes, iterations, timeline, worst_moment_finding
from hibercheck.swsusp.pfns import PfnList
from hibercheck.x86.events import Event
from tests.support.made_states import DEAD, LINE_AT, LINE_FRAME, OTHER, Frames, made, namer_of, page


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


def test_a_worse_time_in_the_middle_is_a_note(judged):
    """Let the tables be whole again at the end, as when the resumee's happen to be equivalent."""
    _plan, judgement = judged("fatal", memory=True)
    result = judgement.aps[0]
    line = iterations(judgement.memory, result)
    cut = replace(line, moments=line.moments[: line.moments.index(line.worst) + 1])
    assert worst_moment_finding(result, cut, 9) is None
    healed = Moment(1, 0x1000, line.final.copy + 1, ("page table",), line.moments[0].trace)
    finding = worst_moment_finding(result, replace(line, moments=(*line.moments, healed)), 9)
    assert finding.level is Level.NOTE
    assert finding.rule in {"HC201", "HC202"}
    assert f"from copy {line.worst.copy} to copy" in finding.message


def test_supposed_events_are_told_among_the_copies(predict):
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


@pytest.mark.parametrize(("image", "said"), [
    ({}, "is not overwritten: free memory of the resumee, which is written once it is handed out"),
    ({LINE_FRAME: page(LINE_AT & 0xFFF, DEAD)}, "is the resumee's now: memory in use by the resumee"),
])  # fmt: skip
def test_a_cpu_is_left_with_the_line_that_it_monitors_and_whose_that_is(image, said):
    frames = Frames({OTHER: bytes(4096)} | image)
    memory, cpu = made(frames)
    owner = Owner(LINE_FRAME << 12 | LINE_AT & 0xFFF, 64, Use.FREE, writes=Writes.HANDED_OUT)
    memory = replace(
        memory, owners=SimpleNamespace(line_size=64, of_line=lambda _, _cpu: owner, handed_out=lambda _: False)
    )
    result = judge_cpu(memory, cpu, Suppositions(), reinitialised=False)
    pfns = PfnList()
    pfns.append_page(struct.pack("<512Q", *sorted(frames), *[(1 << 64) - 1] * (512 - len(frames))))
    last = timeline(namer_of(memory), pfns, (result,), 0)[-1]
    assert f"the line that it monitors, at 0x101040, {said}" in last.text


def test_only_changes_are_told():
    def moment(copy, difference):
        return Moment(copy or None, 0, copy, (), SimpleNamespace(difference=difference, reason="so", touched=()))

    one, other, lost = Difference.INTACT, Difference.SAME, Difference.FOREIGN
    differences = [one, other, lost, lost, Difference.UNKNOWN, other]
    line = Moments(1, Event.NMI, tuple(moment(copy, difference) for copy, difference in enumerate(differences)))
    assert [(event.copy, event.text.partition(":")[0]) for event in event_changes(line)] == [
        (2, "from here on an NMI would kill it (the worst time for it)"),
        (4, "from here on what an NMI comes to is not known"),
        (5, "from here on it survives an NMI again"),
    ]
    always = Moments(1, Event.MACHINE_CHECK, (moment(0, lost),))
    assert [event.text for event in event_changes(always)] == ["at any time a machine check would kill it: so"]


def test_fred_whose_registers_no_dump_has_leaves_an_event_open(judged):
    """QEMU's notes lack the FRED MSRs: that is a missing fact, and no reason to end the check."""
    _plan, judgement = judged("fatal", memory=True)
    cpu = judgement.aps[0].cpu
    by_fred = replace(cpu, entry=replace(cpu.entry, cr4=cpu.entry.cr4 | 1 << 32))
    now = trace(judgement.memory, by_fred, Event.NMI)
    assert now.difference is Difference.UNKNOWN
    assert "FRED" in now.reason
