"""Values as JSON and back: what a number looks like, how deep a document may be, where a misfit is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Generic, Literal, TypeVar

import pytest

from hibercheck.kernel.code.codec import MAX_DEPTH, DocumentError, binary, decode, encode, integer
from hibercheck.kernel.code.model import Evidence, IdtGate, Instruction, ParkLoop, Patch, Touch

T = TypeVar("T")

OF_PLACES = {
    ParkLoop: ("function_address", "start", "end", "entry", "wait", "ranges"),
    Instruction: ("address",),
    Touch: ("address", "instruction"),
    Patch: ("start", "end"),
    IdtGate: ("handler",),
    Evidence: ("address",),
}
"""Fields that hold addresses; what a file keeps of them is read by people, and compared with a listing."""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in OF_PLACES.items() for name in names])
def test_addresses_are_written_in_hexadecimal(kind, name):
    assert name in {one.name for one in fields(kind)}
    made = make_dataclass("Made", [(name, int)])
    assert encode(made(4096)) == {name: "0x1000"}
    assert encode(made((1, (2, 3)))) == {name: ["0x1", ["0x2", "0x3"]]}
    assert encode(made(None)) == {name: None}
    assert encode(made(True)) == {name: True}


@pytest.mark.parametrize("name", ["vector", "ist", "size", "displacement", "value", "x", ""])
def test_other_numbers_are_written_as_numbers_where_every_reader_keeps_them(name):
    """A double holds integers of 53 bits (RFC 8259, section 6)."""
    exact = (1 << 53) - 1
    assert encode(exact, name) == exact
    assert encode(-exact, name) == -exact
    assert encode(exact + 1, name) == "0x20000000000000"
    assert encode(-exact - 1, name) == "-0x20000000000000"
    assert encode((1, exact + 1), name) == [1, "0x20000000000000"]


@pytest.mark.parametrize("number", [0, 1, -1, (1 << 53) - 1, 1 << 53, -(1 << 53), (1 << 64) - 1, 1 - (1 << 64)])
def test_numbers_come_back(number):
    assert integer(json.loads(json.dumps(encode(number))), "$") == number
    assert integer(hex(number), "$") == number


@pytest.mark.parametrize("number", [1 << 64, -(1 << 64), "0x10000000000000000", "-0x10000000000000000"])
def test_numbers_of_more_than_64_bits_are_refused(number):
    with pytest.raises(DocumentError, match=r"^\$\.x: an integer was expected$"):
        integer(number, "$.x")


def nested(depth):
    """The type of lists in lists, and a list that is so deep."""
    kind, value = tuple[int, ...], [7]
    for _ in range(depth):
        kind, value = tuple[kind, ...], [value]
    return kind, value


def test_how_deep_a_document_may_be():
    """The outermost list is at depth 0."""
    decode(*nested(MAX_DEPTH))
    with pytest.raises(DocumentError, match=rf"^\$(\[0\]){{{MAX_DEPTH + 1}}}: nested deeper than 12$"):
        decode(*nested(MAX_DEPTH + 1))


@dataclass(frozen=True)
class Box(Generic[T]):
    value: T


def test_how_deep_records_may_be():
    kind, value = int, 7
    for _ in range(MAX_DEPTH + 1):
        kind, value = Box[kind], {"value": value}
    decode(kind, value)
    with pytest.raises(DocumentError, match=rf"^\$(\.value){{{MAX_DEPTH + 1}}}: nested deeper than 12$"):
        decode(Box[kind], {"value": value})


@dataclass(frozen=True)
class Inner:
    number: int
    word: Literal["one", "two"]
    maybe: str | None = None


@dataclass(frozen=True)
class Outer(Generic[T]):
    value: T | None
    rows: tuple[Inner, ...] = ()
    pair: tuple[int, bytes] = field(default=(0, b""))


GOOD = {
    "value": True,
    "rows": [{"number": 1, "word": "one", "maybe": None}, {"number": "0x2", "word": "two", "maybe": "x"}],
    "pair": [5, "AAE="],
}


def test_a_record_comes_back_with_all_its_fields():
    expected = Outer(True, (Inner(1, "one"), Inner(2, "two", "x")), (5, b"\0\1"))
    assert decode(Outer[bool], GOOD) == expected
    assert decode(Outer[bool], {**GOOD, "unknown": 1}) == expected  # what a later version adds
    assert decode(Outer[bool], json.loads(json.dumps(encode(expected)))) == expected


@pytest.mark.parametrize(("change", "said"), [
    ({"value": 1}, ".value: bool was expected, not int"),
    ({"value": "x"}, ".value: bool was expected, not str"),
    ({"rows": 5}, ".rows: a list was expected"), ({"rows": {}}, ".rows: a list was expected"),
    ({"rows": [5]}, ".rows[0]: an object was expected"),
    ({"rows": [GOOD["rows"][0], {"number": 1}]}, ".rows[1]: word is missing"),
    ({"rows": [GOOD["rows"][0], GOOD["rows"][0], {"number": "x", "word": "one", "maybe": None}]},
     ".rows[2].number: an integer was expected"),
    ({"rows": [{"number": 1, "word": "three", "maybe": None}]}, ".rows[0].word: 'three' is not one of one, two"),
    ({"rows": [{"number": 1, "word": "one", "maybe": 1}]}, ".rows[0].maybe: str was expected, not int"),
    ({"pair": [1]}, ".pair: 2 items were expected, not 1"),
    ({"pair": [1, "AAE=", 2]}, ".pair: 2 items were expected, not 3"),
    ({"pair": [1, "?"]}, ".pair[1]: base 64 was expected"), ({"pair": ["?", "AAE="]}, ".pair[0]: an integer was"),
    ({"pair": [1, "AAE"]}, ".pair[1]: base 64 was expected"), ({"pair": [1, 5]}, ".pair[1]: base 64 was expected"),
])  # fmt: skip
def test_where_a_misfit_is(change, said):
    with pytest.raises(DocumentError) as raised:
        decode(Outer[bool], GOOD | change, "here")
    assert str(raised.value).startswith(f"here{said}")
    with pytest.raises(DocumentError) as raised:
        decode(Outer[bool], GOOD | change)
    assert str(raised.value).startswith(f"${said}")


@pytest.mark.parametrize("name", ["value", "rows", "pair"])
def test_a_field_that_is_missing_is_never_a_default(name):
    """What is not in a document is not known, whatever its record says by itself."""
    with pytest.raises(DocumentError, match=rf"^\$: {name} is missing$"):
        decode(Outer[bool], {key: value for key, value in GOOD.items() if key != name})


def test_bytes():
    assert binary("AAEC", "$") == b"\0\1\2"
    assert encode(b"\0\1\2") == "AAEC"
    with pytest.raises(DocumentError, match=r"^\$\.x: base 64 was expected$"):
        binary("AA EC", "$.x")  # as strict as the one that wrote it
