"""The kernel in the image instead of its file: every measured case says the same."""

import dataclasses
import json

import pytest

from hibercheck.handoff.verdict.check import check
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []
RUNS = [(case, memory) for case in CASES for memory in ((False, True) if case.get("memory") else (False,))]


def without_names(report):
    """A report without the resumee's names of overwritten frames: a kernel's own table does not name its own parts."""
    cpus = tuple(
        dataclasses.replace(cpu, footprint=tuple(dataclasses.replace(use, resumee=None) for use in cpu.footprint))
        for cpu in report.cpus
    )
    return dataclasses.replace(report, cpus=cpus)


@pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")
@pytest.mark.parametrize(
    ("case", "memory"), RUNS, ids=lambda value: value["name"] if isinstance(value, dict) else value
)
def test_the_image_alone_says_what_the_kernels_file_says(unpacked, case, memory):
    image, resumer, resumee = (str(unpacked(case[key])) for key in ("image", "resumer", "resumee"))
    more = {"resumer_memory": str(unpacked(case["memory"]))} if memory else {}
    options = options_of(case["args"], **more)
    given, own = check(image, resumer, resumee, options), check(image, resumer, None, options)
    assert dataclasses.replace(own.resumee, path=resumee) == given.resumee
    assert without_names(dataclasses.replace(own, resumee=given.resumee)) == without_names(given)
