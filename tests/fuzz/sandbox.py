"""What no input may bring about, watched while a reader works: hangs, memory, writes, child processes.

It changes the process for good (audit hooks cannot be removed), so a campaign has a process of its own.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPU_SECONDS = 10
"""What one input may take; the slowest real one takes under one."""
MEMORY = 1 << 30
"""What one input may make the process grow by, in bytes; the documented limit of the command is twice that."""

_CHILDREN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
)


class Violation(BaseException):
    """Something happened that no input may bring about; not an Exception, so that no reader can swallow it."""


class Sandbox:
    """The watch.

    Args:
        directory: The only place where anything may be written.
        children: Whether processes may be started.
    """

    def __init__(self, directory: Path, *, children: bool = False) -> None:
        self._children = children
        self._directory = os.path.realpath(directory)
        self._watching = False
        self._violation: str | None = None
        sys.dont_write_bytecode = True  # the interpreter's own writes are not ours
        os.environ["TMPDIR"] = tempfile.tempdir = self._directory
        os.environ["XDG_CACHE_HOME"] = f"{self._directory}/cache"  # a check keeps what it read of kernels
        signal.signal(signal.SIGPROF, self._too_long)
        sys.addaudithook(self._audit)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch what is done inside.

        Raises:
            Violation: It took too long or too much memory, wrote elsewhere, or started a process.
        """
        before = _resident()
        limit = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data() + MEMORY, limit[1]))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        self._violation, self._watching = None, True
        try:
            yield
        except MemoryError as error:
            raise Violation(f"needs more than {MEMORY >> 20} MiB") from error
        finally:
            self._watching = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_DATA, limit)
        if self._violation is not None:
            raise Violation(self._violation)
        if (grown := _resident() - before) > MEMORY:
            raise Violation(f"took {grown >> 20} MiB")

    def _too_long(self, *_: object) -> None:
        if self._watching:
            raise Violation(f"takes more than {CPU_SECONDS} s")

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self._watching or self._violation is not None:
            return
        if event in _CHILDREN and not self._children:
            self._violation = f"starts a process: {event} {arguments[:2]}"
        elif event == "open":
            path, _, flags = arguments
            # a file that O_TMPFILE makes has no name, and the descriptor that gives its directory is not told
            unnamed = isinstance(flags, int) and flags & os.O_TMPFILE == os.O_TMPFILE
            if isinstance(flags, int) and not unnamed and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self._written(path)
        elif event in _CHANGES:
            path = arguments[0]
            if event in {"os.remove", "os.rmdir"} and isinstance(arguments[-1], int) and arguments[-1] >= 0:
                path = Path(f"/proc/self/fd/{arguments[-1]}").readlink() / os.fsdecode(path)  # given by its directory
            self._written(path)

    def _written(self, path: object) -> None:
        if isinstance(path, int):
            return
        place = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        if place != self._directory and not place.startswith((f"{self._directory}/", "/dev/")):
            self._violation = f"writes to {place}"


def _resident() -> int:
    """Peak of resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _data() -> int:
    """What RLIMIT_DATA counts now: private writable memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
