"""The bounds of the family ``standings``, counted from entries that are made up and from the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.lab.bochs.build import VERSION as BOCHS
from tests.lab.experiment import Experiment, Side
from tests.lab.held_out import REPLACED, is_false_alarm, table
from tests.lab.machine import Machine
from tests.lab.record import EMULATOR
from tests.lab.records import PLACE, Entry, Said, load

ONE = Experiment("standings3-0", Side("a"), Side("b"))
SAFE, FATAL, RISK = Said(0, "resumes", "safe"), Said(1, "resets", "fatal"), Said(1, "may-reset", "risk")
ENTRY = Entry(ONE, EMULATOR, "2026-11-29", "abc", SAFE, None, "resumes")
CONDITION = ("idle-driver",)


def named(number: int, experiment: Experiment = ONE, **changes: object) -> Entry:
    own = replace(experiment, name=f"standings3-{number}")
    return replace(ENTRY, experiment=own, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "first", "cmdline", "expected"),
    [
        ("resumes", FATAL, "nokaslr", True),
        ("resumes", Said(1, "refused", "refused"), "nokaslr", True),
        ("resumes", replace(FATAL, conditions=CONDITION), "nokaslr", False),
        ("resets", FATAL, "nokaslr", False),
        ("resumes", RISK, "nokaslr", True),
        ("resumes", replace(RISK, conditions=CONDITION), "nokaslr", True),
        ("resumes", RISK, "", False),
        ("resumes", replace(RISK, usual="resumes"), "nokaslr", False),
        ("resumes", SAFE, "nokaslr", False),
    ],
)
def test_a_false_alarm(outcome: str, first: Said, cmdline: str, expected: bool):
    experiment = replace(ONE, resumer=Side("b", cmdline))
    assert is_false_alarm(replace(ENTRY, experiment=experiment, outcome=outcome, first=first)) is expected


def test_each_bound_has_a_row_that_names_what_counts_against_it():
    entries = [
        named(0, outcome="resets"),
        named(1, outcome="refused"),
        named(2, replace(ONE, resumer_machine=Machine()), outcome="refused"),
        named(3, replace(ONE, resumer=Side("b", kexec_from="c")), outcome="refused"),
        named(4, outcome="refused", first=replace(SAFE, conditions=CONDITION)),
        named(5, first=FATAL, dump=FATAL),
        named(6, first=Said(2, note="no")),
        named(7, outcome="survives", first=FATAL, dump=FATAL),
        named(8, replace(ONE, resumer_machine=Machine()), outcome="hangs"),
        named(9, replace(ONE, resumer_machine=Machine()), first=FATAL),
    ]
    text = table([*entries, replace(ENTRY, experiment=replace(ONE, name="chance3-9"))])
    assert "**Seed 3**: 10 experiments, predicted first by hibercheck at abc." in text
    assert "ran away: none | 3 | 2 | `-0`, `-8` |" in text
    assert "shows the difference | 3 | 1 | `-0` |" in text
    assert "not loaded: none | 4 | 3 | `-1`, `-2`, `-3` |" in text
    assert "shows the difference | 4 | 1 | `-1` |" in text
    assert "at most 2 % | 10 | 2 (20.0 %) | `-5`, `-9` |" in text
    assert "shows the difference | 10 | 1 (10.0 %) | `-5` |" in text
    assert "no report | 10 | 1 | `-6` |" in text
    assert "not right: none | 2 | 1 | `-5` |" in text
    assert "in the median | 10 | 0 | at most 1 |" in text


def test_moments_have_bounds_of_their_own():
    def drawn(number: int, **changes: object) -> Entry:
        slept = {"copies": 9, "parked": [[1, "mwait", 7]], "wakes": [[1, "store", 3, "copy", True]]}
        entry = replace(ENTRY, machine=BOCHS, dump=replace(SAFE, wakes=((1, 3, True),)), events=slept)
        return replace(entry, experiment=replace(ONE, name=f"b7-{number}"), **changes)  # type: ignore[arg-type]

    dies = {"copies": 9, "wakes": [[1, "store", 4, "copy", True]]}
    entries = [drawn(0), drawn(1, events=dies), drawn(2, outcome="resets", first=FATAL), drawn(3, dump=None, events={})]
    text = table(entries)
    assert "**Seed 7 in Bochs**: 4 experiments, 2 of them with a CPU asleep in MWAIT, predicted first" in text
    assert "ran away: none | 1 | 1 | `-2` |" in text
    assert "usual outcome not right: at most 2 % | 3 | 1 | `-2` |" in text
    assert "where it was not to: at most 2 % | 3 | 1 | `-1` |" in text


def test_what_was_drawn_in_place_of_another_is_said_to_be():
    names = {entry.name for entry in load(PLACE)}
    for gone, (other, why) in REPLACED.items():
        text = table([replace(ENTRY, experiment=replace(ONE, name=other))])
        assert f"`{gone}` was drawn and gave no outcome{why}; `{other}` was drawn in its place and is counted." in text
        assert (gone in names, other in names) == (False, True)


def drawn(seed):
    """What the record has of a seed of the family."""
    return [entry for entry in load(PLACE) if entry.name.startswith(f"standings{seed}-")]


def test_the_hundred_and_fifty_are_whole():
    assert len(drawn(11)) == 150


def test_a_fresh_seed_missed_nothing_that_was_given():
    """As it was predicted first, after what seed 11 taught."""
    text = table(drawn(12))
    assert "ran away: none | 2 | 0 |" in text
    assert "shows the difference | 9 | 0 |" in text
    assert "at most 2 % | 20 | 0 (0.0 %) |" in text


def test_a_hundred_and_fifty_of_one_version_missed_nothing_that_was_given():
    found = drawn(13)
    assert (len(found), len({entry.commit for entry in found})) == (150, 1)
    text = table(found)
    assert "shows the difference | 14 | 0 |" in text
    assert "shows the difference | 83 | 0 |" in text
    assert "shows the difference | 150 | 2 (1.3 %) |" in text
    assert "not right: none | 67 | 1 | `-5` |" in text


def test_sixty_of_the_version_that_followed_are_right_with_every_dump():
    found = drawn(16)
    assert (len(found), len({entry.commit for entry in found})) == (60, 1)
    text = table(found)
    assert "whose CPU ran away: none | 9 | 0 |" in text
    assert "at most 2 % | 60 | 1 (1.7 %) |" in text
    assert "not right: none | 29 | 0 |" in text
