"""What to ask next: the command that would settle a verdict which rests on chance or on a fact that is missing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hibercheck.data import dataclass
from hibercheck.handoff.replay.fate import Doubt
from hibercheck.handoff.verdict.findings import Report, Verdict
from hibercheck.patterns import pattern

_OPTION = pattern(r"--[a-z][a-z-]*(?: +(?:[A-Z][\w.]*|[\w+-]+=[^\s,;]+|\w+(?:\|\w+)+))?")
"""An option in the text that says how to supply a fact, with its value: a name in capitals, NAME=VALUE, or a choice."""
_BARE = {"--resumer-memory": "DUMP", "--resumer-symbols": "System.map", "--resumer-facts": "FACTS"}
"""What stands for a value that the text leaves out."""

_DUMP = ("--resumer-memory", "DUMP")
_TAKE = "give a dump of the resumer's memory; hibercheck-qa(7) says how to take one"
_LATENCY = "measure on the machine how many pages are copied before a woken CPU runs, and give that"

_SETTLES = {
    Doubt.LINE: (_DUMP, _TAKE),
    Doubt.PLACE: (
        ("--resumer-cmdline-add", "nokaslr"),
        "boot the resumer with nokaslr, which gives it one load address; this is the check of it",
    ),
    Doubt.TIMING: (("--wake-latency", "COPIES"), _LATENCY),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask next.

    Attributes:
        arguments: What to add to the command line; words in capitals stand for values.
        why: How that settles it, in one clause.
    """

    arguments: tuple[str, ...]
    why: str


def question(report: Report) -> Question | None:
    """Return what would settle a verdict of `risk` or `undetermined`; None where no option would, or none is needed."""
    if report.verdict is Verdict.UNDETERMINED:
        named = [tuple(option.split()) for one in report.missing for option in _OPTION.findall(one.supply)]
        named = [(*option, *([_BARE[option[0]]] if len(option) == 1 else [])) for option in named if _valued(option)]
        return Question(named[0], "with what is missing") if named else None
    if report.verdict is Verdict.RISK:
        doubts = [cpu.doubt for cpu in report.cpus if cpu.doubt is not None]
        for doubt in dict.fromkeys(doubts):
            if doubt in _SETTLES:
                return Question(*_SETTLES[Doubt(doubt)])
    return None


def _valued(option: Sequence[str]) -> bool:
    return len(option) > 1 or option[0] in _BARE


def command(given: Sequence[str], more: Sequence[str]) -> str:
    """Return a command line as a shell reads it: the words that were given, and more.

    An option among those added stands in the place of the same one that was given.
    """
    kept: list[str] = []
    skip = False
    for word in given:
        name = word.partition("=")[0]
        if skip or name in more[:1]:
            skip = not skip and name in more[:1] and "=" not in word and len(more) > 1
            continue
        kept.append(word)
    return shlex.join(["hibercheck", *kept, *more])
