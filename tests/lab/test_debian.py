"""The record of whole Debian systems: preflight foretold what each entry did; and the parts that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.debian.agreement import SIDES, agrees, table
from tests.lab.debian.build import newest
from tests.lab.debian.sessions import SESSIONS
from tests.lab.debian.sitting import RECORD, is_meant, recorded
from tests.lab.errors import LabError

LINES = recorded(RECORD)
RUNS = [line for line in LINES if "inside" in line]


@pytest.mark.parametrize("line", RUNS, ids=lambda line: line["name"])
def test_an_entry_did_what_was_said(line):
    assert agrees(line, "inside") is not False
    assert agrees(line, "outside") is not False


def test_there_are_runs_of_each_kind():
    outcomes = [line["outcome"] for line in RUNS]
    assert len(RUNS) >= 12
    assert {"resumes", "refused", "resets", "fresh"} <= set(outcomes)
    assert {line["name"] for line in RUNS} <= {
        f"{one.name}-{entry}" for one in SESSIONS for entry in (*one.starts, "none")
    }
    assert sum(agrees(line, "inside") is None for line in RUNS) <= 1


def test_one_argument_is_enough():
    (line,) = [line for line in LINES if "alone" in line]
    assert line["alone"] == line["full"]
    assert line["differs"] == ["resumee"]  # read out of the image, or out of its file


def test_the_unit_stops_what_would_be_lost():
    (line,) = [line for line in LINES if "stopped" in line]
    assert line["stopped"]
    default = next(one for one in RUNS if (one["session"], one["entry"]) == (line["session"], line["default"]))
    assert (default["inside"]["verdict"], default["outcome"]) == ("fatal", "resets")


def test_the_table_is_of_the_record():
    assert (Path(__file__).parent / "debian.md").read_text() == table(LINES)


@pytest.mark.parametrize(("said", "outcome", "right"), [
    ("safe", "resumes", True), ("safe", "resets", False), ("fatal", "resumes", False), ("not-found", "refused", False),
    ("undetermined", "fresh", None),
])  # fmt: skip
def test_what_a_verdict_lets_happen(said, outcome, right):
    line = {"name": "x", "session": "s", "entry": "e", "outcome": outcome} | {side: {"verdict": said} for side in SIDES}
    assert agrees(line, "inside") is right
    assert ("**no**" in table([line])) is (right is False)


def test_the_entry_that_was_started_is_known_by_its_line(tmp_path):
    for release in ("6.1.0-56-cloud-amd64", "6.12.118+deb13-cloud-amd64"):
        (tmp_path / "lib/modules" / release).mkdir(parents=True)
    banner = "Linux version 6.1.0-56-cloud-amd64 (x)"
    assert is_meant("old", tmp_path, "root=UUID=x nokaslr", banner)
    assert not is_meant("new", tmp_path, "root=UUID=x nokaslr", banner)
    assert not is_meant("old", tmp_path, "root=UUID=x noresume", banner)
    assert is_meant("small-nosmt", tmp_path, "nosmt resume=/dev/nvme0n1p2 resumewait", banner)


def test_the_newest_package_is_taken():
    names = "linux-image-6.1.0-9-cloud-amd64 linux-image-6.1.0-56-cloud-amd64 linux-image-6.1.0-56-amd64"
    pattern = r"linux-image-6\.1\.0-\d+-cloud-amd64"
    assert newest(names, pattern) == "linux-image-6.1.0-56-cloud-amd64"
    with pytest.raises(LabError, match="apt has no"):
        newest("", pattern)
