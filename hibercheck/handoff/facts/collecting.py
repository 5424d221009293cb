"""What ``hibercheck collect`` takes of a running kernel's memory: the frames that a parked CPU's walks and events use.

They are read through /proc/kcore, whose program headers give the physical address of each range since 464920104bf7
("/proc/kcore: update physical address for kcore ram and text", in v4.11).  Taken are the page tables on the way to the
park loops, to the entry code, to each CPU's per-CPU area and through the CPU entry area, and the frames of IDT, GDT and
TSS.  They are as they are now: the kernel may still split a large page or start another CPU before it resumes.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from hibercheck.addresses import CPU_ENTRY_AREA, PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.cpulist import format_cpu_list
from hibercheck.data import dataclass
from hibercheck.files.vmcoreinfo import number
from hibercheck.handoff.facts.modes import SYMBOLS as MODES
from hibercheck.kernel.code.names import ON_THE_WAY as PARK
from hibercheck.numbers import hexadecimal
from hibercheck.x86.memory import PhysicalMemory, UnknownMemory
from hibercheck.x86.memory import read as read_memory
from hibercheck.x86.paging import LARGE, PRESENT, PagingMode, walk

MAX_FRAMES = 16384
"""64 MiB; a machine of 1024 CPUs has a dozen frames for each."""

BANNER = b"Linux version "

ENTRY = ("asm_exc_nmi", "asm_exc_machine_check", "asm_exc_page_fault", "asm_exc_double_fault", "exc_nmi")
"""Code whose walks are wanted: an event leads there."""

DATA = (
    *("__per_cpu_offset", "enable_start_cpu0", "mds_idle_clear", "cpu_buf_idle_clear"),
    *("mds_verw_sel", "x86_verw_sel"),
)
"""Data of the image that decide where a parked CPU goes, or say where its own are."""

OPERAND = re.compile(r"(?:\w+\.)?ds(?:\.\d+)?")
"""The selector that VERW loads, a constant of each function that idles (mds_clear_cpu_buffers(), in nospec-branch.h).

All of a kernel's have the same few names; which of them a loop uses, kallsyms does not tell, so that all are taken.
"""

PERCPU = {
    "gdt_page": 1,
    "cpu_tss_rw": 3,
    "_cea_offset": 1,
    "cpu_number": 1,
    "pcpu_hot": 1,
    "mwait_cpu_dead": 1,
}
"""Per-CPU variables, with the number of pages that each may take."""

VALUES = ("e820_table_firmware", "cpus_booted_once_mask", "swsusp_hardware_signature", *MODES)
"""Data that are read on the spot, and kept as what they say."""

MAX_ENTRIES = 4096
"""Entries of a memory map that are plausible: E820_MAX_ENTRIES is at most some hundred (asm/e820/types.h)."""

SYMBOLS = frozenset({*PARK, *ENTRY, *DATA, *PERCPU, *VALUES, "linux_banner"})


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """What a running kernel tells of its tables.

    Attributes:
        memory: Its physical memory.
        mode: How it pages.
        root: Physical address of init_mm's root table.
        symbols: Run-time addresses out of /proc/kallsyms.
        operands: Those of VERW's operands.
    """

    memory: PhysicalMemory
    mode: PagingMode
    root: int
    symbols: Mapping[str, int]
    operands: tuple[int, ...] = ()


def running_kernel(
    memory: PhysicalMemory, notes: Mapping[str, str], kallsyms: Iterator[str] | list[str]
) -> RunningKernel | None:
    """Find the page tables by VMCOREINFO, or return None where they do not lead to the kernel's banner.

    Args:
        memory: Physical memory.
        notes: VMCOREINFO (kernel/vmcore_info.c).
        kallsyms: Lines of /proc/kallsyms.
    """
    symbols, operands = read_symbols(kallsyms)
    root = number(notes, "SYMBOL(swapper_pg_dir)") or number(notes, "SYMBOL(init_top_pgt)")
    phys_base, banner = number(notes, "NUMBER(phys_base)"), symbols.get("linux_banner")
    if root is None or phys_base is None or not banner:
        return None
    try:
        mode = PagingMode(
            levels=5 if number(notes, "NUMBER(pgtable_l5_enabled)") else 4,
            encryption_mask=number(notes, "NUMBER(sme_mask)") or 0,
        )
        found = RunningKernel(memory, mode, root - START_KERNEL_MAP + phys_base, symbols, operands)
        return found if _read(found, banner, len(BANNER)) == BANNER else None
    except (ValueError, UnknownMemory):
        return None


def read_symbols(lines: Iterator[str] | list[str]) -> tuple[dict[str, int], tuple[int, ...]]:
    """Return the addresses of `SYMBOLS`, and of all operands of VERW in the image.

    Without privileges all are zero, and none is returned.
    """
    found: dict[str, int] = {}
    operands: set[int] = set()
    for line in lines:
        parts = line.split()
        name = parts[2] if len(parts) >= 3 else ""
        if name in SYMBOLS:
            address = _hexadecimal(parts[0])
            if address is not None:
                found.setdefault(name, address)
        elif len(parts) == 3 and OPERAND.fullmatch(name):  # a module's has its name as a fourth part
            operands.add(_hexadecimal(parts[0]) or 0)
    return (found, tuple(sorted(operands - {0}))) if any(found.values()) else ({}, ())


def collect_frames(kernel: RunningKernel, cpus: frozenset[int]) -> dict[int, bytes]:
    """Return the frames by their numbers, at most `MAX_FRAMES`.

    Args:
        kernel: The running kernel.
        cpus: The CPUs that are present.
    """
    taker = _Taker(kernel, {})
    for name in (*PARK, *ENTRY, *DATA):  # code in which a CPU parks is patched and relocated: its bytes are wanted too
        address = kernel.symbols.get(name)
        if address and name in ENTRY:
            taker.walk(address)
        elif address:
            taker.take(address)
        if address and name in PARK:
            taker.take(address + PAGE_SIZE)  # a function may reach into the next page
    for address in kernel.operands:
        taker.take(address)
    taker.entry_area()
    offsets = kernel.symbols.get("__per_cpu_offset")
    for cpu in sorted(cpus if offsets else ()):
        assert offsets is not None  # noqa: S101 - tested in the line above
        taker.take(offsets + 8 * cpu)
        base = _read(kernel, offsets + 8 * cpu, 8)
        if base is not None:
            for name, pages in PERCPU.items():
                taker.percpu(int.from_bytes(base, "little"), name, pages)
    return taker.frames


def collect_values(kernel: RunningKernel, cpus: frozenset[int]) -> dict[str, Any]:
    """Return what variables say that no file shows, as members of a facts file; what cannot be read is left out.

    Args:
        kernel: The running kernel.
        cpus: The CPUs that are present.
    """
    found: dict[str, Any] = {}
    table = _number(kernel, kernel.symbols.get("e820_table_firmware"), 8)
    count = _number(kernel, table, 4)
    if table is not None and count is not None and 0 < count <= MAX_ENTRIES:
        content = _read_across(kernel, table + 4, 20 * count)
        if content is not None:
            found["e820_table"] = [list(row) for row in struct.iter_unpack("<QQI", content)]
    words = 8 * (max(cpus, default=0) // 64 + 1)
    booted = _number(kernel, kernel.symbols.get("cpus_booted_once_mask"), words)
    if booted is not None:
        found["booted"] = format_cpu_list(cpu for cpu in cpus if booted >> cpu & 1)
    signature = _number(kernel, kernel.symbols.get("swsusp_hardware_signature"), 4)
    if signature:  # 0 where the kernel was not told to compare it
        found["hw_signature"] = f"{signature:#x}"
    modes = {name: _number(kernel, kernel.symbols.get(name), size) for name, size in MODES.items()}
    found["modes"] = {name: value for name, value in modes.items() if value is not None}
    return found


def _number(kernel: RunningKernel, address: int | None, size: int) -> int | None:
    content = None if not address else _read_across(kernel, address, size)
    return None if content is None else int.from_bytes(content, "little")


def _read_across(kernel: RunningKernel, address: int, size: int) -> bytes | None:
    """Read bytes that may lie in several pages."""
    parts = []
    while size:
        here = min(size, PAGE_SIZE - address % PAGE_SIZE)
        part = _read(kernel, address, here)
        if part is None:
            return None
        parts.append(part)
        address, size = address + here, size - here
    return b"".join(parts)


def encode_frames(frames: Mapping[int, bytes]) -> dict[str, str]:
    """Write frames as JSON holds them: by number in hexadecimal, compressed by zlib, in base64."""
    return {
        f"{pfn:#x}": base64.b64encode(zlib.compress(content, 9)).decode("ascii")
        for pfn, content in sorted(frames.items())
    }


def decode_frames(encoded: object) -> dict[int, bytes]:
    """Read what `encode_frames` has written.

    Raises:
        ValueError: It is anything else.
    """
    if not isinstance(encoded, dict) or len(encoded) > MAX_FRAMES:
        raise ValueError("frames are not an object of a plausible size")
    return {hexadecimal(str(name)): _decode(content) for name, content in encoded.items()}


def _decode(content: object) -> bytes:
    if not isinstance(content, str):
        raise ValueError("a frame is not a string")  # noqa: TRY004 - of the document, not of our types
    try:
        frame = zlib.decompressobj().decompress(base64.b64decode(content, validate=True), PAGE_SIZE + 1)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"a frame cannot be decoded: {error}") from error
    if len(frame) != PAGE_SIZE:
        raise ValueError("a frame does not have 4096 bytes")
    return frame


@dataclass(frozen=True, slots=True)
class _Taker:
    """Takes frames."""

    kernel: RunningKernel
    frames: dict[int, bytes]

    def frame(self, pfn: int) -> bytes | None:
        """Take one frame, if it is known and there is room."""
        if pfn not in self.frames and len(self.frames) < MAX_FRAMES:
            content = self.kernel.memory.frame(pfn)
            if content is None:
                return None
            self.frames[pfn] = content
        return self.frames.get(pfn)

    def walk(self, address: int) -> int | None:
        """Take the tables on the way to an address; return the physical address."""
        found = walk(self.kernel.memory, self.kernel.mode, self.kernel.root, address)
        for step in found.steps:
            self.frame(step.pfn)
        return found.physical

    def take(self, address: int) -> None:
        """Take the tables on the way to an address, and the frame that it is in."""
        physical = self.walk(address)
        if physical is not None:
            self.frame(physical >> PAGE_SHIFT)

    def percpu(self, base: int, name: str, pages: int) -> None:
        """Take a per-CPU variable; its symbol counts from 0, or from where the section is linked."""
        symbol = self.kernel.symbols.get(name)
        if symbol is None:
            return
        start = (base + symbol) & 0xFFFF_FFFF_FFFF_FFFF
        for page in range(pages):
            self.take(start + page * PAGE_SIZE)

    def entry_area(self) -> None:
        """Take all tables of the CPU entry area, where CPUs have random places, and the IDT at its beginning."""
        self.take(CPU_ENTRY_AREA)
        way = walk(self.kernel.memory, self.kernel.mode, self.kernel.root, CPU_ENTRY_AREA).steps
        tables = [step.entry & self.kernel.mode.address_mask for step in way if step.level == 4]
        for _level in (3, 2):
            following = []
            for table in tables:
                following += self._below(table)
            tables = following
        for table in tables:
            self.frame(table >> PAGE_SHIFT)

    def _below(self, table: int) -> list[int]:
        """Take a table and return those that its entries lead to."""
        content = self.frame(table >> PAGE_SHIFT) or b""
        entries = memoryview(content).cast("Q").tolist()
        return [entry & self.kernel.mode.address_mask for entry in entries if entry & PRESENT and not entry & LARGE]


def _read(kernel: RunningKernel, address: int, size: int) -> bytes | None:
    """Read bytes within one page, or return None where they are not mapped or not known."""
    found = walk(kernel.memory, kernel.mode, kernel.root, address)
    if found.physical is None:
        return None
    try:
        return read_memory(kernel.memory, found.physical, size)
    except UnknownMemory:
        return None


def _hexadecimal(text: str | None) -> int | None:
    try:
        return None if text is None else hexadecimal(text)
    except ValueError:
        return None
