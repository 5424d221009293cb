"""The sentences about one CPU say what the replay found."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import SUPPOSED, Doubt, Fate, Ruling, Suppositions, When
from hibercheck.handoff.replay.judge import judge_cpu
from hibercheck.handoff.replay.judgement import Timing
from hibercheck.handoff.verdict.words import (
    doubt_of,
    either,
    killers_of,
    lent_to,
    owned,
    sentence,
    timing_text,
    unknown_of,
    with_article,
    would,
    written,
)
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event
from hibercheck.x86.follow import CourseEnd
from tests.support.made_states import (
    CODE,
    GS_FRAME,
    LINE_FRAME,
    OTHER,
    ROOT,
    TEXT,
    TEXT_FRAME,
    entry_state,
    made,
    own_frames,
    page,
)

KEPT = {OTHER: bytes(4096)}
FOREIGN = {TEXT_FRAME: b"\xcc" * 4096}
STALE = {ROOT: bytes(4096)}
SAME = {TEXT_FRAME: own_frames()[0][TEXT_FRAME]}


def result_of(image, state=ParkState.HLT, *, suppose=(), reinitialised=True, spurious=False, **how):
    memory, cpu = made(image, state, **how)
    supposed = Suppositions(spurious, frozenset(SUPPOSED[name] for name in suppose))
    return judge_cpu(memory, cpu, supposed, reinitialised=reinitialised)


@pytest.mark.parametrize(("image", "state", "how", "said"), [
    (KEPT, ParkState.NEVER_BOOTED, {}, "nothing that it can touch is overwritten"),
    (KEPT, ParkState.HLT, {"reinitialised": False}, "nothing that it can touch is overwritten"),
    (FOREIGN, ParkState.HLT, {}, "nothing makes it run before the resumee's INIT takes it out of its loop"),
    (STALE, ParkState.HLT, {}, "nothing makes it run before the resumee's INIT takes it out of its loop"),
    (STALE, ParkState.MWAIT, {}, "its page tables are overwritten; it runs on the translations it has cached until the "
                                 "resumee's INIT"),
    (SAME, ParkState.MWAIT, {}, "what it runs through is overwritten with the same bytes, by luck; it parks again"),
    (KEPT, ParkState.MWAIT, {}, "nothing makes it run before the resumee's INIT takes it out of its loop"),
    (FOREIGN, ParkState.PORT_IO, {}, "it may be lost in the handoff: whether a break event of the chipset ends the "
                                     "port read during the copy is chance"),
    (FOREIGN, ParkState.MWAIT, {"placed": False}, "it may be lost in the handoff: it is not known whether the image "
                                                  "covers the monitored line"),
    (FOREIGN, ParkState.MWAIT, {"spurious": True}, "a spurious exit makes it run during the copy, when its loop is "
                                                   "overwritten with other bytes"),
    (FOREIGN, ParkState.HLT, {"reinitialised": False, "suppose": ["smi"]},
     "when an SMI reaches it, it does not find its loop again"),
])  # fmt: skip
def test_what_becomes_of_a_cpu(image, state, how, said):
    found = result_of(image, state, **how)
    assert sentence(found).replace(Event.SPURIOUS.value, "spurious exit") == said


def test_what_would_kill_a_cpu_that_is_left_behind_is_named():
    found = result_of(FOREIGN, reinitialised=False)
    assert killers_of(found) == ["SMI"]  # what it does on others is not known
    assert sentence(found) == "the resumee leaves it in the resumer's loop; the next SMI would kill the machine"
    assert sentence(replace(found, exposure=())) == "the resumee leaves it in the resumer's loop"
    others = tuple(one for one in found.exposure if one.event is not Event.SMI)
    assert unknown_of(found) == unknown_of(replace(found, exposure=others)) == ["NMI", "machine check"]
    assert sentence(replace(found, exposure=others)) == (
        "the resumee leaves it in the resumer's loop; what the next NMI or machine check would do to it is not known"
    )
    lent = tuple(replace(one, lent=True) for one in others[:1])
    assert unknown_of(replace(found, exposure=(*lent, others[1]))) == ["machine check"]
    assert lent_to(replace(found, exposure=(*lent, others[1]))) == ["NMI"]
    supposed = replace(found, events=lent, exposure=(others[1],))
    assert (lent_to(supposed), killers_of(supposed)) == (["NMI"], [])
    assert sentence(supposed).endswith("once it is handed out, the next NMI would kill the machine")
    at_once = replace(found, exposure=(found.iteration,))  # that of no event
    assert (killers_of(at_once), unknown_of(at_once), lent_to(at_once)) == ([], [], [])


@pytest.mark.parametrize(("when", "then"), [
    (When.COPY, " in the handoff"), (When.BEFORE_INIT, " before the resumee sends it an INIT"),
    (When.AFTER, " after the handoff"), (None, ""),
])  # fmt: skip
def test_one_that_is_lost_for_no_cause_that_is_known_is_lost(when, then):
    found = result_of(FOREIGN, ParkState.MWAIT)
    lost = replace(found, ruling=Ruling(Fate.DIES, when, None), owner=None)
    assert sentence(lost) == f"it is lost{then}"
    nowhere = replace(lost, ruling=Ruling(Fate.DIES, when, Event.SPURIOUS), iteration=None)
    assert sentence(nowhere) == f"it is lost{then}"
    kept = result_of(KEPT, ParkState.MWAIT)
    undecided = replace(kept, ruling=Ruling(Fate.DIES, when, Event.SPURIOUS), owner=None)
    assert sentence(undecided) == f"it is lost{then}"
    doubted = replace(lost, ruling=Ruling(Fate.DIES, when, None, Doubt.COVERAGE))
    chance = "it is chance which frames an image covers"
    assert sentence(doubted) == (f"it may be lost{then}: {chance}" if when else chance)


@pytest.mark.parametrize("when", [When.BEFORE_INIT, When.AFTER])
def test_a_store_of_the_resumee_that_kills_is_told_with_what_it_writes(when):
    owner = replace(LINE, names=("jiffies",), writes=Writes.ORDINARY)
    found = replace(result_of(FOREIGN, ParkState.MWAIT), ruling=Ruling(Fate.DIES, when, Event.STORE), owner=owner)
    assert sentence(found) == (
        "it sleeps on jiffies of the resumee, where it writes as it runs: that store wakes it in memory that has been "
        "replaced"
    )
    copied = replace(found, ruling=Ruling(Fate.DIES, When.COPY, Event.STORE))
    assert "sleeps on" not in sentence(copied)
    assert "sleeps on" not in sentence(replace(found, owner=None))


@pytest.mark.parametrize("difference", [Difference.STALE, Difference.UNKNOWN])
def test_one_that_stays_parked_runs_on_nothing_that_ends_with_an_init(difference):
    found = result_of(KEPT, ParkState.MWAIT, reinitialised=False)
    cached = replace(found.iteration, difference=difference)
    stays = replace(found, ruling=Ruling(Fate.STAYS_PARKED), iteration=cached, line=True, exposure=())
    assert sentence(stays) == "the resumee leaves it in the resumer's loop"


def test_where_a_cpu_goes_on_to_is_told_as_far_as_it_is_known():
    found = result_of({GS_FRAME: page(0x40, bytes(4))}, ParkState.MWAIT, spurious=True)
    away = replace(found.iteration.divergence, end=CourseEnd.NOT_UNDERSTOOD, rip=0x1234)
    gone = replace(found, iteration=replace(found.iteration, divergence=away))
    assert would(gone.iteration).endswith(", and goes on to 0x1234, where its code is not understood")
    assert "leads it out of its loop" not in sentence(gone)  # where it is not known to be lost


@pytest.mark.parametrize(("state", "line", "runs"), [
    (ParkState.MWAIT, True, True), (ParkState.MWAIT, None, True), (ParkState.MWAIT, False, False),
    (ParkState.HLT, True, False),
])  # fmt: skip
def test_a_cpu_that_may_run_on_what_it_has_cached(state, line, runs):
    """Only a wait that can end by itself; and not on page tables of which the line is known to be left alone."""
    found = result_of(KEPT, state)
    unknown = replace(found.iteration, difference=Difference.UNKNOWN)
    cached = replace(found, ruling=Ruling(Fate.REINITIALISED), iteration=unknown, line=line)
    assert ("which is not known; if it runs, it is on the translations it has cached" in sentence(cached)) is runs
    assert ("nothing makes it run" in sentence(cached)) is not runs


def test_free_memory_that_a_cpu_is_left_in_is_told():
    memory, cpu = made(KEPT, ParkState.HLT)
    memory = replace(memory, owners=SimpleNamespace(line_size=64, of_line=lambda *_: None, handed_out=lambda _: True))
    found = judge_cpu(memory, replace(cpu, entry=entry_state()), Suppositions(), reinitialised=False)
    assert (killers_of(found), lent_to(found)) == ([], ["NMI", "machine check", "SMI"])
    assert sentence(found) == (
        "the resumee leaves it in the resumer's loop; that memory is free, and once it is handed out, the next NMI, "
        "machine check or SMI would kill the machine"
    )
    killed = replace(found, exposure=(replace(found.exposure[0], difference=Difference.FOREIGN, lent=False),
                                      *found.exposure[1:]))  # fmt: skip
    assert sentence(killed) == "the resumee leaves it in the resumer's loop; the next NMI would kill the machine"


def test_what_is_missing_is_said_first():
    found = replace(result_of(KEPT), missing=("where it lies", "--resumer-memory DUMP"))
    assert sentence(found) == "not known: where it lies"


def test_a_cpu_that_reads_its_way_out_of_its_loop():
    found = result_of({GS_FRAME: page(0x40, bytes(4))}, ParkState.MWAIT, spurious=True)
    assert found.fate is Fate.DIES
    assert "what it reads as its per-CPU data is no longer its own, and leads it out of its loop" in sentence(found)
    assert would(found.iteration).startswith(f"it leaves its loop for {TEXT + 0x22:#x} because of its per-CPU data at ")
    assert would(found.iteration).endswith(", and is lost")


def test_a_kick_that_leads_to_another_loop_of_its_own():
    code = CODE[:0x20] + bytes.fromhex("f4ebfd")
    line = {LINE_FRAME: page(0x40, (0x4A17DEAD).to_bytes(4, "little"))}
    found = result_of(line, ParkState.MWAIT, code=code)
    assert would(found.iteration).endswith(f", and then waits at {TEXT + 0x20:#x}")


@pytest.mark.parametrize(("image", "said"), [
    (KEPT, "it parks again"),
    (SAME, "it parks again, as what matters is the same there"),
    (FOREIGN, f"it finds other bytes at its park loop at {TEXT:#x}"),
    (STALE, f"it faults on its park loop at {TEXT:#x} (level 4 entry not present), unless it still has the translation "
            "cached"),
])  # fmt: skip
def test_what_one_iteration_comes_to(image, said):
    assert would(result_of(image).iteration) == said


def test_what_is_not_known_of_an_iteration():
    memory, cpu = made(KEPT)
    frame = memory.resumer.frame
    memory.resumer.frame = lambda pfn: None if pfn == ROOT else frame(pfn)
    found = judge_cpu(memory, cpu, Suppositions(spurious_mwait=True), reinitialised=True)
    assert would(found.iteration) == f"what it does is not known: the way to its park loop at {TEXT:#x} is not"


@pytest.mark.parametrize(("timing", "then"), [
    (Timing(2, 9, None, None), "while the code and tables that it needs are still its own"),
    (Timing(2, 9, 2, None), "and its page tables are gone by then: what it has cached of them decides"),
    (Timing(2, 9, 5, 4), "and at most 2 copies later it no longer finds its way back"),
    (Timing(2, 9, 5, None, counted=True), "and 3 copies later it no longer finds its way back"),
])  # fmt: skip
def test_when_a_store_wakes_it(timing, then):
    assert timing_text(timing) == f"copy 2 of 9 writes its line and wakes it, {then}"


@pytest.mark.parametrize(("longest", "over"), [(4000, "more"), (4, "more"), (3, "less"), (0, "less")])
def test_whether_it_may_take_longer_to_wake(longest, over):
    text = timing_text(Timing(2, 9, 5, None, counted=True, longest=longest))
    assert text.endswith(f"; it may take {longest:,} copies to wake, which is {over}")
    assert "may take" not in timing_text(Timing(2, 9, None, None, longest=longest))


LINE = Owner(0x1000, 64, Use.DATA)


@pytest.mark.parametrize("use", Use)
def test_whatever_a_line_is_is_said_with_and_without_names(use):
    assert "{" not in owned(Owner(0x1000, 64, use, cpu=3))
    assert "{" not in owned(Owner(0x1000, 64, use, ("jiffies", "xtime"), cpu=3))


@pytest.mark.parametrize(("owner", "said"), [
    (LINE, "data of the resumee"), (replace(LINE, names=("jiffies", "xtime")), "jiffies and xtime of the resumee"),
    (Owner(0, 64, Use.PERCPU, cpu=3), "data of the resumee's CPU 3"),
    (Owner(0, 64, Use.PERCPU, ("cpuhp_state",), 3), "cpuhp_state of the resumee's CPU 3"),
    (Owner(0, 64, Use.SLAB, ("dentry",)), "an object of the resumee's cache dentry"),
    (Owner(0, 64, Use.OWN_LINE, ("mwait_cpu_dead",), 2), "the line on which the resumee's CPU 2 would wait if it went "
                                                         "offline"),
])  # fmt: skip
def test_what_a_line_is_to_the_resumee(owner, said):
    assert owned(owner) == said


@pytest.mark.parametrize(("owner", "said"), [
    (LINE, ""), (replace(LINE, writes=Writes.NEVER), ", which it leaves alone"),
    (replace(LINE, use=Use.CODE, writes=Writes.NEVER), ""),
    (replace(LINE, writes=Writes.ORDINARY), ", where it writes as it runs"),
    (replace(LINE, writes=Writes.HANDED_OUT), ", which is written once it is handed out"),
    (replace(LINE, writes=Writes.BEFORE_INIT, writer="f()"), ", where it certainly writes as it resumes (f())"),
])  # fmt: skip
def test_whether_the_resumee_writes_there(owner, said):
    assert written(owner) == said


def test_doubts_are_told_with_what_is_known_of_them():
    plain = result_of(FOREIGN, ParkState.MWAIT)
    assert doubt_of(plain) == ""
    for doubt in Doubt:
        found = replace(plain, ruling=Ruling(Fate.DIES, When.AFTER, Event.SMI, doubt))
        assert doubt_of(found)
        assert sentence(found) == f"it may be lost after the handoff: {doubt_of(found)}"
    timed = replace(
        plain, ruling=Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING), timing=Timing(2, 9, None, None)
    )
    assert doubt_of(timed) == timing_text(timed.timing)
    stored = replace(plain, ruling=Ruling(Fate.DIES, When.AFTER, Event.STORE, Doubt.STORE),
                     owner=replace(LINE, writes=Writes.ORDINARY))  # fmt: skip
    assert doubt_of(stored) == "the resumee leaves it asleep on data of the resumee, where it writes as it runs"


@pytest.mark.parametrize(("events", "said"), [
    ([], ""), (["NMI"], "NMI"), (["NMI", "SMI"], "NMI or SMI"), (["NMI", "SMI", "store"], "NMI, SMI or store"),
])  # fmt: skip
def test_lists_of_events(events, said):
    assert either(events) == said


@pytest.mark.parametrize(("event", "said"), [
    ("NMI", "an NMI"), ("SMI", "an SMI"), ("INIT", "an INIT"), ("external interrupt", "an external interrupt"),
    ("machine check", "a machine check"), ("store to its line", "a store to its line"),
])  # fmt: skip
def test_articles(event, said):
    assert with_article(event) == said


@pytest.mark.parametrize(("doubt", "timing", "said"), [
    (Doubt.PLACE, True, "the resumer's load address is random"), (Doubt.TIMING, False, "it depends on when it wakes"),
    (Doubt.STORE, True, "it depends on when it wakes"), (None, True, ""),
])  # fmt: skip
def test_a_doubt_is_told_by_its_own_reason(doubt, timing, said):
    found = result_of(FOREIGN, ParkState.MWAIT)
    ruling = replace(found.ruling, doubt=doubt)
    timed = replace(found, ruling=ruling, timing=Timing(1, 2, None, None) if timing else None)
    assert doubt_of(replace(timed, owner=None)) == said
    if doubt is not Doubt.STORE:
        assert doubt_of(replace(timed, owner=LINE)) == said


def test_a_cpu_whose_loop_is_out_of_reach_is_told_so():
    found = result_of(FOREIGN, ParkState.MWAIT, spurious=True)
    decisive = replace(found.iteration.decisive, leaf_overwritten=False)
    gone = replace(found, iteration=replace(found.iteration, decisive=decisive))
    assert sentence(found).endswith("when its loop is overwritten with other bytes")
    assert sentence(gone).endswith("when its loop is out of reach")
