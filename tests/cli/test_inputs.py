"""What cannot be read, never ends or never comes: one line and exit status 3, for every input that is named."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from hibercheck.files import text
from hibercheck.files.inputs import AS_ROOT
from tests.conftest import ROOT
from tests.fuzz.seeds import unpack
from tests.support import elf_writer

IMAGE, RESUMER, RESUMEE = (
    *("images/9c031ac5a1.bin.xz", "kernels/small-hlt.vmlinux.xz", "kernels/mid-current.vmlinux.xz"),
)


@pytest.fixture(scope="module")
def handoff():
    image, resumer, resumee = (str(unpack(name)) for name in (IMAGE, RESUMER, RESUMEE))
    return [image, "--resumer", resumer, "--resumee", resumee, "--resumer-cmdline", "nokaslr nosmt"]


TEXTS = {
    "facts": ["HANDOFF", "--resumer-facts", "INPUT"],
    "kernel facts": ["kernel", "INPUT"],
    "symbols": ["kernel", "VMLINUX", "--symbols", "INPUT"],
    "the resumer's symbols": ["HANDOFF", "--resumer-symbols", "INPUT"],
    "the resumee's symbols": ["HANDOFF", "--resumee-symbols", "INPUT"],
    "symbols of an export": ["export", "IMAGE", "out", "--kernel", "VMLINUX", "--symbols", "INPUT"],
    "the resumer's log": ["HANDOFF", "--resumer-log", "INPUT"],
    "log": ["log", "INPUT"],
    "suppressions of a matrix": ["matrix", "VMLINUX", "--jobs", "1", "--suppressions", "INPUT"],
    "suppressions of a difference": ["diff", "VMLINUX", "VMLINUX", "--suppressions", "INPUT"],
    "registers": ["HANDOFF", "--resumer-memory", "VMLINUX", "--resumer-registers", "INPUT"],
    "baseline": ["HANDOFF", "--baseline", "INPUT"],
    "suppressions": ["HANDOFF", "--suppressions", "INPUT"],
    "configuration": ["HANDOFF", "--config", "INPUT"],
    "list": ["matrix", "@INPUT"],
    "merge": ["matrix", "merge", "INPUT"],
}


def given(arguments, name, handoff, tmp_path):
    (tmp_path / "vmlinux").write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    found = []
    for one in arguments:
        made = one.replace("INPUT", name).replace("VMLINUX", "vmlinux").replace("IMAGE", handoff[0])
        found += handoff if one == "HANDOFF" else [made]
    return found


def refused(ran):
    assert (ran.status, ran.out) == (3, ""), ran
    said = [line for line in ran.err.splitlines() if not line.startswith("hibercheck: gate: ")]
    assert len(said) == 1
    assert said[0].startswith("hibercheck: "), said
    return said[0]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("what", ["fifo", "silent", "/dev/zero", "/dev/tty", "directory", "socket", "absent"])
def test_text_that_never_comes(hibercheck, handoff, tmp_path, monkeypatch, kind, what):
    monkeypatch.setattr(text, "PATIENCE", 0.3)
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "silent")
    held = os.open(tmp_path / "silent", os.O_RDWR)  # somebody has it open, and says nothing
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        said = refused(hibercheck(*given(TEXTS[kind], what, handoff, tmp_path)))
    os.close(held)
    assert f"{what}: " in said


@pytest.mark.parametrize("kind", TEXTS)
def test_text_without_an_end(hibercheck, handoff, tmp_path, kind):
    """Through a pipe: more than the limit is neither waited for nor kept."""
    os.mkfifo(tmp_path / "fifo")

    def fill():
        with (tmp_path / "fifo").open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b" " * (1 << 20))
            except BrokenPipeError:
                pass

    threading.Thread(target=fill, daemon=True).start()
    assert "is larger than" in refused(hibercheck(*given(TEXTS[kind], "fifo", handoff, tmp_path)))


@pytest.mark.parametrize("kind", TEXTS)
def test_text_through_a_pipe(hibercheck, handoff, tmp_path, monkeypatch, kind):
    """It is read, once: what is wrong is what it says, or nothing."""
    os.mkfifo(tmp_path / "fifo")
    reads, read = [], text.read_whole
    monkeypatch.setattr(text, "read_whole", lambda path, *more: (reads.append(path), read(path, *more))[1])
    threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b"nonsense = 1\n"), daemon=True).start()
    ran = hibercheck(*given(TEXTS[kind], "fifo", handoff, tmp_path))
    assert ran.status in ({0} if kind == "log" else {2, 3})  # whatever is not a message in a log is passed over
    assert not {"larger", "came", "a pipe"} & set(ran.err.split())
    assert reads.count("fifo") <= 1


POSITIONAL = {
    "check": ["DENIED", "--resumer", "r", "--resumee", "e"],
    "image": ["image", "DENIED"],
    "export": ["export", "DENIED", "out"],
    "kernel": ["kernel", "DENIED"],
    "designs": ["designs", "DENIED", "--resumer", "r", "--resumee", "e"],
    "matrix": ["matrix", "DENIED", "--jobs", "1"],
    "matrix @list": ["matrix", "@DENIED"],
    "matrix merge": ["matrix", "merge", "DENIED"],
    "diff, old": ["diff", "DENIED", "vmlinux"],
    "diff, new": ["diff", "vmlinux", "DENIED"],
    "an option": ["HANDOFF", "--baseline", "DENIED"],
}


@pytest.mark.parametrize("kind", POSITIONAL)
def test_a_path_without_permission(hibercheck, handoff, tmp_path, monkeypatch, kind):
    """It is not usage, and root may read it."""
    (tmp_path / "denied").write_text("text")
    opening = os.open

    def refuse(path, *more, **options):
        if str(path).endswith("denied"):
            raise PermissionError(13, "Permission denied", path)
        return opening(path, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, *_, **__: not str(path).endswith("denied"))
    arguments = [one.replace("DENIED", "denied") for one in given(POSITIONAL[kind], "", handoff, tmp_path)]
    said = refused(hibercheck(*arguments))
    assert "denied: cannot be opened: Permission denied" in said
    assert "--help" not in said
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert AS_ROOT in refused(hibercheck(*arguments))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("command", ["image", "kernel"])
def test_a_path_that_is_really_forbidden(hibercheck, tmp_path, command):
    (tmp_path / "denied").touch(mode=0)
    assert AS_ROOT in refused(hibercheck(command, "denied"))


def test_the_guides_do_not_run_what_lies_about():
    """``python -m hibercheck`` takes a directory of that name from the working directory, whoever put it there."""
    for one in [*(ROOT / "man").rglob("*"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        if one.is_file():
            content = one.read_bytes().replace(b"\\-", b"-")
            assert content.count(b"-m hibercheck") == content.count(b"-P -m hibercheck"), one


def test_without_the_working_directory(tmp_path):
    (tmp_path / "hibercheck").mkdir()
    (tmp_path / "hibercheck" / "__init__.py").write_text("raise SystemExit('planted')")
    script = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "bin" / "hibercheck"
    commands = [["python3", "-P", "-m", "hibercheck", "--version"]]
    commands += [[str(script), "--version"]] if script.exists() else []
    for command in commands:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.stdout.startswith("hibercheck "), ran.stderr
