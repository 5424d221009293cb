"""``--max-memory``: how much memory a command may take, whatever its inputs say.

The system keeps the limit (RLIMIT_DATA, getrlimit(2)): it counts what the process allocates, and not the input files,
which are read in place.  The readers' own bounds lie far below the default; a check takes some dozen megabytes.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hibercheck.patterns import pattern

if TYPE_CHECKING:
    import click

DEFAULT = "2G"
SIZE = "hibercheck.cli.memory.size"
"""Key of a context's ``meta`` for the bytes that the command may take."""
LEAST = 64 << 20
"""What the interpreter and the libraries need before they have read anything."""

_SIZE = pattern(r"(\d{1,12})([kmgt]?)", re.ASCII)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def amount(text: str) -> int:
    """Return bytes: ``512M``, ``2G``, or a number of them; 0 for no limit.

    Raises:
        ValueError: It is none, or less than any command needs.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory such as 512M or 2G")
    size = int(found[1]) << _UNITS[found[2]]
    if 0 < size < LEAST:
        raise ValueError(f"{text!r} is less than the {LEAST >> 20}M that any command needs")
    return size


def note(ctx: click.Context, _parameter: click.Parameter, size: int) -> int:
    """Keep the amount for when the command runs: parsing alone, for a help or a completion, must not limit anything."""
    ctx.meta[SIZE] = size
    return size


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Limit the process to what ``--max-memory`` says while the command runs; a lower limit that is there stays."""
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (size or resource.RLIM_INFINITY, before, most) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds, default=resource.RLIM_INFINITY), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))
