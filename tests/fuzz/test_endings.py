"""How the command ends when the world changes under it: interrupts, full disks, closed pipes, files that shrink."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hibercheck.cli.group import root
from hibercheck.cli.run import run as run_command
from hibercheck.cli.signals import ending_in_order
from hibercheck.errors import InputProblem
from hibercheck.files.places import FileOutput
from hibercheck.files.source import open_source
from hibercheck.swsusp.image import open_image
from tests.fuzz import interrupts
from tests.fuzz.seeds import cases, unpack
from tests.support import elf_writer
from tests.support.file_systems import without_nameless_files
from tests.support.image_writer import ImageWriter

COMMAND = [sys.executable, "-m", "hibercheck"]


@pytest.fixture(scope="module")
def arguments():
    case = next(case for case in cases() if case["name"] == "fatal")
    image, resumer, resumee = (str(unpack(case[key])) for key in ("image", "resumer", "resumee"))
    return [image, "--resumer", resumer, "--resumee", resumee, *case["args"]]


def run(*more, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120, **options}
    return subprocess.run([*COMMAND, *more], check=False, **options)


def one_line(text):
    return text.startswith("hibercheck: ") and text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit", "ktap", "github", "gitlab", "markdown"])
def test_a_full_disk(arguments, form):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a stream for the child
        ran = run(*arguments, "--format", form, stdout=full)
    assert ran.returncode == 3
    assert one_line(ran.stderr)
    assert "No space left" in ran.stderr
    ran = run(*arguments, "--format", f"{form}=/dev/full")
    assert ran.returncode == 3
    assert one_line(ran.stderr)


def test_a_reader_that_closes_the_pipe_does_not_change_the_verdict(arguments):
    with subprocess.Popen([*COMMAND, *arguments, "-v"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) in {1, 141}
    assert said == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_must_not_be_written_to(arguments, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    ran = run(*arguments, "-o", str(closed / "report"))
    assert (ran.returncode, list(closed.iterdir())) == (3, [])
    assert one_line(ran.stderr)


def test_a_directory_that_is_not_there(arguments, tmp_path):
    ran = run(*arguments, "-o", str(tmp_path / "absent" / "report"))
    assert ran.returncode == 3
    assert one_line(ran.stderr)
    assert list(tmp_path.iterdir()) == []


def test_interrupts_at_any_time(tmp_path):
    """A few; ``python -m tests.fuzz --interrupts N`` has more."""
    told = list(interrupts.campaign(1, 1, tmp_path))
    assert not [line for line in told if " after " in line], told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_that_was_being_written_is_removed(how, nameless, tmp_path, monkeypatch):
    """The signal comes when all is written and the file has only to be put in its place."""
    calls = []

    def finish(output):
        calls.append((os.fstat(output.descriptor).st_size, len(list(tmp_path.iterdir()))))
        signal.raise_signal(how)

    monkeypatch.setattr(FileOutput, "finish", finish)
    if not nameless:
        monkeypatch.setattr(os, "open", without_nameless_files(os.open))
    end = ("kernel", str(tmp_path / "vmlinux"), "--format", "json", "-o", str(tmp_path / "out"))
    (tmp_path / "vmlinux").write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    if how is signal.SIGINT:
        assert run_command(end) == 130
    else:
        with pytest.raises(SystemExit) as caught:
            run_command(end)
        assert caught.value.code == 128 + how
    assert calls[0][0] > 1000
    assert calls[0][1] == (1 if nameless else 2)
    assert [one.name for one in tmp_path.iterdir()] == ["vmlinux"]
    assert signal.getsignal(how) in {signal.SIG_DFL, signal.default_int_handler}


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("command", ["check", "image", "export", "kernel", "designs", "diff", "matrix"])
def test_an_output_that_is_an_input_by_another_name(arguments, tmp_path, command, link):
    image, resumer, resumee = arguments[0], arguments[2], arguments[4]
    given = {
        "check": arguments, "image": ["image", image], "export": ["export", image], "kernel": ["kernel", resumer],
        "designs": ["designs", *arguments], "diff": ["diff", resumer, resumee], "matrix": ["matrix", resumer, resumee],
    }[command]  # fmt: skip
    victim = resumer if command in {"kernel", "diff", "matrix"} else image
    own = tmp_path / Path(victim).name
    shutil.copy(victim, own) if Path(victim).stat().st_size < 1 << 28 else os.link(victim, own)
    before = own.stat()
    getattr(tmp_path / "other", link)(own)
    given = [str(own) if one == victim else one for one in given]
    ran = run(*given, *(["-o"] if command != "export" else []), str(tmp_path / "other"))
    assert ran.returncode == 2, ran.stderr
    assert one_line(ran.stderr)
    after = own.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("command", ["check", "image", "kernel", "diff", "explain", "--help", "--version", "collect"])
@pytest.mark.parametrize("closed", ["stdout", "stdin", "both"])
def test_closed_standard_streams(arguments, command, closed):
    image, resumer, resumee = arguments[0], arguments[2], arguments[4]
    given = {
        "check": arguments, "image": ["image", image], "kernel": ["kernel", resumer],
        "diff": ["diff", resumer, resumee], "explain": ["explain", "HC101"],
    }.get(command, [command])  # fmt: skip
    redirect = {"stdout": ">&-", "stdin": "<&-", "both": "<&- >&-"}[closed]
    shell = ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *COMMAND, *given]
    ran = subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in ran.stderr
    # collect says in a line before that what it could not read
    assert all(one_line(line) for line in ran.stderr.splitlines(keepends=True))
    assert ran.returncode in ({0, 1} if closed == "stdin" else {0, 1, 3})


def test_memory_beyond_the_limit_is_one_line(arguments, tmp_path):
    (tmp_path / "vmlinux").write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    (tmp_path / "System.map").write_bytes(b"ffffffff81000000 T _text\n" * 1_000_000)
    ran = run("kernel", str(tmp_path / "vmlinux"), "--symbols", str(tmp_path / "System.map"), "--max-memory", "64M")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert one_line(ran.stderr)
    assert "--max-memory" in ran.stderr
    assert run(*arguments, "--max-memory", "96M").returncode == 1


def test_a_kernel_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(elf_writer.write_kernel())
    with open_source(path, "vmlinux") as content:
        assert content[:4] == b"\x7fELF"
        os.truncate(path, 100)
        assert content[:100][:4] == b"\x7fELF"
        with pytest.raises(InputProblem, match="was cut while it was being read"):
            content[90:200]
        with pytest.raises(InputProblem, match="was cut while it was being read"):
            content.find(b"no such bytes")


@pytest.mark.parametrize("compressor", ["lzo", "none"])
def test_an_image_that_shrinks_while_it_is_read(tmp_path, compressor):
    frames = {pfn: bytes([pfn & 255]) * 4096 for pfn in range(0x100, 0x100 + 3000)}
    path = ImageWriter(frames=frames, compressor=compressor).write(tmp_path / "image.bin")
    with open_image(str(path)) as image:
        assert image.frame(0x100)
        os.truncate(path, 8192)
        with pytest.raises(InputProblem, match="was cut while it was being read"):
            [image.frame(pfn) for pfn in frames]


@pytest.mark.parametrize(("signal_made", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_signal_while_a_class_is_made(signal_made, status, monkeypatch, capsys):
    """Up to Python 3.11, what is raised in ``__set_name__`` comes out as the cause of a RuntimeError."""

    def invoke(*_):
        raise RuntimeError("Error calling __set_name__") from signal_made

    monkeypatch.setattr(root, "invoke", invoke)
    assert run_command(["rules"]) == status
    assert capsys.readouterr().err == ""


class Finalized:
    """Something during whose end a signal comes: there the interpreter can raise nothing."""

    def __init__(self, how):
        self.how = how

    def __del__(self):
        signal.raise_signal(self.how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_where_nothing_can_be_raised_is_obeyed_a_moment_later(how, capsys):
    """As in the callback of a weak reference, which every import makes: it was printed, and the command went on."""
    before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    endings = []

    def work():
        with ending_in_order() as ours:
            endings.append(ours)
            Finalized(how)
            for _ in range(1000):
                time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt if how is signal.SIGINT else SystemExit) as caught:
        work()
    assert endings[0].status == 128 + how
    assert how is signal.SIGINT or caught.value.code == 128 + how
    assert capsys.readouterr().err == ""
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == before


def test_two_signals_leave_no_process_and_no_file(tmp_path):
    """A few; ``python -m tests.fuzz --interrupts N --twice`` has more, SIGKILL among them."""
    told = [*interrupts.campaign(6, 1, tmp_path, twice=True, only="matrix")]
    told += interrupts.campaign(1, 2, tmp_path, twice=True)
    assert not [line for line in told if " after " in line], told
    assert list(tmp_path.iterdir()) == []


def test_what_interrupts_can_be_interrupted_though_its_parent_ignores_it(tmp_path):
    """As a job in the background does: else a campaign that is left alone tries nothing."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        arguments = interrupts.commands(tmp_path)["matrix"]
        for delay in (0.2, 0.15, 0.1, 0.05):  # until it comes before the command has ended
            status, _, left = interrupts.interrupted(arguments, delay, signal.SIGINT, tmp_path)
            if status:
                break
            (tmp_path / "out").unlink()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, left) == (130, [])
