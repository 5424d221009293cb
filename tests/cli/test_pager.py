"""Long text on a terminal goes through a pager; elsewhere, and where it fits, nothing is started."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios

import pytest

from hibercheck.cli.waiting import CLEAR
from tests.support.unpacked import plain_path

IMAGE = plain_path("images/b65f345bef.bin.xz")
PAGER = "sed s/^/paged:/"


def on_terminal(*arguments, lines=10, **environment):
    """Run the command on a terminal of so many lines; return its exit status and what was shown."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (lines, 80))
    known = {"PATH": os.environ["PATH"], "TERM": "xterm", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PAGER": PAGER}
    process = subprocess.Popen(
        [sys.executable, "-m", "hibercheck", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**known, **environment},
    )
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    return process.wait(timeout=60), shown.decode().rpartition(CLEAR)[2]


def test_what_is_longer_than_the_screen_is_paged():
    status, shown = on_terminal("image", IMAGE)
    assert status == 0
    assert shown.startswith("paged:")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--no-pager"], {}),
        (["--pager", "cat"], {}),
        ([], {"HIBERCHECK_PAGER": "cat"}),
        ([], {"PAGER": "cat"}),
        ([], {"PAGER": "/nonexistent/pager"}),
        ([], {"PAGER": "'"}),
        ([], {"TERM": "dumb"}),
        (["--pager", PAGER, "--no-pager"], {}),
    ],
)
def test_who_wants_none_has_none(arguments, environment):
    status, shown = on_terminal("image", IMAGE, *arguments, **environment)
    assert status == 0
    assert "hibernation image" in shown
    assert "paged:" not in shown


def test_what_fits_is_printed():
    assert "paged:" not in on_terminal("image", IMAGE, lines=200)[1]


def test_the_option_comes_before_the_environment():
    assert on_terminal("image", IMAGE, "--pager", "sed s/^/mine:/")[1].startswith("mine:")


def test_the_pager_does_not_change_the_exit_status():
    status, shown = on_terminal("image", IMAGE, "--pager", "false")
    assert status == 0
    assert not shown
