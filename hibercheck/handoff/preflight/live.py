"""The kernel that runs, out of its own memory: for one whose file is not installed any more.

/proc/kcore shows what an image would hold, so that the kernel is read out of it as out of an image
(`hibercheck.handoff.facts.embedded`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn, cast

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.dump.dump import Dump, open_dump
from hibercheck.errors import HibercheckError, MissingFact
from hibercheck.files.vmcoreinfo import number
from hibercheck.handoff.facts.embedded import find_resumee
from hibercheck.host.tree import opened
from hibercheck.kernel.kernel import Kernel

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image

_ENTRY = " restore_registers"
"""The function at which an image is entered: its address places a kernel's image."""


class _Live:
    """Memory of the running kernel in the place of an image's; what only an image has raises MissingFact."""

    def __init__(self, path: str, core: Dump, entry: int, physical: int, root: int) -> None:
        self.path = path
        self._core = core
        self.record = SimpleNamespace(jump_address=entry, jump_address_phys=physical, cr3=root)

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame of its memory, or None."""
        return self._core.frame(pfn)

    def frames(self, first: int, count: int) -> bytes:
        """Return frames of its memory, zeros for those that are not there."""
        return b"".join(self.frame(pfn) or bytes(PAGE_SIZE) for pfn in range(first, first + count))

    def __getattr__(self, name: str) -> NoReturn:
        """Raise MissingFact."""
        raise MissingFact(f"/proc/kcore has no {name.replace('_', ' ')}", path=self.path)


def live_kernel(root: Path, stack: ExitStack) -> Kernel | None:
    """Return the kernel that runs; None where its memory cannot be read, or has no symbol table.

    Args:
        root: Where proc is.
        stack: Closes its memory.
    """
    path = root / "proc/kcore"
    try:
        if not path.exists():
            return None
        core = stack.enter_context(open_dump(str(path)))
        notes = core.vmcoreinfo or {}
        entry, base = _entry(root), number(notes, "NUMBER(phys_base)")
        top = number(notes, "SYMBOL(swapper_pg_dir)") or number(notes, "SYMBOL(init_top_pgt)")
        if entry is None or base is None or top is None:
            return None
        # phys_base counts from run-time addresses (arch/x86/kernel/vmcore_info_64.c)
        physical, tables = entry - START_KERNEL_MAP + base, top - START_KERNEL_MAP + base
        live = _Live(str(path), core, entry, physical, tables)
        return stack.enter_context(find_resumee(cast("Image", live), None, root).kernel)
    except (HibercheckError, OSError, ValueError):
        return None


def _entry(root: Path) -> int | None:
    """Return the run-time address of restore_registers by /proc/kallsyms; without privileges it is zero."""
    descriptor = opened(root / "proc/kallsyms", root)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.rstrip().endswith(_ENTRY):
                return int(line.split()[0], 16) or None
    return None
