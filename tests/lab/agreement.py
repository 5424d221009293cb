"""How far predictions and machines agree: the table in README.md, and what was predicted first.

An experiment is held out as long as nobody has changed hibercheck because of it.  What hibercheck said the first time
of an experiment drawn from a seed is therefore written down once and never again; the table counts that, whatever
later versions say.  All other experiments are in sample: the model was corrected on them.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hibercheck
from tests.lab.compare import BAD, Row, grade
from tests.lab.errors import LabError
from tests.lab.record import EMULATOR

BEGIN = "<!-- agreement: written by python -m tests.lab compare --readme README.md -->"
END = "<!-- agreement: end -->"
OUTCOMES = ("resumes", "resets", "hangs", "survives", "refused")
IN_SAMPLE = "in sample: the model was corrected on these"
HELD_OUT = "held out: predicted before anything was changed for them"
HEAD = (
    "| measured | experiments | right | abstain | disagree | with a dump | right | disagree |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)


@dataclass(frozen=True, slots=True)
class First:
    """What hibercheck said first.

    Args:
        work: The directory with cases.json; the predictions lie beside it.
    """

    work: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.work / "first.json"

    def load(self) -> dict[str, dict[str, Any]]:
        """Predictions by experiment, ``NAME`` and ``NAME +memory``."""
        if not self.path.exists():
            return {}
        found: dict[str, dict[str, Any]] = json.loads(self.path.read_text())
        return found

    def remember(self, rows: Iterable[Row], version: str) -> None:
        """Write predictions down, except where there is one already."""
        known = self.load()
        for row in rows:
            known.setdefault(key(row), {"got": row.got, "verdict": row.verdict, "version": version})
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1) + "\n")
        part.rename(self.path)


def key(row: Row) -> str:
    """The name of a prediction."""
    return f"{row.name} +memory" if row.memory else row.name


def held_out(rows: Iterable[Row], cases: Iterable[dict[str, Any]], first: dict[str, dict[str, Any]]) -> list[Row]:
    """The rows of experiments with a first prediction, graded by that instead of today's."""
    abstain = {case["name"]: case["may_abstain"] for case in cases}
    out = []
    for row in rows:
        said = first.get(key(row))
        if said:
            got, verdict = said["got"], said["verdict"]
            result = grade(row.want, got, verdict, may_abstain=abstain[row.name], memory=row.memory)
            out.append(Row(row.name, row.memory, row.want, got, verdict, result if got else "WRONG", 0))
    return out


def block(rows: Sequence[Row], cases: Sequence[dict[str, Any]], first: dict[str, dict[str, Any]]) -> str:
    """The table with its markers, date and versions."""
    unseen = held_out(rows, cases, first)
    known = {row.name for row in unseen}
    lines = [BEGIN, "", facts(cases), "", *HEAD, *part(IN_SAMPLE, [row for row in rows if row.name not in known])]
    if unseen:
        now = [row for row in rows if row.name in known]
        lines += [*part(HELD_OUT, unseen), *part("the same, as predicted now", now)[:1]]
    return "\n".join([*lines, "", END])


def part(title: str, rows: Sequence[Row]) -> list[str]:
    """A line of totals and one for each outcome."""
    lines = [line(f"**{title}**", rows)]
    return lines + [line(want, some) for want in OUTCOMES if (some := [row for row in rows if row.want == want])]


def line(title: str, rows: Sequence[Row]) -> str:
    """One line of the table."""
    cells: list[str | int] = [title]
    for memory in (False, True):
        some = [row for row in rows if row.memory == memory]
        count = Counter(row.grade for row in some)
        bad = sum(count[name] for name in BAD)
        cells += [len(some), count["right"], *([] if memory else [count["abstained"]]), bad]
    return "| " + " | ".join(map(str, cells)) + " |"


def facts(cases: Iterable[dict[str, Any]]) -> str:
    """Date, versions, kernels."""
    names = {Path(case[role]).stem for case in cases for role in ("resumer", "resumee")}
    debian = sorted((name.removeprefix("debian-") for name in names if name.startswith("debian-")), key=numbers)
    small = ["small builds"] if any(not name.startswith("debian-") for name in names) else []
    kernels = [f"Debian's {', '.join(debian)}"] if debian else []
    today = datetime.now(UTC)
    date = f"{today.day} {today:%B %Y}"
    return f"{date}, hibercheck {version()}, {EMULATOR}. Kernels: {' and '.join([*kernels, *small])}."


def numbers(release: str) -> list[int]:
    """What to sort a version by."""
    return [int(number) for number in re.findall(r"\d+", release)]


def version() -> str:
    """The version, with the commit in a clone."""
    root = Path(hibercheck.__file__).parent
    run = subprocess.run(
        ["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return f"{hibercheck.__version__} ({run.stdout.strip()})" if run.returncode == 0 else hibercheck.__version__


def rewrite(path: Path, text: str) -> None:
    """Put a new table between the markers of a file.

    Raises:
        LabError: The markers are not there, once each.
    """
    old = path.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise LabError(f"{path} lacks the lines {BEGIN!r} and {END!r}")
    before, rest = old.split(BEGIN)
    path.write_text(before + text + rest.split(END)[1])
