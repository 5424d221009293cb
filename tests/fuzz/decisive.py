"""Bytes that decide: a machine on which they were otherwise would really end otherwise.

A damage that makes a hazard look survivable is a fault of the engine, unless it is one of these.
"""

from __future__ import annotations

REASONS: tuple[tuple[str, str, str], ...] = (
    (
        "image",
        "memory: frozen_cpus for",
        "the resumee itself reads frozen_cpus, and sends an INIT to the CPUs that are in it",
    ),
)
"""(input, start of the region's name, why)."""


def reason(key: str, region: str) -> str | None:
    """Say why a region of an input decides, or None."""
    return next((why for name, start, why in REASONS if name == key and region.startswith(start)), None)
