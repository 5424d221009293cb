"""The image's checksum, computed in parts.

The kernel runs ``crc32_le(seed 0)`` without a final inversion over everything behind the info page, which in terms of
zlib is a CRC-32 with both inversions undone.  Being linear, the parts can be computed apart from one another:
``crc(a + b) = shift(crc(a), len(b)) ^ crc(b)``, where shift is the effect of that many zero bytes.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:  # an extra: hibercheck[fast]
    from zlib import crc32

_ONES = 0xFFFFFFFF
Matrix = tuple[int, ...]
"""A linear map of 32 bits: the image of each bit."""


def crc32_le(data: bytes | memoryview, seed: int = 0) -> int:
    """Continue the kernel's checksum ``seed`` over ``data``."""
    return crc32(data, seed ^ _ONES) ^ _ONES


def shift_matrix(size: int) -> Matrix:
    """Return the effect on a checksum of ``size`` zero bytes, by repeated squaring."""
    square = tuple(crc32_le(b"\0", 1 << bit) for bit in range(32))
    result = tuple(1 << bit for bit in range(32))
    while size:
        if size & 1:
            result = tuple(apply(square, column) for column in result)
        square = tuple(apply(square, column) for column in square)
        size >>= 1
    return result


def apply(matrix: Matrix, value: int) -> int:
    """Return the image of ``value`` under ``matrix``."""
    result = 0
    for bit, column in enumerate(matrix):
        if value >> bit & 1:
            result ^= column
    return result
