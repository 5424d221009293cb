"""Plain command lines are read as click reads them, or left to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hibercheck.cli.check import command
from hibercheck.cli.commands import summaries
from hibercheck.cli.job import FORMATS
from hibercheck.cli.plain import given_plainly
from tests.support.unpacked import plain_path

IMAGE = "/dev/null"
OPTIONS = [name for option in command.params if isinstance(option, click.Option) for name in option.opts]
OTHERS = ["", "k", "1", "risk", "nmi", "json", "json=f", "-", "--", "-qv", "--resumer=k", "--help", "--config", "check"]
WORDS = st.sampled_from([*OPTIONS, *OTHERS, IMAGE, IMAGE, "--resumer", "--resumee", "-q"])


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("HIBERCHECK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def by_click(words):
    """What click makes of the words; `hibercheck.cli.group` puts the command before them."""
    return command.make_context("check", list(words)).params


@pytest.mark.parametrize(
    "words",
    [
        [IMAGE],
        [IMAGE, "--resumer", "r", "--resumee", "e"],
        ["-q", "--resumee", "e", IMAGE, "--resumer", "r", "-v", "--no-cache", "--format", "json"],
        [IMAGE, "--resumer-cmdline", "nokaslr quiet", "--spurious-mwait", "-q", "--quiet"],
        *([IMAGE, option.opts[0]] for option in command.params if getattr(option, "is_flag", False)),
        *([IMAGE, "--format", one] for one in FORMATS),
    ],
    ids=" ".join,
)
def test_a_plain_line_is_read_as_click_reads_it(words):
    left = {"--debug", "--show-config", "--no-pager"} & {*words}
    assert given_plainly(words) == (None if left else by_click(words))
    assert given_plainly(["check", *words]) == given_plainly(words)


@given(words=st.lists(WORDS, max_size=6))
@example(words=[IMAGE, "--resumer", "-q"])
@example(words=[IMAGE, "--resumer", "k", "--resumer", "k"])
def test_any_line_is_read_as_click_reads_it_or_left_to_it(words):
    read = given_plainly(words)
    if read is not None:
        assert read == by_click(words[words[:1] == ["check"] :])


@pytest.mark.parametrize(
    "words",
    [
        *([], ["-q"], [IMAGE, IMAGE], [IMAGE, "--resumer"], [IMAGE, "--resumer", ""], [IMAGE, "--resumer", "-q"]),
        *([IMAGE, "--resumer", "a", "--resumer", "b"], [IMAGE, "--resumer=a"], [IMAGE, "-qv"], ["--", IMAGE], ["-"]),
        *([IMAGE, "--format", "json=f"], [IMAGE, "--format", "no"], [IMAGE, "--format", "json", "--format", "text"]),
        *(
            [IMAGE, "--help"],
            [IMAGE, "--nothing"],
            ["no-such-image"],
            [IMAGE, "--fail-on", "never"],
            [IMAGE, "-of"],
        ),
    ],
    ids=" ".join,
)
def test_any_other_line_is_left_to_click(words):
    assert given_plainly(words) is None


def test_a_command_is_none_even_if_a_file_is_called_so(tmp_path):
    for name in summaries():
        (tmp_path / name).touch()
        assert given_plainly([name]) is None


def test_what_is_configured_is_left_to_click(monkeypatch, tmp_path):
    assert given_plainly([IMAGE]) is not None
    monkeypatch.setenv("HIBERCHECK_NO_CACHE", "1")
    assert given_plainly([IMAGE]) is None
    monkeypatch.delenv("HIBERCHECK_NO_CACHE")
    for name in ("hibercheck.toml", "pyproject.toml"):
        (tmp_path / name).symlink_to("nowhere")
        assert given_plainly([IMAGE]) is None
        below = tmp_path / "below"
        below.mkdir(exist_ok=True)
        monkeypatch.chdir(below)
        assert given_plainly([IMAGE]) is None
        (tmp_path / name).unlink()
        assert given_plainly([IMAGE]) is not None
        monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert given_plainly([IMAGE]) is None


@pytest.mark.parametrize("more", [(), ("-q",), ("--format", "json"), ("--verify",)])
def test_the_answer_is_the_same_however_the_line_is_read(tmp_path, more):
    image, resumer, resumee = (
        plain_path(name)
        for name in ("images/9c031ac5a1.bin.xz", "kernels/small-hlt.vmlinux.xz", "kernels/mid-current.vmlinux.xz")
    )
    code = "import sys; from hibercheck.cli.main import main\n"
    code += "try: main()\nfinally: print('click' in sys.modules, file=sys.stderr)"
    line = [sys.executable, "-c", code, image, "--resumer", resumer, "--resumee", resumee, *more]
    answers = [
        subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **added})
        for added in ({}, {"HIBERCHECK_COLOR": "auto"})
    ]
    plain, other = answers
    assert (plain.returncode, plain.stdout) == (other.returncode, other.stdout)
    assert plain.stdout
    assert [one.stderr.splitlines()[-1] for one in answers] == ["False", "True"]


def test_a_failure_is_one_line_however_the_line_is_read(tmp_path):
    Path("broken").write_bytes(b"no image")
    lines = ["broken --resumer no-such-r --resumee no-such-e", "broken --resumer=no-such-r --resumee no-such-e"]
    command_ = [sys.executable, "-m", "hibercheck"]
    plain, other = (
        subprocess.run([*command_, *line.split()], capture_output=True, text=True, check=False, cwd=tmp_path)
        for line in lines
    )
    assert (plain.returncode, plain.stdout, plain.stderr) == (other.returncode, other.stdout, other.stderr)
    assert plain.returncode == 3
    assert plain.stderr.count("\n") == 1
