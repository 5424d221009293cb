"""Where a command keeps the facts of kernels that it has read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hibercheck.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from hibercheck.kernel.cache import KernelCache


def cache_of(given: dict[str, Any]) -> KernelCache | None:
    """Return where facts of kernels are kept, by ``--cache-dir`` and ``--no-cache``; None to keep none.

    A place that somebody named himself and that is not used is told.

    Raises:
        click.UsageError: Both options are given.
    """
    directory: str | None = given["cache_dir"]
    if given["no_cache"]:
        if directory is not None:
            import click

            from hibercheck.cli.options import given_by_hand

            if given_by_hand(click.get_current_context(), "cache_dir"):
                raise click.UsageError("--cache-dir and --no-cache contradict one another")
        return None
    from pathlib import Path

    from hibercheck.kernel.cache import KernelCache, default_directory
    from hibercheck.report.sanitise import one_line

    place = Path(directory) if directory is not None else default_directory()
    if place is None:
        return None
    cache = KernelCache(place)
    problem = cache.problem() if directory is not None else None
    if problem is not None:
        say(f"hibercheck: {one_line(f'{directory}: {problem}')}")
    return cache


def directory_of(cache: KernelCache | None) -> Path | None:
    """Return the directory that a command must be able to write to, if it keeps anything."""
    return None if cache is None else cache.directory
