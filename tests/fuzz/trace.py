"""Which bytes of the inputs a check really reads, and what for: the places where damage could change its answer.

Random bytes of a file of 500 MB prove nothing, as a check reads some kilobytes of it.  So one check is watched: symbols
that it looks up, instructions that it decodes, types, words of page tables, variables in the memory of the resumee or
of the dump, and the entries of the PFN list of the frames that it asks for.  Each becomes a region that is named after
what it is read for.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import PurePath
from unittest.mock import patch

from hibercheck.addresses import PAGE_SIZE
from hibercheck.dump.dump import Dump
from hibercheck.dump.elf import ElfCore
from hibercheck.dump.source import DumpFile as DumpSource
from hibercheck.errors import HibercheckError, MalformedImage
from hibercheck.kernel.btf import Btf
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.symtab import ElfSymbols
from hibercheck.swsusp.image import Image
from hibercheck.swsusp.stream import BLOCK_PAGES, LENGTH_SIZE, BlockStorage
from tests.fuzz.mutate import Region

_PLUMBING = {"space.py", "composite.py", "resumer.py", "needs.py", "memory.py", "exact.py"}
_TRIES = 48
"""Bytes of a compressed block that are tried in turn, for one that changes what a check reads."""
_NEAR = 512
"""How many bytes are about as near to where the one that is read ought to be in a block."""
_AIMS = 4
"""Bytes of one read that are aimed at in a compressed block."""


class Trace:
    """Regions by path of the file, each under the name of what it is read for."""

    def __init__(self) -> None:
        self.found: dict[str, dict[Region, None]] = {}

    def note(self, path: str, what: str, offset: int, size: int) -> None:
        """Remember that bytes of a file are read."""
        if size > 0:
            self.found.setdefault(path, {})[Region(what, offset, size, 1)] = None

    def regions(self, path: str) -> list[Region]:
        """What was read of a file, in the order of its bytes."""
        return sorted(self.found.get(path, ()), key=lambda one: (one.offset, one.size, one.name))


def purpose() -> str:
    """Name what is being read, by the functions that want it: a page table, or the first reader of the engine."""
    frame = sys._getframe(2)
    reader = None
    while frame is not None:
        place = PurePath(frame.f_code.co_filename)
        if place.name == "paging.py":
            return "page table"
        own = "hibercheck" in place.parts and "handoff" in place.parts and place.name not in _PLUMBING
        if reader is None and own:
            reader = f"{place.stem}.{frame.f_code.co_name.strip('_')}"
        symbol = frame.f_locals.get("symbol")
        if isinstance(symbol, str) and place.name in {"cpufacts.py", "space.py"}:
            return f"{symbol} for {reader or place.stem}"
        frame = frame.f_back  # type: ignore[assignment]
    return reader or "other"


class _Page(bytes):
    """A page of memory that tells which of its bytes are looked at."""

    tell: Callable[[int, int], None]

    def __getitem__(self, key):
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            self.tell(start, stop - start)
        return bytes.__getitem__(self, key)


def _page(content: bytes | None, tell: Callable[[int, int], None]) -> bytes | None:
    if content is None:
        return None
    page = _Page(content)
    page.tell = tell
    return page


@contextmanager
def watching(trace: Trace) -> Iterator[None]:
    """Watch what checks read."""
    with ExitStack() as stack:
        for owner, name, make in (
            (ElfFile, "__init__", _headers),
            (ElfFile, "read", _bytes_of_kernel),
            (ElfSymbols, "_symbol", _symbol),
            (Btf, "_at", _type),
            (Btf, "_member", _members),
            (Program, "fetch", _code),
            (Image, "frame", _frame_of_image),
            (Dump, "frame", _frame_of_dump),
            (DumpSource, "read", _bytes_of_dump),
        ):
            stack.enter_context(patch.object(owner, name, make(trace, getattr(owner, name))))
        yield


def _headers(trace: Trace, original: Callable) -> Callable:
    def init(self: ElfFile, data, path: str) -> None:
        original(self, data, path)
        head = data[:64]
        trace.note(path, "ELF header", 0, 64)
        for what, at, size, count in (("segments", 32, 56, 56), ("sections", 40, 64, 60)):
            start = int.from_bytes(head[at : at + 8], "little")
            trace.note(path, what, start, size * int.from_bytes(head[count : count + 2], "little"))
        text = next((one for one in self.sections if one.name == ".BTF"), None)
        if text is not None:
            trace.note(path, "types' header", text.offset, 24)

    return init


def _bytes_of_kernel(trace: Trace, original: Callable) -> Callable:
    def read(self: ElfFile, address: int, size: int) -> bytes:
        place = self.file_range(address, size)
        if place is not None and sys._getframe(2).f_code.co_name != "_keep":
            trace.note(self.path, f"bytes: {_reader()}", *place)
        return original(self, address, size)

    return read


def _reader() -> str:
    """The function that wants bytes of a kernel."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_name
        if name not in {"read", "read_u64", "read_u32", "read_string", "pointer", "bytes_at", "<genexpr>", "frame"}:
            return name.strip("_")
        frame = frame.f_back  # type: ignore[assignment]
    return "other"


def _symbol(trace: Trace, original: Callable) -> Callable:
    def symbol(self: ElfSymbols, row: int):
        found = original(self, row)
        if found is not None:
            table = next(one for one in self.elf.sections if one.kind == 2)
            strings, rows = self.elf.sections[table.link], self.elf.place_of(table)[0]
            trace.note(self.elf.path, f"symbol {found.name}", table.offset + 24 * row, 24)
            at = strings.offset + int.from_bytes(self.elf.data[rows + 24 * row : rows + 24 * row + 4], "little")
            trace.note(self.elf.path, f"name {found.name}", at, len(found.name) + 1)
        return found

    return symbol


def _type(trace: Trace, original: Callable) -> Callable:
    def at(self: Btf, position: int):
        trace.note(self.path, "type", self.types_at + 4 * position, 12)
        return original(self, position)

    return at


def _members(trace: Trace, original: Callable) -> Callable:
    def member(self: Btf, holder, name: str):
        found = self.resolved(holder)
        if found is not None and found.kind in {4, 5}:
            trace.note(self.path, "members", self.types_at + 4 * found.at, 12 * found.count)
        return original(self, holder, name)

    return member


def _code(trace: Trace, original: Callable) -> Callable:
    def fetch(self: Program, address: int):
        node = original(self, address)
        kernel = self.kernel
        if node is not None and isinstance(kernel, Kernel):
            place = kernel.elf.file_range(address, node.end - address)
            if place is not None:
                trace.note(kernel.path, f"code: {self.name(address).partition('+')[0]}", *place)
        return node

    return fetch


def _frame_of_image(trace: Trace, original: Callable) -> Callable:
    def frame(self: Image, pfn: int) -> bytes | None:
        index = self.pfns.data_index(pfn)
        rank = self.pfns.rank(pfn)
        listed, entry = divmod(rank, PAGE_SIZE // 8)
        if listed < self.info.meta_pages:
            _stored(trace, self, listed, 8 * entry, 8, "PFN list")

        def tell(start: int, size: int) -> None:
            if index is not None and index >= 0:
                _stored(trace, self, self.info.meta_pages + index, start, size, f"memory: {purpose()}")

        return _page(original(self, pfn), tell)

    return frame


def _stored(trace: Trace, image: Image, page: int, start: int, size: int, what: str) -> None:
    """Note bytes of a stored page: where they are in the file, or what must be sought in a compressed block."""
    storage = image.stream.storage
    if isinstance(storage, BlockStorage):
        for place, number in _aims(image.path, storage, page, start, size):
            trace.note(image.path, what, place, number)
    elif image.swap_map is not None:
        offset = image.swap_map.run_at(1 + page)[0]
        trace.note(image.path, what, offset + start, size)


_AIMED: dict[tuple[str, int, int, int], list[tuple[int, int]]] = {}


def _aims(path: str, storage: BlockStorage, page: int, start: int, size: int) -> list[tuple[int, int]]:
    """Find bytes of a compressed block whose change leaves it decodable, and changes what is read of it."""
    key = (path, page, start, size)
    if key not in _AIMED:
        _AIMED[key] = list(_seek(storage, page, start, size))
    return _AIMED[key]


def _seek(storage: BlockStorage, page: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    number, within = divmod(page, BLOCK_PAGES)
    storage.walk(number)
    first = storage.starts[number]
    ranges = storage.swap_map.ranges(first, storage.starts[number + 1] - first)
    packed = bytes(storage.payload(number)[1])
    plain = storage.decode(number, None, packed)
    chooser = random.Random(f"{number} {page} {start} {size}")
    for _ in range(min(size, _AIMS)):
        target = within * PAGE_SIZE + start + chooser.randrange(size)
        expected = len(packed) * target // len(plain)
        for at in islice(_nearest(packed, plain[target], expected, chooser), _TRIES):
            damaged = bytearray(packed)
            damaged[at] ^= 1 << chooser.randrange(8)
            try:
                changed = storage.decode(number, None, bytes(damaged))
            except MalformedImage:
                continue
            if changed[target] != plain[target]:
                yield _place(ranges, LENGTH_SIZE + at), 1
                break


def _nearest(packed: bytes, byte: int, expected: int, chooser: random.Random) -> Iterator[int]:
    """Where a byte is in a block: the nearest to a place first, those about as near in any order."""
    for near in range(0, len(packed), _NEAR):
        around = (*range(expected - near - _NEAR, expected - near), *range(expected + near, expected + near + _NEAR))
        found = [at for at in around if 0 <= at < len(packed) and packed[at] == byte]
        chooser.shuffle(found)
        yield from found


def _place(ranges: list[tuple[int, int]], at: int) -> int:
    for offset, length in ranges:
        if at < length:
            return offset + at
        at -= length
    raise AssertionError(at)


def _frame_of_dump(trace: Trace, original: Callable) -> Callable:
    def frame(self: Dump, pfn: int) -> bytes | None:
        content = original(self, pfn)
        core = self.frames
        if not isinstance(core, ElfCore):
            return content

        def tell(start: int, size: int) -> None:
            address = (pfn << 12) + start
            for segment in core.segments:
                if segment.address <= address < segment.address + segment.size:
                    trace.note(self.path, f"dump: {purpose()}", segment.offset + address - segment.address, size)

        return _page(content, tell)

    return frame


def _bytes_of_dump(trace: Trace, original: Callable) -> Callable:
    def read(self: DumpSource, offset: int, size: int, what: str = "data") -> bytes:
        if what != "memory":
            trace.note(self.path, what, offset, size)
        return original(self, offset, size, what)

    return read


def traced(run: Callable[[], object]) -> Trace:
    """Run something and return what it read."""
    trace = Trace()
    with watching(trace), suppress(HibercheckError):
        run()
    return trace
