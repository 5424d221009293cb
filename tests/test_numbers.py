"""Numbers are read as their writers write them, and nothing else is a number."""

from __future__ import annotations

import pytest

from hibercheck.numbers import U64, decimal, either, hexadecimal, is_version

NO_NUMBERS = ["", " 1", "1 ", "1\n", "1_0", "٤", "²", "\uff11", "1.0", "1e3", "0b1", "0o7", "--1", "0x", "0x_f"]
"""`int` reads some of them, in one base or another."""


@pytest.mark.parametrize("text", [*NO_NUMBERS, "-1", "+1", "0x10", "9" * 21, str(U64)])
def test_no_decimal(text):
    with pytest.raises(ValueError, match=r"is not a decimal number|is too large"):
        decimal(text)


@pytest.mark.parametrize(
    "text", [*(text for text in NO_NUMBERS if text not in {"1e3", "0b1"}), "ffff_fff_8100000", "+f", "-f", "f" * 17]
)
def test_no_hexadecimal(text):
    with pytest.raises(ValueError, match="is not a hexadecimal number"):
        hexadecimal(text)


@pytest.mark.parametrize("text", [*NO_NUMBERS, "+1", "010", "-010", "ff", "0x" + "f" * 17, str(U64), "-" + str(U64)])
def test_neither(text):
    with pytest.raises(ValueError, match=r"is not a number such as|is too large"):
        either(text)


def test_numbers():
    assert (decimal("0"), decimal("007"), decimal(str(U64 - 1))) == (0, 7, U64 - 1)
    assert (hexadecimal("0xfF"), hexadecimal("ff"), hexadecimal("f" * 16)) == (255, 255, U64 - 1)
    assert (either("12"), either("0x10"), either("-0X10"), either("0")) == (12, 16, -16, 0)
    with pytest.raises(ValueError, match="'64' is too large"):
        decimal("64", 64)
    with pytest.raises(ValueError, match="is too large"):
        hexadecimal("40", 64)
    with pytest.raises(ValueError, match=r"'1{40}\.\.\.' is not"):
        decimal("1" * 5000)


def test_a_version_is_a_number():
    assert is_version(1, 1)
    assert not any(is_version(value, 1) for value in (True, 1.0, "1", None, 2, [1]))
