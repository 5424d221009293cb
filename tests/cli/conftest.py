"""The command run in this process, on an engine that answers with a made-up report."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from hibercheck.cli.run import run
from tests.report.samples import SAMPLES


class Ran(NamedTuple):
    """How a command line ended."""

    status: int
    out: str
    err: str


class Engine:
    """Stands for `hibercheck.handoff.verdict.check`: remembers what it was asked and gives `answer`, or raises it."""

    def __init__(self):
        self.answer = SAMPLES["fatal"]()
        self.asked = None

    def check(self, image, resumer, resumee, options, cache=None):
        self.asked = SimpleNamespace(image=image, resumer=resumer, resumee=resumee, options=options)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def engine(monkeypatch):
    made = Engine()
    monkeypatch.setitem(sys.modules, "hibercheck.handoff.verdict.check", made)
    return made


@pytest.fixture
def hibercheck(capsys, monkeypatch, tmp_path):
    """Return a function that runs a command line in an empty directory and gives status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call
