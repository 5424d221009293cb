"""Opening what the user named: read-only, and remembered for as long as the run may write.

An output is compared with what was really opened and not with what the command line says: a release may be a file in
/boot, a directory a dozen kernels, a link the swap device.  So whoever opens an input says so here.  A run that writes
nothing, such as a call of `hibercheck.check`, watches nothing and pays nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from hibercheck.errors import InputProblem, UsageProblem

Identity = tuple[int, int]
"""(st_dev, st_ino): which file it is, whatever it is called."""

AS_ROOT = "run hibercheck as root, or give a copy that you may read"

# include/uapi/linux/loop.h: struct loop_info64 { __u64 lo_device, lo_inode, ... } of 232 bytes
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_SIZE = 232
_MAX_LAYERS = 16


class Inputs:
    """What a run has opened for reading, and what it will write.

    Attributes:
        opened: What each file was called when it was opened.
    """

    def __init__(self) -> None:
        self.opened: dict[Identity, str] = {}
        self._claimed: dict[Identity, str] = {}

    def add(self, identity: Identity, what: str) -> None:
        """Note a file that is read.

        Raises:
            UsageProblem: It is one of the outputs.
        """
        self.opened.setdefault(identity, what)
        if identity in self._claimed:
            raise overwrites(self._claimed[identity], what)

    def claim(self, identity: Identity, output: str) -> None:
        """Note a file that will be written, so that opening it as an input is refused at once.

        Raises:
            UsageProblem: It is an input already.
        """
        self._claimed[identity] = output
        if identity in self.opened:
            raise overwrites(output, self.opened[identity])


_watching: ContextVar[Inputs | None] = ContextVar("hibercheck.files.inputs", default=None)


@contextmanager
def watching() -> Iterator[Inputs]:
    """Keep account of what is opened inside."""
    token = _watching.set(inputs := Inputs())
    try:
        yield inputs
    finally:
        _watching.reset(token)


def watched() -> Inputs | None:
    """Return the account that is being kept, or None."""
    return _watching.get()


def note(opened: Mapping[Identity, str]) -> None:
    """Enter what was opened elsewhere, such as in another process."""
    inputs = _watching.get()
    if inputs is not None:
        for identity, what in opened.items():
            inputs.add(identity, what)


def note_named(path: str) -> None:
    """Enter a file that is used without being opened, because what it holds is known already."""
    with suppress(OSError, ValueError):
        note_opened(path, os.stat(path), None)


def note_opened(path: str, status: os.stat_result, descriptor: int | None) -> None:
    """Enter a file that was opened.

    Raises:
        UsageProblem: It is one of the outputs.
    """
    inputs = _watching.get()
    if inputs is None:
        return
    inputs.add((status.st_dev, status.st_ino), path)
    if stat.S_ISBLK(status.st_mode):
        for identity in backing_files(status.st_rdev, descriptor):
            inputs.add(identity, path)


def open_input(path: str | os.PathLike[str], shown: str | None = None, *, advice: str | None = None) -> int:
    """Open a regular file or block device for reading and return its descriptor.

    Args:
        path: The file.
        shown: What messages call it, if not by its path.
        advice: What to do if it is something else.

    Raises:
        InputProblem: It cannot be opened, or is something else: a directory, a pipe, a terminal.
        UsageProblem: It is one of the outputs.
    """
    shown = os.fspath(path) if shown is None else shown

    def require_file(status: os.stat_result) -> None:
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
            raise InputProblem(f"is {kind}", path=shown, advice=advice)

    return open_if(path, shown, require_file)


def open_if(path: str | os.PathLike[str], shown: str, require: Callable[[os.stat_result], None]) -> int:
    """Open an input of whatever kind for reading, without waiting, and return its descriptor.

    Args:
        path: The input.
        shown: What messages call it.
        require: Raises where it is not one of what is wanted.

    Raises:
        InputProblem: It cannot be opened, or is not one of what is wanted.
        UsageProblem: It is one of the outputs.
    """
    try:
        require(os.stat(path))  # before it is opened: opening a device may make it act
        # O_NONBLOCK: what has become a FIFO meanwhile must not make us wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as problem:
        raise unopened(problem, shown) from problem
    try:
        require(status := os.fstat(descriptor))
        note_opened(shown, status, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unopened(problem: OSError | ValueError, shown: str) -> InputProblem:
    """Return the error for an input that the system does not open, with a word of root where that would help."""
    text = reason(problem)
    refused = isinstance(problem, OSError) and problem.errno in {errno.EACCES, errno.EPERM} and os.geteuid() != 0
    return InputProblem(f"cannot be opened: {text}", path=shown, advice=AS_ROOT if refused else None)


def reason(problem: OSError | ValueError) -> str:
    """Say why the system does not open something, in the same words under every version of Python."""
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    return "embedded null byte" if "null" in str(problem) else str(problem)


def overwrites(output: str, what: str) -> UsageProblem:
    """Return the error for an output that is an input."""
    text = "is an input" if output == what else f"is the input {what} by another name"
    return UsageProblem(f"{text} and would be overwritten", path=output, advice="give another output")


def backing_files(device: int, descriptor: int | None = None) -> set[Identity]:
    """Return the files in which a block device keeps its data: of loop devices, also below partitions and mappings.

    Args:
        device: Its number (st_rdev).
        descriptor: The device, opened.
    """
    found: set[Identity] = set()
    if descriptor is not None:
        with suppress(OSError):  # it is not a loop device
            info = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_SIZE))
            found.add(struct.unpack_from("=QQ", info))
    _collect_backing(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}", found, _MAX_LAYERS)
    return found


def _collect_backing(place: str, found: set[Identity], layers: int) -> None:
    """Follow sysfs from a block device to the files below it (drivers/block/loop.c, block/holder.c)."""
    place = os.path.realpath(place)
    disk = os.path.dirname(place) if os.path.exists(f"{place}/partition") else place
    with suppress(OSError):
        with open(f"{disk}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
            status = os.stat(file.read().removesuffix("\n"))
        found.add((status.st_dev, status.st_ino))
    with suppress(OSError):
        for below in os.listdir(f"{disk}/slaves") if layers else ():
            _collect_backing(f"{disk}/slaves/{below}", found, layers - 1)
