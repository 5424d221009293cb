"""Every kind of damage has its own message, and none goes unnoticed."""

import re
from pathlib import Path

import pytest

from hibercheck.errors import MalformedImage
from hibercheck.swsusp.image import open_image
from tests.support.image_writer import DAMAGES, ImageWriter
from tests.swsusp.strategies import page

FRAMES = {pfn: page(4 * pfn + 3) for pfn in range(0x100, 0x100 + 700)}

OPENING = {
    "map-loop": r"the swap map loops: map page \d+ was already read \(at byte 0x[0-9a-f]+\)",
    "map-overlong": None,
    "map-short": None,
    "map-next-beyond": r"continues at page \d+, beyond the end of the file \(at byte 0x1ff8\)",
    "map-entry-beyond": r"lists page \d+, beyond the end of the file \(at byte 0x[0-9a-f]+\); the file may be cut",
    "map-empty": r"the first swap map page is empty \(at byte",
    "map-hole": r"the first swap map page lies in a hole of the sparse file \(at byte",
    "truncated": r"beyond the end of the file",
    "info-contradicts": r"the info page contradicts itself: 703 pages, 700 of them data, 1 bytes \(at byte 0x2000\)",
    "count-of-pages": r"the info page announces \d+ pages, more than any machine .* has \(at byte 0x2000\)",
}
LISTING = {
    "pfn-twice": r"the PFN list names a frame twice \(PFN 0x25d\)",
    "pfn-unsorted": r"the PFN list is out of order: it follows PFN 0x25e \(PFN 0x25d\)",
    "pfn-impossible": r"impossible page frame number \(PFN 0x20000000000\)",
    "pfn-list-ends-early": r"the PFN list has ended and yet pages of it follow \(PFN 0x25d\)",
    "count-of-data": r"names 700 data pages, the info page 701 \(at byte 0x2000\)",
}
READING = {
    "length-zero": r"compressed block 5 says that it is 0 bytes long; 1 to 139333 is possible \(at byte",
    "length-huge": r"compressed block 5 says that it is 139334 bytes long; 1 to 139333 is possible \(at byte",
    "length-short": r"compressed block 5 is not valid LZO data",
    "block-short": r"compressed block 5 decodes to 65536 bytes instead of 131072 \(at byte",
    "block-uneven": r"compressed block 5 decodes to 130972 bytes instead of 131072 \(at byte",
    "block-garbage": r"compressed block 5 (is not valid LZO data|decodes to)",
    "bomb": r"compressed block 5 decodes to \d+ bytes instead of 131072",
}
VERIFYING = {
    "crc": r"the checksum is 0x[0-9a-f]{8}, the header says 0x[0-9a-f]{8} \(at byte 0xfdc\)",
    "data-flipped": r"the checksum is 0x[0-9a-f]{8}, the header says 0x[0-9a-f]{8} \(at byte 0xfdc\)",
    "map-overlong": r"the swap map lists 3 stored pages more than .* takes, from here on \(at byte 0x[0-9a-f]+\)",
    "map-short": r"swap map ends|beyond|lists",
}


def write(tmp_path, damage, **more):
    return str(ImageWriter(frames=FRAMES, damage=[damage], damaged_block=5, **more).write(tmp_path / "image.bin"))


def test_every_damage_is_tested():
    assert set(DAMAGES) == set(OPENING) | set(LISTING) | set(READING) | set(VERIFYING) | {"hole"}


@pytest.mark.parametrize("damage", [name for name, message in OPENING.items() if message])
def test_damage_seen_on_opening(tmp_path, damage):
    path = write(tmp_path, damage, compressor="none")
    with pytest.raises(MalformedImage, match=OPENING[damage]) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", LISTING)
def test_damage_of_the_list(tmp_path, damage):
    path = write(tmp_path, damage)
    with open_image(path) as image:
        with pytest.raises(MalformedImage, match=LISTING[damage]) as caught:
            _ = image.pfns
        assert str(caught.value).startswith(f"{path}: ")
        assert any(re.search(LISTING[damage], problem) for problem in image.verify().problems)


@pytest.mark.parametrize("damage", READING)
def test_damage_of_a_block(tmp_path, damage):
    with open_image(write(tmp_path, damage)) as image:
        first = 5 * 32 - image.info.meta_pages
        with pytest.raises(MalformedImage, match=READING[damage]):
            image.frame(0x100 + first)
        assert image.frame(0x100) == FRAMES[0x100]
        assert image.frame(0x100 + first - 1) == FRAMES[0x100 + first - 1]
        assert any(re.search(READING[damage], problem) for problem in image.verify().problems)


@pytest.mark.parametrize("damage", ["length-short", "block-short", "bomb", "block-garbage"])
def test_damage_of_an_lz4_block(tmp_path, damage):
    with open_image(write(tmp_path, damage, compressor="lz4")) as image:
        problems = image.verify().problems
        assert len(problems) == 1
        assert "compressed block 5" in problems[0]
        assert problems[0].endswith("frames 0x19e to 0x1bd are lost")


@pytest.mark.parametrize("damage", VERIFYING)
def test_damage_seen_on_verifying(tmp_path, damage):
    path = write(tmp_path, damage)
    try:
        with open_image(path) as image:
            problems = image.verify().problems
    except MalformedImage as problem:
        problems = (str(problem),)
    assert any(re.search(VERIFYING[damage], problem) for problem in problems), problems


def test_map_that_ends_early_in_a_plain_image(tmp_path):
    with pytest.raises(MalformedImage, match=r"702 stored pages, an image of 703 pages needs 703 \(at byte 0x2000\)"):
        open_image(write(tmp_path, "map-short", compressor="none"))


@pytest.mark.parametrize("compressor", ["lzo", "lz4"])
def test_hole_in_the_data(tmp_path, compressor):
    with open_image(write(tmp_path, "hole", compressor=compressor)) as image:
        with pytest.raises(MalformedImage, match=r"lies in a hole of the sparse file \(at byte"):
            _ = [image.frame(pfn) for pfn in FRAMES]
        assert any("lies in a hole of the sparse file" in problem for problem in image.verify().problems)


def test_no_damage_of_a_plain_image_but_a_checksum(tmp_path):
    with open_image(write(tmp_path, "data-flipped", compressor="none")) as image:
        result = image.verify()
    assert result.ok
    assert result.crc_expected is None


def test_lists_in_too_many_pieces_are_refused_before_they_fill_memory(tmp_path, monkeypatch):
    path = ImageWriter(frames=dict.fromkeys(range(0, 6000, 2))).write(tmp_path / "i")
    monkeypatch.setattr("hibercheck.swsusp.pfns.MAX_RUNS", 1000)
    with (
        open_image(str(path)) as image,
        pytest.raises(MalformedImage, match="the PFN list is in more than 1000 pieces"),
    ):
        _ = image.pfns
    path = ImageWriter(frames=FRAMES, compressor="none", shuffle=1).write(tmp_path / "i")
    monkeypatch.setattr("hibercheck.swsusp.runs.MAX_RUNS", 100)
    with pytest.raises(MalformedImage, match=f"{path}: the swap map is in more than 100 pieces"):
        open_image(str(path))


def test_the_file_is_released_after_damage(tmp_path):
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for damage in ("map-loop", "info-contradicts"):
        with pytest.raises(MalformedImage):
            open_image(write(tmp_path, damage, compressor="none"))
    assert len(list(descriptors.iterdir())) == before
