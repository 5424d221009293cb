"""Bytes that decide: a machine on which they were otherwise would really end otherwise.

A damage that makes a hazard look survivable is a fault of the engine, unless it is one of these.
"""

from __future__ import annotations

REASONS: tuple[tuple[str, str, str], ...] = ()
"""(input, start of the region's name, why)."""


def reason(key: str, region: str) -> str | None:
    """Say why a region of an input decides, or None."""
    return next((why for name, start, why in REASONS if name == key and region.startswith(start)), None)
