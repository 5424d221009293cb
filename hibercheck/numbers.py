"""Numbers as kernels and their tools write them.

``int`` alone also takes ``1_000``, blanks around the digits, and the digits of every script: what a damaged or made-up
file says would then be read as a number that nobody wrote.
"""

from __future__ import annotations

from hibercheck.patterns import pattern

U64 = 1 << 64
"""What a number of 64 bits stays below."""

_DECIMAL = pattern(r"[0-9]{1,20}")
_HEXADECIMAL = pattern(r"(?:0[xX])?[0-9a-fA-F]{1,16}")
_EITHER = pattern(r"-?(?:0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19})")


def decimal(text: str, below: int = U64) -> int:
    """Return the number that decimal digits write.

    Raises:
        ValueError: There is anything else than digits, or the number is not below ``below``.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a decimal number")
    return _bounded(int(text), text, below)


def hexadecimal(text: str, below: int = U64) -> int:
    """Return the number that hexadecimal digits write, with or without ``0x``.

    Raises:
        ValueError: There is anything else than such digits, or the number is not below ``below``.
    """
    if not _HEXADECIMAL.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a hexadecimal number")
    return _bounded(int(text, 16), text, below)


def either(text: str, below: int = U64) -> int:
    """Return a decimal number, or a hexadecimal one after ``0x``; it may be negative, above ``-below``.

    A zero in front of other digits is refused: the kernel would read them as octal, and people do not.

    Raises:
        ValueError: It is neither, or is beyond ``below``.
    """
    if not _EITHER.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a number such as 12 or 0x1000")
    return _bounded(int(text, 16 if "x" in text.lower() else 10), text, below)


def _bounded(number: int, text: str, below: int) -> int:
    if not -below < number < below:
        raise ValueError(f"{_shown(text)} is too large")
    return number


def _shown(text: str) -> str:
    """Quote what was read, but not all of a megabyte."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def is_version(value: object, version: int) -> bool:
    """Tell whether a document's member is this version: in Python ``true`` and ``1.0`` equal 1 too."""
    return type(value) is int and value == version
