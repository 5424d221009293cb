"""What the image command says: gathered once, rendered as JSON here and as text in `hibercheck.report.image_text`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image
    from hibercheck.swsusp.verify import VerifyResult

SCHEMA_VERSION = 1
PICTURE_COLUMNS = 64
PICTURE_ROWS = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """Physical memory in rows of cells.

    Attributes:
        frames: Frames that a cell stands for, a power of two.
        rows: For each row that has any frame of the image: its first PFN, and for each cell how many frames are in it.
    """

    frames: int
    rows: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class ImageView:
    """Everything the command shows of an image.

    Attributes:
        image: The open image.
        banner: The kernel's banner, or None where it was not found.
        stored_pages: Pages of the device that the image takes, its map pages not counted.
        picture: Physical memory.
        verified: What a verification found, if one was asked for.
        with_runs: Whether the runs are listed.
    """

    image: Image
    banner: str | None
    stored_pages: int
    picture: Picture
    verified: VerifyResult | None
    with_runs: bool

    @property
    def release(self) -> str | None:
        """The kernel's release, out of its banner."""
        return None if self.banner is None else self.banner.split(" ")[2]

    @property
    def share(self) -> float:
        """Share of the machine's RAM that is in the image."""
        return len(self.image.pfns) / max(self.image.info.num_physpages, 1)


def view(
    image: Image, *, verified: VerifyResult | None = None, with_runs: bool = False, columns: int = PICTURE_COLUMNS
) -> ImageView:
    """Gather what there is to show.

    Args:
        image: The image.
        verified: What a verification found, if one was asked for.
        with_runs: Whether the runs are listed.
        columns: Cells in a row of the picture.

    Raises:
        MalformedImage: The image is damaged on the way to its PFN list.
    """
    from hibercheck.swsusp.stream import BlockStorage  # noqa: PLC0415 - JSON of other reports needs no decoder

    storage = image.stream.storage
    stored = image.info.pages
    if isinstance(storage, BlockStorage):
        storage.walk(image.stream.chunks - 1)
        stored = storage.stored_pages
    return ImageView(
        image=image,
        banner=_banner(image),
        stored_pages=stored,
        picture=picture(image, columns),
        verified=verified,
        with_runs=with_runs,
    )


def _banner(image: Image) -> str | None:
    """Return the banner if it can be found: a damaged block on the way is for a verification to report."""
    try:
        return image.find_banner(everywhere=True)
    except MalformedImage:
        return None


def picture(image: Image, columns: int = PICTURE_COLUMNS) -> Picture:
    """Draw what is in the image over physical memory, coarse enough for `PICTURE_ROWS` rows of so many ``columns``."""
    pfns = image.pfns
    span = pfns.last + 1
    frames = 1
    while frames * columns * PICTURE_ROWS < span:
        frames *= 2
    rows = []
    for first in range(0, span, frames * columns):
        cells = tuple(pfns.count_between(first + cell * frames, first + (cell + 1) * frames) for cell in range(columns))
        if any(cells):
            rows.append((first, cells))
    return Picture(frames, tuple(rows))


def to_dict(shown: ImageView) -> dict[str, Any]:
    """Return the view as plain JSON values: addresses and checksums as hexadecimal strings, counts as numbers."""
    image = shown.image
    header, info, record, pfns = image.header, image.info, image.record, image.pfns
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "hibercheck", "version": __version__},
        "path": image.path,
        "container": "snapshot stream" if image.swap_map is None else "swap",
        "consumed": header.consumed,
        "compressor": image.compressor,
        "kernel": {"release": shown.release, "banner": shown.banner},
        "header": {
            "offset": image.header_offset,
            "image": header.image,
            "flags": [flag.name for flag in header.flags if flag.name],
            "crc32": _hex(image.crc32),
            "hw_sig": _hex(header.hw_sig),
        },
        "info": {
            "num_physpages": info.num_physpages,
            "image_pages": info.image_pages,
            "pages": info.pages,
            "size": info.size,
        },
        "record": {
            "jump_address": _hex(record.jump_address),
            "jump_address_phys": _hex(record.jump_address_phys),
            "cr3": _hex(record.cr3),
            "magic": _hex(record.magic),
            "e820_checksum": _hex(record.e820_checksum),
            "e820_digest": None if record.e820_digest is None else record.e820_digest.hex(),
        },
        "memory": {
            "frames": len(pfns),
            "zero_frames": pfns.zero_count,
            "data_pages": pfns.data_pages,
            "runs": sum(1 for _ in pfns.runs()),
            "last_pfn": pfns.last,
            "share_of_ram": round(shown.share, 4),
        },
        "stored": {"pages": shown.stored_pages, "bytes": shown.stored_pages * PAGE_SIZE},
        "warnings": list(image.warnings),
    }
    if shown.with_runs:
        document["runs"] = [[first, length] for first, length in pfns.runs()]
    if shown.verified is not None:
        document["verification"] = _verification(shown.verified)
    return document


def render(shown: ImageView) -> str:
    """Return the JSON document, ending in a newline; the same image gives the same bytes."""
    return json.dumps(to_dict(shown), indent=2, ensure_ascii=True) + "\n"


def _verification(result: VerifyResult) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "pages": result.pages,
        "crc_expected": _hex(result.crc_expected),
        "crc_computed": _hex(result.crc_computed),
        "problems": list(result.problems),
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
