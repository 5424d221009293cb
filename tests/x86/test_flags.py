"""Arithmetic flags, against arithmetic on integers, and the conditions of a jump, against the manual's table."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iced_x86 import ConditionCode

from hibercheck.x86.flags import Flags, arithmetic, flags_of, holds


@given(st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_flags_of_bytes(first, second, subtract):
    """Checked by arithmetic on integers: unsigned for the carry, signed for the overflow."""
    result, flags = arithmetic(first, second, 1, subtract=subtract)
    signed = [value - 256 * (value > 127) for value in (first, second)]
    exact = signed[0] - signed[1] if subtract else signed[0] + signed[1]
    assert flags.cf == (first < second if subtract else first + second > 255)
    assert flags.of == (not -128 <= exact <= 127)
    assert (flags.zf, flags.sf) == (result == 0, result > 127)
    assert flags.pf == (f"{result:b}".count("1") % 2 == 0)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_only_the_operand_s_bytes_count(size):
    above = 1 << 8 * size
    top = above >> 1
    for first, second, subtract in ((above + 5, 5, True), (above - 1, above + 1, False), (0, above, False)):
        assert arithmetic(first, second, size, subtract=subtract)[0] == 0
        assert arithmetic(first, second, size, subtract=subtract)[1].zf
    assert not arithmetic(above - 1, 0, size, subtract=False)[1].cf
    assert arithmetic(above + 1, 2, size, subtract=True)[1].cf
    assert not arithmetic(3, above + 2, size, subtract=True)[1].cf
    assert arithmetic(top, top, size, subtract=False) == (0, Flags(zf=True, sf=False, cf=True, of=True, pf=True))
    assert flags_of(above, size, carry=False, overflow=False).zf
    assert not flags_of(top, size, carry=False, overflow=False).zf
    assert flags_of(top, size, carry=False, overflow=True).sf
    # SDM 1 3.4.3.1: parity is that of the least significant byte alone
    assert flags_of(0x0103, size, carry=False, overflow=False).pf
    assert not flags_of(0x0301, size, carry=False, overflow=False).pf


def test_an_operand_that_is_not_known_leaves_nothing_known():
    assert arithmetic(None, 1, 8, subtract=False) == (None, Flags())
    assert arithmetic(1, None, 8, subtract=True) == (None, Flags())
    assert flags_of(None, 4, carry=False, overflow=False) == Flags()


# SDM 2, "Jcc": the condition and its opposite, the flags that it needs, and what they must be
CONDITIONS = (
    ("O", "NO", "of", lambda of: of),
    ("B", "AE", "cf", lambda cf: cf),
    ("E", "NE", "zf", lambda zf: zf),
    ("BE", "A", "cf zf", lambda cf, zf: cf or zf),
    ("S", "NS", "sf", lambda sf: sf),
    ("P", "NP", "pf", lambda pf: pf),
    ("L", "GE", "sf of", lambda sf, of: sf != of),
    ("LE", "G", "zf sf of", lambda zf, sf, of: zf or sf != of),
)


@pytest.mark.parametrize(("name", "opposite", "needed", "when"), CONDITIONS, ids=[row[0] for row in CONDITIONS])
def test_conditions(name, opposite, needed, when):
    names = needed.split()
    for values in itertools.product((None, False, True), repeat=len(names)):
        # it is known if every value that the unknown flags can have leads to the same
        possible = {
            bool(when(*chosen))
            for chosen in itertools.product(*((False, True) if value is None else (value,) for value in values))
        }
        expected = possible.pop() if len(possible) == 1 else None
        flags = Flags(**dict(zip(names, values, strict=True)))
        assert holds(flags, getattr(ConditionCode, name)) is expected, flags
        assert holds(flags, getattr(ConditionCode, opposite)) is (None if expected is None else not expected), flags


def test_no_condition_is_none():
    assert holds(Flags(True, True, True, True, True), ConditionCode.NONE) is None


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_only_a_result_of_no_bit_at_all_is_zero(size):
    assert flags_of(0, size, carry=False, overflow=False).zf
    for bit in range(8 * size):
        assert flags_of(1 << bit, size, carry=False, overflow=False).zf is False
