"""Symbols, wherever they come from: what one is, and what a source of them can answer."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, pairwise
from typing import Protocol

from hibercheck.data import dataclass

_CODE = frozenset("tTwWiI")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name in a kernel.

    Attributes:
        name: As linked, with any suffix (``cpuhp_smt_enable.constprop.0``).
        address: Link-time value: a virtual address, or an offset into the per-CPU area where that is zero-based.
        size: Bytes, or None where the source does not say (kallsyms, System.map).
        letter: The class letter of nm(1): ``T`` text, ``D`` data, ``R`` read-only, ``B`` bss, ``W``/``V`` weak,
            ``A`` absolute; lower case when local; ``?`` unknown.
    """

    name: str
    address: int
    size: int | None = None
    letter: str = "?"


class SymbolSource(Protocol):
    """A table of symbols that can be asked by name and by address."""

    origin: str
    """Where the symbols come from, for messages: ``.symtab``, ``kallsyms``, or the symbol file's path."""

    def __len__(self) -> int:
        """How many symbols there are."""
        ...

    def lookup(self, names: Iterable[str]) -> Mapping[str, tuple[Symbol, ...]]:
        """Every symbol of each name, best first; a name that does not exist is absent from the result."""
        ...

    def variants(self, name: str) -> list[Symbol]:
        """Symbols that are ``name`` or ``name`` with a compiler's suffix (``.isra.0``, ``.constprop.0``, ``.cold``)."""
        ...

    def nearest_many(self, addresses: Iterable[int]) -> Mapping[int, Symbol]:
        """For each address, the best symbol at the greatest value not above it."""
        ...

    def next_address(self, address: int) -> int | None:
        """Return the lowest symbol value above ``address``, or None."""
        ...

    def __iter__(self) -> Iterator[Symbol]:
        """All symbols, in the source's own order."""
        ...


def rank(letter: str, name: str) -> tuple[int, int, int, int, str]:
    """Sort key among symbols of one address or one name, best first.

    A definition with a type goes before a label, global before weak before local, and then the plainer name:
    without a compiler's suffix, a ``__pfx_`` or ``__pi_`` prefix, leading underscores.
    """
    plain = letter not in "?nNaA"
    visibility = 0 if letter in "TDRBGS" else 1 if letter in "wWvVuUiI" else 2
    underscores = len(name) - len(name.lstrip("_"))
    return (0 if plain else 1, visibility, name.count("."), underscores, name)


class TableSymbols:
    """Symbols held as three parallel columns, in any order: what kallsyms and System.map give.

    Args:
        origin: Where they come from, for messages.
        names: Their names.
        addresses: Their values.
        letters: Their nm(1) letters.
    """

    def __init__(self, origin: str, names: Sequence[str], addresses: Sequence[int], letters: Sequence[str]) -> None:
        self.origin = origin
        self._names = names
        self._addresses = addresses
        self._letters = letters
        self._order: tuple[array[int], Sequence[int]] | None = None

    def moved(self, by: int, least: int) -> TableSymbols:
        """Return the same symbols with ``by`` added to every value from ``least`` on: as linked, from as relocated."""
        if not by:
            return self
        values = array("Q", (value + by if value >= least else value for value in self._addresses))
        return TableSymbols(self.origin, self._names, values, self._letters)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Symbol]:
        for index in range(len(self._names)):
            yield self._symbol(index)

    def _symbol(self, index: int) -> Symbol:
        return Symbol(self._names[index], self._addresses[index], None, self._letters[index])

    def lookup(self, names: Iterable[str]) -> dict[str, tuple[Symbol, ...]]:
        """See `SymbolSource.lookup`."""
        wanted = set(names)
        found: dict[str, list[Symbol]] = {}
        for row in compress(range(len(self._names)), map(wanted.__contains__, self._names)):
            found.setdefault(self._names[row], []).append(self._symbol(row))
        return {name: tuple(sorted(s, key=lambda one: rank(one.letter, one.name))) for name, s in found.items()}

    def variants(self, name: str) -> list[Symbol]:
        """See `SymbolSource.variants`."""
        prefix = f"{name}."
        rows = [row for row, other in enumerate(self._names) if other == name or other.startswith(prefix)]
        return sorted((self._symbol(row) for row in rows), key=lambda one: rank(one.letter, one.name))

    def _sorted(self) -> tuple[array[int], Sequence[int]]:
        """All values in ascending order, and the row of each."""
        if self._order is None:
            values = array("Q", self._addresses)
            rows: Sequence[int] = range(len(values))
            if any(first > second for first, second in pairwise(values)):
                rows = array("I", sorted(rows, key=values.__getitem__))
                values = array("Q", map(values.__getitem__, rows))
            self._order = values, rows
        return self._order

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, Symbol]:
        """See `SymbolSource.nearest_many`."""
        values, rows = self._sorted()
        found = {}
        for address in addresses:
            last = bisect_right(values, address) - 1
            if last < 0:
                continue
            same = rows[bisect_left(values, values[last]) : last + 1]
            found[address] = self._symbol(min(same, key=lambda row: rank(self._letters[row], self._names[row])))
        return found

    def next_address(self, address: int) -> int | None:
        """See `SymbolSource.next_address`."""
        values, _ = self._sorted()
        after = bisect_right(values, address)
        return values[after] if after < len(values) else None
