"""Pytest inside processes that are forked for it, so that what was imported is imported once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

OPTIONS = (
    "-o",
    "addopts=",
    "--import-mode=importlib",
    "--capture=no",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-q",
)

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent ends."""
PREFIX = "mutation-"
"""Begins the name of a run's directory of temporary files; the number of its process follows."""
FAULT, FAILED = 70, "\0failed: "
"""The status of a process in which the runner failed, and what it says before it says why."""


class Failed(Exception):  # noqa: N818 - what the run did
    """The run cannot go on: its message says why."""


class _Examples:
    """The examples of hypothesis, the same in every run, and not made smaller where one fails."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        settings.register_profile(
            "mutation",
            settings.get_profile("patient"),
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutation")


def run_pytest(files: list[str], plugin: object) -> None:
    """Collect these files and run what the plugin says.

    Raises:
        Failed: They cannot be collected.
    """
    status = pytest.main([*OPTIONS, *files], plugins=[_Examples(), plugin])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise Failed(f"pytest cannot run {' '.join(files)}: status {int(status)}")


def silence(*, errors: bool = True) -> None:
    """Let nothing that a test prints be seen, on standard error neither unless that is kept."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if errors else (0, 1):
        os.dup2(null, descriptor)
    os.close(null)


class Forked:
    """A function that runs in a process of its own, which ends with this one, and with it all that it started.

    Attributes:
        pid: The process.
        reads: A descriptor that gives what the function says; its end is the end of the process.
    """

    def __init__(self, function: Callable[[Callable[[str], None]], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.reads, writes = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.reads)
            self._child(function, writes)
        os.close(writes)

    @staticmethod
    def _child(function: Callable[[Callable[[str], None]], None], writes: int) -> NoReturn:
        status = FAULT
        answer = os.fdopen(writes, "w")
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            function(lambda text: print(text, file=answer, flush=True))
            status = 0
        except Failed as failed:
            answer.write(f"{FAILED}{failed}")
        except BaseException:  # noqa: BLE001 - it must not go on as a second parent
            answer.write(f"{FAILED}{traceback.format_exc()}")
        finally:
            answer.flush()
            os._exit(status)

    def result(self) -> str:
        """Wait for the end and give all that the function said."""
        try:
            with os.fdopen(self.reads) as answer:
                text = answer.read()
            _, status = os.waitpid(self.pid, 0)
        finally:
            self.kill()
        if status:
            why = text.partition(FAILED)[2] or f"it ended with status {os.waitstatus_to_exitcode(status)}"
            raise Failed(f"a process of the run failed: {why}")
        return text

    def kill(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Place:
    """A directory for what one process and those that it starts put aside."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")

    def enter(self) -> None:
        """Let it be the directory of temporary files from now on."""
        tempfile.tempdir = None
        os.environ["TMPDIR"] = self.path

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Put the temporary files of all that is forked in one place, and remove it, also when the run is ended.

    A run that was killed could not: what such runs have left goes first.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = re.match(r"\d+", old.name.removeprefix(PREFIX))
        if owner and not Path("/proc", owner[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    before = os.environ.get("TMPDIR")
    place = Place()
    place.enter()
    signals = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        tempfile.tempdir = None
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        place.remove()


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
