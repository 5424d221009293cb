from __future__ import annotations

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.handoff.findings import Outcome, Verdict
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix, Member, merge

SAFE = Cell(Outcome.RESUMES, Verdict.SAFE, "nothing")
FATAL = Cell(Outcome.RESETS, Verdict.FATAL, "all")
MEMBERS = tuple(Member(f"6.{number}", f"{number:040x}", f"k{number}") for number in range(3))


def shard(*resumers: int, scenarios=("a", "b"), members=MEMBERS, swapped: bool = False) -> Matrix:
    matrix = Matrix(members, scenarios)
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
