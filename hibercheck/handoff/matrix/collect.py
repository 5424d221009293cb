"""The kernels of a matrix: finding them, and reading each once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hibercheck.errors import InputProblem
from hibercheck.files.kernels import LOOSE_NAMES, kernels_in
from hibercheck.files.text import read_whole
from hibercheck.handoff.matrix.summary import Summary, summary_of
from hibercheck.kernel.cache import KernelCache, content_key
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel

MAX_LIST = 1 << 26


def kernels_named(arguments: Iterable[str], found: set[str] | None = None) -> Iterator[str]:
    """Yield the kernels that arguments name: files, directories of them, and ``@LIST``, a file with one on each line.

    Args:
        arguments: The arguments.
        found: Gets those that nobody named, but that are in a directory.

    Raises:
        InputProblem: A directory or list cannot be read, or a directory holds no kernel.
    """
    for argument in arguments:
        try:
            if argument.startswith("@"):
                lines = read_whole(argument[1:], MAX_LIST, "a list of kernels").decode("utf-8").splitlines()
                named = (line.strip() for line in lines if line.strip() and line[0] not in "#@")
                yield from kernels_named(named, found)
            elif os.path.isdir(argument):  # noqa: PTH112 - a list may have a million lines, and a Path takes longer
                inside = _in_directory(argument)
                if found is not None:
                    found.update(inside)
                yield from inside
            else:
                yield argument
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise InputProblem(f"cannot be read: {reason}", path=argument) from error


def _in_directory(path: str) -> list[str]:
    found = kernels_in(Path(path))
    if not found:
        raise InputProblem("holds no kernel", path=path, advice=f"kernels are {LOOSE_NAMES}")
    return sorted(map(str, found.values()))


def read_summary(path: str, cache: KernelCache | None) -> Summary:
    """Read a kernel, or its facts out of the cache.

    Raises:
        HibercheckError: It cannot be read, or lacks what a matrix needs.
    """
    key = None if cache is None else content_key(path)
    kept = None if cache is None or key is None else cache.get(key, path)
    if kept is not None:
        return summary_of(kept)
    with open_kernel(path) as kernel:
        traits = read_traits(kernel)
        summary = summary_of(kernel, traits)
        if cache is not None and key is not None and content_key(path) == key:  # it was not changed meanwhile
            cache.put(key, kernel, traits)
        return summary
