"""ELF structures, held against pyelftools; and notes."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import astuple, fields

import pytest
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.files import elf
from tests.support.elf_writer import SYMBOLS, write_kernel

KERNEL = write_kernel(SYMBOLS)


def test_headers_as_pyelftools_reads_them():
    theirs = ELFFile(io.BytesIO(KERNEL))
    ours = elf.header(KERNEL)
    for name in [one.name for one in fields(elf.Header)][1:]:
        known = {"type": "ET_EXEC", "machine": "EM_X86_64", "version": "EV_CURRENT"}
        assert theirs[f"e_{name}"] in {getattr(ours, name), known.get(name)}
    table = KERNEL[ours.phoff : ours.phoff + ours.phnum * elf.PHDR.size]
    for mine, segment in zip(elf.program_headers(table), theirs.iter_segments(), strict=True):
        assert astuple(mine)[1:] == tuple(segment[f"p_{one.name}"] for one in fields(mine)[1:])
    table = KERNEL[ours.shoff : ours.shoff + ours.shnum * elf.SHDR.size]
    compared = 0
    for number, mine in enumerate(elf.section_headers(table)):
        with suppress(ELFError):  # it wants a symbol table's sh_entsize, which ours does not write
            section = theirs.get_section(number)
            read = astuple(mine)
            assert read[:1] + read[2:] == tuple(section[f"sh_{one.name}"] for one in fields(mine) if one.name != "type")
            compared += 1
    assert compared >= ours.shnum - 1


@pytest.mark.parametrize("content", [b"", b"\x7fELF", KERNEL[:63], b"x" * 64])
def test_what_has_no_header(content):
    assert elf.header(content) is None


@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 2**32 - 1), st.binary(max_size=50))))
def test_notes_are_read_as_written(notes):
    data = b"".join(elf.note(*note) for note in notes)
    assert list(elf.notes(data)) == [(owner + b"\0", kind, content) for owner, kind, content in notes]
    for owner, kind, content in notes[:1]:
        assert elf.find_note(data, owner + b"\0", kind) == content
    assert elf.find_note(data, b"no such owner\0", 1) is None


def test_a_note_beyond_the_end():
    data = elf.note(b"GNU", 3, b"id") + elf.note(b"Xen", 18, b"more")[:-4]
    assert elf.find_note(data, b"GNU\0", 3) == b"id"
    assert elf.find_note(data, b"Xen\0", 18) is None
    with pytest.raises(ValueError, match="a note reaches beyond its segment"):
        list(elf.notes(data))
