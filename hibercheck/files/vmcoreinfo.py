"""VMCOREINFO: what a kernel says of itself, as lines of text in its memory and in the notes of its dumps.

Written by kernel/vmcore_info.c (kernel/crash_core.c before 6.9) and arch/x86/kernel/vmcore_info_64.c.
"""

from __future__ import annotations

from collections.abc import Mapping

from hibercheck.files.elf import NHDR
from hibercheck.numbers import either, hexadecimal

NAME = b"VMCOREINFO"
_START = b"OSRELEASE="
_NOTE_START = (len(NAME) + 1).to_bytes(4, "little")
_NOTE_HEAD = NHDR.size + (len(NAME) + 1 + 3 & ~3)
HEADS = (_START[:1], _NOTE_START[:1])
"""What a page begins with that may hold it: the text is in a page of its own, or behind the head of the note."""


def text_at(page: bytes) -> bytes:
    """Return the text at the start of a page of memory, bare or in a note; nothing if there is none."""
    if page.startswith(_NOTE_START):
        if page[NHDR.size : NHDR.size + len(NAME) + 1] != NAME + b"\0":
            return b""
        size = int.from_bytes(page[4:8], "little")
        page = page[_NOTE_HEAD : _NOTE_HEAD + size]
    text = page.split(b"\0", 1)[0]
    return text if text.startswith(_START) and b"\nPAGESIZE=" in text else b""


def parse(text: bytes) -> Mapping[str, str]:
    """Split the text into its keys (``SYMBOL(init_top_pgt)``, ``KERNELOFFSET`` and so on) and values."""
    lines = text.rstrip(b"\0").decode("latin-1").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def number(values: Mapping[str, str], key: str) -> int | None:
    """Return a value as a number; None where it is missing or is not one.

    ``SYMBOL(...)`` and KERNELOFFSET are printed by %lx, without a prefix; ``NUMBER(...)`` by %ld: it may be negative.
    """
    read = hexadecimal if key == "KERNELOFFSET" or key.startswith("SYMBOL(") else either
    try:
        return read(values[key])
    except (KeyError, ValueError):
        return None
