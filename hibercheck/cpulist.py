"""Lists of CPUs as the kernel writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile

from hibercheck.patterns import pattern

MAX_CPUS = 8192
"""The largest CONFIG_NR_CPUS that x86-64 offers (arch/x86/Kconfig, NR_CPUS_RANGE_END)."""

_MANY = 8
"""So many ranges at equal distances are written as one."""

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
    """Return CPUs as the kernel reads them, ``0,2-5``; many at equal distances, as siblings are, as ``1-1023:1/2``."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    parts, at = [], 0
    while at < len(ranges):
        first, last = ranges[at]
        alike = _alike(ranges, at)
        if alike >= _MANY:
            group = ranges[at + 1][0] - first
            parts.append(f"{first}-{ranges[at + alike - 1][1]}:{last + 1 - first}/{group}")
        else:
            alike = 1
            parts.append(str(first) if first == last else f"{first}-{last}")
        at += alike
    return ",".join(parts)


def cpu_phrase(cpus: Iterable[int]) -> str:
    """Return ``CPU 1`` or ``CPUs 1-3``."""
    numbers = set(cpus)
    return f"CPU{'' if len(numbers) == 1 else 's'} {format_cpu_list(numbers)}"


def _alike(ranges: list[list[int]], at: int) -> int:
    """Count the ranges from one on that are as long as it, and as far from one another as the next is from it."""
    if at + 1 == len(ranges):
        return 1
    group, length = ranges[at + 1][0] - ranges[at][0], ranges[at][1] - ranges[at][0]
    following = zip(ranges[at:], ranges[at + 1 :], strict=False)
    alike = takewhile(lambda two: two[1][0] - two[0][0] == group and two[1][1] - two[1][0] == length, following)
    return 1 + sum(1 for _ in alike)
