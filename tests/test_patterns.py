"""A late pattern does what a compiled one does, and is compiled no earlier."""

from __future__ import annotations

import re

import pytest

from hibercheck.patterns import pattern


def test_it_does_what_a_compiled_one_does():
    late, usual = (
        pattern(r"(?P<word>[a-z]+)=(\d+)", re.IGNORECASE),
        re.compile(r"(?P<word>[a-z]+)=(\d+)", re.IGNORECASE),
    )
    for text in ("A=1", "xx b=22 c=3", "", "=1"):
        for method in ("search", "match", "fullmatch"):
            ours, theirs = (getattr(one, method)(text) for one in (late, usual))
            assert (ours and ours.groupdict()) == (theirs and theirs.groupdict())
        assert late.findall(text) == usual.findall(text)
        assert late.sub("x", text) == usual.sub("x", text)
    assert (late.pattern, late.flags, late.groups) == (usual.pattern, usual.flags, usual.groups)


def test_it_is_compiled_when_it_is_used():
    wrong = pattern("(")
    with pytest.raises(re.error):
        wrong.search("x")
    with pytest.raises(AttributeError):
        _ = pattern("x").no_such_method
