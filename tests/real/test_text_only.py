"""Debian's kernels with symbols of their code only: the same traits, and the same answers to every measured case."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from itertools import product

import pytest

from hibercheck.handoff.facts.kernels import open_resumer
from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.code.traits import read_traits
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of
from tests.support.text_only import write_text_symbols

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []

pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


@pytest.fixture(scope="module")
def forms(unpacked, tmp_path_factory):
    """Return a function that gives a kernel of the cases, opened once whole and once with symbols of its code."""
    known = {}
    with ExitStack() as stack:

        def give(name):
            if name not in known:
                path = str(unpacked(name))
                whole = stack.enter_context(open_resumer(path, None))
                symbols = write_text_symbols(whole, tmp_path_factory.mktemp("symbols") / "System.map")
                known[name] = whole, stack.enter_context(open_resumer(path, str(symbols)))
            return known[name]

        yield give


@pytest.mark.parametrize("version", ["6.1.176", "6.12.94", "7.3.4"])
def test_the_same_traits(forms, version):
    whole, bare = forms(f"kernels/debian-{version}.vmlinux.xz")
    assert (whole.supplemented, bare.supplemented) == (False, True)
    ours, theirs = read_traits(whole), read_traits(bare)
    for one, other in zip(ours, theirs, strict=True):
        assert other.value == one.value, f"{one.name}: {other.reason}"
    loops = [
        [replace(loop, touches=tuple(replace(touch, symbol=None) for touch in loop.touches)) for loop in one.park_loops]
        for one in (ours, theirs)
    ]
    assert loops[0] == loops[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_same_answer(forms, unpacked, case):
    """Of either kernel alone, and of both."""
    image = str(unpacked(case["image"]))
    more = {"resumer_memory": str(unpacked(case["memory"]))} if case.get("memory") else {}
    options = options_of(case["args"], **more)
    answers = []
    for resumer, resumee in product(forms(case["resumer"]), forms(case["resumee"])):
        report = check(image, resumer, resumee, options)
        findings = [(one.rule, one.cpu, one.level) for one in report.findings]
        answers.append((report.outcome, report.verdict, findings, report.missing, report.share))
    assert answers == answers[:1] * 4
