"""Debian's kernels with symbols of their code only: the same traits, and the same answers to every measured case."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of
from tests.support.text_only import write_text_symbols

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []

pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


@pytest.fixture(scope="module")
def text_only(unpacked, tmp_path_factory):
    """Return a function that gives a kernel of the cases and a file with the symbols of its code."""
    known = {}

    def give(name):
        if name not in known:
            with open_kernel(str(unpacked(name))) as kernel:
                target = tmp_path_factory.mktemp("symbols") / "System.map"
                known[name] = str(write_text_symbols(kernel, target))
        return str(unpacked(name)), known[name]

    return give


@pytest.mark.parametrize("version", ["6.1.176", "6.12.94", "7.3.4"])
def test_the_same_traits(text_only, version):
    path, symbols = text_only(f"kernels/debian-{version}.vmlinux.xz")
    with open_kernel(path) as whole, open_kernel(path, symbols=symbols) as bare:
        ours, theirs = read_traits(whole), read_traits(bare)
    for one, other in zip(ours, theirs, strict=True):
        assert other.value == one.value, f"{one.name}: {other.reason}"
    loops = [
        [replace(loop, touches=tuple(replace(touch, symbol=None) for touch in loop.touches)) for loop in one.park_loops]
        for one in (ours, theirs)
    ]
    assert loops[0] == loops[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_same_answer(text_only, unpacked, case):
    resumer, symbols = text_only(case["resumer"])
    image, resumee = str(unpacked(case["image"])), str(unpacked(case["resumee"]))
    more = {"resumer_memory": str(unpacked(case["memory"]))} if case.get("memory") else {}
    answers = []
    for given in ({}, {"resumer_symbols": symbols}):
        report = check(image, resumer, resumee, options_of(case["args"], **more, **given))
        findings = [(one.rule, one.cpu, one.level) for one in report.findings]
        answers.append((report.outcome, report.verdict, findings, report.missing, report.share))
    assert answers[0] == answers[1]
