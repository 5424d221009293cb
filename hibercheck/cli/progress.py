"""A progress bar on standard error: only on a terminal, and only for what takes a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE
from hibercheck.cli.terminal import HEIGHT, columns

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from hibercheck.swsusp.bulk import Progress

PATIENCE = 0.5
"""Seconds before a bar appears."""


class _Meter:
    """Counts pages, and shows a bar once it has taken long enough."""

    def __init__(self, label: str, *, enabled: bool) -> None:
        self._label = label
        self._enabled = enabled
        self._begun = time.monotonic()
        self._bar: Bar | None = None
        self.pages = 0

    def __call__(self, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` pages are done."""
        self.pages = done
        if not self._enabled or time.monotonic() - self._begun < PATIENCE:
            return
        if self._bar is None:
            self._bar = self._open(total)
        self._bar.update(self._bar.task_ids[0], completed=done * PAGE_SIZE)

    def _open(self, total: int) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        bar = Progress(
            *parts,
            TransferSpeedColumn(),
            console=Console(stderr=True, width=columns(sys.stderr), height=HEIGHT),
            transient=True,
        )
        bar.add_task(self._label, total=total * PAGE_SIZE)
        bar.start()
        return bar

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._begun


@contextmanager
def meter(label: str, *, wanted: bool | None) -> Iterator[Progress]:
    """Give what a long operation reports its progress to, and say at the end how fast it was.

    Args:
        label: What is being done.
        wanted: Whether to show a bar and the figure; by default if standard error is a terminal.
    """
    shown = sys.stderr.isatty() if wanted is None else wanted
    counter = _Meter(label, enabled=shown)
    try:
        yield counter
    finally:
        counter.close()
    if shown and counter.seconds > 0:
        volume = counter.pages * PAGE_SIZE / 1e6
        print(  # noqa: T201 - a figure for people, beside the report
            f"{label}: {volume:.0f} MB in {counter.seconds:.2f} s, {volume / counter.seconds:.0f} MB/s", file=sys.stderr
        )
