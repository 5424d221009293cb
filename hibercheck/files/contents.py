"""What a partition or a whole device holds when it is not a swap space: by name, with what to do about it."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hibercheck.data import dataclass
from hibercheck.files.binary import uuid_text
from hibercheck.files.disk import Readable

PAGE = 4096
HEAD = 0x11000
"""Bytes from the start within which every signature below lies, but for those that are read apart."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies at a place of a disk.

    Attributes:
        kind: In words with their article: ``an ext4 file system``.
        uuid: Its UUID, or None.
        label: Its label, or None.
        advice: How to get at a swap space in it; empty where there is none to be got.
    """

    kind: str
    uuid: str | None = None
    label: str | None = None
    advice: str = ""


_OPEN = "open it (cryptsetup open --readonly DEVICE NAME) and give /dev/mapper/NAME"
_ACTIVATE = "activate its group (vgchange -ay) and give the logical volume, /dev/VG/LV"
_SWAP_FILE = "a swap file in it is given as the disk with --resume-offset"


def contents_at(disk: Readable, at: int) -> Contents | None:
    """Name what begins at byte ``at``; None for nothing known.

    Raises:
        InputProblem: The file cannot be read there.
    """
    head = disk.read(at, HEAD)
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name(head)
    return None


def _plain(kind: str, advice: str = "") -> Callable[[bytes], Contents]:
    return lambda _head: Contents(kind, advice=advice)


def _uuid(data: bytes) -> str | None:
    return uuid_text(data) if len(data) == 16 and any(data) else None


def _text(data: bytes) -> str | None:
    text = data.split(b"\0")[0].decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable()) or None


def _luks(head: bytes) -> Contents:
    # struct luks2_hdr_disk (cryptsetup, lib/luks2/luks2.h): version at 6 (be16), label[48] at 24, uuid[40] at 168
    version = int.from_bytes(head[6:8], "big")
    label = _text(head[24:72]) if version == 2 else None
    return Contents("an encrypted (LUKS) device", _text(head[168:208]), label, _OPEN)


def _ext(head: bytes) -> Contents:
    # struct ext4_super_block (fs/ext4/ext4.h) at 1024: s_feature_compat at 92, s_feature_incompat at 96, s_uuid at 104,
    # s_volume_name at 120
    compat, incompat = struct.unpack_from("<II", head, 1024 + 92)
    kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"  # extents, 64bit, flex_bg; has_journal
    return Contents(f"an {kind} file system", _uuid(head[1128:1144]), _text(head[1144:1160]), _SWAP_FILE)


def _xfs(head: bytes) -> Contents:
    # struct xfs_dsb (fs/xfs/libxfs/xfs_format.h): sb_uuid at 32, sb_fname[12] at 108
    return Contents("an XFS file system", _uuid(head[32:48]), _text(head[108:120]), _SWAP_FILE)


def _btrfs(head: bytes) -> Contents:
    # struct btrfs_super_block (include/uapi/linux/btrfs_tree.h) at 64 KiB: fsid at 32, label[256] at 299
    at = 0x10000
    return Contents("a btrfs file system", _uuid(head[at + 32 : at + 48]), _text(head[at + 299 : at + 555]), _SWAP_FILE)


def swap_names(head: bytes) -> tuple[str | None, str | None]:
    """Return UUID and label of swap space by its first page, None for each that it has not.

    union swap_header (include/linux/swap.h), info: sws_uuid at 1036, sws_volume at 1052.
    """
    return _uuid(head[1036:1052]), _text(head[1052:1068])


def _swap(head: bytes) -> Contents:
    return Contents("swap space", *swap_names(head))


_SIGNATURES: tuple[tuple[int, bytes, Callable[[bytes], Contents]], ...] = (
    (0, b"LUKS\xba\xbe", _luks),
    (512 + 24, b"LVM2 001", _plain("a physical volume of LVM", _ACTIVATE)),
    (24, b"LVM2 001", _plain("a physical volume of LVM", _ACTIVATE)),
    (3, b"-FVE-FS-", _plain("a BitLocker volume")),
    (PAGE, b"\xfc\x4e\x2b\xa9", _plain("a member of an MD RAID", "assemble it (mdadm --readonly) and give /dev/mdN")),
    (PAGE - 10, b"SWAPSPACE2", _swap),
    (PAGE - 10, b"S1SUSPEND\0", _swap),
    (1024 + 56, b"\x53\xef", _ext),
    (0, b"XFSB", _xfs),
    (0x10040, b"_BHRfS_M", _btrfs),
    (1024, b"\x10\x20\xf5\xf2", _plain("an F2FS file system", _SWAP_FILE)),
    (3, b"NTFS    ", _plain("an NTFS file system")),
    (3, b"EXFAT   ", _plain("an exFAT file system")),
    (82, b"FAT32   ", _plain("a FAT file system")),
    (54, b"FAT16   ", _plain("a FAT file system")),
    (54, b"FAT12   ", _plain("a FAT file system")),
    (0x8001, b"CD001", _plain("an ISO 9660 file system")),
    (0, b"hsqs", _plain("a squashfs file system")),
)
"""(offset, magic, what makes a name of it), the outermost layer first: what is in a container comes after it."""
