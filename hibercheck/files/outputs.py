"""Where a run may write: new or regular files, pipes, open descriptors, terminals.  Never a device, never an input.

Who runs this tool as root points it at a swap device that holds the only copy of a session, often by one of its many
names.  So an output is judged by what it is, by all names, before the work, and again before it is written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Self

from hibercheck.errors import UsageProblem
from hibercheck.files.devices import is_stream
from hibercheck.files.inputs import Inputs, watched
from hibercheck.files.landlock import FILE, REPLACE, Access
from hibercheck.files.places import (
    DescriptorOutput,
    FileOutput,
    Output,
    StandardOutput,
    StreamOutput,
    fail,
    refused,
    status_of,
)
from hibercheck.patterns import pattern

_OPEN = pattern(r"/dev/fd/(\d{1,9})", re.ASCII)
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MAX_LINKS = 40


class Outputs:
    """The outputs of a run, opened before its work and closed after it.

    Args:
        inputs: What it reads; by default what is being watched.
    """

    def __init__(self, inputs: Inputs | None = None) -> None:
        self._inputs = inputs or watched() or Inputs()
        self._places: dict[object, Output] = {}
        self.opened: dict[str | None, Output] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for output in self.opened.values():
            output.close()

    def open(self, path: str | None) -> Output:
        """Judge what a path leads to (None: standard output), and open it.

        Raises:
            InputProblem: It cannot be written.
            UsageProblem: It is a device, an input, or another output.
        """
        output = StandardOutput(self._inputs) if path is None else _judged(path, self._inputs)
        for place in output.places:
            if place in self._places:
                same = self._places[place].path
                what = "is named for two outputs" if same == output.path else f"is the same output as {same}"
                raise UsageProblem(what, path=output.path, advice="give each its own")
            self._places[place] = output
        self.opened[path] = output  # before it is opened, so that it is closed whatever happens
        output.open()
        return output

    def allowed(self) -> Iterator[tuple[str, Access]]:
        """Yield what `hibercheck.files.landlock.restrict` must allow so that the outputs can be written."""
        for output in self.opened.values():
            if isinstance(output, FileOutput):
                yield output.directory, REPLACE
            elif isinstance(output, StreamOutput):
                yield output.path, FILE

    def write(self, path: str | None, parts: Iterable[str]) -> None:
        """Write one of the outputs that were opened; raises as `Output.write`."""
        self.opened[path].write(parts)


def _judged(path: str, inputs: Inputs) -> Output:
    descriptor = descriptor_named(path)
    if descriptor is not None:
        return DescriptorOutput(path, descriptor, inputs)
    try:
        status = status_of(path)
    except (OSError, ValueError) as problem:
        fail(problem, path)
    if status is None or stat.S_ISREG(status.st_mode):
        return FileOutput(path, inputs)
    if is_stream(status):
        return StreamOutput(path, status)
    raise refused(status, path, path)


def descriptor_named(path: str) -> int | None:
    """Return the number of the open descriptor that a path stands for, as /dev/stdout does, or None."""
    own = {os.path.realpath("/proc/self/fd"), os.path.realpath("/proc/thread-self/fd")}
    for _ in range(_MAX_LINKS):
        if path in _STANDARD:
            return _STANDARD[path]
        if found := _OPEN.fullmatch(path):
            return int(found[1])
        directory, name = os.path.split(path)
        directory = os.path.realpath(directory)
        if directory in own and name.isascii() and name.isdigit():
            return int(name)
        try:
            path = os.path.join(directory, os.readlink(os.path.join(directory, name)))
        except (OSError, ValueError):
            return None
    return None
