"""Targets that read hibernation images: real ones in place, small made ones of every era, and packed ones."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import lz4.frame

from hibercheck.swsusp.image import open_image
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import Region, mutate_bytes, patch_fields
from tests.fuzz.seeds import Copy, cases, unpack
from tests.support import image_format as fmt
from tests.support.image_writer import ImageWriter

PAGE = 4096
Target = Callable[[Draw], None]


def image_regions(path: Path) -> list[Region]:
    """Where the fields of an image are: header, info page, swap map, block lengths, PFN list."""
    with open_image(str(path)) as image:
        image.swap_map.stored_pages()
        found = [
            Region("header", image.header_offset + PAGE - 40, 4, 4),
            Region("crc32", image.header_offset + PAGE - 36, 4, 4),
            Region("map start", image.header_offset + PAGE - 32, 8),
            Region("flags", image.header_offset + PAGE - 24, 4, 4),
            Region("signatures", image.header_offset + PAGE - 20, 20, 1),
        ]
        info, _ = image.swap_map.run_at(0)
        found += [Region("record", info, 40), Region("info", info + 400, 48)]
        found += [Region("map page", PAGE * number, PAGE) for number in sorted(image.swap_map.seen)]
        storage = image.stream.storage
        if image.compressor == "none":
            pages = [image.swap_map.run_at(1 + number)[0] for number in range(image.info.meta_pages)]
            found += [Region("PFN list", place, PAGE) for place in pages] * 4
        else:
            storage.walk(image.stream.chunks - 1)
            blocks = [image.swap_map.run_at(start)[0] for start in storage.starts[:-1]]
            found += [Region("block length", place, 8) for place in blocks[:256]]
            found += [Region("block", place + 8, PAGE - 8, 1) for place in blocks[:8]] * 8
        return found


def read_image(path: Path, draw: Draw, *, verify: bool) -> None:
    """Ask an image everything that a check asks."""
    with open_image(str(path), resume_offset=draw.below(4) if draw.chance(16) else None) as image:
        pfns = image.pfns
        assert pfns.zero_count <= len(pfns)
        for first, length in pfns.runs():
            for pfn in (first, first + length - 1):
                assert pfn in pfns
        for _ in range(8):
            frame = image.frame(draw.below(1 << 15))
            assert frame is None or len(frame) == PAGE
        image.find_banner()
        if verify:
            image.verify()


def real_images(directory: Path) -> Target:
    """Images of the measured cases, damaged in place."""
    names = sorted({case["image"] for case in cases()})[:2]
    seeds = []
    for name in names:
        copy = Copy(unpack(name), directory)
        seeds.append((copy, image_regions(copy.path)))

    def run(draw: Draw) -> None:
        copy, regions = draw.choice(seeds)
        with copy.damaged(patch_fields(draw, regions, copy.read)) as path:
            read_image(path, draw, verify=False)

    return run


def _made(draw: Draw) -> bytes:
    first = draw.choice((1, 0x100, (1 << 40) - 700))
    frames = {first + n * draw.choice((1, 1, 3)): bytes([n & 255]) * PAGE for n in range(draw.choice((1, 40, 600)))}
    return ImageWriter(
        frames=frames,
        compressor=draw.choice(("lzo", "lz4", "none")),
        era=draw.choice(sorted(fmt.ERAS)),
        zero_flag=draw.chance(2),
        trailing_map_page=draw.chance(2),
        header_at=draw.choice((0, 0, 3)),
        shuffle=draw.choice((None, 1)),
        consumed=draw.chance(4),
        container=draw.choice(("swap", "swap", "swap", "stream")),
    ).encode()


def made_images(directory: Path) -> Target:
    """Small images of every era, damaged anywhere, and then verified too."""
    path = directory / "made.bin"

    def run(draw: Draw) -> None:
        data = _made(draw)
        pages = len(data) // PAGE
        regions = [Region("header", PAGE * n + PAGE - 40, 40, draw.choice((1, 4, 8))) for n in range(min(pages, 4))]
        regions += [Region("page", PAGE * n, PAGE) for n in range(min(pages, 8))]
        path.write_bytes(mutate_bytes(draw, data, regions, most=6))
        read_image(path, draw, verify=True)

    return run


def _pack(form: str, data: bytes) -> bytes:
    if form == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if form == "xz":
        return lzma.compress(data, preset=0)
    if form == "lz4":
        return lz4.frame.compress(data)
    if form == "zstd":
        try:
            from compression import zstd  # noqa: PLC0415 - Python 3.14
        except ImportError:
            from backports import zstd  # noqa: PLC0415
        return zstd.compress(data)
    return bz2.compress(data)


def packed_images(directory: Path) -> Target:
    """Compressed copies of swap devices, damaged before and after they are packed."""
    path = directory / "packed.bin"
    forms = ("gzip", "xz", "lz4", "zstd", "bzip2")

    def run(draw: Draw) -> None:
        data = _made(draw)
        if draw.chance(4):
            data = mutate_bytes(draw, data)
        packed = _pack(draw.choice(forms), data)
        if draw.chance(16):
            packed = _pack("gzip", bytes(draw.between(1, 64) << 20))
        path.write_bytes(mutate_bytes(draw, packed, [Region("start", 0, 64, 1)] * 4))
        read_image(path, draw, verify=False)

    return run
