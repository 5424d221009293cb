"""An image that was resumed, and over which swap was written: what is left, and never that the disk is damaged."""

from __future__ import annotations

import random

import pytest

from hibercheck.errors import MalformedImage
from hibercheck.files.source import open_unpacked
from hibercheck.swsusp.image import open_image
from hibercheck.swsusp.remains import survey
from tests.support.image_format import PAGE
from tests.support.image_writer import ImageWriter

BANNER = b"Linux version 6.1.0-50-test (a@b) (gcc 12) #1 SMP Mon Nov 23 2026\n\0"


def pages(count):
    draw = random.Random(5)
    frames = {pfn: draw.randbytes(PAGE // 2) + bytes(PAGE // 2) for pfn in range(1000, 1000 + count)}
    frames[1000 + count // 2] = BANNER.ljust(PAGE, b"x")
    return frames


FRAMES = pages(2000)


def overwritten(tmp_path, where, **more):
    """Write a consumed image and swap's own random pages over some of its pages."""
    data = bytearray(ImageWriter(frames=FRAMES, consumed=True, **more).encode())
    draw = random.Random(9)
    for number in where:
        data[number * PAGE : (number + 1) * PAGE] = draw.randbytes(PAGE)
    path = tmp_path / "swap"
    path.write_bytes(data)
    return path, len(data) // PAGE


def left(path, **more):
    with open_unpacked(str(path), MalformedImage) as source:
        return survey(source, 0, 0)


@pytest.mark.parametrize("compressor", ["lzo", "lz4"])
def test_all_of_it_is_left_where_nothing_was_written(tmp_path, compressor):
    path, _ = overwritten(tmp_path, (), compressor=compressor)
    found = left(path)
    with open_image(str(path)) as image:
        assert found.whole == image.stream.pages
        assert found.banner.startswith("Linux version 6.1.0-50-test ")


@pytest.mark.parametrize("compressor", ["lzo", "lz4"])
def test_without_the_first_map_page_the_others_are_found(tmp_path, compressor):
    whole, _ = overwritten(tmp_path, (), compressor=compressor)
    everything = left(whole).whole
    path, _ = overwritten(tmp_path, (1,), compressor=compressor)
    rest = left(path)
    assert 0 < rest.whole < everything
    with pytest.raises(
        MalformedImage, match=r"first pages are overwritten; \d+ pages of it.* are still whole.*noresume"
    ):
        open_image(str(path))


def test_each_page_written_over_costs_a_block_or_two(tmp_path):
    draw = random.Random(3)
    whole, count = overwritten(tmp_path, ())
    everything = left(whole).whole
    gone = sorted(draw.sample(range(10, count - 10), 5))
    path, _ = overwritten(tmp_path, gone)
    assert everything - 10 * 32 <= left(path).whole < everything
    with open_image(str(path)) as image:
        assert image.header.consumed
        problems = []
        for pfn in FRAMES:
            try:
                image.frame(pfn)
            except MalformedImage as problem:
                problems.append(str(problem))
        assert problems
        assert all("resumed or given up, and swap lies over parts of it" in line for line in problems)


def test_a_pfn_list_that_is_gone(tmp_path):
    path, _ = overwritten(tmp_path, (3, 4))
    with open_image(str(path)) as image, pytest.raises(MalformedImage, match=r"swap lies over parts of it.*noresume"):
        len(image.pfns)


def test_uncompressed_pages_tell_nothing(tmp_path):
    path, _ = overwritten(tmp_path, (1,), compressor="none")
    assert left(path).whole is None
    with pytest.raises(MalformedImage, match="nobody can tell which are whole"):
        open_image(str(path))


def test_nothing_left(tmp_path):
    _, count = overwritten(tmp_path, ())
    path, _ = overwritten(tmp_path, range(1, count))
    with pytest.raises(MalformedImage, match="nothing of it is left"):
        open_image(str(path))


def test_swap_that_never_held_an_image_is_plain(tmp_path):
    data = bytearray(ImageWriter(frames={1: None}, consumed=True).encode())
    data[PAGE - 32 : PAGE - 24] = bytes(8)
    path = tmp_path / "swap"
    path.write_bytes(data)
    with pytest.raises(MalformedImage, match="plain swap space, no hibernation image"):
        open_image(str(path))
