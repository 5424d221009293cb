"""Every target for a bounded time, in a process of its own, from a seed that is always the same.

A quick target ends after some rounds, so that the time is for those of which few fit into it.  The variable of the
environment makes it a longer run, without that end.
"""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.fuzz.__main__ import TARGETS

GIVEN = os.environ.get("HIBERCHECK_FUZZ_SECONDS")
SECONDS = GIVEN or "2.5"
ROUNDS = [] if GIVEN else ["--rounds", "100"]


@pytest.mark.parametrize("target", TARGETS)
def test_every_damage_ends_in_an_answer_or_an_error_of_ours(target):
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", SECONDS, *ROUNDS]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300 + float(SECONDS), check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert f"{target}: " in ran.stdout
