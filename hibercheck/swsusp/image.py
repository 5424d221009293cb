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
from hibercheck.files.container import recognise_container
from hibercheck.files.contents import swap_names
from hibercheck.files.source import Source, open_unpacked
from hibercheck.swsusp.codec import MAX_STORED_PAGES
from hibercheck.swsusp.foreign import AGAIN, RESUMED, Overwritten
from hibercheck.swsusp.header import ArchRecord, Flags, Header, ImageInfo
from hibercheck.swsusp.locate import Found, find_image
from hibercheck.swsusp.pfns import PER_PAGE, PfnList
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
        partition: The partition of the file that it lies in, or None.
        swap_uuid: UUID of the swap space; None where it has none.
        swap_label: Its label; None where it has none.
    """

    def __init__(self, source: Source, found: Found) -> None:
        self.source = source
        self.path = source.path
        self.header: Header = found.header
        self.record: ArchRecord = found.record
        self.info: ImageInfo = found.info
        self.warnings: tuple[str, ...] = found.warnings
        self.header_offset = found.offset
        self.partition = found.partition
        self.swap_uuid, self.swap_label = _names(source, found)
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
            self._check_counts(listed)
        except MalformedImage as problem:
            if problem.path is None:
                problem.path = self.path
            raise self._explained(problem) from problem
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
        try:
            return self.stream.page(self.info.meta_pages + index)
        except MalformedImage as problem:
            raise self._explained(problem) from problem

    def frames(self, first: int, count: int) -> bytes:
        """Return the contents of frames one after the other, zeros for those that the image does not hold.

        Pages of a run come out of a chunk together: a kernel's symbols are found in its 1,500 first pages in four
        fifths of the time that page by page takes.

        Raises:
            MalformedImage: A page cannot be decoded.
        """
        parts = []
        pfn, end = first, first + count
        while pfn < end:
            index = self.pfns.data_index(pfn)
            if index is None or index < 0:
                parts.append(ZERO_PAGE)
            else:
                try:
                    parts.append(
                        self.stream.pages_from(self.info.meta_pages + index, min(end - pfn, self.pfns.run_from(pfn)))
                    )
                except MalformedImage as problem:
                    raise self._explained(problem) from problem
            pfn += len(parts[-1]) // PAGE_SIZE
        return b"".join(parts)

    def _explained(self, problem: MalformedImage) -> MalformedImage:
        """Give the reason where swap may lie over the image: no disk is damaged then, and no copy was bad."""
        if not self.header.consumed:
            return problem
        message = f"{RESUMED}: {problem.message}"
        return MalformedImage(message, path=self.path, offset=problem.offset, pfn=problem.pfn, advice=AGAIN)

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


def _names(source: Source, found: Found) -> tuple[str | None, str | None]:
    """Return UUID and label of the swap space that an image is in."""
    if found.swap_map is None:
        return None, None
    return swap_names(source.read(found.offset, PAGE_SIZE))


def compressor_of(flags: Flags) -> str:
    """Return what the flags say of the compression; LZO is the absence of the other two."""
    if Flags.NOCOMPRESS_MODE in flags:
        return "none"
    return "lz4" if Flags.COMPRESSION_ALG_LZ4 in flags else "lzo"


def _whole(source: Source, found: Found) -> Image:
    """Make an image of what was found; of one that swap lies over, say what is left where that is too little."""
    try:
        return Image(source, found)
    except MalformedImage as problem:
        if not found.header.consumed or found.swap_map is None:
            raise
        from hibercheck.swsusp.remains import told  # noqa: PLC0415 - as below

        raise told(problem, source, found.offset, found.swap_map.base) from problem


def _opened(source: Source) -> Source:
    """Look into what holds a disk in an order of its own.

    Raises:
        Unsupported: It is one of those that are not read; the message has the command that makes a plain copy.
    """
    container = recognise_container(source)
    if container is None:
        return source
    from hibercheck.files.qcow2 import MAGIC, Qcow2Source  # noqa: PLC0415 - disks of virtual machines are rare

    if source.read(0, len(MAGIC)) != MAGIC:
        raise container
    return Qcow2Source(source)


def open_image(path: str, *, resume_offset: int | None = None, resume: str | None = None) -> Image:
    """Open the hibernation image in a swap device or a copy of one.

    Args:
        path: The file or block device; it is never written to.
        resume_offset: Page number of the header, as the kernel's ``resume_offset=``; found by itself when None.
        resume: Which partition of a disk, as the kernel's ``resume=`` or by its number; found by itself when None.

    Raises:
        InputProblem: The file cannot be read.
        Unsupported: It is something else, which is named.
        MalformedImage: It is a damaged image.
    """
    source = open_unpacked(path, MalformedImage, advice="give the swap device, or a copy of it")
    try:
        source = _opened(source)
        found = find_image(source, resume_offset, resume)
        return _whole(source, found)
    except Overwritten as problem:
        from hibercheck.swsusp.remains import told  # noqa: PLC0415 - what is left of images is rarely asked

        with source:
            raise told(problem, source, problem.header_at, problem.base) from problem
    except BaseException:
        source.close()
        raise
