"""Page walks and bytes as rows of text, entry by entry, so that an expert can check them by hand."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.handoff.verdict.findings import Evidence
from hibercheck.report.sanitise import one_line
from hibercheck.report.words import sentence
from hibercheck.x86.paging import Step, Walk

LEVEL_NAMES = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
_FLAGS = ((0, "P"), (1, "W"), (2, "U"), (5, "A"), (6, "D"), (8, "G"), (63, "NX"))
"""Bits of an entry that are shown by letter (SDM 3A, formats of paging-structure entries)."""
FLAGS_LEGEND = "P present, W writable, U user, A accessed, D dirty, PS large page, G global, NX no execute"

BYTES_PER_ROW = 16
MAX_BYTES = 64
VECTORS = {12: "stack fault", 13: "general protection", 14: "page fault"}


def flags(step: Step) -> str:
    """Return the flags of an entry as letters."""
    if not step.entry & 1:
        return "not present"
    letters = [letter for bit, letter in _FLAGS if step.entry >> bit & 1]
    if step.level in (2, 3) and step.entry >> 7 & 1:
        letters.append("PS")
    return " ".join(letters)


def rows(walk: Walk) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield level, table, index, entry and flags of each entry that the walk read."""
    for step in walk.steps:
        name = LEVEL_NAMES.get(step.level, str(step.level))
        yield name, f"{step.table:#x}", str(step.index), f"{step.entry:#018x}", flags(step)


def ending(walk: Walk) -> str:
    """Say where the walk led."""
    if walk.fault is not None:
        name = VECTORS.get(walk.fault.vector, f"vector {walk.fault.vector}")
        return f"{name}, error code {walk.fault.error_code:#x}: {walk.fault.reason}"
    if walk.physical is not None:
        return f"physical {walk.physical:#x}"
    return f"unknown: nothing says what frame {walk.unknown_pfn:#x} holds"


def byte_rows(before: bytes | None, after: bytes | None) -> Iterator[tuple[int, str, str, str]]:
    """Yield offset, bytes before, bytes after, and a line that marks the differing ones, 16 bytes to a row."""
    length = min(max(len(before or b""), len(after or b"")), MAX_BYTES)
    for offset in range(0, length, BYTES_PER_ROW):
        old = (before or b"")[offset : min(offset + BYTES_PER_ROW, length)]
        new = (after or b"")[offset : min(offset + BYTES_PER_ROW, length)]
        pairs = zip(old, new, strict=False)
        marks = " ".join("^^" if left != right else "  " for left, right in pairs).rstrip()
        yield offset, old.hex(" "), new.hex(" "), marks


def evidence_lines(evidence: Evidence) -> Iterator[str]:
    """Yield an evidence as lines of plain text."""
    yield sentence(f"{one_line(evidence.title).rstrip('.:')}:")
    for offset, before, after, marks in byte_rows(evidence.before, evidence.after):
        where = "" if evidence.address is None else f"{evidence.address + offset:#x}"
        if evidence.before is not None:
            yield f"  {where:18} before  {before}"
        if evidence.after is not None:
            yield f"  {where:18} after   {after}"
        if marks:
            yield f"  {'':18}         {marks}"
    if evidence.walk is not None:
        yield f"  {evidence.walk.access} {evidence.walk.address:#x} through CR3 {evidence.walk.cr3:#x}"
        for name, table, index, entry, flags in rows(evidence.walk):
            yield f"  {name:<5} {table:<18} {index:>3}  {entry}  {flags}"
        yield f"  -> {one_line(ending(evidence.walk))}"
    yield from (f"  {one_line(line)}" for line in evidence.lines)
