"""The image command's report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE
from hibercheck.report.image import ImageView
from hibercheck.report.picture import ASCII, UNICODE, Glyphs
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import count, size

if TYPE_CHECKING:
    from rich.console import Console

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


def render(shown: ImageView, console: Console) -> None:
    """Print the report to ``console``, in its width."""
    from rich.text import Text  # noqa: PLC0415 - JSON needs no rich

    image = shown.image
    what = f"Linux {one_line(shown.release)}" if shown.release else "a kernel whose banner is not in it"
    console.print(Text(f"{one_line(image.path)}: hibernation image of {what}", style="bold"), soft_wrap=True)
    for warning in image.warnings:
        for line in wrap(f"warning: {one_line(warning)}", console.width):
            console.print(Text(line, style="yellow"), soft_wrap=True)
    console.print()
    for label, value in _facts(shown):
        first, *others = wrap(value, console.width - LABEL)
        console.print(Text.assemble((label.ljust(LABEL), "cyan"), first), soft_wrap=True)
        for line in others:
            console.print(Text(f"{'':{LABEL}}{line}"), soft_wrap=True)
    console.print()
    for line in _picture(shown, UNICODE if _has_blocks(console) else ASCII, console.width):
        console.print(Text(line), soft_wrap=True)
    if shown.with_runs:
        console.print()
        for line in _runs(shown):
            console.print(Text(line), soft_wrap=True)
    if shown.verified is not None:
        console.print()
        good = shown.verified.ok
        for line in _verification(shown):
            console.print(Text(one_line(line), style="green" if good else "red"), soft_wrap=True)


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
    flags = " ".join(flag.name.lower() for flag in header.flags if flag.name) or "none"
    yield "header", f"at byte {image.header_offset:#x}; flags: {flags}"
    if header.hw_sig is not None:
        yield "hardware", f"signature {header.hw_sig:#010x} (FACS)"


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


def _verification(shown: ImageView) -> Iterator[str]:
    result = shown.verified
    if result is None:
        return
    yield from result.problems
    if not result.ok:
        yield f"the image is damaged: {len(result.problems)} problem{'s' if len(result.problems) > 1 else ''}"
    elif result.crc_expected is None:
        yield f"read through: all {result.pages:,} pages are there, in order, and as many as announced"
        yield "not verified: there is no checksum, so changed data look like any others"
    else:
        yield f"verified: all {result.pages:,} pages decode and their checksum is right"


def _has_blocks(console: Console) -> bool:
    try:
        UNICODE.cells.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
