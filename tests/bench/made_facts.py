"""Facts files of as many kernels as a matrix is to be measured with."""

from __future__ import annotations

import json
import random
from pathlib import Path

from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel
from tests.conftest import ROOT

KERNELS = ("small-current", "small-hlt", "mid-current")


def write_facts(directory: Path, count: int) -> None:
    """Write facts of so many kernels, made of three by moving their tables."""
    directory.mkdir()
    documents = []
    for name in KERNELS:
        with open_kernel(str(ROOT / "fixtures" / "kernels" / f"{name}.vmlinux.xz")) as kernel:
            documents.append(facts_of(kernel))
    chance = random.Random(7)
    for number in range(count):
        document = dict(documents[number % len(documents)])
        symbols = dict(document["symbols"])
        move = chance.randrange(64) << 12
        for name in ("init_top_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "_end"):
            address, *rest = symbols[name]
            symbols[name] = [hex(int(address, 16) + move), *rest]
        document |= {"symbols": symbols, "build_id": f"{number:040x}", "release": f"6.1.{number}"}
        (directory / f"{number:04}.json").write_text(json.dumps(document))
