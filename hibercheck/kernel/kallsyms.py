"""The symbol table that a kernel carries in its own read-only data (kernel/kallsyms.c, scripts/kallsyms.c).

It has no header and, in a stripped kernel, no symbols of its own, so it is found by what its parts must be.  In order:

* until 6.3: ``addresses`` or (``offsets``, ``relative_base``), ``num_syms``, ``names``, ``markers``,
  [``seqs_of_names``], ``token_table``, ``token_index``
* since 404bad70fcf7 ("scripts/kallsyms: change the output order", in v6.4): ``num_syms``, ``names``, ``markers``,
  ``token_table``, ``token_index``, ``offsets``, [``relative_base``], ``seqs_of_names``

The token table is unmistakable: the digits, which every kernel's symbols use, stand for themselves in it.  Markers are
32-bit numbers (64-bit before 4.20).  Addresses are of one of four kinds, told apart by what makes an ascending list:
absolute; relative to a base; relative to a base but absolute where not negative (per-CPU symbols before 6.15); relative
to the entry's own place (where there is no base).

Nothing here knows of ELF: the contents can be a file's, or a machine's memory through `MemoryBytes`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, islice
from operator import itemgetter

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.files.binary import Bytes, occurrences
from hibercheck.kernel.symbols import TableSymbols

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_DIGIT_0 = 0x30
_TOKENS = 256
_MARKER_EVERY = 256
_MAX_TABLE = 1 << 16
_MAX_SYMBOLS = 1 << 21
_MAX_NAME = 512
_MIN_STEP, _MAX_STEP = 2 * _MARKER_EVERY, (_MAX_NAME + 2) * _MARKER_EVERY
_FIRST_PIECE, _PIECE = 1 << 14, 1 << 20
_MAX_GAP = 3 * _MAX_SYMBOLS + _PIECE
_ZERO = bytes(4)
_MAX_HITS = 8
_MAX_TRIES = 128
"""Real kernels need at most 50 tries of anything; the limits keep damaged ones from taking seconds."""
_MAX_WALKS = 2048
"""Places at which names are tried in all, an eighth of a second's work."""
_MANY = 4096
"""Names that are decoded by chance nowhere; any kernel has more."""
_KERNEL_HALF = 1 << 63
_MAX_SPAN = 1 << 31
_LETTERS = frozenset("AaBbCcDdGgIiNnPpRrSsTtUuVvWw-?")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Where the token table starts, what each token stands for, and where the token index ends."""

    start: int
    texts: tuple[bytes, ...]
    end: int


@dataclass(frozen=True, slots=True)
class _Names:
    """The compressed names: where their number is, their letters, and their expansions."""

    count_at: int
    letters: str
    texts: list[str]


class MemoryBytes:
    """A range of virtual memory as the contents to search.

    Args:
        read: Gives so many bytes from an address on, zeros where it knows nothing; asked for whole pages.
        start: First address, page-aligned.
        end: Address after the last.
    """

    _page = 4096

    def __init__(self, read: Callable[[int, int], bytes], start: int, end: int) -> None:
        self._read = read
        self._start = start
        self._size = end - start

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: slice, /) -> bytes:
        start, stop, _ = index.indices(self._size)
        first = start - start % self._page
        whole = self._read(self._start + first, -(-max(stop - first, 0) // self._page) * self._page)
        return whole[start - first : max(stop, start) - first]

    def find(self, sub: bytes, start: int = 0, end: int | None = None, /) -> int:
        """Return the first offset of ``sub``, or -1; reads in pieces."""
        stop = self._size if end is None else min(end, self._size)
        for at in range(start, stop, _PIECE):
            piece = self[at : min(at + _PIECE + len(sub) - 1, stop)]
            found = piece.find(sub)
            if found >= 0:
                return at + found
        return -1


def find(
    data: Bytes, address: int, start: int = 0, end: int | None = None, tried: set[int] | None = None
) -> TableSymbols | None:
    """Recover the symbols out of a kernel's read-only data.

    Args:
        data: The contents.
        address: Virtual address of ``data[0]``; the symbols are relative to it where the kernel keeps no base.
        start: Where in the contents to begin.
        end: Where to stop.
        tried: Where tables of tokens lie that nothing fitted: they are not tried again, and what is found is added.

    Returns:
        The symbols with the values that the kernel itself computes: link-time ones from a file, as relocated from a
        running kernel's memory.  None when there is no such table (CONFIG_KALLSYMS is off) or none that is consistent.
    """
    stop = len(data) if end is None else end
    hits = (at for at in occurrences(data, _DIGITS, start) if at < stop)
    walks = iter(range(_MAX_WALKS))
    tried = set() if tried is None else tried
    for hit in islice(hits, _MAX_HITS):
        tokens = _tokens(data, hit)
        if tokens is None or tokens.start in tried:
            continue
        tried.add(tokens.start)
        for markers_at, markers in islice(_markers(data, start, tokens.start), _MAX_TRIES):
            names = _names(data, start, markers_at, markers, tokens.texts, walks)
            addresses = _addresses(data, address, start, names, tokens) if names is not None else None
            if names is not None and addresses is not None:
                return TableSymbols("kallsyms", names.texts, addresses, names.letters)
            if names is not None and len(names.texts) > _MANY:
                return None  # these are its names, and their addresses are damaged: nothing else will fit either
    return None


def _align(value: int, to: int) -> int:
    return -(-value // to) * to


def _tokens(data: Bytes, hit: int) -> _Tokens | None:
    """Return the token table around its entry for the digit 0, proven by the index that follows it."""
    rest = data[hit : hit + _MAX_TABLE].split(b"\0", _TOKENS - _DIGIT_0)
    if len(rest) <= _TOKENS - _DIGIT_0:
        return None
    end = hit + sum(len(text) + 1 for text in rest[:-1])
    for index_at in sorted({_align(end, to) for to in (2, 4, 8, 16)}):
        raw = data[index_at : index_at + 2 * _TOKENS]
        if len(raw) < 2 * _TOKENS:
            return None
        index = struct.unpack(f"<{_TOKENS}H", raw)
        begin = hit - index[_DIGIT_0]
        if index[0] or begin < 0:
            continue
        texts = data[begin:end].split(b"\0")[:-1]
        if len(texts) == _TOKENS and index == (0, *accumulate(len(text) + 1 for text in texts[:-1])):
            return _Tokens(begin, tuple(texts), index_at + 2 * _TOKENS)
    return None


def _markers(data: Bytes, start: int, table_at: int) -> Iterator[tuple[int, list[int]]]:
    """Ascending numbers from 0 before the token table, nearest first: where they begin, and the numbers.

    Each marker is the offset of the next 256th name.  Between them and the tokens there may be ``seqs_of_names``.
    """
    top = table_at // 4 * 4
    bottom = max(start, table_at - _MAX_GAP)
    high, size = top, _FIRST_PIECE  # most kernels' markers are right there
    while high > bottom:
        low = max(bottom, high - size) // 4 * 4
        piece = data[low : min(high + 16, top)]
        words = memoryview(piece[: len(piece) // 4 * 4]).cast("I")
        for at in _zeros(piece):
            for width, second in ((4, words[at + 1 : at + 2]), (8, words[at + 1 : at + 4])):
                if _is_step(second):
                    run = _ascending(data, low + 4 * at, top, width)
                    if len(run) > 1:
                        yield low + 4 * at, run
        high, size = high - size, min(4 * size, _PIECE)


def _zeros(piece: bytes) -> Iterator[int]:
    """Yield which words of 32 bits are zero, the last first: most of a kernel's data is passed by in one search."""
    at = piece.rfind(_ZERO)
    while at >= 0:
        if not at % 4:
            yield at // 4
        at = piece.rfind(_ZERO, 0, (at - 1) // 4 * 4 + 4)


def _is_step(words: memoryview) -> bool:
    """Whether the rest of a first marker and a second one, in words of 32 bits, are what markers can be."""
    if len(words) == 1:
        return bool(_MIN_STEP <= words[0] <= _MAX_STEP)
    return len(words) == 3 and words[0] == 0 and words[2] == 0 and bool(_MIN_STEP <= words[1] <= _MAX_STEP)


def _ascending(data: Bytes, at: int, end: int, size: int) -> list[int]:
    """Return the numbers at a place for as long as they could be markers."""
    run = [0]
    for chunk in range(at, end, 4096):
        raw = data[chunk : min(chunk + 4096, end)]
        words = memoryview(raw[: len(raw) // size * size]).cast("I" if size == 4 else "Q")
        for word in words[1:] if chunk == at else words:
            if not _MIN_STEP <= word - run[-1] <= _MAX_STEP:
                return run
            run.append(word)
    return run


def _names(
    data: Bytes, start: int, markers_at: int, markers: list[int], tokens: tuple[bytes, ...], walks: Iterator[int]
) -> _Names | None:
    """Return the names before the markers: their number is right before them, and every marker must point at a name.

    Each place that is tried takes one of ``walks``.
    """
    bottom = max(start, markers_at - markers[-1] - 2 * _MAX_STEP) // 4 * 4
    top = markers_at - markers[max(0, len(markers) - 8)]
    # The run of markers may have swallowed a few words of what follows, hence some play in their number.
    fewest, most = _MARKER_EVERY * max(1, len(markers) - 8), _MARKER_EVERY * len(markers)
    raw = data[bottom:top]
    words = memoryview(raw[: len(raw) // 4 * 4]).cast("I").tolist()
    # Backwards, because before the number there may be offsets, which are numbers of that size too.
    places = range(bottom + 4 * (len(words) - 1), bottom - 1, -4)
    possible = map(range(fewest + 1, most + 1).__contains__, reversed(words))
    counts = compress(zip(places, reversed(words), strict=True), possible)
    for count_at, count in islice(counts, _MAX_TRIES):
        for names_at in (count_at + 4, count_at + 8):
            if next(walks, None) is None:
                return None
            # The first 256 names are enough to refuse nearly everything that is not a table.
            if _walk(data[names_at : names_at + markers[1] + 2], 0, _MARKER_EVERY) == markers[1]:
                found = _expand(data[names_at:markers_at], count, markers, tokens)
                if found is not None:
                    return _Names(count_at, *found)
    return None


def _expand(raw: bytes, count: int, markers: list[int], tokens: tuple[bytes, ...]) -> tuple[str, list[str]] | None:
    """Decode ``count`` names that fill ``raw``: their letters, and they; None at a contradiction to the markers."""
    texts: list[str] = []
    # One character for each byte until it is known that no name has others: names are ASCII, or UTF-8 in Rust.
    position, join, token = 0, "".join, [text.decode("latin-1") for text in tokens].__getitem__
    try:
        for begin, end, names in _blocks(count, markers):
            if position != begin:
                return None
            block = raw[begin:end]
            parts = list(map(token, block))  # what each byte stands for, were it no length
            at = 0
            for _ in range(names):
                # One byte of length, or since 73bbb94466fd ("kallsyms: support "big" kernel symbols", in v6.1) two.
                length = block[at]
                parts[at] = "\0"
                if length & 0x80:
                    at += 1
                    length = length & 0x7F | block[at] << 7
                    parts[at] = ""
                at += length + 1
            # no token has a NUL, so that names are told apart when all are joined, in seven eighths of the time
            texts += join(parts[:at]).split("\0")[1:]
            position += at
    except IndexError:
        return None
    if not len(raw) - 16 < position <= len(raw):
        return None
    if "" in texts:
        return None
    letters, plain = "".join(map(itemgetter(0), texts)), list(map(itemgetter(slice(1, None)), texts))
    if "" in plain or not _LETTERS.issuperset(letters):
        return None
    if all(map(bytes.isascii, tokens)):
        return letters, plain
    return letters, [name.encode("latin-1").decode("utf-8", "replace") for name in plain]


def _blocks(count: int, markers: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield where the names of each marker begin, where they end at the latest, and how many there are."""
    for number in range(0, count, _MARKER_EVERY):
        begin, last = markers[number // _MARKER_EVERY], count - number <= _MARKER_EVERY
        end = begin + _MAX_STEP if last else markers[number // _MARKER_EVERY + 1]
        yield begin, end, min(_MARKER_EVERY, count - number)


def _walk(raw: bytes, position: int, count: int) -> int:
    """Offset after ``count`` names, or -1 when they run over the end."""
    for _ in range(count):
        if position + 1 >= len(raw):
            return -1
        length = raw[position]
        position += 1
        if length & 0x80:
            length = length & 0x7F | raw[position] << 7
            position += 1
        position += length
    return position


def _addresses(data: Bytes, address: int, start: int, names: _Names, tokens: _Tokens) -> array[int] | None:
    """Return the symbols' values, by whichever layout gives an ascending list within the kernel."""
    count = len(names.texts)
    for offsets_at, base_at in _places(names.count_at, tokens.end, count):
        if offsets_at < start:
            continue
        raw = data[offsets_at : offsets_at + 4 * count]
        field = data[base_at : base_at + 8]
        if len(raw) < 4 * count or len(field) < 8:
            continue
        base = int.from_bytes(field, "little")
        if base < _KERNEL_HALF or base % 4096:
            continue
        offsets = struct.unpack(f"<{count}I", raw)
        found = _plausible(list(map(base.__add__, offsets))) if _ascend(offsets) else None
        if found is None:
            signed = struct.unpack(f"<{count}i", raw)
            found = _plausible([offset if offset >= 0 else base - 1 - offset for offset in signed])
        if found:
            return found
    # In this order: zeros after the tokens would pass for offsets from their own places.
    return _absolute(data, start, names.count_at, count) or _own_place(data, address, tokens.end, count)


def _places(count_at: int, tokens_end: int, count: int) -> Iterator[tuple[int, int]]:
    """Where offsets and base can be: after the tokens (since 6.4), or before the number of names."""
    yield tokens_end, _align(tokens_end + 4 * count, 8)
    base_at = count_at // 8 * 8 - 8
    yield (base_at - 4 * count) // 8 * 8, base_at


def _own_place(data: Bytes, address: int, at: int, count: int) -> array[int] | None:
    """Offsets from each entry's own address, after the tokens."""
    raw = data[at : at + 4 * count]
    if len(raw) < 4 * count:
        return None
    entry = address + at
    return _plausible(
        [(entry + 4 * n + offset) & ADDRESS_MASK for n, offset in enumerate(struct.unpack(f"<{count}i", raw))]
    )


def _absolute(data: Bytes, start: int, count_at: int, count: int) -> array[int] | None:
    """Absolute addresses, before the number of names.

    So until 2213e9a66bb8 ("kallsyms: add support for relative offsets in kallsyms address table", in v4.6).
    """
    at = count_at // 8 * 8 - 8 * count
    if at < start:
        return None
    raw = data[at : at + 8 * count]
    return _plausible(struct.unpack(f"<{count}Q", raw)) if len(raw) == 8 * count else None


def _plausible(addresses: Sequence[int]) -> array[int] | None:
    """Return the addresses, if they ascend and those in the kernel's half lie within 2 GiB; else None."""
    if not _ascend(addresses):
        return None
    upper = bisect_left(addresses, _KERNEL_HALF)
    if upper == len(addresses) or addresses[-1] - addresses[upper] > _MAX_SPAN or addresses[-1] > ADDRESS_MASK:
        return None
    return array("Q", addresses)


def _ascend(numbers: Sequence[int]) -> bool:
    return list(numbers) == sorted(numbers)  # faster than any comparison of each with the next
