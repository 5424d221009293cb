"""Where the ``hibercheck`` command starts.

Nothing is imported here that ``--version`` does not need: click alone would triple its time.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command on ``sys.argv`` and exit with its status."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from hibercheck import __version__

        print(f"hibercheck {__version__}")  # noqa: T201 - the fast path knows no click
        return
    try:
        from hibercheck.cli.run import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # between the imports, before `run` could have caught it
        status = 130
    sys.exit(status)
