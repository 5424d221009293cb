"""How the kernel takes a command line apart, and reads the numbers and sizes in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hibercheck.patterns import pattern

COMMAND_LINE_SIZE = 2048
"""Bytes of boot_command_line, the final NUL included (arch/x86/include/asm/setup.h)."""

U64 = (1 << 64) - 1
Pairs = list[tuple[str, str | None]]

_BLANKS = "\t\n\v\f\r \xa0"  # what isspace() takes for one: lib/ctype.c
_NUMBER = pattern(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_BOOLEANS = {"y": True, "1": True, "t": True, "on": True, "n": False, "0": False, "f": False, "of": False}


def _as_bytes(text: str) -> str:
    """Return the line as the kernel has it: one character a byte, up to a NUL, cut to its buffer."""
    return text.encode("utf-8", "replace").split(b"\0")[0][: COMMAND_LINE_SIZE - 1].decode("latin-1")


def split_command_line(text: str) -> list[tuple[str, str | None]]:
    """Split a command line into (name, value) pairs; the value is None where there is no ``=``.

    Follows ``next_arg()`` of lib/cmdline.c and ``parse_args()`` of kernel/params.c: blanks separate, double quotes
    protect blanks and are removed around a whole argument or its value, and ``--`` ends the kernel's part.  Dashes in a
    name become underscores, as ``parameq()`` compares them.
    """
    pairs: list[tuple[str, str | None]] = []
    for argument in _arguments(_as_bytes(text)):
        whole = argument[1:] if argument.startswith('"') else argument
        equals = whole.find("=", 1)  # an argument that begins with one has its name up to the next
        name, value = (whole, None) if equals < 0 else (whole[:equals], whole[equals + 1 :])
        if value is not None and value.startswith('"'):
            value = value[1:].removesuffix('"') if len(value) > 1 else ""
        elif argument.startswith('"') and value is not None:
            value = value.removesuffix('"')
        elif argument.startswith('"'):
            name = name.removesuffix('"')
        if value is None and name == "--":
            break
        pairs.append((name.replace("-", "_"), value))
    return pairs


def _arguments(text: str) -> list[str]:
    """Return the blank-separated arguments, quotes kept."""
    arguments, start, quoted = [], None, False
    for position, character in enumerate(text):
        blank = character in _BLANKS and not quoted
        if character == '"':
            quoted = not quoted
        if start is None and not blank:
            start = position
        elif start is not None and blank:
            arguments.append(text[start:position])
            start = None
    if start is not None:
        arguments.append(text[start:])
    return arguments


def words_of(text: str) -> list[str]:
    """Return the words that ``cmdline_find_option()`` and the like compare: between blanks, in the whole line.

    Quotes and ``--`` mean nothing to it, and a dash is no underscore (arch/x86/boot/cmdline.c, arch/x86/lib/cmdline.c).
    """
    return re.findall(r"[^\0-\x20]+", _as_bytes(text))


def option_value(words: Iterable[str], option: str) -> str | None:
    """Return the value of the last ``option=``, as ``cmdline_find_option()`` does; None where there is none."""
    return next((word[len(option) + 1 :] for word in reversed([*words]) if word.startswith(f"{option}=")), None) or None


def _wrapped(number: int) -> int:
    """Return what an int holds of a number."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def option_number(value: str | None) -> int | None:
    """Parse as ``get_option()`` does (lib/cmdline.c): None leaves what was there; what is not a number is 0."""
    if not value:
        return None
    sign, digits = (-1, value[1:]) if value[0] == "-" else (1, value)
    return _wrapped(sign * leading_number(digits)[0])


def leading_number(text: str) -> tuple[int, str]:
    """Parse as ``simple_strtoull()`` with base 0 does: a leading number in C notation (or 0), and the rest."""
    found = _NUMBER.match(text)
    if found is None:
        return 0, text
    digits = found.group(0)
    base = 16 if digits[:2].lower() == "0x" else 8 if digits.startswith("0") else 10
    return digits_number(digits, base) & U64, text[found.end() :]


def digits_number(digits: str, base: int) -> int:
    """Parse digits of any length: Python refuses decimal numbers of thousands of digits."""
    if base != 10:
        return int(digits, base)
    number = 0
    for start in range(0, len(digits), 1000):
        part = digits[start : start + 1000]
        number = (number * 10 ** len(part) + int(part)) & U64
    return number


def whole_number(value: str | None) -> int | None:
    """Parse as ``kstrtoint()`` with base 0 does: the whole value is a number that fits, or the parameter is ignored."""
    text = (value or "").removesuffix("\n")
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if _NUMBER.fullmatch(digits) is None or len(digits) > 24:
        return None
    number = sign * leading_number(digits)[0]
    return number if number == _wrapped(number) else None


def memparse(text: str) -> tuple[int, str]:
    """Parse a size as the kernel's ``memparse()`` does (``512M``, ``0x1000``); return it and the rest of the text."""
    number, rest = leading_number(text)
    unit = _UNITS.get(rest[:1].lower()) if rest != text else None
    if unit is None:
        return number, rest
    return min(number << unit, U64), rest[1:]


def parse_size(value: str | None) -> int | None:
    """Parse a size; None when there is no number."""
    size, rest = memparse(value or "")
    return None if rest == (value or "") else size


def boolean(value: str | None) -> bool | None:
    """Parse as ``kstrtobool()`` does (lib/kstrtox.c): by the first letter, of on and off the second."""
    text = (value or "").lower()
    return _BOOLEANS.get(text[:2] if text.startswith("o") else text[:1])
