"""``hibercheck cache``: the facts of kernels that were kept."""

from __future__ import annotations

import json
from typing import Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import OUTPUT, shared

EPILOG = """\b
Examples:
  hibercheck cache
  hibercheck cache --clear

Exit status: 0 fine, 2 usage, 3 it cannot be cleared."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@option("--clear", group=OUTPUT, is_flag=True, help="Remove all that is kept.")
@shared("--format", "--cache-dir")
@general_options
def command(**given: Any) -> int:
    """Show what is kept of kernels that were read, or remove it.

    What commands read of a kernel is kept by a checksum of its file, in a directory that nobody else may write to: root
    does not use a user's.  What was used longest ago is removed when there is too much.
    """
    from hibercheck.cli.output import prepare_standard_streams, write_answer
    from hibercheck.cli.stored import cache_of
    from hibercheck.kernel.cache import LIMIT
    from hibercheck.report.sanitise import one_line

    prepare_standard_streams()
    cache = cache_of({**given, "no_cache": False})
    directory = None if cache is None else str(cache.directory)
    problem = None if cache is None else cache.problem()
    removed = cache.clear() if cache is not None and given["clear"] else None
    kept = {} if cache is None else cache.entries()
    kernels = len({name.partition(".")[0] for name in kept})
    size = sum(status.st_size for status in kept.values())
    if given["form"] == "json":
        document = {"directory": directory, "problem": problem, "kernels": kernels, "bytes": size, "limit": LIMIT}
        write_answer(json.dumps(document | {"removed": removed}, indent=2) + "\n")
        return 0
    if directory is None:
        answer = "nothing is kept: there is no home directory, and XDG_CACHE_HOME is not set"
    else:
        kept_there = f"{kernels} kernels, {size >> 20} of {LIMIT >> 20} MiB"
        what = f"is not used: {problem}" if problem else kept_there
        answer = f"{one_line(directory)}: {one_line(what if removed is None else f'{removed} files removed')}"
    write_answer(answer + "\n")
    return 0
