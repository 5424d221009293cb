"""Run a command line and turn every way it can end into an exit status and at most one line on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence

import click

from hibercheck.cli.group import root
from hibercheck.errors import HibercheckError

USAGE = 2
TROUBLE = 3
INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 + SIGPIPE: what a shell shows for a program that a closed pipe ended."""

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end; by default it would do so at once, and leave what it was writing."""

COMPLETION_VARIABLE = "_HIBERCHECK_COMPLETE"


def run(arguments: Sequence[str]) -> int:
    """Run ``hibercheck`` with ``arguments`` and return its exit status.

    Every failure becomes one line ``hibercheck: ...`` on standard error, unless ``--debug`` is among the arguments:
    then the exception is let through, with its traceback.
    """
    if COMPLETION_VARIABLE in os.environ:
        root.main(list(arguments), prog_name="hibercheck", complete_var=COMPLETION_VARIABLE)
    try:
        with _ending_in_order():
            return _run(list(arguments))
    except BrokenPipeError:
        _flush_or_discard()
        return CLOSED_PIPE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        if (asked := _asked_to_end(error)) is not None:
            return asked
        if "--debug" in arguments or os.environ.get("HIBERCHECK_DEBUG", "").lower() in {"1", "true", "yes", "on"}:
            raise
        _complain(_line(error))
        _flush_or_discard()
        return _status(error)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a request to end unwind the stack, so that half-written files are removed; the status is a shell's."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may
        before = {one: signal.signal(one, end) for one in _ENDINGS if signal.getsignal(one) is signal.SIG_DFL}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _run(arguments: list[str]) -> int:
    try:
        with root.make_context("hibercheck", arguments) as context:
            result = root.invoke(context)
    except click.exceptions.Exit as ending:
        result = ending.exit_code
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _asked_to_end(error: Exception) -> int | None:
    """Return the status if an error only wraps a signal: 3.11 makes a RuntimeError of it while a class is made."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error.__cause__, SystemExit) and isinstance(error.__cause__.code, int):
        return error.__cause__.code
    return None


def _status(error: Exception) -> int:
    if isinstance(error, HibercheckError):
        return error.exit_status
    return USAGE if isinstance(error, click.UsageError) else TROUBLE


def _line(error: Exception) -> str:
    if isinstance(error, HibercheckError):
        return str(error)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "hibercheck"
        return f"{error.format_message().rstrip('.')}; see {command} --help"
    if isinstance(error, click.ClickException):
        return error.format_message().rstrip(".")
    if isinstance(error, MemoryError):
        return "more memory is needed than --max-memory allows; raise it, if you trust the inputs"
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBADF}:
            return f"cannot write the output: {what}"
        return f"{error.filename}: {what}" if error.filename is not None else what
    return f"internal error: {type(error).__name__}: {error}; this is a bug, please report it with what --debug prints"


def _complain(message: str) -> None:
    from hibercheck.report.sanitise import one_line

    with contextlib.suppress(OSError):  # where nobody is left to tell, the exit status says it
        click.echo(f"hibercheck: {one_line(message)}", err=True)


def _flush_or_discard() -> None:
    """Leave nothing in standard output's buffer: the interpreter would fail to write it, and exit with 120."""
    from hibercheck.cli.output import discard_standard_output

    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_standard_output()
