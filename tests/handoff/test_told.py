"""All that is said of the committed cases under many options, and what each CPU's replay finds, is as committed.

``python -m tests.handoff.test_told`` writes it anew; the review is of the difference.  For all but a case's own options
only what differs is kept.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

from hibercheck.errors import HibercheckError
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.verdict.check import check, open_inputs
from tests.support.cases import options_of
from tests.support.opened import opened
from tests.support.plain import lines_of
from tests.support.unpacked import FIXTURES, plain_path

TOLD = Path(__file__).with_name("told")
CASES = {case["name"]: case for case in json.loads((FIXTURES / "cases.json").read_text())["cases"]}
EVENTS = frozenset({"nmi", "smi", "mce"})
OWN = "its own options"
OPTIONS = {
    OWN: {},
    "events": {"suppose": EVENTS},
    "store, stays online": {"suppose": frozenset({"store"}), "spurious_mwait": False},
    "random address": {"resumer_cmdline": "nosmt", "suppose": EVENTS},
    "default line": {"resumer_cmdline": ""},
    "line added": {"resumer_cmdline_add": "maxcpus=1 mem=100M lockdown=integrity"},
    "offline": {"resumer_offline": frozenset({1}), "resumer_idle": "mwait", "suppose": EVENTS},
    "offline, halted": {"resumer_offline": frozenset({1}), "resumer_idle": "halt", "spurious_mwait": False},
    "offline, port": {"resumer_offline": frozenset({1}), "resumer_idle": "port"},
    "offline, open": {"resumer_offline": frozenset({1})},
    "at 32 MiB": {"resumer_phys_base": 0x2000000},
    "latency": {"spurious_mwait": False, "wake_latency": 200, "tlb": "cold"},
    "long latency": {"spurious_mwait": False, "facts": (("exit-latency", "900"), ("line-size", "128")), "tlb": "warm"},
    "spins": {"spurious_mwait": False, "mwait_spins": True},
    "told": {"facts": (("lockdown", "integrity"), ("hw-sig", "other"), ("pages", "30000"), ("free-pages", "100"))},
    "taken offline later": {"resumee_offline": frozenset({1}), "suppose": EVENTS},
    "in HLT": {"park": "hlt", "suppose": EVENTS},
    "in a reserved page": {"park": "self-contained", "suppose": EVENTS},
    "after INIT": {"park": "init", "suppose": EVENTS},
    "timeline": {"timeline": True},
}  # fmt: skip
IN_DUMP = {
    "dump": {},
    "dump, events": {"suppose": EVENTS},
    "dump, what if": {"what_if": True, "resumer_offline": frozenset({1}), "suppose": EVENTS},
    "dump, timeline": {"timeline": True, "spurious_mwait": False},
}
RUNS = {
    f"{name}, {label}": (name, label, more)
    for name, case in CASES.items()
    for label, more in {**OPTIONS, **(IN_DUMP if case.get("memory") else {})}.items()
}


def told(name, label, more):
    """Say all that comes of a run."""
    case = CASES[name]
    files = [plain_path(case["image"]), *(opened(plain_path(case[key])) for key in ("resumer", "resumee"))]
    given = dict(more)
    if label in IN_DUMP:
        given["resumer_memory"] = plain_path(case["memory"])
    try:
        options = options_of([one for one in case["args"] if one != "--spurious-mwait"],
                             **{"spurious_mwait": "--spurious-mwait" in case["args"], **given})  # fmt: skip
        lines = list(lines_of(check(*files, options), "report"))
        with open_inputs(*files, options) as (plan, acceptance, dump):
            lines += lines_of(plan.parked, "parked")
            lines += lines_of(acceptance, "acceptance")
            lines += lines_of(judge(plan, dump).aps, "replayed")
    except HibercheckError as error:
        lines = [f"{type(error).__name__}: {error}"]
    text = re.sub(r"(/[^/\s']+)+/fixtures/", "", "\n".join(lines))
    return re.sub(r"hibercheck \d[^ ]*", "hibercheck", text) + "\n"


def beside(text, base):
    """Say in what a text differs from that of the case's own options."""
    return "".join(list(unified_diff(base.splitlines(keepends=True), text.splitlines(keepends=True), n=0))[2:])


@functools.cache
def committed(name):
    """Read what is committed of a case: a text for each set of options."""
    parts = re.split(r"^== (.*)\n", (TOLD / f"{name}.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_what_is_said(run):
    name, label, more = RUNS[run]
    text = told(name, label, more)
    assert (beside(text, committed(name)[OWN]) if label != OWN else text) == committed(name)[label]


def test_nothing_else_is_committed():
    kept = {(path.stem, label) for path in TOLD.glob("*.txt") for label in committed(path.stem)}
    assert kept == {(name, label) for name, label, _ in RUNS.values()}


def write():
    TOLD.mkdir(exist_ok=True)
    for case in CASES:
        texts = {label: told(name, label, more) for name, label, more in RUNS.values() if name == case}
        texts = {label: beside(text, texts[OWN]) if label != OWN else text for label, text in texts.items()}
        whole = "".join(f"== {label}\n{text}" for label, text in texts.items())
        (TOLD / f"{case}.txt").write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
