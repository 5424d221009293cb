"""How fast images are verified and exported, beside the bare decompressor on the same blocks: all in one process.

What is compared runs in turns.  The decompressor alone gets its blocks in memory and keeps nothing: the best that one
thread can do.  Writing alone puts as many bytes as the core has into the same file system.

Before each that writes, a file is written there, untimed, and removed.  The host of a virtual machine takes back memory
that lies free for seconds, and who gets it next waits for the host to find other memory: measured so, writing takes ten
times as long, and nothing else matters.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hibercheck.swsusp.codec import BLOCK_SIZE
from hibercheck.swsusp.export import export
from hibercheck.swsusp.image import Image, open_image

WRITE = 2 << 20


@dataclass(frozen=True, slots=True)
class Rate:
    """What a contender took.

    Attributes:
        wall: Median of the seconds by the clock.
        least: The least of them: what is left when others disturb.
        cpu: Median of the seconds of processor time, of all threads.
    """

    wall: float
    least: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured.

    Attributes:
        name: What it is called.
        run: The work.
        target: The file that it writes, if it does.
        size: Bytes that it writes.
    """

    name: str
    run: Callable[[], object]
    target: Path | None = None
    size: int = 0


def bare(kind: str, blocks: list[bytes]) -> bytes | bytearray:
    """Decode blocks that are in memory, one after the other, keeping the last."""
    last: bytes | bytearray = b""
    if kind == "lzo":
        from lzallright import LZOCompressor  # noqa: PLC0415

        for block in blocks:
            last = LZOCompressor.decompress(block, BLOCK_SIZE)
    else:
        from lz4.block import decompress  # noqa: PLC0415

        for block in blocks:
            last = decompress(block, uncompressed_size=BLOCK_SIZE)
    return last


def write_alone(target: Path, size: int) -> None:
    """Write ``size`` bytes in large pieces, as ``dd bs=2M`` does."""
    piece = memoryview(bytes(WRITE))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for offset in range(0, size, WRITE):
            os.pwrite(descriptor, piece[: min(WRITE, size - offset)], offset)
    finally:
        os.close(descriptor)


def rates(path: Path, places: dict[str, Path], runs: int) -> tuple[float, dict[str, Rate]]:
    """Measure the image at ``path``.

    Args:
        path: A compressed image, whose checksum is right.
        places: Directories for the cores, and what to call them.
        runs: Turns; one more, which does not count, comes before.

    Returns:
        Bytes of the image's memory, and what each contender took.
    """
    with open_image(str(path)) as image:
        storage = image.stream.storage
        blocks = [bytes(storage.payload(number)[1]) for number in range(image.stream.chunks)]
        assert image.verify().ok
        contenders = [
            Contender("decompressor", lambda: bare(image.compressor, blocks)),
            Contender("verify", image.verify),
        ]
        for name, directory in places.items():
            contenders += _writers(image, directory / "core", name)
        return image.info.size, _in_turns(contenders, runs)


def _writers(image: Image, target: Path, name: str) -> list[Contender]:
    size = export(image, str(target)).written
    return [
        Contender(f"export to {name}", lambda: export(image, str(target)), target, size),
        Contender(f"writing alone to {name}", lambda: write_alone(target, size), target, size),
    ]


def _in_turns(contenders: list[Contender], runs: int) -> dict[str, Rate]:
    taken: dict[str, list[tuple[float, float]]] = {one.name: [] for one in contenders}
    for turn in range(runs + 1):
        for one in contenders:
            if one.target is not None:
                one.target.unlink(missing_ok=True)
                write_alone(one.target, one.size)
                one.target.unlink()
            wall, cpu = time.perf_counter(), time.process_time()
            one.run()
            if turn:
                taken[one.name].append((time.perf_counter() - wall, time.process_time() - cpu))
            if one.target is not None:
                one.target.unlink()
    return {
        name: Rate(statistics.median(walls), min(walls), statistics.median(cpus))
        for name, (walls, cpus) in ((name, tuple(zip(*each, strict=True))) for name, each in taken.items())
    }


def table(kind: str, volume: float, measured: dict[str, Rate]) -> str:
    """Render as Markdown; the ratios are of rates: above one is faster than the decompressor alone."""
    against = measured["decompressor"]
    lines = [
        f"### Rates ({kind})",
        "",
        f"{volume / 1e6:.0f} MB of memory in the image, one process, {len(os.sched_getaffinity(0))} processors.",
        "",
        "| | wall, s | least, s | processor, s | MB/s | of the decompressor's rate |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {one.wall:.3f} | {one.least:.3f} | {one.cpu:.3f} | {volume / 1e6 / one.wall:.0f} "
        f"| {against.wall / one.wall:.2f} |"
        for name, one in measured.items()
    ]
    return "\n".join([*lines, ""])
