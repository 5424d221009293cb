"""Numbers and lists in words, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.cpulist import format_cpu_list

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


def cpu_phrase(numbers: Sequence[int]) -> str:
    """Return ``CPU 1`` or ``CPUs 1-3``."""
    return f"CPU{'' if len(set(numbers)) == 1 else 's'} {format_cpu_list(numbers)}"


def percent(part: int, whole: int) -> str:
    """Return a share that is 0 % or 100 % only if it is exactly so."""
    if part in (0, whole):
        return "0 %" if part == 0 else "100 %"
    share = min(max(100 * part / whole, 0.1), 99.9)
    return f"{share:.3g} %"


_NAMES = frozenset({"nosmt", "nokaslr", "maxcpus", "idle", "mwait", "hlt", "init"})
"""Words that a sentence may begin with and that are names: they keep their small letter."""


def sentence(text: str) -> str:
    """Return ``text`` as a sentence: a full stop at its end, and a capital at its start unless that is a symbol."""
    text = text.strip()
    first = text.partition(" ")[0]
    if first.isascii() and first.isalpha() and first.islower() and first not in _NAMES:
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."
