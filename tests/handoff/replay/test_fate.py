"""The decision as a table: a row for each thing that can become of a parked CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.memory.owner import Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import (
    SUPPOSED,
    After,
    Doubt,
    Fate,
    Prospects,
    Ruling,
    Suppositions,
    When,
    fate_of,
    over_places,
)
from hibercheck.handoff.verdict.decide import borrowed_time
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event

MWAIT, HLT, PORT, SIPI, NEVER = (
    ParkState.MWAIT,
    ParkState.HLT,
    ParkState.PORT_IO,
    ParkState.WAIT_FOR_SIPI,
    ParkState.NEVER_BOOTED,
)
INTACT, SAME, UNKNOWN, STALE, FOREIGN = Difference
QUIET, RESTLESS = Suppositions(), Suppositions(spurious_mwait=True)
NMI, SMI = Event.NMI, Event.SMI


def told(state, prospects, supposed=QUIET, *, taken=True):
    found = fate_of(state, prospects, supposed, reinitialised=taken)
    return found.fate, found.when, found.cause, found.doubt, found.usual


def quiet(fate):
    return fate, None, None, None, None


IN_COPY = [
    # state, prospects, spurious, what becomes of it
    (MWAIT, Prospects(FOREIGN, line=True, at_store=FOREIGN), False, (Fate.DIES, Event.STORE, None, None)),
    (MWAIT, Prospects(STALE, line=True, at_store=FOREIGN), False, (Fate.DIES, Event.STORE, None, None)),
    (MWAIT, Prospects(UNKNOWN, line=True, at_store=FOREIGN), False, (Fate.DIES, Event.STORE, None, None)),
    (MWAIT, Prospects(FOREIGN, line=None), False, (Fate.DIES, Event.STORE, Doubt.LINE, None)),
    (MWAIT, Prospects(STALE, line=None), False, (Fate.DIES, Event.STORE, Doubt.LINE, None)),
    (MWAIT, Prospects(FOREIGN, line=True, at_store=INTACT, usual=INTACT), False,
     (Fate.DIES, Event.STORE, Doubt.TIMING, Fate.REINITIALISED)),
    (MWAIT, Prospects(FOREIGN, line=True, at_store=STALE, usual=STALE), False,
     (Fate.DIES, Event.STORE, Doubt.TIMING, Fate.REINITIALISED)),
    (MWAIT, Prospects(FOREIGN, line=True, at_store=INTACT, usual=FOREIGN), False,
     (Fate.DIES, Event.STORE, Doubt.TIMING, Fate.DIES)),
    (MWAIT, Prospects(UNKNOWN, line=True, at_store=INTACT, usual=INTACT), False,
     (Fate.DIES, Event.STORE, Doubt.TIMING, Fate.REINITIALISED)),
    (MWAIT, Prospects(FOREIGN, line=True), True, (Fate.DIES, Event.SPURIOUS, None, None)),
    (MWAIT, Prospects(STALE, spurious=FOREIGN, line=True), True, (Fate.DIES, Event.SPURIOUS, None, None)),
    (PORT, Prospects(FOREIGN), True, (Fate.DIES, Event.SPURIOUS, None, None)),
    (PORT, Prospects(FOREIGN), False, (Fate.DIES, Event.SPURIOUS, Doubt.BREAK_EVENT, None)),
    (PORT, Prospects(STALE), False, (Fate.DIES, Event.SPURIOUS, Doubt.BREAK_EVENT, None)),
    (PORT, Prospects(UNKNOWN), False, (Fate.DIES, Event.SPURIOUS, Doubt.BREAK_EVENT, None)),
]  # fmt: skip


@pytest.mark.parametrize(("state", "prospects", "spurious", "expected"), IN_COPY)
def test_lost_while_the_image_is_copied(state, prospects, spurious, expected):
    fate, cause, doubt, usual = expected
    assert told(state, prospects, RESTLESS if spurious else QUIET) == (fate, When.COPY, cause, doubt, usual)


@pytest.mark.parametrize(("state", "prospects", "spurious"), [
    (MWAIT, Prospects(UNKNOWN, line=True), False),
    (MWAIT, Prospects(UNKNOWN, line=None), False),
    (MWAIT, Prospects(UNKNOWN, line=True, at_store=UNKNOWN), False),
    (MWAIT, Prospects(UNKNOWN, fetch_unknown=True), True),
    (PORT, Prospects(UNKNOWN, fetch_unknown=True), True),
])  # fmt: skip
def test_not_known_while_the_image_is_copied(state, prospects, spurious):
    fate, when, cause, doubt, usual = told(state, prospects, RESTLESS if spurious else QUIET)
    assert (fate, when, doubt, usual) == (Fate.UNKNOWN, When.COPY, None, None)
    assert cause is (Event.SPURIOUS if spurious else Event.STORE)


@pytest.mark.parametrize("state", [MWAIT, PORT])
def test_a_cpu_without_translations_may_be_lost_on_the_way_to_any_data(state):
    prospects = Prospects(UNKNOWN, spurious=UNKNOWN)
    supposed = Suppositions(spurious_mwait=True, cold_tlb=True)
    assert told(state, prospects, supposed) == (Fate.UNKNOWN, When.COPY, Event.SPURIOUS, None, None)
    for warm in (RESTLESS, Suppositions(mwait_spins=True, cold_tlb=True)):
        assert told(state, prospects, warm) == quiet(Fate.REINITIALISED)


SURVIVES = [
    # state, settled, line, spurious, taken over, left where it is
    (MWAIT, INTACT, True, False, Fate.REINITIALISED, Fate.UNTOUCHED),
    (MWAIT, SAME, True, False, Fate.PARKS_AGAIN, Fate.PARKS_AGAIN),
    (MWAIT, SAME, False, False, Fate.PARKS_AGAIN, Fate.PARKS_AGAIN),
    (MWAIT, FOREIGN, False, False, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (MWAIT, STALE, False, False, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (MWAIT, UNKNOWN, False, False, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (MWAIT, STALE, True, True, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (MWAIT, SAME, None, True, Fate.PARKS_AGAIN, Fate.PARKS_AGAIN),
    (PORT, INTACT, False, False, Fate.REINITIALISED, Fate.UNTOUCHED),
    (PORT, SAME, False, False, Fate.PARKS_AGAIN, Fate.PARKS_AGAIN),
    (PORT, STALE, False, True, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (HLT, INTACT, False, False, Fate.REINITIALISED, Fate.UNTOUCHED),
    (HLT, SAME, False, False, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (HLT, FOREIGN, False, True, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (HLT, STALE, False, False, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (HLT, UNKNOWN, False, True, Fate.REINITIALISED, Fate.STAYS_PARKED),
    (SIPI, None, False, True, Fate.UNTOUCHED, Fate.UNTOUCHED),
    (NEVER, None, False, False, Fate.UNTOUCHED, Fate.UNTOUCHED),
]


@pytest.mark.parametrize(("state", "settled", "line", "spurious", "taken", "left"), SURVIVES)
def test_what_nothing_kills(state, settled, line, spurious, taken, left):
    prospects, supposed = Prospects(settled, spurious=settled, line=line), RESTLESS if spurious else QUIET
    assert told(state, prospects, supposed) == quiet(taken)
    assert told(state, prospects, supposed, taken=False) == quiet(left)


def after(settled, **events):
    return Prospects(settled, after={SUPPOSED[name]: one for name, one in events.items()})


def suppose(*names):
    return Suppositions(events=frozenset(SUPPOSED[name] for name in names))


@pytest.mark.parametrize("name", SUPPOSED)
def test_a_supposed_event_kills_where_it_finds_other_bytes(name):
    expected = (Fate.DIES, When.AFTER, SUPPOSED[name], None, None)
    assert told(HLT, after(FOREIGN, **{name: After(FOREIGN)}), suppose(name), taken=False) == expected
    assert told(HLT, after(FOREIGN, **{name: After(FOREIGN)}), QUIET, taken=False) == quiet(Fate.STAYS_PARKED)
    assert told(HLT, after(FOREIGN, **{name: After(FOREIGN)}), suppose(name)) == quiet(Fate.REINITIALISED)


def test_names_of_events_are_those_of_the_option():
    assert set(SUPPOSED) == {"nmi", "mce", "smi", "store"}


def test_of_several_events_a_certain_death_counts_before_a_doubtful_one_and_that_before_what_is_not_known():
    both = after(FOREIGN, nmi=After(FOREIGN, Doubt.REUSED), smi=After(FOREIGN))
    assert told(HLT, both, suppose("nmi", "smi"), taken=False) == (Fate.DIES, When.AFTER, SMI, None, None)
    mixed = after(FOREIGN, nmi=After(UNKNOWN), smi=After(FOREIGN, Doubt.REUSED))
    assert told(HLT, mixed, suppose("nmi", "smi"), taken=False) == (Fate.DIES, When.AFTER, SMI, Doubt.REUSED, None)
    open_ = after(FOREIGN, nmi=After(UNKNOWN), smi=After(SAME))
    assert told(HLT, open_, suppose("nmi", "smi"), taken=False) == (Fate.UNKNOWN, When.AFTER, NMI, None, None)
    stale = after(FOREIGN, nmi=After(STALE))
    assert told(HLT, stale, suppose("nmi"), taken=False)[0] is Fate.UNKNOWN


def test_a_cpu_that_came_back_from_an_event_ran_through_replaced_memory_by_luck():
    assert told(HLT, after(SAME, nmi=After(SAME)), suppose("nmi"), taken=False) == quiet(Fate.PARKS_AGAIN)
    assert told(HLT, after(SAME, nmi=After(INTACT)), suppose("nmi"), taken=False) == quiet(Fate.STAYS_PARKED)
    assert told(HLT, after(SAME, nmi=After(SAME)), QUIET, taken=False) == quiet(Fate.STAYS_PARKED)
    exposed = after(SAME, nmi=After(SAME), smi=After(FOREIGN))
    assert told(HLT, exposed, suppose("nmi"), taken=False) == quiet(Fate.STAYS_PARKED)
    open_ = after(SAME, nmi=After(SAME), smi=After(UNKNOWN))
    assert told(HLT, open_, suppose("nmi"), taken=False) == quiet(Fate.PARKS_AGAIN)
    untouched = after(INTACT, nmi=After(SAME))
    assert told(HLT, untouched, suppose("nmi"), taken=False) == quiet(Fate.UNTOUCHED)


def test_what_kills_later_for_certain_counts_more_than_what_may_kill_before():
    prospects = Prospects(FOREIGN, at_store=INTACT, usual=INTACT, line=True, after={NMI: After(FOREIGN)})
    assert told(MWAIT, prospects, suppose("nmi"), taken=False) == (Fate.DIES, When.AFTER, NMI, None, None)
    assert told(MWAIT, prospects, QUIET, taken=False) == (
        Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING, Fate.STAYS_PARKED,
    )  # fmt: skip
    doubtful = Prospects(FOREIGN, at_store=INTACT, usual=INTACT, line=True, after={NMI: After(FOREIGN, Doubt.REUSED)})
    assert told(MWAIT, doubtful, suppose("nmi"), taken=False) == (
        Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING, Fate.DIES,
    )  # fmt: skip


def test_a_certain_death_in_the_copy_and_what_is_not_known_there_leave_nothing_for_later():
    """It is dead by then, whatever is supposed; and what is not known is told as such."""
    later = {NMI: After(FOREIGN)}
    dies = Prospects(FOREIGN, at_store=FOREIGN, line=True, after=later)
    assert told(MWAIT, dies, suppose("nmi"), taken=False) == (Fate.DIES, When.COPY, Event.STORE, None, None)
    open_ = Prospects(UNKNOWN, line=None, after=later)
    assert told(MWAIT, open_, suppose("nmi"), taken=False) == (Fate.UNKNOWN, When.COPY, Event.STORE, None, None)
    assert told(MWAIT, open_) == (Fate.UNKNOWN, When.COPY, Event.STORE, None, None)


STORE = Event.STORE


def asleep(settled, writes, *, line=True, store=FOREIGN, at_store=INTACT):
    return Prospects(
        settled, at_store=at_store, usual=at_store, line=line, writes=writes, after={STORE: After(store)}
    )  # fmt: skip


@pytest.mark.parametrize(("state", "settled", "writes", "line", "expected"), [
    (MWAIT, FOREIGN, Writes.BEFORE_INIT, True, (Fate.DIES, When.BEFORE_INIT, STORE, None, None)),
    (MWAIT, FOREIGN, Writes.ORDINARY, True, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.REINITIALISED)),
    (MWAIT, STALE, Writes.BEFORE_INIT, True, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.REINITIALISED)),
    (MWAIT, SAME, Writes.BEFORE_INIT, True, quiet(Fate.PARKS_AGAIN)),
    (MWAIT, FOREIGN, Writes.BEFORE_INIT, False, (Fate.DIES, When.BEFORE_INIT, STORE, None, None)),
    (MWAIT, STALE, Writes.BEFORE_INIT, False, (Fate.DIES, When.BEFORE_INIT, STORE, Doubt.CACHE, Fate.REINITIALISED)),
    (MWAIT, UNKNOWN, Writes.BEFORE_INIT, False, (Fate.UNKNOWN, When.BEFORE_INIT, STORE, None, None)),
    (MWAIT, STALE, Writes.ORDINARY, False, quiet(Fate.REINITIALISED)),
    (MWAIT, FOREIGN, Writes.HANDED_OUT, False, quiet(Fate.REINITIALISED)),
    (MWAIT, FOREIGN, Writes.ORDINARY, False, quiet(Fate.REINITIALISED)),
    (HLT, FOREIGN, Writes.BEFORE_INIT, False, quiet(Fate.REINITIALISED)),
])  # fmt: skip
def test_a_store_of_the_resumee_before_its_init(state, settled, writes, line, expected):
    """It is certain only if the store is, and if what the CPU then executes is the resumee's whatever it has cached."""
    assert told(state, asleep(settled, writes, line=line)) == expected


@pytest.mark.parametrize(("settled", "writes", "store", "expected"), [
    (FOREIGN, Writes.BEFORE_INIT, FOREIGN, (Fate.DIES, When.AFTER, STORE, None, None)),
    (STALE, Writes.BEFORE_INIT, FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.DIES)),
    (FOREIGN, Writes.ORDINARY, FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.DIES)),
    (FOREIGN, Writes.UNKNOWN, FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.STAYS_PARKED)),
    (FOREIGN, Writes.NEVER, FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.STAYS_PARKED)),
    (SAME, Writes.BEFORE_INIT, SAME, quiet(Fate.PARKS_AGAIN)),
    (SAME, Writes.ORDINARY, FOREIGN, (Fate.DIES, When.AFTER, STORE, Doubt.STORE, Fate.DIES)),
    (FOREIGN, Writes.HANDED_OUT, FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.STAYS_PARKED)),
    (SAME, Writes.NEVER, FOREIGN, quiet(Fate.PARKS_AGAIN)),
    (SAME, Writes.ORDINARY, UNKNOWN, (Fate.UNKNOWN, When.AFTER, STORE, None, None)),
    (SAME, Writes.NEVER, UNKNOWN, quiet(Fate.PARKS_AGAIN)),
])  # fmt: skip
def test_a_cpu_that_the_resumee_leaves_asleep_on_a_line_that_it_writes(settled, writes, store, expected):
    assert told(MWAIT, asleep(settled, writes, store=store), taken=False) == expected


@pytest.mark.parametrize(("settled", "writes", "store", "expected"), [
    (FOREIGN, Writes.BEFORE_INIT, FOREIGN, (Fate.DIES, When.AFTER, STORE, None, None)),
    (FOREIGN, Writes.ORDINARY, FOREIGN, (Fate.DIES, When.AFTER, STORE, Doubt.STORE, Fate.DIES)),
    (FOREIGN, Writes.HANDED_OUT, FOREIGN, (Fate.DIES, When.AFTER, STORE, Doubt.STORE, Fate.STAYS_PARKED)),
    (SAME, Writes.HANDED_OUT, FOREIGN, (Fate.DIES, When.AFTER, STORE, Doubt.STORE, Fate.PARKS_AGAIN)),
    (INTACT, Writes.HANDED_OUT, INTACT, quiet(Fate.UNTOUCHED)),
    (SAME, Writes.HANDED_OUT, SAME, quiet(Fate.PARKS_AGAIN)),
    (FOREIGN, Writes.UNKNOWN, FOREIGN, quiet(Fate.STAYS_PARKED)),
    (FOREIGN, Writes.NEVER, FOREIGN, quiet(Fate.STAYS_PARKED)),
])  # fmt: skip
def test_whether_the_resumee_writes_a_line_decides_and_not_whether_the_image_covers_it(
    settled, writes, store, expected
):
    """Measured (v10): the resumee handed out a line's frame that was free, and wrote there."""
    assert told(MWAIT, asleep(settled, writes, line=False, store=store), taken=False) == expected


def test_a_store_that_is_supposed_is_certain_whoever_owns_the_line():
    for writes in Writes:
        found = told(MWAIT, asleep(SAME, writes), suppose("store"), taken=False)
        assert found == (Fate.DIES, When.AFTER, STORE, None, None)


def test_a_cpu_that_never_sleeps_is_woken_by_no_store():
    spins = Suppositions(mwait_spins=True)
    assert told(MWAIT, asleep(STALE, Writes.ORDINARY), spins, taken=False) == quiet(Fate.STAYS_PARKED)
    assert told(MWAIT, asleep(STALE, Writes.BEFORE_INIT), spins) == quiet(Fate.REINITIALISED)
    assert told(MWAIT, asleep(FOREIGN, Writes.NEVER), spins) == (Fate.DIES, When.COPY, Event.SPURIOUS, None, None)


@pytest.mark.parametrize(("worst", "expected"), [
    (FOREIGN, (Fate.DIES, When.COPY, STORE, Doubt.TIMING, Fate.PARKS_AGAIN)),
    (STALE, quiet(Fate.PARKS_AGAIN)), (SAME, quiet(Fate.PARKS_AGAIN)), (None, quiet(Fate.PARKS_AGAIN)),
])  # fmt: skip
def test_a_loop_that_is_the_same_in_the_end_may_be_another_when_it_wakes(worst, expected):
    woken = Prospects(SAME, at_store=SAME, worst_at_store=worst, usual=SAME, line=True)
    assert told(MWAIT, woken) == expected
    assert told(MWAIT, Prospects(SAME, at_store=FOREIGN, worst_at_store=FOREIGN, line=True)) == (
        Fate.DIES, When.COPY, STORE, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(("usual", "expected"), [
    (FOREIGN, Fate.DIES), (UNKNOWN, Fate.UNKNOWN), (STALE, Fate.REINITIALISED), (SAME, Fate.REINITIALISED),
])  # fmt: skip
def test_what_usually_becomes_of_a_cpu_that_a_store_wakes_is_unknown_where_its_moment_is(usual, expected):
    woken = Prospects(FOREIGN, at_store=SAME, worst_at_store=FOREIGN, usual=usual, line=True)
    assert told(MWAIT, woken) == (Fate.DIES, When.COPY, STORE, Doubt.TIMING, expected)


@pytest.mark.parametrize(("at_store", "fate"), [(STALE, Fate.UNKNOWN), (UNKNOWN, Fate.UNKNOWN), (SAME, Fate.DIES)])
def test_a_fetch_that_is_not_known_is_not_hidden_by_data_out_of_reach(at_store, fate):
    woken = Prospects(STALE, fetch_unknown=True, at_store=at_store, worst_at_store=STALE, usual=STALE, line=True)
    assert told(MWAIT, woken)[0] is fate


def test_a_cpu_that_waits_in_no_loop_is_not_lost_in_one():
    assert told(MWAIT, Prospects(None, line=True, at_store=FOREIGN)) == quiet(Fate.UNTOUCHED)


def test_the_words_of_the_json_are_stable():
    assert [str(one) for one in When] == ["copy", "before-init", "after"]
    assert [str(one) for one in Doubt] == [
        "line", "timing", "break-event", "place", "coverage", "store", "reused", "handed-out", "cache",
    ]  # fmt: skip
    assert [str(one) for one in Fate] == [
        "untouched", "parks again", "re-initialised", "stays parked", "dies", "unknown",
    ]  # fmt: skip


def test_a_line_counts_as_not_written_unless_it_is_said_to_be():
    assert told(MWAIT, Prospects(FOREIGN)) == quiet(Fate.REINITIALISED)


def test_only_a_death_without_doubt_is_certain():
    assert Ruling(Fate.DIES).certain_death
    assert not Ruling(Fate.DIES, doubt=Doubt.LINE).certain_death
    assert not Ruling(Fate.UNKNOWN).certain_death


@pytest.mark.parametrize(("nmi", "smi", "expected"), [
    (After(INTACT, lent=True), After(INTACT), (NMI, Doubt.HANDED_OUT, Fate.STAYS_PARKED)),
    (After(INTACT, lent=True), After(FOREIGN), (SMI, None, None)),
    (After(FOREIGN, granted=True), After(FOREIGN), (SMI, None, None)),  # what nobody has to take for granted
    (After(FOREIGN), After(FOREIGN, granted=True), (NMI, None, None)),
    (After(FOREIGN, granted=True), After(FOREIGN, Doubt.REUSED), (NMI, None, None)),
    (After(INTACT, lent=True), After(FOREIGN, Doubt.REUSED), (SMI, Doubt.REUSED, None)),
    (After(UNKNOWN), After(SAME, lent=True), (SMI, Doubt.HANDED_OUT, Fate.STAYS_PARKED)),
])  # fmt: skip
def test_of_several_deaths_that_one_counts_which_is_surer(nmi, smi, expected):
    cause, doubt, usual = expected
    found = told(HLT, after(SAME, nmi=nmi, smi=smi), suppose("nmi", "smi"), taken=False)
    assert found == (Fate.DIES, When.AFTER, cause, doubt, usual)


def test_a_line_that_is_written_in_ordinary_running_counts_more_than_free_memory():
    prospects = replace(asleep(SAME, Writes.ORDINARY, line=False), after={
        NMI: After(INTACT, lent=True), STORE: After(FOREIGN),
    })  # fmt: skip
    found = told(MWAIT, prospects, suppose("nmi"), taken=False)
    assert found == (Fate.DIES, When.AFTER, STORE, Doubt.STORE, Fate.DIES)


DIES = Ruling(Fate.DIES, When.COPY, Event.SPURIOUS)
LENT = Ruling(Fate.DIES, When.AFTER, NMI, Doubt.HANDED_OUT, Fate.STAYS_PARKED)
MAY = Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.LINE)
TIMED = Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING, Fate.REINITIALISED)


@pytest.mark.parametrize(("rulings", "expected"), [
    ([DIES, DIES], DIES),
    ([DIES, MAY], replace(DIES, doubt=Doubt.PLACE)),
    ([MAY, MAY], MAY),
    ([DIES, Ruling(Fate.UNTOUCHED)], Ruling(Fate.DIES, When.COPY, Event.SPURIOUS, Doubt.PLACE)),
    ([Ruling(Fate.STAYS_PARKED), MAY], Ruling(Fate.DIES, When.COPY, Event.STORE, Doubt.PLACE)),
    ([Ruling(Fate.UNTOUCHED), Ruling(Fate.PARKS_AGAIN)], Ruling(Fate.PARKS_AGAIN)),
    ([Ruling(Fate.REINITIALISED), Ruling(Fate.PARKS_AGAIN)], Ruling(Fate.REINITIALISED)),
    ([Ruling(Fate.STAYS_PARKED), Ruling(Fate.REINITIALISED)], Ruling(Fate.STAYS_PARKED)),
    ([Ruling(Fate.UNKNOWN), Ruling(Fate.STAYS_PARKED)], Ruling(Fate.UNKNOWN)),
    ([DIES, Ruling(Fate.UNKNOWN)], Ruling(Fate.DIES, When.COPY, Event.SPURIOUS, Doubt.PLACE)),
    ([Ruling(Fate.UNTOUCHED)], Ruling(Fate.UNTOUCHED)),
    ([LENT, Ruling(Fate.UNTOUCHED)], LENT),
    ([LENT, LENT], LENT),
    ([LENT, MAY], replace(MAY, doubt=Doubt.PLACE)),
    ([TIMED, replace(TIMED, usual=Fate.DIES), TIMED], replace(TIMED, usual=Fate.DIES)),
    ([DIES, TIMED], replace(DIES, doubt=Doubt.PLACE)),
    ([LENT, DIES], replace(DIES, doubt=Doubt.PLACE)),
    ([LENT, DIES, Ruling(Fate.UNTOUCHED)], replace(DIES, doubt=Doubt.PLACE)),
    ([LENT, MAY, Ruling(Fate.UNTOUCHED)], replace(MAY, doubt=Doubt.PLACE)),
])  # fmt: skip
def test_over_several_places_the_worst_counts_and_what_differs_is_chance(rulings, expected):
    assert over_places([(1, one) for one in rulings], Doubt.PLACE) == expected


def test_a_place_that_cannot_be_has_no_say():
    assert over_places([(1, DIES), (0, Ruling(Fate.UNTOUCHED))], Doubt.PLACE) == DIES
    assert over_places([(0, DIES), (2, Ruling(Fate.UNTOUCHED))], Doubt.PLACE) == Ruling(Fate.UNTOUCHED)


@pytest.mark.parametrize(("state", "settled", "line", "killers", "expected"), [
    (MWAIT, STALE, True, False, True), (MWAIT, STALE, None, False, True), (MWAIT, STALE, False, False, False),
    (MWAIT, UNKNOWN, True, False, True), (MWAIT, FOREIGN, True, False, False), (MWAIT, SAME, True, False, False),
    (PORT, STALE, False, False, True), (PORT, UNKNOWN, False, False, True), (HLT, STALE, False, False, False),
    (HLT, STALE, None, False, False), (HLT, INTACT, False, True, True), (MWAIT, None, False, True, True),
    (SIPI, None, False, True, False), (NEVER, None, False, True, False),
])  # fmt: skip
def test_borrowed_time(state, settled, line, killers, expected):
    assert borrowed_time(state, settled, line, killers=killers) is expected


def test_what_reports_call_what_becomes_of_a_cpu():
    """Programs read these words in a report (``fate``, ``when``, ``doubt`` of a CPU): they stay."""
    assert [*Fate] == [
        "untouched", "parks again", "re-initialised", "stays parked", "dies", "unknown",
    ]  # fmt: skip
    assert [*When] == ["copy", "before-init", "after"]
    assert [*Doubt] == ["line", "timing", "break-event", "place", "coverage", "store", "reused", "handed-out", "cache"]
    assert {"nmi": Event.NMI, "mce": Event.MACHINE_CHECK, "smi": Event.SMI, "store": Event.STORE} == SUPPOSED


def test_nothing_is_supposed_or_known_unless_it_is_said():
    quiet = Suppositions()
    assert (quiet.spurious_mwait, quiet.events, quiet.cold_tlb, quiet.mwait_spins, quiet.waits_end) == (
        False, frozenset(), False, False, False,
    )  # fmt: skip
    assert (quiet.wake_latency, quiet.longest_wake) == (None, None)
    assert (Prospects(None).fetch_unknown, Prospects(None).line) == (False, False)
    assert After(INTACT) == After(INTACT, None, lent=False, granted=False)
