"""Suppressions of conditions where there are many verdicts: in a matrix, in a difference, and under each design."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from hibercheck.data import replace
from hibercheck.handoff.diff import Difference, Pair
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix
from hibercheck.report.suppressions import Named, Suppression, told

if TYPE_CHECKING:
    from hibercheck.handoff.designs.compare import Comparison, Row

Conditional = TypeVar("Conditional", Cell, "Row", "Comparison")
"""What has conditions, of which some may be spared."""


class _Sparing:
    """Marks conditions, and remembers which entries were used.

    Args:
        entries: Suppressions; those of findings mean nothing here.
        today: The day by which they may have expired.
    """

    def __init__(self, entries: Sequence[Suppression], today: datetime.date) -> None:
        self.entries = [entry for entry in entries if entry.of_condition]
        self.live = [entry.holds(today) for entry in self.entries]
        self.used = [False] * len(self.entries)

    def marked(self, found: Conditional, resumer: Named, resumee: Named) -> Conditional:
        """Return the same with those of its conditions spared that an entry is about."""
        spared = set(found.spared)
        for condition in found.conditions:
            for place, entry in enumerate(self.entries):
                if self.live[place] and entry.concerns(condition, resumer, resumee):
                    self.used[place] = True
                    spared.add(condition.id)
        return replace(found, spared=frozenset(spared)) if spared != found.spared else found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Entries that have expired, and those that nothing used."""
        return told(self.entries, self.live, self.used)


def spare_in_matrix(
    matrix: Matrix, entries: Sequence[Suppression], today: datetime.date
) -> tuple[Matrix, tuple[str, ...]]:
    """Return a matrix in which suppressed conditions are marked, and what there is to say of the entries."""
    sparing = _Sparing(entries, today)
    found = Matrix(matrix.members, matrix.scenarios, matrix.assumptions, matrix.shards, matrix.version)
    for resumer in matrix.resumers():
        cells: dict[Cell, int] = {}
        rows = []
        for scenario in range(len(matrix.scenarios)):
            row = matrix.rows[scenario, resumer]
            bare = {index for index in set(row) if not matrix.cells[index].conditions}
            kept = {index: cells.setdefault(matrix.cells[index], len(cells)) for index in bare}
            rows.append(
                [
                    kept[index]
                    if index in bare
                    else cells.setdefault(
                        sparing.marked(matrix.cells[index], matrix.members[resumer], matrix.members[resumee]),
                        len(cells),
                    )
                    for resumee, index in enumerate(row)
                ]
            )
        found.add(resumer, list(cells), rows)
    return found, sparing.warnings


def spare_in_difference(
    difference: Difference, entries: Sequence[Suppression], today: datetime.date
) -> tuple[Difference, tuple[str, ...]]:
    """Return the same of what changed between two kernels."""
    sparing = _Sparing(entries, today)

    def marked(pair: Pair) -> Pair:
        return replace(
            pair,
            before=sparing.marked(pair.before, pair.old_resumer, pair.old_resumee),
            after=sparing.marked(pair.after, pair.resumer, pair.resumee),
        )

    return replace(difference, pairs=tuple(map(marked, difference.pairs))), sparing.warnings


def spare_in_designs(
    comparison: Comparison, entries: Sequence[Suppression], today: datetime.date
) -> tuple[Comparison, tuple[str, ...]]:
    """Return the same of the designs over one handoff."""
    sparing = _Sparing(entries, today)
    kernels = comparison.resumer, comparison.resumee
    rows = tuple(sparing.marked(row, *kernels) for row in comparison.rows)
    return replace(sparing.marked(comparison, *kernels), rows=rows), sparing.warnings
