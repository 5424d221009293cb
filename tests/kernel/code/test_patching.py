"""Code is a kernel's own but for what the kernel itself may patch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.kernel.code.model import Patch
from hibercheck.kernel.code.patching import same_code

AT = 0xFFFFFFFF81000000
CODE = bytes(range(16))


def changed(*offsets):
    return bytes(byte ^ (0xFF if offset in offsets else 0) for offset, byte in enumerate(CODE))


@pytest.mark.parametrize(("offsets", "patches", "same"), [
    ((), [], True), ((4,), [], False), ((4,), [(4, 5)], True), ((4,), [(5, 6)], False), ((4,), [(3, 4)], False),
    ((4, 5), [(4, 5)], False), ((4, 5), [(4, 6)], True), ((4, 9), [(4, 5), (9, 10)], True), ((0, 15), [(0, 16)], True),
    ((4,), [(9, 10), (4, 5)], True),
])  # fmt: skip
def test_bytes_that_may_be_patched_do_not_count(offsets, patches, same):
    patchable = tuple(Patch(AT + start, AT + end, "alternative") for start, end in patches)
    assert same_code(CODE, changed(*offsets), AT, patchable) is same


def test_less_code_is_other_code():
    everything = (Patch(AT, AT + 16, "alternative"),)
    assert not same_code(CODE, CODE[:-1], AT, everything)
    assert not same_code(CODE[:-1], CODE, AT, everything)


@given(st.binary(max_size=24), st.integers(0, 24), st.integers(0, 24))
def test_the_same_bytes_are_the_same_code(code, start, end):
    assert same_code(code, bytes(code), AT, (Patch(AT + start, AT + end, "jump label"),))
