"""Long text on a terminal goes through a pager, as git has it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hibercheck.cli.notes import noted
from hibercheck.files.outputs import Outputs

if TYPE_CHECKING:
    import click

COMMAND = "hibercheck.cli.pager.command"
"""Key in the notes of a command (`hibercheck.cli.notes`) for the pager that was asked for; an empty text means none."""
USUAL = "less"
SETTINGS = {"LESS": "FRX", "LV": "-c"}
"""What a pager is told unless the user tells it otherwise: end if all fits, show colours, leave the text there."""


class PagedOutputs(Outputs):
    """Outputs of which what goes to a terminal, and is longer than its screen, is shown by a pager."""

    def write(self, path: str | None, parts: Iterable[str]) -> None:
        """Write one of the outputs that were opened; a reader that leaves standard output early is not a failure.

        Raises as `hibercheck.files.outputs.Outputs.write` otherwise.
        """
        if path is None and _is_terminal():
            content = "".join(parts)
            if _is_long(content) and _shown(content):
                return
            parts = [content]
        try:
            super().write(path, parts)
        except BrokenPipeError:
            if path is not None:
                raise
            discard_standard_output()  # as after `| head -1`: what the command found is still its status


def discard_standard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # standard output is not a real file: nothing will be flushed


def note(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Remember what ``--pager`` says."""
    if value is not None:
        ctx.meta.setdefault(COMMAND, value)


def none(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Remember that no pager is wanted: ``--no-pager`` has the last word."""
    if wanted:
        ctx.meta[COMMAND] = ""


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except ValueError:
        return False


def _is_long(content: str) -> bool:
    """Tell whether a text and the prompt after it take more lines than the screen has."""
    try:
        lines = os.get_terminal_size(sys.stdout.fileno()).lines
    except (OSError, ValueError):
        return False
    return 0 < lines <= content.count("\n")


def _words() -> list[str]:
    """Return the pager's command; nothing where there is none."""
    import shlex
    import shutil

    asked = noted().get(COMMAND)
    try:
        words = shlex.split(os.environ.get("PAGER") or USUAL if asked is None else asked)
    except ValueError:  # a quote that is not closed
        return []
    if not words or words == ["cat"]:
        return []
    program = shutil.which(words[0])
    return [program, *words[1:]] if program else []


def _shown(content: str) -> bool:
    """Show a text in the pager and wait for its end; False if there is none."""
    import subprocess

    words = _words()
    if not words:
        return False
    sys.stdout.flush()
    environment: dict[str, Any] = {**SETTINGS, **os.environ}
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the user's own command
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the pager's key: it ends a search there
    try:
        process.communicate(content.encode(sys.stdout.encoding or "utf-8", "replace"))
    finally:
        signal.signal(signal.SIGINT, before)
    return True
