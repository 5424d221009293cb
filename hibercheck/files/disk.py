"""The partitions of a disk or of a copy of one: MBR with its logical drives, and GPT."""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator
from typing import Protocol

from hibercheck.data import dataclass

SECTOR = 512
SECTORS = (SECTOR, 4096)
"""Sizes that a disk's logical sector can have."""
MAX_ENTRIES = 128
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE = 0xEE


class Readable(Protocol):
    """A file or device of which parts can be read."""

    @property
    def path(self) -> str:
        """As the user named it."""
        ...

    def read(self, offset: int, size: int, /) -> bytes:
        """Return up to ``size`` bytes from ``offset``; fewer, or none, past the end."""
        ...


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Attributes:
        number: As the kernel numbers it: ``sda2`` is 2; logical drives begin at 5.
        start: Its first byte on the disk.
        size: Its length in bytes; 0 where the table gives none.
        uuid: Its PARTUUID, in lower case.
        label: Its name in a GPT, or None.
    """

    number: int
    start: int
    size: int
    uuid: str | None = None
    label: str | None = None


def partitions(disk: Readable) -> tuple[Partition, ...]:
    """Return the partitions in an MBR or GPT, in table order; none where there is no table."""
    first = disk.read(0, SECTOR)
    if first[510:512] != b"\x55\xaa" or len(first) < SECTOR:
        return ()
    for sector in SECTORS:
        header = disk.read(sector, SECTOR)
        if header.startswith(b"EFI PART") and len(header) == SECTOR:
            return tuple(_gpt(disk, header, sector))
    return tuple(_mbr(disk, first))


def _mbr(disk: Readable, first: bytes) -> Iterator[Partition]:
    # struct msdos_partition (include/linux/msdos_partition.h), 16 bytes: sys_ind at 4, start_sect at 8, nr_sects at 12;
    # the disk's signature is at 440, and a PARTUUID is made of it (block/partitions/msdos.c).
    signature = int.from_bytes(first[440:444], "little")
    for number in range(1, 5):
        kind, start, size = struct.unpack_from("<4xB3xII", first, 446 + 16 * (number - 1))
        if kind in _EXTENDED:
            yield from _logical(disk, start, signature)
        elif start and kind != _PROTECTIVE:
            yield Partition(number, start * SECTOR, size * SECTOR, f"{signature:08x}-{number:02x}")


def _logical(disk: Readable, extended: int, signature: int) -> Iterator[Partition]:
    """Follow the chain of an extended partition: each link has one drive, relative to it, and the next link."""
    at = extended
    seen = set()
    for number in range(5, 5 + MAX_ENTRIES):
        link = disk.read(at * SECTOR, SECTOR)
        if at in seen or link[510:512] != b"\x55\xaa":
            return
        seen.add(at)
        start, size = struct.unpack_from("<II", link, 446 + 8)
        if start:
            yield Partition(number, (at + start) * SECTOR, size * SECTOR, f"{signature:08x}-{number:02x}")
        kind, following = struct.unpack_from("<4xB3xI", link, 446 + 16)
        if kind not in _EXTENDED or not following:
            return
        at = extended + following


def _gpt(disk: Readable, header: bytes, sector: int) -> Iterator[Partition]:
    # UEFI 2.10, 5.3.2: PartitionEntryLBA at 72, NumberOfPartitionEntries at 80, SizeOfPartitionEntry at 84.
    # 5.3.3: PartitionTypeGUID (zero: unused), UniquePartitionGUID, StartingLBA, EndingLBA, Attributes, PartitionName.
    lba, count, size = struct.unpack_from("<QII", header, 72)
    if size < 128:
        return
    for number in range(1, min(count, MAX_ENTRIES) + 1):
        entry = disk.read(lba * sector + (number - 1) * size, 128)
        if len(entry) < 128 or not any(entry[:16]):
            continue
        own, start, end = struct.unpack_from("<16x16sQQ", entry)
        name = entry[56:128].decode("utf-16-le", "replace").split("\0")[0]
        bytes_long = max(0, end - start + 1) * sector
        yield Partition(number, start * sector, bytes_long, str(uuid.UUID(bytes_le=own)), name or None)


def holder(found: tuple[Partition, ...], offset: int) -> Partition | None:
    """Return the partition that a byte lies in: where its end is not known, the last that begins before it."""
    within = [one for one in found if one.start <= offset and (not one.size or offset < one.start + one.size)]
    return max(within, key=lambda one: one.start, default=None)


def number_in(name: str) -> int | None:
    """Return the partition number in ``2``, ``/dev/sda2``, ``/dev/nvme0n1p2`` or ``.../x-part2``; None in others."""
    if name.isascii() and name.isdigit() and len(name) <= 3:
        return int(name)
    found = re.fullmatch(r"/dev/(?:[^/\s]*[a-z]|[^/\s]*[0-9]p|\S*-part)([0-9]{1,3})", name)
    return int(found.group(1)) if found else None
