"""Long lists of 64-bit numbers kept as runs of consecutive ones.

Both lists of an image, the swap map's and the PFNs', count up by one nearly everywhere.  Kept as runs they are a
hundredth of their size, and whole pages of them can be recognised at the speed of a memory comparison.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from hibercheck.errors import MalformedImage

WORD = 8
MAX_RUNS = 1 << 25
"""Runs that a list may have.  No machine comes near: 4 TiB of memory, in runs of 128 KiB.  It bounds memory."""
_LOW = bytes(range(256)) * 258
_HIGH = b"".join(bytes([i & 255]) * 256 for i in range(258))


def counts_up(words: bytes, count: int) -> bool:
    """Whether the first ``count`` (at most 512) little-endian words each exceed the one before by one.

    A True is always right.  It may be False for a list that crosses a multiple of 65536; the caller then looks at
    each word.  The comparison is by byte planes: strided slices of bytes are made in C.
    """
    end = count * WORD
    low = words[0] | words[1] << 8
    if low + count > 0x10000 or words[0:end:WORD] != _LOW[low : low + count]:
        return False
    return words[1:end:WORD] == _HIGH[low : low + count] and all(
        words[plane:end:WORD] == words[plane : plane + 1] * count for plane in range(2, WORD)
    )


class RunTable:
    """A list of numbers, appended page by page, that answers what its i-th number is.

    Memory: 16 bytes a run, and so no more than 512 MiB.
    """

    def __init__(self) -> None:
        self.starts = array("Q")
        self.indexes = array("Q")
        self.length = 0
        self._expected = -1

    def append(self, words: bytes, count: int) -> None:
        """Append the first ``count`` words of ``words`` (a page).

        Raises:
            MalformedImage: The list has more than `MAX_RUNS` runs.
        """
        if count == 0:
            return
        if len(self.starts) >= MAX_RUNS:
            raise MalformedImage(f"the swap map is in more than {MAX_RUNS} pieces")
        first = int.from_bytes(words[:WORD], "little")
        if counts_up(words, count):
            if first != self._expected:
                self.starts.append(first)
                self.indexes.append(self.length)
            self._expected = first + count
        else:
            self._append_each(memoryview(words)[: count * WORD].cast("Q"))
        self.length += count

    def _append_each(self, words: memoryview) -> None:
        expected = self._expected
        for index, word in enumerate(words, self.length):
            if word != expected:
                self.starts.append(word)
                self.indexes.append(index)
            expected = word + 1
        self._expected = expected

    def run_at(self, index: int) -> tuple[int, int]:
        """Return the ``index``-th number and how many numbers from it on count up by one.

        ``index`` must be below `length`.
        """
        run = bisect_right(self.indexes, index) - 1
        end = self.indexes[run + 1] if run + 1 < len(self.indexes) else self.length
        return self.starts[run] + index - self.indexes[run], end - index
