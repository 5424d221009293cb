"""Opening a memory dump of any known format.

with open_dump("resumer.elf") as dump:
    dump.cpus[1].rip, dump.frame(0x1a0a)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.dump import elf, flattened
from hibercheck.dump.listing import read_listing
from hibercheck.dump.notes import Note, read_cpus
from hibercheck.dump.registers import CpuRegisters
from hibercheck.dump.source import DumpFile, Readable
from hibercheck.errors import InputProblem, MalformedDump, Unsupported
from hibercheck.files.elf import MAGIC as ELF_MAGIC
from hibercheck.files.vmcoreinfo import parse as parse_vmcoreinfo

__all__ = ["CpuRegisters", "Dump", "open_dump"]

CACHED_FRAMES = 1024
KDUMP_MAGIC = b"KDUMP   "

_OTHER_FORMATS = {
    b"DISKDUMP": ("an old diskdump", "only kdump-compressed files of makedumpfile are read"),
    b"EMiL": ("a LiME dump", "take it with format=raw and give it with the registers"),
}


class _Frames(Protocol):
    kind: str

    def frame(self, pfn: int) -> bytes | None: ...

    def runs(self) -> Iterator[tuple[int, int]]: ...


class RawMemory:
    """Physical memory byte by byte from address 0, as QEMU's ``pmemsave 0 SIZE`` writes it."""

    kind = "raw"

    def __init__(self, source: Readable) -> None:
        if source.size < PAGE_SIZE:
            raise MalformedDump("is smaller than one page", path=source.path)
        self._source = source

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's bytes, or None beyond the end of the file."""
        if not 0 <= pfn < self._source.size >> PAGE_SHIFT:
            return None
        return self._source.read(pfn << PAGE_SHIFT, PAGE_SIZE, "memory")

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the one run (0, number of frames)."""
        yield 0, self._source.size >> PAGE_SHIFT


class Dump:
    """Physical memory and CPU registers of a machine at one moment.

    Attributes:
        path: The file as the user named it.
        kind: ``ELF``, ``kdump-compressed`` or ``raw``.
        cpus: The CPUs, in the dump's order; empty if it says nothing of them.
        vmcoreinfo: The kernel's own description, or None if the dump has none.
        frames: The file, by its form.
    """

    def __init__(
        self,
        source: Readable,
        frames: _Frames,
        cpus: tuple[CpuRegisters, ...],
        vmcoreinfo: Mapping[str, str] | None,
    ) -> None:
        self.path = source.path
        self.kind = frames.kind
        self.cpus = cpus
        self.vmcoreinfo = vmcoreinfo
        self._source = source
        self.frames = frames
        self._cache: OrderedDict[int, bytes | None] = OrderedDict()

    def frame(self, pfn: int) -> bytes | None:
        """Return the 4096 bytes of frame ``pfn``, or None if the dump does not hold them.

        Raises:
            MalformedDump: The frame's data are damaged.
            InputProblem: The file can no longer be read.
        """
        if pfn in self._cache:
            self._cache.move_to_end(pfn)
            return self._cache[pfn]
        content = self.frames.frame(pfn)
        self._cache[pfn] = content
        if len(self._cache) > CACHED_FRAMES:
            self._cache.popitem(last=False)
        return content

    @property
    def machine_cpus(self) -> int | None:
        """How many CPUs the machine has; None where a kernel wrote the registers, of the CPUs that it knew."""
        emulated = all(one.cr3 is not None for one in self.cpus)  # a kernel's NT_PRSTATUS has no control registers
        return len(self.cpus) if self.cpus and emulated else None

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first PFN, number) of the frames that the dump holds, ascending."""
        return self.frames.runs()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_dump(path: str, *, registers: str | None = None) -> Dump:
    """Open a dump and read what it says of its CPUs; memory is read only when asked for.

    Args:
        path: An ELF core of QEMU or /proc/vmcore, a kdump-compressed file, or raw memory; itself compressed or not.
        registers: A file with the text of QEMU's ``info registers -a``.  It is needed for raw memory, and takes the
            place of the CPU notes of another format.

    Raises:
        InputProblem: A file cannot be read.
        MalformedDump: It is not a dump, or contradicts its format.
        Unsupported: It is a dump of a format that is not read.
    """
    listing = read_listing(registers) if registers is not None else None
    file = DumpFile(path)
    try:
        return _open(file, listing)
    except InputProblem:
        file.close()
        raise


def _open(source: Readable, listing: tuple[CpuRegisters, ...] | None) -> Dump:
    magic = source.read(0, min(16, source.size))
    if magic == flattened.MAGIC:
        source = flattened.Flattened(source)
        magic = source.read(0, min(16, source.size))
    notes: list[Note] = []
    text: bytes | None = None
    frames: _Frames
    if magic.startswith(ELF_MAGIC):
        core = elf.ElfCore(source)
        frames, notes = core, core.notes
    elif magic.startswith(KDUMP_MAGIC):
        from hibercheck.dump.kdump import KdumpFile  # noqa: PLC0415 - its decompressors; /proc/kcore needs none

        compressed = KdumpFile(source)
        frames, notes = compressed, compressed.notes
        text = compressed.vmcoreinfo
    else:
        if listing is None:
            _refuse(source, magic)
        frames = RawMemory(source)
    text = text or next((note.content for note in notes if note.owner == "VMCOREINFO"), None)
    cpus = listing if listing is not None else read_cpus(notes, source.path)
    return Dump(source, frames, cpus, None if text is None else parse_vmcoreinfo(text))


def _refuse(source: Readable, magic: bytes) -> None:
    for start, (what, advice) in _OTHER_FORMATS.items():
        if magic.startswith(start):
            raise Unsupported(f"is {what}", path=source.path, advice=advice)
    raise MalformedDump(
        "is neither an ELF core nor a kdump-compressed file",
        path=source.path,
        advice="if it is raw physical memory, give its registers too (--resumer-registers)",
    )
