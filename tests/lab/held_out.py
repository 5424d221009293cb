"""What experiments that were drawn are held to, counted from the record by what was predicted first.

The bounds of the family ``standings``: no pass on a machine that reset, no ``resumes`` without a condition for an image
that was not loaded (unless nothing that was given shows the difference), at most 2 % false alarms, with a dump all
right, and of the conditions at most two in the median.  Of those drawn in Bochs: no such pass, and with a dump the
outcome (or the usual one) and what each CPU does in the copy right in 98 %.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import median

from tests.lab.experiment import Experiment
from tests.lab.predict import grade, woken_right
from tests.lab.records import Entry

BEGIN = "<!-- held out: written by python -m tests.lab table -->"
END = "<!-- held out: end -->"
FAMILY, IN_BOCHS = re.compile(r"standings(\d+)-\d+"), re.compile(r"b(\d+)-\d+")
REPLACED = {
    "standings11-98": ("standings11-150", ""),
    "standings12-6": ("standings12-20", ": 7.3.4 does not boot on this CPU without XSAVE"),
    "standings12-11": ("standings12-21", ": its resumer, built with a command line of its own, was not there"),
    "standings12-15": ("standings12-22", ": its resumer, built with a command line of its own, was not there"),
    "standings13-55": ("standings13-150", ": 7.3.4 does not boot on this CPU without XSAVE"),
    "standings16-59": ("standings16-60", ": the LZ4 module of its resumer was not there"),
}
"""Drawn, but without an outcome: the experiment that was drawn in its place, and why where that is known."""
WENT_WRONG = ("resets", "hangs", "survives")


def table(entries: Sequence[Entry]) -> str:
    """A column for each seed, a row for each bound, and by name whatever counts against one."""
    lines = [BEGIN]
    for seed, own in seeds_of(entries, FAMILY):
        lines += ["", *of_seed(seed, own)]
    for seed, own in seeds_of(entries, IN_BOCHS):
        lines += ["", *of_seed_in_bochs(seed, own)]
    return "\n".join([*lines, "", END])


def seeds_of(entries: Sequence[Entry], family: re.Pattern[str]) -> list[tuple[int, list[Entry]]]:
    """The experiments of each seed."""
    seeds: dict[int, list[Entry]] = {}
    for entry in entries:
        if found := family.fullmatch(entry.name):
            seeds.setdefault(int(found[1]), []).append(entry)
    return sorted(seeds.items())


def of_seed_in_bochs(seed: int, own: Sequence[Entry]) -> Iterator[str]:
    """The numbers of one seed whose experiments are about moments."""
    went_wrong = [one for one in own if one.outcome in WENT_WRONG]
    dumped = [(one, one.dump) for one in own if one.dump]
    told = [(one, right) for one, said in dumped if (right := woken_right(one, said)) is not None]
    sleepers = sum(any(state[1] == "mwait" for state in one.events.get("parked", ())) for one in own)
    commits = ", ".join(dict.fromkeys(one.commit for one in own))
    what = f"{len(own)} experiments, {sleepers} of them with a CPU asleep in MWAIT"
    yield f"**Seed {seed} in Bochs**: {what}, predicted first by hibercheck at {commits}."
    yield ""
    yield "| bound | of | count | which |"
    yield "|---|--:|--:|---|"
    passes = [one for one in went_wrong if 0 in (one.first.exit, one.dump.exit if one.dump else None)]
    yield row("a pass on a machine that reset, hung or whose CPU ran away: none", went_wrong, passes)
    wrong = [one for one, said in dumped if grade(one, said, dump=True) != "right"]
    yield row("with a dump outcome or usual outcome not right: at most 2 %", [one for one, _ in dumped], wrong)
    otherwise = [one for one, right in told if not right]
    what = "a CPU that left MWAIT in another copy than said, or passed where it was not to: at most 2 %"
    yield row(what, [one for one, _ in told], otherwise)


def of_seed(seed: int, own: Sequence[Entry]) -> Iterator[str]:
    """The numbers of one seed."""
    went_wrong = [one for one in own if one.outcome in WENT_WRONG]
    refused = [one for one in own if one.outcome == "refused"]
    dumped = [one for one in own if one.dump]
    passes = [one for one in went_wrong if one.first.exit == 0]
    believed = [one for one in refused if one.first.outcome == "resumes" and not one.first.conditions]
    alarms = [one for one in own if is_false_alarm(one)]
    silent = [one for one in own if one.first.outcome is None]
    not_right = [one for one in dumped if one.dump and grade(one, one.dump, dump=True) != "right"]
    commits = ", ".join(dict.fromkeys(one.commit for one in own))
    yield f"**Seed {seed}**: {len(own)} experiments, predicted first by hibercheck at {commits}."
    for name, (other, why) in REPLACED.items():
        if any(one.name == other for one in own):
            yield f"`{name}` was drawn and gave no outcome{why}; `{other}` was drawn in its place and is counted."
    yield ""
    yield "| bound | of | count | which |"
    yield "|---|--:|--:|---|"
    yield from rows("a pass on a machine that reset, hung or whose CPU ran away: none", went_wrong, passes)
    yield from rows("`resumes` without a condition for an image that was not loaded: none", refused, believed)
    yield from rows("false alarms: at most 2 %", own, alarms, share=True)
    yield row("no report", own, silent)
    yield row("with a dump not right: none", dumped, not_right)
    counts = [len(one.first.conditions) for one in own]
    yield f"| conditions: at most 2 in the median | {len(own)} | {median(counts):g} | at most {max(counts)} |"


def rows(what: str, of: Sequence[Entry], found: Sequence[Entry], *, share: bool = False) -> Iterator[str]:
    """A row of all, and one of those of which something that was given shows the difference."""
    seen = [one for one in found if not unseen(one.experiment)]
    for words, some in ((what, found), ("the same, where something given shows the difference", seen)):
        yield row(words, of, some, f" ({100 * len(some) / len(of):.1f} %)" if share and of else "")


def row(what: str, of: Sequence[Entry], found: Sequence[Entry], more: str = "") -> str:
    """One row."""
    names = ", ".join(f"`-{one.name.partition('-')[2]}`" for one in found)
    return f"| {what} | {len(of)} | {len(found)}{more} | {names} |"


def is_false_alarm(entry: Entry) -> bool:
    """Tell whether a machine resumed although it was said, without a condition, that it does not.

    A risk is none where the resumer's address was random or survival rests on the moment of a wake, of which the usual
    outcome is the sign; a condition does not excuse it.
    """
    first = entry.first
    if entry.outcome != "resumes":
        return False
    if first.verdict == "risk":
        return not (entry.experiment.may_abstain or first.usual)
    return first.verdict in ("fatal", "refused") and not first.conditions


def unseen(experiment: Experiment) -> bool:
    """Tell whether the resumer ran on another machine, or was started by kexec: nothing given shows either."""
    return experiment.resumer_machine is not None or bool(experiment.resumer.kexec_from)
