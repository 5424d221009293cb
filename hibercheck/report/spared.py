"""Suppressions of conditions in a matrix and in a difference, where each cell is of two kernels of its own."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from hibercheck.data import replace
from hibercheck.handoff.diff import Difference, Pair
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix
from hibercheck.report.suppressions import Named, Suppression, told


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

    def marked(self, cell: Cell, resumer: Named, resumee: Named) -> Cell:
        """Return a cell with those of its conditions spared that an entry is about."""
        spared = set(cell.spared)
        for condition in cell.conditions:
            for place, entry in enumerate(self.entries):
                if self.live[place] and entry.concerns(condition, resumer, resumee):
                    self.used[place] = True
                    spared.add(condition.id)
        return replace(cell, spared=frozenset(spared)) if spared != cell.spared else cell

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
