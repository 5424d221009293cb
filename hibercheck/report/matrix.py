"""The matrix as JSON and CSV, both written row by row, and read back to be merged."""

from __future__ import annotations

import csv
import io
import json
import shlex
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hibercheck.errors import InputProblem
from hibercheck.files.text import read_whole
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import MAX_CELLS, Matrix, Member
from hibercheck.handoff.verdict.findings import Condition, Outcome, Verdict
from hibercheck.numbers import decimal, is_version
from hibercheck.report.conditions import stated
from hibercheck.report.gate import NEVER, SEVERITY, Exit
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import condition_text, count

KIND = "hibercheck matrix"
SCHEMA_VERSION = 3
MAX_BYTES = 1 << 28
"""A million pairs take some megabytes."""

COLUMNS = ("scenario", "resumer", "resumer_build_id", "resumee", "resumee_build_id", "outcome", "verdict", "share",
           "exact", "reason", "conditions", "rules", "warnings")  # fmt: skip

_FORMULA = ("=", "+", "-", "@")


def json_parts(matrix: Matrix) -> Iterator[str]:
    """Yield the matrix as JSON, in parts.

    ``rows`` holds for each resumer the numbers of its cells: ``cells[rows[i].cells[scenario][resumee]]``.  A part of a
    matrix says of which ``shards`` it is, and ``missing_rows`` has the resumers of the others.  Merged, the parts of a
    matrix are the same bytes as the whole.
    """
    matrix = matrix.in_order()
    head = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "hibercheck", "version": matrix.version},
        "shards": [f"{number}/{whole}" for number, whole in matrix.shards],
        "missing_rows": matrix.missing(),
        "assumptions": [{"what": what, "value": value} for what, value in matrix.assumptions],
        "scenarios": list(matrix.scenarios),
        "kernels": [
            {"release": one.release, "build_id": one.build_id, "path": one.path, "image": one.image}
            for one in matrix.members
        ],
        "cells": [
            {
                "outcome": str(cell.outcome),
                "verdict": str(cell.verdict),
                "reason": cell.reason,
                "share": cell.share,
                "exact": cell.exact,
                "conditions": conditions_of(cell),
                "rules": list(cell.rules),
                "warnings": list(cell.warnings),
            }
            for cell in matrix.cells
        ],
    }
    yield json.dumps(head, indent=1).removesuffix("\n}")
    yield ',\n "rows": ['
    for place, resumer in enumerate(matrix.resumers()):
        rows = [list(matrix.rows[scenario, resumer]) for scenario in range(len(matrix.scenarios))]
        yield ("," if place else "") + "\n  " + json.dumps({"resumer": resumer, "cells": rows}, separators=(",", ":"))
    yield "\n ]\n}\n"


def reasons(matrix: Matrix, scenario: int) -> list[tuple[Cell, int, tuple[int, int]]]:
    """Return what is not safe, or not surely: the cell, of how many pairs, and one of these; the commonest first."""
    counts: Counter[int] = Counter()
    example: dict[int, tuple[int, int]] = {}
    for (number, resumer), row in sorted(matrix.rows.items()):
        if number == scenario:
            counts.update(row)
            for resumee, index in enumerate(row):
                example.setdefault(index, (resumer, resumee))
    cells = ((matrix.cells[index], count, example[index]) for index, count in counts.most_common())
    return [one for one in cells if one[0].verdict is not Verdict.SAFE or one[0].conditions or one[0].warnings]


def told(pairs: Iterable[tuple[str, Cell]]) -> list[str]:
    """Return the warnings of judged pairs, each once for a scenario, with of how many pairs it is.

    Args:
        pairs: The name of a scenario, and a cell of it.
    """
    found = Counter((scenario, warning) for scenario, cell in pairs for warning in cell.warnings)
    return [f"{scenario}: {warning} ({count(number, 'pair')})" for (scenario, warning), number in found.items()]


def read_json(path: str) -> Matrix:
    """Read a matrix that was written as JSON.

    Raises:
        InputProblem: It cannot be read, or is not one.
    """
    content = read_whole(path, MAX_BYTES, "a matrix")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputProblem(f"is not JSON: {error}", path=path) from error
    try:
        return _matrix(document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        advice = "give files that `hibercheck matrix --format json` wrote"
        raise InputProblem(f"is not a matrix: {type(error).__name__}: {error}", path=path, advice=advice) from error


def _matrix(document: Any) -> Matrix:  # noqa: ANN401 - anything a file may hold
    if document["kind"] != KIND or not is_version(document["schema_version"], SCHEMA_VERSION):
        raise ValueError(f"kind {document['kind']!r}, schema {document['schema_version']!r}")
    members = tuple(
        Member(_text(row["release"]), _text(row["build_id"], None), _text(row["path"]), _text(row["image"], None))
        for row in document["kernels"]
    )
    scenarios = tuple(map(_text, document["scenarios"]))
    assumed = tuple((_text(row["what"]), _text(row["value"])) for row in document["assumptions"])
    shards = tuple(_shard(text) for text in document.get("shards", []))
    matrix = Matrix(members, scenarios, assumed, shards, _text(document["tool"]["version"]))
    for row in document["cells"]:
        matrix.number(_cell(row))
    if len(matrix.cells) != len(document["cells"]) or len(matrix.cells) > MAX_CELLS:
        raise ValueError("a cell is there twice")
    for row in document["rows"]:
        resumer = row["resumer"]
        fits = type(resumer) is int and 0 <= resumer < len(members) and (0, resumer) not in matrix.rows
        if not fits or len(row["cells"]) != len(scenarios):
            raise ValueError(f"row {resumer!r} does not fit, or is there twice")
        for scenario, numbers in enumerate(row["cells"]):
            if len(numbers) != len(members) or max(numbers, default=0) >= len(matrix.cells):
                raise ValueError(f"row {resumer} does not fit")
            matrix.rows[scenario, resumer] = array("H", numbers)
    _require_rows(matrix, said="shards" in document)
    return matrix


def _require_rows(matrix: Matrix, *, said: bool) -> None:
    """See that a matrix has all the rows that it should have, if it says of which shards it is."""
    lacking = set(matrix.missing())
    for number, whole in matrix.shards or ([(1, 1)] if said else []):
        lost = lacking.intersection(range(number - 1, len(matrix.members), whole))
        if lost:
            raise ValueError(f"it is cut: the row of resumer {min(lost)} is not there")


def _cell(row: Any) -> Cell:  # noqa: ANN401 - anything a file may hold
    share, exact = row["share"], row["exact"]
    if not (share is None or (type(share) in {int, float} and 0 <= share <= 1)) or not isinstance(exact, bool):
        raise TypeError(f"share {share!r} or exact {exact!r} is none")
    share = None if share is None else float(share)
    conditions = tuple(_condition(one) for one in row["conditions"])
    spared = frozenset(_text(one["id"]) for one in row["conditions"] if one["suppressed"])
    rules, warnings = (tuple(map(_text, row[member])) for member in ("rules", "warnings"))
    verdict, reason = Verdict(row["verdict"]), _text(row["reason"])
    return Cell(Outcome(row["outcome"]), verdict, reason, share, exact, conditions, spared, rules, warnings)


def _condition(row: Any) -> Condition:  # noqa: ANN401 - anything a file may hold
    if not isinstance(row["suppressed"], bool) or not all(len(pair) == 2 for pair in row["settle"]):
        raise TypeError("a condition is not valid")
    return Condition(
        _text(row["id"]),
        _text(row["fact"]),
        _text(row["value"]),
        _text(row["reason"]),
        Outcome(row["outcome"]),
        Verdict(row["verdict"]),
        tuple((_text(option), _text(value)) for option, value in row["settle"]),
        _text(row["how"]),
    )


def _shard(text: Any) -> tuple[int, int]:  # noqa: ANN401 - anything a file may hold
    number, _, whole = _text(text).partition("/")
    shard = decimal(number, MAX_CELLS), decimal(whole, MAX_CELLS)
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"{text!r} is not a shard")
    return shard


def _text(value: Any, *others: None) -> Any:  # noqa: ANN401 - anything a file may hold
    """Check that a value is text, or one of ``others``."""
    if not isinstance(value, str) and value not in others:
        raise TypeError(f"{value!r} is not text")
    return value


def csv_parts(matrix: Matrix) -> Iterator[str]:
    """Yield one line for each pair and scenario."""
    yield _csv_line(COLUMNS)
    for scenario, resumer, resumee, cell in matrix.pairs():
        ours, theirs = matrix.members[resumer], matrix.members[resumee]
        share = "" if cell.share is None else f"{cell.share:.2f}"
        yield _csv_line(
            (
                *(matrix.scenarios[scenario], ours.release, ours.build_id or "", theirs.release, theirs.build_id or ""),
                *(cell.outcome, cell.verdict, share, "yes" if cell.exact else "no", cell.reason),
                "; ".join(
                    f"{one.id}: {one.verdict}{' (suppressed)' * (one.id in cell.spared)}" for one in cell.conditions
                ),
                " ".join(cell.rules),
                "; ".join(cell.warnings),
            )
        )


def _csv_line(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(_csv_cell, values))
    return line.getvalue()


def _csv_cell(value: object) -> str:
    """Return untrusted text as a cell; a spreadsheet would take what begins like a formula for one."""
    text = one_line(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


PARTS = {"--resumer-idle": "idle", "--resumee-online": "resumee-online", "--fact": "fact"}
"""Parts of a scenario by the option of a check that says the same."""
LINE = "--resumer-cmdline"
"""The option for what a scenario has behind its name."""


def scenario_parts(condition: Condition) -> str:
    """Return what to add to a scenario, or to the command line, to judge as if a condition held."""
    return " and ".join(filter(None, _parts(condition)))


def _parts(condition: Condition) -> tuple[str, str]:
    """Return what to add to a scenario, or a scenario that has it, and what to add to the command line."""
    given = dict(condition.settle)
    parts = "".join(f";{PARTS[option]}={value}" for option, value in condition.settle if option in PARTS)
    if LINE in given:  # which a scenario begins with
        parts = f"--scenario {shlex.quote(f'NAME={given[LINE]}{parts}')}"
    others = [word for option, value in condition.settle if option not in (*PARTS, LINE) for word in (option, value)]
    return parts, shlex.join(filter(None, others))


def _advised(condition: Condition) -> str:
    """Say what to give to judge as if a condition held, where a scenario is judged."""
    parts, others = _parts(condition)
    if parts.startswith(";"):
        parts = f"add {parts!r} to the scenario"
    return " and ".join(filter(None, (parts, others)))


def conditions_of(cell: Cell) -> list[dict[str, Any]]:
    """Return a cell's conditions as plain JSON values."""
    return [
        {
            **stated(one),
            "settle": [list(argument) for argument in one.settle],
            "scenario": "" if cell.exact else scenario_parts(one),
            "how": one.how,
            "suppressed": one.id in cell.spared,
        }
        for one in cell.conditions
    ]


def said(condition: Condition, cell: Cell) -> str:
    """Return a condition in one line: what it is about, what it leads to, how to judge so."""
    how = condition.arguments if cell.exact else _advised(condition)
    leads = f"{condition.verdict}{' (suppressed)' if condition.id in cell.spared else ''}"
    return f"condition: {condition_text(f'{condition.fact}: {condition.value}', leads, how, condition.id)}"


def exit_status(verdict: Verdict, fail_on: str, *, refused_fails: bool) -> Exit:
    """Return what a verdict means for a gate, as `gate.judge` has it for one report.

    Args:
        verdict: The verdict of a pair.
        fail_on: The least verdict that fails.
        refused_fails: Whether a refusal does; between two kernels it is often as it should be.
    """
    if verdict is Verdict.UNDETERMINED:
        return Exit.UNDETERMINED
    if fail_on == NEVER:
        return Exit.PASSED
    if verdict is Verdict.REFUSED:
        return Exit.FAILED if refused_fails else Exit.PASSED
    return Exit.FAILED if SEVERITY.index(verdict) >= SEVERITY.index(Verdict(fail_on)) else Exit.PASSED


def worst_status(statuses: Iterable[Exit]) -> Exit:
    """Return the status of a run of many verdicts: a failure counts more than a missing fact."""
    found = set(statuses)
    return next((status for status in (Exit.FAILED, Exit.UNDETERMINED) if status in found), Exit.PASSED)


def labels(matrix: Matrix) -> list[str]:
    """Name the kernels: by release, and by path too where two have the same."""
    releases = [member.release for member in matrix.members]
    return [
        member.release if releases.count(member.release) == 1 else f"{member.release} ({Path(member.path).name})"
        for member in matrix.members
    ]


def groups(matrix: Matrix) -> list[list[int]]:
    """Put kernels together that have the same verdict with every other, on either side; in the order of the first.

    Only for a whole matrix; of a shard every kernel is a group of its own.
    """
    if len(matrix.resumers()) < len(matrix.members):
        return [[number] for number in range(len(matrix.members))]
    verdicts = array("H", _verdict_numbers(matrix))
    count, scenarios = len(matrix.members), len(matrix.scenarios)
    columns = [[bytearray(count) for _ in range(count)] for _ in range(scenarios)]
    found: dict[tuple[bytes, ...], list[int]] = {}
    rows: list[list[bytes]] = []
    for resumer in range(count):
        mine = []
        for scenario in range(scenarios):
            row = array("H", map(verdicts.__getitem__, matrix.rows[scenario, resumer]))
            mine.append(row.tobytes())
            for resumee, number in enumerate(row):
                columns[scenario][resumee][resumer] = number
        rows.append(mine)
    for kernel in range(count):
        key = (*rows[kernel], *(bytes(columns[scenario][kernel]) for scenario in range(scenarios)))
        found.setdefault(key, []).append(kernel)
    return list(found.values())


def _verdict_numbers(matrix: Matrix) -> list[int]:
    order = list(Verdict)
    return [order.index(cell.verdict) for cell in matrix.cells]
