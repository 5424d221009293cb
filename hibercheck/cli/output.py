"""Writing results: to a file all at once, or to the terminal in its own width, colours and characters."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hibercheck.errors import InputProblem, UsageProblem

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 100
"""Columns of a text report that goes to a file or a pipe, where there is no terminal to fit."""


def write_file(path: str, content: str) -> None:
    """Write ``content`` to ``path``, all of it or nothing.

    A regular file is written beside its final place and renamed over it; a device, pipe or terminal is written to.

    Raises:
        InputProblem: It cannot be written.
    """
    target = Path(path)
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            with target.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(content)
            return
        _replace(Path(os.path.realpath(target)), content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputProblem(f"cannot write: {error.strerror}", path=path) from error


def _replace(target: Path, content: str) -> None:
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
        part.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
        part.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_overwriting(outputs: Iterable[str | None], inputs: Iterable[str | None]) -> None:
    """Check that no output is one of the inputs, or another output.

    Raises:
        UsageProblem: Two of them are the same file.
    """
    known = [Path(path) for path in inputs if path is not None]
    for path in (Path(output) for output in outputs if output is not None):
        regular = path.is_file()
        if regular and any(other.exists() and path.samefile(other) for other in known):
            raise UsageProblem("this file is an input and would be overwritten; give another output", path=str(path))
        if any(path.absolute() == other.absolute() for other in known):
            raise UsageProblem("this file is named for two outputs", path=str(path))
        known.append(path)


def prepare_standard_streams() -> None:
    """Make a character that the terminal's encoding lacks a question mark instead of a failure."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def discard_standard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # standard output is not a real file: nothing will be flushed


def as_text(
    draw: Callable[[Console], None], *, color: str = "auto", width: int | None = None, path: str | None = None
) -> str:
    """Return what ``draw`` prints as text for standard output, or for the file ``path``.

    Lines are wrapped at the terminal's width, or at ``width``; in a file or a pipe they stay whole unless it is given.
    """
    console = console_for(path, color=color, width=width)
    console.soft_wrap = width is None and (path is not None or not _is_terminal(sys.stdout))
    return drawn(console, draw)


def console_for(path: str | None, *, color: str, width: int | None) -> Console:
    """Return a console for the file ``path``, where colours are only on request, or for standard output."""
    if path is not None:
        color, width = "always" if color == "always" else "never", width or FILE_WIDTH
    return make_console(sys.stdout, color=color, width=width)


def drawn(console: Console, draw: Callable[[Console], None]) -> str:
    """Return what ``draw`` prints, without blanks at the ends of lines."""
    with console.capture() as captured:
        draw(console)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def make_console(stream: IO[str], *, color: str = "auto", width: int | None = None) -> Console:
    """Return a console on ``stream``.

    Args:
        stream: What is written to; only a terminal gets colours by itself.
        color: ``always``, ``never``, or ``auto``, which follows NO_COLOR, FORCE_COLOR and the terminal.
        width: Columns; by default the terminal's, COLUMNS, or `FILE_WIDTH` where there is no terminal.
    """
    from rich.console import Console

    terminal = _is_terminal(stream)
    if width is None and not terminal and not os.environ.get("COLUMNS", "").isdigit():
        width = FILE_WIDTH
    coloured = _coloured(color, terminal)
    return Console(
        file=stream,
        width=width,
        force_terminal=coloured,
        no_color=not coloured,
        color_system=("auto" if terminal else "standard") if coloured else None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


def _coloured(color: str, terminal: bool) -> bool:
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return terminal and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False
