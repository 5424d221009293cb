"""Where the ``hibercheck`` command starts.

Nothing is imported here that ``--version`` and ``--help`` do not need: click alone would triple their time.
"""

from __future__ import annotations

import gc
import sys

COLLECT_EVERY = 100_000
"""Objects allocated between two searches for garbage."""


def main() -> None:
    """Run the command on ``sys.argv`` and exit with its status."""
    # Nearly all that a run allocates it keeps to its end: at the default threshold of 700 objects the collector looks
    # through all of it some hundred times and finds nothing, for a tenth of the whole time.
    gc.set_threshold(COLLECT_EVERY)
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _replace_closed_streams()
    try:
        text = _quick_answer(sys.argv[1:])
        if text is None:
            from hibercheck.cli.run import run

            status = run(sys.argv[1:])
        else:
            status = _print(text)
    except KeyboardInterrupt:  # between the imports, before `run` could have caught it
        status = 130
    gc.freeze()  # the interpreter, on its way out, need not look for garbage in what the system takes back anyway
    sys.exit(status)


def _replace_closed_streams() -> None:
    """Open what was closed (``>&-``): else the first input would be opened in its place, and be written to as output.

    What is written to standard output then fails as it does for any program: with EBADF, as this is open for reading.
    """
    import os

    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _quick_answer(arguments: list[str]) -> str | None:
    """Return what ``--version`` and ``--help`` print, or None for any other command line."""
    if arguments in (["--version"], ["-V"]):
        from hibercheck import __version__

        return f"hibercheck {__version__}\n"
    if arguments in (["--help"], ["-h"]):
        from hibercheck.cli.commands import root_help

        return root_help()
    return None


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from hibercheck.cli.output import discard_standard_output

        discard_standard_output()
        if isinstance(error, BrokenPipeError):
            return 141  # as `hibercheck.cli.run` has it
        sys.stderr.write(f"hibercheck: cannot write the output: {error.strerror}\n")
        return 3
    return 0
