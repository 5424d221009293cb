"""Where CPUs spend their time in the end that the resumee has offline."""

from __future__ import annotations

import pytest

from hibercheck.data import replace
from hibercheck.handoff.designs import rest
from hibercheck.handoff.designs.compare import compare_designs
from hibercheck.handoff.designs.rest import Rest, resting
from hibercheck.handoff.scenario.park import ParkRules
from hibercheck.x86.cpu import ParkState
from tests.support.cases import options_of


@pytest.fixture
def rests(committed):
    """Return a function that gives each design's answer for a case, by name and by whether E has it too."""

    def of(name, **more):
        case = committed(name)
        files = (case["image"], case["resumer"], case["resumee"])
        rows = compare_designs(*files, options_of(case["args"], **more)).rows
        return {(row.design.name, row.known): row.rest for row in rows}

    return of


def test_a_cpu_that_e_leaves_offline_waits_as_the_design_left_it(rests):
    found = rests("latent", suppose=frozenset())
    halted, waiting = Rest(1, ParkState.HLT, "resumer", "no deeper than C1"), ParkState.WAIT_FOR_SIPI
    assert found["hlt", False] == found["hlt-rescued", False] == found["self-contained", False] == (halted,)
    assert found["init", False] == (Rest(1, waiting, None, "which is not a C-state"),)


def test_one_that_is_taken_over_waits_as_the_resumee_has_it(rests):
    found = rests("latent", suppose=frozenset())
    (one,) = found["self-contained", True]
    assert (one.cpu, one.whose) == (1, "resumee")
    assert found["init", True] == found["self-contained-nopaging", True] == (one,)


def test_the_resumees_code_is_asked_once_however_many_cpus_it_takes_over(judged, monkeypatch):
    plan, judgement = judged("latent", memory=False, suppose=frozenset())
    asked = []
    monkeypatch.setattr(rest, "ParkRules", lambda *given: asked.append(given) or ParkRules(*given))
    (one,) = judgement.aps
    many = [replace(one, cpu=replace(one.cpu, parked=replace(one.parked, cpu=cpu))) for cpu in range(1, 100)]
    found = resting(replace(plan, reinitialised=frozenset(range(100))), many)
    assert [each.cpu for each in found] == list(range(1, 100))
    assert {(each.whose, each.why) for each in found} == {("resumee", found[0].why)}
    assert len(asked) == 1


def test_a_machine_that_resets_has_no_end(rests):
    assert rests("fatal")["mwait-percpu", False] == ()


def test_cpus_that_the_resumee_runs_are_not_meant(judged):
    plan, judgement = judged("latent", memory=False, suppose=frozenset())
    assert [one.cpu for one in resting(plan, judgement.aps)] == [1]
    online = replace(plan, options=replace(plan.options, resumee_online=frozenset({1})))
    assert resting(online, judgement.aps) == ()
