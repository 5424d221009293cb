"""Structure layouts out of a kernel's .BTF section, which also a stripped kernel carries.

The types are a list of records of varying length without an index, 100,000 in a distribution kernel.  They are walked
only as far as a question needs; a structure's own members are found without walking at all.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator

from hibercheck.data import dataclass
from hibercheck.errors import MalformedKernel, MissingFact
from hibercheck.files.binary import Bytes, occurrences

# struct btf_header {                                           include/uapi/linux/btf.h
#   __u16 magic; __u8 version; __u8 flags; __u32 hdr_len;
#   __u32 type_off, type_len, str_off, str_len;                 offsets relative to the end of this header
# };
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
# struct btf_type { __u32 name_off; __u32 info; union { __u32 size; __u32 type; }; };
# info: bits 0-15 vlen, bits 24-28 kind, bit 31 kind_flag.  Then, by kind, words of a fixed number and per element:
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
_VOLATILE, _CONST, _RESTRICT, _TYPE_TAG, _ENUM64 = 9, 10, 11, 18, 19
_FIXED_WORDS = {_INT: 1, _ARRAY: 3, 14: 1, 17: 1}
_ELEMENT_WORDS = {_STRUCT: 3, _UNION: 3, _ENUM: 2, 13: 2, 15: 3, _ENUM64: 3}
_KINDS = 32
_TRANSPARENT = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_SIZED = frozenset({_INT, _STRUCT, _UNION, _ENUM, 16, _ENUM64})
_POINTER_SIZE = 8
_MAX_CHAIN = 64
_FIRST = 1 << 15
"""Words of the types read at first."""


@dataclass(frozen=True, slots=True)
class _Type:
    """One type record: ``value`` is its size or the type it refers to, ``at`` the word after the record."""

    kind: int
    count: int
    flag: bool
    value: int
    at: int


class Btf:
    """The types of one kernel.

    Args:
        data: What the .BTF section is in.
        path: What to call the kernel in messages.
        start: Where it is in there.
        size: Its length in bytes; by default to the end.

    Attributes:
        path: As given.
        types_at: Where its types begin in ``data``.

    Raises:
        MalformedKernel: The section contradicts its own header.
    """

    def __init__(self, data: Bytes, path: str, start: int = 0, size: int | None = None) -> None:
        self.path = path
        size = len(data) - start if size is None else size
        head = data[start : start + _HEADER.size]
        if min(len(head), size) < _HEADER.size:
            raise MalformedKernel("its .BTF section is too short for a header", path=path)
        magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack(head)
        if magic != _MAGIC or version != 1:
            raise MalformedKernel(f"its .BTF section has magic {magic:#06x}, version {version}", path=path)
        if header + type_at + type_size > size or header + string_at + string_size > size:
            raise MalformedKernel("its .BTF section claims more types or strings than it holds", path=path)
        self._data = data
        self.types_at, self._count = start + header + type_at, type_size // 4
        self._strings_at, self._strings_size = start + header + string_at, string_size
        self._types = b""
        self._words = memoryview(self._types).cast("I")
        self._positions = array("I", [0])
        self._next = 0
        self._found: dict[str, _Type | None] = {}

    def offset_of(self, name: str, path: str) -> int:
        """Bytes from the start of a structure to a member.

        Args:
            name: The structure's, union's or typedef's name, without ``struct``.
            path: The member's name, or names joined by dots; members of anonymous parts are found by their own name.

        Raises:
            MissingFact: There is no such structure or member.
        """
        return self._walk(name, path)[0] // 8

    def has_member(self, name: str, path: str) -> bool:
        """Whether the structure exists and has the member; see `offset_of`."""
        try:
            self.offset_of(name, path)
        except MissingFact:
            return False
        return True

    def size_of(self, name: str, path: str | None = None) -> int:
        """Bytes that a structure takes, or a member of it; see `offset_of`."""
        return self._size(self._type(self._walk(name, path)[1]) if path else self._require(name))

    def _require(self, name: str) -> _Type:
        """Return the structure, union or typedef of that name."""
        if name not in self._found:
            self._found[name] = self._search(name)
        found = self._found[name]
        if found is None:
            raise MissingFact(f"its .BTF has no type {name}", path=self.path)
        return found

    def _search(self, name: str) -> _Type | None:
        """Return the first structure or union of that name, else the first typedef.

        A record is recognised by its name and a kind in its second word.  Nothing else in the section has such a pair:
        where a record has its kind, members, parameters and enumerators have a type's number or a small value.
        """
        if not name:
            return None
        typedef = None
        strings, end = self._strings_at, self._strings_at + self._strings_size
        for offset in occurrences(self._data, name.encode() + b"\0", strings, end):
            for at in self._mentions(offset - strings):
                found = self._at(at // 4) if not at % 4 else None
                if found is not None and found.kind in {_STRUCT, _UNION} and self._plausible(found):
                    return found
                if found is not None and found.kind == _TYPEDEF and not found.count:
                    typedef = typedef or found
        return typedef

    def _mentions(self, number: int) -> Iterator[int]:
        """Offsets in the types of a 32-bit number, found while they are loaded."""
        needle, start = struct.pack("<I", number), 0
        while start < 4 * self._count:
            if start >= len(self._types):
                self._upto(2 * len(self._words) + 1)
            loaded = self._types
            yield from occurrences(loaded, needle, max(start - 3, 0))
            start = len(loaded)

    def _upto(self, words: int) -> memoryview:
        """So many words of the types at least, or all: those that are asked for are often among the first."""
        if len(self._words) < min(words, self._count):
            wanted = min(max(words, 2 * len(self._words), _FIRST), self._count)
            self._types = self._data[self.types_at : self.types_at + 4 * wanted]
            self._words = memoryview(self._types).cast("I")
        return self._words

    def _at(self, position: int) -> _Type | None:
        """Return the record at a word, or None past the end of the types."""
        words = self._upto(position + 3)
        if position + 3 > len(words):
            return None
        info, value = words[position + 1], words[position + 2]
        return _Type(info >> 24 & 31, info & 0xFFFF, bool(info >> 31), value, position + 3)

    def _plausible(self, holder: _Type) -> bool:
        end = holder.at + 3 * holder.count
        names = self._upto(end)[holder.at : end : 3]
        return len(names) == holder.count and all(name < self._strings_size for name in names)

    def _reach(self, number: int) -> bool:
        """Find the positions of types up to a number; false when there are not so many."""
        words, position, end = self._words, self._next, self._count
        positions = self._positions
        while len(positions) <= number and position + 3 <= end:
            if position + 3 > len(words):
                words = self._upto(position + 3)
            info = words[position + 1]
            kind = info >> 24 & 31
            positions.append(position)
            position += 3 + _WORDS[kind] + _PER_ELEMENT[kind] * (info & 0xFFFF)
        self._next = position
        return len(positions) > number

    def _type(self, number: int) -> _Type | None:
        """Return the record of a type; None for void and for a number that no record has."""
        return self._at(self._positions[number]) if number > 0 and self._reach(number) else None

    def resolved(self, found: _Type | None) -> _Type | None:
        """Return the record behind typedefs and qualifiers."""
        for _ in range(_MAX_CHAIN):
            if found is None or found.kind not in _TRANSPARENT:
                return found
            found = self._type(found.value)
        raise MalformedKernel("its .BTF has a type that refers to itself", path=self.path)

    def _member(self, holder: _Type | None, name: str) -> tuple[int, int] | None:
        """Bit offset and type number of a member, also inside anonymous parts; None if there is none."""
        key = name.encode() + b"\0"
        seen: set[int] = set()
        pending = deque([(0, self.resolved(holder))])
        while pending:
            base, current = pending.popleft()
            if current is None or current.at in seen or current.kind not in {_STRUCT, _UNION}:
                continue
            seen.add(current.at)
            end = current.at + 3 * current.count
            words = self._upto(end)[current.at : end].tolist()
            for name_at, number, place in zip(words[::3], words[1::3], words[2::3], strict=False):
                # struct btf_member { __u32 name_off; __u32 type; __u32 offset; };
                # With kind_flag set, bits 24-31 of the offset are the size of a bit-field.
                offset = base + (place & 0xFFFFFF if current.flag else place)
                if name and self._is_at(key, name_at):
                    return offset, number
                if not name_at:
                    pending.append((offset, self.resolved(self._type(number))))
        return None

    def _is_at(self, key: bytes, offset: int) -> bool:
        """Whether a string with its NUL stands at an offset of the strings."""
        at = self._strings_at + offset
        return offset + len(key) <= self._strings_size and self._data[at : at + len(key)] == key

    def _walk(self, name: str, path: str) -> tuple[int, int]:
        """Bit offset and type number of a member by its path."""
        offset, number = 0, 0
        for step in path.split("."):
            holder = self._type(number) if number else self._require(name)
            found = self._member(holder, step)
            if found is None:
                raise MissingFact(f"its .BTF has no member {path} in {name}", path=self.path)
            offset, number = offset + found[0], found[1]
        return offset, number

    def _size(self, found: _Type | None) -> int:
        factor = 1
        for _ in range(_MAX_CHAIN):
            found = self.resolved(found)
            words = self._upto(found.at + 3) if found is not None else self._words
            if found is None or (found.kind == _ARRAY and found.at + 3 > len(words)):
                break
            if found.kind == _ARRAY:
                # struct btf_array { __u32 type; __u32 index_type; __u32 nelems; };
                factor *= words[found.at + 2]
                found = self._type(words[found.at])
                continue
            if found.kind == _PTR:
                return factor * _POINTER_SIZE
            if found.kind in _SIZED:
                return factor * found.value
            break
        raise MissingFact("its .BTF gives no size for a type", path=self.path)


_WORDS = [_FIXED_WORDS.get(kind, 0) for kind in range(_KINDS)]
_PER_ELEMENT = [_ELEMENT_WORDS.get(kind, 0) for kind in range(_KINDS)]
