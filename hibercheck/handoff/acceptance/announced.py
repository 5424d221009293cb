"""Whether systemd says that an image is where this one is: by the EFI variable HibernateLocation.

The variable names what the swap is on and the page of its header: for a partition the swap's own UUID and 0, for a swap
file the UUID of its file system (write_efi_hibernate_location(), src/sleep/sleep.c).
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import InputProblem
from hibercheck.files.filesystems import superblock_at
from hibercheck.swsusp.image import Image


@dataclass(frozen=True, slots=True)
class Announced:
    """What a HibernateLocation says, beside an image.

    Attributes:
        uuid: The UUID that it names.
        offset: The page.
        kernel: The release that hibernated, by it; None where it is not known.
        here: Whether it means this image; None where that cannot be told.
    """

    uuid: str
    offset: int
    kernel: str | None
    here: bool | None


def header_page(image: Image) -> int | None:
    """Return the page of the device that has the header, which ``resume_offset=`` has to name; None for a stream."""
    return None if image.swap_map is None else (image.header_offset - image.swap_map.base) // PAGE_SIZE


def is_announced(image: Image, uuid: str, offset: int) -> bool | None:
    """Tell whether a HibernateLocation means an image; None where that cannot be told.

    Args:
        image: The image.
        uuid: The variable's UUID.
        offset: Its page.
    """
    page = header_page(image)
    if page is None:
        return None
    if page != offset:
        return False
    own = image.swap_uuid if page == 0 else _file_system(image, image.header_offset - page * PAGE_SIZE)
    return None if own is None else own.lower() == uuid.lower()


def _file_system(image: Image, at: int) -> str | None:
    """Return the UUID of the file system that a swap file is on, where it lies on the device that was read."""
    try:
        block = superblock_at(image.source, at)
    except InputProblem:
        return None
    return None if block is None else block.uuid
