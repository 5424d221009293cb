"""Where the ``hibercheck`` command starts.

Nothing is imported here that ``--version`` and ``--help`` do not need: click alone would triple their time.
"""

from __future__ import annotations

import atexit
import gc
import sys

COLLECT_EVERY = 100_000
"""Objects allocated between two searches for garbage."""


def main() -> None:
    """Run the command on ``sys.argv`` and exit with its status."""
    # Nearly all that a run allocates it keeps to its end: at the default threshold of 700 objects the collector looks
    # through all of it some hundred times and finds nothing, for a tenth of the whole time.
    gc.set_threshold(COLLECT_EVERY)
    try:
        if sys.stdin is None or sys.stdout is None or sys.stderr is None:
            _replace_closed_streams()
        _refuse_devices()
        text = _quick_answer(sys.argv[1:])
        status = _run(sys.argv[1:]) if text is None else _print(text)
    except KeyboardInterrupt:  # before there was a handler
        status = 130
    gc.freeze()  # the interpreter, on its way out, need not look for garbage in what the system takes back anyway
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command line; whatever happens, the status of a verdict is only a verdict's."""
    from hibercheck.cli.signals import ending_in_order, leave

    status = 3  # as `hibercheck.cli.run` has it for a failure
    with ending_in_order(for_good=True) as endings:
        try:
            from hibercheck.cli.late import load_late
            from hibercheck.cli.ours import load_ours

            load_late()
            load_ours()
            from hibercheck.cli.run import run

            status = run(arguments, own_process=True)
        except (KeyboardInterrupt, SystemExit):
            status = endings.status or status
        except MemoryError:
            sys.stderr.write("hibercheck: there is too little memory to start (ulimit -v)\n")
        except ImportError as error:  # also what a library says that gets no memory
            sys.stderr.write(f"hibercheck: cannot start: {ascii(str(error))[1:-1]}\n")
        except Exception as error:  # noqa: BLE001 - `run` lets them through with --debug
            import traceback

            from hibercheck.cli.run import status_of

            traceback.print_exc()
            status = status_of(error)
        if endings.asked is not None:
            leave(endings.status)
    # The interpreter's own way out takes apart what the system takes back anyway, for a twentieth of the whole time.
    atexit.register(leave, status)
    return status


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


def _refuse_devices() -> None:
    """End where a standard stream is a device that must not be written to: a swap device, above all."""
    import os

    from hibercheck.files.devices import kind_of, may_be_written

    for number, name in ((2, "standard error"), (1, "standard output")):
        status = os.fstat(number)
        if may_be_written(status, number):
            continue
        message = f"hibercheck: {name} is {kind_of(status)} and is not written to; redirect it to a file or a pipe\n"
        if number == 2:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
        sys.stderr.write(message)
        sys.stderr.flush()
        for stream in (1, 2):  # nothing may be flushed there on the way out
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        sys.exit(2)


def _quick_answer(arguments: list[str]) -> str | None:
    """Return what ``--version`` and ``--help`` print, or None for any other command line."""
    if arguments in (["--version"], ["-V"], ["version"]):
        from hibercheck import __version__

        return f"hibercheck {__version__}\n"
    if arguments in (["--help"], ["-h"], ["help"]):
        from hibercheck.cli.commands import root_help

        return root_help()
    return None


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from hibercheck.cli.pager import discard_standard_output

        discard_standard_output()
        if isinstance(error, BrokenPipeError):
            return 0  # as `hibercheck.cli.pager` has it
        sys.stderr.write(f"hibercheck: cannot write the output: {error.strerror}\n")
        return 3
    return 0
