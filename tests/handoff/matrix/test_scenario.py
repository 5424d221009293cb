from __future__ import annotations

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.scenario import Machine, Scenario, parse_scenario, reinitialised_cpus, resumer_cpus

MACHINE = Machine()


def test_presets_have_names():
    assert parse_scenario("nosmt", MACHINE) == Scenario("nosmt", "nosmt")
    assert parse_scenario("offline-primary", MACHINE).resumer_offline == {2}
    assert parse_scenario("offline-core", MACHINE).resumer_offline == {2, 3}
    assert parse_scenario("resumee-offline", MACHINE).resumee_offline == {3}


def test_a_scenario_of_ones_own():
    text = "live=nokaslr quiet;offline=2-3;resumee-offline=1;idle=mwait;resumee=nokaslr nosmt"
    found = parse_scenario(text, MACHINE)
    assert found == Scenario("live", "nokaslr quiet", "nokaslr nosmt", frozenset({2, 3}), frozenset({1}), "mwait")
    assert not found.resumer.nosmt
    assert found.resumee.nosmt


@pytest.mark.parametrize(
    "text",
    ["nothing", "a=;offline=4", "a=;offline=0", "a=;offline=x", "a=;idle=poll", "a=;what=1", "a=;offline=1-99999999"],
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageProblem):
        parse_scenario(text, MACHINE)


def test_the_resumee_is_booted_like_the_resumer_by_default():
    assert parse_scenario("nosmt", MACHINE).resumee.nosmt


def test_nosmt_siblings_ran_and_are_down():
    bringup = resumer_cpus(parse_scenario("nosmt", MACHINE), MACHINE)
    assert (bringup.online, bringup.booted) == ({0, 2}, {0, 1, 2, 3})


def test_without_threads_nosmt_means_nothing():
    machine = Machine(threads=1)
    assert resumer_cpus(parse_scenario("nosmt", machine), machine).online == {0, 1, 2, 3}


@pytest.mark.parametrize(("reparks", "expected"), [(True, {0, 1, 2, 3}), (False, {0, 2})])
def test_a_nosmt_resumee_takes_siblings_over_only_if_it_reparks_them(reparks, expected):
    assert reinitialised_cpus(parse_scenario("nosmt", MACHINE), MACHINE, reparks=reparks) == expected


def test_an_offline_cpu_is_not_taken_over():
    assert reinitialised_cpus(parse_scenario("resumee-offline", MACHINE), MACHINE, reparks=True) == {0, 1, 2}
