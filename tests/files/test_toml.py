"""TOML that takes the parser long, and TOML that looks so."""

import pytest

from hibercheck.files.toml import MOST_PARTS, parse_toml
from tests.support.effort import ends


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 500_000 + " = 1",
        "[a" + ".a" * 500_000 + "]",
        '"a"' + '."a"' * 300_000 + " = 1",
        "'='" + ".'a'" * 300_000 + " = 1",
        "x = {a" + ".a" * 500_000 + " = 1}",
        "b = 1\n\na" + ".a" * (MOST_PARTS + 1) + " = 1",
    ],
)
def test_a_key_of_very_many_parts(text):
    with ends(), pytest.raises(ValueError, match=r"^line [13] has a key of more than 64 parts"):
        parse_toml(text.encode())


def test_dots_in_strings_are_no_parts():
    text = "x = " + repr(["1.2.3", "a.b"] * 500) + '\nreason = "' + "." * 500 + '"\n'
    assert len(parse_toml(text.encode())["x"]) == 1000


@pytest.mark.parametrize("text", ['x = "' + '\\\\"' * 300_000, "x = " + "'." * 300_001, 'x = "' + "\\\\" * 300_001])
def test_strings_that_do_not_end(text):
    with ends(), pytest.raises(ValueError, match=r"line 1|parts|nterminated|Expected|Unescaped"):
        parse_toml((text + "." * 100).encode())


def test_the_deepest_key_that_is_read():
    found = parse_toml(("a" + ".a" * MOST_PARTS + " = 1").encode())
    for _ in range(MOST_PARTS + 1):
        found = found["a"]
    assert found == 1
