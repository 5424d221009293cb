"""A kernel's symbols as kallsyms has them without CONFIG_KALLSYMS_ALL: those of its code."""

from __future__ import annotations

from pathlib import Path

from hibercheck.kernel.kernel import Kernel


def write_text_symbols(kernel: Kernel, path: Path) -> Path:
    """Write what scripts/kallsyms.c keeps: ``_stext`` to ``_etext``, and ``_sinittext`` to ``_einittext``."""
    ends = kernel.symbols(["_stext", "_etext", "_sinittext", "_einittext"])
    ranges = [
        (ends[first].address, ends[last].address)
        for first, last in (("_stext", "_etext"), ("_sinittext", "_einittext"))
        if first in ends and last in ends
    ]
    kept = [one for one in kernel.source if any(start <= one.address <= end for start, end in ranges)]
    lines = (f"{one.address:016x} {one.letter} {one.name}\n" for one in sorted(kept, key=lambda one: one.address))
    path.write_text("".join(lines))
    return path
