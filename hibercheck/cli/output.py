"""Writing results: where they may go, and in the width, colours and characters of a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from hibercheck.cli.notes import noted
from hibercheck.cli.pager import PagedOutputs
from hibercheck.cli.terminal import HEIGHT, USUAL, columns
from hibercheck.files.inputs import note_named, watched, watching

if TYPE_CHECKING:
    from rich.console import Console

    from hibercheck.files.outputs import Outputs
    from hibercheck.report.styled import Surface

    SurfaceT = TypeVar("SurfaceT", Console, Surface)

FILE_WIDTH = 100
"""Columns of a text report that goes to a file or a pipe, where there is no terminal to fit."""


LEGIBLE = {"red": 160, "green": 28, "yellow": 130, "magenta": 127, "cyan": 31, "blue": 26}
"""What stands for each colour where a terminal has 256: as legible on white as on black, which plain yellow is not."""

OWN_PROCESS = "hibercheck.cli.output.own-process"
"""Key in the notes of a command (`hibercheck.cli.notes`): the process is its own, and may lose rights for good."""

WEIGHTS = ("", "bold ")
ANSI = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")

WORDS = "hibercheck.cli.output.words"
"""Key in the notes of a command for the words of the command line."""


def given_words() -> tuple[str, ...]:
    """Return the words of the command line that is being answered; none for a command that was called otherwise."""
    return tuple(noted().get(WORDS, ()))


@contextlib.contextmanager
def opened_outputs(
    paths: Iterable[str | None], reads: Iterable[str | None] = (), *, cache: Path | None = None
) -> Iterator[Outputs]:
    """Open all places that a command will write to (None: standard output) before it reads anything.

    From then on the command's own process can write nowhere else, whatever a hostile input makes it do (see
    `hibercheck.files.landlock`); nor can what it starts, such as a pager.  Callers who
    have a process for other things as well lose nothing.

    Args:
        paths: The places, as the user named them.
        reads: What the user named to be read, as far as he did: so a mistake is noticed before the work.  What is
            really opened in the end counts as well.
        cache: A directory in which the command keeps files.

    Raises:
        InputProblem: One cannot be written.
        UsageProblem: One is a device, an input, or another output.
    """
    with contextlib.ExitStack() as stack:
        inputs = watched() or stack.enter_context(watching())
        for path in filter(None, reads):
            note_named(path)
        outputs = stack.enter_context(PagedOutputs(inputs))
        for output in paths:
            outputs.open(output)
        if OWN_PROCESS in noted():
            _confine(outputs, cache)
        yield outputs


def write_answer(content: str) -> None:
    """Write all that a command has to say to standard output, as `opened_outputs` does it for every command."""
    with opened_outputs([None]) as outputs:
        outputs.write(None, [content])


def _confine(outputs: Outputs, cache: Path | None) -> None:
    from hibercheck.files import landlock

    # the first that serves, as tempfile has it, which costs more to import than this whole module
    places = [*(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")), "/tmp", "/var/tmp", "/usr/tmp"]  # noqa: S108
    work = [place for place in places if place and os.access(place, os.W_OK | os.X_OK)][:1]
    if cache is not None:
        with contextlib.suppress(OSError):
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)  # a directory that is not there cannot be allowed
        work.append(str(cache))
    landlock.restrict([*outputs.allowed(), (os.devnull, landlock.FILE), *((place, landlock.WORK) for place in work)])


def prepare_standard_streams() -> None:
    """Make a character that the terminal's encoding lacks a question mark instead of a failure."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def as_text(
    draw: Callable[[Console], None], *, color: str = "auto", width: int | None = None, path: str | None = None
) -> str:
    """Return what ``draw`` prints as text for standard output, or for the file ``path``, as `console_for` has it."""
    return drawn(console_for(path, color=color, width=width), draw)


def console_for(path: str | None, *, color: str, width: int | None) -> Console:
    """Return a console for the file ``path``, where colours are only on request, or for standard output.

    Lines are wrapped at the terminal's width, or at ``width``; in a file or a pipe they stay whole unless it is given.
    """
    whole = width is None and (path is not None or not _is_terminal(sys.stdout))
    if path is not None:
        color, width = "always" if color == "always" else "never", width or FILE_WIDTH
    console = make_console(sys.stdout, color=color, width=width)
    console.soft_wrap = whole
    return console


def plain_or_console(path: str | None, *, color: str, width: int | None) -> Surface:
    """Return where a report goes that needs no console of rich where lines stay whole and have no colours.

    Args:
        path: As `console_for` has it.
        color: Likewise.
        width: Likewise.
    """
    if width is not None or not plain(path, color=color):
        return console_for(path, color=color, width=width)
    from hibercheck.report.styled import PlainConsole

    encoding = (sys.stdout.encoding or "utf-8").lower() if speaks_utf8() else "ascii"
    return PlainConsole(FILE_WIDTH if path is not None else columns(sys.stdout, FILE_WIDTH), encoding)


def drawn(console: SurfaceT, draw: Callable[[SurfaceT], None]) -> str:
    """Return what ``draw`` prints, without blanks at the ends of lines."""
    from hibercheck.report.styled import PlainConsole

    if isinstance(console, PlainConsole):
        draw(console)
        text = console.text
    else:
        with console.capture() as captured:
            draw(console)
        text = captured.get()
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def make_console(stream: IO[str], *, color: str = "auto", width: int | None = None) -> Console:
    """Return a console on ``stream``.

    Args:
        stream: What is written to; only a terminal gets colours by itself.
        color: ``always``, ``never``, or ``auto``, which follows NO_COLOR, FORCE_COLOR and the terminal.
        width: Columns; by default the terminal's, COLUMNS, or `FILE_WIDTH` where there is no terminal.
    """
    from rich.console import Console

    class Plain(Console):
        """A console of which what is drawn uses ASCII only."""

        encoding = "ascii"

    terminal = _is_terminal(stream)
    coloured = _coloured(color, terminal)
    console = (Console if speaks_utf8() else Plain)(
        file=stream,
        width=columns(stream, USUAL if terminal else FILE_WIDTH) if width is None else width,
        height=HEIGHT,
        force_terminal=coloured,
        no_color=not coloured,
        color_system=("auto" if terminal else "standard") if coloured else None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    if console.color_system not in {None, "standard"}:
        from rich.theme import Theme

        styles = {weight + name: f"{weight}color({number})" for name, number in LEGIBLE.items() for weight in WEIGHTS}
        console.push_theme(Theme(styles))
    return console


def first_line(told: str, text: str, style: str, *, color: str, path: str | None) -> str:
    """Return a verdict and its sentence as a report begins with them, without loading what draws a whole report.

    Args:
        told: The verdict.
        text: The sentence.
        style: The verdict's style: a weight and a colour.
        color: As `console_for` has it.
        path: Likewise.
    """
    terminal = path is None and _is_terminal(sys.stdout)
    lines = [f"{told}  {text}"]
    if terminal:
        import textwrap

        lines = textwrap.wrap(lines[0], columns(sys.stdout), break_long_words=False, break_on_hyphens=False)
    if not (color == "always" if path is not None else _coloured(color, terminal)):
        return "".join(f"{line}\n" for line in lines)
    weight, _, name = style.rpartition(" ")
    number = LEGIBLE[name]
    code = f"38;5;{number}" if terminal and _has_256_colours() else str(30 + ANSI.index(name))
    lines[0] = f"\x1b[{'1;' if weight else ''}{code}m{lines[0][: len(told)]}\x1b[0m\x1b[1m{lines[0][len(told) :]}"
    return "\n\x1b[1m".join(f"{line}\x1b[0m" for line in lines) + "\n"


def _has_256_colours() -> bool:
    """Tell what the terminal says of itself, as rich reads it."""
    many = os.environ.get("COLORTERM", "").strip().lower() in {"truecolor", "24bit"}
    return many or os.environ.get("TERM", "").rpartition("-")[2] in {"256color", "kitty"}


def speaks_utf8() -> bool:
    """Tell whether the locale's characters are UTF-8: Python writes UTF-8 in the C locale too, which has ASCII."""
    import locale

    return locale.nl_langinfo(locale.CODESET).upper().replace("-", "") == "UTF8"


def plain(path: str | None, *, color: str) -> bool:
    """Whether text for the file ``path``, or for standard output, is neither coloured nor fitted to a terminal."""
    if path is not None:
        return color != "always"
    terminal = _is_terminal(sys.stdout)
    return not terminal and not _coloured(color, terminal)


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
