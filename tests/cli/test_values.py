from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.cli.values import AddressType, Output, OutputType, PartType, WholeType
from hibercheck.cpulist import MAX_CPUS, cpu_phrase, format_cpu_list, parse_cpu_list


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
        ("1-3:1/2", {1, 3}),
        ("2-9:2/3", {2, 3, 5, 6, 8, 9}),
        ("4-5:1/999999999", {4}),
        ("4-5:999999999/999999999", {4, 5}),
        ("0-8191:8192/8192", set(range(8192))),
        ("3-7:0/2", set()),
    ],
)
def test_a_cpu_list_is_the_kernels(text, expected):
    assert parse_cpu_list(text) == expected


@pytest.mark.parametrize(
    "text",
    ["x", "3-1", "1-", "-1", "1-2:0/0", "1-2:3/2", "0x1", "1;2", "8192", "0-99999999999", "²", "٣", "1_0", "1-2:٣/4"],
)
def test_a_bad_cpu_list_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_cpu_list(text)


@given(st.sets(st.integers(0, MAX_CPUS - 1), max_size=40))
def test_a_written_cpu_list_is_read_back(numbers):
    assert parse_cpu_list(format_cpu_list(numbers)) == numbers


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.sets(st.integers(300, 320)))
def test_cpus_at_equal_distances_are_read_back(first, count, distance, length, others):
    numbers = {first + place * distance + part for place in range(count) for part in range(length)} | others
    assert parse_cpu_list(format_cpu_list(numbers)) == numbers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (range(1, 1024, 2), "1-1023:1/2"),
        ((0, 2, 4, 6), "0,2,4,6"),
        ([cpu for cpu in range(64) if cpu % 4 < 2], "0-61:2/4"),
        ((0, *range(1, 40, 3), 41), "0-1,4-37:1/3,41"),
    ],
)
def test_many_cpus_at_equal_distances_are_written_as_one(numbers, text):
    assert format_cpu_list(numbers) == text


@pytest.mark.parametrize(
    ("text", "expected"), [("0x1000000", 0x1000000), ("16M", 0x1000000), ("16777216", 1 << 24), ("1g", 1 << 30)]
)
def test_an_address(text, expected):
    assert AddressType(0x200000).convert(text, None, None) == expected


@pytest.mark.parametrize(
    "text", ["0x100000", "-2M", "M", "", "0x10000000000000", "sixteen", "1_6M", "٢M", "0b1M", "02M"]
)
def test_a_bad_address_is_refused(text):
    with pytest.raises(click.BadParameter):
        AddressType(0x200000).convert(text, None, None)


@pytest.mark.parametrize("text", ["1_0", "٤", "²", "1.5", "-1", "101", "0", "x", ""])
def test_a_bad_count_is_refused(text):
    with pytest.raises(click.BadParameter):
        WholeType(1, 100).convert(text, None, None)


@pytest.mark.parametrize("text", ["0_1", "\u0660", "nan", "inf", "1e-3", "1.1", "-0.1", "", "."])
def test_a_bad_part_is_refused(text):
    with pytest.raises(click.BadParameter):
        PartType().convert(text, None, None)


def test_counts_and_parts():
    assert (WholeType(1, 100).convert("42", None, None), WholeType(1, 100).convert(42, None, None)) == (42, 42)
    assert [PartType().convert(text, None, None) for text in ("0", "1", "0.4", ".4", 0.4)] == [0, 1, 0.4, 0.4, 0.4]


def test_an_output_is_a_format_and_perhaps_a_file():
    outputs = OutputType(("text", "json"))
    assert outputs.convert("json", None, None) == Output("json")
    assert outputs.convert("json=a=b", None, None) == Output("json", "a=b")
    for bad in ("yaml", "json=", ""):
        with pytest.raises(click.BadParameter):
            outputs.convert(bad, None, None)


@pytest.mark.parametrize(
    ("numbers", "text"), [({3}, "CPU 3"), ([2, 2], "CPU 2"), ({1, 2, 3}, "CPUs 1-3"), ({0, 4}, "CPUs 0,4")]
)
def test_cpus_are_named_in_the_singular_and_the_plural(numbers, text):
    assert cpu_phrase(numbers) == text
