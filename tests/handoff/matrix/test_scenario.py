from __future__ import annotations

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.scenario import Machine, Scenario, parse_scenario

MACHINE = Machine()


def test_presets_have_names():
    assert parse_scenario("nosmt", MACHINE) == Scenario("nosmt", "nosmt")
    assert parse_scenario("offline-primary", MACHINE).resumer_offline == {2}
    assert parse_scenario("offline-core", MACHINE).resumer_offline == {2, 3}
    assert parse_scenario("resumee-offline", MACHINE).resumee_offline == {3}


def test_a_preset_takes_parts_too():
    found = parse_scenario("offline;idle=mwait;fact=lz4=absent", MACHINE)
    assert (found.name, found.resumer_offline) == ("offline;idle=mwait;fact=lz4=absent", {3})
    assert (found.idle, found.facts) == ("mwait", (("lz4", "absent"),))


def test_a_scenario_of_ones_own():
    text = "live=nokaslr quiet;offline=2-3;resumee-offline=1;idle=mwait;resumee=nokaslr nosmt"
    found = parse_scenario(text, MACHINE)
    assert found == Scenario("live", "nokaslr quiet", "nokaslr nosmt", frozenset({2, 3}), frozenset({1}), "mwait")
    assert found.resumee_text == "nokaslr nosmt"


def test_a_scenario_says_facts_as_a_check_does():
    found = parse_scenario("a=quiet;fact=lz4=absent;resumee-online=3;fact=smt=on", MACHINE)
    assert (found.facts, found.resumee_online) == ((("lz4", "absent"), ("smt", "on")), {3})


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "nothing;idle=mwait",
        "nosmt;what=1",
        "a=;offline=4",
        "a=;offline=0",
        "a=;offline=x",
        "a=;idle=poll",
        "a=;what=1",
        "a=;offline=1-99999999",
        "a=;offline=",
        "a=;offline=\u0662",
        "a=;offline=1_2",
        "a=;offline=1-3:0/2",
        "a=;offline=1-3:3/2",
        "a=;fact=lz4",
        "a=;fact=colour=red",
        "a=;resumee-online=0",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(UsageProblem):
        parse_scenario(text, MACHINE)


@pytest.mark.parametrize(("text", "cpus"), [("1-3:1/2", {1, 3}), ("1-2, 3", {1, 2, 3})])
def test_cpus_are_listed_as_everywhere(text, cpus):
    assert parse_scenario(f"a=;offline={text}", MACHINE).resumer_offline == cpus
    assert parse_scenario(f"a=;resumee-offline={text}", MACHINE).resumee_offline == cpus


def test_the_resumee_is_booted_like_the_resumer_by_default():
    assert parse_scenario("nosmt", MACHINE).resumee_text == "nosmt"
