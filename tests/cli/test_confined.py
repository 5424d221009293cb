"""The command's own process gives up the right to write elsewhere; nobody else's does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import hibercheck
from hibercheck.cli.run import run as run_command
from hibercheck.files import landlock
from tests.conftest import ROOT
from tests.fuzz.seeds import unpack
from tests.support.effort import told

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock, or it is not enabled")

PROBED = """
import os, sys
victim, trigger, report = sys.argv[1:4]
tried = []

def probe(event, arguments):
    # While the command reads this input, what if what reads it could be made to write?
    if event != "open" or str(arguments[0]) != trigger or tried:
        return
    tried.append(event)
    try:
        os.close(os.open(victim, os.O_WRONLY))
        outcome = b"written"
    except PermissionError:
        outcome = b"refused"
    os.write(int(report), outcome)

sys.addaudithook(probe)
sys.argv = ["hibercheck", *sys.argv[4:]]
from hibercheck.cli.main import main
main()
"""
IMAGE, RESUMER, RESUMEE = (
    *("images/9c031ac5a1.bin.xz", "kernels/small-hlt.vmlinux.xz", "kernels/mid-current.vmlinux.xz"),
)
FIXTURES = ROOT / "fixtures"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))


@pytest.fixture
def elsewhere(tmp_path_factory):
    """A file where nobody may write: TMPDIR is another directory."""
    place = tmp_path_factory.mktemp("elsewhere") / "victim"
    place.write_text("keep")
    yield place
    assert place.read_text() == "keep"


def commands(image, resumer, resumee):
    handoff = [image, "--resumer", resumer, "--resumee", resumee, "--resumer-cmdline", "nokaslr nosmt"]
    return {
        "check": (handoff, image),
        "check, the kernel": (handoff, resumee),
        "image": (["image", image, "--verify"], image),
        "kernel": (["kernel", resumer], resumer),
        "designs": (["designs", *handoff, "--design", "init"], image),
        "matrix": (["matrix", resumer, resumee, "--jobs", "1"], resumee),
        "matrix, a worker": (["matrix", resumer, resumee, "--jobs", "2"], resumee),
        "diff": (["diff", resumer, resumee], resumee),
        "export": (["export", image], image),
    }


@pytest.mark.parametrize("command", commands("", "", ""))
def test_a_reader_cannot_write_elsewhere(tmp_path, elsewhere, command):
    inputs = [str(unpack(name)) for name in (IMAGE, RESUMER, RESUMEE)]
    given, trigger = commands(*inputs)[command]
    out = [str(tmp_path / "out")] if command == "export" else ["-o", str(tmp_path / "out")]
    read, written = os.pipe()
    program = [sys.executable, "-P", "-c", PROBED, str(elsewhere), trigger, str(written), *given, *out]
    ran = subprocess.run(program, pass_fds=[written], capture_output=True, text=True, timeout=120, check=False)
    os.close(written)
    with os.fdopen(read) as report:
        assert report.read() == "refused", ran.stderr
    assert ran.returncode in {0, 1}, ran.stderr
    assert (tmp_path / "out").stat().st_size


def shell(line, *arguments, **options):
    environment = {**os.environ, "H": f"{sys.executable} -P -m hibercheck"}
    command = ["/bin/sh", "-c", line, "sh", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment, **options}
    return subprocess.run(command, check=False, **options)


@pytest.mark.parametrize(
    "line",
    [
        '$H kernel "$1" > out',
        '$H kernel "$1" | cat > out',
        '$H kernel "$1" -o out',
        '$H kernel "$1" -o /dev/stdout > out',
        '$H kernel "$1" -o /dev/fd/3 3> out',
        'mkfifo f; cat f > out & $H kernel "$1" -o f; wait',
        'ln -s there/out out; mkdir there; $H kernel "$1" -o out',
        '$H kernel "$1" -o /dev/null && echo done > out',
        'mkdir d; cd d; $H kernel "$1" -o ../out',
        'umask 0777; $H kernel "$1" --format json -o out; chmod 600 out',
    ],
)
def test_every_kind_of_output(tmp_path, line):
    ran = shell(line, unpack(RESUMER), cwd=tmp_path)
    assert (ran.returncode, told(ran.stderr)) == (0, "")
    assert (tmp_path / "out").stat().st_size
    assert not list(tmp_path.glob(".*"))


def test_a_reader_that_leaves_early(tmp_path):
    """Then standard output is pointed at /dev/null, which has to be opened for that."""
    ran = shell(
        '{ $H kernel "$1" --format json --all-symbols; echo $? > status; } | head -c 1',
        unpack(RESUMEE),
        cwd=tmp_path,
    )
    assert (ran.stdout, told(ran.stderr)) == ("{", "")
    assert (tmp_path / "status").read_text() in {"0\n", "141\n"}


def test_temporary_files_and_the_cache(tmp_path):
    """A compressed image is unpacked in TMPDIR; a matrix keeps what it read."""
    ran = shell('$H image "$1" --verify', FIXTURES / IMAGE, cwd=tmp_path)
    assert (ran.returncode, told(ran.stderr)) == (0, "")
    for jobs in (1, 2):
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(tmp_path / f"cache{jobs}"),
            "H": f"{sys.executable} -P -m hibercheck",
        }
        kernels = [unpack(RESUMER), unpack(RESUMEE)]
        ran = shell(f'$H matrix "$1" "$2" --jobs {jobs} -o out', *kernels, cwd=tmp_path, env=environment)
        assert ran.returncode in {0, 1}
        assert told(ran.stderr) == ""
        assert len(list((tmp_path / f"cache{jobs}").rglob("*.facts"))) == 2


def test_collect_starts_a_shell(tmp_path):
    ran = shell("$H collect -o facts.json", cwd=tmp_path)
    assert ran.returncode == 0
    assert (tmp_path / "facts.json").read_text().startswith("{")


def test_who_calls_the_interface_loses_nothing(tmp_path):
    image, resumer, resumee = (str(unpack(name)) for name in (IMAGE, RESUMER, RESUMEE))
    hibercheck.check(image, resumer, resumee, resumer_cmdline="nokaslr nosmt")
    assert run_command(["kernel", resumer, "-o", str(tmp_path / "out")]) == 0
    (tmp_path / "elsewhere").write_text("still")
