"""Run a command line and turn every way it can end into an exit status and at most one line on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from hibercheck.cli.job import predict
from hibercheck.cli.memory import DEFAULT, amount, limited
from hibercheck.cli.notes import noting
from hibercheck.cli.output import OWN_PROCESS, WORDS
from hibercheck.cli.plain import given_plainly
from hibercheck.cli.signals import INTERRUPTED, ending_in_order
from hibercheck.errors import HibercheckError
from hibercheck.files.inputs import watching

USAGE = 2
TROUBLE = 3
CLOSED_PIPE = 141
"""128 + SIGPIPE: what a shell shows for a program that a closed pipe ended, here one that an option named."""

COMPLETION_VARIABLE = "_HIBERCHECK_COMPLETE"


def run(arguments: Sequence[str], *, own_process: bool = False) -> int:
    """Run ``hibercheck`` with ``arguments`` and return its exit status.

    Every failure becomes one line ``hibercheck: ...`` on standard error, unless ``--debug`` is among the arguments:
    then the exception is let through, with its traceback.

    Args:
        arguments: What follows the command's name.
        own_process: Whether the process is for this command only: then it gives up rights, for good.
    """
    try:
        with ending_in_order():
            return _complete() if os.environ.get(COMPLETION_VARIABLE) else _run(list(arguments), own_process)
    except BrokenPipeError:
        _flush_or_discard()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if _is_abort(error):
            return INTERRUPTED
        if (asked := _asked_to_end(error)) is not None:
            return asked
        if "--debug" in arguments or os.environ.get("HIBERCHECK_DEBUG", "").lower() in {"1", "true", "yes", "on"}:
            raise
        _complain(_line(error))
        _flush_or_discard()
        return status_of(error)


def _complete() -> int:
    """Answer a shell that completes a command line; without what it says of that line, that is bad usage."""
    import click
    from click.shell_completion import shell_complete

    from hibercheck.cli.group import root

    instruction = os.environ[COMPLETION_VARIABLE]
    answered = False
    with contextlib.suppress(KeyError, ValueError):  # no COMP_WORDS or COMP_CWORD, or one that is none
        answered = shell_complete(root, {}, "hibercheck", COMPLETION_VARIABLE, instruction) == 0
    if not answered:
        raise click.UsageError(
            f"{COMPLETION_VARIABLE} is for the completion of shells, which set COMP_WORDS and COMP_CWORD; unset it"
        )
    return 0


def _run(arguments: list[str], own_process: bool) -> int:
    notes: dict[str, Any] = {WORDS: arguments, **({OWN_PROCESS: True} if own_process else {})}
    given = given_plainly(arguments)
    if given is not None:
        with watching(), noting(notes), limited(amount(DEFAULT)):
            result: object = predict(given)
    else:
        result = _by_click(arguments, notes)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _by_click(arguments: list[str], notes: dict[str, Any]) -> object:
    import click

    from hibercheck.cli.group import root

    try:
        with watching(), root.make_context("hibercheck", arguments) as context:
            context.meta.update(notes)
            with noting(context.meta):
                return root.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code


def _is_abort(error: Exception) -> bool:
    import click

    return isinstance(error, click.Abort)


def _asked_to_end(error: Exception) -> int | None:
    """Return the status if an error only wraps a signal: 3.11 makes a RuntimeError of it while a class is made."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error.__cause__, SystemExit) and isinstance(error.__cause__.code, int):
        return error.__cause__.code
    return None


def status_of(error: Exception) -> int:
    """Return the exit status of a command that ended so: never a verdict's."""
    if isinstance(error, HibercheckError):
        return error.exit_status
    import click

    return USAGE if isinstance(error, click.UsageError) else TROUBLE


def _line(error: Exception) -> str:
    if isinstance(error, HibercheckError):
        return str(error)
    import click

    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "hibercheck"
        return f"{error.format_message().rstrip('.')}; see {command} --help"
    if isinstance(error, click.ClickException):
        return error.format_message().rstrip(".")
    if _lacks_memory(error):
        return "more memory is needed than --max-memory (or ulimit -v) allows; raise it, if you trust the inputs"
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBADF}:
            return f"cannot write the output: {what}"
        return f"{error.filename}: {what}" if error.filename is not None else what
    return f"internal error: {type(error).__name__}: {error}; this is a bug, please report it with what --debug prints"


def _lacks_memory(error: BaseException) -> bool:
    """Tell whether memory was refused: to an object, to a library that is loaded late, or to a thread's stack."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    late = isinstance(error, ImportError) and ("failed to map" in str(error) or "cannot allocate" in str(error))
    return late or (isinstance(error, RuntimeError) and "can't start new thread" in str(error))


def _complain(message: str) -> None:
    try:
        from hibercheck.report.sanitise import one_line

        message = one_line(message)
    except (ImportError, MemoryError):  # even for that there may be no memory left
        message = ascii(message)[1:-1]
    with contextlib.suppress(OSError):  # where nobody is left to tell, the exit status says it
        from hibercheck.cli.terminal import say

        say(f"hibercheck: {message}")


def _flush_or_discard() -> None:
    """Leave nothing in standard output's buffer: the interpreter would fail to write it, and exit with 120."""
    from hibercheck.cli.pager import discard_standard_output

    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_standard_output()
