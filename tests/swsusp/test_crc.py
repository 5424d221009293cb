"""The checksum in parts is the checksum of the whole."""

import importlib
import sys
import zlib

from hypothesis import given
from hypothesis import strategies as st

from hibercheck.swsusp.crc import apply, crc32_le, shift_matrix
from tests.support.image_format import running_crc


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_parts_make_the_whole(one, other):
    assert apply(shift_matrix(len(other)), crc32_le(one)) ^ crc32_le(other) == crc32_le(one + other)
    assert crc32_le(one + other) == running_crc([one, other])


def test_against_a_bitwise_definition():
    crc = 0
    for byte in b"123456789":
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    assert crc32_le(b"123456789") == crc


def test_without_the_fast_extra_zlib_gives_the_same(monkeypatch):
    content = bytes(range(256)) * 97
    fast = crc32_le(content, 0x1234)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    plain = importlib.reload(importlib.import_module("hibercheck.swsusp.crc"))
    try:
        assert plain.crc32 is zlib.crc32
        assert plain.crc32_le(content, 0x1234) == fast
    finally:
        monkeypatch.undo()
        importlib.reload(plain)
