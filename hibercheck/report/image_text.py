"""The image command's report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE
from hibercheck.handoff.facts.session import shown_time
from hibercheck.report.image import ImageView, discard_command
from hibercheck.report.picture import ASCII, UNICODE, Glyphs
from hibercheck.report.sanitise import one_line
from hibercheck.report.sheet import ENDLESS
from hibercheck.report.styled import Raw, Text
from hibercheck.report.words import count, size

if TYPE_CHECKING:
    from hibercheck.handoff.acceptance.announced import Announced
    from hibercheck.report.styled import Surface

LABEL = 14
MARGIN = 16
"""Columns beside a row of the picture: an address of 52 bits and a blank, or a shorter one between two."""
COMPRESSORS = {"lzo": "compressed by LZO", "lz4": "compressed by LZ4", "none": "not compressed"}


def picture_columns(width: int) -> int:
    """Return how many cells a row of the picture has in ``width``: a power of two, so that addresses are round."""
    columns = 16
    while 2 * columns + MARGIN <= width:
        columns *= 2
    return columns


def render(shown: ImageView, console: Surface) -> None:
    """Print the report to ``console``, in its width; with ``soft_wrap`` no line is broken."""
    image = shown.image
    room = ENDLESS if console.soft_wrap else console.width
    what = f"Linux {one_line(shown.release)}" if shown.release else "a kernel whose banner is not in it"
    for line in wrap(f"{one_line(image.path)}: hibernation image of {what}", room):
        console.print(Text(line, style="bold"), soft_wrap=True)
    stale = [
        f"the {one.superblock.kind} file system on {one.place} {one.what}: do not resume the image, it would corrupt "
        "that file system (hibercheck explain HC405)"
        for one in shown.stale
    ]
    for warning in (*image.warnings, *stale):
        for line in wrap(f"warning: {one_line(warning)}", room):
            console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print()
    for label, value in _facts(shown):
        first, *others = wrap(value, room - LABEL)
        console.print(Text.assemble((label.ljust(LABEL), "cyan"), first), soft_wrap=True)
        for line in others:
            console.print(Text(f"{'':{LABEL}}{line}"), soft_wrap=True)
    console.print()
    for line in _picture(shown, UNICODE if _has_blocks(console) else ASCII, console.width):
        console.print(Text(line), soft_wrap=True)
    if shown.with_runs:
        console.print()
        for line in (*_firmware(shown), ""):
            console.print(Text(line), soft_wrap=True)
        runs = "".join(f"{line}\n" for line in _runs(shown))
        console.print(Raw(runs), soft_wrap=True)
    if shown.verified is not None:
        console.print()
        good = shown.verified.ok and (shown.held is None or shown.held.refused is None)
        for text in _verification(shown):
            for line in wrap(one_line(text), room):
                console.print(Text(line, style="green" if good else "red"), soft_wrap=True)


def wrap(text: str, width: int) -> list[str]:
    """Break text between words; a word that is too long is left whole, for copying."""
    from textwrap import wrap as broken  # noqa: PLC0415

    return broken(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]


def _facts(shown: ImageView) -> Iterator[tuple[str, str]]:
    """Yield (label, value), most asked for first."""
    image = shown.image
    info, header, record, pfns = image.info, image.header, image.record, image.pfns
    if shown.banner is not None:
        yield "kernel", one_line(shown.banner)
    yield "session", _session(shown)
    yield (
        "image",
        f"{size(info.pages)}: {count(info.image_pages, 'page')} of data, {info.meta_pages:,} of PFN list, 1 info page",
    )
    yield "stored", _stored(shown)
    zero = f", {pfns.zero_count:,} of them zero and without data" if pfns.has_zero_flag else ""
    runs = sum(1 for _ in pfns.runs())
    yield "frames", f"{len(pfns):,} in {count(runs, 'run')} up to PFN {pfns.last:#x}{zero}"
    yield "machine", f"{size(info.num_physpages)} of RAM; {shown.share:.1%} of it is in the image"
    where = "" if record.jump_address_phys is None else f", physical {record.jump_address_phys:#x}"
    yield "entry", f"restore_registers at {record.jump_address:#x}{where}; CR3 {record.cr3:#x}"
    yield "memory map", _memory_map(shown)
    if image.swap_map is None:
        yield "container", "a /dev/snapshot stream, without a swap header"
        return
    names = [f"UUID {image.swap_uuid}"] if image.swap_uuid else []
    names += [f"label {one_line(image.swap_label)}"] if image.swap_label else []
    names += [f"partition {image.partition.number}"] if image.partition is not None else []
    yield "swap", ", ".join(names) or "without UUID and label"
    if shown.announced is not None:
        yield "systemd", _announced(shown.announced)
    if not header.consumed:
        yield "throw away", f"{' '.join(discard_command(image))}; what was not saved in the session is lost"
    flags = " ".join(flag.name.lower() for flag in header.flags if flag.name) or "none"
    yield "header", f"at byte {image.header_offset:#x}; flags: {flags}"
    if header.hw_sig is not None:
        yield "hardware", f"signature {header.hw_sig:#010x} (FACS)"


def _session(shown: ImageView) -> str:
    session = shown.session
    when = "not known" if session.written is None else f"at {shown_time(session.written)} by its own clock"
    where = f" on {one_line(session.node)}" if session.node else ""
    boot = f"; boot id {session.boot_id}" if session.boot_id else ""
    return (
        f"written {when}{where}{boot}" if session.written is not None else f"when it was written is {when}{where}{boot}"
    )


def _announced(found: Announced) -> str:
    by = f", by Linux {one_line(found.kernel)}" if found.kernel else ""
    named = f"HibernateLocation names UUID={one_line(found.uuid)}, page {found.offset}{by}"
    return {
        True: f"{named}: this image",
        None: f"{named}; whether that is this image cannot be told here",
        False: f"{named}, not this image: systemd in an initramfs does not look here unless resume= says so",
    }[found.here]


def _stored(shown: ImageView) -> str:
    image = shown.image
    text = f"{size(shown.stored_pages)}, {COMPRESSORS[image.compressor]}"
    if image.compressor != "none":
        text = f"{text} to {shown.stored_pages / image.info.pages:.0%}"
    if image.crc32 is None:
        return f"{text}; no checksum: nobody can tell whether its data are as they were written"
    verified = "" if shown.verified is not None else " (not compared: see --verify)"
    return f"{text}, checksum {image.crc32:#010x}{verified}"


def _memory_map(shown: ImageView) -> str:
    record = shown.image.record
    if record.e820_checksum is not None:
        return f"CRC-32 {record.e820_checksum:#010x} of the firmware's e820 map"
    if record.e820_digest is not None:
        return f"MD5 {record.e820_digest.hex()} of the firmware's e820 map"
    return "no checksum of the firmware's e820 map"


def _picture(shown: ImageView, glyphs: Glyphs, width: int) -> Iterator[str]:
    drawn = shown.picture
    full, most, some, none = tuple(glyphs.cells)
    yield f"Physical memory, {size(drawn.frames)} a character"
    yield from wrap(f"{full} in the image, {most} half or more, {some} some, {none} none", width)
    last = drawn.rows[-1][0] * PAGE_SIZE if drawn.rows else 0
    digits = max(10, len(f"{last:#x}"))
    indent = " " if digits + 2 <= MARGIN else ""
    expected = 0
    for first, cells in drawn.rows:
        if first != expected:
            yield f"{indent}{'':{digits}} ..."
        line = "".join(
            none if held == 0 else full if held == drawn.frames else most if 2 * held >= drawn.frames else some
            for held in cells
        )
        yield f"{indent}{first * PAGE_SIZE:#0{digits}x} {line}"
        expected = first + drawn.frames * len(cells)


def _runs(shown: ImageView) -> Iterator[str]:
    yield "Runs of frames in the image (physical addresses, frames)"
    for first, length in shown.image.pfns.runs():
        yield f"  {first * PAGE_SIZE:#014x}-{(first + length) * PAGE_SIZE - 1:#014x}  {length}"


def _firmware(shown: ImageView) -> Iterator[str]:
    """Yield the firmware's memory map as the kernel prints it."""
    from hibercheck.handoff.facts.e820 import NAMES  # noqa: PLC0415 - for --map only

    if shown.firmware is None:
        yield "The firmware's memory map cannot be read out of the image"
        return
    yield "The firmware's memory map (e820), as the resumee had it; a resumer with another refuses the image"
    for one in shown.firmware:
        kind = NAMES.get(one.kind, f"type {one.kind}")
        yield f"  {one.address:#014x}-{max(one.end - 1, 0):#014x}  {kind}"


def _verification(shown: ImageView) -> Iterator[str]:
    result = shown.verified
    if result is None:
        return
    yield from result.problems
    if shown.remains is not None:
        whole = "nobody can tell which" if shown.remains.whole is None else f"{shown.remains.whole:,}"
        yield f"swap lies over parts of the image: {whole} of its {shown.image.info.pages - 1:,} pages are still whole"
    elif not result.ok:
        yield f"the image is damaged: {len(result.problems)} problem{'s' if len(result.problems) > 1 else ''}"
    elif result.crc_expected is None:
        yield f"read through: all {result.pages:,} pages are there, in order, and as many as announced"
        yield "not verified: there is no checksum, so changed data look like any others"
    else:
        yield f"verified: all {result.pages:,} pages decode and their checksum is right"
    yield from _frames(shown)


def _frames(shown: ImageView) -> Iterator[str]:
    """Say which frames are not memory by the map that the resumee had, and what a kernel does with them."""
    if shown.verified is None or not shown.verified.ok:
        return
    held = shown.held
    if held is None:
        yield "no memory map to hold its frames against: the image does not give it, or memory was added since"
        return
    for first, length in held.outside:
        what = f"frame {first:#x}" if length == 1 else f"frames {first:#x} to {first + length - 1:#x}"
        lost = held.refused is not None and first <= held.refused < first + length
        does = "a kernel refuses the image, with error -14" if lost else "a kernel loads it: memory is near"
        yield f"{what} {'is' if length == 1 else 'are'} not memory by the image's own map; {does}"
    if not held.outside:
        yield "all its frames are memory by its own map"


def _has_blocks(console: Surface) -> bool:
    try:
        UNICODE.cells.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
