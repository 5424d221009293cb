"""What a file is when it is not an image that hibercheck reads: said by name, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from hibercheck.errors import MalformedImage, Unsupported
from hibercheck.swsusp.header import HIBERNATE_SIG, SWAP_SIGS

# libblkid/src/superblocks/swap.c lists the signatures of all that ever lived in a swap area.
SIGNATURES = {
    b"ULSUSPEND\0": "an image of user-space hibernation (uswsusp, s2disk)",
    b"S2SUSPEND\0": "an image of Software Suspend 2",
    b"LINHIB0001": "an image of a kernel around 2.6.37, whose layout was in use only briefly",
}
TUXONICE_MAGIC = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"
OTHER_PAGE_SIZES = (8192, 16384, 32768, 65536)
STARTS = {
    b"\x7fELF": ("an ELF file, not a hibernation image", "kernels are given with --resumer and --resumee"),
    b"LUKS\xba\xbe": ("an encrypted (LUKS) device", "open it and give the decrypted one under /dev/mapper"),
    b"BZh": ("compressed by bzip2", "decompress it, or use gzip, xz, zstd or lz4"),
}
RESUME_ADVICE = "give the device itself and, for a swap file, --resume-offset as in the kernel's resume_offset="


def recognise(path: str, page: bytes, read: Callable[[int, int], bytes]) -> Unsupported | MalformedImage | None:
    """Name what is on a header page that is neither a hibernation image nor swap space, if anything known.

    Args:
        path: The file, for the message.
        page: Its page where the header should be.
        read: Reads (offset, size) relative to that page.
    """
    signature = page[-10:]
    if signature in SIGNATURES:
        advice = "hibercheck reads images that the kernel itself wrote (echo disk > /sys/power/state)"
        return Unsupported(SIGNATURES[signature], path=path, advice=advice)
    if page.startswith(TUXONICE_MAGIC):
        return Unsupported("an image of TuxOnIce", path=path, advice="hibercheck reads images of the mainline kernel")
    for start, (what, advice) in STARTS.items():
        if page.startswith(start):
            return Unsupported(what, path=path, advice=advice)
    for size in OTHER_PAGE_SIZES:
        found = read(size - 10, 10)
        if found == HIBERNATE_SIG:
            return Unsupported(
                f"the image of a kernel with pages of {size >> 10} KiB", path=path, advice="x86-64 has pages of 4 KiB"
            )
        if found in SWAP_SIGS:
            return MalformedImage(f"plain swap space with pages of {size >> 10} KiB, no image in it", path=path)
    return None


def plain_swap(path: str, offset: int) -> MalformedImage:
    """Say that there is swap space without an image."""
    advice = "hibernate first; an image that was resumed is gone"
    return MalformedImage(
        "plain swap space, no hibernation image in it", path=path, offset=offset or None, advice=advice
    )
