from __future__ import annotations

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.run import fill
from hibercheck.handoff.matrix.scenario import Machine, Scenario, Settings
from hibercheck.handoff.matrix.table import Matrix, Member, merge, missing_rows
from hibercheck.handoff.verdict.findings import Outcome, Verdict

SAFE = Cell(Outcome.RESUMES, Verdict.SAFE, "nothing")
FATAL = Cell(Outcome.RESETS, Verdict.FATAL, "all")
MEMBERS = tuple(Member(f"6.{number}", f"{number:040x}", f"k{number}") for number in range(3))


def shard(*resumers: int, scenarios=("a", "b"), members=MEMBERS, swapped: bool = False, **fields) -> Matrix:
    matrix = Matrix(members, scenarios, **fields)
    for resumer in resumers:
        cells = [FATAL, SAFE] if swapped else [SAFE, FATAL]
        row = [cells.index(FATAL if resumee > resumer else SAFE) for resumee in range(len(members))]
        matrix.add(resumer, cells, [row] * len(scenarios))
    return matrix


def test_shards_make_the_whole_whatever_their_numbers_mean():
    merged = merge([("one", shard(0)), ("two", shard(1)), ("three", shard(2, swapped=True))])
    whole = shard(0, 1, 2)
    assert list(merged.pairs()) == list(whole.pairs())
    assert merged.verdicts() == {Verdict.SAFE, Verdict.FATAL}
    assert merged.counts(0) == {"safe": 6, "fatal": 3}


def test_a_row_that_is_there_twice_is_refused():
    with pytest.raises(UsageProblem, match=r"row of 6\.1"):
        merge([("one", shard(0, 1)), ("two", shard(1))])


@pytest.mark.parametrize("other", [{"scenarios": ("a", "c")}, {"members": MEMBERS[:2]}])
def test_shards_of_different_matrices_are_refused(other):
    with pytest.raises(UsageProblem, match="same matrix"):
        merge([("one", shard(0)), ("two", shard(1, **other))])


def test_a_shard_lacks_rows():
    assert shard(1).cell(0, 0, 1) is None
    assert shard(1).resumers() == [1]
    assert shard(1).missing() == [0, 2]


def test_shards_of_two_versions_are_refused():
    with pytest.raises(UsageProblem, match=r"two: was judged by hibercheck 0\.0\.1, one by "):
        merge([("one", shard(0)), ("two", shard(1, version="0.0.1"))])


def test_what_was_merged_knows_its_shards():
    parts = {number: (f"{number}/3", shard(number - 1, shards=((number, 3),))) for number in (1, 2, 3)}
    some = merge([parts[3], parts[1]])
    assert (some.shards, some.missing()) == (((1, 3), (3, 3)), [1])
    assert missing_rows(some) == "the row of 6.1 (shard 2/3)"
    whole = merge([("some", some), parts[2]])
    assert (whole.shards, whole.missing(), missing_rows(whole)) == ((), [], None)
    assert list(whole.pairs()) == list(shard(0, 1, 2).pairs())


def test_missing_rows_are_named_some_of_them():
    members = tuple(Member(f"6.{number}", None, f"k{number}") for number in range(40))
    matrix = shard(*range(0, 40, 4), members=members, shards=((1, 4),))
    names = ", ".join(f"6.{number}" for number in (1, 2, 3, 5, 6, 7, 9, 10))
    assert missing_rows(matrix) == f"the rows of {names} and 22 more (shards 2/4, 3/4, 4/4)"
    assert missing_rows(shard(0, members=members)).endswith("and 31 more")


def test_cells_are_numbered_as_they_come():
    parts = [("one", shard(0, swapped=True)), ("two", shard(1)), ("three", shard(2, swapped=True))]
    merged, whole = merge(parts).in_order(), shard(0, 1, 2).in_order()
    assert (merged.cells, merged.rows) == (whole.cells, whole.rows)
    assert merge(parts).cells != whole.cells


def test_a_scenario_of_another_resumee_than_the_images_is_not_judged(committed):
    """What the image shows of the resumee would be judged under the scenario's name."""
    case = committed("lz4-zero-pages")
    offline = {"resumer_cmdline": "nokaslr", "resumee_offline": frozenset({1})}
    scenarios = (
        Scenario("as it was", resumer_cmdline="nokaslr"),
        Scenario("offline", **offline),
        Scenario("and online again", **offline, resumee_online=frozenset({1})),
    )
    settings = Settings(Machine(cpus=2, memory=128 << 20), scenarios, suppose=frozenset({"nmi"}))
    found = fill([case["resumee"]], settings, images={case["resumee"]: case["image"]}, cache=None, jobs=1)
    cells = [found.cell(number, 0, 0) for number in range(len(scenarios))]
    assert [cell.verdict for cell in cells] == [Verdict.SAFE, Verdict.UNDETERMINED, Verdict.SAFE]
    assert "CPU 1 online" in cells[1].reason
