"""A million pairs: how long they take on the CPUs at hand, and that memory does not grow with them.

Figures: ``pytest -s -m slow tests/bench/test_matrix.py``.  Time is asserted only on a machine that is idle otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest

from tests.bench.made_facts import write_facts

pytestmark = pytest.mark.slow

COUNT = 600
PEAK = 200 << 20
SCENARIOS = ("default", "nosmt", "live=nokaslr;offline=2;idle=mwait")
# ru_maxrss of the process itself counts its parent as it was before exec, which may be a large pytest
PEAK_OF_ALL = """
import resource, sys
from hibercheck.cli.run import run
status = run(sys.argv[1:])
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Return a function that writes so many facts files: kernels of their own, whose tables lie elsewhere."""

    def write(count):
        directory = tmp_path_factory.mktemp("facts") / str(count)
        write_facts(directory, count)
        return directory

    return write


def fill(directory, output):
    scenarios = [part for scenario in SCENARIOS for part in ("--scenario", scenario)]
    command = [sys.executable, "-c", PEAK_OF_ALL, "matrix", str(directory), *scenarios, "--spurious-mwait"]
    begun = time.monotonic()
    result = subprocess.run(
        [*command, "--no-cache", "--format", f"json={output}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    return time.monotonic() - begun, int(re.search(r"peak (\d+)", result.stderr)[1]) << 10


def test_a_million_pairs(facts, tmp_path):
    _, small = fill(facts(COUNT // 10), tmp_path / "small.json")
    seconds, peak = fill(facts(COUNT), tmp_path / "large.json")
    print(f"\n{COUNT}^2 pairs in {len(SCENARIOS)} scenarios: {seconds:.1f} s, {peak >> 20} MiB a process")
    document = json.loads((tmp_path / "large.json").read_text())
    assert sum(len(row) for one in document["rows"] for row in one["cells"]) == len(SCENARIOS) * COUNT**2
    assert peak < PEAK
    assert peak < 2.5 * small  # a hundred times as many pairs
