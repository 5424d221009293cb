"""VMCOREINFO: found in memory, split, and its numbers read."""

from __future__ import annotations

import pytest

from hibercheck.files.elf import note
from hibercheck.files.vmcoreinfo import HEADS, NAME, number, parse, text_at

TEXT = b"OSRELEASE=6.12.94\nPAGESIZE=4096\nSYMBOL(init_top_pgt)=ffffffff82a10000\nNUMBER(phys_base)=-440401920\n"
TEXT += b"KERNELOFFSET=1ba00000\nNUMBER(sme_mask)=0\nodd line\n"


@pytest.mark.parametrize("page", [TEXT, TEXT + b"\0rest", note(NAME, 0, TEXT) + b"rest"])
def test_in_a_page(page):
    page = page.ljust(4096, b"\0")
    assert text_at(page) == TEXT
    assert page[:1] in HEADS


@pytest.mark.parametrize(
    "page", [b"", bytes(4096), b"OSRELEASE=6.1\n", note(b"OTHERNAME!", 0, TEXT), note(NAME, 0, b"x")]
)
def test_in_no_page(page):
    assert text_at(page) == b""


def test_values():
    values = parse(TEXT + b"\0\0")
    assert values["OSRELEASE"] == "6.12.94"
    assert number(values, "SYMBOL(init_top_pgt)") == 0xFFFFFFFF82A10000
    assert number(values, "NUMBER(phys_base)") == -440401920
    assert number(values, "KERNELOFFSET") == 0x1BA00000
    assert number(values, "NUMBER(sme_mask)") == 0
    assert number(values, "OSRELEASE") is None
    assert number(values, "NUMBER(absent)") is None
