"""The committed measured cases, unpacked once."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.verdict.check import check, open_inputs
from tests.support.cases import options_of
from tests.support.opened import opened
from tests.support.unpacked import plain_path


@pytest.fixture(scope="session")
def committed(fixtures_dir):
    """Return a function that gives a committed case by name, its files unpacked."""
    cases = {case["name"]: case for case in json.loads((fixtures_dir / "cases.json").read_text())["cases"]}

    def case(name):
        found = cases[name]
        files = {key: plain_path(found[key]) for key in ("image", "resumer", "resumee", "memory") if found.get(key)}
        return {**found, **files}

    return case


@pytest.fixture(scope="session")
def predict(committed):
    """Return a function that checks a committed case, with its dump if wanted and further options."""

    def run(name, *, memory=False, **more):
        case = committed(name)
        if memory:
            more["resumer_memory"] = case["memory"]
        resumer = more.pop("resumer", None) or opened(case["resumer"])
        return check(case["image"], resumer, opened(case["resumee"]), options_of(case["args"], **more))

    return run


@pytest.fixture
def judged(committed):
    """Return a function that gives plan and judgement of a case; its files stay open meanwhile."""
    with ExitStack() as stack:

        def run(name, *, memory, **more):
            case = committed(name)
            if memory:
                more["resumer_memory"] = case["memory"]
            kernels = opened(case["resumer"]), opened(case["resumee"])
            inputs = open_inputs(case["image"], *kernels, options_of(case["args"], **more))
            plan, _, dump = stack.enter_context(inputs)
            return plan, judge(plan, dump)

        yield run
