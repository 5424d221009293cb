"""What hypothesis makes images of."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from tests.support.image_format import ERAS, PAGE
from tests.support.image_writer import ImageWriter


def page(seed: int) -> bytes | None:
    """Return a page: zeros, one byte over and over, text-like, or noise."""
    kind = seed % 4
    if kind == 0:
        return None
    if kind == 1:
        return bytes([seed & 255 or 1]) * PAGE
    if kind == 2:
        return (b"%d " % seed * PAGE)[:PAGE]
    return random.Random(seed).randbytes(PAGE)


@st.composite
def frames(draw: st.DrawFn, *, most: int = 60) -> dict[int, bytes | None]:
    """Draw runs of frames, here and there and up to the end of physical memory."""
    result: dict[int, bytes | None] = {}
    for first in draw(st.lists(st.integers(0, (1 << 40) - 1 - most) | st.integers(0, 2000), min_size=1, max_size=6)):
        for offset in range(draw(st.integers(1, most))):
            result[first + offset] = page(draw(st.integers(0, 1 << 20)))
    return result


@st.composite
def writers(draw: st.DrawFn) -> ImageWriter:
    """Draw sound images of every kind."""
    container = draw(st.sampled_from(["swap", "swap", "swap", "stream"]))
    return ImageWriter(
        frames=draw(frames()),
        compressor="none" if container == "stream" else draw(st.sampled_from(["lzo", "lz4", "none"])),
        era=draw(st.sampled_from(ERAS)),
        zero_flag=draw(st.booleans()),
        hw_sig=draw(st.none() | st.integers(0, 0xFFFFFFFF)),
        trailing_map_page=draw(st.booleans()),
        header_at=0 if container == "stream" else draw(st.sampled_from([0, 0, 1, 7])),
        shuffle=draw(st.none() | st.integers(0, 9)),
        consumed=container == "swap" and draw(st.booleans()),
        container=container,
    )
