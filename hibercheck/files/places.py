"""The kinds of places that are written to, each in the way that does no harm there.

Every place is judged when it is made, and once more just before it is written: names change what they lead to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterable
from typing import NoReturn

from hibercheck.errors import HibercheckError, InputProblem, UsageProblem
from hibercheck.files.devices import is_stream, keeps_nothing, kind_of, may_be_written
from hibercheck.files.inputs import Identity, Inputs, reason

_ADVICE = "an output is a file, a pipe, a terminal or /dev/null"
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Output:
    """One place that is written to, once.

    Attributes:
        path: As the user named it.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def places(self) -> set[object]:
        """What two outputs must not have in common."""
        return set()

    def open(self) -> None:
        """Open what must be open before the right to open it is given up.

        Raises:
            InputProblem: It cannot be opened.
        """

    def write(self, parts: Iterable[str]) -> None:
        """Write text, in parts.

        Raises:
            BrokenPipeError: Its reader has gone.
            InputProblem: It cannot be written.
            UsageProblem: It has become an input, or a device.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release it; what was not finished leaves nothing behind."""


class FileOutput(Output):
    """A new or regular file, of which nothing is seen before it is whole.

    Attributes:
        descriptor: What to write to; `finish` puts it in its place.
        directory: Where it will be.

    Raises:
        InputProblem: There can be no file in that place.
    """

    def __init__(self, path: str, inputs: Inputs) -> None:
        super().__init__(path)
        self._inputs = inputs
        self._part: str | None = None
        self.descriptor = -1
        try:
            before = status_of(path)
            self.target = _resolved(path)
            self.directory, name = os.path.split(self.target)
            if not name:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._before = self._now()
            if _identity(before) != _identity(self._before):
                raise InputProblem("cannot be written: it changes while it is looked at", path=path)
            _claim(before, path, inputs)
            if before is not None and not os.access(self.target, os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as problem:
            fail(problem, path)

    @property
    def places(self) -> set[object]:
        """The path, without links, and the file that is there."""
        return {self.target} if self._before is None else {self.target, _identity(self._before)}

    def _now(self) -> os.stat_result | None:
        try:
            return os.lstat(self.target)
        except FileNotFoundError:
            return None

    def open(self) -> None:
        """Open a file that has no name yet, or where the file system has none such, one with a name of its own."""
        try:
            self._create(0o666 if self._before is None else 0o600)
        except OSError as problem:
            fail(problem, self.path)

    def _create(self, mode: int) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            self.descriptor = os.open(self.directory, flags | os.O_TMPFILE, mode)
            if os.path.exists(f"/proc/self/fd/{self.descriptor}"):  # else it could not be given a name
                return
        self.close()
        self._part = self._name_for_part()  # before the file is there, so that `close` finds it
        self.descriptor = os.open(self._part, flags | os.O_CREAT | os.O_EXCL, mode)

    def _name_for_part(self) -> str:
        return os.path.join(self.directory, f".hibercheck-{os.urandom(8).hex()}.part")

    def write(self, parts: Iterable[str]) -> None:
        """Write text and put the file in its place; see `Output.write`."""
        try:
            with open(self.descriptor, "w", encoding="utf-8", errors="replace", newline="\n", closefd=False) as stream:
                stream.writelines(parts)
            self.finish()
        except OSError as problem:
            fail(problem, self.path)

    def finish(self) -> None:
        """Put what was written in its place, whole.

        Raises:
            OSError: It cannot be put there.
            UsageProblem: There is an input, or something else than a regular file, by now.
        """
        now = self._now()
        _claim(now, self.path, self._inputs)
        if now is not None:
            if not stat.S_ISREG(now.st_mode):
                raise refused(now, self.target, self.path)
            with contextlib.suppress(PermissionError):
                os.fchown(self.descriptor, now.st_uid, now.st_gid)
            os.fchmod(self.descriptor, now.st_mode & 0o777)
        # A signal between the two steps would leave a file under a name that nobody knows.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._part is None:
                self._link(self.target if now is None else self._name_for_part())
            if self._part is not None:
                os.replace(self._part, self.target)
                self._part = None
        finally:
            self.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _link(self, name: str) -> None:
        """Give the file a name, which is its final one if it is free."""
        # With a directory's descriptor, which an absolute path ignores, link(2) becomes linkat(2) and follows the link.
        source = {"src": f"/proc/self/fd/{self.descriptor}", "src_dir_fd": self.descriptor, "follow_symlinks": True}
        try:
            os.link(dst=name, **source)  # type: ignore[arg-type]
        except FileExistsError:
            name = self._name_for_part()
            os.link(dst=name, **source)  # type: ignore[arg-type]
        if name != self.target:
            self._part = name

    def close(self) -> None:
        """Release the file; without `finish` nothing is left of it."""
        part, self._part = self._part, None
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class StreamOutput(Output):
    """A FIFO, a terminal or a null device, opened when it is written to: a FIFO's reader may come late."""

    def __init__(self, path: str, status: os.stat_result) -> None:
        super().__init__(path)
        self._status = status

    @property
    def places(self) -> set[object]:
        """Which FIFO or terminal it is; a null device may be named as often as one likes."""
        return set() if keeps_nothing(self._status) else {_identity(self._status)}

    def write(self, parts: Iterable[str]) -> None:
        """Open it, see that it is what it was, and write; see `Output.write`."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as problem:
            fail(problem, self.path)
        try:
            status = os.fstat(descriptor)
            if _identity(status) != _identity(self._status) or not is_stream(status, descriptor):
                raise refused(status, self.path, self.path)
            _write_all(descriptor, parts, self.path)
        finally:
            os.close(descriptor)


class DescriptorOutput(Output):
    """A descriptor that the caller has opened: written as it is, where it is, never opened again.

    Opened again, a file would be written from its start, and a socket, as systemd gives it, could not be.
    """

    def __init__(self, path: str, descriptor: int, inputs: Inputs) -> None:
        super().__init__(path)
        self.descriptor = descriptor
        self._inputs = inputs
        self._status = self._check()

    def _check(self) -> os.stat_result:
        try:
            status = os.fstat(self.descriptor)
            access = fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as problem:
            fail(problem, self.path)
        if access == os.O_RDONLY:
            raise InputProblem("cannot be written: it is open for reading only", path=self.path)
        if not may_be_written(status, self.descriptor):
            raise refused(status, f"/proc/self/fd/{self.descriptor}", self.path)
        _claim(status, self.path, self._inputs)
        return status

    @property
    def places(self) -> set[object]:
        """The number, and the file: at one terminal or pipe two descriptors get on."""
        regular = stat.S_ISREG(self._status.st_mode)
        return {self.descriptor, _identity(self._status)} if regular else {self.descriptor}

    def write(self, parts: Iterable[str]) -> None:
        """Write; see `Output.write`."""
        self._check()
        try:
            for stream in (sys.stdout, sys.stderr):  # what was said before comes before
                stream.flush()
        except OSError as problem:
            fail(problem, self.path)
        _write_all(self.descriptor, parts, self.path)


class StandardOutput(Output):
    """Standard output as the interpreter has it: in the terminal's characters."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__("standard output")
        self._inputs = inputs
        self._check()

    def _check(self) -> set[object]:
        try:
            descriptor = sys.stdout.fileno()
            status = os.fstat(descriptor)
        except (OSError, ValueError):  # the interpreter's, but no file: somebody listens in this process
            return set()
        if not may_be_written(status, descriptor):
            raise refused(status, f"/proc/self/fd/{descriptor}", self.path)
        _claim(status, self.path, self._inputs)
        return {descriptor, _identity(status)} if stat.S_ISREG(status.st_mode) else {descriptor}

    @property
    def places(self) -> set[object]:
        """As of any descriptor."""
        return self._check()

    def write(self, parts: Iterable[str]) -> None:
        """Write; see `Output.write`.

        Raises:
            OSError: It cannot be written.
        """
        self._check()
        sys.stdout.writelines(parts)
        sys.stdout.flush()


def status_of(path: str) -> os.stat_result | None:
    """Return what a name leads to; None where that is nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _resolved(path: str) -> str:
    """Return where a file lies, or will lie: behind links, if its name is one."""
    if os.path.islink(path):
        return os.path.realpath(path)
    directory, name = os.path.split(path)
    return os.path.join(os.path.realpath(directory), name)


def _identity(status: os.stat_result | None) -> Identity:
    return (status.st_dev, status.st_ino) if status is not None else (-1, -1)


def _claim(status: os.stat_result | None, path: str, inputs: Inputs) -> None:
    """See that what is about to be written is not an input, and will be none."""
    if status is not None and stat.S_ISREG(status.st_mode):
        inputs.claim(_identity(status), path)


def refused(status: os.stat_result, real: str, path: str) -> HibercheckError:
    """Return the error for a place that is not written to; ``real`` leads to it."""
    if stat.S_ISDIR(status.st_mode):
        return InputProblem(f"cannot be written: {os.strerror(errno.EISDIR)}", path=path)
    real = os.path.realpath(real)
    where = f" ({real})" if real != path else ""
    return UsageProblem(f"is {kind_of(status)}{where} and is not written to", path=path, advice=_ADVICE)


def _write_all(descriptor: int, parts: Iterable[str], path: str) -> None:
    try:
        for part in parts:
            data = memoryview(part.encode("utf-8", "replace"))
            while data:
                data = data[_write_some(descriptor, data) :]
    except OSError as problem:
        fail(problem, path)


def _write_some(descriptor: int, data: memoryview) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:  # the caller's pipe does not wait; we do
        import select  # noqa: PLC0415 - hardly ever

        select.select([], [descriptor], [])
        return 0


def fail(problem: OSError | ValueError, path: str) -> NoReturn:
    """Raise the error for a place that the system does not write to.

    Raises:
        BrokenPipeError: If it is one.
        InputProblem: Otherwise.
    """
    if isinstance(problem, BrokenPipeError):
        raise problem
    raise InputProblem(f"cannot be written: {reason(problem)}", path=path) from problem
