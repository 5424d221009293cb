from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.cli.values import AddressType, Output, OutputType
from hibercheck.cpulist import MAX_CPUS, format_cpu_list, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2,3", {2, 3}),
        ("1-3", {1, 2, 3}),
        ("0", {0}),
        ("0-15:2/4", {0, 1, 4, 5, 8, 9, 12, 13}),
        ("", set()),
        (" 1 , 2\n", {1, 2}),
        ("7,1-2,7", {1, 2, 7}),
    ],
)
def test_a_cpu_list_is_the_kernels(text, expected):
    assert parse_cpu_list(text) == expected


@pytest.mark.parametrize(
    "text", ["x", "3-1", "1-", "-1", "1-2:0/0", "1-2:3/2", "0x1", "1;2", "8192", "0-99999999999", "²"]
)
def test_a_bad_cpu_list_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_cpu_list(text)


@given(st.sets(st.integers(0, MAX_CPUS - 1), max_size=40))
def test_a_written_cpu_list_is_read_back(numbers):
    assert parse_cpu_list(format_cpu_list(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "expected"), [("0x1000000", 0x1000000), ("16M", 0x1000000), ("16777216", 1 << 24), ("1g", 1 << 30)]
)
def test_an_address(text, expected):
    assert AddressType(0x200000).convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["0x100000", "-2M", "M", "", "0x10000000000000", "sixteen"])
def test_a_bad_address_is_refused(text):
    with pytest.raises(click.BadParameter):
        AddressType(0x200000).convert(text, None, None)


def test_an_output_is_a_format_and_perhaps_a_file():
    outputs = OutputType(("text", "json"))
    assert outputs.convert("json", None, None) == Output("json")
    assert outputs.convert("json=a=b", None, None) == Output("json", "a=b")
    for bad in ("yaml", "json=", ""):
        with pytest.raises(click.BadParameter):
            outputs.convert(bad, None, None)
