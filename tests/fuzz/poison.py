"""Text that tries to leave where it is shown, in every place of a report where text of an input could be."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any, TypeVar

T = TypeVar("T")

EVIL = (
    "\x1b]0;owned\x07\x1b[31m\x9b2J[bold red]<script>alert(1)</script><!--]]>&amp;|`x`\u202e\u2066\u200b\ufeff"
    "\U000e0041"
    '\r\n::error::x%0A::warning::y\x0b\x0c\x85\u2028ok 1 - z # SKIP\n\x00\x08\x7f\ufffe\udc80\'"\\=HYPERLINK("x")'
)
"""Escape sequences, markup of several languages, reversals of the reading order, ends of lines, what XML forbids."""

RAW = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\ud800-\udfff]|[\U000e0000-\U000e007f]"
)
"""What may be in no output at all."""

KEPT = {"rule", "role", "state", "fail_on", "kind", "fact_option", "when"}
"""Fields that hold words of our own, by which a renderer decides."""


def poison(value: T, evil: str = EVIL) -> T:
    """Return the value with every text in it replaced by one that ends in the evil; words of our own stay."""
    return _poison(value, evil)


def _poison(value: Any, evil: str) -> Any:
    if isinstance(value, enum.Enum) or value is None:
        return value
    if isinstance(value, str):
        return value + evil
    if isinstance(value, tuple):
        parts = [_poison(one, evil) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_poison(one, evil) for one in value]
    if isinstance(value, dict):
        return {_poison(key, evil): _poison(one, evil) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            one.name: _poison(getattr(value, one.name), evil)
            for one in dataclasses.fields(value)
            if one.init and one.name not in KEPT and hasattr(value, one.name)
        }
        return dataclasses.replace(value, **changed)
    return value
