"""The symbol table of a vmlinux, decoded in bulk and by column.

A kernel has 100,000 to 250,000 symbols and a check asks for some dozens, so nothing is made per symbol that nobody
asked for: names are found in the string table as it is, values are one strided slice.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, compress
from operator import itemgetter

from hibercheck.errors import MalformedKernel
from hibercheck.kernel.binary import occurrences
from hibercheck.kernel.elf import SHF_EXECINSTR, SHF_WRITE, SHT_SYMTAB, ElfFile
from hibercheck.kernel.symbols import Symbol, rank

# typedef struct elf64_sym { Elf64_Word st_name; unsigned char st_info, st_other; Elf64_Half st_shndx;
#   Elf64_Addr st_value; Elf64_Xword st_size; } Elf64_Sym;                      include/uapi/linux/elf.h
_SYM = struct.Struct("<IBBHQQ")

MAX_SYMBOLS = 1 << 21
"""An allyesconfig kernel has under a million; bounds the memory that a hostile table can ask for."""

_STT_OBJECT, _STT_SECTION, _STT_FILE = 1, 3, 4
_STB_GLOBAL, _STB_WEAK = 1, 2
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_ENDING = 5
"""So many last bytes of a string sift the candidates: enough to leave few, and few names are shorter."""
_BUCKET_SHIFT = 16
_MAX_BUCKETS = 32
_FEW = 4
"""Up to so many things are looked for one by one, more than that all in one pass: measured, not critical."""


def _column(table: bytes, code: str, step: int, first: int) -> array[int]:
    """Every ``step``-th word of a packed table, from word ``first`` on."""
    words = array(code, table)
    if sys.byteorder == "big":
        words.byteswap()
    return words[first::step]


class ElfSymbols:
    """The ``.symtab`` of an ELF file; see `hibercheck.kernel.symbols.SymbolSource`.

    Args:
        elf: The file.

    Raises:
        MalformedKernel: The table contradicts its own sizes.
    """

    def __init__(self, elf: ElfFile) -> None:
        self.origin = ".symtab"
        self._elf = elf
        section = next((one for one in elf.sections if one.kind == SHT_SYMTAB), None)
        self._table = self._strings = b""
        if section is not None:
            if section.size // _SYM.size > MAX_SYMBOLS:
                raise MalformedKernel(
                    f"claims {section.size // _SYM.size} symbols", path=elf.path, offset=section.offset
                )
            if not 0 < section.link < len(elf.sections):
                raise MalformedKernel("the symbol table names no string table", path=elf.path, offset=section.offset)
            table = elf.section_bytes(section)
            self._table = table[: len(table) // _SYM.size * _SYM.size]
            self._strings = elf.section_bytes(elf.sections[section.link])
        self._names = _column(self._table, "I", 6, 0)
        self._packed_names = self._names.tobytes()
        self._split: list[bytes] | None = None
        self._buckets: dict[int, tuple[Sequence[int], Sequence[int]]] = {}
        self._order: tuple[Sequence[int], Sequence[int]] | None = None

    @cached_property
    def _values(self) -> array[int]:
        return _column(self._table, "Q", 3, 1)

    @cached_property
    def _granules(self) -> bytes:
        """Bits 16 to 31 of each value, packed."""
        return _column(self._table, "H", 12, 5).tobytes()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Symbol]:
        for row in range(len(self._names)):
            symbol = self._symbol(row)
            if symbol is not None:
                yield symbol

    def lookup(self, names: Iterable[str]) -> dict[str, tuple[Symbol, ...]]:
        """See `SymbolSource.lookup`."""
        wanted = {key for name in names if (key := name.encode("utf-8", "replace")) and b"\0" not in key}
        return self._collect(self._offsets(wanted))

    def _offsets(self, names: set[bytes]) -> set[int]:
        """Every offset in the string table at which one of the names stands, up to a NUL.

        GNU ld lets ``idt_table`` be the end of ``bringup_idt_table``, LLD does not even merge equal strings: a name can
        be anywhere and more than once.  Many names at once are sifted by the last bytes of each string.
        """
        offsets: set[int] = set()
        if len(names) > _FEW and (strings := self._pieces()) is not None:
            wanted: dict[bytes, tuple[bytes, ...]] = {}
            for name in names:
                if len(name) >= _ENDING:
                    wanted[name[-_ENDING:]] = (*wanted.get(name[-_ENDING:], ()), name)
            position = 0
            endings = map(itemgetter(slice(-_ENDING, None)), strings)
            for string in compress(strings, map(wanted.__contains__, endings)):
                candidates = wanted[string[-_ENDING:]]
                if string.endswith(candidates):
                    position = self._position(string, position)
                    end = position + len(string)
                    offsets.update(end - len(name) for name in candidates if string.endswith(name))
                    position = end
            names = {name for name in names if len(name) < _ENDING}
        return offsets.union(at for name in names for at in occurrences(self._strings, name + b"\0"))

    def _pieces(self) -> list[bytes] | None:
        """The strings between the NULs of the string table.

        None when there are so many strings for so few symbols that they would only cost memory.
        """
        if self._split is None and self._strings.count(0) <= 4 * len(self._names) + 0x10000:
            self._split = self._strings.split(b"\0")
        return self._split

    def _position(self, string: bytes, start: int) -> int:
        """Where a whole string is next, given where the one before it ends: it is looked for instead of counted."""
        if start == 0 and self._strings.startswith(string + b"\0"):
            return 0
        before = self._strings.find(b"\0" + string + b"\0", start)
        return before + 1 if before >= 0 else len(self._strings) - len(string)  # only the last one may lack its NUL

    def _collect(self, offsets: set[int]) -> dict[str, tuple[Symbol, ...]]:
        found: dict[str, list[Symbol]] = {}
        for row in self._rows(offsets):
            symbol = self._symbol(row)
            if symbol is not None:
                found.setdefault(symbol.name, []).append(symbol)
        return {name: tuple(sorted(s, key=lambda one: rank(one.letter, one.name))) for name, s in found.items()}

    def _rows(self, offsets: set[int]) -> list[int]:
        """Rows whose name is at one of the offsets, in the table's order."""
        if len(offsets) > _FEW:
            return list(compress(range(len(self._names)), map(offsets.__contains__, self._names)))
        hits = (at for offset in offsets for at in occurrences(self._packed_names, offset.to_bytes(4, sys.byteorder)))
        return sorted(at // 4 for at in hits if not at % 4)

    def variants(self, name: str) -> list[Symbol]:
        """See `SymbolSource.variants`."""
        # Every occurrence of ``name.`` is a candidate; `_rows` keeps those at which a symbol's name begins.
        offsets = set(occurrences(self._strings, f"{name}.".encode())) | self._offsets({name.encode()})
        found = [symbol for group in self._collect(offsets).values() for symbol in group]
        return sorted(found, key=lambda one: rank(one.letter, one.name))

    def _symbol(self, row: int) -> Symbol | None:
        """The symbol of a row, or None for a row that names a section, a file, nothing, or something elsewhere."""
        name_at, info, _, section, value, size = _SYM.unpack_from(self._table, row * _SYM.size)
        if info & 15 in {_STT_SECTION, _STT_FILE} or section == _SHN_UNDEF:
            return None
        end = self._strings.find(b"\0", name_at)
        name = self._strings[name_at : end if end >= 0 else None]
        if not name:
            return None
        letter = self._letter(info, section)
        return Symbol(name.decode("utf-8", "replace"), value, size, letter)

    def _letter(self, info: int, section: int) -> str:
        """The letter of nm(1) for a symbol; ``n`` for a local label without a type outside code."""
        bind, kind = info >> 4, info & 15
        if bind == _STB_WEAK:
            return "V" if kind == _STT_OBJECT else "W"
        letter = "?"
        if section == _SHN_ABS:
            letter = "a"
        elif section < len(self._elf.sections):
            place = self._elf.sections[section]
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
        for address in set(addresses):
            number = address >> _BUCKET_SHIFT
            for bucket in range(number, max(number - _MAX_BUCKETS, -1), -1):
                best = self._best_below(address, *self._bucket(bucket))
                if best is not None:
                    break
            else:
                best = self._best_below(address, *self._sorted())
            if best is not None:
                found[address] = best
        return found

    def _bucket(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        """Ascending values, and rows, of the symbols in one 64 KiB of the address space.

        They are found by bits 16 to 31 of their values, which is a strided slice away; sorting all values would cost as
        much as a hundred of these.
        """
        if number not in self._buckets:
            needle = (number & 0xFFFF).to_bytes(2, sys.byteorder)
            hits = (at // 2 for at in occurrences(self._granules, needle) if not at % 2)
            pairs = sorted((value, row) for row in hits if (value := self._values[row]) >> _BUCKET_SHIFT == number)
            self._buckets[number] = [value for value, _ in pairs], [row for _, row in pairs]
        return self._buckets[number]

    def _sorted(self) -> tuple[Sequence[int], Sequence[int]]:
        """All values in ascending order, and the row of each."""
        if self._order is None:
            rows = array("I", sorted(range(len(self._values)), key=self._values.__getitem__))
            self._order = array("Q", map(self._values.__getitem__, rows)), rows
        return self._order

    def _best_below(self, address: int, values: Sequence[int], rows: Sequence[int]) -> Symbol | None:
        """The best symbol for an address, among rows in ascending order of their values."""
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
        number = address >> _BUCKET_SHIFT
        buckets = map(self._bucket, range(number, number + _MAX_BUCKETS))
        for values, rows in chain(buckets, (self._sorted() for _ in range(1))):
            for at in range(bisect_right(values, address), len(values)):
                if self._symbol(rows[at]):
                    return values[at]
        return None
