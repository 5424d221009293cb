"""``hibercheck collect`` on a real /proc/kcore: in the lab's guest, then held against the guest's dump."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hibercheck.handoff.facts.resumer_facts import read_facts
from tests.lab.__main__ import main
from tests.lab.collected import differences, everything
from tests.lab.errors import LabError
from tests.lab.machine import QEMU
from tests.lab.python import entries

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Two measured resumes, one of them with KASLR, before which facts were collected."""
    for program in (QEMU, "busybox", "ldd"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    try:
        entries()
    except (LabError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"this Python cannot be copied into a guest: {error}")
    place = tmp_path_factory.mktemp("collect")
    assert (
        main(
            [
                "--work",
                str(place),
                "run",
                "--family",
                "collect",
                "--name",
                "kcore",
                "--record",
                str(place / "record.jsonl"),
            ]
        )
        == 0
    )
    return place


def test_the_facts_say_what_the_dump_says(work):
    cases = everything(work)
    assert len(cases) == 2
    assert {case["name"]: differences(case, work) for case in cases} == {case["name"]: [] for case in cases}


def test_the_kernel_shows_its_page_tables(work):
    for case in everything(work):
        facts = read_facts(str(work / case["facts"]))
        assert len(facts.frames) >= 10
        assert (facts.kernel_offset == 0) == ("nokaslr" in facts.command_line)
        assert "without" not in (work / case["facts"]).with_suffix(".said").read_text()
