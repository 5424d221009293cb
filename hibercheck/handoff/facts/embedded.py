"""The kernel that is in the image itself: its text, symbols, types and notes, read out of the image's own pages.

A kernel's image is mapped linearly, so that one address that is known on both sides places all of it: the arch record
gives ``restore_registers``, virtual and physical.  The range of pages is wrapped as an ELF file in memory, at link-time
addresses, and is from there on a kernel like any other, but for what the running kernel changed in its own text
(alternatives, static keys, relocations).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError, MissingFact
from hibercheck.files import vmcoreinfo
from hibercheck.files.elf import (
    EHDR,
    EM_X86_64,
    ET_EXEC,
    IDENT,
    PHDR,
    PT_LOAD,
    SHDR,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
)
from hibercheck.files.pe import SETUP_SIZE, read_setup_header
from hibercheck.handoff.facts.kernels import looked_up, open_resumee
from hibercheck.handoff.facts.resumee import open_space, paging_of
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.kernel import kallsyms
from hibercheck.kernel.code.names import OF_ONE_CPU, OF_OTHER_CPUS, built_for_one_cpu
from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.locate import installed, symbol_files
from hibercheck.kernel.sources import symbols_of
from hibercheck.kernel.symbols import SymbolSource, TableSymbols
from hibercheck.swsusp.image import Image
from hibercheck.x86.memory import UnknownMemory, read
from hibercheck.x86.paging import Access, PagingMode, walk

WRAPPER = "hibernation image"
"""What `Kernel.wrappers` says of a kernel that was read out of its image."""

_SEARCHED = 256 << 20
"""How far behind its ``restore_registers`` a kernel's symbol table is looked for: no kernel's image is larger."""
_KERNEL_SPACE = 1 << 30
"""KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h."""
_STEP = 0x200000
"""CONFIG_PHYSICAL_ALIGN is at least 2 MiB on x86-64."""
_DEFAULT_START = 0x1000000
"""CONFIG_PHYSICAL_START, arch/x86/Kconfig."""

_GIVE = "give the kernel that hibernated as --resumee"
_NEEDED = ("restore_registers", "linux_banner")
_OF_SEVERAL_CPUS = ("nr_cpu_ids", "__cpu_present_mask", "frozen_cpus")
"""Without these the resumee cannot be read: a kernel without CONFIG_KALLSYMS_ALL keeps only names of code.

Without CONFIG_SMP it takes no ``_OF_SEVERAL_CPUS``.
"""

_HEAD = PAGE_SIZE
"""Bytes before the kernel's pages: the ELF headers."""

# section name, its first and its last symbol, sh_type, sh_flags
_SECTIONS = (
    (".text", "_stext", "_etext", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR),
    (".notes", "__start_notes", "__stop_notes", SHT_NOTE, SHF_ALLOC),
    (".BTF", "__start_BTF", "__stop_BTF", SHT_PROGBITS, SHF_ALLOC),
)


@dataclass(frozen=True, slots=True)
class FoundKernel:
    """The resumee's kernel, and where it was found.

    Attributes:
        kernel: The kernel.
        remarks: What the user should know of that, a line each.
    """

    kernel: Kernel
    remarks: tuple[str, ...] = ()


@contextlib.contextmanager
def own_space(image: Image) -> Iterator[KernelSpace | None]:
    """Open the resumee's address space with the image's own kernel; None where that cannot be found or used."""
    with contextlib.ExitStack() as stack:
        try:
            space: KernelSpace | None = open_space(image, stack.enter_context(find_resumee(image, None).kernel))
        except HibercheckError:
            space = None
        yield space


def find_resumee(image: Image, symbols: str | None, root: Path = Path("/")) -> FoundKernel:
    """Return the image's own kernel, or where it lacks symbols the installed one of its release.

    Args:
        image: The image.
        symbols: A System.map, a copy of /proc/kallsyms or an ELF file of debug information for it; by default its own.
        root: Where kernels are installed.

    Raises:
        MissingFact: The image does not give the kernel's symbols, and no installed kernel of its release does.
        MalformedImage: The image's page tables do not lead to its entry point.
        HibercheckError: The symbol file cannot be read, or is of another kernel.
    """
    place = _place(image)
    try:
        return FoundKernel(_embedded(place, symbols))
    except MissingFact as missing:
        banner = image.find_banner() if symbols is None else None
        if banner is None:
            raise
        found = _installed(place, banner, root)
        if found is None:
            release = banner.split(" ")[2]
            advice = f"give the vmlinux of {release} as --resumee, or its System.map as --resumee-symbols"
            message = f"{missing.message}, and {release} is not installed"
            raise MissingFact(message, path=image.path, advice=advice) from missing
        return FoundKernel(found.kernel, (f"the image {missing.message}: {found.remarks[0]}",))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the kernel is: how it pages, its entry, and run-time virtual less physical addresses of its image."""

    image: Image
    mode: PagingMode
    cr3: int
    entry: int
    shift: int

    def frame(self, address: int) -> bytes | None:
        """Return the page at a run-time address of the kernel's image, or None where the image does not hold it."""
        return self.image.frame((address - self.shift) >> PAGE_SHIFT)

    def frames(self, address: int, size: int) -> bytes:
        """Return pages at a run-time address of the kernel's image, zeros for those that the image does not hold."""
        return self.image.frames((address - self.shift) >> PAGE_SHIFT, size >> PAGE_SHIFT)

    def read(self, address: int, size: int) -> bytes:
        """Read at any run-time virtual address, through the page tables; nothing where that does not work."""
        found = walk(self.image, self.mode, self.cr3, address)
        try:
            return b"" if found.physical is None else read(self.image, found.physical, size)
        except UnknownMemory:
            return b""

    def is_linear(self, address: int) -> bool:
        """Tell whether an address is mapped as the kernel's image is."""
        return walk(self.image, self.mode, self.cr3, address).physical == address - self.shift

    def is_code(self, address: int) -> bool:
        """Tell whether an address can be fetched from."""
        return walk(self.image, self.mode, self.cr3, address, Access.FETCH).physical is not None


def _place(image: Image) -> _Place:
    mode, cr3, physical = paging_of(image)
    entry = image.record.jump_address
    return _Place(image, mode, cr3, entry, entry - physical)


class _Pages:
    """ELF headers, then the kernel's pages from ``start`` on; see `hibercheck.files.binary.Bytes`."""

    def __init__(self, headers: bytes, place: _Place, start: int, end: int) -> None:
        self._headers = headers.ljust(_HEAD, b"\0")
        self._place = place
        self._start = start
        self._size = _HEAD + end - start

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: slice, /) -> bytes:
        start, stop, _ = index.indices(self._size)
        parts = [self._headers[start:stop]] if start < _HEAD else []
        first, last = max(start, _HEAD) - _HEAD, stop - _HEAD
        for at in range(first & -PAGE_SIZE, last, PAGE_SIZE):
            page = self._place.frame(self._start + at)
            if page is None:
                what = f"does not hold the page of its kernel at {self._start + at:#x}"
                raise MissingFact(what, path=self._place.image.path)
            parts.append(page[max(first - at, 0) : last - at])
        return b"".join(parts)

    def find(self, sub: bytes, start: int = 0, end: int | None = None, /) -> int:
        """Return the first offset of ``sub`` among the pages, or -1; a page that is not there matches nothing."""
        stop = self._size if end is None else end
        found = _memory(self._place, self._start, self._start + self._size - _HEAD).find(
            sub, max(start - _HEAD, 0), stop - _HEAD
        )
        return found if found < 0 else found + _HEAD


def _memory(place: _Place, start: int, end: int) -> kallsyms.MemoryBytes:
    return kallsyms.MemoryBytes(place.frames, start, end)


def _embedded(place: _Place, symbols: str | None) -> Kernel:
    """Wrap the image's own kernel.

    Raises:
        MissingFact: It has no symbol table, or one without the names that the handoff asks for.
        HibercheckError: The symbol file cannot be read, or is of another kernel.
    """
    image = place.image
    table = _own_symbols(place)
    if table is None and symbols is None:
        what = "has no symbol table in its kernel's memory (CONFIG_KALLSYMS is off, or its pages are damaged)"
        raise MissingFact(what, path=image.path, advice=_GIVE)
    running = _addresses(table)
    needed = _NEEDED if built_for_one_cpu(running.get) else (*_NEEDED, *_OF_SEVERAL_CPUS)
    missing = [name for name in needed if name not in running]
    if missing and symbols is None:
        what = f"has a kernel whose own symbol table lacks {missing[0]} (CONFIG_KALLSYMS_ALL is off)"
        raise MissingFact(what, path=image.path, advice=_GIVE)
    text = running.get("_text") or _lowest(place)
    start, alignment = _link_start(place, running)
    slide = text - START_KERNEL_MAP - start
    elf = _wrapped(place, running, text, slide)
    if table is not None and symbols is None:
        source: SymbolSource = table.moved(-slide, START_KERNEL_MAP)
    else:
        source = symbols_of(elf, symbols)
    return looked_up(Kernel(image.path, elf, source, (WRAPPER,), alignment))


def _own_symbols(place: _Place) -> TableSymbols | None:
    """Recover the kernel's own symbol table, at run-time addresses; it lies in the read-only data behind the code."""
    start = place.entry & -PAGE_SIZE
    end = min(start + _SEARCHED, START_KERNEL_MAP + _KERNEL_SPACE)
    # First where the code ends, of which ten megabytes would be decompressed and searched for nothing.
    for begin in (_end_of_code(place, end), start):
        found = kallsyms.find(_memory(place, begin, end), begin) if begin < end else None
        if found is not None:
            return found
    return None


def _end_of_code(place: _Place, end: int) -> int:
    """Return where the code ends that the entry is in: from there on nothing is executable (mark_rodata_ro())."""
    at = (place.entry & -_STEP) + _STEP
    while at < end and place.is_code(at):
        at += _STEP
    return at


def _addresses(table: TableSymbols | None) -> dict[str, int]:
    """Return the run-time addresses of what is needed to wrap the kernel."""
    if table is None:
        return {}
    bounds = (name for _, first, last, _, _ in _SECTIONS for name in (first, last))
    wanted = {*_NEEDED, *_OF_SEVERAL_CPUS, *OF_OTHER_CPUS, *OF_ONE_CPU, *bounds}
    wanted |= {"_text", "_end", "__init_begin", "__init_end", "boot_params", "vmcoreinfo_data"}
    return {name: found[0].address for name, found in table.lookup(wanted).items()}


def _lowest(place: _Place) -> int:
    """Return the lowest address of the linear mapping: the kernel unmaps what is not its own (cleanup_highmap())."""
    at = place.entry & -_STEP
    while at > START_KERNEL_MAP and place.is_linear(at - _STEP):
        at -= _STEP
    return at


def _link_start(place: _Place, running: Mapping[str, int]) -> tuple[int, int | None]:
    """Return what ``_text`` was linked at, less ``__START_KERNEL_map``, and CONFIG_PHYSICAL_ALIGN if that is told.

    The setup header says it (LOAD_PHYSICAL_ADDR, arch/x86/boot/header.S); a boot loader that does without, such as one
    that enters by PVH, leaves VMCOREINFO.  With neither it is what CONFIG_PHYSICAL_START is by default: then link-time
    addresses, which only name places, may be off by a constant.
    """
    header = read_setup_header(place.read(running["boot_params"], SETUP_SIZE)) if "boot_params" in running else None
    preferred = header.preferred if header is not None else None
    if header is not None and preferred is not None and preferred % _STEP == 0 and 0 < preferred < _KERNEL_SPACE:
        return preferred, header.alignment
    if "vmcoreinfo_data" in running and "_text" in running:
        note = place.read(int.from_bytes(place.read(running["vmcoreinfo_data"], 8), "little"), PAGE_SIZE)
        offset = vmcoreinfo.number(vmcoreinfo.parse(note.split(b"\0")[0]), "KERNELOFFSET")
        if offset is not None and offset < _KERNEL_SPACE:
            return running["_text"] - START_KERNEL_MAP - offset, None
    return _DEFAULT_START, None


def _wrapped(place: _Place, running: Mapping[str, int], text: int, slide: int) -> ElfFile:
    """Put ELF headers before the kernel's pages: segments around what is freed after boot, and a few sections."""
    end = -(-running["_end"] // PAGE_SIZE) * PAGE_SIZE if "_end" in running else _highest(place)
    freed = running.get("__init_begin", end), running.get("__init_end", end)
    parts = [(text, min(freed[0], end)), (max(freed[1], text), end)] if freed[0] < freed[1] else [(text, end)]
    segments = [
        PHDR.pack(PT_LOAD, 7, _HEAD + first - text, first - slide, 0, last - first, last - first, PAGE_SIZE)
        for first, last in parts
        if first < last
    ]
    names, sections = b"\0", [bytes(SHDR.size)]
    for name, first, last, kind, flags in _SECTIONS:
        if text <= running.get(first, 0) < running.get(last, 0) <= end:
            at, size = running[first], running[last] - running[first]
            where = (at - slide, _HEAD + at - text, size)
            sections.append(SHDR.pack(len(names), kind, flags, *where, 0, 0, 1, 0))
            names += name.encode() + b"\0"
    headers_at = EHDR.size + len(segments) * PHDR.size
    names_at = headers_at + (len(sections) + 1) * SHDR.size
    sections.append(SHDR.pack(0, SHT_STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0))
    sizes = (EHDR.size, PHDR.size, len(segments), SHDR.size, len(sections), len(sections) - 1)
    header = EHDR.pack(IDENT, ET_EXEC, EM_X86_64, 1, place.entry - slide, EHDR.size, headers_at, 0, *sizes)
    return ElfFile(_Pages(b"".join([header, *segments, *sections, names]), place, text, end), place.image.path)


def _highest(place: _Place) -> int:
    """Return the end of the linear mapping around the entry."""
    at = (place.entry & -_STEP) + _STEP
    while at < START_KERNEL_MAP + _KERNEL_SPACE and place.is_linear(at):
        at += _STEP
    return at


def _installed(place: _Place, banner: str, root: Path) -> FoundKernel | None:
    """Find the kernel among the installed ones of its release: its file, or a list of its symbols."""
    release = banner.split(" ")[2]
    for path in installed(release, root):
        with contextlib.suppress(HibercheckError):
            kernel = open_resumee(str(path), None)
            if kernel.banner.strip() == banner.strip():
                return FoundKernel(kernel, (f"{path} was taken, which has the same banner",))
            kernel.close()
    for path in symbol_files(release, root):
        with contextlib.suppress(HibercheckError):
            return FoundKernel(_embedded(place, str(path)), (f"the symbols in {path} were taken",))
    return None
