"""Reading is the inverse of writing, for every kind of image."""

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings

from hibercheck.swsusp.image import open_image
from tests.support.image_format import END, MAP_ENTRIES, PAGE
from tests.support.image_writer import ZERO, ImageWriter
from tests.swsusp.strategies import page, writers


@settings(deadline=None, max_examples=150)
@given(writers())
def test_reader_of_writer_is_identity(tmp_path_factory, writer):
    path = writer.write(tmp_path_factory.mktemp("image") / "image.bin")
    with open_image(str(path)) as image:
        assert {pfn: image.frame(pfn) for pfn in writer.frames} == {
            pfn: content or ZERO for pfn, content in writer.frames.items()
        }
        assert len(image.pfns) == len(writer.frames)
        assert [pfn for first, length in image.pfns.runs() for pfn in range(first, first + length)] == sorted(
            writer.frames
        )
        zeros = {pfn for pfn, content in writer.frames.items() if (content or ZERO) == ZERO}
        assert {pfn for pfn in writer.frames if image.pfns.is_zero(pfn)} == (zeros if writer.zero_flag else set())
        assert image.frame(max(writer.frames) + 1) is None
        for pfn in sorted(writer.frames)[:8]:
            around = range(max(pfn - 1, 0), pfn + 70)
            assert image.frames(around.start, len(around)) == b"".join(image.frame(one) or ZERO for one in around)
        assert image.record.cr3 == writer.cr3
        assert image.record.jump_address == writer.jump
        assert image.header.consumed == writer.consumed
        assert image.compressor == writer.compressor
        result = image.verify()
        assert result.problems == ()
        assert result.crc_computed is not None


@pytest.mark.parametrize(("era", "phys", "checksum", "digest"), [
    ("4.7", False, False, False),
    ("4.8", True, False, False),
    ("4.10", True, False, True),
    ("5.14", True, True, False),
])  # fmt: skip
def test_arch_record_of_every_era(tmp_path, era, phys, checksum, digest):
    writer = ImageWriter(frames={1: None}, era=era)
    with open_image(str(writer.write(tmp_path / "i"))) as image:
        record = image.record
        assert record.jump_address_phys == (writer.jump_phys if phys else None)
        assert record.e820_checksum == (zlib.crc32(writer.e820) if checksum else None)
        assert (record.e820_digest is not None) == digest


def test_hw_sig_counts_only_with_its_flag(tmp_path):
    with open_image(str(ImageWriter(frames={1: None}, hw_sig=0x1234).write(tmp_path / "i"))) as image:
        assert image.header.hw_sig == 0x1234
    with open_image(str(ImageWriter(frames={1: None}).write(tmp_path / "i"))) as image:
        assert image.header.hw_sig is None


@pytest.mark.parametrize("trailing", [False, True])
def test_map_that_ends_full(tmp_path, trailing):
    # An info page, one page of PFN list, and as many data pages as make the map end with its page.
    frames = {pfn: page(4 * pfn + 3) for pfn in range(MAP_ENTRIES - 2)}
    writer = ImageWriter(frames=frames, compressor="none", trailing_map_page=trailing)
    with open_image(str(writer.write(tmp_path / "i"))) as image:
        assert image.frame(MAP_ENTRIES - 3) == frames[MAP_ENTRIES - 3]
        assert len(image.swap_map.seen) == 1 + trailing
        assert image.verify().ok


@pytest.mark.parametrize("count", [511, 512, 513, 1023, 1024])
def test_pfn_list_that_ends_with_its_page(tmp_path, count):
    writer = ImageWriter(frames={pfn: page(2) for pfn in range(5, 5 + count)})
    with open_image(str(writer.write(tmp_path / "i"))) as image:
        assert list(image.pfns.runs()) == [(5, count)]


def test_all_ones_is_the_end_and_not_a_zero_page(tmp_path):
    assert END >> 63
    writer = ImageWriter(frames={1: None, 2: None}, zero_flag=True)
    with open_image(str(writer.write(tmp_path / "i"))) as image:
        assert (len(image.pfns), image.pfns.zero_count, image.info.image_pages) == (2, 2, 0)
        assert image.frame(2) == bytes(PAGE)


def test_a_frame_decodes_its_block_and_no_other(tmp_path):
    frames = {pfn: page(4 * pfn + 3) for pfn in range(1000)}
    writer = ImageWriter(frames=frames, damage=["block-garbage"], damaged_block=20)
    with open_image(str(writer.write(tmp_path / "i"))) as image:
        assert image.frame(999) == frames[999]


def test_many_frames_are_read_with_a_few_blocks_in_memory(tmp_path):
    frames = {pfn: page(4 * pfn + 3) for pfn in range(3000)}
    with open_image(str(ImageWriter(frames=frames, compressor="lz4").write(tmp_path / "i"))) as image:
        assert image.frame(0) == frames[0]  # so that what is read once is there
        tracemalloc.start()
        try:
            for pfn in (*range(0, 3000, 31), *range(2999, 0, -37)):
                assert image.frame(pfn) == frames[pfn]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 40 * 32 * PAGE  # of 94 blocks


def test_consumed_image_is_read_with_a_warning(tmp_path):
    with open_image(str(ImageWriter(frames={1: None}, consumed=True).write(tmp_path / "i"))) as image:
        assert "consumed" in image.warnings[0]


def test_flags_of_the_future_are_warned_of(tmp_path):
    data = bytearray(ImageWriter(frames={1: None}).encode())
    data[4072] |= 64
    (tmp_path / "i").write_bytes(data)
    with open_image(str(tmp_path / "i")) as image:
        assert "flags that are not known (0x40)" in image.warnings[0]
