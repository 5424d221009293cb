"""Work in child processes: none outlives its parent, and however one ends, its end is never the command's.

A child is a fork: it has what its parent had read already, and nothing is sent to it but what it is to do.  Answers
come back through a pipe.  `multiprocessing` is not used: its pools wait for helper threads, which a second signal
leaves without anyone to join them.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import selectors
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from hibercheck.errors import HibercheckError
from hibercheck.files.landlock import restrict

T = TypeVar("T")
R = TypeVar("R")

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the thread that made it ends."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or a service manager sends to a whole group: the parent answers them, and ends its children."""
_AHEAD = 4
"""Answers that may wait for an earlier one, for each child: they take memory."""
_TASK = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")


class ChildEnded(Exception):  # noqa: N818 - an ending, of which the caller makes an error of its own
    """A child ended without an answer: it was killed, or a library ended it."""


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    tasks: int
    answers: int


def in_child(function: Callable[[], T]) -> T:
    """Call ``function`` in a child of its own, which can write nowhere, and return what it returns.

    Raises:
        ChildEnded: The child ended in another way than by returning or raising.
        HibercheckError: The function raised it.
        MemoryError: There was not enough memory in the child.
    """

    def work(_first: int, _end: int) -> list[T]:
        restrict(())  # it is for what hostile bytes may end, or make do what they please
        return [function()]

    with _children(1, work) as (child,):
        os.write(child.tasks, _TASK.pack(0, 1))
        answers: list[T] = _unpacked(_answer(child))
        return answers[0]


@contextmanager
def mapped(function: Callable[[T], R], items: Sequence[T], *, jobs: int, chunk: int = 1) -> Iterator[Iterator[R]]:
    """Give the results of ``function`` for ``items``, in order, as children find them; they end with the context.

    Args:
        function: What is done with each; what it uses is as it was when the context was entered.
        items: The items.
        jobs: The number of children.
        chunk: How many items a child gets at once.

    Raises:
        ChildEnded: A child ended in another way than by answering.
        HibercheckError: The function raised it.
        MemoryError: There was not enough memory in a child.
    """

    def work(first: int, end: int) -> list[R]:
        return [function(item) for item in items[first:end]]

    spans = [(first, min(first + chunk, len(items))) for first in range(0, len(items), chunk)]
    with _children(min(jobs, len(spans)), work) as crew:
        yield _in_order(crew, spans)


def _in_order(crew: Sequence[_Child], spans: Sequence[tuple[int, int]]) -> Iterator[Any]:
    """Hand out spans and yield the results of each, in order."""
    found: dict[int, bytes] = {}  # packed: what was raised is raised in its turn, so that it is always the same
    waiting, given, told = list(crew), 0, 0
    doing: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        for child in crew:
            selector.register(child.answers, selectors.EVENT_READ, child)
        while told < len(spans):
            while waiting and given < min(len(spans), told + _AHEAD * len(crew)):
                child = waiting.pop()
                doing[child.pid] = given
                with suppress(BrokenPipeError):  # it has ended, as its pipe of answers will tell
                    os.write(child.tasks, _TASK.pack(*spans[given]))
                given += 1
            for key, _ in selector.select():
                child = key.data
                found[doing.pop(child.pid)] = _answer(child)
                waiting.append(child)
            while told in found:
                yield from _unpacked(found.pop(told))
                told += 1


@contextmanager
def _children(count: int, work: Callable[[int, int], list[Any]]) -> Iterator[tuple[_Child, ...]]:
    """Start children that do ``work`` on the spans they are given; kill them at the end."""
    crew: list[_Child] = []
    try:
        for _ in range(count):
            try:
                _start(crew, work)
            except OSError:
                if not crew:  # else fewer have to do it
                    raise
                break
        yield tuple(crew)
    finally:
        for child in crew:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            os.close(child.tasks)
            os.close(child.answers)
        for child in crew:
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)


def _start(crew: list[_Child], work: Callable[[int, int], list[Any]]) -> None:
    """Fork one more child; a signal that comes meanwhile is for the parent, and finds the child in ``crew``."""
    library = ctypes.CDLL(None)  # before the fork: in the child nothing is loaded any more
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        task_end, tasks = os.pipe()
        answers, answer_end = os.pipe()  # if it fails, so will the command, or no further child is made
        with warnings.catch_warnings():
            # a thread that shows progress may hold a lock; the child takes none of those, and never returns
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _be_child(library, parent, crew, (tasks, answers), (task_end, answer_end), work)
        os.close(task_end)
        os.close(answer_end)
        crew.append(_Child(pid, tasks, answers))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_child(
    library: ctypes.CDLL,
    parent: int,
    crew: Sequence[_Child],
    theirs: tuple[int, int],
    own: tuple[int, int],
    work: Callable[[int, int], list[Any]],
) -> NoReturn:
    """Answer until nobody asks any more; never return into the parent's code."""
    status = 1
    try:
        library.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it ended before that
            os._exit(status)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (*theirs, *(end for child in crew for end in (child.tasks, child.answers))):
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # what a library says there is for nobody
            os.dup2(null, stream)
        tasks, answers = own
        while task := _whole(tasks, _TASK.size):
            _write(answers, _packed(work, *_TASK.unpack(task)))
        status = 0
    except BaseException:  # noqa: BLE001, S110 - the parent sees the pipe's end
        pass
    finally:
        os._exit(status)


def _packed(work: Callable[[int, int], list[Any]], first: int, end: int) -> bytes:
    """Do the work and pack its results, or what it raised."""
    try:
        answer: tuple[str, Any] = ("done", work(first, end))
    except HibercheckError as error:
        answer = ("raised", error)
    except MemoryError:
        answer = ("memory", None)
    except Exception as error:  # noqa: BLE001 - told in the parent
        import traceback  # noqa: PLC0415 - only for what is a bug

        answer = ("failed", f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}")
    content = pickle.dumps(answer)
    return _SIZE.pack(len(content)) + content


def _answer(child: _Child) -> bytes:
    """Read one answer.

    Raises:
        ChildEnded: There is none.
    """
    size = _whole(child.answers, _SIZE.size)
    content = _whole(child.answers, *_SIZE.unpack(size)) if size else b""
    if not content:
        raise ChildEnded
    return content


def _unpacked(content: bytes) -> Any:  # noqa: ANN401 - what the function returned
    kind, value = pickle.loads(content)  # noqa: S301 - our own fork wrote it
    if kind == "done":
        return value
    if kind == "raised":
        raise value
    if kind == "memory":
        raise MemoryError
    line, _, trace = value.partition("\n")
    error = RuntimeError(f"in a worker process: {line}")
    error.add_note(trace)
    raise error


def _whole(descriptor: int, size: int) -> bytes:
    """Read ``size`` bytes, or return b"" where the pipe ends before."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
