"""Frames of an image that are not memory by its own map."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.cli.run import run
from hibercheck.handoff.acceptance.held import Held, held_outside, not_in
from hibercheck.handoff.facts.embedded import own_space
from hibercheck.swsusp.image import open_image


@pytest.fixture
def moved(committed, tmp_path):
    """Return a function that gives an image, not compressed, with its last frame below a number moved there."""
    source = committed("latent")["image"]

    def move(pfn):
        data = bytearray(Path(source).read_bytes())
        with open_image(source) as image:
            pages = [image.swap_map.run_at(1 + number)[0] for number in range(image.info.meta_pages)]
        for page in reversed(pages):
            words = struct.unpack_from("<512Q", data, page)
            below = [index for index, word in enumerate(words) if 0 < word < pfn]
            if below:
                struct.pack_into("<Q", data, page + 8 * below[-1], pfn)
                break
        path = tmp_path / "moved.bin"
        path.write_bytes(data)
        return str(path)

    return move


@pytest.mark.parametrize(
    ("pfn", "held"),
    [
        (0xF0, Held(((0xF0, 1),), None)),  # measured: a frame of ROM is loaded, and the machine resumes
        (0x9000, Held(((0x9000, 1),), 0x9000)),  # measured: beyond the last frame of RAM, resume failed (-14)
    ],
)
def test_a_frame_that_is_no_memory(moved, pfn, held, capsys):
    path = moved(pfn)
    with open_image(path) as image, own_space(image) as space:
        assert held_outside(image, space) == held
    assert run(["image", path, "--verify"]) == (0 if held.refused is None else 1)
    assert f"frame {pfn:#x} is not memory by the image's own map" in capsys.readouterr().out
    assert run(["image", path, "--verify", "--format", "json"]) == (0 if held.refused is None else 1)
    told = json.loads(capsys.readouterr().out)["verification"]["frames"]
    assert told == {"compared": True, "not_memory": [[pfn, 1]], "refused": held.refused}


def test_an_image_whose_kernel_cannot_be_read_is_not_compared(committed):
    """Its kernel was built without CONFIG_KALLSYMS_ALL, so that the image has no name of any variable."""
    with open_image(committed("lz4-zero-pages")["image"]) as image, own_space(image) as space:
        assert held_outside(image, space) is None


@pytest.mark.parametrize("name", ["latent", "fatal", "same-build", "paging-mode"])
def test_an_image_as_the_kernel_made_it(committed, name):
    with open_image(committed(name)["image"]) as image, own_space(image) as space:
        assert held_outside(image, space) == Held((), None)


_RUNS = st.lists(st.integers(1, 12), max_size=12).map(
    lambda steps: [(sum(steps[: 2 * n + 1]), steps[2 * n + 1]) for n in range(len(steps) // 2)]
)


@given(_RUNS, _RUNS)
def test_what_is_not_in_the_other_frame_by_frame(held, ram):
    ranges = [(first, first + length) for first, length in ram]
    memory = {pfn for first, end in ranges for pfn in range(first, end)}
    frames = [pfn for first, length in held for pfn in range(first, first + length)]
    found = [pfn for first, length in not_in(held, ranges) for pfn in range(first, first + length)]
    assert found == sorted({pfn for pfn in frames if pfn not in memory})
