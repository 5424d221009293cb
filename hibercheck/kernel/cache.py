"""What was read of kernels before, kept by their contents: never by a name, a time or a build id, which are copied.

Everything here is a saving and nothing more: what is missing, damaged, somebody else's or cannot be written only means
that the kernel is read.  The directory holds one file for each kernel, of some hundred kilobytes, and is bounded.
"""

from __future__ import annotations

import json
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hibercheck import __version__
from hibercheck.errors import HibercheckError, InputProblem
from hibercheck.files.source import Source, open_source
from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.kernel import Kernel, named
from hibercheck.kernel.locate import locate
from hibercheck.kernel.remembered import Answers, RememberedKernel

if TYPE_CHECKING:
    from hibercheck.kernel.code.facts import FactsKernel
    from hibercheck.kernel.code.traits import Traits

LIMIT = 256 << 20
"""Bytes that a cache may take; what was used longest ago goes first."""
WHOLE = 16 << 20
"""The largest file whose contents are hashed whole: any vmlinuz.  Of a vmlinux, where that would take longer than
all of a check, its state and the parts that tell two builds apart."""
MOST = 64 << 20
"""Bytes of a file of the cache; a kernel's facts are some hundred kilobytes."""
MARGIN = 2.0
"""Seconds for which a large file is not kept after it was changed: within one tick of the clock of a file system
another change has the same time (as git's racy entries, Documentation/technical/racy-git.adoc)."""
EDGE = 256 << 10
"""Bytes of a large file's beginning, and of its end, that are hashed."""
SAMPLE, EVERY = 64 << 10, 1 << 20
"""Of a large file's symbol tables so much of every mebibyte is hashed; of tables that are no larger, all."""

_PIECE = 1 << 20
_FACTS, _ANSWERS = ".facts", ".answers"
_ENDINGS = (_FACTS, _ANSWERS)
_PART = ".part-"
_ABANDONED = 3600.0


def default_directory() -> Path | None:
    """Return where facts are kept: ``hibercheck`` in XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "hibercheck"
    except RuntimeError:
        return None


def content_key(path: str) -> str | None:
    """Return what a kernel's file is known by: a hash of its contents, and of the program that reads them.

    Of a file above `WHOLE` it is its inode, size and times, and a checksum of its beginning and its end and of parts of
    its symbol tables: whoever changes the rest changes its ctime.

    Returns:
        Hexadecimal digits and hyphens; None where it cannot be read, is a facts file, or was changed just now.
    """
    try:
        file = locate(path)
        status = file.stat()
        with open_source(file, path) as data:
            if data[:1] in {b"{", b""}:  # it is facts already, or nothing
                return None
            if len(data) <= WHOLE:
                return f"{reader_state():08x}-{_digest(data)}"
            if not stat.S_ISREG(status.st_mode) or time.time() - status.st_ctime < MARGIN:
                return None
            told = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            checksum = 0
            for start, end in _sampled(data, path):
                for piece in _pieces(data, start, end):
                    checksum = zlib.crc32(piece, checksum)
            return "-".join(f"{number:x}" for number in (reader_state(), *told, checksum))
    except (OSError, HibercheckError):
        return None


def _digest(data: Source) -> str:
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and a vmlinux needs it not

    digest = hashlib.sha256()
    for piece in _pieces(data, 0, len(data)):
        digest.update(piece)
    return digest.hexdigest()


def _sampled(data: Source, path: str) -> Iterator[tuple[int, int]]:
    yield 0, EDGE
    yield len(data) - EDGE, len(data)
    if data[:4] == b"\x7fELF":
        elf = ElfFile(data, path)
        for name in (".symtab", ".strtab"):
            section = elf.section(name)
            if section is not None and not section.nobits:
                end = min(section.offset + section.size, len(data))
                for at in range(section.offset, end, EVERY):
                    yield at, min(at + (SAMPLE if section.size > EVERY else EVERY), end)


def _pieces(data: Source, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE):
        yield data[at : min(at + _PIECE, end)]


@cache
def reader_state() -> int:
    """Return what stands for the program that reads kernels: in a checkout it changes while its version does not."""
    room = Path(__file__).parent
    states = [repr(__version__)]
    for folder in (room, room / "code"):
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
        states += sorted(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in found)
    return zlib.crc32("\n".join(states).encode())


class KernelCache:
    """A directory of facts of kernels.

    It is used only if it belongs to the caller and nobody else may write to it: what it says is believed.  So root
    uses no user's.

    Args:
        directory: It is made when something is kept first.
        limit: Bytes that it may take.

    Attributes:
        directory: The same.
    """

    def __init__(self, directory: Path, *, limit: int = LIMIT) -> None:
        self.directory = directory
        self._limit = limit
        self._taken: int | None = None

    def problem(self) -> str | None:
        """Say why the directory is not used; None where it is, or is not there yet."""
        try:
            with self._opened():
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"cannot be opened: {error.strerror}"
        except InputProblem as problem:
            return problem.message

    def get(self, key: str, path: str) -> FactsKernel | None:
        """Return what is kept under a key, for the kernel at ``path``, or None."""
        from hibercheck.kernel.code.facts import parse_facts  # noqa: PLC0415 - answers do without

        content = self._read(key, _FACTS)
        with suppress(HibercheckError):
            return None if content is None else parse_facts(path, content)
        return None

    def put(self, key: str, kernel: Kernel, traits: Traits | None = None) -> None:
        """Keep a kernel's facts, made of its ``traits`` if they are read already; if it cannot, it does nothing."""
        from hibercheck.kernel.code.facts import facts_of  # noqa: PLC0415 - as above

        with suppress(HibercheckError):
            self._keep(key, _FACTS, json.dumps(facts_of(kernel, traits)).encode())

    def opened(self, path: str, open_it: Callable[[], Kernel]) -> Kernel:
        """Return a kernel that remembers what it was asked by earlier commands, or one that is only opened.

        Args:
            path: A kernel's file or release, as the user named it.
            open_it: Opens it.

        Raises:
            HibercheckError: As ``open_it``, which is called where there are no answers yet.
        """
        key = content_key(path)
        if key is None:
            return open_it()

        def opened() -> Kernel:
            from hibercheck.kernel.code.dataless import supplement  # noqa: PLC0415 - answers do without

            kernel = open_it()
            supplement(kernel)  # so that an answer is the same whoever asks first
            return kernel

        content = self._read(key, _ANSWERS)
        answers: Answers = {}
        with suppress(ValueError, RecursionError):
            answers = json.loads(content) if content is not None else {}
        kernel = None if answers else opened()

        def keep(answers: Answers) -> None:
            if content_key(path) == key:  # it was not changed meanwhile
                self._keep(key, _ANSWERS, json.dumps(answers, separators=(",", ":")).encode())

        return RememberedKernel(named(path)[1], answers, (lambda: kernel) if kernel is not None else opened, keep)

    def _read(self, key: str, ending: str) -> bytes | None:
        name = key + ending
        try:
            with self._opened() as folder:
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                with os.fdopen(descriptor, "rb") as file:
                    if not _is_own(os.fstat(descriptor), stat.S_ISREG):
                        return None
                    checksum, _, content = file.read(MOST).partition(b"\n")
                if checksum != _checksum(name, content):
                    return None
                with suppress(OSError):
                    os.utime(name, dir_fd=folder)  # used now: others go before it
        except (OSError, HibercheckError):
            return None
        else:
            return content

    def _keep(self, key: str, ending: str, content: bytes) -> None:
        name = key + ending
        with suppress(OSError, InputProblem):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened() as folder:
                self._write(folder, name, _checksum(name, content) + b"\n" + content)
                self._make_room(folder, len(content))

    def entries(self) -> dict[str, os.stat_result]:
        """Return the files that are kept, by name; none where the directory is not used or not there."""
        try:
            with self._opened() as folder:
                return dict(_listed(folder))
        except (OSError, InputProblem):
            return {}

    def clear(self) -> int:
        """Remove all that is kept, and return how many files that were.

        Raises:
            InputProblem: The directory is not the caller's, or a file cannot be removed.
        """
        count = 0
        try:
            with self._opened() as folder:
                for name, _ in _listed(folder):
                    os.unlink(name, dir_fd=folder)
                    count += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputProblem(f"cannot be cleared: {error.strerror}", path=str(self.directory)) from error
        return count

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory, so that it stays the one that was looked at.

        Raises:
            InputProblem: It is not the caller's, or others may write to it.
            OSError: It cannot be opened.
        """
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(folder)
            if not _is_own(status, stat.S_ISDIR):
                what = "may be written to by others" if status.st_uid == os.geteuid() else "belongs to another user"
                raise InputProblem(f"is not used as a cache: it {what}", path=str(self.directory))
            yield folder
        finally:
            os.close(folder)

    @staticmethod
    def _write(folder: int, name: str, content: bytes) -> None:
        """Write a file all at once: others may be reading, and this process may be killed."""
        try:
            descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
            part = None
        except OSError:  # a file system without unnamed files
            part = f"{_PART}{os.getpid()}-{time.monotonic_ns()}"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            if part is not None:
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                return
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)  # one that was damaged
            with suppress(FileExistsError):
                os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)
        except BaseException:
            if part is not None:
                with suppress(OSError):
                    os.unlink(part, dir_fd=folder)
            raise
        finally:
            os.close(descriptor)

    def _make_room(self, folder: int, added: int) -> None:
        """Remove what was used longest ago, as long as there is too much."""
        if self._taken is not None:
            self._taken += added
        if self._taken is None or self._taken > self._limit:
            kept = sorted(_listed(folder), key=lambda one: one[1].st_mtime_ns)
            self._taken = sum(status.st_size for _, status in kept)
            for name, status in kept:
                abandoned = name.startswith(_PART) and time.time() - status.st_mtime > _ABANDONED
                if self._taken <= self._limit and not abandoned:
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                self._taken -= status.st_size


def _is_own(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Whether a file or directory is the caller's, and nobody else may write to it."""
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_kind(status.st_mode) and status.st_uid == os.geteuid() and not writable


def _listed(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    for name in os.listdir(folder):
        if name.endswith(_ENDINGS) or name.startswith(_PART):
            with suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=folder, follow_symlinks=False)


def _checksum(name: str, content: bytes) -> bytes:
    """Return what stands before the content: a damaged file, or one under another's name, is not believed."""
    return b"%08x" % zlib.crc32(content, zlib.crc32(name.encode("ascii")))
