"""What the image command says: gathered once, rendered as JSON here and as text in `hibercheck.report.image_text`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hibercheck import __version__
from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage
from hibercheck.handoff.acceptance.announced import header_page
from hibercheck.handoff.facts.session import NO_SESSION, Session, rfc3339, session_in
from hibercheck.handoff.facts.used_since import UsedSince, used_since

if TYPE_CHECKING:
    from hibercheck.handoff.acceptance.announced import Announced
    from hibercheck.handoff.acceptance.held import Held
    from hibercheck.handoff.facts.e820 import Map
    from hibercheck.handoff.facts.space import KernelSpace
    from hibercheck.swsusp.image import Image
    from hibercheck.swsusp.remains import Remains
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
        remains: What is left of it, where it was verified and swap lies over parts of it.
        session: What its memory says of the session.
        stale: File systems on its disk that were used since it was written.
        held: Its frames that are not memory by its own map; None where they were not compared.
        firmware: The firmware's memory map in its resumee's memory, if runs are listed; None where that cannot be read.
        announced: What systemd's HibernateLocation says; None where there is none.
    """

    image: Image
    banner: str | None
    stored_pages: int
    picture: Picture
    verified: VerifyResult | None
    with_runs: bool
    remains: Remains | None = None
    session: Session = NO_SESSION
    stale: tuple[UsedSince, ...] = ()
    held: Held | None = None
    firmware: Map | None = None
    announced: Announced | None = None

    @property
    def release(self) -> str | None:
        """The kernel's release, out of its banner."""
        return None if self.banner is None else self.banner.split(" ")[2]

    @property
    def share(self) -> float:
        """Share of the machine's RAM that is in the image."""
        return len(self.image.pfns) / max(self.image.info.num_physpages, 1)


def view(
    image: Image,
    *,
    verified: VerifyResult | None = None,
    with_runs: bool = False,
    columns: int = PICTURE_COLUMNS,
    announced: Announced | None = None,
) -> ImageView:
    """Gather what there is to show.

    Args:
        image: The image.
        verified: What a verification found, if one was asked for.
        with_runs: Whether the runs are listed.
        columns: Cells in a row of the picture.
        announced: What systemd's HibernateLocation says, if there is one.

    Raises:
        MalformedImage: The image is damaged on the way to its PFN list.
    """
    from hibercheck.swsusp.stream import BlockStorage  # noqa: PLC0415 - JSON of other reports needs no decoder

    storage = image.stream.storage
    stored = image.info.pages
    if isinstance(storage, BlockStorage):
        try:
            storage.walk(image.stream.chunks - 1)
            stored = storage.stored_pages
        except MalformedImage:
            if not image.header.consumed or image.swap_map is None:
                raise
            stored = image.swap_map.stored_pages()  # swap lies over the lengths of blocks, not over this map
    banner, session, held, firmware = _by_its_kernel(
        image, held=verified is not None and verified.ok, firmware=with_runs
    )
    return ImageView(
        image=image,
        banner=banner,
        stored_pages=stored,
        picture=picture(image, columns),
        verified=verified,
        with_runs=with_runs,
        remains=_remains(image, verified),
        session=session,
        stale=used_since(image, session.written),
        held=held,
        firmware=firmware,
        announced=announced,
    )


def _remains(image: Image, verified: VerifyResult | None) -> Remains | None:
    """Find out what is left of an image that swap may lie over, if a verification found it damaged."""
    if verified is None or verified.ok or not image.header.consumed or image.swap_map is None:
        return None
    from hibercheck.swsusp.remains import survey  # noqa: PLC0415 - rarely asked

    return survey(image.source, image.header_offset, image.swap_map.base)


def _by_its_kernel(image: Image, *, held: bool, firmware: bool) -> tuple[str | None, Session, Held | None, Map | None]:
    """Read what only the kernel in the image can tell, which is sought once: that takes longer than all else here.

    Its banner is known with it.  Without it the banner can be found all the same, but is searched for.

    Args:
        image: The image.
        held: Whether its frames are compared with its own memory map.
        firmware: Whether e820_table_firmware is wanted, of which the arch record has the checksum.
    """
    from hibercheck.handoff.facts.embedded import own_space  # noqa: PLC0415 - JSON of other reports needs no kernel

    with own_space(image) as space:
        return (
            _banner(image) if space is None else space.kernel.banner,
            session_in(space),
            _held(image, space) if held else None,
            _firmware(space) if firmware else None,
        )


def _held(image: Image, space: KernelSpace | None) -> Held | None:
    from hibercheck.handoff.acceptance.held import held_outside  # noqa: PLC0415 - for a verification only

    return held_outside(image, space)


def _firmware(space: KernelSpace | None) -> Map | None:
    from hibercheck.errors import HibercheckError  # noqa: PLC0415 - for --map only
    from hibercheck.handoff.facts.e820 import read_e820  # noqa: PLC0415

    try:
        return None if space is None else read_e820(space)
    except HibercheckError:
        return None


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


def discard_command(image: Image) -> list[str]:
    """Return the command that throws an image away: it writes the swap signature anew, with the names the swap has."""
    names = ["-U", image.swap_uuid] if image.swap_uuid else []
    names += ["-L", shlex.quote(image.swap_label)] if image.swap_label else []
    if header_page(image):  # a swap file: written to its device, mkswap would take the whole file system away
        return ["mkswap", *names, "SWAPFILE"]
    device = image.path if image.path.startswith("/dev/") and image.partition is None else "DEVICE"
    return ["mkswap", *names, shlex.quote(device)]


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
        "session": {
            "written": None if shown.session.written is None else rfc3339(shown.session.written),
            "node": shown.session.node,
            "boot_id": shown.session.boot_id,
        },
        "swap": {
            "uuid": image.swap_uuid,
            "label": image.swap_label,
            "partition": None if image.partition is None else image.partition.number,
        },
        "hibernate_location": None
        if shown.announced is None
        else {
            "uuid": shown.announced.uuid,
            "offset": shown.announced.offset,
            "kernel": shown.announced.kernel,
            "here": shown.announced.here,
        },
        "throw_away": None if header.consumed or image.swap_map is None else " ".join(discard_command(image)),
        "used_since": [
            {"place": one.place, "kind": one.superblock.kind, "uuid": one.superblock.uuid, "what": one.what}
            for one in shown.stale
        ],
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
        document["memory_map"] = (
            None
            if shown.firmware is None
            else [{"start": _hex(one.address), "end": _hex(one.end), "type": one.kind} for one in shown.firmware]
        )
    if shown.verified is not None:
        document["verification"] = _verification(shown.verified) | {"frames": _frames(shown.held)}
    if shown.remains is not None:
        document["remains"] = {"whole_pages": shown.remains.whole, "of_pages": info.pages - 1}
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


def _frames(held: Held | None) -> dict[str, Any]:
    """Frames that are not memory: not compared is told apart from none."""
    return {
        "compared": held is not None,
        "not_memory": [] if held is None else [list(run) for run in held.outside],
        "refused": None if held is None else held.refused,
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
