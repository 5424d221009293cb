"""Numbers and lists in words, the same in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.cpulist import cpu_phrase
from hibercheck.handoff.facts.standing import Standing
from hibercheck.report.sanitise import clean, one_line

if TYPE_CHECKING:  # what shows an image takes its words from here too, and needs no engine
    from hibercheck.handoff.verdict.findings import NotExamined, Outcome, Report, Share, Verdict

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(pages: int) -> str:
    """Return ``pages`` of 4 KiB as a size, such as ``91.6 MiB``."""
    amount, unit = float(pages * 4), 1
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.4g} {_UNITS[unit]}"


def count(number: int, thing: str) -> str:
    """Return ``1 page`` or ``2,345 pages``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def in_words(note: NotExamined) -> str:
    """Say why rules were not looked at, and for which CPUs."""
    return f"{cpu_phrase(note.cpus)}: {note.why}" if note.cpus else note.why


def percent(part: int, whole: int) -> str:
    """Return a share that is 0 % or 100 % only if it is exactly so."""
    if part in (0, whole):
        return "0 %" if part == 0 else "100 %"
    share = min(max(100 * part / whole, 0.1), 99.9)
    return f"{share:.3g} %"


def share(found: Share) -> str:
    """Say how many of the places where the resumer may lie fail."""
    part = percent(found.failing, found.placements)
    return f"{found.failing:,} of {found.placements:,} {found.of} fail ({part})."


def outcome(outcome: Outcome, verdict: Verdict) -> str:
    """Return ``RESUMES (latent)``, ``MAY RESET`` or ``REFUSED``: a verdict that its outcome does not tell is added."""
    word = str(outcome).replace("-", " ").upper()
    return f"{word} ({verdict})" if outcome in {"resets", "resumes"} else word


def condition_text(about: str, leads: str, how: str, name: str) -> str:
    """Say in one line what a condition is about, what it leads to, how to judge that case, and its name."""
    return one_line(f"{about} -> {leads}; to judge that case: {how} [{name}]")


def headline(report: Report) -> tuple[str, str]:
    """Return the report's first line: what becomes of the machine, and the sentence that says why."""
    return outcome(report.outcome, report.verdict), sentence(clean(report.headline))


def holds(report: Report) -> str:
    """Say how far the verdict holds: whether something that the inputs leave open would change it."""
    verdict = str(report.verdict).capitalize()
    if report.conditions:
        return f"{verdict}. What would change that:"
    return f"{verdict}. Nothing that the inputs leave open would change that."


def supposed(report: Report) -> str | None:
    """Say what options suppose of the processor and of the time after the handoff; None where they suppose nothing."""
    scenario, told = report.scenario, []
    if scenario.spurious_mwait:
        told.append("MWAIT ends by itself once (--spurious-mwait)")
    told += [f"{_EVENTS[event]} after the handoff (--suppose {event})" for event in scenario.supposed]
    return f"Supposed: {', '.join(told)}." if told else None


def taken_for_granted(report: Report) -> str | None:
    """Say what leaves no sign in anything that was given, or None where the resumer itself was seen."""
    if any(one.standing is Standing.MEASURED for one in report.assumptions):
        return None
    return (
        "Taken for granted: the resumer runs on the machine that hibernated (same CPUs, memory and firmware), "
        "started by its boot loader and not by kexec. To know it, run hibercheck collect there (--resumer-facts)."
    )


_EVENTS = {"nmi": "an NMI", "mce": "a machine check", "smi": "an SMI", "store": "a store to each monitored line"}

_NAMES = frozenset({"nosmt", "nokaslr", "maxcpus", "idle", "mwait", "hlt", "init"})
"""Words that a sentence may begin with and that are names: they keep their small letter."""


def sentence(text: str) -> str:
    """Return ``text`` as a sentence: a full stop at its end, and a capital at its start unless that is a symbol."""
    text = text.strip()
    first = text.partition(" ")[0]
    if first.isascii() and first.isalpha() and first.islower() and first not in _NAMES:
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."
