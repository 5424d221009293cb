"""Make .BTF sections out of a few declarations."""

from __future__ import annotations

import struct
from typing import NamedTuple

INT, PTR, ARRAY, STRUCT, UNION, TYPEDEF, CONST, FUNC = 1, 2, 3, 4, 5, 8, 10, 12


class Type(NamedTuple):
    """A type; numbers in ``value`` and ``members`` are positions in the list given to `write_btf`, from 1."""

    kind: int
    name: str = ""
    value: int = 0
    """Size of an INT, STRUCT or UNION; the type that a PTR, TYPEDEF or CONST refers to."""
    members: tuple[tuple[str, int, int], ...] = ()
    """(name, type, bit offset) of a STRUCT or UNION; one (``""``, element type, count) for an ARRAY."""
    flag: bool = False


def write_btf(types: list[Type]) -> bytes:
    """The section's contents."""
    strings, out = bytearray(b"\0"), bytearray()

    def name(text: str) -> int:
        if not text:
            return 0
        at = bytes(strings).find(b"\0" + text.encode() + b"\0")
        if at < 0:
            at = len(strings) - 1
            strings.extend(text.encode() + b"\0")
        return at + 1

    for one in types:
        count = len(one.members) if one.kind in {STRUCT, UNION} else 0
        out += struct.pack("<III", name(one.name), count | one.kind << 24 | one.flag << 31, one.value)
        if one.kind == INT:
            out += struct.pack("<I", one.value * 8)
        for member, kind, place in one.members:
            out += (
                struct.pack("<III", kind, 1, place)
                if one.kind == ARRAY
                else struct.pack("<III", name(member), kind, place)
            )
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(out), len(out), len(strings)) + bytes(out) + bytes(strings)
