"""The command as a process: pipes, devices, start-up."""

from __future__ import annotations

import io
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hibercheck import __version__
from hibercheck.cli import group
from hibercheck.cli import waiting as progress
from hibercheck.cli.commands import summaries

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
    assert "--resumer KERNEL --resumee KERNEL" in ran.stdout


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
    pytest.importorskip("hibercheck.handoff.check")
    ran = run("no-such-image", "--resumer", "no-such-r", "--resumee", "no-such-e")
    assert ran.returncode == 3
    assert ran.stderr.startswith("hibercheck: no-such-")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "limit"), [("--version", 2), ("--help", 4)])
def test_start_up_costs_next_to_nothing(option, limit):
    """The median ratio of interleaved runs, so that another load on the machine hits both alike."""
    code = "from hibercheck.cli.main import main; main()"
    ratios = []
    for _ in range(11):
        base = seconds([sys.executable, "-c", "pass"])
        ratios.append(seconds([sys.executable, "-c", code, option]) / base)
    assert statistics.median(ratios) < limit


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


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
