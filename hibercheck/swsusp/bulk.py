"""Going through a whole stream: chunks read, decoded and worked on by all processors, in batches.

The decoders, crc32, preadv and pwritev release the interpreter's lock, so threads are enough.  Each takes the next
batch, reads it into a buffer of its own, decodes it and works on it while that is in its processor's cache.  No thread
runs ahead of the slowest by more than a few batches, and what a batch leaves behind is small: memory is bounded by
`MAX_WORKERS` times 7 MiB, the stored and the plain bytes of a batch.

What is damaged is reported in the order of the stream, whatever thread met it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Generic, TypeVar

from hibercheck.errors import InputProblem
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.source import Ranges, Source
from hibercheck.swsusp.stream import Chunk, Storage

BATCH_CHUNKS = 16
"""Chunks in a batch: 2 MiB of plain bytes, and up to 2.2 MiB of stored ones."""
MAX_WORKERS = 8
AHEAD = 4
"""Batches a worker that may be finished before their turn."""

Progress = Callable[[int, int], None]
"""Called with (pages done, pages in all)."""

State = TypeVar("State")
Work = Callable[[int, Iterator[Chunk]], State]
"""Called, in a thread, with the number of a batch's first chunk and its chunks; returns what becomes of the batch."""


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


class _Crew(Generic[State]):
    """The threads that go through a stream."""

    def __init__(self, source: Source, storage: Storage, work: Work[State]) -> None:
        self._source, self._storage, self._work = source, storage, work
        self._chunks = -(-storage.pages // BLOCK_PAGES)
        self._next = 0
        self._taking = Lock()
        count = max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0)), -(-self._chunks // BATCH_CHUNKS)))
        self._room = Semaphore(AHEAD * count)
        self._done: SimpleQueue[tuple[int, int, State | None, BaseException | None]] = SimpleQueue()
        self._threads = [Thread(target=self._serve, name=f"hibercheck-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Start the threads.

        Raises:
            InputProblem: Not even one can be started.
        """
        for thread in self._threads:
            try:
                thread.start()
            except RuntimeError:  # a limit of threads; fewer will do
                break
        if self._threads[0].ident is None:
            raise InputProblem("no thread can be started to read it", path=self._source.path)

    def stop(self) -> None:
        """Let each thread finish its batch, and wait for that."""
        with self._taking:
            self._next = self._chunks
        self._room.release(len(self._threads))
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def results(self) -> Iterator[tuple[int, State]]:
        """Yield (end of the batch, what became of it) in the order of the stream, up to the first that failed."""
        early: dict[int, tuple[int, State | None, BaseException | None]] = {}
        expected = 0
        while expected < self._chunks:
            while expected not in early:
                first, end, state, problem = self._done.get()
                early[first] = end, state, problem
            expected, state, problem = early.pop(expected)
            self._room.release()
            if problem is not None:
                raise problem
            yield expected, state  # type: ignore[misc]  # there is a state where there is no problem

    def _serve(self) -> None:
        buffer = memoryview(b"")
        while True:
            self._room.acquire()
            taken = self._take()
            if taken is None:
                return
            first, end, ranges = taken
            state, problem = None, None
            try:
                size = sum(size for _, size in ranges)
                if size > len(buffer):
                    buffer = memoryview(bytearray(size))
                self._source.fill(buffer, ranges)
                state = self._work(first, self._storage.unpack(first, end, buffer[:size]))
            except BaseException as why:  # noqa: BLE001 - for the main thread to raise, whatever it is
                problem = why
                self._end()
            self._done.put((first, end, state, problem))

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
            except BaseException as problem:  # noqa: BLE001 - as above
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


def _joined(ranges: Ranges) -> Ranges:
    """Join ranges that follow one another in the file."""
    joined: Ranges = []
    for offset, size in ranges:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = joined[-1][0], joined[-1][1] + size
        else:
            joined.append((offset, size))
    return joined
