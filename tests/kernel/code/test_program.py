"""A kernel's functions, followed from their entries: what belongs to one, where it is left, and what cannot be read."""

from __future__ import annotations

import pytest

from hibercheck.errors import MissingFact
from hibercheck.kernel.code.names import Wanted
from hibercheck.kernel.code.program import MAX_FUNCTION, MAX_INSTRUCTIONS, Program
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS

BANNER = (
    '.section .rodata, "a"\n.globl linux_banner\nlinux_banner: .asciz "Linux version 6.1.0 (a@b) ({by}) #1\\n"\n.text\n'
)


@pytest.fixture
def program(made):
    """Return a function that makes a kernel of some functions, and gives its code."""

    def make(text, wanted=None, **more):
        return Program(open_kernel(made.path(**dict.fromkeys(PARTS, ""), alone=f".text\n{text}", **more)), wanted)

    return make


def mnemonics(function):
    return [node.mnemonic for node in function]


SOME = """
fn first
 test %eax, %eax
 je 1f
 call second
 ret
1: jmp second
 nop
end first
fn second
 mov $1, %eax
 ret
end second
"""


def test_a_function_is_what_its_entry_reaches(program):
    made = program(SOME)
    first, second = made.function_of("first"), made.address("second")
    assert mnemonics(first) == ["test", "je", "call", "ret", "jmp"]  # and not the NOP behind it
    assert (first.name, first.entry, first.truncated) == ("first", made.address("first"), None)
    calls = [node.address for node in first if node.mnemonic == "call"]
    jumps = [node.address for node in first if node.mnemonic == "jmp"]
    assert first.tails == {jumps[0]: second}
    assert first.calls() == {calls[0]: second, jumps[0]: second}
    assert made.function(first.entry) is first
    assert made.function_of("third") is None


def test_where_each_instruction_can_go(program):
    made = program(SOME)
    first = made.function_of("first")
    test, je, call, ret, jump = first
    assert first.successors == {
        test.address: (je.address,), je.address: (call.address, jump.address), call.address: (ret.address,),
        ret.address: (), jump.address: (),
    }  # fmt: skip


def test_a_function_may_begin_where_there_is_no_symbol(program):
    made = program(SOME)
    entry = made.address("second")
    inner = made.function(entry + 5)
    assert (inner.name, mnemonics(inner), inner.truncated) == (hex(entry + 5), ["ret"], None)
    made = program("fn some\n nop\n nop\n ret\nend some\n")
    inner = made.function(made.address("some") + 1)
    assert (mnemonics(inner), inner.tails) == (["nop"], {})  # what follows is of another function


def test_a_cold_part_belongs_to_its_function_and_to_no_other(program):
    """GCC puts what is hardly run into .text.unlikely, as a symbol of its own."""
    made = program("""
fn some
 test %eax, %eax
 je some.cold
 js other.cold
 ret
end some
fn some.cold
 pause
 jmp some
end some.cold
fn other.cold
 pause
 ret
end other.cold
""")
    some = made.function_of("some")
    assert sorted(mnemonics(some)) == sorted(["test", "je", "js", "ret", "pause", "jmp"])
    assert list(some.tails.values()) == [made.address("other.cold")]


def test_a_jump_behind_the_end_of_a_function_leaves_it(program):
    made = program("fn some\n test %eax, %eax\n je 1f\n ret\nend some\n nop\n1: ret\n")
    some = made.function_of("some")
    assert mnemonics(some) == ["test", "je", "ret"]
    assert len(some.tails) == 1


def test_without_sizes_a_function_ends_where_another_begins(program):
    text = "fn some\n test %eax, %eax\n je 1f\n js other\n ret\n1: nop\n ret\nfn other\n ret\n"
    made = program(text, Wanted(("other",)))
    some = made.function_of("some")
    assert mnemonics(some) == ["test", "je", "js", "ret", "nop", "ret"]
    assert list(some.tails.values()) == [made.address("other")]


def test_what_static_cpu_has_keeps_elsewhere_belongs_to_the_function(program):
    text = 'fn some\n jmp 1f\n2: ret\nend some\n.section .altinstr_aux, "ax"\n1: pause\n jmp 2b\n.text\n'
    made = program(text)
    some = made.function_of("some")
    assert sorted(mnemonics(some)) == ["jmp", "jmp", "pause", "ret"]
    assert some.tails == {}
    section = made.kernel.section(".altinstr_aux")
    first, end = section.address, section.address + section.size
    assert [made.is_auxiliary(at) for at in (first - 1, first, end - 1, end)] == [False, True, True, False]


@pytest.mark.parametrize(("count", "whole"), [(MAX_FUNCTION, True), (MAX_FUNCTION + 1, False)])
def test_what_is_too_long_is_no_function(program, count, whole):
    made = program(f"fn long\n.rept {count - 1}\n nop\n.endr\n ret\nend long\n")
    function = made.function_of("long")
    assert len(function.nodes) == MAX_FUNCTION
    assert function.truncated == (None if whole else f"more than {MAX_FUNCTION} instructions")


def test_no_more_is_read_of_a_kernel_than_seconds_of_work(program):
    functions = MAX_INSTRUCTIONS // MAX_FUNCTION
    text = "".join(f"fn f{number}\n.rept {MAX_FUNCTION}\n nop\n.endr\nend f{number}\n" for number in range(functions))
    made = program(text + "fn last\n nop\n ret\nend last\n")
    for number in range(functions):
        assert len(made.function_of(f"f{number}").nodes) == MAX_FUNCTION
    last = made.function_of("last")
    assert (len(last.nodes), last.truncated) == (0, "more than 0 instructions")


def test_what_is_no_instruction_says_where(program):
    made = program("fn bad\n nop\n .byte 0x06\nend bad\n")
    bad = made.function_of("bad")
    assert mnemonics(bad) == ["nop"]
    assert bad.truncated == f"no instruction at {bad.entry + 1:#x}"


def test_the_last_instruction_of_a_segment_is_read(program):
    """There are not fifteen bytes from there on."""
    made = program("fn some\n nop\n ret\nend some\n")
    entry = made.address("some")
    assert made.fetch(entry + 1).mnemonic == "ret"
    assert made.fetch(entry + 2) is None
    assert made.fetch(0x1000) is None


def test_words_and_strings_of_the_file(program):
    made = program('fn some\n ret\nend some\n.data\n.globl text, word\nword: .quad 0x1122334455667788\ntext: .asciz "'
                   + 200 * "x" + '"\n.text\n')  # fmt: skip
    assert made.pointer(made.address("word")) == 0x1122334455667788
    assert made.pointer(0x1000) is None
    assert made.string(made.address("text")) == 128 * b"x"
    assert made.string(made.address("text"), 7) == 7 * b"x"
    assert made.string(made.address("text"), 300) == 200 * b"x"
    assert made.string(0x1000) == b""


def test_names_of_places(program):
    made = program(SOME, Wanted(("second",)))
    first, second = made.kernel.require("first").address, made.address("second")
    assert [made.name(at) for at in (first, first + 2, second, second + 5)] == [
        "first",
        "first+0x2",
        "second",
        "second+0x5",
    ]
    assert made.name(0x1000) == "0x1000"
    assert (made.is_known(second), made.is_known(first), made.is_known(second + 1)) == (True, False, False)
    assert (made.symbol_at(second).name, made.symbol_at(first).name) == ("second", "first")
    assert made.symbol_at(first + 2) is made.symbol_at(0x1000) is None


@pytest.mark.parametrize(("by", "name", "found"), [
    ("clang version 18", "some.llvm.1234567", True), ("gcc", "some.llvm.1234567", False),
    ("clang version 18", "some.other.1", False), ("clang version 18", "someone.llvm.1", False),
])  # fmt: skip
def test_clang_gives_a_static_function_a_name_with_a_hash(program, by, name, found):
    made = program(f"fn {name}\n ret\nend {name}\n", Wanted(("some*",)), banner=BANNER.replace("{by}", by))
    assert (made.find("some") is not None) is found
    assert made.find("someone") is None


def test_a_name_that_exists_comes_before_its_variants(program):
    text = "".join(f"fn {name}\n ret\nend {name}\n" for name in ("some", "some.part.0"))
    assert program(text, Wanted(("some*",))).find("some").name == "some"


HAS = " testb $1, mask(%rip)\n jne 2b\n jmp 3b\n"
"""What _static_cpu_has() puts elsewhere (arch/x86/include/asm/cpufeature.h)."""


@pytest.mark.parametrize(("code", "belongs"), [
    (HAS, True),
    (HAS.replace("testb", "cmpb"), False), (HAS.replace("testb $1, mask(%rip)", "test %al, %al"), False),
    (HAS.replace("jne", "je"), False), (HAS.replace("jmp 3b", "jne 3b"), False), (HAS.replace("jmp 3b", "ret"), False),
    (HAS.replace("2b", "4f"), False), (HAS.replace("3b", "4f"), False), (HAS.replace("jmp 3b", ".byte 0x06"), False),
])  # fmt: skip
def test_without_section_headers_it_is_known_by_its_code(program, code, belongs):
    """Both its labels lie in the function that asks; behind another function it is found by no symbol."""
    text = "fn some\n jmp 1f\n2: pause\n3: ret\nend some\nfn other\n nop\n ret\nend other\n"
    made = program(f"{text}1:\n{code}4: ud2\n.data\nobj mask, 8\n.text\n")
    some = made.function_of("some")
    assert (mnemonics(some).count("test") == 1) is belongs
    assert len(some.tails) == (0 if belongs else 1)
    if belongs:
        assert sorted(mnemonics(some)) == ["jmp", "jmp", "jne", "pause", "ret", "test"]


def test_what_a_symbol_is_known_as(program):
    made = program("".join(f"fn {name}\n ret\nend {name}\n" for name in ("__fentry__", "panic", "printk", "other")))
    kinds = {
        name: (made.is_thunk(at), made.is_complaint(at), made.is_noise(at))
        for name in ("__fentry__", "panic", "printk", "other")
        for at in [made.kernel.require(name).address]
    }
    assert kinds == {
        "__fentry__": (True, False, False), "panic": (False, True, True), "printk": (False, False, True),
        "other": (False, False, False),
    }  # fmt: skip


def test_without_section_headers_nothing_is_auxiliary_by_its_place(program):
    made = program("fn some\n ret\nend some\n")
    assert not made.is_auxiliary(0)


def test_of_two_names_for_one_place_the_first_is_shown(program):
    made = program("fn some\n ret\nend some\n.globl alias, zeroth\n.set alias, some\n.set zeroth, some\n",
                   Wanted(("zeroth", "alias", "some")))  # fmt: skip
    assert made.name(made.address("some")) == made.symbol_at(made.address("some")).name == "alias"


def test_whether_data_symbols_were_recovered_is_said_by_the_kernel(program):
    made = program("fn some\n ret\nend some\n")
    assert made.recovered is False
    made.kernel.supplemented = True
    assert made.recovered is True


def test_each_name_is_looked_up_once(program):
    """A pass over the symbols of a kernel with DWARF costs more than reading its code."""
    made = program("fn some\n ret\nend some\nfn other\n ret\nend other\n", Wanted(("some", "missing")))
    assert made.find("some").name == "some"
    look_up, asked = made.kernel.symbols, []

    def looked_up(names):
        asked.append(sorted(names))
        return look_up(asked[-1])

    made.kernel.symbols = looked_up
    assert made.find("missing") is made.find("some.cold") is None
    assert made.find("other").name == made.find("other").name == "other"
    assert made.find("some.cold") is None
    assert asked == [["some.cold"], ["other"]]
    assert made.undeclared.keys() == {"some.cold", "other"}


def test_a_kernel_that_does_not_say_its_compiler_has_no_names_of_clang(made):
    text = ".text\nfn some.llvm.1\n ret\nend some.llvm.1\n"
    parts = {**dict.fromkeys(PARTS, ""), "alone": text}
    with open_kernel(made.path(**parts)) as kernel:
        with pytest.raises(MissingFact):
            _ = kernel.banner
        assert Program(kernel, Wanted(("some*",))).find("some") is None
