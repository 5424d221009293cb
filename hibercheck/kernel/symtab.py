"""The symbol table of a vmlinux, decoded in bulk and by column.

A kernel has 100,000 to 250,000 symbols and a check asks for some dozens, so nothing is made per symbol that nobody
asked for: names are sifted out of the string table, values are one strided slice.  Both tables are read a piece at a
time, so that the pieces stay in the processor's cache and none is held.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, compress
from operator import itemgetter
from typing import Any, Literal

from hibercheck.errors import MalformedKernel
from hibercheck.files.binary import occurrences
from hibercheck.files.elf import SHF_EXECINSTR, SHF_WRITE, SHT_SYMTAB
from hibercheck.kernel.elf import ElfFile, Section
from hibercheck.kernel.symbols import Symbol, rank

# typedef struct elf64_sym { Elf64_Word st_name; unsigned char st_info, st_other; Elf64_Half st_shndx;
#   Elf64_Addr st_value; Elf64_Xword st_size; } Elf64_Sym;                      include/uapi/linux/elf.h
_SYM = struct.Struct("<IBBHQQ")
_VALUE_AT = 8

MAX_SYMBOLS = 1 << 21
"""An allyesconfig kernel has under a million; bounds the memory that a hostile table can ask for."""

_STT_OBJECT, _STT_SECTION, _STT_FILE = 1, 3, 4
_STB_GLOBAL, _STB_WEAK = 1, 2
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_PIECE = 4096 * _SYM.size
"""Bytes of a table read at a time: they fit the second-level cache."""
_ROWS = 1024
"""Rows searched at a time; measured, not critical."""
_NAME = 128
"""Bytes read for a name at first; few are longer."""
_GRANULE_SHIFT = 8
_MAX_WIDE = 32
"""So many 64 KiB around an address are looked at before all symbols are sorted."""
_MANY = 1024
"""Values that are read one by one at most; measured, not critical."""
_MAX_KNOWN = 1 << 16
"""Addresses whose symbols are remembered: every parked CPU asks for the same few."""
_FEW = 4
"""Up to so many names are looked for one by one, more than that all in one pass: measured, not critical."""


def _column(table: bytes, code: Literal["I", "Q"], step: int, first: int) -> memoryview:
    """Every ``step``-th word of a packed table, from word ``first`` on."""
    words = memoryview(table).cast(code)
    if sys.byteorder == "big":
        swapped = array(code, table)
        swapped.byteswap()
        words = memoryview(swapped)
    return words[first::step]


class _Endings:
    """What sifts out the strings that end with one of some names.

    GNU ld lets ``idt_table`` be the end of ``bringup_idt_table``, LLD does not even merge equal strings: a name can be
    anywhere in a string table and more than once.  Of all strings only a fixed number of last bytes is looked at; of
    the sixth that remain, more.
    """

    _LONG = 8
    _FIRST = 5

    def __init__(self, names: Iterable[bytes]) -> None:
        self._long: dict[bytes, tuple[bytes, ...]] = {}
        self._short: dict[bytes, tuple[bytes, ...]] = {}
        known = set(names)
        self.longest = max(map(len, known), default=0)
        self._length = min(self._FIRST, 1 + min(map(len, known), default=0))
        for name in known:
            length, group = (self._LONG, self._long) if len(name) >= self._LONG else (self._length, self._short)
            for end in self._ends(name, length):
                group[end] = (*group.get(end, ()), name)
        self._all = {end for name in known for end in self._ends(name, self._length)}

    @staticmethod
    def _ends(name: bytes, length: int) -> list[bytes]:
        """Return the last so many bytes of strings that end with a name; it may itself have one byte less."""
        return [name, *(bytes([byte]) + name for byte in range(1, 256))] if len(name) < length else [name[-length:]]

    def among(self, strings: Sequence[bytes]) -> Iterator[Iterator[tuple[bytes, list[bytes]]]]:
        """Yield twice, for long names and for short ones: the strings that end with such, in order, and those names."""
        sifted = list(compress(strings, map(self._all.__contains__, map(_last(self._length), strings))))
        yield self._in(self._long, self._LONG, sifted)
        yield self._in(self._short, self._length, sifted)

    @staticmethod
    def _in(
        group: Mapping[bytes, tuple[bytes, ...]], length: int, strings: Sequence[bytes]
    ) -> Iterator[tuple[bytes, list[bytes]]]:
        for string in compress(strings, map(group.__contains__, map(_last(length), strings))):
            names = group[string[-length:]]
            if string.endswith(names):
                yield string, [name for name in names if string.endswith(name)]


def _last(length: int) -> Callable[[bytes], bytes]:
    return itemgetter(slice(-length, None))


class ElfSymbols:
    """The ``.symtab`` of an ELF file; see `hibercheck.kernel.symbols.SymbolSource`.

    Args:
        elf: The file.

    Attributes:
        elf: As given.

    Raises:
        MalformedKernel: The table contradicts its own sizes.
    """

    def __init__(self, elf: ElfFile) -> None:
        self.origin = ".symtab"
        self.elf = elf
        self._count = 0
        self._table_at = self._strings_at = self._strings_end = 0
        section = next((one for one in elf.sections if one.kind == SHT_SYMTAB), None)
        if section is not None:
            self._place(section)
        # bits 8 to 15, 16 to 23, and 24 to 31 of each value, once `_rows` has taken them along
        self._bytes = b"", b"", b""
        self._near: dict[int, dict[int, list[int]]] = {}
        self._granules: dict[int, tuple[Sequence[int], Sequence[int]]] = {}
        self._order: tuple[Sequence[int], Sequence[int]] | None = None
        self._known: dict[int, Symbol | None] = {}

    def _place(self, section: Section) -> None:
        elf = self.elf
        count = section.size // _SYM.size
        if count > MAX_SYMBOLS:
            raise MalformedKernel(f"claims {count} symbols", path=elf.path, offset=section.offset)
        if not 0 < section.link < len(elf.sections):
            raise MalformedKernel("the symbol table names no string table", path=elf.path, offset=section.offset)
        self._count, self._table_at = count, elf.place_of(section)[0]
        self._strings_at, size = elf.place_of(elf.sections[section.link])
        self._strings_end = self._strings_at + size

    @cached_property
    def _table(self) -> bytes:
        """All of the table, for who wants every symbol."""
        return self.elf.data[self._table_at : self._table_at + self._count * _SYM.size]

    @cached_property
    def _strings(self) -> bytes:
        """All of the string table, likewise."""
        return self.elf.data[self._strings_at : self._strings_end]

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the table a piece at a time, each with the number of its first row."""
        for row in range(0, self._count, _ROWS):
            at = self._table_at + row * _SYM.size
            yield row, self.elf.data[at : at + min(_ROWS, self._count - row) * _SYM.size]

    @cached_property
    def _values(self) -> array[int]:
        """Every value."""
        values = array("Q")
        for _, table in self._blocks():
            values.frombytes(_column(table, "Q", 3, 1).tobytes())
        return values

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Symbol]:
        for entry in _SYM.iter_unpack(self._table):
            end = self._strings.find(b"\0", entry[0])
            symbol = self._made(entry, self._strings[entry[0] : end if end >= 0 else None])
            if symbol is not None:
                yield symbol

    def lookup(self, names: Iterable[str]) -> dict[str, tuple[Symbol, ...]]:
        """See `SymbolSource.lookup`."""
        wanted = {key for name in names if (key := name.encode("utf-8", "replace")) and b"\0" not in key}
        return self._collect(self._offsets(wanted))

    def _offsets(self, names: set[bytes]) -> set[int]:
        """Every offset in the string table at which one of the names stands, up to a NUL."""
        if len(names) <= _FEW:
            return {at for name in names for at in occurrences(self._strings, name + b"\0")}
        offsets: set[int] = set()
        endings = _Endings(names)
        for start, piece, strings in self._pieces(endings.longest):
            for found in endings.among(strings):
                position = 0
                for string, ends in found:  # where it is, is looked for and not counted, as few are asked for
                    position = piece.find(b"\0" + string + b"\0", position) + 1 + len(string)
                    offsets.update(start + position - len(name) for name in ends)
        return offsets

    def _pieces(self, keep: int) -> Iterator[tuple[int, bytes, list[bytes]]]:
        """Yield the string table in pieces: an offset, bytes from a NUL to a NUL or more, and the strings between NULs.

        Of a string that is longer than a piece only so many last bytes are kept.
        """
        held, at = b"\0", self._strings_at
        while at < self._strings_end:
            read = self.elf.data[at : min(at + _PIECE, self._strings_end)]
            at += len(read)
            piece = held + read
            start = at - len(piece) - self._strings_at
            if at == self._strings_end:
                piece += b"\0"  # only the last string may lack it
            strings = piece.split(b"\0")
            held = b"\0" + strings.pop()[-keep:]
            yield start, piece, strings

    def _collect(self, offsets: set[int]) -> dict[str, tuple[Symbol, ...]]:
        found: dict[str, list[Symbol]] = {}
        for row in self._rows(offsets):
            symbol = self._symbol(row)
            if symbol is not None:
                found.setdefault(symbol.name, []).append(symbol)
        return {name: tuple(sorted(s, key=lambda one: rank(one.letter, one.name))) for name, s in found.items()}

    def _rows(self, offsets: set[int]) -> list[int]:
        """Rows whose name is at one of the offsets, in the table's order.

        What tells values apart is taken along: whoever asks for a symbol's place asks next whose place an address is,
        and to go through the table once more takes longer.
        """
        rows: list[int] = []
        taken = bool(self._bytes[0])
        low, middle, high = bytearray(), bytearray(), bytearray()
        for start, table in self._blocks():
            if not taken:
                low += table[_VALUE_AT + 1 :: _SYM.size]
                middle += table[_VALUE_AT + 2 :: _SYM.size]
                high += table[_VALUE_AT + 3 :: _SYM.size]
            names = _column(table, "I", 6, 0)
            hits = offsets.intersection(names.tolist())
            packed = names.tobytes() if hits else b""
            for offset in hits:
                found = occurrences(packed, offset.to_bytes(4, sys.byteorder))
                rows += [start + at // 4 for at in found if not at % 4]
        if not taken:
            self._bytes = bytes(low), bytes(middle), bytes(high)
        return sorted(rows)

    def variants(self, name: str) -> list[Symbol]:
        """See `SymbolSource.variants`."""
        # Every occurrence of ``name.`` is a candidate; `_rows` keeps those at which a symbol's name begins.
        offsets = set(occurrences(self._strings, f"{name}.".encode())) | self._offsets({name.encode()})
        found = [symbol for group in self._collect(offsets).values() for symbol in group]
        return sorted(found, key=lambda one: rank(one.letter, one.name))

    def _symbol(self, row: int) -> Symbol | None:
        """Return the symbol of a row; None for one that names a section, a file, nothing, or something elsewhere."""
        at = self._table_at + row * _SYM.size
        entry = _SYM.unpack(self.elf.data[at : at + _SYM.size])
        return self._made(entry, self._name(entry[0]))

    def _name(self, offset: int) -> bytes:
        """Return the string at an offset of the string table, or what there is of it."""
        at, size = self._strings_at + offset, _NAME
        while at < self._strings_end:
            piece = self.elf.data[at : min(at + size, self._strings_end)]
            end = piece.find(b"\0")
            if end >= 0 or at + size >= self._strings_end:
                return piece[: end if end >= 0 else None]
            size *= 8
        return b""

    def _made(self, entry: tuple[Any, ...], name: bytes) -> Symbol | None:
        _, info, _, section, value, size = entry
        if info & 15 in {_STT_SECTION, _STT_FILE} or section == _SHN_UNDEF or not name:
            return None
        return Symbol(name.decode("utf-8", "replace"), value, size, self._letter(info, section))

    def _letter(self, info: int, section: int) -> str:
        """Return the letter of nm(1) for a symbol; ``n`` for a local label without a type outside code."""
        bind, kind = info >> 4, info & 15
        if bind == _STB_WEAK:
            return "V" if kind == _STT_OBJECT else "W"
        letter = "?"
        if section == _SHN_ABS:
            letter = "a"
        elif section < len(self.elf.sections):
            place = self.elf.sections[section]
            if place.flags & SHF_EXECINSTR:  # in 7.x also .data
                letter = "t"
            elif place.nobits:
                letter = "b"
            else:
                letter = "d" if place.flags & SHF_WRITE else "r"
        return letter.upper() if bind == _STB_GLOBAL else letter

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, Symbol]:
        """See `SymbolSource.nearest_many`."""
        found = {}
        for address in addresses:
            if address not in self._known:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[address] = self._nearest(address)
            best = self._known[address]
            if best is not None:
                found[address] = best
        return found

    def _nearest(self, address: int) -> Symbol | None:
        for granule in self._granules_from(address >> _GRANULE_SHIFT, -1):
            best = self._best_below(address, *self._granule(granule))
            if best is not None:
                return best
        return self._best_below(address, *self._sorted())

    def _granules_from(self, number: int, step: Literal[1, -1]) -> Iterator[int]:
        """Yield the 256 bytes of the address space around an address that may have symbols: upwards, or downwards."""
        first = number >> 8
        for wide in range(first, max(first + step * _MAX_WIDE, -1), step):
            granules = [wide << 8 | low for low in sorted(self._rows_near(wide), reverse=step < 0)]
            yield from (granule for granule in granules if (granule - number) * step >= 0)

    def _granule(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        """Ascending values, and rows, of the symbols in one 256 bytes of the address space.

        Three bytes of a value tell those from nearly all others: sorting all values would cost as much as a hundred of
        these, and having all of them as much as ten.
        """
        if number not in self._granules:
            rows = self._rows_near(number >> 8)[number & 0xFF]
            value = self._value if len(rows) <= _MANY else self._values.__getitem__
            pairs = sorted((at, row) for row in rows if (at := value(row)) >> _GRANULE_SHIFT == number)
            self._granules[number] = [at for at, _ in pairs], [row for _, row in pairs]
        return self._granules[number]

    def _rows_near(self, number: int) -> dict[int, list[int]]:
        """Rows that have bits 16 to 31 of the addresses in one 64 KiB, by bits 8 to 15."""
        if number not in self._near:
            if not self._bytes[0]:
                self._rows(set())
            low, middle, high = self._bytes
            near = self._near[number] = {}
            for row in occurrences(middle, bytes([number & 0xFF])):
                if high[row] == number >> 8 & 0xFF:
                    near.setdefault(low[row], []).append(row)
        return self._near[number]

    def _value(self, row: int) -> int:
        at = self._table_at + row * _SYM.size + _VALUE_AT
        return int.from_bytes(self.elf.data[at : at + 8], "little")

    def _sorted(self) -> tuple[Sequence[int], Sequence[int]]:
        """All values in ascending order, and the row of each."""
        if self._order is None:
            values = self._values
            rows = array("I", sorted(range(len(values)), key=values.__getitem__))
            self._order = array("Q", map(values.__getitem__, rows)), rows
        return self._order

    def _best_below(self, address: int, values: Sequence[int], rows: Sequence[int]) -> Symbol | None:
        """Return the best symbol for an address, among rows in ascending order of their values."""
        last = bisect_right(values, address) - 1
        while last >= 0:
            first = bisect_left(values, values[last])
            named = (symbol for row in rows[first : last + 1] if (symbol := self._symbol(row)))
            same = [symbol for symbol in named if symbol.letter not in "aA"]
            if same:
                return min(same, key=lambda one: (not one.size, rank(one.letter, one.name)))
            last = first - 1
        return None

    def next_address(self, address: int) -> int | None:
        """See `SymbolSource.next_address`."""
        granules = map(self._granule, self._granules_from(address >> _GRANULE_SHIFT, 1))
        for values, rows in chain(granules, (self._sorted() for _ in range(1))):
            for at in range(bisect_right(values, address), len(values)):
                if self._symbol(rows[at]):
                    return values[at]
        return None
