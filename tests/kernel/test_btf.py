from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact
from hibercheck.kernel.btf import Btf
from tests.support.btf_writer import ARRAY, CONST, FUNC, INT, PTR, STRUCT, TYPEDEF, UNION, Type, write_btf

TYPES = [
    Type(INT, "long", 8),  # 1
    Type(STRUCT, "inner", 24, (("x", 1, 0), ("y", 1, 64), ("z", 10, 128))),  # 2
    Type(UNION, "", 24, (("alias", 2, 0), ("word", 1, 0))),  # 3
    Type(ARRAY, "", 0, (("", 2, 5),)),  # 4
    Type(
        STRUCT, "task", 200, (("first", 1, 0), ("", 3, 64), ("list", 4, 256), ("next", 6, 1216), ("deep", 7, 1280))
    ),  # 5
    Type(PTR, "", 5),  # 6
    Type(TYPEDEF, "inner_t", 8),  # 7
    Type(CONST, "", 2),  # 8
    Type(FUNC, "task", 1),  # 9
    Type(INT, "int", 4),  # 10
    Type(STRUCT, "bits", 8, (("low", 10, 0), ("high", 10, 3 << 24 | 32)), flag=True),  # 11
]


@pytest.mark.parametrize(
    ("name", "path", "offset", "size"),
    [
        ("task", "first", 0, 8),
        ("task", "word", 8, 8),
        ("task", "alias", 8, 24),
        ("task", "alias.y", 16, 8),
        ("task", "list", 32, 120),
        ("task", "next", 152, 8),
        ("task", "deep.z", 176, 4),
        ("inner_t", "z", 16, 4),
        ("bits", "high", 4, 4),
    ],
)
def test_members(name: str, path: str, offset: int, size: int) -> None:
    btf = Btf(write_btf(TYPES), "k")
    assert btf.offset_of(name, path) == offset
    assert btf.size_of(name, path) == size
    assert btf.has_member(name, path)


def test_sizes() -> None:
    btf = Btf(write_btf(TYPES), "k")
    assert [btf.size_of(name) for name in ("task", "inner", "inner_t", "bits")] == [200, 24, 24, 8]


@pytest.mark.parametrize(
    ("name", "path"), [("absent", "x"), ("task", "absent"), ("task", "first.x"), ("task", ""), ("", "x"), ("long", "x")]
)
def test_what_is_not_there_is_a_missing_fact(name: str, path: str) -> None:
    btf = Btf(write_btf(TYPES), "k")
    assert not btf.has_member(name, path)
    with pytest.raises(MissingFact):
        btf.offset_of(name, path)


def test_a_pointer_is_not_followed() -> None:
    assert not Btf(write_btf(TYPES), "k").has_member("task", "next.first")


@pytest.mark.parametrize(
    "types",
    [
        [Type(STRUCT, "s", 8, (("m", 2, 0),)), Type(TYPEDEF, "t", 2)],
        [Type(STRUCT, "s", 8, (("m", 2, 0),)), Type(TYPEDEF, "t", 3), Type(CONST, "", 2)],
        [Type(STRUCT, "s", 8, (("", 1, 0), ("", 2, 0))), Type(UNION, "", 8, (("", 1, 0), ("", 2, 0)))],
        [Type(STRUCT, "s", 8, (("m", 2, 0),)), Type(ARRAY, "", 0, (("", 2, 9),))],
    ],
)
def test_cycles_end(types: list[Type]) -> None:
    btf = Btf(write_btf(types), "k")
    for question in (lambda: btf.offset_of("s", "m.x"), lambda: btf.size_of("s", "m")):
        with pytest.raises((MissingFact, MalformedKernel)):
            question()


def test_wide_anonymous_nesting_ends() -> None:
    wide = tuple(("", 2 + n % 40, 0) for n in range(2000))
    types = [Type(STRUCT, "s", 8, wide)] + [
        Type(UNION, "", 8, tuple(("", 2 + n, 0) for n in range(40))) for _ in range(40)
    ]
    assert not Btf(write_btf(types), "k").has_member("s", "absent")


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb\x01\x00", bytes(24), b"\xff" * 40, write_btf(TYPES)[:60]])
def test_damaged_headers(data: bytes) -> None:
    with pytest.raises(MalformedKernel):
        Btf(data, "k")


def test_a_structure_that_claims_more_members_than_there_are() -> None:
    data = bytearray(write_btf([Type(STRUCT, "s", 8, (("m", 1, 0),))]))
    struct.pack_into("<I", data, 24 + 4, 4 << 24 | 0xFFFF)
    with pytest.raises(MissingFact):
        Btf(bytes(data), "k").offset_of("s", "m")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_raises_only_our_errors(data: st.DataObject) -> None:
    whole = bytearray(write_btf(TYPES))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for name, path in (("task", "deep.z"), ("task", "alias.y"), ("bits", "high"), ("inner_t", "z")):
        message = ""
        try:
            btf = Btf(bytes(whole), "k")
            btf.offset_of(name, path)
            btf.size_of(name, path)
        except HibercheckError as error:
            message = str(error)
        assert "\n" not in message
