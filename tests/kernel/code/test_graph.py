"""Graph algorithms against brute force."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hibercheck.kernel.code.graph import cycle_through, reachable, reversed_edges, runs

NODES = st.integers(0, 7)
GRAPHS = st.dictionaries(NODES, st.lists(NODES, max_size=3).map(tuple), max_size=8)


def closure(edges):
    """Pairs (a, b) such that a path of at least one edge leads from a to b."""
    pairs = {(a, b) for a, targets in edges.items() for b in targets}
    while True:
        more = {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


def without(edges, avoid):
    return {a: tuple(b for b in targets if b not in avoid) for a, targets in edges.items() if a not in avoid}


@given(GRAPHS, NODES, st.sets(NODES, max_size=3))
def test_reachable(edges, start, avoid):
    pairs = closure(without(edges, avoid))
    expected = set() if start in avoid else {start} | {b for a, b in pairs if a == start}
    assert reachable(edges, start, avoid) == expected


@given(GRAPHS, NODES, st.sets(NODES, max_size=3))
def test_the_cycle_is_what_leads_there_and_back(edges, node, avoid):
    pairs = closure(without(edges, avoid))
    expected = {other for other in range(8) if (node, other) in pairs and (other, node) in pairs}
    assert cycle_through(edges, node, avoid) == expected


@given(GRAPHS)
def test_turning_round_twice_changes_nothing(edges):
    def flat(graph):
        return {(a, b) for a, targets in graph.items() for b in targets}

    assert flat(reversed_edges(reversed_edges(edges))) == flat(edges)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)).map(lambda one: (one[0], one[0] + one[1]))))
def test_runs_cover_the_same_and_do_not_touch(spans):
    merged = runs(spans)
    assert {x for start, end in merged for x in range(start, end)} == {x for a, b in spans for x in range(a, b)}
    assert all(first[1] < second[0] for first, second in pairwise(merged))
