"""A kernel file as the rest of hibercheck sees it: symbols, bytes, types and what the kernel says of itself."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import MalformedKernel, MissingFact, Unsupported, UsageProblem
from hibercheck.files.binary import Bytes, occurrences
from hibercheck.files.source import Source, open_content
from hibercheck.kernel import ikconfig
from hibercheck.kernel.btf import Btf
from hibercheck.kernel.elf import ElfFile, Section
from hibercheck.kernel.locate import locate
from hibercheck.kernel.symbols import Symbol, SymbolSource
from hibercheck.patterns import pattern

__all__ = ["Kernel", "Section", "Symbol", "open_kernel"]

_MAX_BANNER = 512
_MAX_FACTS = 64 << 20  # with every symbol of a distribution kernel they take some 10 MiB
_BANNER = b"Linux version "
_NUMBERED = pattern(rb" #\d")
_MAX_BANNERS = 64


class Kernel:
    """One opened kernel; close it, or use it as a context manager.

    Nothing is read before it is asked for.  All addresses are link-time ones: what KASLR adds is the caller's business.

    Args:
        path: The file, as the user named it.
        elf: The vmlinux inside it.
        source: Where its symbols come from.
        wrappers: What it was taken out of, outermost first, such as ``("Debian package", "bzImage")``.
        alignment: CONFIG_PHYSICAL_ALIGN in bytes, if one of the wrappers stated it.
    """

    supplemented = False
    """Whether symbols were added that its own table lacks, so that absence of another one means nothing."""

    def __init__(
        self,
        path: str,
        elf: ElfFile,
        source: SymbolSource,
        wrappers: tuple[str, ...] = (),
        alignment: int | None = None,
    ) -> None:
        self.path = path
        self.elf = elf
        self.source = source
        self.wrappers = wrappers
        self.alignment = alignment
        self._symbols: dict[str, tuple[Symbol, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        if isinstance(self.elf.data, Source | mmap.mmap):
            self.elf.data.close()

    # What the kernel says of itself

    @cached_property
    def banner(self) -> str:
        """The line that /proc/version shows (``linux_banner``, init/version.c), without its newline.

        Raises:
            MissingFact: There is none, so this is hardly a kernel.
        """
        symbol = self._symbol_if_any("linux_banner")
        place = symbol.address if symbol is not None else self.banner_place
        line = self.read_string(place, _MAX_BANNER) if place is not None else b""
        if not line.startswith(_BANNER) and self.banner_place is not None:
            line = self.read_string(self.banner_place, _MAX_BANNER)
        if line.startswith(_BANNER):
            return line.split(b"\n", 1)[0].decode("utf-8", "replace")
        raise MissingFact(
            "holds no line that begins with 'Linux version'", path=self.path, advice="is it a Linux kernel?"
        )

    @cached_property
    def banner_place(self) -> int | None:
        """The address of the banner, found by what it says; None where there is none.

        Since 2df8220cc511 ("kbuild: build init/built-in.a just once", in v6.1) a kernel holds it twice: a weak copy of
        before its build number was known, ``# SMP`` where the banner has ``#1 SMP``, and at the end what replaces it.
        """
        found: dict[bool, int] = {}
        for address, offset, size in self.elf.loaded():
            for at in islice(occurrences(self.elf.data, _BANNER, offset, offset + size), _MAX_BANNERS):
                line = self.elf.data[at : min(at + _MAX_BANNER, offset + size)].split(b"\0", 1)[0]
                found[_NUMBERED.search(line) is not None] = address + at - offset
        return found.get(True, found.get(False))

    @property
    def release(self) -> str:
        """The kernel's release, as in ``uname -r``: third word of the banner."""
        return [*self.banner.split(" "), "", ""][2]

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build id in hexadecimal, or None."""
        return self.elf.build_id()

    # Symbols

    def symbols(self, names: Iterable[str]) -> dict[str, Symbol]:
        """Return the best symbol of each name, in one pass over the table, without names that do not exist.

        What was found once is remembered, so asking for many names at once first makes single questions free later.
        """
        wanted = list(names)
        unknown = [name for name in wanted if name not in self._symbols]
        if unknown:
            found = self.source.lookup(unknown)
            self._symbols.update((name, found.get(name, ())) for name in unknown)
        return {name: self._symbols[name][0] for name in wanted if self._symbols[name]}

    def supplement(self, symbols: Mapping[str, Symbol]) -> None:
        """Add symbols that its table lacks; those that it has stay as they are."""
        self.supplemented = True
        known = self.symbols(symbols)
        self._symbols.update((name, (symbol,)) for name, symbol in symbols.items() if name not in known)

    def symbol(self, name: str) -> Symbol | None:
        """Return the symbol of that name, or None; of several, a global one, or the first in the file."""
        return self.symbols([name]).get(name)

    def _symbol_if_any(self, name: str) -> Symbol | None:
        """As `symbol`, also for a kernel without symbols."""
        try:
            return self.symbol(name)
        except MissingFact:
            return None

    def require(self, name: str) -> Symbol:
        """Return the symbol of that name.

        Raises:
            MissingFact: The kernel has none, or hides it.
        """
        found = self.symbol(name)
        if found is None:
            raise MissingFact(
                f"has no symbol {name} in its {self.source.origin} ({len(self.source)} symbols)",
                path=self.path,
                advice="give a System.map or its debug information as its symbols",
            )
        return found

    def variants(self, name: str) -> list[Symbol]:
        """Symbols called ``name``, or ``name`` with a compiler's suffix: ``.isra.0``, ``.constprop.0``, ``.cold``."""
        return self.source.variants(name)

    def nearest(self, address: int) -> tuple[Symbol, int] | None:
        """Return the symbol that names an address and the offset from it, or None outside the kernel."""
        return self.nearest_many([address]).get(address)

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, tuple[Symbol, int]]:
        """As `nearest` for many addresses in one pass; addresses outside the kernel are absent from the result."""
        inside = [one for one in addresses if self.elf.file_range(one, 1) is not None or one in self._zero_based]
        found = self.source.nearest_many(inside) if inside else {}
        return {address: (symbol, address - symbol.address) for address, symbol in found.items()}

    @cached_property
    def _zero_based(self) -> range:
        """Addresses of a zero-based per-CPU area, which a kernel read out of memory names and does not hold."""
        start, end = (self._symbol_if_any(name) for name in ("__per_cpu_start", "__per_cpu_end"))
        return range(end.address) if start is not None and end is not None and start.address == 0 else range(0)

    def extent(self, symbol: Symbol) -> int:
        """Bytes that belong to a symbol: its size, or where that is not known the distance to the next symbol.

        Raises:
            MissingFact: There is neither.
        """
        if symbol.size:
            return symbol.size
        following = self.source.next_address(symbol.address)
        place = self.elf.span_end(symbol.address)
        ends = [end for end in (following, place) if end is not None]
        if not ends:
            raise MissingFact(f"the size of {symbol.name} is not known", path=self.path)
        return min(ends) - symbol.address

    # Bytes

    def read(self, address: int, size: int) -> bytes:
        """Read ``size`` bytes at a link-time address, also of a zero-based per-CPU area; .bss reads as zeros.

        Raises:
            MissingFact: The kernel's file has nothing there.
        """
        return self.elf.read(address, size)

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        """Read a C string of at most ``limit`` bytes, without its NUL; raises like `read`."""
        end = self.elf.span_end(address)
        available = min(limit, end - address) if end is not None else 1
        return self.elf.read(address, available).split(b"\0", 1)[0]

    def section(self, name: str) -> Section | None:
        """Return the first section of that name, or None."""
        return self.elf.section(name)

    # Types

    @cached_property
    def btf(self) -> Btf:
        """The kernel's types.

        Raises:
            MissingFact: The kernel carries none (CONFIG_DEBUG_INFO_BTF is off).
        """
        section = self.section(".BTF")
        if section is None:
            advice = "give its vmlinux with CONFIG_DEBUG_INFO_BTF"
            raise MissingFact(
                "has no .BTF section, so that structure layouts are not known", path=self.path, advice=advice
            )
        return Btf(self.elf.data, self.path, *self.elf.place_of(section))

    def offset_of(self, struct: str, member_path: str) -> int:
        """Bytes from a structure's start to a member; see `hibercheck.kernel.btf.Btf.offset_of`."""
        return self.btf.offset_of(struct, member_path)

    def size_of(self, struct: str, member_path: str | None = None) -> int:
        """Bytes that a structure or one of its members takes; see `hibercheck.kernel.btf.Btf.size_of`."""
        return self.btf.size_of(struct, member_path)

    def has_member(self, struct: str, member_path: str) -> bool:
        """Whether a structure exists and has a member.

        Raises:
            MissingFact: The kernel carries no types, so that it is not known.
        """
        return self.btf.has_member(struct, member_path)

    # Configuration

    @cached_property
    def config(self) -> Mapping[str, str] | None:
        """The kernel's configuration, if it carries it (CONFIG_IKCONFIG): ``{"CONFIG_SMP": "y", ...}``; else None."""
        for _, offset, size in self.elf.loaded():
            found = ikconfig.find(self.elf.data, offset, offset + size)
            if found is not None:
                return found
        return None

    # Per-CPU variables

    @cached_property
    def percpu_start(self) -> int:
        """Link-time start of the per-CPU area (``__per_cpu_start``): 0 in the zero-based layout, an address since 6.15.

        Raises:
            MissingFact: Neither the symbol nor the section is there.
        """
        symbol = self._symbol_if_any("__per_cpu_start")
        if symbol is not None:
            return symbol.address
        section = self.section(".data..percpu")
        if section is None:
            raise MissingFact("does not say where its per-CPU area starts (no __per_cpu_start)", path=self.path)
        return section.address

    @property
    def percpu_zero_based(self) -> bool:
        """Whether per-CPU symbols are offsets from 0, and not addresses in the kernel's image.

        So on x86-64 until 9d7de2aa8b41 ("x86/percpu/64: Use relative percpu offsets", in v6.15).
        """
        return self.percpu_start == 0


def open_kernel(path_or_release: str, *, symbols: str | None = None) -> Kernel:
    """Open a kernel.

    Args:
        path_or_release: A kernel file, a package or unpacked tree with one, an installed kernel's release, or a facts
            file that ``hibercheck kernel --format json`` wrote.
        symbols: A System.map, a copy of /proc/kallsyms or an ELF file of debug information to take symbols from.

    Raises:
        InputProblem: It cannot be read.
        MalformedKernel: It contradicts its own format.
        Unsupported: It is something else, which the message names.
        UsageProblem: Symbols are given with a facts file.
    """
    path, shown = named(path_or_release)
    data: Bytes = open_content(path, shown, limit=_MAX_FACTS, what="a kernel through a pipe")
    if data[:1] == b"{":
        from hibercheck.kernel.code.facts import parse_facts  # noqa: PLC0415 - it imports this module

        if symbols is not None:
            raise UsageProblem("a facts file has symbols of its own", path=shown, advice="give no symbol file with it")
        if len(data) > _MAX_FACTS:
            size = f"{len(data) >> 20} MiB"
            raise MalformedKernel(
                f"is not a facts file: those end at {_MAX_FACTS >> 20} MiB, this has {size}", path=shown
            )
        return parse_facts(shown, data[:])
    wrappers: tuple[str, ...] = ()
    alignment = None
    if data[:4] != b"\x7fELF":
        from hibercheck.kernel.payload import unwrap  # noqa: PLC0415 - a vmlinux needs no decompressors

        found = unwrap(data, shown)
        data, wrappers, alignment = found.data, found.wrappers, found.alignment
    from hibercheck.kernel.sources import symbols_of  # noqa: PLC0415 - whose answers are kept, needs no table

    elf = ElfFile(data, shown)
    text = elf.section(".text")
    if text is not None and text.nobits:
        advice = "give the vmlinuz, and this file as its symbols"
        raise Unsupported("holds a kernel's debug information without the kernel", path=shown, advice=advice)
    if not any(address >= START_KERNEL_MAP for address, _, _ in elf.loaded()):
        raise _stranger(elf)
    return Kernel(shown, elf, symbols_of(elf, symbols), wrappers, alignment)


def named(path_or_release: str) -> tuple[Path, str]:
    """Return a kernel's file, and what messages call it: the user's own words where those are its path.

    Raises:
        InputProblem: There is none.
    """
    path = locate(path_or_release)
    return path, path_or_release if Path(path_or_release) == path else str(path)


def _stranger(elf: ElfFile) -> Unsupported:
    """Return the error for an ELF file of which nothing lies where a kernel's image does, naming what it is."""
    advice = "give a vmlinux or vmlinuz"
    if any(elf.data.find(_BANNER, offset, offset + size) >= 0 for _, offset, size in elf.loaded()):
        if elf.is_library:
            what = "is a library with a Linux kernel for virtual machines in it (libkrunfw): it never loads an image"
            return Unsupported(what, path=elf.path, advice="give the vmlinux that it was made of")
        what = "is a Linux kernel that runs as a program (user-mode Linux): it never loads an image"
        return Unsupported(what, path=elf.path, advice=advice)
    what = f"is a program or a library, not a Linux kernel: nothing in it lies at {START_KERNEL_MAP:#x} or above"
    return Unsupported(what, path=elf.path, advice=advice)
