"""Where on its device a swap file begins: what ``resume_offset=`` has to be.

The kernel reads the image from the block device below the file system, so that only the real place helps.  FIEMAP gives
it, but for btrfs, whose addresses are those of its own chunks (Documentation/filesystems/fiemap.rst; btrfs(5)).
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from hibercheck.host.tree import opened

_FIEMAP = 0xC020660B
"""FS_IOC_FIEMAP, include/uapi/linux/fs.h: _IOWR('f', 11, struct fiemap)."""
# struct fiemap { __u64 fm_start, fm_length; __u32 fm_flags, fm_mapped_extents, fm_extent_count, fm_reserved; }
_QUERY = struct.Struct("=QQIIII")
# struct fiemap_extent { __u64 fe_logical, fe_physical, fe_length, fe_reserved64[2]; __u32 fe_flags, fe_reserved[3]; }
_EXTENT = struct.Struct("=QQQ16xI12x")
_NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x200
"""FIEMAP_EXTENT_UNKNOWN, _DELALLOC, _ENCODED, _DATA_ENCRYPTED, _DATA_INLINE."""

_BTRFS_MAGIC = 0x9123683E
_SEARCH = 0xD0009411
"""BTRFS_IOC_TREE_SEARCH: _IOWR(0x94, 17, struct btrfs_ioctl_search_args) of 4096 bytes (linux/btrfs.h)."""
# struct btrfs_ioctl_search_key { __u64 tree_id, min_objectid, max_objectid, min_offset, max_offset, min_transid,
#   max_transid; __u32 min_type, max_type, nr_items, unused; __u64 unused1..4; }, then 3992 bytes for what is found
_KEY = struct.Struct("=7Q4I4Q")
# struct btrfs_ioctl_search_header { __u64 transid, objectid, offset; __u32 type, len; }
_FOUND = struct.Struct("=QQQII")
_CHUNK_TREE, _FIRST_CHUNK, _CHUNK_ITEM = 3, 256, 228
# struct btrfs_chunk { le64 length, owner, stripe_len, type; le32 io_align, io_width, sector_size;
#   le16 num_stripes, sub_stripes; struct btrfs_stripe { le64 devid, offset; u8 dev_uuid[16]; } stripe; }
_CHUNK = struct.Struct("<QQQQIIIHHQQ")
_SINGLE_STRIPE = 1


def swap_file_offset(path: Path, root: Path) -> int | None:
    """Return the byte of its device at which a swap file begins; None where that cannot be told.

    Args:
        path: The file, below ``root``.
        root: ``/``, or where its system is mounted.
    """
    descriptor = opened(path, root)
    if descriptor is None:
        return None
    try:
        found = _first_extent(descriptor)
        if found is None or not _is_btrfs(descriptor):
            return found
        return _on_device(descriptor, found)
    except (OSError, struct.error):
        return None
    finally:
        os.close(descriptor)


def _first_extent(descriptor: int) -> int | None:
    buffer = bytearray(_QUERY.pack(0, os.fstat(descriptor).st_size, 0, 0, 1, 0) + bytes(_EXTENT.size))
    fcntl.ioctl(descriptor, _FIEMAP, buffer)
    if not _QUERY.unpack_from(buffer)[3]:
        return None
    logical, physical, _, flags = _EXTENT.unpack_from(buffer, _QUERY.size)
    return None if logical or not physical or flags & _NO_PLACE else physical


def _is_btrfs(descriptor: int) -> bool:
    return _file_system(descriptor) == _BTRFS_MAGIC


def _file_system(descriptor: int) -> int | None:
    """Return the magic number of the file system of an open file: fstatfs(2), which Python does not have."""
    import ctypes  # noqa: PLC0415 - for swap files only

    buffer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, buffer):
        return None
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF


def _on_device(descriptor: int, logical: int) -> int | None:
    """Find a btrfs address on its device, by the chunk that it is in; None unless that has one copy on one device."""
    key = _KEY.pack(
        *(_CHUNK_TREE, _FIRST_CHUNK, _FIRST_CHUNK, 0, logical, 0, (1 << 64) - 1),
        *(_CHUNK_ITEM, _CHUNK_ITEM, 1 << 20, 0, 0, 0, 0, 0),
    )
    start = 0
    best: int | None = None
    while True:
        buffer = bytearray(key.ljust(4096, b"\0"))
        struct.pack_into("=Q", buffer, 24, start)
        fcntl.ioctl(descriptor, _SEARCH, buffer)
        count = struct.unpack_from("=I", buffer, 64)[0]
        at = _KEY.size
        for _ in range(count):
            _, _, offset, _, length = _FOUND.unpack_from(buffer, at)
            at += _FOUND.size
            size, _, _, _, _, _, _, stripes, _, _, place = _CHUNK.unpack_from(buffer, at)
            if offset <= logical < offset + size:
                best = place + logical - offset if stripes == _SINGLE_STRIPE else None
            at += length
            start = offset + 1
        if not count or start > logical:
            return best
