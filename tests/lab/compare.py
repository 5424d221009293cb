"""Run hibercheck on measured cases and set what it predicts beside what happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BAD = ("MISS", "FALSE ALARM", "WRONG")


@dataclass(frozen=True, slots=True)
class Row:
    """One prediction and its truth."""

    name: str
    memory: bool
    want: str
    got: str | None
    verdict: str | None
    grade: str
    seconds: float
    note: str = ""


def grade(want: str, got: str | None, verdict: str | None, *, may_abstain: bool, memory: bool) -> str:
    """Grade one prediction as the project's grader does.

    Where a parked CPU ran away, chance decides whether the machine resets, hangs or survives with damaged memory:
    ``resets`` is right for all three.  Where the load address was random, ``risk`` and ``undetermined`` are right
    unless there is a dump.
    """
    want = "resets" if want in ("hangs", "survives") else want
    if got == "undetermined" or (verdict == "risk" and not memory):
        return "abstained" if may_abstain and not memory else "WRONG"
    if got == want:
        return "right"
    return {("resets", "resumes"): "MISS", ("resumes", "resets"): "FALSE ALARM"}.get((want, got or ""), "WRONG")


def predict(case: dict[str, Any], cases: Path, *, memory: bool, command: list[str] | None = None) -> Row:
    """Run hibercheck on one case."""
    files = {key: str(cases / case[key]) for key in ("image", "resumer", "resumee", "memory") if key in case}
    line = [
        *(command or default_command()),
        files["image"],
        "--resumer",
        files["resumer"],
        "--resumee",
        files["resumee"],
    ]
    line += ["--format", "json", *case["args"], *(["--resumer-memory", files["memory"]] if memory else [])]
    start = time.monotonic()
    want = case["truth"]["outcome"]
    try:
        run = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
        report = json.loads(run.stdout)
        got, verdict, note = report["outcome"], report["verdict"], ""
    except subprocess.TimeoutExpired:
        got, verdict, note = None, None, "no answer in 300 s"
    except (ValueError, KeyError, TypeError):
        got, verdict, note = None, None, f"exit {run.returncode}: {run.stderr.strip()[-100:]}"
    result = "WRONG" if got is None else grade(want, got, verdict, may_abstain=case["may_abstain"], memory=memory)
    return Row(case["name"], memory, want, got, verdict, result, time.monotonic() - start, note)


def default_command() -> list[str]:
    """The hibercheck that belongs to this Python."""
    return [str(Path(sys.executable).with_name("hibercheck"))]


def compare(cases: Iterable[dict[str, Any]], place: Path, jobs: int = 2, *, dumps: bool = True) -> list[Row]:
    """Run hibercheck on all cases, without and with the resumer's memory."""
    work = [(case, memory) for case in cases for memory in ((False, True) if dumps and "memory" in case else (False,))]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda item: predict(item[0], place, memory=item[1]), work))


def text(rows: list[Row]) -> str:
    """The table, a row each, and the counts."""
    lines = [
        f"{row.name + (' +memory' if row.memory else ''):52} {row.want:9} {row.got!s:13} {row.verdict!s:10} "
        f"{row.grade:11} {row.seconds:5.2f} s  {row.note}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, summary(rows)])


def summary(rows: list[Row]) -> str:
    """The counts in one line."""
    count = Counter(row.grade for row in rows)
    return ", ".join(f"{count[name]} {name}" for name in ("right", "abstained", *BAD))
