"""``hibercheck log``: what a kernel's log says of a resume that failed."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import INPUTS, shared

EPILOG = """\b
Examples:
  hibercheck log dmesg.txt
  hibercheck log --boot -1             the boot before this one, by journalctl
  journalctl -k -b -1 | hibercheck log -
  hibercheck log dmesg.txt --format json

Exit status: 0 shown, 2 usage, 3 unreadable input."""

MAX_LOG = 256 << 20
BOOT = re.compile(r"[+-]?\d{1,6}|[0-9a-f]{32}(?:[+-]\d{1,6})?")
MOST = 200
"""Lines that the text shows: a kernel says each of its messages once a resume, and JSON has them all."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(allow_dash=True))
@option(
    "--boot",
    group=INPUTS,
    metavar="WHICH",
    help="Which boot's log to take from journalctl: 0 is this one, -1 the one before.",
)
@shared("--format", "--width")
@general_options
def command(**given: Any) -> int:
    """Say which of the kernel's messages about hibernating and resuming are in a log, and what each means.

    FILE is what dmesg or journalctl -k prints, of the boot that should have resumed; - is standard input.
    """
    if (given["file"] is None) == (given["boot"] is None):
        raise click.UsageError("give a log file, or --boot to take one from the journal")
    from hibercheck.cli.output import as_text, prepare_standard_streams, write_answer
    from hibercheck.files.text import read_whole
    from hibercheck.host.log import conclusion, read_log

    prepare_standard_streams()
    content = journal(given["boot"]) if given["file"] is None else read_whole(given["file"], MAX_LOG, "a kernel's log")
    found = read_log(content.decode("utf-8", "replace"))
    if given["form"] == "json":
        rows = [
            {"line": one.line, "text": one.text, "message": one.message.name, "errno": one.errno,
             "code": one.message.code, "means": one.message.means, "advice": one.message.advice}
            for one in found
        ]  # fmt: skip
        write_answer(json.dumps({"lines": rows, "conclusion": conclusion(found)}, indent=2) + "\n")
        return 0
    write_answer(as_text(lambda console: _print(console, found), color=given["color"], width=given["width"]))
    return 0


def journal(boot: str) -> bytes:
    """Return the kernel's log of a boot, as journalctl prints it.

    Raises:
        UsageProblem: It is not a boot's number or identifier.
        InputProblem: There is no journalctl, it has no such boot, or more than `MAX_LOG` bytes of it.
    """
    import subprocess

    from hibercheck.errors import InputProblem, UsageProblem

    if not BOOT.fullmatch(boot):
        raise UsageProblem(f"--boot cannot be {boot!r}", advice="it is 0, -1, -2, ... or an identifier of 32 digits")
    words = ["journalctl", "--no-pager", "--quiet", "-k", f"--boot={boot}", "--output=short-monotonic"]
    try:
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:  # noqa: S603 - ours, and a number
            assert run.stdout is not None  # noqa: S101 - a pipe was asked for
            assert run.stderr is not None  # noqa: S101
            content = run.stdout.read(MAX_LOG + 1)
            if len(content) > MAX_LOG:
                run.kill()
                raise InputProblem(f"prints more than {MAX_LOG >> 20} MiB", path="journalctl")
            said = run.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
    except OSError as error:
        advice = "give the log's file: hibercheck log FILE"
        raise InputProblem(f"cannot be run: {error.strerror}", path="journalctl", advice=advice) from error
    if run.returncode or not content.strip():
        why = said[-1] if said else "it has no such log"
        raise InputProblem(
            f"has no kernel log of boot {boot}: {why}", path="journalctl", advice="see `journalctl --list-boots`"
        )
    return content


def _print(console: Any, found: tuple[Any, ...]) -> None:  # noqa: ANN401 - rich is imported where it is used
    from rich.text import Text

    from hibercheck.host.log import conclusion
    from hibercheck.report.sanitise import one_line

    for one in found[:MOST]:
        console.print(Text(f"line {one.line}: {one_line(one.text)}", style="bold"))
        explain(one, console)
    if len(found) > MOST:
        console.print(Text(f"{len(found) - MOST} more lines are left out; --format json has them all."))
    console.print(Text(f"{conclusion(found)[:1].upper()}{conclusion(found)[1:]}."))


def explain(found: Any, console: Any) -> None:  # noqa: ANN401
    """Say what one line of a log means."""
    from rich.text import Text

    console.print(Text(f"  {found.message.means} ({found.message.code})"))
    if found.errno is not None:
        console.print(Text(f"  {found.errno}: {os.strerror(-found.errno)}"))
    if found.message.advice:
        console.print(Text(f"  {found.message.advice}"))
