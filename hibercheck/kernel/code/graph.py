"""Plain graph algorithms on instruction addresses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

Edges = Mapping[int, tuple[int, ...]]


def reachable(edges: Edges, start: int, avoid: Collection[int] = ()) -> set[int]:
    """Nodes that ``start`` reaches, itself included, on paths that enter no node of ``avoid``."""
    seen: set[int] = set()
    stack = [start] if start not in avoid else []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(target for target in edges.get(node, ()) if target not in avoid)
    return seen


def reversed_edges(edges: Edges) -> dict[int, tuple[int, ...]]:
    """Return the same graph with every edge turned round."""
    sources: dict[int, list[int]] = {}
    for node, targets in edges.items():
        for target in targets:
            sources.setdefault(target, []).append(node)
    return {node: tuple(found) for node, found in sources.items()}


def leading_to(edges: Edges, goals: Iterable[int]) -> set[int]:
    """Nodes from which one of ``goals`` is reached, those themselves included."""
    back = reversed_edges(edges)
    seen: set[int] = set()
    stack = list(goals)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(back.get(node, ()))
    return seen


def cycle_through(edges: Edges, node: int, avoid: Collection[int] = ()) -> set[int]:
    """Return the strongly connected component of ``node`` in the graph without ``avoid``; none if it is on no cycle."""
    forward = reachable(edges, node, avoid)
    backward = reachable(reversed_edges(edges), node, avoid)
    component = forward & backward
    on_cycle = any(target in component for target in edges.get(node, ()))
    return component if on_cycle else set()


def runs(spans: Collection[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Merge half-open ranges that touch or overlap; ascending."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
