"""Makes a large image out of a real one: the same kernel with more memory, for measuring."""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import replace
from pathlib import Path

from hibercheck.swsusp.image import Image, open_image
from tests.support import image_format as fmt
from tests.support.image_format import BLOCK_PAGES, PAGE

FIRST_ADDED = 0x100000
"""First PFN of the added memory: 4 GiB, above all that the small machines have."""


def enlarge(
    source: Path,
    target: Path,
    *,
    frames: int,
    run: int = 16,
    tiny: bool = True,
    checksum: bool = False,
    compressor: str | None = None,
) -> Path:
    """Write an image like ``source`` with ``frames`` frames in all.

    Args:
        source: A real, compressed image.
        target: Where to write.
        frames: Frames that it shall hold; those added have PFNs from `FIRST_ADDED` on.
        run: Added frames come in runs of this length with a gap of one frame between them.
        tiny: Whether what is added is zeros, and so takes one page a block; else it is the source's own data again.
        compressor: ``lzo`` or ``lz4``; as the source has it by default.
        checksum: Whether the checksum is made right, for which everything is gone through.
    """
    with open_image(str(source)) as image:
        return _enlarge(image, target, frames, run, tiny, checksum, compressor or image.compressor)


def _enlarge(image: Image, target: Path, frames: int, run: int, tiny: bool, checksum: bool, kind: str) -> Path:
    own = [pfn for first, length in image.pfns.runs() for pfn in range(first, first + length)]
    assert not image.pfns.has_zero_flag
    pages = [image.frame(pfn) or b"" for pfn in own]
    added = frames - len(own)
    words = array("Q", own)
    for first in range(0, added, run):
        start = FIRST_ADDED + first + first // run
        words.extend(range(start, start + min(run, added - first)))
    if len(words) % fmt.PER_META_PAGE:
        words.append(fmt.END)
    list_bytes = words.tobytes()
    list_bytes += bytes(-len(list_bytes) % PAGE)
    head = list_bytes + b"".join(pages)
    size = BLOCK_PAGES * PAGE
    # Blocks of nothing but the source's own data, which are stored again where not only zeros are added.
    own_blocks = range(-(-len(list_bytes) // size), len(head) // size)
    zeros = bytes(size)
    # Up to where the source's own pages end, and on to the end of that block with pages that are added.
    padding = zeros if tiny else head[own_blocks[0] * size : (own_blocks[0] + 1) * size]
    total = len(list_bytes) // PAGE + frames
    head += padding[: min(-len(head) % size, (total * PAGE - len(head)))]
    crc = 0
    with target.open("wb") as out:
        writer = _Writer(out)
        writer.put(_info(image, frames, total))
        filler: list[tuple[bytes, bytes]] = []
        for number, first in enumerate(range(0, len(head), size)):
            plain = head[first : first + size]
            stored = fmt.stored_block(fmt.compress(kind, plain))
            writer.put(stored)
            crc = fmt.running_crc([plain], crc) if checksum else 0
            if not tiny and number in own_blocks:
                filler.append((plain, stored))
        filler = filler or [(zeros, fmt.stored_block(fmt.compress(kind, zeros)))] * fmt.MAP_ENTRIES
        rest = total - len(head) // PAGE
        for first in range(0, rest // BLOCK_PAGES, len(filler)):
            added_now = filler[: rest // BLOCK_PAGES - first]
            writer.put(b"".join(stored for _, stored in added_now))
            crc = fmt.running_crc([plain for plain, _ in added_now], crc) if checksum else 0
        if rest % BLOCK_PAGES:
            last = filler[0][0][: rest % BLOCK_PAGES * PAGE]
            writer.put(fmt.stored_block(fmt.compress(kind, last)))
            crc = fmt.running_crc([last], crc) if checksum else 0
        first_map = writer.finish()
        out.seek(0)
        out.write(fmt.header_page(image=first_map, flags=fmt.COMPRESSION_FLAGS[kind], crc32=crc))
    return target


def _info(image: Image, frames: int, total: int) -> bytes:
    page = bytearray(image.source.read(image.swap_map.run_at(0)[0], PAGE))
    info = replace(image.info, num_physpages=frames * 2, image_pages=frames, pages=total + 1, size=(total + 1) * PAGE)
    struct.pack_into("<Q", page, 400, info.num_physpages)
    struct.pack_into("<3Q", page, 416, info.image_pages, info.pages, info.size)
    return bytes(page)


class _Writer:
    """Lays stored pages out as the kernel does on empty swap: a map page, the 511 pages that it lists, and so on."""

    def __init__(self, out) -> None:
        self._out = out
        self._next = 1
        self._buffer = bytearray()

    def put(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= fmt.MAP_ENTRIES * PAGE:
            self._flush(fmt.MAP_ENTRIES)

    def _flush(self, count: int) -> None:
        group = range(self._next + 1, self._next + 1 + count)
        following = group[-1] + 1 if count == fmt.MAP_ENTRIES else 0
        page = struct.pack("<512Q", *group, *[0] * (fmt.MAP_ENTRIES - count), following)
        self._out.seek(self._next * PAGE)
        self._out.write(page)
        self._out.write(self._buffer[: count * PAGE])
        del self._buffer[: count * PAGE]
        self._next = group[-1] + 1

    def finish(self) -> int:
        """Write what is left, and return the page number of the first map page."""
        if self._buffer:
            self._flush(len(self._buffer) // PAGE)
        else:
            self._out.seek(self._next * PAGE)
            self._out.write(bytes(PAGE))
        return 1


def free_bytes(path: Path) -> int:
    """Return the room on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
