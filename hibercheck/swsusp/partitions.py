"""Where the partitions of a disk image start: a swap map counts pages from the start of its partition."""

from __future__ import annotations

import struct

from hibercheck.swsusp.source import Source

SECTOR = 512
MAX_ENTRIES = 128


def partition_starts(source: Source) -> list[int]:
    """Return the byte offsets of the partitions in an MBR or GPT, in table order; none where there is no table.

    Extended partitions are not followed: a logical partition's header is found by searching, not by its table.
    """
    first = source.read(0, 2 * SECTOR)
    if first[510:512] != b"\x55\xaa" or len(first) < 2 * SECTOR:
        return []
    if first[SECTOR : SECTOR + 8] == b"EFI PART":
        return _gpt(source, first[SECTOR:])
    # struct msdos_partition (include/linux/msdos_partition.h): 16 bytes, start_sect at 8
    entries = (struct.unpack_from("<I", first, 446 + 16 * i + 8)[0] for i in range(4))
    return [entry * SECTOR for entry in entries if entry]


def _gpt(source: Source, header: bytes) -> list[int]:
    # UEFI 2.10, 5.3.2: PartitionEntryLBA at 72, NumberOfPartitionEntries at 80, SizeOfPartitionEntry at 84;
    # 5.3.3: an entry has its type GUID at 0 (zero: unused) and StartingLBA at 32.
    lba, count, size = struct.unpack_from("<QII", header, 72)
    if size < 128:
        return []
    starts = []
    for number in range(min(count, MAX_ENTRIES)):
        entry = source.read(lba * SECTOR + number * size, 40)
        if len(entry) == 40 and any(entry[:16]):
            starts.append(struct.unpack_from("<Q", entry, 32)[0] * SECTOR)
    return starts
