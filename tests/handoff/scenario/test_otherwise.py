"""No verdict rests on an assumption that is not listed: each fact of a run is varied, or says why it is not."""

from __future__ import annotations

import pytest

from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.scenario.known import TABLE
from hibercheck.handoff.scenario.otherwise import OF_RESUMEE, OTHERWISE
from tests.conftest import ROOT

ALTERNATIVES = [ROOT / "hibercheck" / "handoff" / room / "alternatives.py" for room in ("scenario", "acceptance")]


def test_the_table_has_each_fact_once():
    assert sorted(OTHERWISE) == sorted(fact.name for fact in TABLE)


@pytest.mark.parametrize("fact", TABLE, ids=lambda fact: fact.name)
def test_a_fact_is_varied_or_says_why_not(fact):
    """Where it may be inferred or usual; one that is only ever measured has its reason too."""
    found = OTHERWISE[fact.name]
    assert set(found.kinds) <= set(KINDS)
    assert found.kinds or found.why
    assert fact.option or found.why, "what settles it"


def test_every_condition_is_about_a_fact():
    named = {kind for one in OTHERWISE.values() for kind in one.kinds}
    assert named | {*OF_RESUMEE} == set(KINDS)
    assert not named & {*OF_RESUMEE}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_somewhere(kind):
    """A kind that nothing makes would vary nothing."""
    scenario, acceptance = (path.read_text() for path in ALTERNATIVES)
    assert f'"{kind}"' in scenario.partition("def alternatives(")[2] + acceptance


@pytest.mark.parametrize("name", ["fatal", "safe", "benign", "latent", "no-overlap", "random-address", "paging-mode"])
def test_what_a_verdict_rests_on_is_in_the_report(predict, name):
    """Each fact that a plan asked for and may be otherwise is shown with its source and what settles it."""
    report = predict(name)
    open_ones = [one for one in report.assumptions if one.standing is not None and one.standing.is_open]
    assert open_ones
    for one in open_ones:
        if one.name is not None:
            assert one.name in OTHERWISE
            assert one.source
