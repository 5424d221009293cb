from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.symbols import TableSymbols
from hibercheck.kernel.symtab import ElfSymbols
from tests.support.elf_writer import ABS, TEXT, Sym, write_kernel

LINKERS = [{"tails": True}, {"tails": False}, {"merge": False}]


def table(*symbols: Sym, **options: bool) -> ElfSymbols:
    return ElfSymbols(ElfFile(write_kernel(symbols, **options), "k"))


@pytest.mark.parametrize("options", LINKERS, ids=["shared tails", "merged", "unmerged"])
@pytest.mark.parametrize("fillers", [0, 10])
def test_names_wherever_the_linker_put_them(options: dict[str, bool], fillers: int) -> None:
    names = ["idt_table", "bringup_idt_table", "__ksymtab_idt_table", "gdt_page", "init_per_cpu__gdt_page", "page"]
    symbols = [Sym(name, TEXT + number, 1) for number, name in enumerate(names)]
    found = table(*symbols, **options).lookup([*names, *(f"absent_{n}" for n in range(fillers)), "able", "idt"])
    assert {name: [one.address for one in group] for name, group in found.items()} == {
        name: [TEXT + number] for number, name in enumerate(names)
    }


@pytest.mark.parametrize("options", LINKERS, ids=["shared tails", "merged", "unmerged"])
@pytest.mark.parametrize("fillers", [0, 10])
def test_every_symbol_of_a_name_best_first(options: dict[str, bool], fillers: int) -> None:
    symbols = [
        Sym("same", TEXT + 3, 1),
        Sym("same", TEXT + 2, 1, 2, 2),
        Sym("other_same", TEXT + 9, 1),
        Sym("same", TEXT + 1, 1, 2, 1),
        Sym("same", TEXT + 4, 1),
    ]
    found = table(*symbols, **options).lookup(["same", *(f"absent_{n}" for n in range(fillers))])["same"]
    assert [one.address - TEXT for one in found] == [1, 2, 3, 4]
    assert [one.letter for one in found] == ["T", "W", "t", "t"]


@pytest.mark.parametrize("options", LINKERS, ids=["shared tails", "merged", "unmerged"])
def test_variants_by_suffix(options: dict[str, bool]) -> None:
    names = ["smt", "smt.isra.0", "smt.constprop.0.cold", "x_smt.isra.0", "smtx", "smt_y.cold"]
    symbols = [Sym(name, TEXT + number, 1) for number, name in enumerate(names)]
    found = table(*symbols, **options).variants("smt")
    assert [one.name for one in found] == ["smt", "smt.isra.0", "smt.constprop.0.cold"]


def test_what_is_no_symbol() -> None:
    symbols = table(
        Sym(".text", TEXT, 0, 3),
        Sym("file.c", 0, 0, 4, 0, ABS),
        Sym("outside", 5, 0, 2, 1, 0),
        Sym("real", TEXT + 1, 1),
    )
    assert [one.name for one in symbols] == ["real"]
    assert not symbols.lookup([".text", "file.c", "outside", "", "a\0b"])


def test_letters_as_nm_has_them() -> None:
    symbols = table(
        Sym("t", TEXT, 1, 2, 0, 1),
        Sym("r", 1, 1, 1, 0, 2),
        Sym("D", 1, 1, 1, 1, 4),
        Sym("b", 1, 1, 1, 0, 6),
        Sym("A", 1, 0, 0, 1, ABS),
        Sym("V", 1, 0, 1, 2, 4),
        Sym("W", TEXT, 0, 2, 2, 1),
    )
    assert {one.name: one.letter for one in symbols} == {name: name for name in "trDbAVW"}


def test_nearest_prefers_what_a_person_would_name() -> None:
    symbols = table(
        Sym("label", TEXT + 0x100, 0, 0, 0),
        Sym("__pi_function", TEXT + 0x100, 16, 2, 1),
        Sym("function", TEXT + 0x100, 16, 2, 1),
        Sym("local_alias", TEXT + 0x100, 16, 2, 0),
        Sym("absolute", TEXT + 0x108, 0, 0, 1, ABS),
        Sym("far", TEXT - 0x40000, 16),
    )
    found = symbols.nearest_many([TEXT + 0x100, TEXT + 0x10F, TEXT + 0xFF, TEXT - 0x40001])
    assert {address - TEXT: one.name for address, one in found.items()} == {
        0x100: "function",
        0x10F: "function",
        0xFF: "far",
    }
    assert symbols.next_address(TEXT) == TEXT + 0x100
    assert symbols.next_address(TEXT + 0x108) is None


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(0, 1 << 20).map(lambda value: TEXT + value * 16), min_size=1, max_size=60),
    asked=st.lists(st.integers(-100, 1 << 24).map(lambda value: TEXT + value), min_size=1, max_size=30),
)
def test_nearest_agrees_between_sources_and_with_the_definition(values: list[int], asked: list[int]) -> None:
    symbols = [Sym(f"s{number}", value, 1, 2, 1) for number, value in enumerate(values)]
    elf = table(*symbols)
    text = TableSymbols("x", [one.name for one in symbols], [one.value for one in symbols], ["T"] * len(symbols))
    wanted = {address: max((v for v in values if v <= address), default=None) for address in asked}
    for _ in range(6):  # the first calls look around, the later ones sort
        found = elf.nearest_many(asked)
        assert {address: one.address for address, one in found.items()} == {k: v for k, v in wanted.items() if v}
    other = text.nearest_many(asked)
    assert {address: one.name for address, one in other.items()} == {a: one.name for a, one in found.items()}
    assert [elf.next_address(address) for address in asked] == [text.next_address(address) for address in asked]


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.text("abc_.", min_size=1, max_size=6), min_size=1, max_size=80),
    options=st.sampled_from(LINKERS),
)
def test_lookup_agrees_with_reading_them_all(names: list[str], options: dict[str, bool]) -> None:
    symbols = [Sym(name, TEXT + number, 1) for number, name in enumerate(names)]
    source = table(*symbols, **options)
    plain = TableSymbols("x", names, [one.value for one in symbols], ["t"] * len(names))
    asked = {*names, "a", "abc", "b.c"}
    addresses = {name: sorted(one.address for one in group) for name, group in source.lookup(asked).items()}
    assert addresses == {name: sorted(one.address for one in group) for name, group in plain.lookup(asked).items()}
    for name in asked:
        assert {one.address for one in source.variants(name)} == {one.address for one in plain.variants(name)}
