"""Going through a whole stream: chunks read, decoded and worked on by all processors, in batches.

The decoders, crc32, preadv and pwrite release the interpreter's lock, so threads are enough.  Each takes the next
batch, reads it into a buffer of its own, decodes it into another and works on it while that is in its processor's
cache; what is allocated anew for each block would be faulted in anew.  No thread runs ahead of the slowest by more than
a few batches, and what a batch leaves behind is small: memory is bounded by `MAX_WORKERS` times 7 MiB, the stored and
the plain bytes of a batch.

What is damaged is reported in the order of the stream, whatever thread met it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from mmap import MADV_HUGEPAGE, mmap
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Generic, TypeVar

from hibercheck.addresses import PAGE_SIZE
from hibercheck.files.source import Ranges, Source
from hibercheck.swsusp.codec import BLOCK_PAGES, BLOCK_SIZE, MAX_STORED_PAGES
from hibercheck.swsusp.stream import Batch, Storage

BATCH_CHUNKS = 16
"""Chunks in a batch: 2 MiB of plain bytes, and up to 2.2 MiB of stored ones."""
MAX_WORKERS = 8
HUGE_PAGE = 2 << 20
AHEAD = 4
"""Batches a worker that may be finished before their turn."""

Progress = Callable[[int, int], None]
"""Called with (pages done, pages in all)."""

State = TypeVar("State")
Work = Callable[[Batch], State]
"""Called, in a thread, with a batch; returns what becomes of it."""


def batches(source: Source, storage: Storage, work: Work[State], progress: Progress | None = None) -> Iterator[State]:
    """Decode every chunk in batches and yield what became of each batch, in order.

    Args:
        source: The file.
        storage: The stream in it.
        work: What to do with each batch; what it raises is raised here, when the batches before it have been yielded.
        progress: Called after each batch.

    Raises:
        MalformedImage: The way to a chunk is lost: a length or the swap map lies.
        InputProblem: The file cannot be read.
    """
    crew = _Crew(source, storage, work)
    try:
        crew.start()
        for end, state in crew.results():
            yield state
            if progress is not None:
                progress(min(end * BLOCK_PAGES, storage.pages), storage.pages)
    finally:
        crew.stop()


_Done = tuple[int, int, State | None, BaseException | None]
"""First chunk of a batch, its end, what became of it or why nothing did."""


class _Crew(Generic[State]):
    """The threads that go through a stream: the caller's, and one for each further processor."""

    def __init__(self, source: Source, storage: Storage, work: Work[State]) -> None:
        self._source, self._storage, self._work = source, storage, work
        self._chunks = -(-storage.pages // BLOCK_PAGES)
        self._next = 0
        self._taking = Lock()
        count = max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0)), -(-self._chunks // BATCH_CHUNKS)))
        self._room = Semaphore(AHEAD * count)
        self._done: SimpleQueue[_Done[State]] = SimpleQueue()
        self._threads = [Thread(target=self._serve, name=f"hibercheck-{n}", daemon=True) for n in range(1, count)]

    def start(self) -> None:
        """Start the threads, or as many as the system grants: none is needed."""
        for thread in self._threads:
            try:
                thread.start()
            except RuntimeError:
                return

    def stop(self) -> None:
        """Let each thread finish its batch, and wait for that."""
        self._end()
        self._room.release(max(1, len(self._threads)))
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def results(self) -> Iterator[tuple[int, State]]:
        """Yield (end of the batch, what became of it) in the order of the stream, up to the first that failed.

        Meanwhile the caller's thread works as the others do: one that only waits would be woken for every batch, and
        contend with them for the interpreter each time.
        """
        early: dict[int, tuple[int, State | None, BaseException | None]] = {}
        expected = 0
        worker = _Worker(self._source, self._storage, self._work)
        while expected < self._chunks:
            while expected not in early:
                first, end, state, problem = self._finished(worker)
                early[first] = end, state, problem
            expected, state, problem = early.pop(expected)
            self._room.release()
            if problem is not None:
                raise problem
            yield expected, state  # type: ignore[misc]  # there is a state where there is no problem

    def _finished(self, worker: _Worker[State]) -> _Done[State]:
        """Return a batch that another thread has done, or do one, or wait for one."""
        with suppress(Empty):
            return self._done.get_nowait()
        taken = self._take() if self._room.acquire(blocking=False) else None
        if taken is None:
            return self._done.get()
        done = self._do(worker, taken)
        if done[3] is not None and not isinstance(done[3], Exception):  # an interrupt
            raise done[3]
        return done

    def _serve(self) -> None:
        try:
            worker = _Worker(self._source, self._storage, self._work)
        except MemoryError:  # fewer threads will do
            return
        while True:
            self._room.acquire()
            taken = self._take()
            if taken is None:
                return
            self._done.put(self._do(worker, taken))

    def _do(self, worker: _Worker[State], taken: tuple[int, int, Ranges]) -> _Done[State]:
        done = worker.do(*taken)
        if done[3] is not None:
            self._end()
        return done

    def _end(self) -> None:
        """Take no further batches: those that were taken are all before this one, or of no interest any more."""
        with self._taking:
            self._next = self._chunks

    def _take(self) -> tuple[int, int, Ranges] | None:
        """Return the next batch and where it is stored, as far as that can be found."""
        with self._taking:
            first = self._next
            if first >= self._chunks:
                return None
            end = self._next = min(first + BATCH_CHUNKS, self._chunks)
            try:
                return first, end, _joined(self._storage.ranges(first, end))
            except BaseException as problem:  # noqa: BLE001 - to be raised in its turn, whatever it is
                self._next = self._chunks
                return self._sound_part(first, end, problem)

    def _sound_part(self, first: int, end: int, problem: BaseException) -> tuple[int, int, Ranges] | None:
        """Return what of a batch can be found, and leave word of what happened at its end."""
        found: Ranges = []
        lost = first
        try:
            while lost < end:
                found += self._storage.ranges(lost, lost + 1)
                lost += 1
        except BaseException as why:  # noqa: BLE001 - the same again, with its own place
            problem = why
        self._done.put((lost, lost, None, problem))
        return (first, lost, _joined(found)) if lost > first else None


def buffer(size: int) -> mmap:
    """Return so much memory or more, of huge pages where the system grants them.

    With small ones a twelfth of the time of an export goes to translations.

    Raises:
        MemoryError: There is none.
    """
    try:
        memory = mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE)
    except OSError as problem:
        raise MemoryError from problem
    with suppress(OSError):
        memory.madvise(MADV_HUGEPAGE)
    return memory


class _Worker(Generic[State]):
    """What one thread works with: its buffers."""

    def __init__(self, source: Source, storage: Storage, work: Work[State]) -> None:
        self._source, self._storage, self._work = source, storage, work
        self._stored = buffer(BATCH_CHUNKS * MAX_STORED_PAGES * PAGE_SIZE)
        self._plain = buffer(BATCH_CHUNKS * BLOCK_SIZE)

    def do(self, first: int, end: int, ranges: Ranges) -> _Done[State]:
        """Read, decode and work on a batch."""
        try:
            self._source.fill(memoryview(self._stored), ranges)
            batch = self._storage.unpack(first, end, self._stored, self._plain)
            return first, end, self._work(batch), None
        except BaseException as why:  # noqa: BLE001 - to be raised in its turn, whatever it is
            return first, end, None, why


def _joined(ranges: Ranges) -> Ranges:
    """Join ranges that follow one another in the file."""
    joined: Ranges = []
    for offset, size in ranges:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = joined[-1][0], joined[-1][1] + size
        else:
            joined.append((offset, size))
    return joined
