"""How far predictions and machines agree: the tables of README.md and agreement.md, made of the record.

An experiment counts by what hibercheck said of it first, before anything was changed for it, whatever later versions
say.  What is not in the record is in no table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.lab import design_table, held_out
from tests.lab.compare import BAD
from tests.lab.errors import LabError
from tests.lab.predict import grade, woken_right
from tests.lab.records import Entry, Later, load_later

BEGIN = "<!-- agreement: written by python -m tests.lab table -->"
END = "<!-- agreement: end -->"
BEGIN_LIST = "<!-- disagreements: written by python -m tests.lab table -->"
END_LIST = "<!-- disagreements: end -->"
OUTCOMES = ("resumes", "resets", "hangs", "survives", "refused")
HEAD = (
    "| machine, and what it did | experiments | right | abstain | disagree | with a dump | right | disagree |",
    "|---|--:|--:|--:|--:|--:|--:|--:|",
)
DISAGREE_HEAD = ("| experiment | machine | it | predicted first | with the dump |", "|---|---|---|---|---|")


def totals(entries: Sequence[Entry], later: Later | None = None, *, outcomes: bool = True) -> str:
    """A table with its markers: README's has the machines, agreement.md's also what each did."""
    lines = [BEGIN, "", facts(entries), "", *HEAD]
    for machine in sorted({entry.machine for entry in entries}):
        own = [entry for entry in entries if entry.machine == machine]
        lines.append(line(f"**{machine}**", own))
        by_outcome = [(want, [one for one in own if one.outcome == want]) for want in OUTCOMES if outcomes]
        lines += [line(want, some) for want, some in by_outcome if some]
        if sleepers := [one for one in own if outcomes and asleep(one)]:
            lines.append(line("of all: CPUs asleep in MWAIT", sleepers))
        if later and (again := later.of(own)):
            lines.append(line(f"the same, as predicted at {later.commit}", again))
    copies = [woken_right(entry, entry.dump) for entry in entries if outcomes and entry.dump]
    if told := [found for found in copies if found is not None]:
        what = "Which CPU leaves MWAIT in which copy, and whether it passes"
        lines += ["", f"{what}, was said with the dump of {len(told)} of these, right of {sum(told)}."]
    return "\n".join([*lines, "", END])


def asleep(entry: Entry) -> bool:
    """Whether a CPU slept in MWAIT, as only Bochs's events show."""
    return any(state[1] == "mwait" for state in entry.events.get("parked", ()))


def disagreements(entries: Sequence[Entry]) -> str:
    """agreement.md's list of all whose first predictions disagreed, with its markers."""
    lines = [BEGIN_LIST, "", *DISAGREE_HEAD]
    for entry in entries:
        plain, dumped = grade(entry, entry.first, dump=False), entry.dump and grade(entry, entry.dump, dump=True)
        if plain in BAD or dumped in BAD:
            cells = [entry.name, entry.machine, entry.outcome, *words(entry)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", END_LIST])


def words(entry: Entry) -> Iterator[str]:
    """What was predicted, without and with the dump."""
    for said in (entry.first, entry.dump):
        if said is None:
            yield ""
        else:
            yield said.note or f"{said.verdict}" + (f", usually {said.usual}" if said.usual else "")


def line(title: str, entries: Sequence[Entry]) -> str:
    """One line of README's table."""
    plain = Counter(grade(entry, entry.first, dump=False) for entry in entries)
    dumped = Counter(grade(entry, entry.dump, dump=True) for entry in entries if entry.dump)
    bad, bad_too = (sum(count[name] for name in BAD) for count in (plain, dumped))
    right_too = dumped["right"]
    cells = [title, len(entries), plain["right"], plain["abstained"], bad, dumped.total(), right_too, bad_too]
    return "| " + " | ".join(map(str, cells)) + " |"


def facts(entries: Iterable[Entry]) -> str:
    """Dates, commits (a few, for each record has its own), kernels."""
    rows = list(entries)
    names = {side.kernel for entry in rows for side in (entry.experiment.resumee, entry.experiment.resumer)}
    debian = sorted((name.removeprefix("debian-") for name in names if name.startswith("debian-")), key=numbers)
    small = ["small builds"] if any(not name.startswith("debian-") for name in names) else []
    kernels = " and ".join([*([f"Debian's {', '.join(debian)}"] if debian else []), *small]) or "none"
    days = sorted({entry.date for entry in rows}) or ["never"]
    commits = list(dict.fromkeys(entry.commit for entry in rows)) or ["none"]
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    at = ", ".join(commits) if len(commits) <= 3 else f"the commit that each record names, {len(commits)} in all"
    return f"{when}, predicted first by hibercheck at {at}. Kernels: {kernels}."


def numbers(release: str) -> list[int]:
    """What to sort a version by."""
    return [int(number) for number in re.findall(r"\d+", release)]


def rewrite_all(root: Path, entries: Sequence[Entry]) -> list[Path]:
    """Write all tables; the files."""
    for path, text in tables(root, entries):
        rewrite(path, text)
    of_designs = {design_table.PLACE: design_table.table, design_table.IN_SHORT: design_table.in_short}
    for place, made in of_designs.items():
        (root / place).write_text(made(entries))
    return sorted({*(root / place for place in of_designs), *(path for path, _ in tables(root, entries))})


def tables(root: Path, entries: Sequence[Entry]) -> list[tuple[Path, str]]:
    """Each generated part with the file that it stands in."""
    later, own = load_later(), root / "tests" / "lab" / "agreement.md"
    return [
        (root / "README.md", totals(entries, later, outcomes=False)),
        (own, totals(entries, later)),
        (own, held_out.table(entries)),
        (own, disagreements(entries)),
    ]


def rewrite(path: Path, text: str) -> None:
    """Put a new table, which brings its markers, between those of a file.

    Raises:
        LabError: The markers are not there, once each.
    """
    begin, *_, end = text.splitlines()
    old = path.read_text()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise LabError(f"{path} lacks the lines {begin!r} and {end!r}")
    before, rest = old.split(begin)
    path.write_text(before + text + rest.split(end)[1])
