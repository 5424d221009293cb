"""What the superblock of a file system says of its use: when it was last mounted and written, and how often.

ext2 to ext4 keep both times.  XFS and btrfs keep none; they count: the log sequence number of the last write of the
superblock, and the generation of the last transaction.  A count tells more or less than another copy of the same
superblock, such as the one that a hibernated kernel has in its memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hibercheck.data import dataclass
from hibercheck.files.binary import uuid_text
from hibercheck.files.disk import Readable

BTRFS_AT = 0x10000
_EXT_AT = 1024
_BTRFS_MAGIC, _XFS_MAGIC = b"_BHRfS_M", b"XFSB"
_XFS_V5 = 5


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says.

    Attributes:
        kind: ``ext4``, ``XFS`` or ``btrfs`` (ext2 and ext3 are ``ext4`` here).
        identity: Its UUID, as 16 bytes.
        mounted: When it was last mounted for writing, seconds since 1970; None where that is not kept.
        written: When the superblock was last written, the same.
        count: A number that grows with each write; None where there is none.
        mounted_on: Where it was last mounted, or None.
    """

    kind: str
    identity: bytes
    mounted: int | None = None
    written: int | None = None
    count: int | None = None
    mounted_on: str | None = None

    @property
    def uuid(self) -> str:
        """Its UUID as text."""
        return uuid_text(self.identity)


def superblock_at(disk: Readable, at: int) -> Superblock | None:
    """Read the superblock of a file system that begins at byte ``at``; None for one that is not known.

    Raises:
        InputProblem: The file cannot be read there.
    """
    for offset, parse in ((_EXT_AT, _ext), (0, parse_xfs), (BTRFS_AT, parse_btrfs)):
        found = parse(disk.read(at + offset, 1024))
        if found is not None:
            return found
    return None


def _ext(block: bytes) -> Superblock | None:
    # struct ext4_super_block, fs/ext4/ext4.h: s_mtime 44, s_wtime 48, s_magic 56, s_uuid 104, s_last_mounted 136,
    # s_wtime_hi 0x274, s_mtime_hi 0x275 (bits 32 to 39 of the times)
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    mounted, written = struct.unpack_from("<II", block, 44)
    mounted, written = mounted | block[0x275] << 32, written | block[0x274] << 32
    place = block[136:200].split(b"\0")[0].decode("utf-8", "replace")
    shown = "".join(c for c in place if c.isprintable()) or None
    return Superblock("ext4", block[104:120], mounted or None, written or None, None, shown)


def parse_xfs(block: bytes) -> Superblock | None:
    """Parse struct xfs_dsb (fs/xfs/libxfs/xfs_format.h, big-endian): sb_uuid 32, sb_versionnum 100, sb_lsn 240."""
    if len(block) < 256 or block[:4] != _XFS_MAGIC:
        return None
    (version,) = struct.unpack_from(">H", block, 100)
    count = struct.unpack_from(">Q", block, 240)[0] if version & 15 == _XFS_V5 else None
    return Superblock("XFS", block[32:48], count=count)


def parse_btrfs(block: bytes) -> Superblock | None:
    """Parse struct btrfs_super_block (include/uapi/linux/btrfs_tree.h): fsid 32, magic 64, generation 72."""
    if len(block) < 80 or block[64:72] != _BTRFS_MAGIC:
        return None
    return Superblock("btrfs", block[32:48], count=struct.unpack_from("<Q", block, 72)[0])


COPIES: dict[str, tuple[bytes, int, Callable[[bytes], Superblock | None]]] = {
    "XFS": (_XFS_MAGIC, 0, parse_xfs),
    "btrfs": (_BTRFS_MAGIC, 64, parse_btrfs),
}
"""For the kinds that count: the magic, where it is in the superblock, and what parses a copy of one."""
