"""What is known of the command that is being run, for what it calls; where click runs it, its context's ``meta``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_notes: ContextVar[dict[str, Any] | None] = ContextVar("hibercheck.cli.notes", default=None)


def noted() -> dict[str, Any]:
    """Return the notes of the command that is being run; none where something else runs."""
    notes = _notes.get()
    return {} if notes is None else notes


@contextmanager
def noting(notes: dict[str, Any]) -> Iterator[None]:
    """Have these notes while the body runs the command."""
    before = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(before)
