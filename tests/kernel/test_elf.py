from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact, Unsupported
from hibercheck.kernel.elf import ElfFile, find_build_id
from hibercheck.kernel.symtab import ElfSymbols
from tests.support.elf_writer import ALLOC, BUILD_ID, NOBITS, RODATA, SYMBOLS, TEXT, Section, write_elf, write_kernel


def test_sections_and_bytes() -> None:
    elf = ElfFile(write_kernel(SYMBOLS), "k")
    text = elf.section(".text")
    assert text is not None
    assert (text.address, text.size, text.nobits) == (TEXT, 4096, False)
    assert elf.section(".absent") is None
    assert elf.read(TEXT + 4090, 6) == b"\x90" * 6
    assert elf.read(RODATA, 13) == b"Linux version"
    assert elf.read(3, 8) == b"cpu data"
    assert elf.build_id() == BUILD_ID


def test_bss_reads_as_zeros() -> None:
    elf = ElfFile(write_kernel(), "k")
    bss = TEXT + 0x4000000
    assert elf.read(bss + 0x2FF8, 8) == bytes(8)
    with pytest.raises(MissingFact):
        elf.read(bss + 0x3000, 1)


@pytest.mark.parametrize(
    ("address", "size"), [(TEXT - 1, 1), (TEXT + 4095, 2), (TEXT + 4096, 1), (1 << 63, 8), (0xFFFFFFFFFFFFFFFF, 1)]
)
def test_outside_is_a_missing_fact(address: int, size: int) -> None:
    elf = ElfFile(write_kernel(), "k")
    with pytest.raises(MissingFact, match="has nothing at"):
        elf.read(address, size)


def test_sections_stand_in_for_missing_segments() -> None:
    elf = ElfFile(write_kernel(segments=False), "k")
    assert elf.read(RODATA, 5) == b"Linux"
    assert elf.read(TEXT + 0x4000000, 4) == bytes(4)


def test_stored_part_of_a_segment_ends_before_its_size() -> None:
    data = write_elf([Section(".data", TEXT, b"abcd", ALLOC, size=16)])
    elf = ElfFile(data, "k")
    assert elf.read(TEXT + 2, 8) == b"cd\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machine": 183}, "arm64"),
        ({"machine": 3}, "32-bit x86"),
        ({"machine": 4242}, "machine 4242"),
        ({"elf_class": 1}, "32-bit ELF"),
        ({"byte_order": 2}, "x86-64"),
        ({"kind": 1}, "module or object file"),
        ({"kind": 4}, "memory dump"),
    ],
)
def test_other_elf_files_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(Unsupported, match=message) as caught:
        ElfFile(write_kernel(**options), "k")
    assert caught.value.advice


@pytest.mark.parametrize("size", [0, 3, 63])
def test_too_short_for_a_header(size: int) -> None:
    with pytest.raises(MalformedKernel):
        ElfFile(write_kernel()[:size], "k")


def patched(data: bytes, at: int, code: str, value: int) -> bytes:
    """The data with one field replaced."""
    field = struct.pack(f"<{code}", value)
    return data[:at] + field + data[at + len(field) :]


@pytest.mark.parametrize(
    ("at", "code", "value"),
    [
        (0x28, "Q", 1 << 40),  # e_shoff past the end
        (0x28, "Q", (1 << 64) - 1),
        (0x20, "Q", 1 << 50),  # e_phoff
        (0x36, "H", 13),  # e_phentsize
        (0x3A, "H", 63),  # e_shentsize
        (0x3C, "H", 0xFFFF),  # e_shnum past the end
        (0x38, "H", 0xFFFF),  # e_phnum
        (64 + 8, "Q", 1 << 60),  # p_offset of the first segment
        (64 + 32, "Q", 1 << 60),  # p_filesz, with p_memsz cut to fit below
    ],
)
def test_lying_headers(at: int, code: str, value: int) -> None:
    data = patched(write_kernel(SYMBOLS), at, code, value)
    if at == 64 + 32:
        data = patched(data, 64 + 40, "Q", value)
    with pytest.raises(MalformedKernel):
        ElfFile(data, "k")


def test_a_million_sections_are_refused_quickly() -> None:
    data = patched(write_kernel(), 0x3C, "H", 0)
    at = struct.unpack_from("<Q", data, 0x28)[0]
    data = patched(data, at + 32, "Q", 1_000_000) + bytes(64 * 1_000_000)
    with pytest.raises(MalformedKernel, match="1000000 sections"):
        ElfFile(data, "k")


def test_section_names_without_an_end_are_cut() -> None:
    data = write_elf([Section(".text", TEXT, b"x" * 16), Section("n" * 5000, 0, b"", 0)])
    assert max(len(section.name) for section in ElfFile(data, "k").sections) <= 256


@pytest.mark.parametrize(("link", "size", "message"), [(999, None, "no string table"), (1, 1 << 33, "claims")])
def test_lying_symbol_tables(link: int, size: int | None, message: str) -> None:
    sections = [Section(".text", TEXT, b"x" * 16), Section(".symtab", 0, bytes(48), 0, 2, size, link)]
    elf = ElfFile(write_elf(sections), "k")
    with pytest.raises(MalformedKernel, match=message):
        ElfSymbols(elf)


def test_zero_sized_and_empty_bss_do_not_hide_anything() -> None:
    data = write_elf([Section(".a", TEXT, b"a" * 16), Section(".b", TEXT, b"", ALLOC, NOBITS, 0)])
    assert ElfFile(data, "k").read(TEXT, 16) == b"a" * 16


@pytest.mark.parametrize("notes", [b"", b"\xff" * 64, struct.pack("<III", 4, 1 << 31, 3) + b"GNU\0"])
def test_damaged_notes_have_no_build_id(notes: bytes) -> None:
    assert find_build_id(notes) is None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_raises_only_our_errors(data: st.DataObject) -> None:
    whole = bytearray(write_kernel(SYMBOLS))
    headers = struct.unpack_from("<Q", whole, 0x28)[0]
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(
            st.one_of(st.integers(0, 400), st.integers(headers, len(whole) - 1), st.integers(0, len(whole) - 1))
        )
        whole[at] = data.draw(st.integers(0, 255))
    message = ""
    try:
        elf = ElfFile(bytes(whole), "k")
        symbols = ElfSymbols(elf)
        symbols.lookup(["idt_table", "native_play_dead", "_text", "linux_banner", "absent", "__per_cpu_start"])
        symbols.nearest_many([TEXT + 5, 8])
        symbols.variants("native")
        elf.build_id()
        elf.read(TEXT, 16)
    except HibercheckError as error:
        message = str(error)
    assert "\n" not in message
