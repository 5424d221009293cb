"""One state, however it is come by: a dump, a place, a sweep, a design and the matrix say the same of it.

The states are made: how the CPU is parked, what the copy changes, whether its line is covered, whether the resumee
takes it over, and what is supposed.  What becomes of each, by the architecture and by what was measured,
is written down here once, and every way in must agree with it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest

from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.matrix.pair import judge_run, overlap_of
from hibercheck.handoff.matrix.pairing import Run, options_of
from hibercheck.handoff.matrix.scenario import Scenario, Settings
from hibercheck.handoff.matrix.summary import Loop, Summary, Waiting
from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import SUPPOSED, Doubt, Fate, Suppositions, When
from hibercheck.handoff.replay.judge import judge_cpu
from hibercheck.handoff.replay.judgement import Judgement
from hibercheck.handoff.verdict.decide import decide, usual_outcome
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.handoff.verdict.words import sentence
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts
from tests.support.made_states import (
    CODE,
    DEAD,
    GDT,
    GS,
    IDT_FRAME,
    LINE_AT,
    OTHER,
    ROOT,
    STACK_FRAME,
    TEXT_FRAME,
    entry_state,
    made,
    own_frames,
    page,
    tables,
)
from tests.support.made_states import TEXT as CODE_AT

FOREIGN, SAME, STALE, KEPT = "other code", "the same code", "other tables", "nothing"
CHANGES = (FOREIGN, SAME, STALE, KEPT)
STATES = (ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO, ParkState.WAIT_FOR_SIPI, ParkState.NEVER_BOOTED)
WAITING = STATES[:3]


def image_of(change, *, line, **where):
    """Return what the image puts over the resumer's frames; ``where`` as for `own_frames`."""
    own, at = own_frames(**where)
    image = {OTHER: bytes(4096)}
    if change == FOREIGN:
        image[at["text"]] = b"\xcc" * 4096
    elif change == SAME:
        image[at["text"]] = own[at["text"]]
    elif change == STALE:
        image[ROOT] = bytes(4096)
    if line:
        image[at["line"]] = page(0x40, DEAD)
    return image


def ruled(
    state, change, *, line=False, reinitialised=True, suppose=(), spurious=False, code=CODE, placed=True, **where
):
    memory, cpu = made(image_of(change, line=line, **where), state, code=code, placed=placed, **where)
    supposed = Suppositions(spurious, frozenset(SUPPOSED[name] for name in suppose))
    return judge_cpu(memory, cpu, supposed, reinitialised=reinitialised)


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("line", [False, True])
def test_what_is_not_overwritten_harms_nobody(state, line):
    found = ruled(state, KEPT, line=line and state is ParkState.MWAIT)
    assert found.fate in {Fate.REINITIALISED, Fate.PARKS_AGAIN}
    assert found.when is None


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_wakes_a_cpu_that_halts_or_waits_for_a_sipi(state, change):
    if state in {ParkState.MWAIT, ParkState.PORT_IO}:
        return
    assert ruled(state, change).fate in {Fate.REINITIALISED, Fate.UNTOUCHED}


@pytest.mark.parametrize(("change", "fate"), [
    (FOREIGN, Fate.DIES), (SAME, Fate.PARKS_AGAIN), (STALE, Fate.REINITIALISED), (KEPT, Fate.REINITIALISED),
])  # fmt: skip
@pytest.mark.parametrize("supposed", [Suppositions(spurious_mwait=True), Suppositions(mwait_spins=True, cold_tlb=True)])
def test_a_spurious_exit_finds_what_lies_there_and_what_it_has_cached(change, fate, supposed):
    memory, cpu = made(image_of(change, line=False))
    found = judge_cpu(memory, cpu, supposed, reinitialised=True)
    assert (found.fate, found.doubt) == (fate, None)
    assert (found.when, found.cause) == ((When.COPY, Event.SPURIOUS) if fate is Fate.DIES else (None, None))


@pytest.mark.parametrize(("change", "dies"), [(FOREIGN, True), (SAME, False), (STALE, True), (KEPT, False)])
def test_one_exit_on_a_cold_tlb_is_the_worst_case(change, dies):
    memory, cpu = made(image_of(change, line=False))
    found = judge_cpu(memory, cpu, Suppositions(spurious_mwait=True, cold_tlb=True), reinitialised=True)
    assert (found.ruling.certain_death, found.cause) == (dies, Event.SPURIOUS if dies else None)


def owned_by(writes):
    line = Owner(0x101040, 64, Use.DATA, ("jiffies",), None, writes, "somebody()")
    return SimpleNamespace(
        line_size=64,
        of_line=lambda physical, cpu: line if (physical, cpu) == (0x101040, 1) else 0,
        handed_out=lambda _: False,
    )


@pytest.mark.parametrize(("reinitialised", "writes", "when", "doubt"), [
    (True, Writes.BEFORE_INIT, When.BEFORE_INIT, None), (True, Writes.ORDINARY, When.COPY, Doubt.TIMING),
    (False, Writes.BEFORE_INIT, When.AFTER, None), (False, Writes.NEVER, When.COPY, Doubt.TIMING),
])  # fmt: skip
def test_a_cpu_that_passes_sleeps_on_the_resumees_line(reinitialised, writes, when, doubt):
    memory, cpu = made(image_of(FOREIGN, line=True))
    memory = replace(memory, owners=owned_by(writes))
    found = judge_cpu(memory, cpu, Suppositions(), reinitialised=reinitialised)
    assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, when, Event.STORE, doubt)
    assert found.stored_to is (when is not When.COPY)
    told = sentence(found)
    assert ("certainly writes as it resumes (somebody())" in told) is found.stored_to


@pytest.mark.parametrize(("change", "fate"), [
    (FOREIGN, Fate.DIES), (SAME, Fate.PARKS_AGAIN), (STALE, Fate.DIES), (KEPT, Fate.REINITIALISED),
])  # fmt: skip
def test_a_break_event_of_the_chipset_is_chance(change, fate):
    found = ruled(ParkState.PORT_IO, change)
    assert (found.fate, found.doubt) == (fate, Doubt.BREAK_EVENT if fate is Fate.DIES else None)


@pytest.mark.parametrize("change", CHANGES)
def test_a_line_that_is_not_written_wakes_nobody(change):
    found = ruled(ParkState.MWAIT, change, line=False)
    assert (found.when, found.doubt) == (None, None)


@pytest.mark.parametrize("change", [FOREIGN, STALE])
def test_a_line_below_the_code_wakes_it_into_the_resumees(change):
    """The copy goes down: what lies above the line has been replaced when the line is written."""
    found = ruled(ParkState.MWAIT, change, line=True, line_frame=0x80)
    assert found.fate is Fate.DIES
    if change == FOREIGN:
        assert (found.cause, found.doubt, found.ruling.usual) == (Event.STORE, None, None)
        assert found.timing.longest is None
    else:  # its tables lie below the line in either case: woken in time
        assert found.doubt is Doubt.TIMING


@pytest.mark.parametrize(("reinitialised", "usual"), [(True, Fate.REINITIALISED), (False, Fate.STAYS_PARKED)])
@pytest.mark.parametrize("change", [FOREIGN, STALE])
def test_a_line_above_the_code_wakes_it_in_time(change, reinitialised, usual):
    """Measured on a machine whose MWAIT sleeps: it passes its loop and parks again.  Nothing promises that it does."""
    found = ruled(ParkState.MWAIT, change, line=True, reinitialised=reinitialised)
    assert (found.fate, found.cause, found.doubt, found.ruling.usual) == (Fate.DIES, Event.STORE, Doubt.TIMING, usual)
    assert found.timing.store == 2
    assert found.timing.margin >= 1


@pytest.mark.parametrize(("latency", "cold", "usual"), [
    (0, False, Fate.REINITIALISED), (1, False, Fate.DIES), (1, True, Fate.DIES), (0, True, Fate.REINITIALISED),
])  # fmt: skip
def test_a_slow_wake_up_comes_too_late(latency, cold, usual):
    memory, cpu = made(image_of(FOREIGN, line=True))
    found = judge_cpu(memory, cpu, Suppositions(wake_latency=latency, cold_tlb=cold), reinitialised=True)
    assert (found.doubt, found.ruling.usual) == (Doubt.TIMING, usual)


@pytest.mark.parametrize(("longest", "doubt"), [(0, None), (1, None), (2, Doubt.TIMING), (None, Doubt.TIMING)])
def test_it_is_fatal_only_where_the_code_is_other_code_whenever_the_cpu_may_run(longest, doubt):
    """Its code is replaced, then its line, and at last a page table that leads to a copy of its code."""
    own, at = own_frames(line_frame=0x80)
    moved = tables({CODE_AT: 0x40, LINE_AT: 0x80, GS: at["gs"], GDT: at["gdt"]})
    last = next(pfn for pfn in moved if own[pfn] != moved[pfn])  # the table of its code alone leads elsewhere
    image = {at["text"]: b"\xcc" * 4096, 0x80: page(0x40, DEAD), 0x40: own[at["text"]], last: moved[last]}
    memory, cpu = made(image, line_frame=0x80)
    found = judge_cpu(memory, cpu, Suppositions(longest_wake=longest), reinitialised=True)
    assert found.iteration.difference is Difference.SAME
    assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, When.COPY, Event.STORE, doubt)
    assert (found.timing.store, found.timing.longest) == (2, longest)


@pytest.mark.parametrize(("cold", "usual"), [(False, Fate.REINITIALISED), (True, Fate.DIES)])
def test_between_the_loss_of_the_tables_and_of_the_code_the_tlb_decides(cold, usual):
    memory, cpu = made(image_of(STALE, line=True))
    found = judge_cpu(memory, cpu, Suppositions(wake_latency=1000, cold_tlb=cold), reinitialised=True)
    assert found.ruling.usual is usual


def test_a_line_whose_place_is_not_known_is_a_doubt():
    found = ruled(ParkState.MWAIT, FOREIGN, placed=False)
    assert (found.fate, found.cause, found.doubt) == (Fate.DIES, Event.STORE, Doubt.LINE)


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize(("change", "dies"), [(FOREIGN, True), (STALE, True), (SAME, False), (KEPT, False)])
def test_an_smi_to_a_cpu_that_is_left_behind_makes_it_fetch_again(state, change, dies):
    found = ruled(state, change, reinitialised=False, suppose=["smi"])
    if dies:
        assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, When.AFTER, Event.SMI, None)
    else:
        assert found.fate in {Fate.PARKS_AGAIN, Fate.UNTOUCHED}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["smi", "nmi", "mce"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_event_after_the_handoff_reaches_a_cpu_that_was_taken_over(state, name, change):
    found = ruled(state, change, suppose=[name])
    assert found.when is not When.AFTER
    assert (found.events, found.exposure) == ((), ())


@pytest.mark.parametrize("state", STATES)
def test_a_machine_check_with_mce_clear_ends_the_machine(state):
    memory, cpu = made(image_of(KEPT, line=False), state, facts=Facts(machine_checks_enabled=False))
    found = judge_cpu(memory, cpu, Suppositions(events=frozenset({Event.MACHINE_CHECK})), reinitialised=False)
    assert (found.fate, found.when, found.cause) == (Fate.DIES, When.AFTER, Event.MACHINE_CHECK)
    assert found.fatal_event.effect.ends_machine


@pytest.mark.parametrize(("change", "exposed"), [(FOREIGN, True), (STALE, True), (SAME, False), (KEPT, False)])
def test_what_was_not_supposed_and_would_kill_is_exposure(change, exposed):
    found = ruled(ParkState.HLT, change, reinitialised=False)
    assert (Event.SMI in {one.event for one in found.exposure}) is exposed
    assert found.fate is (Fate.STAYS_PARKED if change in {FOREIGN, STALE, SAME} else Fate.UNTOUCHED)


def test_a_store_of_the_resumee_to_the_line_of_a_cpu_that_it_leaves_behind():
    """Its line is the resumee's; each store there makes it run in what is there now."""
    found = ruled(ParkState.MWAIT, FOREIGN, line=True, reinitialised=False, suppose=["store"])
    assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, When.AFTER, Event.STORE, None)


def test_a_certain_death_later_counts_more_than_a_doubtful_one_before():
    found = ruled(ParkState.MWAIT, FOREIGN, line=True, reinitialised=False, suppose=["smi"])
    assert (found.when, found.cause, found.doubt) == (When.AFTER, Event.SMI, None)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("suppose", [(), ("smi",), ("nmi",)])
def test_frames_that_the_resumee_does_not_know_of_may_be_reused(state, change, suppose):
    memory, cpu = made(image_of(KEPT, line=False), state)
    supposed = Suppositions(events=frozenset(SUPPOSED[name] for name in suppose))
    found = judge_cpu(memory, replace(cpu, announced=False), supposed, reinitialised=False)
    if suppose:
        assert (found.fate, found.doubt) == (Fate.DIES, Doubt.REUSED)
    else:
        assert found.when is None
        assert Event.SMI in {one.event for one in found.exposure}


FREE = {"code": TEXT_FRAME, "tables": ROOT, "gate": IDT_FRAME, "stack of its NMI": STACK_FRAME, "another": 0x300}


@pytest.mark.parametrize(("state", "event", "harmed"), [
    (ParkState.HLT, "nmi", {"code", "tables", "gate", "stack of its NMI"}), (ParkState.HLT, "smi", {"code", "tables"}),
    (ParkState.MWAIT, "mce", {"code", "tables", "gate", "stack of its NMI"}),
    (ParkState.MWAIT, "store", {"code", "tables"}), (ParkState.WAIT_FOR_SIPI, "nmi", set()),
])  # fmt: skip
@pytest.mark.parametrize("change", [KEPT, SAME])
def test_a_cpu_in_memory_that_is_free_lives_until_it_is_handed_out(state, event, harmed, change):
    memory, cpu = made(image_of(change, line=False), state)
    cpu = replace(cpu, entry=entry_state())
    supposed = Suppositions(events=frozenset({SUPPOSED[event]}))
    for what, free in FREE.items():
        lent = replace(memory, owners=SimpleNamespace(line_size=64, of_line=lambda *_: None, handed_out=free.__eq__))
        found = judge_cpu(lent, cpu, supposed, reinitialised=False)
        assert (found.doubt is Doubt.HANDED_OUT) is (what in harmed)
        if what in harmed:
            assert (found.fate, found.when, found.cause) == (Fate.DIES, When.AFTER, SUPPOSED[event])
            verdict = decide(Acceptance(None, ()), Judgement(lent, None, (found,)))
            assert verdict == (Outcome.MAY_RESET, Verdict.RISK)
            assert usual_outcome(Outcome.MAY_RESET, Judgement(lent, None, (found,))) is Outcome.RESUMES
        quiet = judge_cpu(lent, cpu, Suppositions(), reinitialised=False)
        assert (SUPPOSED[event] in {one.event for one in quiet.exposure if one.lent}) is (what in harmed)
        if what in harmed:
            assert quiet.fate is Fate.STAYS_PARKED
            assert decide(Acceptance(None, ()), Judgement(lent, None, (quiet,))) == (Outcome.RESUMES, Verdict.LATENT)
        # one that it takes over is gone by then, and one of which it is told waits in frames that it keeps
        for kept in (
            judge_cpu(lent, cpu, supposed, reinitialised=True),
            judge_cpu(lent, replace(cpu, announced=True), supposed, reinitialised=False),
        ):
            assert kept.doubt is not Doubt.HANDED_OUT


def test_a_line_that_the_resumee_writes_and_code_in_free_memory_are_no_certain_death():
    """Each store finds the code, until its frame is handed out."""
    memory, cpu = made(image_of(KEPT, line=True))
    owners = SimpleNamespace(**vars(owned_by(Writes.ORDINARY)) | {"handed_out": TEXT_FRAME.__eq__})
    found = judge_cpu(replace(memory, owners=owners), cpu, Suppositions(), reinitialised=False)
    assert (found.fate, found.when, found.cause, found.doubt) == (
        Fate.DIES, When.AFTER, Event.STORE, Doubt.HANDED_OUT,
    )  # fmt: skip
    assert found.ruling.usual is Fate.PARKS_AGAIN


# The matrix: the same loops, at link addresses, with what is certain of both kernels.

TEXT = 0xFFFFFFFF81000000
LOOP = TEXT + 0x5000
ALL = frozenset({0, 1})


def summary(change):
    """Return a kernel's summary: as a resumer with ``change`` KEPT, or the resumee that makes that change."""
    code = bytes(range(16))
    content = code if change in {SAME, KEPT} else bytes(16)
    tables = 0x700000 if change == STALE else 0x600000
    content = code if change == STALE else content
    return Summary(
        path="k", release="6.1.0", build_id=None, traits=Traits(None, {}, ()), kind="made", kind_as_resumee="made",
        marks=frozenset(), text=TEXT, end=TEXT + 0x800000,
        tables=(TEXT + tables, None, TEXT + tables + 4096, TEXT + tables + 8192),
        loops=(Loop(((LOOP, code),), ()),), pages={LOOP: content.ljust(4096, b"\0")}, checks=True,
    )  # fmt: skip


def of_matrix(state, change, *, reinitialised, suppose, supposed):
    settings = Settings(scenarios=(Scenario("made"),), suppose=frozenset(suppose), **supposed)
    loop = None if state in {ParkState.WAIT_FOR_SIPI, ParkState.NEVER_BOOTED} else 0
    run = Run(
        waiting=(Waiting(frozenset({1}), state, loop, False, None),),
        unknown=(),
        refusal=None,
        placed=True,
        resumer_levels=4,
        resumee_levels=4,
        reinitialised=ALL if reinitialised else frozenset({0}),
    )
    ours, theirs = summary(KEPT), summary(change)
    options = options_of(settings.scenarios[0], settings)
    return judge_run(
        ours, theirs, run, settings, options, lambda loop: overlap_of(ours, ours.loops[loop], theirs)
    ).verdict


def of_check(state, change, *, reinitialised, suppose, supposed):
    """Ask the engine with a per-CPU area whose place is not known, as the matrix has none."""
    memory, cpu = made(image_of(change, line=False), state, code=CODE, placed=False)
    cpu = replace(cpu, entry=entry_state())  # whole: the matrix takes an event's tables to go the way of the loop's
    events = frozenset(SUPPOSED[name] for name in suppose)
    options = Suppositions(events=events, cold_tlb="spurious_mwait" in supposed, **supposed)
    result = judge_cpu(memory, cpu, options, reinitialised=reinitialised)
    return decide(Acceptance(None, ()), Judgement(object(), None, (result,)))[1]


@pytest.mark.parametrize(
    ("state", "change", "reinitialised", "suppose", "supposed"),
    list(
        product(
            STATES,
            (FOREIGN, SAME, STALE),
            (True, False),
            ((), ("smi",), ("mce",)),
            ({}, {"spurious_mwait": True}, {"mwait_spins": True}),
        )
    ),
)
def test_the_matrix_says_what_a_check_says(state, change, reinitialised, suppose, supposed):
    """A delivery goes through tables that no summary has: what is supposed here is what a CPU takes without one."""
    if suppose == ("mce",) and state in WAITING:
        return
    given = {"reinitialised": reinitialised, "suppose": suppose, "supposed": supposed}
    theirs, ours = of_matrix(state, change, **given), of_check(state, change, **given)
    assert theirs is ours
    outcome = {Verdict.FATAL: Outcome.RESETS, Verdict.RISK: Outcome.MAY_RESET}
    assert outcome.get(ours, Outcome.RESUMES)


COMMITTED = ("fatal", "safe", "benign", "latent", "no-overlap", "same-build")


@pytest.mark.parametrize("name", COMMITTED)
def test_a_hidden_cpu_is_there_under_every_design(predict, name):
    """A CPU that the resumer never started is left where the firmware has it, whatever parks the others."""
    hidden = {"resumer_cmdline": "nokaslr nr_cpus=1", "suppose": frozenset({"mce"})}
    plain = predict(name, **hidden)
    waiting = {cpu.cpu for cpu in plain.cpus if cpu.state == "never_booted"}
    assert waiting
    for design in ("hlt", "init", "self-contained", "cpuidle", "mwait-percpu", "fixmap"):
        report = predict(name, park=design, **hidden)
        assert {cpu.cpu for cpu in report.cpus if cpu.state == "never_booted"} == waiting
        assert (report.outcome, report.verdict) == (plain.outcome, plain.verdict)


def test_the_headline_says_what_the_replay_says(predict):
    """A machine check to a CPU with CR4.MCE clear shuts it down: it wakes in no memory at all."""
    report = predict("safe", resumer_cmdline="nokaslr nr_cpus=1", suppose=frozenset({"mce"}))
    if report.verdict is Verdict.FATAL:
        assert "shuts it down" in report.headline
        assert "memory" not in report.headline
