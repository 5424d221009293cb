"""A hibernation image: open it, ask what it says, and read frames of the resumee's memory out of it on demand.

Memory is bounded whatever the file says: 4 MiB of decoded blocks, 24 bytes a run of consecutive frames
(`hibercheck.swsusp.runs.MAX_RUNS` at most), 16 bytes a run of consecutive stored pages (the same) and 8 bytes a block
of 32 pages: no more than 1.6 GiB for the worst file there can be.  The image of a machine of 64 GiB with all its memory
in it, in a million runs, takes 35 MiB.  Going through everything (`Image.verify`, `hibercheck.swsusp.export`) takes
7 MiB a processor more, of at most eight (`hibercheck.swsusp.bulk`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedImage
from hibercheck.swsusp.codec import MAX_STORED_PAGES
from hibercheck.swsusp.header import ArchRecord, Flags, Header, ImageInfo
from hibercheck.swsusp.locate import Found, find_image
from hibercheck.swsusp.pfns import PER_PAGE, PfnList
from hibercheck.swsusp.source import Source, open_source
from hibercheck.swsusp.stream import BlockStorage, PlainStorage, RawStorage, Storage, Stream

if TYPE_CHECKING:
    from hibercheck.swsusp.bulk import Progress
    from hibercheck.swsusp.verify import VerifyResult

ZERO_PAGE = bytes(PAGE_SIZE)


class Image:
    """An open image; use it as a context manager.

    Attributes:
        path: The file, as the user named it.
        header: The header page.
        record: The arch record.
        info: The writer's own account of the image.
        compressor: ``lzo``, ``lz4`` or ``none``.
        header_offset: Byte offset of the header page in the file.
        swap_map: Where the stored pages are; None for a snapshot stream.
        stream: The pages behind the info page.
        warnings: What the user should know of the file, a line each.
    """

    def __init__(self, source: Source, found: Found) -> None:
        self.source = source
        self.path = source.path
        self.header: Header = found.header
        self.record: ArchRecord = found.record
        self.info: ImageInfo = found.info
        self.warnings: tuple[str, ...] = found.warnings
        self.header_offset = found.offset
        self.swap_map = found.swap_map
        self.compressor = compressor_of(found.header.flags)
        self.stream = Stream(self._storage())
        self._check_complete()

    def _check_complete(self) -> None:
        """See that the swap map lists as many stored pages as the image can have: cheap, and tells a truncated file."""
        if self.swap_map is None:
            return
        stored, blocks = self.swap_map.stored_pages(), self.stream.chunks
        least, most = self.info.pages, self.info.pages
        if self.compressor != "none":
            least, most = 1 + blocks, 1 + blocks * MAX_STORED_PAGES
        if not least <= stored <= most:
            need = str(least) if least == most else f"{least} to {most}"
            message = f"the swap map lists {stored} stored pages, an image of {self.info.pages} pages needs {need}"
            raise MalformedImage(message, path=self.path, offset=self.info_offset)

    @property
    def info_offset(self) -> int:
        """Byte offset of the info page in the file."""
        return 0 if self.swap_map is None else self.swap_map.run_at(0)[0]

    def _storage(self) -> Storage:
        pages = self.info.pages - 1
        if self.swap_map is None:
            return RawStorage(self.source, pages)
        if self.compressor == "none":
            return PlainStorage(self.source, self.swap_map, pages)
        return BlockStorage(self.source, self.swap_map, pages, self.compressor)

    @property
    def crc32(self) -> int | None:
        """The checksum that the writer gave, of everything behind the info page; None where it gave none.

        Kernels make one of compressed images, and refuse to load what differs from it; of uncompressed images
        (hibernate=nocompress) and of what /dev/snapshot gives they make none, and load whatever is there
        (``save_compressed_image``, ``load_compressed_image``, kernel/power/swap.c).
        """
        return self.header.crc32 if Flags.CRC32_MODE in self.header.flags else None

    @cached_property
    def pfns(self) -> PfnList:
        """The frames that the image holds.

        Raises:
            MalformedImage: The list contradicts itself or the info page.
        """
        listed = PfnList()
        try:
            for number in range(self.info.meta_pages):
                listed.append_page(self.stream.page(number))
        except MalformedImage as problem:
            if problem.path is None:
                problem.path = self.path
            raise
        self._check_counts(listed)
        return listed

    def _check_counts(self, listed: PfnList) -> None:
        if listed.data_pages != self.info.image_pages:
            message = f"the PFN list names {listed.data_pages} data pages, the info page {self.info.image_pages}"
            raise MalformedImage(message, path=self.path, offset=self.info_offset)
        if -(-len(listed) // PER_PAGE) != self.info.meta_pages:
            message = f"the PFN list of {len(listed)} frames is stored in {self.info.meta_pages} pages"
            raise MalformedImage(message, path=self.path, offset=self.info_offset)

    def frame(self, pfn: int) -> bytes | None:
        """Return the 4096 bytes that the resumee had in frame ``pfn``, or None when the image does not hold it.

        Raises:
            MalformedImage: The page cannot be decoded.
        """
        index = self.pfns.data_index(pfn)
        if index is None:
            return None
        if index < 0:
            return ZERO_PAGE
        return self.stream.page(self.info.meta_pages + index)

    def find_banner(self, *, everywhere: bool = False) -> str | None:
        """Return the resumee's ``Linux version`` line out of its memory; see `hibercheck.swsusp.banner.find_banner`."""
        from hibercheck.swsusp.banner import find_banner  # noqa: PLC0415 - only where no kernel file is at hand

        return find_banner(self, everywhere=everywhere)

    def verify(self, progress: Progress | None = None) -> VerifyResult:
        """Decode everything and check it; see `hibercheck.swsusp.verify.verify`."""
        from hibercheck.swsusp.verify import verify  # noqa: PLC0415 - threads, for those who ask for them

        return verify(self, progress)

    def close(self) -> None:
        """Release the file."""
        self.stream.close()
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def compressor_of(flags: Flags) -> str:
    """Return what the flags say of the compression; LZO is the absence of the other two."""
    if Flags.NOCOMPRESS_MODE in flags:
        return "none"
    return "lz4" if Flags.COMPRESSION_ALG_LZ4 in flags else "lzo"


def open_image(path: str, *, resume_offset: int | None = None) -> Image:
    """Open the hibernation image in a swap device or a copy of one.

    Args:
        path: The file or block device; it is never written to.
        resume_offset: Page number of the header, as the kernel's ``resume_offset=``; found by itself when None.

    Raises:
        InputProblem: The file cannot be read.
        Unsupported: It is something else, which is named.
        MalformedImage: It is a damaged image.
    """
    source = open_source(path)
    try:
        return Image(source, find_image(source, resume_offset))
    except BaseException:
        source.close()
        raise
