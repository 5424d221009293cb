"""Targets under atheris, which learns from coverage which choices lead somewhere new.

    python -m tests.fuzz.guided TARGET --seconds 600 [--corpus DIR]

Only hibercheck's own code is instrumented, as it is imported: that of all modules takes longer than most runs.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hibercheck


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one target for a time, or until it fails; atheris ends the process."""
    import atheris  # noqa: PLC0415 - only for those who have it

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", default="", metavar="DIR", help="where the choices that led somewhere new are kept")
    given = parser.parse_args(arguments)
    with atheris.instrument_imports(include=["hibercheck"]), tempfile.TemporaryDirectory() as name:
        # All at once: atheris tells of each module that it instruments, and targets watch what is said.
        for module in pkgutil.walk_packages(hibercheck.__path__, "hibercheck."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        from tests.fuzz.__main__ import STARTS_PROCESSES, TARGETS, one_round  # noqa: PLC0415 - inside, so that it is instrumented
        from tests.fuzz.sandbox import Sandbox  # noqa: PLC0415

        directory = Path(name)
        run, sandbox = TARGETS[given.target](directory), Sandbox(directory, children=given.target in STARTS_PROCESSES)

        def once(data: bytes) -> None:
            one_round(given.target, run, sandbox, data)

        options = [
            sys.argv[0],
            f"-max_total_time={given.seconds}",
            "-max_len=512",
            "-rss_limit_mb=4096",
            "-len_control=0",
        ]
        options += [given.corpus] if given.corpus else []
        atheris.Setup([*options, f"-artifact_prefix={given.target}-"], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
