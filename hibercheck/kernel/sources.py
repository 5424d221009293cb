"""Where a kernel's symbols come from: its own table, the one it carries for itself, or a file beside it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import InputProblem, MalformedKernel, Mismatch, MissingFact
from hibercheck.files.source import open_content
from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.symbols import Symbol, SymbolSource, TableSymbols
from hibercheck.kernel.symtab import MAX_SYMBOLS, ElfSymbols
from hibercheck.numbers import hexadecimal

_MAX_FILE = 256 << 20
_BANNER = b"Linux version "
_ALIGNMENT = 0x200000
"""KASLR moves a kernel by multiples of this (CONFIG_PHYSICAL_ALIGN is at least 2 MiB on x86-64)."""


class EmbeddedSymbols:
    """The kallsyms of a stripped kernel, recovered when first asked for; see `SymbolSource`."""

    origin = "kallsyms"

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._table: TableSymbols | None = None
        self._sought = False

    def _found(self) -> TableSymbols:
        if self._table is None and not self._sought:
            self._sought = True
            found = self._search()
            if found is not None:
                _check(self._elf, found, self._elf.path)
            self._table = found
        if self._table is not None:
            return self._table
        if all(self._elf.data.find(_BANNER, offset, offset + size) < 0 for _, offset, size in self._elf.loaded()):
            what = "holds no line that begins with 'Linux version'"
            raise MissingFact(what, path=self._elf.path, advice="is it a Linux kernel?")
        # LZ4, for one, has no checksum by which damage would have been noticed before.
        advice = "give its System.map or a copy of its /proc/kallsyms as its symbols, or fetch it again if damaged"
        raise MissingFact("has no symbols: neither .symtab nor kallsyms", path=self._elf.path, advice=advice)

    def _search(self) -> TableSymbols | None:
        from hibercheck.kernel import kallsyms  # noqa: PLC0415 - a vmlinux with symbols does not need it

        # In the section first, because finding nothing in all the code before it would load all of that.
        section = self._elf.section(".rodata")
        places = [] if section is None or section.nobits else [(section.address, section.offset, section.size)]
        tried: set[int] = set()  # damaged tables, which would be searched once more with what is around the section
        for address, offset, size in [*places, *self._elf.loaded()]:
            found = kallsyms.find(self._elf.data, address - offset, offset, offset + size, tried)
            if found is not None:
                return found
        return None

    def __len__(self) -> int:
        return len(self._found())

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._found())

    def lookup(self, names: Iterable[str]) -> Mapping[str, tuple[Symbol, ...]]:
        """See `SymbolSource.lookup`."""
        return self._found().lookup(names)

    def variants(self, name: str) -> list[Symbol]:
        """See `SymbolSource.variants`."""
        return self._found().variants(name)

    def nearest_many(self, addresses: Iterable[int]) -> Mapping[int, Symbol]:
        """See `SymbolSource.nearest_many`."""
        return self._found().nearest_many(addresses)

    def next_address(self, address: int) -> int | None:
        """See `SymbolSource.next_address`."""
        return self._found().next_address(address)


def symbols_of(elf: ElfFile, file: str | None) -> SymbolSource:
    """Return the best source of a kernel's symbols.

    Args:
        elf: The kernel.
        file: A System.map, a copy of /proc/kallsyms, or an ELF file of the kernel's debug information, to be used
            instead of the kernel's own.

    Raises:
        InputProblem: The file cannot be read, or does not hold symbols.
        Mismatch: It belongs to another kernel.
    """
    if file is not None:
        return _from_file(elf, file)
    own = ElfSymbols(elf)
    return own if len(own) > 1 else EmbeddedSymbols(elf)


def _from_file(elf: ElfFile, file: str) -> SymbolSource:
    data = open_content(file, file, limit=_MAX_FILE, what="a list of symbols")
    if data[:4] == b"\x7fELF":
        separate = ElfFile(data, file)
        debug = ElfSymbols(separate)
        debug.origin = file
        _check(elf, debug, file)
        ids = elf.build_id(), separate.build_id()
        if None not in ids and ids[0] != ids[1]:
            what = f"its build id is {ids[1]}, and that kernel's {ids[0]}"
            raise Mismatch(f"belongs to another kernel than {elf.path}: {what}", path=file)
        return debug
    if len(data) > _MAX_FILE:
        raise MalformedKernel(f"is larger than {_MAX_FILE >> 20} MiB", path=file, advice="give a System.map")
    names, addresses, letters = _parse(data[:], file)
    try:
        text = names.index("_text")
    except ValueError:
        raise MalformedKernel("does not list _text, so it is not all of a kernel's symbols", path=file) from None
    if not addresses[text]:
        advice = "read /proc/kallsyms as root, with kernel.kptr_restrict 0 or 1"
        raise InputProblem("has its addresses hidden", path=file, advice=advice)
    moved = addresses[text] - _text_of(elf)
    if moved % _ALIGNMENT or moved < 0:
        what = f"its _text is {addresses[text]:#x}"
        raise Mismatch(f"belongs to another kernel than {elf.path}: {what}", path=file)
    if moved:
        # A running kernel's list, with KASLR: what is in the kernel's image moved, zero-based per-CPU offsets did not.
        addresses = [address - moved if address >= START_KERNEL_MAP else address for address in addresses]
    table = TableSymbols(file, names, addresses, letters)
    _check(elf, table, file)
    _check_by_own(elf, table, file)
    return table


def _parse(data: bytes, file: str) -> tuple[list[str], list[int], list[str]]:
    """Return the columns of ``address letter name [module]`` lines; modules' symbols are left out."""
    if b"The real System.map is in" in data[:4096]:
        advice = "take it from the -dbg package that it names, or leave the option out"
        raise InputProblem("is Debian's placeholder, without symbols", path=file, advice=advice)
    if data.count(b"\n") > MAX_SYMBOLS:
        raise MalformedKernel(f"has more than {MAX_SYMBOLS} lines", path=file)
    names, addresses, letters = [], [], []
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace")  # one at a time: there are millions
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or (len(fields) > 3 and fields[3].startswith("[")):
            continue
        try:
            address, letter, name = hexadecimal(fields[0]), fields[1], fields[2]
        except (ValueError, IndexError):
            where = f"line {number} is not 'address letter name'"
            raise MalformedKernel(where, path=file, advice="give a System.map or a copy of /proc/kallsyms") from None
        if len(letter) != 1:
            raise MalformedKernel(f"line {number} is not 'address letter name'", path=file)
        names.append(name)
        addresses.append(address)
        letters.append(letter)
    return names, addresses, letters


def _text_of(elf: ElfFile) -> int:
    """Link-time address of ``_text``: the start of the kernel's lowest executable section or segment."""
    section = elf.section(".text")
    if section is not None:
        return section.address
    return min(address for address, _, _ in elf.loaded() if address >= START_KERNEL_MAP)


def _check_by_own(elf: ElfFile, table: TableSymbols, file: str) -> None:
    """Hold a list to the symbols that the kernel carries itself, if it does.

    All of them: a near build moves a few functions, has its banner where it was, and parks CPUs in those few.

    Raises:
        Mismatch: They are not where the list has them.
    """
    own = ElfSymbols(elf)
    source = own if len(own) > 1 else EmbeddedSymbols(elf)
    try:
        theirs = {(one.name, one.address) for one in source}
    except MissingFact:
        return  # it carries none
    # either may lack what is no code, and that may have the name of a function: of a name one place must be the same
    apart = {name for name, _ in theirs} - {one.name for one in table if (one.name, one.address) in theirs}
    moved = next((one for one in table if one.name in apart), None)
    if moved is not None:
        what = f"that kernel has no {moved.name} at {moved.address:#x}"
        raise Mismatch(f"belongs to another kernel than {elf.path}: {what}", path=file)


def _check(elf: ElfFile, table: SymbolSource, file: str) -> None:
    """Prove the symbols by one whose contents are known."""
    banner = table.lookup(["linux_banner"]).get("linux_banner")
    if banner is None:
        return
    try:
        text = elf.read(banner[0].address, 14)
    except MissingFact:
        text = b""
    if text != _BANNER:
        what = f"the linux_banner of its {table.origin} ({banner[0].address:#x}) is not where it should be"
        if file == elf.path:
            raise MalformedKernel(f"is damaged: {what}", path=file)
        what = f"its linux_banner ({banner[0].address:#x}) is not where that kernel has it"
        raise Mismatch(f"belongs to another kernel than {elf.path}: {what}", path=file)
