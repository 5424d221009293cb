"""Fixtures shared by all tests: where the real inputs are."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.unpacked import CACHE, unpack

# A busy machine makes an example slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What commands keep of kernels that they have read is this session's, and nobody else's.
_KEPT = tempfile.TemporaryDirectory(prefix="hibercheck-tests-")
os.environ["XDG_CACHE_HOME"] = _KEPT.name

# A run in the background or under nohup inherits that signals are ignored, and so would the commands that tests end.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED_CASES = ROOT.parent / "shared" / "cases"


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The committed inputs."""
    return ROOT / "fixtures"


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The measured cases beside the repository; skips where they are absent."""
    if not (SHARED_CASES / "cases.json").exists():
        pytest.skip("the measured cases (../shared/cases) are not beside this repository")
    return SHARED_CASES


@pytest.fixture(scope="session")
def unpacked(shared_cases: Path):
    """Return a function that unpacks a file of the cases (``images/x.bin.xz``) once and gives its path."""
    return lambda name: unpack(shared_cases / name, CACHE)
