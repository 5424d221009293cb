"""The head of an ELF64 core of a machine's memory, as crash and drgn read it."""

from __future__ import annotations

import struct

from hibercheck.addresses import PAGE_SIZE
from hibercheck.files.elf import EHDR, EM_X86_64, ET_CORE, IDENT, PHDR, PN_XNUM, PT_LOAD, PT_NOTE, SHDR, note

PF_RWX = 7
NT_PRSTATUS = 1
NOTE_ROOM = 4 * PAGE_SIZE
"""Room kept for the notes: VMCOREINFO is at most a page (VMCOREINFO_BYTES), NT_PRSTATUS 336 bytes."""

# struct elf_prstatus on x86-64 is 336 bytes; pr_pid lies at 32 and pr_reg, a struct user_regs_struct, at 112.
PRSTATUS_SIZE = 336
PRSTATUS_PID = 32
PRSTATUS_REGS = 112
USER_REGS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)


def data_offset(runs: int, lead: int = 0, grain: int = PAGE_SIZE) -> int:
    """Return where the pages start in a core with ``runs`` PT_LOAD segments.

    Args:
        runs: How many segments there are.
        lead: Bytes, a multiple of 4096.
        grain: What `lead` bytes before the start is a multiple of.
    """
    head = EHDR.size + (runs + 1) * PHDR.size + SHDR.size + NOTE_ROOM
    return -(-(head - lead) // grain) * grain + lead


def head(runs: list[tuple[int, int, int]], notes: bytes, start: int) -> bytes:
    """Return everything in front of the pages.

    Segments carry physical addresses only.  Their virtual addresses are zero, as in what QEMU's dump-guest-memory
    writes without paging: readers then translate by the kernel's own page tables, which are in the pages.  p_align is
    zero, as in /proc/vmcore: by that crash tells such a core from a netdump, in which it looks for no VMCOREINFO.

    Args:
        runs: (first PFN, length, place of its first page among the pages in the file), ascending.
        notes: The notes; at most `NOTE_ROOM` bytes.
        start: Offset of the pages, `data_offset` or above.  What is between is not written: a hole.
    """
    count = len(runs) + 1
    note_at = EHDR.size + count * PHDR.size + SHDR.size
    extended = count >= PN_XNUM
    # With PN_XNUM the number of program headers is in sh_info of section header 0 (System V ABI, "ELF Header").
    parts = [
        EHDR.pack(
            *(IDENT, ET_CORE, EM_X86_64, 1, 0, EHDR.size),
            *(EHDR.size + count * PHDR.size if extended else 0, 0, EHDR.size, PHDR.size),
            *(PN_XNUM if extended else count, SHDR.size if extended else 0, 1 if extended else 0, 0),
        ),
        PHDR.pack(PT_NOTE, 0, note_at, 0, 0, len(notes), len(notes), 4),
    ]
    for first, length, place in runs:
        size = length * PAGE_SIZE
        parts.append(PHDR.pack(PT_LOAD, PF_RWX, start + place * PAGE_SIZE, 0, first * PAGE_SIZE, size, size, 0))
    parts.append(SHDR.pack(0, 0, 0, 0, 0, 1, 0, count if extended else 0, 0, 0))
    parts.append(notes)
    return b"".join(parts)


def prstatus(registers: dict[str, int], *, pid: int = 0) -> bytes:
    """Return an NT_PRSTATUS note of a CPU with these registers; those not given are zero."""
    image = bytearray(PRSTATUS_SIZE)
    struct.pack_into("<i", image, PRSTATUS_PID, pid)
    values = (registers.get(name, 0) & 0xFFFFFFFFFFFFFFFF for name in USER_REGS)
    struct.pack_into(f"<{len(USER_REGS)}Q", image, PRSTATUS_REGS, *values)
    return note(b"CORE", NT_PRSTATUS, bytes(image))
