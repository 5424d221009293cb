"""The matrix itself: cells kept as numbers into a table of distinct verdicts, two bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hibercheck import __version__
from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.verdict.findings import Verdict

MAX_CELLS = 1 << 16


@dataclass(frozen=True, slots=True)
class Member:
    """A kernel of the matrix.

    Attributes:
        release: Its release.
        build_id: Its build id, or None.
        path: As the user named it.
        image: The image attached to it, or None.
    """

    release: str
    build_id: str | None
    path: str
    image: str | None = None


@dataclass(slots=True)
class Matrix:
    """Verdicts by scenario, resumer and resumee.

    Attributes:
        members: The kernels; their order is that of rows and columns.
        scenarios: Names of the scenarios.
        assumptions: What was assumed, as (what, value).
        shards: The shards that it is made of, as (I, N); none where it was filled, or merged, whole.
        version: Of hibercheck, which judged it.
        rows: By scenario and number of the resumer, one cell number for each resumee; a shard has some rows only.
        cells: The distinct cells.
    """

    members: tuple[Member, ...]
    scenarios: tuple[str, ...]
    assumptions: tuple[tuple[str, str], ...] = ()
    shards: tuple[tuple[int, int], ...] = ()
    version: str = __version__
    rows: dict[tuple[int, int], array[int]] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    _numbers: dict[Cell, int] = field(default_factory=dict, repr=False)

    def number(self, cell: Cell) -> int:
        """Return the number of a cell, a new one if it is new.

        Raises:
            UsageProblem: There are more distinct cells than a number can tell apart.
        """
        found = self._numbers.get(cell)
        if found is None:
            found = self._numbers[cell] = len(self.cells)
            if found >= MAX_CELLS:
                raise UsageProblem(f"the matrix has more than {MAX_CELLS} distinct verdicts", advice="use --shard")
            self.cells.append(cell)
        return found

    def add(self, resumer: int, local: Iterable[Cell], rows: Iterable[Iterable[int]]) -> None:
        """Add a resumer's row in every scenario; ``rows`` are numbers into ``local``."""
        numbers = [self.number(cell) for cell in local]
        for scenario, row in enumerate(rows):
            self.rows[scenario, resumer] = array("H", (numbers[index] for index in row))

    def cell(self, scenario: int, resumer: int, resumee: int) -> Cell | None:
        """Return a pair's verdict, or None where this shard does not have it."""
        row = self.rows.get((scenario, resumer))
        return None if row is None else self.cells[row[resumee]]

    def resumers(self) -> list[int]:
        """Return the resumers whose rows are there."""
        return sorted({resumer for _, resumer in self.rows})

    def missing(self) -> list[int]:
        """Return the resumers whose rows are not there, as they are in other shards."""
        there = {resumer for _, resumer in self.rows}
        return [resumer for resumer in range(len(self.members)) if resumer not in there]

    def in_order(self) -> Matrix:
        """Return the same matrix with its cells numbered as they come, row by row.

        So a matrix is written in one way only, whoever judged its rows in whatever order.
        """
        same = Matrix(self.members, self.scenarios, self.assumptions, self.shards, self.version)
        for resumer in self.resumers():
            rows = [self.rows[scenario, resumer] for scenario in range(len(self.scenarios))]
            used = list(dict.fromkeys(index for row in rows for index in row))
            local = {index: place for place, index in enumerate(used)}
            same.add(resumer, (self.cells[index] for index in used), ([local[index] for index in row] for row in rows))
        return same

    def counts(self, scenario: int) -> dict[str, int]:
        """Count the verdicts of a scenario."""
        found: dict[str, int] = {}
        for (number, _), row in self.rows.items():
            if number != scenario:
                continue
            for index in row:
                verdict = self.cells[index].verdict.value
                found[verdict] = found.get(verdict, 0) + 1
        return found

    def verdicts(self, *, strict: bool = False) -> set[Verdict]:
        """Return the verdicts that occur; with ``strict`` as if the worst condition of each cell held."""
        cells = (self.cells[index] for row in self.rows.values() for index in set(row))
        return {cell.strict if strict else cell.verdict for cell in cells}

    def pairs(self) -> Iterator[tuple[int, int, int, Cell]]:
        """Yield (scenario, resumer, resumee, cell) in order."""
        for (scenario, resumer), row in sorted(self.rows.items()):
            for resumee, index in enumerate(row):
                yield scenario, resumer, resumee, self.cells[index]


def missing_rows(matrix: Matrix, named: int = 8) -> str | None:
    """Say which rows a merged matrix lacks, and which shards they are in; None where it is whole."""
    lacking = matrix.missing()
    if not lacking:
        return None
    names = [matrix.members[resumer].release for resumer in lacking[:named]]
    more = f" and {len(lacking) - named} more" if len(lacking) > named else ""
    text = f"the row{'s' * (len(lacking) > 1)} of {', '.join(names)}{more}"
    counts = {whole for _, whole in matrix.shards}
    if len(counts) != 1:
        return text
    (whole,) = counts
    absent = sorted({resumer % whole + 1 for resumer in lacking})
    shown = ", ".join(f"{number}/{whole}" for number in absent[:named])
    more = f" and {len(absent) - named} more" if len(absent) > named else ""
    return f"{text} (shard{'s' * (len(absent) > 1)} {shown}{more})"


def merge(parts: list[tuple[str, Matrix]]) -> Matrix:
    """Put shards together; the result knows which shards it has, as long as one is missing.

    Args:
        parts: (path, shard).

    Raises:
        UsageProblem: They are not shards of one matrix, two have the same row, or two versions judged them.
    """
    if not parts:
        raise UsageProblem("there is nothing to merge")
    first_path, first = parts[0]
    merged = Matrix(first.members, first.scenarios, first.assumptions, version=first.version)
    for path, part in parts:
        same = (part.members, part.scenarios, part.assumptions) == (first.members, first.scenarios, first.assumptions)
        if not same:
            raise UsageProblem(f"is not a shard of the same matrix as {first_path}", path=path)
        if part.version != first.version:
            what = f"was judged by hibercheck {part.version}, {first_path} by {first.version}"
            raise UsageProblem(what, path=path, advice="judge all shards by one version")
        for resumer in part.resumers():
            if (0, resumer) in merged.rows:
                raise UsageProblem(f"has the row of {part.members[resumer].release}, as another shard has", path=path)
            rows = [part.rows[scenario, resumer] for scenario in range(len(part.scenarios))]
            used = sorted({index for row in rows for index in row})
            local = {index: place for place, index in enumerate(used)}
            cells = [part.cells[index] for index in used]
            merged.add(resumer, cells, [[local[index] for index in row] for row in rows])
    if merged.missing():
        merged.shards = tuple(sorted({shard for _, part in parts for shard in part.shards}))
    return merged
