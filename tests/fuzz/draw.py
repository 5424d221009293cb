"""Choices out of a string of bytes: they drive every mutation, so that a fuzzer can steer it, a number repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WORDS = (
    *(0, 1, 2, 7, 8, 511, 512, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 0x10000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 40, 1 << 52, 1 << 62, (1 << 63) - 1, 1 << 63),
    *((1 << 64) - 1, (1 << 64) - 4096, 0xFFFFFFFF80000000, 0xFFFFFFFF81000000),
)
"""Numbers at which readers fail: limits of types, page sizes, kernel addresses."""


class Draw:
    """A consumer of choices; when they run out, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes, or what is left of them."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def below(self, limit: int) -> int:
        """A number from 0 up to ``limit``, which it does not reach."""
        if limit <= 1:
            return 0
        size = (limit - 1).bit_length() + 7 >> 3
        return int.from_bytes(self.bytes(size), "little") % limit

    def between(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        return low + self.below(high - low + 1)

    def choice(self, things: Sequence[T]) -> T:
        """One of several."""
        return things[self.below(len(things))]

    def chance(self, one_in: int) -> bool:
        """True once in so many times; never when the choices have run out."""
        return bool(self) and self.below(one_in) == one_in - 1

    def word(self, size: int, old: int = 0) -> int:
        """A number of ``size`` bytes that is likely to hurt, perhaps near the old one."""
        mask = (1 << 8 * size) - 1
        kind = self.below(6)
        if kind == 0:
            return self.choice(WORDS) & mask
        if kind == 1:
            return old + self.choice((1, -1, 2, -2, 8, -8, 16, 4096, -4096)) & mask
        if kind == 2:
            return old ^ 1 << self.below(8 * size)
        if kind == 3:
            return self.below(256)
        if kind == 4:
            return -self.below(256) & mask
        return int.from_bytes(self.bytes(size), "little") & mask
