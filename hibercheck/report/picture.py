"""Physical memory in one line: what the image covers, and where the frames of parked CPUs lie in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hibercheck.data import dataclass

if TYPE_CHECKING:  # an image is drawn without the engine, whose modules took a third of the time of `image`
    from hibercheck.handoff.verdict.findings import CpuReport, FrameUse, ImageSummary

FULL, MOST, SOME, NONE = range(4)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a picture.

    Attributes:
        cells: For memory that the image covers wholly, by half or more, in part, and not at all.
        marks: For a frame that is replaced by something else, replaced by the same, left alone, and unknown.
    """

    cells: str
    marks: str = "x=o?"


UNICODE = Glyphs("█▓░·")
ASCII = Glyphs("#+-.")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of marks below the memory: a CPU and its frames."""

    label: str
    marks: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A strip of memory and the rows of marks that belong to it.

    Attributes:
        strip: One character for each equal share of physical memory.
        rows: Marks, aligned with the strip.
        frames: Frames that one character stands for.
        top: One past the last frame shown.
    """

    strip: str
    rows: tuple[Row, ...]
    frames: int
    top: int


def draw(image: ImageSummary, cpus: Sequence[CpuReport], width: int, glyphs: Glyphs = UNICODE) -> Picture:
    """Draw memory in at most ``width`` characters, with a row of marks for each CPU that has frames in it."""
    ends = [first + length for first, length in image.runs]
    touched = [use.pfn for cpu in cpus for use in cpu.footprint if use.pfn is not None]
    top = max([image.ram_pages, *ends, *(pfn + 1 for pfn in touched)], default=1) or 1
    frames = -(-top // max(width, 1))
    cells = -(-top // frames)
    strip = "".join(
        glyphs.cells[_cover(image.runs, cell * frames, min(frames, top - cell * frames))] for cell in range(cells)
    )
    rows = tuple(
        Row(f"CPU {cpu.cpu}", _marks(cpu.footprint, frames, cells, glyphs))
        for cpu in cpus
        if any(use.pfn is not None for use in cpu.footprint)
    )
    return Picture(strip, rows, frames, top)


def _cover(runs: Sequence[tuple[int, int]], first: int, length: int) -> int:
    """Say how much of the frames from ``first`` on the runs (ascending, disjoint) cover."""
    covered = 0
    index = max(bisect_right(runs, (first, 1 << 64)) - 1, 0)
    for start, size in runs[index:]:
        if start >= first + length:
            break
        covered += max(0, min(start + size, first + length) - max(start, first))
    if covered == 0:
        return NONE
    if covered >= length:
        return FULL
    return MOST if 2 * covered >= length else SOME


def _marks(footprint: Sequence[FrameUse], frames: int, cells: int, glyphs: Glyphs) -> str:
    """Mark the cells in which frames lie; of several in one cell the worst shows."""
    ranks = [len(glyphs.marks)] * cells
    for use in footprint:
        if use.pfn is not None:
            cell = use.pfn // frames
            ranks[cell] = min(ranks[cell], _rank(use))
    return "".join((glyphs.marks + " ")[rank] for rank in ranks).rstrip()


def _rank(use: FrameUse) -> int:
    if use.overwritten is None:
        return 3
    if not use.overwritten:
        return 2
    if use.same is None:
        return 3
    return 1 if use.same else 0
