"""The command as a process: pipes, devices, start-up."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hibercheck import __version__
from hibercheck.cli import group
from hibercheck.cli import waiting as progress
from hibercheck.cli.commands import summaries
from hibercheck.cli.output import LEGIBLE, first_line, make_console
from hibercheck.cli.terminal import wrapped
from tests.fuzz.seeds import cases, unpack

COMMAND = [sys.executable, "-m", "hibercheck"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""The environment in which the interpreter still has something to write at its end."""


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


def test_version():
    for option in ("--version", "-V"):
        ran = run(option)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"hibercheck {__version__}\n", "")


def test_help_fits_a_screen():
    ran = run("--help")
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 36
    assert "hibercheck IMAGE [--resumer KERNEL]" in ran.stdout


def test_every_command_listed_in_the_help_answers_its_own():
    for name in summaries():
        ran = run(name, "--help")
        assert ran.returncode == 0, (name, ran.stderr)
        assert ran.stdout.startswith("Usage: hibercheck " + name)


@pytest.mark.parametrize("arguments", [("check", "--help"), ("--help",), ("rules",)])
def test_a_full_disk_is_one_line(arguments):
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, *arguments]
        ran = subprocess.run(command, env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stderr == "hibercheck: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("arguments", [("check", "--help"), ("--help",), ("rules",)])
def test_a_closed_pipe_is_silent(arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *arguments], env=BUFFERED, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(30)
    assert errors == b""


def test_a_missing_file_is_one_line():
    pytest.importorskip("hibercheck.handoff.verdict.check")
    ran = run("no-such-image", "--resumer", "no-such-r", "--resumee", "no-such-e")
    assert ran.returncode == 3
    assert ran.stderr.startswith("hibercheck: no-such-")
    assert ran.stderr.count("\n") == 1


SAY_MODULES = """
import sys
try:
    from hibercheck.cli.main import main
    main()
finally:
    print("modules", *sys.modules, file=sys.stderr)
"""


def loaded(*arguments):
    """The packages that a command loads beyond those of an empty Python."""
    ran, empty = (
        subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False).stderr
        for code in (SAY_MODULES, SAY_MODULES.replace("from hibercheck.cli.main import main\n    main()", "pass"))
    )
    before, after = (set(text.rpartition("modules ")[2].split()) for text in (empty, ran))
    return {name.split(".")[0] for name in after - before}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_start_up_costs_next_to_nothing(option):
    assert loaded(option) <= {"hibercheck", "__future__", "gc", "atexit"}


def test_quiet_never_loads_what_draws():
    ran = loaded("-q", "no-such-image", "--resumer", "no-such-r", "--resumee", "no-such-e")
    assert "click" in ran
    assert "rich" not in ran


def test_the_table_of_commands_is_complete():
    directory = Path(group.__file__).parent
    exporting = {path.stem for path in directory.glob("*.py") if "\ndef command(" in path.read_text(encoding="utf-8")}
    assert set(summaries()) == exporting


def test_whoever_waits_at_a_terminal_gets_a_word(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.waiting("working"):
        time.sleep(0.1)
    assert terminal.getvalue() == f"hibercheck: working ...{progress.CLEAR}"
    with progress.waiting("working", wanted=False):
        time.sleep(0.05)
    monkeypatch.setattr(progress, "PATIENCE", 60)
    with progress.waiting("working"):
        pass
    assert terminal.getvalue() == f"hibercheck: working ...{progress.CLEAR}"


def test_an_interrupt_is_silent(tmp_path):
    fifo = tmp_path / "hibercheck.toml"
    os.mkfifo(fifo)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*COMMAND, "check", "image", "--config", fifo]
    # Opening the pipe waits until the command reads it: it is at work then.
    with subprocess.Popen(command, env=BUFFERED, **pipes) as process, fifo.open("wb"):
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, b"", b"")


def test_what_takes_long_says_so_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LONG", 0.05)
    with progress.waiting("reading the image"):
        time.sleep(0.3)
    assert capsys.readouterr().err == "hibercheck: still reading the image (after 0 s)\n"
    with progress.waiting("reading the image"):
        pass
    with progress.waiting("reading the image", wanted=False):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("detail", [["-q"], [], ["-v"]])
def test_a_report_for_a_pipe_is_written_without_rich(detail):
    """It says the same, colours aside; a script that asks many pairs pays for nothing that it does not see."""
    case = next(one for one in cases() if one["name"] == "fatal")
    image, resumer, resumee = (str(unpack(case[key])) for key in ("image", "resumer", "resumee"))
    given = [image, "--resumer", resumer, "--resumee", resumee, *case["args"], *detail]
    code = "import sys; from hibercheck.cli.main import main\n"
    code += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    answers = []
    for color in ("never", "always"):
        command = [sys.executable, "-c", code, *given, "--color", color]
        answers.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False))
    loaded = ["rich.console" in one.stderr.split() for one in answers]
    assert loaded == [False, detail != ["-q"]]  # one sentence has its colours without it
    bare = re.sub(r"\x1b\[[0-9;]*m", "", answers[1].stdout)
    assert answers[0].stdout.splitlines() == [line.rstrip() for line in bare.splitlines()]
    assert answers[0].stdout.startswith("RESETS (fatal)  The machine resets")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("term", "code"), [("xterm-256color", "38;5;160"), ("xterm", "31")])
def test_one_sentence_fits_the_terminal_and_has_its_colours(monkeypatch, term, code):
    monkeypatch.setattr(sys, "stdout", Terminal())
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "40")
    why = "The machine resets during the resume: CPU 1 sleeps."
    shown = first_line("RESETS (fatal)", why, "bold red", color="auto", path=None)
    assert shown == (
        f"\x1b[1;{code}mRESETS (fatal)\x1b[0m\x1b[1m  The machine resets\x1b[0m\n"
        "\x1b[1mduring the resume: CPU 1 sleeps.\x1b[0m\n"
    )
    plain = first_line("RESETS (fatal)", why, "bold red", color="never", path=None)
    assert plain == "RESETS (fatal)  The machine resets\nduring the resume: CPU 1 sleeps.\n"


def contrast(ours, theirs):
    """The contrast ratio of WCAG 2."""

    def luminance(colour):
        parts = [one / 255 for one in colour]
        red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(ours), luminance(theirs)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", LEGIBLE)
def test_colours_can_be_read_on_black_and_on_white(monkeypatch, name):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    console = make_console(Terminal(), color="auto")
    for weight in ("", "bold "):
        colour = console.get_style(weight + name).color
        assert colour.number == LEGIBLE[name]
        found = colour.get_truecolor()
        assert min(contrast(found, (0, 0, 0)), contrast(found, (255, 255, 255))) > 3.4
    monkeypatch.setenv("TERM", "xterm")  # of sixteen colours each terminal has its own
    assert make_console(Terminal(), color="auto").get_style(name).color.number < 16


def test_a_message_is_broken_at_blanks_on_a_terminal_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    message = "hibercheck: /a/very/long/path/that/is/longer/than/forty/columns: is not a kernel; give its vmlinuz"
    assert wrapped(message, io.StringIO()) == message
    shown = wrapped(message, Terminal()).splitlines()
    assert " ".join(line.strip() for line in shown) == message
    assert all(len(line) <= 40 or " " not in line.strip() for line in shown)
    assert len(shown) > 2
