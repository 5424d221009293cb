"""What readers of files share: how contents are held, a search through them, and identifiers as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Bytes(Protocol):
    """What the contents of a file are held in: `bytes`, or an `mmap.mmap` of it."""

    def __len__(self) -> int:
        """Length in bytes."""
        ...

    def __getitem__(self, index: slice, /) -> bytes:
        """Return a copy of a range."""
        ...

    def find(self, sub: bytes, start: int = ..., end: int = ..., /) -> int:
        """Return the first offset of ``sub`` in a range, or -1."""
        ...


def occurrences(haystack: Bytes, needle: bytes, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Yield every offset of ``needle``, overlapping ones too, from ``start`` on and up to ``end``."""
    end = len(haystack) if end is None else end
    at = haystack.find(needle, start, end)
    while at >= 0:
        yield at
        at = haystack.find(needle, at + 1, end)


def uuid_text(identity: bytes) -> str:
    """Return 16 bytes as a UUID is written; to import `uuid`, with all that it loads, takes a fiftieth of a check."""
    digits = identity.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
