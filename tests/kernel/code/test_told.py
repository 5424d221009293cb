"""All that is read of kernels' code, made and real, is as it is committed: values, evidence, commits, reasons, loops.

``python -m tests.kernel.code.test_told`` writes it anew; the review is of the difference.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import MadeKernels
from tests.support.text_only import write_text_symbols
from tests.support.told_traits import MADE, TOLD, beside, told_of
from tests.support.unpacked import plain_path

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
REAL = {path.name.removesuffix(".vmlinux.xz"): path
        for path in sorted([*FIXTURES.glob("compilers/*.xz"), *FIXTURES.glob("kernels/*.vmlinux.xz")])}  # fmt: skip
TEXT_ONLY = ("small-hlt", "mid-current", "v73-stock")


def committed(name):
    return (TOLD / f"{name}.txt").read_text(encoding="utf-8")


def of_text_only(path, place):
    """Say what is read of a kernel that lists only its code."""
    with open_kernel(plain_path(path)) as whole:
        symbols = write_text_symbols(whole, place / "System.map")
    return told_of(plain_path(path), symbols=str(symbols))


@pytest.mark.parametrize("name", MADE)
def test_what_is_told_of_made_kernels(made, name):
    text = told_of(made.path(**MADE[name]))
    assert (text if name == "plain" else beside(committed("plain"), text)) == committed(name)


@pytest.mark.parametrize("name", REAL)
def test_what_is_told_of_real_kernels(name):
    assert told_of(plain_path(REAL[name])) == committed(name)


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_what_is_told_of_kernels_that_list_only_their_code(name, tmp_path):
    assert of_text_only(REAL[name], tmp_path) == committed(f"{name}, text only")


def test_nothing_else_is_committed():
    only = {f"{name}, text only" for name in TEXT_ONLY}
    assert {path.stem for path in TOLD.glob("*.txt")} == {*MADE, *REAL, *only}


def write():
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        texts = {one: told_of(MadeKernels(place).path(**parts)) for one, parts in MADE.items()}
        texts = {one: text if one == "plain" else beside(texts["plain"], text) for one, text in texts.items()}
        texts |= {one: told_of(plain_path(path)) for one, path in REAL.items()}
        texts |= {f"{one}, text only": of_text_only(REAL[one], place) for one in TEXT_ONLY}
    for one, text in texts.items():
        (TOLD / f"{one}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
