"""Mutations that know what they mutate: fields of a layout, tokens of a text, nodes of a JSON document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.fuzz.draw import WORDS, Draw


class Region(NamedTuple):
    """A part of a file that holds fields of one size.

    Attributes:
        name: For messages.
        offset: Where it begins.
        size: Bytes.
        unit: Bytes of a field.
    """

    name: str
    offset: int
    size: int
    unit: int = 8


class Patch(NamedTuple):
    """Bytes to be written over a file."""

    offset: int
    data: bytes


def patch_fields(draw: Draw, regions: Sequence[Region], read, *, most: int = 4) -> list[Patch]:
    """Choose some fields of the regions and other contents for them.

    Args:
        draw: The choices.
        regions: Where fields are.
        read: ``read(offset, size)`` gives the present bytes.
        most: At most so many patches.
    """
    patches = []
    for _ in range(draw.between(1, most)):
        region = draw.choice(regions)
        if region.size < region.unit:
            continue
        place = region.offset + region.unit * draw.below(region.size // region.unit)
        patches.append(_patch(draw, region, place, read))
        if not draw:
            break
    return patches


def _patch(draw: Draw, region: Region, place: int, read) -> Patch:
    kind = draw.below(8)
    old = read(place, region.unit)
    room = region.offset + region.size - place
    if kind == 0:  # the contents of another field of the same kind: loops, overlaps, duplicates
        other = region.offset + region.unit * draw.below(region.size // region.unit)
        return Patch(place, read(other, region.unit))
    if kind == 1:
        return Patch(place, draw.bytes(min(room, draw.between(1, 64))))
    if kind == 2:
        return Patch(
            place, draw.choice((b"\0", b"\xff", b"A", b"\x1b[31m")) * (min(room, 1 << draw.below(13)) // 5 + 1)
        )
    return Patch(place, draw.word(region.unit, int.from_bytes(old, "little")).to_bytes(region.unit, "little"))


def apply(data: bytes, patches: Sequence[Patch]) -> bytes:
    """Return ``data`` with the patches in it, at the same length."""
    out = bytearray(data)
    for patch in patches:
        end = min(len(out), patch.offset + len(patch.data))
        out[patch.offset : end] = patch.data[: max(0, end - patch.offset)]
    return bytes(out)


def mutate_bytes(draw: Draw, data: bytes, regions: Sequence[Region] = (), *, most: int = 4) -> bytes:
    """Damage fields of the regions, or bytes anywhere; sometimes cut, repeat, insert or remove a part."""
    everywhere = [Region("any", 0, len(data), unit) for unit in (1, 4, 8)]
    data = apply(data, patch_fields(draw, [*regions, *regions, *everywhere], _reader(data), most=most))
    kind = draw.below(12)
    if kind == 1:
        return data[: draw.below(len(data) + 1)]
    at = draw.below(len(data) + 1)
    if kind == 2:
        return data[:at] + data[at + draw.below(4096) :]
    if kind == 3:
        return data[:at] + draw.bytes(draw.below(32)) + data[at:]
    if kind == 4:
        return data[:at] + data[at : at + draw.below(4096)] * draw.between(1, 8) + data[at:]
    return data


def _reader(data: bytes):
    return lambda offset, size: data[offset : offset + size].ljust(size, b"\0")


NASTY = (
    *("", "\0", "\x1b[2J", "\x1b]0;x\x07", "<script>", "]]>", "&", "\u202e", "\ud800", "\n", "\r\n", "\x85", '"', "\\"),
    *(
        "-1",
        "0",
        "0x",
        "1e999",
        "9" * 5000,
        "0x" + "f" * 5000,
        "99999999999999999999",
        "NaN",
        "null",
        "[",
        "{",
        "[[x]]",
    ),
    *("%n", "{0}", "{}", "$(id)", "../../../etc/passwd", "A" * 70000, "," * 4000, "0-18446744073709551615", "\u0663"),
)
"""Pieces of text that break parsers and terminals."""

LONG = 1000
"""What is longer is not repeated: the mutation should not be what takes the memory."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def mutate_text(draw: Draw, text: str, words: Sequence[str] = ()) -> str:
    """Replace, repeat, remove and exchange tokens and lines."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(draw.between(1, 4)):
        number = draw.below(len(lines))
        kind = draw.below(8)
        if kind == 0:
            lines[number] = ""
        elif kind == 1:
            line = draw.choice(lines)
            lines.insert(number, line * (500 if draw.chance(8) and len(line) < LONG else 1))
        elif kind == 2:
            other = draw.below(len(lines))
            lines[number], lines[other] = lines[other], lines[number]
        else:
            tokens = _TOKEN.findall(lines[number]) or [""]
            tokens[draw.below(len(tokens))] = draw.choice((*NASTY, *words)) if kind > 3 else draw.choice(tokens)
            lines[number] = "".join(tokens)
        if not draw:
            break
    return "".join(lines)


def mutate_json(draw: Draw, document: Any) -> Any:
    """Return the document with some nodes replaced, removed, renamed or exchanged."""
    document = json.loads(json.dumps(document))
    for _ in range(draw.between(1, 3)):
        holder, key = _node(draw, document)
        kind = draw.below(8)
        if holder is None:
            continue
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice((*NASTY, "kind", "name"))] = holder.pop(key)
        elif kind == 2:
            other, name = _node(draw, document)
            holder[key] = json.loads(json.dumps(other[name] if other is not None else None))
        else:
            holder[key] = _value(draw, holder[key])
        if not draw:
            break
    return document


def _node(draw: Draw, document: Any) -> tuple[Any, Any]:
    """A random node, by its holder and key; deep ones are as likely as shallow ones."""
    holder, key, node = None, None, document
    while isinstance(node, dict | list) and node and (holder is None or not draw.chance(4)):
        holder = node
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.below(len(node))
        node = holder[key]
    return holder, key


def _value(draw: Draw, old: Any) -> Any:
    kind = draw.below(9)
    if kind == 0:
        return draw.choice(WORDS) * draw.choice((1, -1))
    if kind == 1:
        return draw.choice(NASTY)
    if kind == 2:
        return draw.choice((None, True, False, [], {}, 1.5, float("inf"), [[]], {"": None}, [None] * 1000))
    if kind == 3 and len(json.dumps(old)) < LONG:
        return [old] * draw.between(0, 300)
    if kind == 4:
        return {"name": old}
    if kind == 5:
        return hex(draw.choice(WORDS))
    if isinstance(old, str):
        return mutate_text(draw, old)
    if isinstance(old, int):
        return draw.word(8, old & (1 << 64) - 1)
    return hex(draw.word(8))
