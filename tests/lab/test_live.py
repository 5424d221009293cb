"""The small set of live experiments: machines are started, and hibercheck must agree with what they do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lab.__main__ import main
from tests.lab.machine import QEMU

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.skipif(shutil.which(QEMU) is None, reason="QEMU is not installed")
@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_hibercheck_agrees_with_the_small_set(tmp_path: Path, capsys):
    status = main(["--work", str(tmp_path), "run", "--small"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "6 of 6 experiments measured" in printed
