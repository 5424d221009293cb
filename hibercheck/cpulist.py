"""Lists of CPUs as the kernel writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hibercheck.patterns import pattern

MAX_CPUS = 8192
"""The largest CONFIG_NR_CPUS that x86-64 offers (arch/x86/Kconfig, NR_CPUS_RANGE_END)."""

_RANGE = pattern(r"(?P<first>\d{1,9})(?:-(?P<last>\d{1,9})(?::(?P<used>\d{1,9})/(?P<group>\d{1,9}))?)?\Z", re.ASCII)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Parse a list of CPUs as the kernel does: ``2,3``, ``1-3``, ``0-15:2/4``; see `parse_cpu_mask`.

    Raises:
        ValueError: The text is not such a list, or names a CPU beyond `MAX_CPUS`; the message says which part.
    """
    mask = parse_cpu_mask(text)
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def parse_cpu_mask(text: str) -> int:
    """Parse a list of CPUs into an integer of which bit N stands for CPU N: a thousandth of a set's size.

    The grammar is ``bitmap_parselist()``'s (lib/bitmap-str.c): ``first[-last[:used/group]]``, separated by commas.

    Raises:
        ValueError: The text is not such a list, or names a CPU beyond `MAX_CPUS`; the message says which part.
    """
    mask = 0  # one bit for each CPU: a list may name the same thousands over and over
    for part in text.replace("\n", ",").split(","):
        if not part.strip():
            continue
        match = _RANGE.match(part.strip())
        if not match:
            raise ValueError(f"{part.strip()!r} is not a CPU or a range of CPUs such as 1-3")
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first:
            raise ValueError(f"the range {part.strip()!r} ends before it begins")
        if last >= MAX_CPUS:
            raise ValueError(f"CPU {last} is beyond the {MAX_CPUS} that the kernel supports")
        used, group = int(match["used"] or 1), int(match["group"] or 1)
        if group == 0 or used > group:
            raise ValueError(f"{part.strip()!r} uses {used} of each group of {group}")
        mask |= _bits(last + 1 - first, used, group) << first
    return mask


def _bits(length: int, used: int, group: int) -> int:
    """Return ``length`` bits of which ``used`` of each ``group`` are set."""
    if group >= length:
        return (1 << min(used, length)) - 1
    groups = -(-length // group)
    ones = ((1 << group * groups) - 1) // ((1 << group) - 1)  # the lowest bit of each group
    return ((1 << used) - 1) * ones & ((1 << length) - 1)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel prints them, ``0,2-5``: there may be a thousand."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
