"""The committed record is in order, and what it lists is still in the code."""

from __future__ import annotations

import pytest

from tests.mutation import core, coverage_map, record
from tests.mutation.core import CORE, ROOT, modules
from tests.mutation.mutants import mutants_of
from tests.mutation.run import Outcome

KEPT = record.read()
HELD = [path for part in CORE if part.held for path in modules(part)]
LEAST = 0.9
"""The share of its mutants that a held module's tests kill."""


@pytest.mark.parametrize("part", CORE, ids=lambda part: part.patterns[0])
def test_modules_and_their_tests_are_there(part):
    assert modules(part)
    assert core.test_files(part)


@pytest.mark.parametrize("path", KEPT)
def test_what_is_listed_is_in_the_code(path):
    keys = {mutant.key for mutant in mutants_of(path, (ROOT / path).read_bytes())}
    lost = [one.key for one in KEPT[path].survivors if one.key not in keys]
    assert not lost, f"gone or changed; run python -m tests.mutation --write {path}"


@pytest.mark.parametrize("path", KEPT)
def test_the_counts_agree(path):
    module = KEPT[path]
    assert 0 <= module.killed <= module.tried <= module.total
    assert len(module.survivors) == module.tried - module.killed
    assert len({one.key for one in module.survivors}) == len(module.survivors)


@pytest.mark.parametrize("path", HELD)
def test_a_held_module_is_held(path):
    module = KEPT[path]
    assert module.tried == module.total
    assert module.killed >= LEAST * module.total
    assert [one.key for one in module.survivors if not one.reason] == []


DRAWN = record.read_sample()
GONE = 0.25
"""The share of the sample's survivors that may have changed since: with more it is drawn anew."""


@pytest.mark.skipif(DRAWN is None, reason="no sample has been drawn yet")
def test_the_sample_says_what_it_counts():
    assert (sum(tried for tried, _ in DRAWN.modules.values()), sum(dead for _, dead in DRAWN.modules.values())) == (
        DRAWN.tried, DRAWN.killed,
    )  # fmt: skip
    for path, (tried, killed) in DRAWN.modules.items():
        assert len(DRAWN.survivors.get(path, ())) == tried - killed
    assert (DRAWN.low, DRAWN.high) == tuple(round(end, 4) for end in record.wilson(DRAWN.killed, DRAWN.tried))


@pytest.mark.skipif(DRAWN is None, reason="no sample has been drawn yet")
def test_every_survivor_of_the_sample_has_a_reason_and_most_are_still_in_the_code():
    listed = [(path, one) for path, own in DRAWN.survivors.items() for one in own]
    assert [one.key for _, one in listed if not one.reason] == []
    keys = {path: {one.key for one in mutants_of(path, (ROOT / path).read_bytes())} for path in DRAWN.survivors
            if (ROOT / path).exists()}  # fmt: skip
    lost = [one for path, one in listed if one.key not in keys.get(path, ())]
    assert len(lost) <= GONE * len(listed), "draw it anew: python -m tests.mutation --sample 400 --write"


def test_a_sample_that_ended_early_is_its_beginning():
    mutants = mutants_of("x.py", b"def f(a):\n    return a + 1 - 2 * 3\n")
    drawn = record.sample(mutants, 5, "7")
    outcomes = [Outcome(one, killed=number != 1, by="", how="fails") for number, one in enumerate(drawn)]
    del outcomes[3]
    reasons = {("x.py", drawn[1].key): "so"}
    found = record.sampled(drawn, outcomes, "7", len(mutants), reasons)
    assert (found.tried, found.killed, found.total, found.modules) == (3, 2, len(mutants), {"x.py": (3, 2)})
    assert [(one.key, one.reason) for one in found.survivors["x.py"]] == [(drawn[1].key, "so")]
    assert (found.low, found.high) == tuple(round(end, 4) for end in record.wilson(2, 3))
    assert record.reasons_of({}, found) == reasons


def test_a_sample_is_read_as_it_was_written(tmp_path):
    survivor = record.Survivor("f", "a", "b", 1, "so")
    found = record.Sample("all", "7", 9, 2, 1, 0.1, 0.9, {"x.py": (2, 1)}, {"x.py": (survivor,)})
    record.write_sample(found, tmp_path / "sample.json")
    assert record.read_sample(tmp_path / "sample.json") == found
    assert record.read_sample(tmp_path / "none.json") is None


def test_a_change_elsewhere_hardly_changes_a_sample():
    before = mutants_of("x.py", b"def f(a):\n    return a + 1 - 2 * 3 + 4 * 5 - 6\n")
    after = mutants_of("x.py", b"def g():\n    return 7\n\ndef f(a):\n    return a + 1 - 2 * 3 + 4 * 5 - 6\n")
    keys = [{one.key for one in record.sample(mutants, 12, "7")} for mutants in (before, after)]
    assert len(keys[0] & keys[1]) >= 9


def test_the_interval_is_wilson_s():
    # the score interval of Newcombe, Statistics in Medicine 17 (1998), 857, table I: 81 of 263, and 0 of 20
    low, high = record.wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = record.wilson(0, 20)
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)
    assert record.wilson(0, 0) == (0.0, 1.0)


def test_a_sample_is_the_same_for_the_same_seed():
    mutants = mutants_of("x.py", b"def f(a):\n    return a + 1 - 2 * 3\n")
    one = record.sample(mutants, 3, "7")
    assert one == record.sample(mutants, 3, "7")
    assert len(one) == 3
    assert any(record.sample(mutants, 3, str(seed)) != one for seed in range(5))
    assert record.sample(mutants, None, "7") == mutants


def test_reasons_stay_and_killed_ones_go(tmp_path):
    mutants = mutants_of("x.py", b"def f(a):\n    return a + 1\n")
    outcomes = [Outcome(one, killed=False, by="", how="survives") for one in mutants]
    first = record.updated({}, {"x.py": mutants}, outcomes)
    assert (first["x.py"].total, first["x.py"].killed) == (len(mutants), 0)
    survivors = [record.Survivor(*one.key, reason=f"because {one.after}") for one in first["x.py"].survivors]
    reasoned = {"x.py": record.Module(3, 3, 0, tuple(survivors)), "y.py": record.Module(1, 1, 1, ())}
    outcomes[0] = Outcome(mutants[0], killed=True, by="test", how="fails")
    second = record.updated(reasoned, {"x.py": mutants}, outcomes)
    assert second["y.py"] == reasoned["y.py"]
    assert second["x.py"].killed == 1
    assert {one.reason for one in second["x.py"].survivors} == {f"because {one.after}" for one in mutants[1:]}
    record.write(second, tmp_path / "record.json")
    assert record.read(tmp_path / "record.json") == second
    assert [one for _, one in record.gone(second, {"x.py": [mutants[1]]})] == list(second["x.py"].survivors[1:])


@pytest.mark.parametrize(
    ("by", "known"), [("", True), ("tests/test_a.py::test_a", True), ("tests/test_b.py::gone", False)]
)
def test_a_killed_mutant_stays_so_while_its_test_is_there(tmp_path, by, known):
    """One with which no test can be collected has no test to its name."""
    source = b"def total(a):\n    return a + 1\n"
    mutant = mutants_of("hibercheck/small.py", source)[0]
    there = coverage_map.Map({"tests/test_a.py::test_a": coverage_map.Test(0.1, {}, [])})

    def results():
        return record.Results(there, {mutant.path: source}, {mutant.path: []}, tmp_path / "results.jsonl")

    results().add(Outcome(mutant, killed=True, by=by, how="fails"))
    assert (results().of(mutant) is not None) is known
