"""ELF notes of a dump: QEMU's CPU states and NT_PRSTATUS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from construct import Array, Const, ConstructError, Int32ul, Int64ul, Padding, Struct

from hibercheck.dump.registers import GENERAL, CpuRegisters
from hibercheck.errors import MalformedDump
from hibercheck.files.elf import notes

NT_PRSTATUS = 1
QEMU_CPU_STATE = 0

# struct QEMUCPUSegment { uint32_t selector, limit, flags, pad; uint64_t base; };   QEMU target/i386/arch_dump.c
_SEGMENT = Struct("selector" / Int32ul, "limit" / Int32ul, "flags" / Int32ul, Padding(4), "base" / Int64ul)

# struct QEMUCPUState { uint32_t version, size; uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp; uint64_t r8 ... r15;
#     uint64_t rip, rflags; QEMUCPUSegment cs, ds, es, fs, gs, ss; QEMUCPUSegment ldt, tr, gdt, idt;
#     uint64_t cr[5];            then, told by ``size``, since QEMU 2.12:  uint64_t kernel_gs_base; };
_QEMU_CPU_STATE = Struct(
    "version" / Const(1, Int32ul),
    "size" / Int32ul,
    *(f"r{name}" / Int64ul for name in ("ax", "bx", "cx", "dx", "si", "di", "sp", "bp")),
    *(f"r{number}" / Int64ul for number in range(8, 16)),
    "rip" / Int64ul,
    "rflags" / Int64ul,
    *(name / _SEGMENT for name in ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")),
    "cr" / Array(5, Int64ul),
)

# struct elf_prstatus of x86-64 (include/uapi/linux/elfcore.h): 112 bytes of signal and process facts, then
#     unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags,
#     rsp, ss, fs_base, gs_base, ds, es, fs, gs;      (struct user_regs_struct, arch/x86/include/asm/user_64.h)
_PRSTATUS_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
)
_PRSTATUS = Struct(Padding(112), *(name / Int64ul for name in _PRSTATUS_NAMES))


@dataclass(frozen=True, slots=True)
class Note:
    """One ELF note: owner, type and contents."""

    owner: str
    kind: int
    content: bytes


MAX_COUNT = 1 << 18
"""Notes of one dump: more than three for each of the CPUs that Linux can have; bounds the memory for empty ones."""


def iter_notes(data: bytes, path: str) -> Iterator[Note]:
    """Yield the notes in a PT_NOTE segment (names and contents padded to 4 bytes).

    Raises:
        MalformedDump: A note reaches beyond the segment, or there are more than `MAX_COUNT`.
    """
    try:
        for number, (owner, kind, content) in enumerate(notes(data), 1):
            if number > MAX_COUNT:
                raise MalformedDump(f"has more than {MAX_COUNT} notes", path=path)
            yield Note(owner.rstrip(b"\0").decode("latin-1"), kind, content)
    except ValueError as problem:
        raise MalformedDump(str(problem), path=path, advice="the dump is cut or damaged") from problem


def read_cpus(found: list[Note], path: str) -> tuple[CpuRegisters, ...]:
    """Collect the CPUs: QEMU's own notes where there are any, as they hold all, otherwise NT_PRSTATUS.

    Raises:
        MalformedDump: A note is shorter than its structure or of an unknown version.
    """
    states = [note for note in found if note.owner == "QEMU" and note.kind == QEMU_CPU_STATE]
    if states:
        return tuple(_from_qemu(number, note, path) for number, note in enumerate(states))
    statuses = [note for note in found if note.owner == "CORE" and note.kind == NT_PRSTATUS]
    return tuple(_from_prstatus(number, note, path) for number, note in enumerate(statuses))


def _parse(structure: Struct, note: Note, path: str) -> Any:  # noqa: ANN401 - construct's containers are untyped
    try:
        return structure.parse(note.content)
    except ConstructError as error:
        detail = " ".join(str(error).split())
        raise MalformedDump(f"a CPU note of owner {note.owner} is malformed: {detail}", path=path) from error


def _from_qemu(number: int, note: Note, path: str) -> CpuRegisters:
    state = _parse(_QEMU_CPU_STATE, note, path)
    end = _QEMU_CPU_STATE.sizeof()
    has_kernel_gs = state.size >= end + 8 and len(note.content) >= end + 8
    return CpuRegisters(
        cpu=number,
        source="QEMU note",
        **{name: state[name] for name in (*GENERAL, "rip", "rflags")},
        cs=state.cs.selector,
        ss=state.ss.selector,
        fs_base=state.fs.base,
        gs_base=state.gs.base,
        kernel_gs_base=int.from_bytes(note.content[end : end + 8], "little") if has_kernel_gs else None,
        cs_base=state.cs.base,
        cr0=state.cr[0],
        cr2=state.cr[2],
        cr3=state.cr[3],
        cr4=state.cr[4],
        gdt_base=state.gdt.base,
        gdt_limit=state.gdt.limit,
        idt_base=state.idt.base,
        idt_limit=state.idt.limit,
        tr=state.tr.selector,
        tr_base=state.tr.base,
        tr_limit=state.tr.limit,
    )


def _from_prstatus(number: int, note: Note, path: str) -> CpuRegisters:
    status = _parse(_PRSTATUS, note, path)
    return CpuRegisters(
        cpu=number,
        source="NT_PRSTATUS",
        **{name: status[name] for name in (*GENERAL, "rip")},
        rflags=status.eflags,
        cs=status.cs & 0xFFFF,
        ss=status.ss & 0xFFFF,
        fs_base=status.fs_base,
        gs_base=status.gs_base,
    )
