"""What surrounds the command: limits, environment variables, a working directory that is gone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.fuzz.seeds import cases, unpack
from tests.support.effort import told

COMMAND = [sys.executable, "-m", "hibercheck"]


def arguments(name, *, dump=False):
    case = next(case for case in cases() if case["name"] == name)
    image, resumer, resumee = (str(unpack(case[key])) for key in ("image", "resumer", "resumee"))
    more = ["--resumer-memory", str(unpack(case["memory"]))] if dump else []
    return [image, "--resumer", resumer, "--resumee", resumee, *case["args"], *more]


def run(*more, environment=None, **options):
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(
        [*COMMAND, *more], capture_output=True, text=True, timeout=120, check=False, env=variables, **options
    )


def one_line(text):
    text = told(text)
    return text.startswith("hibercheck: ") and text.count("\n") == 1


@pytest.mark.parametrize("megabytes", [22, 26, 30, 34])
def test_too_little_address_space_is_no_verdict(megabytes):
    """What a library says that gets no memory is not what a failed check says: exit 1 is a verdict's."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    ran = run(*arguments("safe"), preexec_fn=limit)
    aborted = ran.returncode == -signal.SIGABRT and "memory allocation" in ran.stderr  # a library's own way
    assert (
        aborted or (ran.returncode, told(ran.stderr)) == (0, "") or (ran.returncode, one_line(ran.stderr)) == (3, True)
    )


def test_some_of_those_limits_were_too_low():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (26 << 20, 26 << 20))

    ran = run(*arguments("safe"), preexec_fn=limit)
    assert (ran.returncode, one_line(ran.stderr)) == (3, True)
    assert "memory" in ran.stderr


@pytest.mark.parametrize("limit", ["64M", "72M", "80M", "2G"])
def test_an_emulator_without_memory_is_no_verdict(limit):
    """Whether the emulator or the check beside it comes to the limit first is chance; neither is an answer."""
    pytest.importorskip("unicorn")
    ran = run(*arguments("random-address", dump=True), "--execute", "--max-memory", limit, "--format", "json")
    if ran.returncode == 3 and limit != "2G":
        assert one_line(ran.stderr)
        assert "more memory is needed" in ran.stderr
        return
    assert (ran.returncode, told(ran.stderr)) == (0, "")
    if limit in {"64M", "2G"}:
        assert ("the emulator ended without an answer" in ran.stdout) == (limit == "64M")


@pytest.mark.parametrize(
    "variables",
    [
        *({"COLUMNS": text} for text in ("0", "²", "-5", "9" * 20, "1", "x", "")),
        *({"LINES": text} for text in ("0", "²", "x")),
        {"TERM": "none-such", "FORCE_COLOR": "1"},
        {"HOME": "", "XDG_CACHE_HOME": "/dev/null"},
        {"LC_ALL": "none", "PYTHONIOENCODING": "ascii"},
        {"TMPDIR": "/nonexistent"},
    ],
    ids=str,
)
def test_no_variable_changes_the_verdict(variables):
    plain = run(*arguments("fatal"))
    ran = run(*arguments("fatal"), environment=variables)
    assert (ran.returncode, told(ran.stderr)) == (1, "")
    assert ran.stdout.split() == plain.stdout.split() or variables.keys() & {"COLUMNS", "FORCE_COLOR", "LC_ALL"}


@pytest.mark.parametrize(
    ("words", "number", "instruction"),
    [
        *((words, number, "bash_complete") for words, number in ((None, None), ("", None), (None, "1"))),
        *(("hibercheck", number, "bash_complete") for number in ("", "²", "-1", "99")),
        *(("hibercheck", "1", instruction) for instruction in ("none_complete", "bash", "x_y_z")),
    ],
)
def test_a_completion_that_no_shell_asked_for(words, number, instruction):
    given = {"COMP_WORDS": words, "COMP_CWORD": number, "_HIBERCHECK_COMPLETE": instruction}
    ran = run(environment={name: value for name, value in given.items() if value is not None})
    if ran.returncode == 0:
        assert (instruction, ran.stderr) == ("bash_complete", "")
    else:
        assert (ran.returncode, one_line(ran.stderr), ran.stdout) == (2, True, ""), ran.stderr


def test_an_empty_completion_variable_means_nothing():
    assert run("rules", environment={"_HIBERCHECK_COMPLETE": ""}).returncode == 0


@pytest.mark.parametrize("command", [["check"], ["kernel", "x"], ["rules"], ["matrix", "x"], ["collect"]])
def test_a_working_directory_that_is_gone(command, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    given = arguments("fatal") if command == ["check"] else command
    shell = ["/bin/sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(gone)]
    path = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - of the checkout
    ran = subprocess.run([*shell, *COMMAND, *given], capture_output=True, text=True, timeout=120, check=False, env=path)
    assert "Traceback" not in ran.stderr
    assert "internal error" not in ran.stderr
    assert ran.returncode == {"check": 1, "kernel": 3, "rules": 0, "matrix": 3, "collect": 0}[command[0]], ran.stderr
    assert all(line.startswith("hibercheck: ") for line in ran.stderr.splitlines())
    if ran.returncode == 3:
        assert "x: cannot be opened" in ran.stderr


@pytest.mark.parametrize("content", ["tool = 1", "[tool]\nhibercheck = 1", "tool = [1]", "[[tool.hibercheck]]\n"])
def test_a_project_file_with_something_else_there(content, tmp_path):
    """One that nobody named and that does not name hibercheck is another program's, and not read."""
    (tmp_path / "pyproject.toml").write_text(content)
    for more in ([], ["--config", str(tmp_path / "pyproject.toml")]):
        ran = run("check", "x", *more, cwd=tmp_path)
        is_read = bool(more or "hibercheck" in content)
        assert (ran.returncode, one_line(ran.stderr)) == (2 if is_read else 3, True), ran.stderr
        assert ("is not a table" in ran.stderr) is is_read
        assert ("x: cannot be opened" in ran.stderr) is not is_read


@pytest.mark.parametrize("given", [["check", "x", "--no-such"], ["image", "/nonexistent"]])
def test_a_traceback_on_request_is_no_verdict(given):
    ran = run(*given, "--debug")
    assert ran.returncode == {"check": 2, "image": 3}[given[0]]
    assert ran.stderr.startswith("Traceback")
