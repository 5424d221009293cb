"""A run from end to end, in a small repository of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = """
from enum import Enum

LIMIT = 5

class Kind(Enum):
    ONE = 1

class Counter:
    def __init__(self):
        self.count = 0

    @property
    def full(self):
        return self.count > LIMIT

def total(numbers, start=0):
    count = start
    while numbers:
        count += numbers.pop()
    return count

def never(a):
    return a + 1
"""
TESTS = """
import pytest
from hibercheck.small import Counter, total

@pytest.fixture(scope="module")
def counter():
    return Counter()

def test_total():
    assert total([1, 2]) == 3

def test_full(counter):
    counter.count = 6
    assert counter.full

def test_empty(counter):
    assert not Counter().full
"""
CORE = """
CORE = (Part(("hibercheck/small.py",), tests=("tests/test_small.py",)),)
"""


@pytest.fixture
def small(tmp_path):
    """Return a function that runs the runner on a small module."""
    here = Path(__file__).parent
    shutil.copytree(
        here, tmp_path / "tests/mutation", ignore=shutil.ignore_patterns("test_*", "record.json", "__pycache__")
    )
    shutil.copy(here.parent / "elsewhere.py", tmp_path / "tests")
    with (tmp_path / "tests/mutation/core.py").open("a") as core:
        core.write(CORE)
    (tmp_path / "hibercheck").mkdir()
    (tmp_path / "hibercheck/__init__.py").touch()
    (tmp_path / "hibercheck/small.py").write_text(SMALL)
    (tmp_path / "tests/test_small.py").write_text(TESTS)
    (tmp_path / "tests/conftest.py").write_text(
        "from hypothesis import settings\nsettings.register_profile('patient', deadline=None)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")

    def run(*arguments):
        command = [sys.executable, "-m", "tests.mutation", *arguments]
        return subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    run.place = tmp_path
    return run


def test_a_run(small):
    first = small()
    assert first.returncode == 1, first.stderr
    changes = set(
        zip(
            *([line[2:] for line in first.stdout.splitlines() if line.startswith(("- ", "+ "))][n::2] for n in (0, 1)),
            strict=True,
        )
    )
    assert ("return a + 1", "return a - 1") in changes  # no test runs it
    assert ("return self.count > LIMIT", "return self.count >= LIMIT") in changes
    assert ("LIMIT = 5", "LIMIT = 6") not in changes  # in a table of the module
    assert ("ONE = 1", "ONE = 2") in changes
    assert not {("count += numbers.pop()", after) for after in ("pass", "count -= numbers.pop()")} & changes  # endless
    assert ("def total(numbers, start=0):", "def total(numbers, start=1):") not in changes
    assert ("self.count = 0", "self.count = 1") in changes
    assert " does not end" in first.stdout

    second = small("--write")
    assert second.returncode == 0
    total = len(changes)
    assert f"{total} of them" not in second.stderr
    known = second.stderr.split(" mutants, ")
    assert known[1].startswith(known[0].split()[-1] + " of them known from earlier")
    record = json.loads((small.place / "tests/mutation/record.json").read_text())["hibercheck/small.py"]
    assert record["tried"] == record["total"]
    assert {(one["before"], one["after"]) for one in record["survivors"]} == changes

    assert small().returncode == 0  # what is listed is not new
    small.place.joinpath("tests/test_small.py").write_text(
        TESTS + "\ndef test_one():\n    from hibercheck import small\n    assert small.never(1) == 2\n"
    )
    third = small("--again", "--write")
    assert third.returncode == 0
    again = json.loads((small.place / "tests/mutation/record.json").read_text())["hibercheck/small.py"]
    assert again["killed"] > record["killed"]
    assert not any(one["scope"] == "never" for one in again["survivors"])


def test_a_sample_on_a_budget(small):
    run = small("--sample", "5", "--seed", "3")
    assert " 5 " in run.stdout.splitlines()[0]
    assert "95 %" in run.stdout
    run = small("--budget", "0.0001", "--fresh")
    assert run.returncode == 0
    assert not run.stdout


def test_a_test_that_fails_without_a_change_is_no_killer(small):
    unsteady = "import os\n\ndef test_unsteady():\n    assert total([1]) == 1\n"
    unsteady += "    assert not os.path.exists('.mutation')\n"  # passes while it is measured
    steady = "\ndef test_steady():\n    assert total([1, 2]) == 3\n"
    (small.place / "tests/test_small.py").write_text("from hibercheck.small import total\n" + unsteady + steady)
    run = small("--write")
    assert run.returncode == 0
    assert "left out: tests/test_small.py::test_unsteady fails without any change" in run.stderr
    record = json.loads((small.place / "tests/mutation/record.json").read_text())["hibercheck/small.py"]
    assert 0 < record["killed"] < record["tried"]


def test_tests_that_cannot_be_collected(small):
    (small.place / "tests/test_small.py").write_text("from hibercheck.small import nothing\n")
    run = small()
    assert run.returncode == 1
    assert "pytest cannot run tests/test_small.py" in run.stderr


def test_a_module_that_is_not_listed(small):
    run = small("hibercheck/other.py")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("hibercheck/other.py: not among")


def survivors(run):
    """The changes that a run shows, by the line before and after."""
    lines = [line[2:] for line in run.stdout.splitlines() if line.startswith(("- ", "+ "))]
    return set(zip(lines[::2], lines[1::2], strict=True))


def test_what_the_first_tests_leave_alive_meets_the_others(small):
    """Here the first tests are one of each kind; a change of what a property compares needs another."""
    runner = small.place / "tests/mutation/run.py"
    own = runner.read_text()
    assert "PER_MUTANT = 8\n" in own
    assert "LONGER = 40\n" in own
    few = own.replace("PER_MUTANT = 8\n", "PER_MUTANT = 0\n").replace("FOR_WHOLE = 2\n", "FOR_WHOLE = 0\n")
    runner.write_text(few)
    both = survivors(small("--fresh"))
    runner.write_text(few.replace("LONGER = 40\n", "LONGER = 0\n"))
    first = survivors(small("--fresh"))
    assert both < first
    change = ("return self.count > LIMIT", "return self.count <= LIMIT")
    assert change not in both


def test_what_a_modules_own_tests_leave_alive_meets_those_of_others(small):
    """Nobody beside the module asks about the limit itself; the tests of another module do."""
    at_the_limit = ("return self.count > LIMIT", "return self.count >= LIMIT")
    assert at_the_limit in survivors(small("--fresh"))
    (small.place / "hibercheck/other.py").write_text("def nothing():\n    return 0\n")
    (small.place / "tests/test_other.py").write_text(
        "from hibercheck.small import Counter\n\ndef test_at_the_limit():\n    counter = Counter()\n"
        "    counter.count = 5\n    assert not counter.full\n"
    )
    core = small.place / "tests/mutation/core.py"
    more = '(Part(("hibercheck/small.py",), tests=("tests/test_small.py",)), '
    more += 'Part(("hibercheck/other.py",), tests=("tests/test_other.py",)))'
    core.write_text(core.read_text().replace('(Part(("hibercheck/small.py",), tests=("tests/test_small.py",)),)', more))
    assert at_the_limit not in survivors(small("--fresh"))
