"""TOML as people write it: the standard library's parser takes time by the square of a key's parts."""

from __future__ import annotations

import tomllib
from typing import Any

from hibercheck.patterns import pattern

MOST_PARTS = 64
"""Dots of a line outside of its strings; a key of ours has two.  Half a million take the parser half an hour."""

_STRING = pattern(r'"(?:[^"\\]|\\.)*+\\?"?|\'[^\']*+\'?')
"""One that does not end counts to the end of the line, so that this takes time by the length."""


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse a document.

    Raises:
        ValueError: It is not UTF-8, not TOML, or has a key of too many parts, or a number of too many digits.
        RecursionError: Its values are nested too deeply.
    """
    text = content.decode("utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_PARTS and _STRING.sub("", line).count(".") > MOST_PARTS:
            raise ValueError(f"line {number} has a key of more than {MOST_PARTS} parts")
    return tomllib.loads(text)
