"""The header page of a swap area that holds a hibernation image, and the arch record of the image's first page.

The structures are decoded with `struct` alone: they are parsed once per run, and importing a library that declares them
costs a tenth of what a whole check does.
"""

from __future__ import annotations

import struct
from enum import IntFlag

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MalformedImage, Unsupported

HIBERNATE_SIG = b"S1SUSPEND\0"
SWAP_SIGS = (b"SWAPSPACE2", b"SWAP-SPACE")
SIG_OFFSET = PAGE_SIZE - 10

# kernel/power/swap.c (6.1 and later; before 5.17 the reserved bytes reach up to crc32):
#
#   struct swsusp_header {
#           char reserved[PAGE_SIZE - 20 - sizeof(sector_t) - sizeof(int) - sizeof(u32) - sizeof(u32)];
#           u32     hw_sig;
#           u32     crc32;
#           sector_t image;
#           unsigned int flags;     /* Flags to pass to the "boot" kernel */
#           char    orig_sig[10];
#           char    sig[10];
#   } __packed;
_HEADER = struct.Struct(f"<{PAGE_SIZE - 40}x I I Q I 10s 10s")
CRC_OFFSET = PAGE_SIZE - 36
IMAGE_OFFSET = PAGE_SIZE - 32

# kernel/power/power.h, behind the arch record, which on x86 lies over uts and version_code:
#
#   struct swsusp_info {
#           struct new_utsname      uts;            /* 6 * 65 bytes */
#           u32                     version_code;
#           unsigned long           num_physpages;
#           int                     cpus;
#           unsigned long           image_pages;
#           unsigned long           pages;
#           unsigned long           size;
#   } __aligned(PAGE_SIZE);
_INFO = struct.Struct("<400x Q 8x Q Q Q")

MAGIC_V0 = 0x0123456789ABCDEF
MAGIC_V1 = 0x123456789ABCDEF0
MAGIC_V2 = 0x23456789ABCDEF01
MAGIC_V3 = 0x23456789ABCDEF02

# arch/x86/power/hibernate.c (arch/x86/power/hibernate_64.c before 5.0), struct restore_data_record, unsigned long each:
#
#   up to 4.7:    jump_address, cr3, magic
#   from 4.8:     jump_address, jump_address_phys, cr3, magic
#   from 4.10:    ... and u8 e820_digest[16] (MD5; all zeros: not to be checked)
#   from 5.14:    ... and unsigned long e820_checksum (CRC-32) instead of the digest
_RECORD_V0 = struct.Struct("<Q Q Q")
_RECORD = struct.Struct("<Q Q Q Q 16s")

MAX_PAGES = 1 << 30
"""Pages that an image may have: 4 TiB.  It bounds the table of blocks to 256 MiB."""
UTS_FIELD = 65
RESTORE_MAGICS_32 = {0x12345678, 0x12345679}


class Flags(IntFlag):
    """``flags`` of the header (kernel/power/power.h)."""

    PLATFORM_MODE = 1
    NOCOMPRESS_MODE = 2
    CRC32_MODE = 4
    HW_SIG = 8
    COMPRESSION_ALG_LZ4 = 16


KNOWN_FLAGS = sum(Flags)


@dataclass(frozen=True, slots=True)
class Header:
    """The header page.

    Attributes:
        image: Page number, on the block device, of the first swap map page.
        flags: What the writing kernel says of the image.
        crc32: Checksum of everything behind the info page; meaningful with `Flags.CRC32_MODE`.
        hw_sig: FACS hardware signature, or None where the writer gave none.
        sig: The signature found.
        orig_sig: The swap signature that resuming puts back.
        consumed: A resume has begun: the swap signature is back, and the image may be stale or partly overwritten.
    """

    image: int
    flags: Flags
    crc32: int
    hw_sig: int | None
    sig: bytes
    orig_sig: bytes
    consumed: bool


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """``struct swsusp_info``: the writer's own account of the image, in pages of 4 KiB unless said otherwise.

    Attributes:
        num_physpages: RAM of the machine; a kernel refuses an image whose number differs from its own.
        image_pages: Stored data pages, all-zero pages not counted where the writer leaves them out.
        pages: Data pages, PFN list pages and the info page itself.
        size: ``pages`` in bytes.
    """

    num_physpages: int
    image_pages: int
    pages: int
    size: int

    @property
    def meta_pages(self) -> int:
        """Pages that hold the PFN list."""
        return self.pages - self.image_pages - 1


@dataclass(frozen=True, slots=True)
class ArchRecord:
    """``struct restore_data_record``: how the resumer enters the resumee.

    Attributes:
        jump_address: Virtual address of the resumee's ``restore_registers``, KASLR included.
        jump_address_phys: Its physical address; None in images of kernels before 4.8.
        cr3: The resumee's page-table root, PCID removed; may carry an encryption bit.
        magic: The era of the record.
        e820_checksum: CRC-32 of the firmware's memory map; None in older eras.
        e820_digest: MD5 of it; None in other eras, and where the writer says that it is not to be checked.
    """

    jump_address: int
    jump_address_phys: int | None
    cr3: int
    magic: int
    e820_checksum: int | None
    e820_digest: bytes | None


def parse_header(page: bytes) -> Header:
    """Decode a header page whose signature the caller has recognised.

    Raises:
        MalformedImage: The page is short.
    """
    if len(page) < _HEADER.size:
        raise MalformedImage("the header page is cut short")
    hw_sig, crc32, image, bits, orig_sig, sig = _HEADER.unpack_from(page)
    flags = Flags(bits)
    return Header(
        image=image,
        flags=flags,
        crc32=crc32,
        hw_sig=hw_sig if Flags.HW_SIG in flags else None,
        sig=sig,
        orig_sig=orig_sig,
        consumed=sig != HIBERNATE_SIG,
    )


def parse_info(page: bytes) -> ImageInfo:
    """Decode the info page and see that its numbers agree with one another.

    Raises:
        MalformedImage: They contradict one another, or the page is short.
    """
    if len(page) < _INFO.size:
        raise MalformedImage("the info page is cut short")
    info = ImageInfo(*_INFO.unpack_from(page))
    if info.pages < 1 or info.image_pages >= info.pages or info.size != info.pages * PAGE_SIZE:
        raise MalformedImage(
            f"the info page contradicts itself: {info.pages} pages, {info.image_pages} of them data, {info.size} bytes"
        )
    if info.pages > MAX_PAGES:
        raise MalformedImage(f"the info page announces {info.pages} pages, more than any machine that hibernates has")
    return info


def parse_record(page: bytes) -> ArchRecord:
    """Decode the arch record at the start of the info page.

    Raises:
        Unsupported: The image is of another architecture, or of an era that is not known.
        MalformedImage: There is no record at all.
    """
    if len(page) < PAGE_SIZE:
        raise MalformedImage("the info page is cut short")
    entry, entry_phys, cr3, magic, e820 = _RECORD.unpack_from(page)
    if magic == MAGIC_V3:
        return ArchRecord(entry, entry_phys, cr3, magic, int.from_bytes(e820[:8], "little"), None)
    if magic == MAGIC_V2:
        return ArchRecord(entry, entry_phys, cr3, magic, None, e820 if any(e820) else None)
    if magic == MAGIC_V1:
        return ArchRecord(entry, entry_phys, cr3, magic, None, None)
    entry, cr3, magic = _RECORD_V0.unpack_from(page)
    if magic == MAGIC_V0:
        return ArchRecord(entry, None, cr3, magic, None, None)
    raise _foreign_record(page)


def _foreign_record(page: bytes) -> Unsupported | MalformedImage:
    """Name whose info page this is, if it is anyone's."""
    if struct.unpack_from("<I", page, 12)[0] in RESTORE_MAGICS_32:
        return Unsupported("the image is of a 32-bit x86 kernel", advice="hibercheck reads x86-64 images")
    if page.startswith(b"Linux\0"):
        # Without CONFIG_ARCH_HIBERNATION_HEADER the page starts with struct new_utsname; machine is its fifth field.
        machine = page[4 * UTS_FIELD : 5 * UTS_FIELD].split(b"\0")[0]
        name = "".join(c for c in machine.decode("ascii", "replace") if c.isprintable())
        return Unsupported(f"the image is of a kernel for {name or '?'}", advice="hibercheck reads x86-64 images")
    if page.startswith(b"#") and page[1:2].isdigit():
        # arch/arm64/kernel/hibernate.c, struct arch_hibernate_hdr: uts_version comes first ("#1 SMP ...").
        return Unsupported("the image is of an arm64 kernel", advice="hibercheck reads x86-64 images")
    magic = struct.unpack_from("<Q", page, 24)[0]
    if magic > MAGIC_V3 and magic >> 8 == MAGIC_V3 >> 8:
        # Each era has the magic after the last one's: RESTORE_MAGIC, arch/x86/power/hibernate.c.
        what = f"the image has an arch record that is newer than this hibercheck (magic {magic:#x})"
        return Unsupported(what, advice="update hibercheck")
    return MalformedImage(f"the info page has no x86-64 arch record that is known (magic {magic:#x})")
