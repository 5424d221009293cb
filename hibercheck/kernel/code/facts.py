"""Kernel facts: what a check needs of a kernel, in a file of some hundred kilobytes that stands in for it.

A farm that checks hundreds of images reads each kernel once; and where the kernel is not at hand any more, its facts
may be.  A question the facts hold no answer to raises MissingFact, as on a kernel that lacks it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from hibercheck import __version__
from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import MalformedKernel, MissingFact
from hibercheck.kernel.code.codec import DocumentError, Json, binary, decode, encode, integer
from hibercheck.kernel.code.declared import Declared
from hibercheck.kernel.code.model import ParkLoop, Trait
from hibercheck.kernel.code.needed import MEMBERS, SIZES, SYMBOLS, TEXT
from hibercheck.kernel.code.traits import DECLARED, Traits, read_traits
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.symbols import Symbol

KIND = "hibercheck kernel facts"
SCHEMA_VERSION = 2
"""Version 2 says of each compressor whether it is built in, where version 1 listed those that are."""
_OLDEST_VERSION = 1

_REWRITE = "write the facts again with this version: hibercheck kernel KERNEL --format json -o FACTS"


def facts_of(kernel: Kernel, traits: Traits | None = None, *, all_symbols: bool = False) -> dict[str, Json]:
    """Gather a kernel's facts as JSON values.

    Args:
        kernel: The kernel.
        traits: Its traits, if read already.
        all_symbols: Whether to keep every symbol, so that any address can be named (some megabytes).

    Raises:
        MissingFact: It has no banner, or no symbols.
    """
    traits = traits or read_traits(kernel)
    symbols: Iterable[Symbol] = kernel.symbols(sorted(SYMBOLS)).values()
    if all_symbols:
        symbols = kernel.source
    memory = {address: _content(kernel, address) for address in sorted(_pages(kernel, traits))}
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "hibercheck", "version": __version__},
        "banner": kernel.banner,
        "release": kernel.release,
        "build_id": kernel.build_id,
        "percpu_start": _percpu_start(kernel),
        "traits": {one.name: encode(one) for one in traits},
        "park_loops": encode(traits.park_loops),
        "symbols": {one.name: [hex(one.address), _size(kernel, one), one.letter] for one in symbols},
        "sizes": {name: _try(kernel.size_of, name) for name in sorted(SIZES)},
        "offsets": {f"{struct}.{member}": _member(kernel, struct, member) for struct, member in sorted(MEMBERS)},
        "memory": [{"address": hex(address), "bytes": encode(content)} for address, content in memory.items()],
    }


def _try(question: Any, *about: Any) -> int | None:  # noqa: ANN401
    try:
        return int(question(*about))
    except MissingFact:
        return None


def _percpu_start(kernel: Kernel) -> str | None:
    try:
        return hex(kernel.percpu_start)
    except MissingFact:
        return None


def _size(kernel: Kernel, symbol: Symbol) -> int | None:
    """Bytes of a symbol: kallsyms knows no sizes, but how far it is to the next one."""
    return symbol.size or _try(kernel.extent, symbol)


def _member(kernel: Kernel, struct: str, member: str) -> int | None:
    return _try(kernel.offset_of, struct, member)


def _pages(kernel: Kernel, traits: Traits) -> set[int]:
    """Pages of text that a check compares or executes: park loops, exception entries, the resumee's first steps."""
    spans = [span for loop in traits.park_loops for span in loop.ranges]
    spans += [(gate.handler, gate.handler + 64) for gate in traits.idt_gates.value or ()]
    for one in kernel.symbols(sorted(TEXT)).values():
        spans.append((one.address, one.address + min(max(_size(kernel, one) or 0, 64), PAGE_SIZE)))
    pages = {page for start, end in spans for page in range(start & -PAGE_SIZE, end, PAGE_SIZE)}
    return {page for page in pages if kernel.elf.span_end(page) is not None}


def _content(kernel: Kernel, page: int) -> bytes:
    """Return a page as far as the kernel's segment goes."""
    end = kernel.elf.span_end(page)
    return b"" if end is None else kernel.read(page, min(PAGE_SIZE, end - page))


class FactsKernel(Kernel):
    """A kernel known by its facts; answers what `Kernel` answers, as far as they go.

    Args:
        path: The facts file, as the user named it.
        document: Its contents.

    Raises:
        MalformedKernel: They are not kernel facts of this version.
    """

    supplemented = True  # with all that its kernel's code showed, when the facts were written

    def __init__(self, path: str, document: Json) -> None:
        self.path = path
        self.document = document
        if not isinstance(document, dict) or document.get("kind") != KIND:
            advice = "give a kernel, or what hibercheck kernel KERNEL --format json wrote"
            raise MalformedKernel("is not a kernel's facts file", path=path, advice=advice)
        try:
            self._load(document)
        except DocumentError as error:
            raise MalformedKernel(f"is not a valid facts file: {error}", path=path, advice=_REWRITE) from error

    def _load(self, document: dict[str, Json]) -> None:
        version = document.get("schema_version")
        if type(version) is not int or not _OLDEST_VERSION <= version <= SCHEMA_VERSION:
            raise DocumentError(f"$.schema_version: {SCHEMA_VERSION} was expected")
        self.banner = decode(str, document.get("banner"), "$.banner")
        self.build_id = decode(str | None, document.get("build_id"), "$.build_id")  # type: ignore[arg-type]
        start = document.get("percpu_start")
        self._percpu_start = None if start is None else integer(start, "$.percpu_start")
        self._table = {name: self._symbol(name, row) for name, row in _mapping(document, "symbols").items()}
        self._sizes = _numbers(document, "sizes")
        self._offsets = _numbers(document, "offsets")
        self._memory = dict(self._page(row) for row in _list(document, "memory"))
        self.traits = self._traits(document, version)

    @staticmethod
    def _symbol(name: str, row: Json) -> Symbol:
        where = f"$.symbols.{name}"
        if not isinstance(row, list) or len(row) != 3:
            raise DocumentError(f"{where}: address, size and letter were expected")
        size = None if row[1] is None else integer(row[1], where)
        return Symbol(name, integer(row[0], where), size, decode(str, row[2], where))

    @staticmethod
    def _page(row: Json) -> tuple[int, bytes]:
        where = "$.memory"
        if not isinstance(row, dict):
            raise DocumentError(f"{where}: objects were expected")
        content = binary(row.get("bytes"), where)
        address = integer(row.get("address"), where)
        if address % PAGE_SIZE or len(content) > PAGE_SIZE:
            raise DocumentError(f"{where}: pages of {PAGE_SIZE} bytes were expected")
        return address, content

    @staticmethod
    def _traits(document: Json, version: int) -> Traits:
        given = _mapping(document, "traits")
        loops = decode(tuple[ParkLoop, ...], document.get("park_loops"), "$.park_loops")
        if any(len(loop.code) != loop.end - loop.start for loop in loops):
            raise DocumentError("$.park_loops: the code and the range of a loop differ")
        return Traits(None, {one.name: _trait(one, given, version) for one in DECLARED}, loops)

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def percpu_start(self) -> int:
        """See `Kernel.percpu_start`."""
        if self._percpu_start is None:
            raise MissingFact("does not say where its per-CPU area starts", path=self.path)
        return self._percpu_start

    # Symbols

    def symbols(self, names: Iterable[str]) -> dict[str, Symbol]:
        """See `Kernel.symbols`; only the symbols that the facts keep are there."""
        return {name: self._table[name] for name in names if name in self._table}

    def require(self, name: str) -> Symbol:
        """See `Kernel.require`."""
        if name not in self._table:
            raise MissingFact(
                f"keeps no symbol {name}", path=self.path, advice="give the kernel itself, or " + _REWRITE
            )
        return self._table[name]

    def variants(self, name: str) -> list[Symbol]:
        """See `Kernel.variants`."""
        return [symbol for own, symbol in self._table.items() if own == name or own.startswith(f"{name}.")]

    @cached_property
    def _ordered(self) -> tuple[list[int], list[Symbol]]:
        symbols = sorted(self._table.values(), key=lambda one: one.address)
        return [one.address for one in symbols], symbols

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, tuple[Symbol, int]]:
        """See `Kernel.nearest_many`; what no kept symbol covers is named by its distance from the image's start."""
        starts, symbols = self._ordered
        text, end = self._table.get("_text"), self._table.get("_end")
        image = None if text is None or end is None else (text, range(text.address, end.address))
        found = {}
        for address in addresses:
            index = bisect_right(starts, address) - 1
            if index >= 0 and address - starts[index] < (symbols[index].size or 1):
                found[address] = (symbols[index], address - starts[index])
            elif image is not None and address in image[1]:
                found[address] = (image[0], address - image[1].start)
        return found

    def extent(self, symbol: Symbol) -> int:
        """See `Kernel.extent`."""
        if symbol.size:
            return symbol.size
        raise MissingFact(f"does not keep the size of {symbol.name}", path=self.path)

    # Bytes

    def read(self, address: int, size: int) -> bytes:
        """See `Kernel.read`; only what the facts keep can be read."""
        first = address & -PAGE_SIZE
        parts = []
        for page in range(first, address + size, PAGE_SIZE):
            kept = self._memory.get(page, b"")
            parts.append(kept[max(address - page, 0) : address + size - page])
            if page + len(kept) < min(address + size, page + PAGE_SIZE):
                raise MissingFact(f"keeps nothing at {address:#x} (+{size} bytes)", path=self.path)
        return b"".join(parts)

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        """See `Kernel.read_string`; the string must end in the page it starts in."""
        kept = self._memory.get(address & -PAGE_SIZE, b"")
        available = min(limit, max(len(kept) - address % PAGE_SIZE, 1))
        return self.read(address, available).split(b"\0", 1)[0]

    def section(self, name: str) -> None:  # noqa: ARG002 - the signature of Kernel
        """See `Kernel.section`: the facts keep no sections."""
        return

    # Types

    def offset_of(self, struct: str, member_path: str) -> int:
        """See `Kernel.offset_of`."""
        return self._known(self._offsets, f"{struct}.{member_path}")

    def size_of(self, struct: str, member_path: str | None = None) -> int:
        """See `Kernel.size_of`."""
        return self._known(self._sizes, struct if member_path is None else f"{struct}.{member_path}")

    def has_member(self, struct: str, member_path: str) -> bool:
        """See `Kernel.has_member`."""
        name = f"{struct}.{member_path}"
        if name not in self._offsets:
            raise MissingFact(f"keeps nothing about {name}", path=self.path, advice=_REWRITE)
        return self._offsets[name] is not None

    def _known(self, kept: Mapping[str, int | None], name: str) -> int:
        value = kept.get(name)
        if value is None:
            raise MissingFact(f"does not say where {name} is", path=self.path, advice=_REWRITE)
        return value


def _trait(declared: Declared[Any], given: Mapping[str, Json], version: int) -> Trait[Any]:
    """One trait of a document, unknown where it was written before there was such a trait, or had this meaning."""
    if declared.name not in given or version < declared.since:
        return Trait(declared.name, None, reason="the facts were written by a version that did not know this trait")
    kind: Any = declared.kind
    return decode(Trait[kind], given[declared.name], f"$.traits.{declared.name}")


def _mapping(document: Json, name: str) -> dict[str, Json]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise DocumentError(f"$.{name}: an object was expected")
    return value


def _list(document: Json, name: str) -> list[Json]:
    value = document.get(name)
    if not isinstance(value, list):
        raise DocumentError(f"$.{name}: a list was expected")
    return value


def _numbers(document: Json, name: str) -> dict[str, int | None]:
    return {
        key: None if value is None else integer(value, f"$.{name}.{key}")
        for key, value in _mapping(document, name).items()
    }


def parse_facts(path: str, content: bytes) -> FactsKernel:
    """Make a kernel of the contents of a facts file.

    Raises:
        MalformedKernel: They are not kernel facts of this version.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedKernel(f"is not JSON: {error}", path=path, advice=_REWRITE) from error
    return FactsKernel(path, document)
