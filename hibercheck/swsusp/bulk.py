"""Going through a whole stream: chunks decoded, and worked on, by all processors in batches.

The decoders, zlib.crc32 and pwrite release the interpreter's lock, so threads are enough.  A batch is large enough to
make the exchange between threads cheap, and no more than a few are under way, which bounds memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from hibercheck.errors import MalformedImage
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.stream import BlockStorage, Storage

BATCH_CHUNKS = 32
"""Chunks in a batch: 4 MiB of plain bytes."""
MAX_WORKERS = 8

Progress = Callable[[int, int], None]
"""Called with (pages done, pages in all)."""

State = TypeVar("State")
Damage = Callable[[int, MalformedImage], None]


def batches(
    storage: Storage,
    begin: Callable[[], State],
    work: Callable[[State, int, bytes | memoryview], None],
    damage: Damage,
    progress: Progress | None = None,
) -> Iterator[State]:
    """Decode every chunk in batches and yield what became of each batch, in order.

    Args:
        storage: The stream.
        begin: Makes the state of a batch.
        work: Called with that state, the number of each chunk of the batch in order, and its plain bytes; in a thread.
        damage: Called, in any thread, with the number of a chunk that does not decode and why.  If it returns, the
            chunk is left out.
        progress: Called after each batch.

    Raises:
        MalformedImage: The way to a chunk is lost: a length or the swap map lies.
    """
    chunks = -(-storage.pages // BLOCK_PAGES)
    workers = min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    pending: deque[tuple[int, Future[State]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for first in range(0, chunks, BATCH_CHUNKS):
                end = min(first + BATCH_CHUNKS, chunks)
                if isinstance(storage, BlockStorage):
                    storage.walk(end - 1)
                tasks = [_task(storage, number) for number in range(first, end)]
                pending.append((end, pool.submit(_run, first, tasks, begin(), work, damage)))
                if len(pending) > workers:
                    yield _finish(pending, storage.pages, progress)
            while pending:
                yield _finish(pending, storage.pages, progress)
        finally:
            for _, future in pending:
                future.cancel()


def _finish(pending: deque[tuple[int, Future[State]]], pages: int, progress: Progress | None) -> State:
    end, future = pending.popleft()
    state = future.result()
    if progress is not None:
        progress(min(end * BLOCK_PAGES, pages), pages)
    return state


def _task(storage: Storage, number: int) -> Callable[[], bytes | memoryview]:
    """Find chunk ``number``, which needs the order of the stream, and return what decodes it, which does not."""
    if isinstance(storage, BlockStorage):
        offset, data = storage.payload(number)
        return lambda: storage.decode(number, offset, data)
    data = storage.chunk(number)
    return lambda: data


def _run(
    first: int,
    tasks: list[Callable[[], bytes | memoryview]],
    state: State,
    work: Callable[[State, int, bytes | memoryview], None],
    damage: Damage,
) -> State:
    # The last chunk stays referenced until the next is decoded: freeing 128 KiB at the top of the heap makes glibc give
    # the memory back and fault it in again, which costs a factor of three.
    last: bytes | memoryview = b""
    for number, task in enumerate(tasks, first):
        try:
            plain = task()
        except MalformedImage as problem:
            damage(number, problem)
            continue
        work(state, number, plain)
        last = plain
    del last
    return state
