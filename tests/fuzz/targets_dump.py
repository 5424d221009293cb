"""Targets that read dumps: ELF cores, kdump files, flattened streams, register listings."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from hibercheck.dump.dump import open_dump
from tests.dump.conftest import elf_core, kdump, note, prstatus, qemu_state
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import Region, mutate_bytes, mutate_text, patch_fields
from tests.fuzz.seeds import Copy, unpack

Target = Callable[[Draw], None]
PAGE = 4096


def read_dump(path: Path, draw: Draw, registers: Path | None = None) -> None:
    """Ask a dump everything that a check asks."""
    with open_dump(str(path), registers=str(registers) if registers else None) as dump:
        for cpu in dump.cpus:
            assert isinstance(cpu.interrupts_enabled, bool)
        dict(dump.vmcoreinfo or {})
        for number, (first, length) in enumerate(dump.runs()):
            for pfn in {first, first + length - 1, 0, 1 << 40}:
                frame = dump.frame(pfn)
                assert frame is None or len(frame) == PAGE
            if number > 64:
                break
        dump.frame(draw.below(1 << 20))


def real_dumps(directory: Path) -> Target:
    """The dump of a measured case, damaged in place: its headers and notes."""
    copy = Copy(unpack("memory/fatal.elf.xz"), directory)
    header = struct.unpack("<16sHHIQQQIHHHHHH", copy.read(0, 64))
    regions = [Region("header", 16, 48, 2), Region("segments", header[5], 56 * header[10])]
    for number in range(header[10]):
        row = struct.unpack("<IIQQQQQQ", copy.read(header[5] + 56 * number, 56))
        if row[0] == 4:
            regions += [Region("notes", row[2], row[5], unit) for unit in (4, 8)]

    def run(draw: Draw) -> None:
        with copy.damaged(patch_fields(draw, regions, copy.read)) as path:
            read_dump(path, draw)

    return run


def _flattened(data: bytes, step: int) -> bytes:
    out = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        out += struct.pack(">qq", at, len(piece)) + piece
    return out + struct.pack(">qq", -1, -1)


def made_dumps(directory: Path) -> Target:
    """Small dumps of every format, with QEMU's notes and the kernel's."""
    path = directory / "dump"
    notes = b"".join(note(b"QEMU", 0, qemu_state(rip=n, cr3=0x1000)) for n in range(2)) + note(b"CORE", 1, prstatus())
    notes += note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\nPAGESIZE=4096\nSYMBOL(init_top_pgt)=ffffffff82a10000\n")
    frames = {n: bytes([n]) * PAGE for n in (0, 1, 3, 9)}

    def make(draw: Draw) -> tuple[bytes, list[Region]]:
        kind = draw.below(3)
        if kind == 0:
            segments = [(0, b"a" * 5000), (5000, b"b" * 3192), (0x100000, b"c" * 8192)]
            data = elf_core(segments, notes, extended=draw.chance(2))
            return data, [Region("head", 0, 400), Region("segments", 64, 56 * 4), Region("notes", 288, len(notes), 4)]
        how = draw.choice(("zlib", "lzo", "zstd", "none"))
        data = kdump(frames, notes, b"OSRELEASE=6.1\n", compression=how, split=draw.choice((0, 0, 1)))
        bitmap = 2 * PAGE
        regions = [Region("head", 0, 24, 4), Region("sizes", 400, 80, 4), Region("sub", PAGE, 104)]
        return data, [
            *regions,
            Region("bitmap", bitmap, 2 * PAGE, 8),
            Region("rest", 3 * PAGE, len(data) - 3 * PAGE, 8),
        ]

    def run(draw: Draw) -> None:
        data, regions = make(draw)
        if draw.chance(2):
            data = _flattened(
                mutate_bytes(draw, data, regions) if draw.chance(3) else data, draw.choice((512, 4096, 64))
            )
            regions = [Region("flat", 0, 64), Region("block", 4096, 16), Region("end", len(data) - 16, 16)]
        path.write_bytes(mutate_bytes(draw, data, regions, most=6))
        read_dump(path, draw)

    return run


LISTING = """\
CPU#0
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=ffffc9000006bee8
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=ffffffff81032558 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 ffffffff 00c00000
CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 ffffffff 00c00000
FS =0000 0000000000000000 ffffffff 00c00000
GS =0000 ffff888007b00000 ffffffff 00c00000
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
TR =0040 fffffe000003e000 00004087 00008900 DPL=0 TSS64-avl
GDT=     fffffe000003c000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=0000000000000000 CR3=0000000001a0a000 CR4=003506a0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d01
"""


def listings(directory: Path) -> Target:
    """The text of ``info registers -a`` beside raw memory."""
    path, memory = directory / "registers", directory / "raw"
    memory.write_bytes(bytes(4 * PAGE))
    text = LISTING + LISTING.replace("CPU#0", "CPU#1")

    def run(draw: Draw) -> None:
        content = mutate_text(draw, text, ("CPU#1", "CPU#99999999999", "RIP=", "=", "HLT=1"))
        data = content.encode("utf-8", "surrogatepass")
        path.write_bytes(mutate_bytes(draw, data) if draw.chance(4) else data)
        read_dump(memory, draw, path)

    return run
