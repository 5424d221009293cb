"""Sources in order of trust, what two that differ mean, and how well known what follows from facts is."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.sources import RunFact, Source, collected, derived, given, in_dump
from tests.support.made_inputs import asking, made_dumped

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing


def says(value, standing, **more):
    """Return a source that says this, whoever asks."""
    return Source(lambda _: None if value is None else Known(value, standing, f"of {standing}"), **more)


def fact(*sources, **more):
    return RunFact("made", "what is made", sources, show=str, option="--made", **more)


def test_the_first_source_that_knows_wins():
    assert asking().need(fact(says(None, MEASURED), says(2, READ), says(2, USUAL))).value == 2
    assert asking().known(fact(says(None, MEASURED))) is None
    assert asking().value(fact(says(None, MEASURED))) is None
    assert asking().value(fact(says(0, MEASURED))) == 0
    with pytest.raises(MissingFact, match=r"^what is made is not known"):
        asking().need(fact())


def test_a_fact_is_found_once_and_one_that_asks_for_itself_gets_nothing():
    asked = []

    def read(run):
        asked.append(run.known(itself))
        return Known(1, USUAL, "default")

    itself = fact(Source(read))
    run = asking()
    assert run.need(itself) is run.need(itself)
    assert asked == [None]
    assert dict(run) == {"made": run.need(itself)}


def test_facts_that_nobody_knows_are_not_listed():
    run = asking()
    run.known(fact(says(None, USUAL)))
    assert dict(run) == {}


def test_the_option_that_says_otherwise_is_the_sources_own_or_the_facts():
    assert asking().need(fact(says(1, USUAL))).option == "--made"
    assert asking().need(fact(given("--other", lambda _: 1))).option == "--other"


@pytest.mark.parametrize(("best", "other"), list(product([MEASURED, READ, GIVEN], [MEASURED, GIVEN])))
def test_what_was_measured_or_given_must_not_differ(best, other):
    two = fact(says(1, best), says(2, other))
    with pytest.raises(Mismatch) as found:
        asking(collected={}).need(two)
    assert f"1 (of {best}) and 2 (of {other})" in str(found.value)
    assert found.value.path == "facts.json"
    assert found.value.advice == (
        "take both on the same boot" if other is MEASURED
        else "leave out that option, or add --what-if to judge a run that was not measured"
    )  # fmt: skip
    assert asking().need(fact(says(1, best), says(1, other))).value == 1


@pytest.mark.parametrize("other", [READ, INFERRED, USUAL])
def test_what_is_only_inferred_or_read_may_differ_of_a_run(other):
    run = asking()
    assert run.need(fact(says(1, MEASURED), says(2, other))).value == 1
    assert run.disagreements == []


def test_of_a_machine_what_the_resumee_had_may_have_changed_and_is_told():
    run = asking()
    assert run.need(fact(says(1, MEASURED), says(2, INFERRED), of_machine=True)).value == 1
    (found,) = run.disagreements
    assert (found.fact, found.other) == ("made", 2)
    assert found.text == "two sources differ on what is made: 1 (of measured) and 2 (of inferred)"
    same = asking()
    same.need(fact(says(1, MEASURED), says(1, INFERRED), of_machine=True))
    same.need(fact(says(1, MEASURED), says(2, USUAL), of_machine=True))
    assert same.disagreements == []


def test_what_the_user_says_of_a_machine_is_not_held_against_what_is_inferred_but_against_what_was_measured():
    run = asking()
    run.need(fact(says(1, GIVEN), says(2, INFERRED), of_machine=True))
    assert run.disagreements == []
    with pytest.raises(Mismatch):
        asking().need(fact(says(1, MEASURED), says(2, GIVEN), of_machine=True))
    measured = asking()
    measured.need(fact(says(1, READ), says(2, MEASURED), of_machine=True))
    assert len(measured.disagreements) == 1


def test_values_are_compared_as_the_fact_says():
    assert asking().need(fact(says(1, MEASURED), says(2, MEASURED), same=None)).value == 1
    parity = fact(says(1, MEASURED), says(3, MEASURED), same=lambda ours, theirs: ours % 2 == theirs % 2)
    assert asking().need(parity).value == 1
    with pytest.raises(Mismatch):
        asking().need(fact(says(1, MEASURED), says(2, MEASURED), same=parity.same))
    # what a source knows to be random is not a value that could differ
    assert asking().need(fact(says(1, MEASURED), Source(lambda _: Known(None, MEASURED, "random")))).value == 1


def test_with_what_if_the_option_comes_first_and_contradicts_nothing():
    two = fact(says(1, MEASURED), says(2, GIVEN, is_option=True))
    assert asking(what_if=True, collected={}).need(two).value == 2
    with pytest.raises(Mismatch):
        asking(collected={}).need(two)
    without = fact(says(1, MEASURED), says(None, GIVEN, is_option=True), says(3, MEASURED))
    with pytest.raises(Mismatch):  # what was measured still contradicts itself
        asking(what_if=True, collected={}).need(without)


@pytest.mark.parametrize("order", list(permutations([MEASURED, GIVEN, USUAL], 3)))
def test_what_follows_from_facts_is_as_weak_as_the_weakest(order):
    assert derived(*(Known(1, standing, "") for standing in order)) is USUAL


@pytest.mark.parametrize(("standing", "expected"), [
    (MEASURED, READ), (READ, READ), (GIVEN, GIVEN), (INFERRED, INFERRED), (USUAL, USUAL),
])  # fmt: skip
def test_what_follows_from_a_fact_by_a_kernels_rules_is_read_at_best(standing, expected):
    assert derived(Known(1, standing, "")) is expected
    assert standing.is_open is (standing in {INFERRED, USUAL})


@pytest.mark.parametrize("kind", ["dump", "facts"])
@pytest.mark.parametrize(("of_run", "what_if", "known"), [
    (False, False, True), (True, False, True), (False, True, True), (True, True, False),
])  # fmt: skip
def test_of_another_run_what_was_measured_tells_only_the_machine(kind, of_run, what_if, known):
    if kind == "dump":
        run, source = {"dumped": made_dumped(pages=7)}, in_dump(lambda facts: facts.pages, of_run=of_run)
    else:
        run, source = {"collected": {"pages": 7}}, collected(lambda facts: facts.pages, of_run=of_run)
    found = asking(what_if=what_if, **run).known(fact(source))
    assert (found is not None) is known
    if found is not None:
        assert (found.value, found.standing) == (7, MEASURED)
        assert found.source == ("its memory dump" if kind == "dump" else "collected on the resumer")
    assert asking(what_if=what_if).known(fact(source)) is None


def test_a_remark_is_made_once():
    run = asking()
    run.remark("so")
    run.remark("so")
    assert list(run.remarks) == ["so"]


def test_which_file_is_to_blame():
    assert asking().blamed is None
    assert asking(collected={}).blamed == "facts.json"
    assert asking(collected={}, dumped=made_dumped()).blamed == "dump"
    assert [asking(what_if=True, **one).supposed for one in ({}, {"collected": {}}, {"dumped": made_dumped()})] == [
        False, True, True,
    ]  # fmt: skip
