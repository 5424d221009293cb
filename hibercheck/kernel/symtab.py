"""The symbol table of a vmlinux, decoded in bulk and by column.

A kernel has 100,000 to 250,000 symbols and a check asks for some dozens, so nothing is made per symbol that nobody
asked for: names are found in the string table as it is, values are one strided slice.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

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
_TAIL_OF = (b"", b"_", b"__", b"__ksymtab_", b"__pfx_", b"__pi_")
"""What precedes a name whose string GNU ld stores as the end of a longer one, in nearly all cases."""
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

    origin = ".symtab"

    def __init__(self, elf: ElfFile) -> None:
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
        self._passes = 0
        self._order: array[int] | None = None
        self._ordered_values: array[int] | None = None

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
        if len(wanted) <= _FEW:
            return self._collect(self._anywhere(wanted))
        # GNU ld shares tails, LLD does not even merge equal strings, so a name can be anywhere and more than once, and
        # what looks like it may be the end of another string that no symbol uses as its name.
        likely = dict(self._likely(wanted))
        found = self._collect(likely.keys() | self._anywhere(wanted.difference(likely.values())))
        rest = wanted.difference(name.encode() for name in found).intersection(likely.values())
        return found | self._collect(self._anywhere(rest)) if rest else found

    def _anywhere(self, names: Iterable[bytes]) -> set[int]:
        """Every offset in the string table at which a symbol's name could begin and be one of the names."""
        return {offset for name in names for offset in occurrences(self._strings, name + b"\0")}

    def _likely(self, names: set[bytes]) -> Iterator[tuple[int, bytes]]:
        """Offsets of names that are whole strings, or end a string in one of the ways that nearly all shared tails do.

        One pass for all names costs as much as finding five by themselves.
        """
        whole = {prefix + name: name for name in names for prefix in _TAIL_OF}
        pattern = re.compile(rb"\0(" + _one_of(sorted(whole)) + rb")(?=\0)")
        for match in pattern.finditer(self._strings):
            name = whole[match[1]]
            yield match.end() - len(name), name

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
        offsets = set(occurrences(self._strings, f"{name}.".encode())) | self._anywhere([name.encode()])
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
            if place.flags & SHF_EXECINSTR and not place.flags & SHF_WRITE:
                letter = "t"
            elif place.nobits:
                letter = "b"
            else:
                letter = "d" if place.flags & SHF_WRITE else "r"
        return letter.upper() if bind == _STB_GLOBAL else letter

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, Symbol]:
        """See `SymbolSource.nearest_many`; one pass over the values for any number of addresses."""
        wanted = sorted(set(addresses))
        self._passes += 1
        if self._order is None and self._passes <= _FEW:
            near = self._best_below(wanted, *self._near(wanted))
            found = {address: one for address, one in near.items() if one.address >> 12 >= (address >> 12) - 1}
            wanted = [address for address in wanted if address not in found]
        else:
            found = {}
        return found | self._best_below(wanted, *self._sorted()) if wanted else found

    def _near(self, addresses: list[int]) -> tuple[array[int], list[int]]:
        """Values, ascending, and rows of the symbols in the addresses' own pages and the pages before.

        Nearly always that is enough.  Bits 16 to 31 of the values, one strided slice, are sifted first, which is cheap.
        """
        values = _column(self._table, "Q", 3, 1)
        pages = {page for address in addresses for page in (address >> 12, (address >> 12) - 1)}
        granules = {page >> 4 & 0xFFFF for page in pages}
        likely = compress(range(len(values)), map(granules.__contains__, _column(self._table, "H", 12, 5)))
        rows = [row for row in likely if values[row] >> 12 in pages]
        rows.sort(key=values.__getitem__)
        return array("Q", map(values.__getitem__, rows)), rows

    def _sorted(self) -> tuple[array[int], array[int]]:
        """All values in ascending order, and the row of each."""
        if self._order is None or self._ordered_values is None:
            values = _column(self._table, "Q", 3, 1)
            self._order = array("I", sorted(range(len(values)), key=values.__getitem__))
            self._ordered_values = array("Q", map(values.__getitem__, self._order))
        return self._ordered_values, self._order

    def _best_below(self, addresses: Sequence[int], values: Sequence[int], rows: Sequence[int]) -> dict[int, Symbol]:
        """The best symbol for each address, among rows in ascending order of their values."""
        found: dict[int, Symbol] = {}
        for address in addresses:
            last = bisect_right(values, address) - 1
            while last >= 0:
                first = bisect_left(values, values[last])
                same = [
                    symbol
                    for row in rows[first : last + 1]
                    if (symbol := self._symbol(row)) and symbol.letter not in "aA"
                ]
                if same:
                    found[address] = min(same, key=lambda one: (not one.size, rank(one.letter, one.name)))
                    break
                last = first - 1
        return found

    def next_address(self, address: int) -> int | None:
        """See `SymbolSource.next_address`."""
        values, rows = self._sorted()
        for at in range(bisect_right(values, address), len(values)):
            if self._symbol(rows[at]):
                return values[at]
        return None


def _one_of(words: list[bytes]) -> bytes:
    """A regular expression for exactly these words, branching by character: twice as fast as a plain alternation."""
    if words == [b""]:
        return b""
    branches: dict[bytes, list[bytes]] = {}
    for word in words:
        branches.setdefault(word[:1], []).append(word[1:])
    optional = branches.pop(b"", None) is not None
    pattern = b"(?:" + b"|".join(re.escape(first) + _one_of(rest) for first, rest in branches.items()) + b")"
    return pattern + b"?" if optional else pattern
