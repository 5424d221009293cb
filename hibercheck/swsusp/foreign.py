"""What a file is when it is not an image that hibercheck reads: said by name, with what to do about it."""

from __future__ import annotations

from hibercheck.errors import MalformedImage, Unsupported
from hibercheck.swsusp.header import HIBERNATE_SIG

# libblkid/src/superblocks/swap.c lists the signatures of all that ever lived in a swap area.
SIGNATURES = {
    b"ULSUSPEND\0": "an image of user-space hibernation (uswsusp, s2disk)",
    b"S2SUSPEND\0": "an image of Software Suspend 2",
    b"LINHIB0001": "an image of a kernel around 2.6.37, whose layout was in use only briefly",
}
TUXONICE_MAGIC = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"
OTHER_PAGE_SIZES = (8192, 16384, 32768, 65536)
_A_KERNEL = "kernels are given with --resumer and --resumee"
_WINDOWS = ("hibernation file of Windows", "it holds not a Linux kernel; hibercheck reads the images of Linux")
STARTS = (
    (0, b"\x7fELF", "an ELF file, not a hibernation image", _A_KERNEL),
    (0x202, b"HdrS", "a kernel (bzImage), not a hibernation image", _A_KERNEL),
    (0x38, b"ARM\x64", "an arm64 kernel (Image)", "hibercheck reads x86-64 images, and x86-64 kernels"),
    (0, b"ANDROID!", "an Android boot image", "hibercheck reads hibernation images of x86-64"),
    (0, b"VNDRBOOT", "an Android vendor boot image", "hibercheck reads hibernation images of x86-64"),
    *(
        (0, magic, f"the {_WINDOWS[0]} (hiberfil.sys)", _WINDOWS[1])
        for magic in (b"hibr", b"HIBR", b"RSTR", b"wake", b"WAKE")
    ),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) device", "open it and give the decrypted one under /dev/mapper"),
)
RESUME_ADVICE = "give the swap device; for a swap file its disk, with --resume-offset as in the kernel's resume_offset="


def recognise(path: str, page: bytes) -> Unsupported | None:
    """Name what is on a page that should be a header, if it is anything known but a kernel's image or swap space.

    Args:
        path: The file, for the message.
        page: That page.
    """
    signature = page[-10:]
    if signature in SIGNATURES:
        advice = "hibernate with the kernel's own writer (echo disk > /sys/power/state), whose images hibercheck reads"
        return Unsupported(SIGNATURES[signature], path=path, advice=advice)
    if page.startswith(TUXONICE_MAGIC):
        advice = "hibernate with a mainline kernel, whose images hibercheck reads"
        return Unsupported("an image of TuxOnIce", path=path, advice=advice)
    for at, start, what, advice in STARTS:
        if page[at : at + len(start)] == start:
            return Unsupported(what, path=path, advice=advice)
    return None


def other_page_size(path: str, size: int, signature: bytes) -> Unsupported | MalformedImage:
    """Say that the signature at the end of a first page of ``size`` bytes is of a kernel with such pages."""
    pages = f"pages of {size >> 10} KiB"
    if signature == HIBERNATE_SIG:
        return Unsupported(f"the image of a kernel with {pages}", path=path, advice="x86-64 has pages of 4 KiB")
    return MalformedImage(f"plain swap space with {pages}, no hibernation image in it", path=path)


RESUMED = "the image was resumed or given up, and swap lies over parts of it"
AGAIN = "hibernate again, and boot with noresume and without using swap to look at the image"


class Overwritten(MalformedImage):
    """There was an image, and not even its first pages are left.

    Attributes:
        header_at: Byte offset of the header page.
        base: Byte offset of its block device in the file.
    """

    def __init__(self, path: str, offset: int, base: int) -> None:
        what = "swap space over an image that was resumed or given up: its first pages are overwritten"
        super().__init__(what, path=path, offset=offset or None, advice=AGAIN)
        self.header_at = offset
        self.base = base


def plain_swap(path: str, offset: int) -> MalformedImage:
    """Say that there is swap space without an image."""
    advice = "hibernate first; an image that was resumed is gone"
    return MalformedImage(
        "plain swap space, no hibernation image in it", path=path, offset=offset or None, advice=advice
    )
