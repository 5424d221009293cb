"""Whether a kernel's file is that of the kernel in the image: its banner, its build id, the bytes of its text."""

from __future__ import annotations

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage, Mismatch, MissingFact
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.kernel.elf import find_build_id
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image

_LINE_LIMIT = 1024
_PAGES = 16
"""Pages of text that are compared, evenly spread."""
_PAGES_WITH_ID = 4
"""As many where both have one build id: other code can be there only if a file was changed after it was linked."""
_BLOCK = 16
_FEWEST = 256
"""Blocks below which nothing is concluded: that many have four pages that are not mostly padding."""
_GIVE = "give the kernel that hibernated as --resumee, or leave it out: its kernel is in the image"


def check_identity(image: Image, space: KernelSpace) -> None:
    """Refuse a kernel that did not write the image.

    Args:
        image: The image.
        space: The kernel, placed as the image's arch record says.

    Raises:
        Mismatch: Its banner, its build id or its text is another.
    """
    _check_banner(image, space)
    kernel = space.kernel
    if kernel.path == image.path:
        return  # it was read out of the image: there is nothing else to compare it with
    theirs = _build_id_in_memory(space)
    if theirs is not None and kernel.build_id is not None and theirs != kernel.build_id:
        what = f"has the banner of the image's kernel, but build id {kernel.build_id} instead of {theirs}"
        raise Mismatch(what, path=kernel.path, advice=_GIVE)
    differ, compared = _compare_text(space, _PAGES if theirs is None or kernel.build_id is None else _PAGES_WITH_ID)
    if compared >= _FEWEST and 2 * differ > compared:
        what = f"has the banner of the image's kernel, but other code: {differ} of {compared} pieces of its text differ"
        raise Mismatch(what, path=kernel.path, advice=_GIVE)


def _check_banner(image: Image, space: KernelSpace) -> None:
    """Compare the banners; the message names both."""
    kernel = space.kernel
    wanted = kernel.banner.strip()
    try:
        found = space.string(space.address("linux_banner"), _LINE_LIMIT).strip()
    except MissingFact:
        found = ""
    if found == wanted:
        return
    actual = found if found.startswith("Linux version ") else (image.find_banner() or "an unknown kernel").strip()
    raise Mismatch(
        f"the image was written by '{actual}', not by '{wanted}'",
        path=kernel.path,
        advice="give the kernel that hibernated as --resumee (are --resumer and --resumee swapped?)",
    )


def _build_id_in_memory(space: KernelSpace) -> str | None:
    """Return the build id that the image's kernel keeps between ``__start_notes`` and ``__stop_notes``, or None."""
    first, last = (space.kernel.symbol(name) for name in ("__start_notes", "__stop_notes"))
    if first is None or last is None or not 0 < last.address - first.address <= PAGE_SIZE:
        return None
    try:
        return find_build_id(space.read(space.address("__start_notes"), last.address - first.address))
    except (MissingFact, MalformedImage):
        return None


def _compare_text(space: KernelSpace, pages: int) -> tuple[int, int]:
    """Compare so many pages of a kernel's text with the image's.

    The running kernel has patched its text (alternatives, static keys, calls to ftrace, returns) and relocated it, so
    that it is never all the same: of one build, one block in ten differs at most (measured on 5.10 to 7.3); of a build
    in which functions have moved, nearly all do.

    Returns:
        How many blocks of 16 bytes differ, and how many were compared; padding is not counted.
    """
    kernel = space.kernel
    first, last = (kernel.symbol(name) for name in ("_text", "_etext"))
    if first is None or last is None:
        return 0, 0
    differ = compared = 0
    for number in range(pages):
        at = first.address + (last.address - first.address) * number // pages & -PAGE_SIZE
        for ours, theirs in _blocks(kernel, space, at):
            compared += 1
            differ += ours != theirs
    return differ, compared


def _blocks(kernel: KernelView, space: KernelSpace, at: int) -> list[tuple[bytes, bytes]]:
    """Return the blocks of a page of text, of the file and of the image, without those that are one repeated byte."""
    try:
        ours, theirs = kernel.read(at, PAGE_SIZE), space.read(at + space.kaslr_offset, PAGE_SIZE)
    except (MissingFact, MalformedImage):
        return []
    pairs = ((ours[start : start + _BLOCK], theirs[start : start + _BLOCK]) for start in range(0, PAGE_SIZE, _BLOCK))
    return [pair for pair in pairs if pair[0] != pair[0][:1] * _BLOCK]
